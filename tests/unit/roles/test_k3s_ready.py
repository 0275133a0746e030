"""A node that does not become Ready stops the run: the tasks themselves, with stand-ins for K3s, systemctl and journalctl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
VERSION = "v1.36.3+k3s1"


def node(*, ready: bool = True, version: str = VERSION, voter: bool = True) -> str:
    conditions = [
        {"type": "Ready", "status": "True" if ready else "False", "message": "the runtime is down"},
        {"type": "EtcdIsVoter", "status": "True" if voter else "False"},
    ]
    status = {"conditions": conditions, "nodeInfo": {"kubeletVersion": version}}
    return json.dumps({"kind": "Node", "metadata": {"name": "n1"}, "status": status})


def wait(
    tmp_path: Path, kubectl: str, *, role: str = "agent", servers: int = 1, is_up: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the waiting block of the role.

    :param kubectl: what it answers, or nothing for a failure.
    :param is_up: whether the unit is up.
    """
    scripts = {
        "systemctl": f"exit {0 if is_up else 3}",
        "journalctl": "echo its last words",
        "k3s": f"cat <<'X'\n{kubectl}\nX" if kubectl else "echo no route to the server >&2; exit 1",
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    tasks = yaml.safe_load((ROOT / "roles/k3s/tasks/start.yml").read_text())
    (block,) = [task for task in tasks if task["name"] == "start | Wait until the node is Ready"]
    variables: dict[str, Any] = {
        "__k3s_unit": "k3s",
        "__k3s_path": str(tmp_path / "k3s"),
        "__k3s_role": role,
        "__k3s_asked": "localhost",
        "__k3s_servers": [f"s{number}" for number in range(servers)],
        "__k3s_version": VERSION,
        "k3s_node_name": "n1",
        "k3s_start_timeout": 2,
        "__k3s_delay": 1,
        "ansible_python_interpreter": sys.executable,
    }
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": [block]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(tmp_path / "play.yml")]
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    }
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def test_a_node_that_is_ready_lets_the_run_go_on(tmp_path: Path) -> None:
    done = wait(tmp_path, node(voter=False))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("kubectl", "role", "servers", "why"),
    [
        (node(ready=False), "agent", 1, "the runtime is down"),
        ("", "agent", 1, "not registered"),
        (node(version="v1.35.0+k3s1"), "agent", 1, f"it runs v1.35.0+k3s1, not {VERSION}"),
        (node(voter=False), "server", 3, "it has no vote in etcd"),
    ],
    ids=["not ready", "no answer", "the old version", "no vote in etcd"],
)
def test_a_node_that_does_not_become_ready_ends_the_run_with_the_reason(
    tmp_path: Path, kubectl: str, role: str, servers: int, why: str
) -> None:
    done = wait(tmp_path, kubectl, role=role, servers=servers)
    assert done.returncode != 0
    assert "APL-0825" in done.stdout and "its last words" in done.stdout
    assert why in done.stdout
    assert "failed=1 " in done.stdout and "rescued=0 " in done.stdout, "one error, and the wait's own is none"
    assert done.stdout.count("APL-0825: ") == 1 and "non-zero return code" not in done.stdout


@pytest.mark.parametrize("role", ["agent", "server"])
def test_a_unit_that_does_not_come_up_is_one_error(tmp_path: Path, role: str) -> None:
    done = wait(tmp_path, node(), role=role, is_up=False)
    words = "the unit is not up" + (", or its API does not answer" if role == "server" else "")
    assert f"APL-0825: K3s is not ready after 2 s [localhost]: {words}\n" in done.stdout
    assert "failed=1 " in done.stdout and "rescued=0 " in done.stdout
    assert "its last words" in done.stdout and "non-zero return code" not in done.stdout


def test_nothing_that_is_waited_for_in_vain_is_passed_over() -> None:
    """``failed_when: false`` makes a task succeed whose ``until`` never came true; what follows has to judge it then."""
    found = set()

    def look(item: Any, file: str) -> None:
        for value in item if isinstance(item, list) else item.values() if isinstance(item, dict) else ():
            look(value, file)
        if isinstance(item, dict) and "until" in item and item.get("failed_when") is False:
            found.add(f"{file}: {item['name']}")

    for file in (*ROOT.glob("roles/*/*/*.yml"), *ROOT.glob("playbooks/*.yml")):
        look(yaml.safe_load(file.read_text()), str(file.relative_to(ROOT)))
    assert found == {
        # An answer that does not come leaves the registries as they are.
        "roles/registries/tasks/validate.yml: validate | Ask the node's own mirror which registries the generation names",
        # The task behind them judges both, in one error (APL-0825).
        "roles/k3s/tasks/start.yml: start | Wait until the unit is up, and a server's API answers",
        "roles/k3s/tasks/start.yml: start | Wait until the node is Ready in the version that is installed",
        # Cells of the table.
        "roles/verify/tasks/main.yml: Ask the mirror for its state and its peers",
        "roles/verify/tasks/main.yml: Ask the cluster for its pods until none is on its way",
    }
