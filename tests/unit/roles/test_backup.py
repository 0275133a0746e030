"""Roles backup and restore: nothing acts before the yes, secrets stay out of the output, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
_SECRET = ("backup_token_file", "backup_agent_token_file", "__backup_password_file", "__backup_secrets", "k3s/nodes/{{")


def _tasks(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for task in tasks:
        parts = [task.get(key, []) for key in ("block", "rescue", "always")]
        found += [task] if not any(parts) else [inner for part in parts for inner in _tasks(part)]
    return found


def _file(role: str, name: str) -> list[dict[str, Any]]:
    return _tasks(yaml.safe_load((ROOT / f"roles/{role}/tasks/{name}.yml").read_text(encoding="utf-8")))


def test_a_restore_verifies_shows_refuses_and_asks_before_it_acts() -> None:
    tasks = _file("restore", "main")
    assert [task["name"] for task in tasks] == [
        "Verify the backup whole",
        "Look at what is there",
        "Hold it against the backup",
        "Show what would be put back",
        "Stop where it would replace what nobody asked to lose",
        "Ask whether to go on",
        "Put it back",
    ]
    assert "not ansible_check_mode" in tasks[-1]["when"]
    assert tasks[-2]["ansible.builtin.include_role"] == {"name": "plan", "tasks_from": "confirm"}
    reading = {"ansible.builtin.command", "ansible.builtin.fail"}
    assert all(reading & set(task) for task in _file("restore", "verify"))


@pytest.mark.parametrize("role", ["backup", "restore"])
def test_secrets_are_in_no_output(role: str) -> None:
    found = 0
    for path in (ROOT / f"roles/{role}/tasks").glob("*.yml"):
        for task in _file(role, path.stem):
            arguments = {key: value for key, value in task.items() if key != "name"}
            if any(word in str(arguments) for word in _SECRET):
                assert task["no_log"] is True, task["name"]
                found += 1
            if "ansible.builtin.copy" in task and "marker" not in str(arguments):
                assert task["diff"] is False, task["name"]
    assert found


@pytest.mark.parametrize(("role", "file"), [("backup", "main"), ("restore", "act")])
def test_what_was_made_on_the_way_is_taken_away_whatever_happens(role: str, file: str) -> None:
    text = yaml.safe_load((ROOT / f"roles/{role}/tasks/{file}.yml").read_text(encoding="utf-8"))
    made = [
        task["register"]
        for path in (ROOT / f"roles/{role}/tasks").glob("*.yml")
        for task in _file(role, path.stem)
        if "ansible.builtin.tempfile" in task
    ]
    always = str(text[0]["always"])
    assert len(made) >= 2
    assert all(name in always for name in made)
