"""Role rollback: it looks before it acts, acts once, and only on what was shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROLE = Path(__file__).resolve().parents[3] / "roles/rollback"


def tasks(file: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((ROLE / "tasks" / file).read_text(encoding="utf-8"))
    return [inner for task in found for inner in task.get("block", [task])]


def test_looking_changes_nothing_and_happens_in_check_mode_too() -> None:
    (look,) = [task for task in tasks("look.yml") if "site.appliance.job" in task]
    assert "'--plan'" in look["site.appliance.job"]["argv"]
    assert (look["changed_when"], look["check_mode"]) == (False, False)


def test_only_what_was_shown_is_published_and_the_log_learns_who_it_was() -> None:
    (act,) = [task for task in tasks("publish.yml") if "site.appliance.job" in task]
    assert "'--expect', __rollback_images.plan_id" in act["site.appliance.job"]["argv"]
    assert "check_mode" not in act
    assert set(act["environment"]) == {"APPLIANCE_BY"}


def test_it_is_shown_and_asked_for_before_anything_acts_and_proved_after() -> None:
    names = [task["name"] for task in tasks("main.yml")]
    order = [
        "Stop where it is not said which generation is meant",
        "Look at the older generation",
        "Show what would change",
        "Ask whether to go on",
        "Go back on the publisher",
        "Wait until every node serves it",
        "Prove that every node answers every name",
    ]
    assert [name for name in names if name in order] == order
    asked = next(task for task in tasks("main.yml") if task["name"] == "Ask whether to go on")
    assert asked["ansible.builtin.include_role"] == {"name": "plan", "tasks_from": "confirm"}
    assert "not rollback_confirm | bool" in asked["when"]
