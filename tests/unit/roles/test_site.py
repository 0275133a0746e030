"""site.yml and the other playbooks: the order of the promise, and that a failure stops what follows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PLAYBOOKS = [
    ROOT / "site.yml",
    *(
        ROOT / f"playbooks/{name}.yml"
        for name in ("update", "preflight", "gc", "rollback", "backup", "restore", "uninstall")
    ),
]


def _plays(path: Path) -> list[dict[str, Any]]:
    plays = yaml.safe_load(path.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = []
    for play in plays:
        name = play.get("ansible.builtin.import_playbook")
        found += _plays(path.parent / name) if name else [play]
    return found


def _roles(play: dict[str, Any]) -> list[str]:
    """The roles that a play runs, in order."""
    found = [role["role"] for role in play.get("roles", [])]
    for task in play.get("tasks", []):
        for inner in [task, *task.get("block", [])]:
            for word in ("ansible.builtin.import_role", "ansible.builtin.include_role"):
                if word in inner:
                    found.append(inner[word]["name"])
    return found


def test_site_runs_every_role_in_the_order_of_the_promise() -> None:
    order = [role for play in _plays(ROOT / "site.yml") for role in _roles(play)]
    steps = [role for number, role in enumerate(order) if role not in order[:number]]
    assert steps == ["preflight", "plan", "host", "firewall", "mirror", "seed", "registries", "k3s", "verify"]


def test_every_role_is_run_by_a_playbook() -> None:
    run = {role for path in PLAYBOOKS for play in _plays(path) for role in _roles(play)}
    assert run == {path.parent.parent.name for path in ROOT.glob("roles/*/tasks/main.yml")}


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.name)
def test_a_host_that_fails_stops_the_next_step(path: Path) -> None:
    for play in _plays(path):
        if play["hosts"] != "localhost":
            assert play["any_errors_fatal"] is True, play["name"]
        for task in play.get("tasks", []):
            if "rescue" in task:
                assert "ansible.builtin.fail" in task["rescue"][-1], play["name"]


def test_nothing_acts_before_the_plan_whatever_tags_are_asked_for() -> None:
    plays = _plays(ROOT / "site.yml")
    planned = next(number for number, play in enumerate(plays) if "plan" in _roles(play))
    assert all("always" in play["tags"] for play in plays[: planned + 1])
    *acting, last = plays[planned + 1 :]
    assert all("always" not in play["tags"] for play in acting)
    assert all("site.appliance.outcome" in task for task in last["tasks"]), "it only says what is served"


def test_nothing_goes_before_all_was_shown_and_agreed_to() -> None:
    first, *others = _plays(ROOT / "playbooks/uninstall.yml")
    assert first["tags"] == ["always"] and "serial" not in first, "one plan for all hosts, whatever tags are asked for"
    roles = [task["ansible.builtin.import_role"] for task in first["tasks"] if "site.appliance.outcome" not in task]
    assert [role["tasks_from"] for role in roles] == ["plan"]
    assert [play["hosts"] for play in others] == ["k3s_agents", "k3s_servers", "k3s_cluster"]
    assert others[1]["serial"] == 1
    assert all("site.appliance.outcome" in task for task in others[-1]["tasks"]), "it only says what is left"
    tasks = yaml.safe_load((ROOT / "roles/uninstall/tasks/plan.yml").read_text(encoding="utf-8"))
    acting = [task for task in tasks if any(word.startswith("site.appliance.") for word in task)]
    assert len(acting) == 5 and all(task["check_mode"] is True for task in acting)


@pytest.mark.parametrize("name", ["site.yml", "playbooks/update.yml"])
def test_a_choice_of_tags_ends_with_a_sentence_too(name: str) -> None:
    last = _plays(ROOT / name)[-1]
    assert last["tags"] == ["always"]
    assert ["site.appliance.outcome" in task for task in last["tasks"]] == [True]


def test_servers_go_one_at_a_time() -> None:
    (servers,) = [play for play in _plays(ROOT / "site.yml") if play["hosts"] == "k3s_servers"]
    assert servers["serial"] == 1


def _ansible(*arguments: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "inventory/example", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_playbook_parses_with_every_role_it_names() -> None:
    _ansible("--syntax-check", *[str(path) for path in PLAYBOOKS])


def test_every_role_has_its_own_tag() -> None:
    shown = _ansible("--list-tags", "site.yml")
    for role in ("preflight", "plan", "host", "firewall", "mirror", "seed", "registries", "k3s", "verify"):
        assert role in shown


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def test_lines_are_joined_by_an_end_of_line_and_not_by_its_name() -> None:
    """In a block scalar YAML leaves the backslash, and Ansible then keeps it from Jinja: the operator reads backslash n."""
    found = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/*.yml"), ROOT / "site.yml"]
        for text in _texts(yaml.safe_load(path.read_text(encoding="utf-8")))
        if "join('\\n')" in text
    ]
    assert found == []
