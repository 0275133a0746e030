"""The site's plan for its room: nobody is forgotten, and the sums are the nodes'."""

from __future__ import annotations

import importlib
import json
from typing import Any

gc: Any = importlib.import_module("ansible_collections.site.appliance.plugins.filter.gc")
MIB = 1 << 20
SERVED = {"number": 4, "digest": "sha256:" + "4" * 64}
OLD = {"name": "docker.io/library/a:1", "digest": "sha256:" + "a" * 64, "generation": 1, "bytes": 3 * MIB}


def result(document: Any, code: int = 0) -> dict[str, Any]:
    return {"rc": code, "stdout": json.dumps(document), "stderr": ""}


def running(node: str, *names: str) -> dict[str, Any]:
    return result({"node": node, "running": [{"name": name, "digest": "sha256:" + "b" * 64} for name in names]})


def plan(**more: Any) -> dict[str, Any]:
    document = {"plan_id": "1", "generations": [3, 4], "blobs": 2, "bytes": 5 * MIB, "kept_bytes": 7 * MIB}
    document |= {"kept_for": {"recent": {"blobs": 0, "bytes": 0}}, "names": [OLD], "notes": [], "generation": SERVED}
    return result({**document, **more})


def test_every_node_of_the_site_has_to_be_heard() -> None:
    hostvars = {
        "a": {"__gc_running": running("a", "x:1")},
        "b": {"__gc_running": {"unreachable": True, "msg": "No route to host"}},
        "c": {},
        "d": {"__gc_running": {"rc": 1, "stdout": "", "stderr": "APL-0327: it cannot be known\n{}"}},
    }
    said = gc.gc_running(hostvars, ["a", "b", "c", "d", "e"], [])
    assert [item["node"] for item in said["lists"]] == ["a"]
    assert [line.partition("]")[0][-1] for line in said["problems"]] == ["b", "c", "d", "e"]
    for line, word in zip(said["problems"], ("No route", "--limit", "APL-0327", "--limit"), strict=True):
        assert line.startswith("APL-0776")
        assert word in line
        assert "gc_without" in line


def test_a_node_is_left_out_by_its_name_and_by_no_other() -> None:
    hostvars = {"a": {"__gc_running": running("a")}}
    assert gc.gc_running(hostvars, ["a", "b"], ["b"])["problems"] == []
    (problem,) = gc.gc_running(hostvars, ["a"], ["zz"])["problems"]
    assert "zz" in problem


def test_one_plan_for_the_site() -> None:
    hostvars = {
        "a": {"__gc_plan": plan(), "__gc_running": running("a", "x:1", "y:1")},
        "b": {
            "__gc_plan": plan(bytes=0, names=[], notes=["a note"], kept_for={"recent": {"blobs": 1, "bytes": MIB}}),
            "__gc_running": running("b", "x:1"),
        },
    }
    made = gc.gc_plan(hostvars, ["a", "b"])
    assert (made["bytes"], made["problems"]) == (5 * MIB, [])
    assert made["text"].splitlines() == [
        "Nothing needs these any more: 5.0 MiB on 1 node.",
        "",
        "  a: 5.0 MiB in 2 blobs; 7.0 MiB stay",
        "  b: nothing; 7.0 MiB stay, 1.0 MiB are too young to judge",
        "    note: a note",
        "",
        "Names that are not served any more and whose layers go:",
        "  docker.io/library/a:1  sha256:aaaaaaaaaaaa  generation 1  3.0 MiB",
        "",
        "Kept for generations 3, 4, what was pushed, pins, and 2 images that run.",
    ]


def test_nothing_to_do_is_said() -> None:
    made = gc.gc_plan({"a": {"__gc_plan": plan(bytes=0, names=[])}}, ["a"])
    assert made["text"].startswith("There is nothing to free")


def test_a_node_without_a_plan_and_nodes_that_differ_are_problems() -> None:
    failed = {"rc": 1, "stdout": "", "stderr": "APL-0321: nothing is collected"}
    other = plan(generation={**SERVED, "number": 3})
    hostvars = {"a": {"__gc_plan": plan()}, "b": {"__gc_plan": failed}, "c": {"__gc_plan": other}}
    first, second = gc.gc_plan(hostvars, ["a", "b", "c"])["problems"]
    assert first == "b: APL-0321: nothing is collected"
    assert second.startswith("APL-0777")
    assert "c: 3" in second


def test_what_was_freed_is_shown_by_node_and_a_failure_named() -> None:
    hostvars = {
        "a": {"__gc_result": result({"freed_bytes": 2 * MIB, "freed_blobs": 3, "notes": ["no journal"]})},
        "b": {"__gc_result": {"skipped": True}},
        "c": {"__gc_result": {"rc": 1, "stdout": "", "stderr": "APL-0325: changed"}},
    }
    made = gc.gc_freed(hostvars, ["a", "b", "c"])
    assert made["text"].splitlines() == [
        "Freed:",
        "  a: 2.0 MiB in 3 blobs",
        "    note: no journal",
        "  b: there was nothing to free",
        "  c: not finished",
    ]
    assert made["problems"] == ["c: APL-0325: changed"]
