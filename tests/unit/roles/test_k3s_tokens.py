"""Agents join by a token of their own, and what they had of the servers' goes: the tasks themselves, on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles/k3s"
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
# Nothing listens there, so it is answered at once.
DOWN = {"ansible_host": "127.0.0.1", "ansible_port": 1}
DERIVED = ("__k3s_token_files", "__k3s_tokens_gone")


def load(name: str) -> Any:
    return yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))


def play(
    root: Path, hosts: Mapping[str, Mapping[str, Any]], on: str, tasks: Sequence[Any], **variables: Any
) -> tuple[int, str]:
    """Run tasks on one host, with the role's own expressions for what follows from the variables."""
    own = load("vars/main.yml")
    given = {
        **{name: own[name] for name in DERIVED},
        "__k3s_role": "agent",
        "__k3s_is_first": False,
        "__k3s_first": "first",
        "k3s_server_group": "k3s_servers",
        "k3s_no_log": True,
        "k3s_token_file": str(root / "cluster-token"),
        "k3s_agent_token_file": str(root / "agent-token"),
        **variables,
    }
    (root / "play.yml").write_text(
        yaml.safe_dump([{"hosts": on, "gather_facts": False, "vars": given, "tasks": list(tasks)}])
    )
    (root / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {**hosts}}}))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", str(root / "hosts.yml"), str(root / "play.yml")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def tokens(root: Path, first: Mapping[str, Any], present: Sequence[str] = ()) -> tuple[int, str]:
    """Give an agent its token; the first server is this machine too, unless it is down."""
    tasks = [task for task in load("tasks/config.yml") if "token" in task["name"]]
    assert len(tasks) == 5
    return play(root, {"first": first, "c": LOCAL}, "c", tasks, __k3s_now={"present": list(present)})


def test_an_agent_gets_the_agents_token_alone(tmp_path: Path) -> None:
    (tmp_path / "agent-token").write_text("a secret\n")
    code, said = tokens(tmp_path, LOCAL)
    assert code == 0 and "a secret" not in said
    assert (tmp_path / "agent-token").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "cluster-token").exists()


def test_where_the_servers_have_none_for_agents_yet_it_says_so(tmp_path: Path) -> None:
    """After an update of the appliance, with --limit on an agent."""
    (tmp_path / "cluster-token").write_text("a secret\n")
    code, said = tokens(tmp_path, LOCAL, [str(tmp_path / "cluster-token")])
    assert code == 2 and "APL-0880" in said and "[first]" in said and "a secret" not in said


def test_where_the_first_server_is_off_a_node_with_its_token_goes_on(tmp_path: Path) -> None:
    code, said = tokens(tmp_path, DOWN, [str(tmp_path / "agent-token")])
    assert code == 0, said
    code, said = tokens(tmp_path, DOWN)
    assert code == 2 and "APL-0829" in said and "APL-0880" not in said


def test_the_servers_token_goes_from_agents_alone(tmp_path: Path) -> None:
    for name in ("server", "agent"):
        (tmp_path / name).write_text("a secret\n")
    (task,) = [task for task in load("tasks/start.yml") if "Take the servers' token" in task["name"]]
    given = {"__k3s_role": "{{ inventory_hostname }}", "k3s_token_file": f"{tmp_path}/{{{{ inventory_hostname }}}}"}
    code, said = play(tmp_path, {"server": LOCAL, "agent": LOCAL}, "all", [task], **given)
    assert code == 0, said
    assert (tmp_path / "server").exists() and not (tmp_path / "agent").exists()


def test_it_goes_only_after_the_agent_is_ready_with_its_own() -> None:
    names = [task["name"] for task in load("tasks/start.yml")]
    assert names.index("start | Wait until the node is Ready") < names.index(
        "start | Take the servers' token away from an agent"
    )


def test_the_plan_of_a_site_from_before_says_what_becomes_of_tokens(tmp_path: Path) -> None:
    """Each node is one host of the play; K3s runs on it, and nothing but tokens differs."""
    own, theirs = str(tmp_path / "agent-token"), str(tmp_path / "cluster-token")
    nodes = {
        "before-server": ("server", {own: "", theirs: "1"}, ["/config.yaml"]),
        "before-agent": ("agent", {own: "", theirs: "1"}, ["/config.yaml"]),
        "now-server": ("server", {own: "2", theirs: "1"}, []),
        "now-agent": ("agent", {own: "2"}, []),
        # The token of agents was made anew on the first server.
        "rotated": ("agent", {own: "3"}, []),
    }
    hosts = {name: {**LOCAL, **_node(*node)} for name, node in nodes.items()}
    hosts["first"] = {**LOCAL, "__k3s_now": {"files": {own: "2", theirs: "1"}}}
    (task,) = [task for task in load("tasks/plan.yml") if task["name"] == "plan | Say what would change"]
    content = {
        "content": "{{ __k3s_plan | to_json }}",
        "dest": f"{tmp_path}/{{{{ inventory_hostname }}}}",
        "mode": "0600",
    }
    code, said = play(
        tmp_path,
        hosts,
        "all:!first",
        [task, {"ansible.builtin.copy": content}],
        __k3s_role="{{ part }}",
        __k3s_path="/k3s",
        __k3s_unit="k3s",
        __k3s_config_file="/config.yaml",
        __k3s_dropins_now={"written": [], "removed": []},
        __k3s_artifacts={"binary_sha256": "0" * 64},
    )
    assert code == 0, said
    restart = "k3s.service restarts"
    assert {name: json.loads((tmp_path / name).read_text()) for name in nodes} == {
        "before-server": [
            "/config.yaml is written",
            f"{own} is written: agents get a token of their own; K3s restarts on the servers, one at a time, then on the agents",
            restart,
        ],
        "before-agent": [
            "/config.yaml is written",
            f"{own} is written: this agent joins by it from now on",
            f"{theirs} is removed: it is the servers' token, with which this agent was administrator of the cluster",
            restart,
        ],
        "now-server": [],
        "now-agent": [],
        "rotated": [f"{own} is written", restart],
    }


def _node(role: str, files: Mapping[str, str], differing: Sequence[str]) -> dict[str, Any]:
    now = {
        "active": True,
        "outdated": False,
        "files": dict(files),
        "present": [path for path, digest in files.items() if digest],
        "images_needed": [],
        "images_stale": [],
        "version_output": "k3s version v1.36.3+k3s1",
    }
    return {"part": role, "__k3s_now": now, "__k3s_differing": list(differing)}
