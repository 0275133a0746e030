"""Nodes are changed over one after another, and one that does not come up goes back and stops the run.

The tasks that see to that are the role's own; what they include on a host is replaced by a word in a log.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.site.appliance.plugins.module_utils import releases

TASKS = Path(__file__).resolve().parents[3] / "roles/mirror/tasks"
NODES = ("a", "b", "c", "d")


def _say(word: str) -> dict[str, Any]:
    return {
        "name": word,
        "ansible.builtin.shell": f"echo {word} {{{{ inventory_hostname }}}} >> log; "
        f"! grep -qx '{word} {{{{ inventory_hostname }}}}' bad",
        "args": {"chdir": "{{ playbook_dir }}"},
    }


def _load(name: str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = yaml.safe_load((TASKS / name).read_text(encoding="utf-8"))
    return tasks


def _only_words(task: dict[str, Any]) -> dict[str, Any]:
    """The task with all that it would do replaced, and with its blocks, conditions and ends as they are."""
    if "block" in task:
        return {
            key: [_only_words(inner) for inner in value] if key in ("block", "rescue") else value
            for key, value in task.items()
        }
    if "ansible.builtin.fail" in task or task.get("register") == "__mirror_back":
        return task
    if task.get("ansible.builtin.include_tasks") == "restart.yml":
        kept = {key: task[key] for key in ("when",) if key in task}
        return {**_say("back" if "vars" in task else "restart"), **kept}
    if "ansible.builtin.set_fact" in task:
        return task
    return {"name": task["name"], "ansible.builtin.debug": {"msg": ""}}


def _run(tmp_path: Path, *bad: str) -> tuple[list[str], str]:
    """Run the turns on four hosts; ``bad`` are the words that fail. Returns the log and what was said."""
    (turn,) = [task for task in _load("services.yml") if "loop" in task]
    (switch,) = _load("switch.yml")
    words = _only_words(switch)
    (tmp_path / "switch.yml").write_text(yaml.safe_dump([words]))
    play = {
        "hosts": "all",
        "connection": "local",
        "gather_facts": False,
        "any_errors_fatal": True,
        "vars": {
            "__mirror_is_due": "{{ inventory_hostname != 'd' }}",
            "__mirror_release": {"name": "2"},
            "__mirror_root": str(tmp_path),
            "ansible_python_interpreter": sys.executable,
        },
        "tasks": [turn, _say("after")],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    (tmp_path / "bad").write_text("".join(f"{word}\n" for word in bad))
    (tmp_path / "log").touch()
    (tmp_path / "releases/1/venv/bin").mkdir(parents=True)
    (tmp_path / "releases/1/venv/bin/python").symlink_to(sys.executable)
    (tmp_path / "releases/1" / releases.MARKER).write_text("{}")
    releases.keep(tmp_path, {"release": "1", "files": {}})
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", ",".join(NODES), str(tmp_path / "play.yml")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(TASKS.parents[2] / "ansible.cfg")},
    )
    # Long lines are folded where they are shown.
    return (tmp_path / "log").read_text().split("\n")[:-1], " ".join((done.stdout + done.stderr).split())


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The log of a run in which nothing fails."""
    log, said = _run(tmp_path_factory.mktemp("good"))
    assert "failed=1" not in said, said
    return log


def test_every_node_that_is_due_has_its_turn_and_the_others_none(good: list[str]) -> None:
    assert sorted(good[:3]) == ["restart a", "restart b", "restart c"]
    assert sorted(good[3:]) == [f"after {node}" for node in NODES]


def test_a_node_that_does_not_come_up_goes_back_and_nothing_follows(tmp_path: Path) -> None:
    log, said = _run(tmp_path, *(f"restart {node}" for node in NODES))
    ((first, then), node) = log, log[0].split()[1]
    assert (first, then) == (f"restart {node}", f"back {node}"), "one node alone was touched"
    assert f"APL-0769: {node}: the services did not come up with release 2" in said
    assert "release 1 runs again" in said
    assert os.readlink(tmp_path / "current") == "releases/1"


def test_one_that_does_not_even_go_back_says_both(tmp_path: Path) -> None:
    both = [f"{word} {node}" for word in ("restart", "back") for node in NODES]
    log, said = _run(tmp_path, *both)
    assert len(log) == 2
    assert "release 2 does not run, nor does 1 any more" in said
