"""Role k3s: the unit, when a restart is due, and that planning changes nothing."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible_collections.site.appliance.plugins.filter import k3s

ROOT = Path(__file__).resolve().parents[3]
PLUGINS = ROOT / "collections" / "ansible_collections" / "site" / "appliance" / "plugins"
ROLE = ROOT / "roles/k3s"


def load(name: str) -> Any:
    return yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))


def resolve(text: str, values: dict[str, Any]) -> str:
    """A variable's text with the plain variables in it, as Ansible would do it."""
    while "{{" in text:
        text = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(text).render(values)
    return text


def values(**more: Any) -> dict[str, Any]:
    found = {**load("defaults/main.yml"), **load("vars/main.yml"), "__k3s_role": "server", "__k3s_unit": "k3s", **more}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def unit(**more: Any) -> dict[str, list[str]]:
    text = resolve((ROLE / "templates/k3s.service.j2").read_text(encoding="utf-8"), values(**more))
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize(("role", "name"), [("server", "k3s"), ("agent", "k3s-agent")])
def test_the_unit_has_what_k3s_wants(role: str, name: str) -> None:
    found = unit(__k3s_role=role, __k3s_unit=name)
    assert found["ExecStart"] == [f"/usr/local/bin/k3s {role}"]
    wanted = {
        "Type": "notify",
        "KillMode": "process",
        "Delegate": "yes",
        "LimitNOFILE": "1048576",
        "LimitNPROC": "infinity",
        "LimitCORE": "infinity",
        "TasksMax": "infinity",
        "TimeoutStartSec": "0",
        "Restart": "always",
        "RestartSec": "5s",
        "WantedBy": "multi-user.target",
    }
    assert {key: found[key] for key in wanted} == {key: [value] for key, value in wanted.items()}


def test_the_mirror_comes_first_but_is_not_needed() -> None:
    found = unit()
    assert found["After"] == ["network-online.target appliance-mirror.service"]
    assert not found.keys() & {"Requires", "BindsTo", "Requisite", "PartOf"}


def test_nothing_before_the_start_can_stop_it() -> None:
    assert all(command.startswith("-") for command in unit()["ExecStartPre"])


def test_a_server_starts_again_after_another_token_for_agents(tmp_path: Path) -> None:
    """K3s with SQLite refuses a start where its file of passwords is younger than what it stored at the first one."""
    (touch,) = (command for command in unit()["ExecStartPre"] if "touch" in command)
    assert not any("touch" in command for command in unit(__k3s_role="agent")["ExecStartPre"])
    words = touch.removeprefix("-").split()
    assert words[-1] == "/var/lib/rancher/k3s/server/cred/passwd"
    (tmp_path / "passwd").write_text("x")
    for name in ("passwd", "not-there"):
        subprocess.run([*words[:-1], tmp_path / name], check=True)
    assert (tmp_path / "passwd").stat().st_mtime == 0 and not (tmp_path / "not-there").exists()


