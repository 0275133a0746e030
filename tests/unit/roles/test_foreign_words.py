"""Words of nodes, media and peers in Ansible: no template, no control, and no line of their own."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import FORGED, HOSTILE, acting, assert_harmless
from tests.unit.cli.test_foreign_words import BLOB, PLAN, PROBLEM, status
from tests.unit.roles.test_screen import LOCAL, run

TAME = "tame"
NAMES = ("plan", "seed", "gc", "backup", "restore", "mirror", "uninstall", "verify", "k3s_images", "preflight")
FILTERS: dict[str, Any] = {
    name: function
    for file in NAMES
    for name, function in importlib.import_module(f"ansible_collections.site.appliance.plugins.filter.{file}")
    .FilterModule()
    .filters()
    .items()
}
IMAGES = {
    **PLAN,
    "generation": {"number": 3, "digest": HOSTILE},
    "staged_until": HOSTILE,
    "missing": [],
    "target": None,
}
NODE = {
    "host": "a",
    "changes": [HOSTILE],
    "restarts": [HOSTILE],
    "writes": 1,
    "staged": 0,
    "exact": True,
    "free": 5,
    "mount": HOSTILE,
}
SAID = {"rc": 1, "stdout": json.dumps(IMAGES), "stderr": f"APL-0101: {HOSTILE}".replace("\n", "\\n")}
SPEC = {
    "name": "a",
    "version": "v1",
    "state": {"version": HOSTILE, "why": HOSTILE},
    "status": json.dumps({**status(), "generation": {"number": HOSTILE, "digest": HOSTILE}, "wanted_missing": 1}),
    "expected": None,
    "wildcard": True,
    "image": HOSTILE,
    "pull_rc": 1,
    "pull_error": HOSTILE.replace("\n", " \\n"),
    "proof": json.dumps({"wrong": [dict.fromkeys(("name", "answered", "expected"), HOSTILE)]}),
}
PACKED = {
    "archive": HOSTILE,
    "bytes": 1,
    "about": {
        "site": HOSTILE,
        "publisher": HOSTILE,
        "store": {
            "generation": {"number": HOSTILE},
            "names": 1,
            "pushes": None,
            "pins": None,
            "pushed_blobs": True,
            "missing": [HOSTILE],
            "media": [HOSTILE],
        },
        "k3s": {"datastore": "none"},
    },
    "files": [{"name": HOSTILE, "size": 1}],
}
WRONG = {"stdout": json.dumps({"wrong": [dict.fromkeys(("name", "answered", "expected"), HOSTILE)]})}
LEAVING = {"leaving": [HOSTILE], "silent": [HOSTILE], "only_there": [BLOB], "at_risk": [BLOB]}
CASES: dict[str, tuple[Any, ...]] = {
    "plan_text": (IMAGES, [NODE]),
    "plan_screen": (IMAGES, [NODE]),
    "plan_refusal": (SAID,),
    "seed_wrong": ({"a": WRONG},),
    "mirror_departures": ("", ["a"], LEAVING),
    "backup_text": (PACKED, ["a"]),
    "verify_node": (SPEC,),
    "k3s_missing_lines": ({"a": [{"image": HOSTILE, "component": HOSTILE, "other": [HOSTILE]}]},),
}


def as_text(value: Any) -> str:
    """Return the text that a role would show of what a filter returned."""
    if isinstance(value, dict):
        return "\n".join(map(as_text, value.values()))
    return "\n".join(map(as_text, value)) if isinstance(value, (list, tuple)) else str(value)


def tamed(value: Any) -> Any:
    """Return the same data with a tame word where the hostile one stands, also in a document of JSON."""
    if isinstance(value, dict):
        return {tamed(key): tamed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [tamed(item) for item in value]
    if isinstance(value, str) and value.startswith("{"):
        return json.dumps(tamed(json.loads(value)))
    return value.replace(HOSTILE, TAME) if isinstance(value, str) else value


@pytest.mark.parametrize("name", CASES)
def test_no_field_of_what_a_filter_is_given_makes_a_line(name: str) -> None:
    given = CASES[name]
    said = as_text(FILTERS[name](*given))
    tame = tamed(given)
    assert_harmless(said)
    assert len(said.splitlines()) == len(as_text(FILTERS[name](*tame)).splitlines())


def test_problems_are_one_line_each() -> None:
    problems: Any = importlib.import_module("ansible_collections.site.appliance.plugins.plugin_utils.problems")
    findings: Any = importlib.import_module("ansible_collections.site.appliance.plugins.plugin_utils.findings")
    found = problems.Problems()
    found.add(**PROBLEM | {"code": "APL-0801"})
    assert_harmless(found.lines[0])
    assert "\n" not in found.lines[0]
    text = FILTERS["problem_text"]([findings.problem("APL-0801", HOSTILE, HOSTILE, HOSTILE)])
    assert_harmless(text)


def test_the_screen_shows_what_nodes_say_and_nothing_acts(tmp_path: Path) -> None:
    """A plan, a failure, its items, a warning, a difference and an ignored error, as ansible-playbook prints them."""
    (tmp_path / "plan.json").write_text(json.dumps({"images": IMAGES, "nodes": [NODE]}))
    (tmp_path / "word").write_text(HOSTILE)
    (tmp_path / "file").write_text("before\n")
    word = "{{ lookup('ansible.builtin.file', '" + str(tmp_path / "word") + "', rstrip=false) }}"
    read = "{{ (lookup('ansible.builtin.file', '" + str(tmp_path / "plan.json") + "') | from_json)"
    echo = ["sh", "-c", 'cat "$0" >&2; exit 5', str(tmp_path / "word")]
    said = run(
        tmp_path,
        [
            {"name": "Show", "ansible.builtin.debug": {"msg": f"{read}.images | site.appliance.plan_text([])" + " }}"}},
            {"name": "Keep", "ansible.builtin.set_fact": {"kept": f"{read}.images.medium" + " }}"}},
            {"name": "Show it", "ansible.builtin.debug": {"msg": "{{ kept | string }}"}},
            {
                "name": "Write",
                "diff": True,
                "ansible.builtin.copy": {"content": word, "dest": str(tmp_path / "file"), "mode": "0600"},
            },
            {"name": "Try", "ansible.builtin.command": {"argv": echo}, "ignore_errors": True},
            {"name": "Fail", "ansible.builtin.fail": {"msg": "{{ item }}"}, "loop": [word]},
        ],
        hosts={"a": LOCAL},
    )
    assert acting(said) == [] and "\\n" in said
    assert "42" not in said, "a word of a medium was a template"
    assert "{{ 6 * 7 }}" in said
    shown = said.split("TASK [Write]")[0]
    assert FORGED not in shown
    # The plan's own lines are all there, and nothing else begins in the first columns.
    assert "  medium: x\\nNov 30" in shown


def test_with_v_nothing_acts_either(tmp_path: Path) -> None:
    (tmp_path / "word").write_text(HOSTILE)
    said = run(
        tmp_path,
        [{"name": "Try", "ansible.builtin.command": {"argv": ["cat", str(tmp_path / "word")]}}],
        "-vvv",
        hosts={"a": LOCAL},
    )
    assert acting(said.split("TASK [Try]")[1].split("PLAY RECAP")[0]) == []
