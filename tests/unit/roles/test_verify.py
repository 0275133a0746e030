"""Role verify: it reads, and hands the filter all that it wants."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles/verify"
FILTER = ROOT / "collections/ansible_collections/site/appliance/plugins/filter/verify.py"


def tasks() -> list[dict[str, Any]]:
    (block,) = yaml.safe_load((ROLE / "tasks/main.yml").read_text(encoding="utf-8"))
    assert block["tags"] == ["verify"]
    found: list[dict[str, Any]] = block["block"]
    return found


def test_nothing_counts_as_changed() -> None:
    for task in tasks():
        if "ansible.builtin.command" in task:
            assert task["changed_when"] is False, task["name"]


def test_a_node_that_answers_nothing_is_a_row_and_not_the_end() -> None:
    for task in tasks():
        if "ansible.builtin.command" in task:
            assert task["failed_when"] is False, task["name"]


def test_the_filter_gets_what_it_reads() -> None:
    (judge,) = [task for task in tasks() if task["name"] == "Judge the node"]
    text = FILTER.read_text(encoding="utf-8")
    body = text[text.index("def verify_node") : text.index("def verify_site")]
    read = set(re.findall(r'spec(?:\.get\(|\[)"(\w+)"', body))
    assert read == set(judge["vars"]["__verify_spec"])


def test_all_nodes_are_judged_before_anything_fails() -> None:
    last = tasks()[-1]
    assert "ansible.builtin.assert" in last and last["run_once"] is True
    assert not [task for task in tasks()[:-1] if "ansible.builtin.assert" in task or "ansible.builtin.fail" in task]