@pytest.fixture
def node(tmp_path: Path) -> Path:
    for name in (
        "usr/local/bin/k3s",
        "etc/rancher/k3s/config.yaml",
        "etc/rancher/k3s/registries.yaml",
        "var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d/20-appliance.toml",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")
    return tmp_path


def inputs(root: Path, **more: Any) -> str:
    command = resolve(load("vars/main.yml")["__k3s_inputs_command"], values(**more))
    command = re.sub(r"(?<= )/(?=usr|etc|var)", f"{root}/", command)
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(
    "name",
    [
        "usr/local/bin/k3s",
        "etc/rancher/k3s/config.yaml",
        "etc/rancher/k3s/registries.yaml",
        "etc/rancher/k3s/cluster-token",
        "etc/rancher/k3s/agent-token",
        "etc/rancher/k3s/config.yaml.d/10-site.yaml",
        "etc/systemd/system/k3s.service",
        "var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d/20-appliance.toml",
        "var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d/30-new.toml",
    ],
)
def test_a_restart_is_due_when_what_a_start_goes_by_changes(node: Path, name: str) -> None:
    before = inputs(node)
    assert before and inputs(node) == before
    (node / name).parent.mkdir(parents=True, exist_ok=True)
    (node / name).write_text("2\n")
    assert inputs(node) != before


def test_a_start_of_an_agent_goes_by_its_own_token_alone(node: Path) -> None:
    """The servers' token is taken away from it after its start, which is no reason for another one."""
    agent = {"__k3s_role": "agent", "__k3s_unit": "k3s-agent"}
    before = inputs(node, **agent)
    (node / "etc/rancher/k3s/cluster-token").write_text("1\n")
    assert inputs(node, **agent) == before
    (node / "etc/rancher/k3s/agent-token").write_text("1\n")
    assert inputs(node, **agent) != before


def test_a_removed_dropin_is_a_reason_and_an_image_is_none(node: Path) -> None:
    before = inputs(node)
    images = node / "var/lib/rancher/k3s/agent/images"
    images.mkdir()
    (images / "a.tar").write_text("x")
    assert inputs(node) == before
    (node / "var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d/20-appliance.toml").unlink()
    assert inputs(node) != before


def test_the_tokens_places_are_the_filters() -> None:
    found = load("defaults/main.yml")
    assert (found["k3s_token_file"], found["k3s_agent_token_file"]) == (k3s.TOKEN_FILE, k3s.AGENT_TOKEN_FILE)


def test_the_dropins_mark_is_the_filters() -> None:
    assert load("vars/main.yml")["__k3s_dropin_marker"] == k3s.DROPIN_MARKER


def test_archives_are_staged_outside_the_watched_directory_on_its_file_system() -> None:
    found = values()
    staging, images = (Path(resolve(found[name], found)) for name in ("__k3s_staging", "__k3s_images"))
    assert staging.parent == images.parent and images not in [staging, *staging.parents]


def test_the_plan_changes_nothing() -> None:
    for name in ("tasks/plan.yml", "tasks/validate.yml", "tasks/needs.yml"):
        for task in load(name):
            if {"site.appliance.marked_files", "site.appliance.airgap_images"} & task.keys():
                assert task["check_mode"] is True and task["changed_when"] is False, task["name"]
            elif "ansible.builtin.command" in task:
                assert task["changed_when"] is False, task["name"]
            else:
                reads = {
                    f"ansible.builtin.{module}"
                    for module in ("stat", "assert", "fail", "debug", "set_fact", "import_tasks", "setup")
                }
                assert reads & task.keys() or any(name.endswith("_info") for name in task), task["name"]


def _tasks(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        inner for task in items for inner in [task, *_tasks(task.get("block", [])), *_tasks(task.get("rescue", []))]
    ]


def test_secrets_are_not_logged() -> None:
    """Whatever reads or writes the token or the kubeconfig hides its result."""
    for name in ("tasks/config.yml", "tasks/start.yml"):
        for task in _tasks(load(name)):
            arguments = str(task.get("ansible.builtin.slurp", "")) + str(task.get("ansible.builtin.copy", ""))
            if "b64decode" in arguments or "ansible.builtin.slurp" in task:
                assert task["no_log"] == "{{ k3s_no_log }}", task["name"]
                assert task.get("diff", False) is False, task["name"]


def test_every_filter_and_module_that_a_role_names_exists() -> None:
    known = set(_filters())
    for kind in ("modules", "action", "lookup"):
        known |= {path.stem for path in PLUGINS.glob(f"{kind}/*.py")}
    for path in ROOT.glob("roles/*/*/*.yml"):
        named = set(re.findall(r"site\.appliance\.(\w+)", path.read_text(encoding="utf-8")))
        assert named <= known, path


def test_no_two_filters_have_the_same_name() -> None:
    """Ansible would take either of them, by the order in which it reads the files."""
    found = _filters()
    assert sorted(found) == sorted(set(found))


def _filters() -> list[str]:
    """The names of all filters of the collection."""
    found: list[str] = []
    for path in PLUGINS.glob("filter/*.py"):
        module = importlib.import_module(f"ansible_collections.site.appliance.plugins.filter.{path.stem}")
        found += module.FilterModule().filters()
    return found
