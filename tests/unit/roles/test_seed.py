"""Whether every node follows what was published."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.site.appliance.plugins.filter import seed

FIRST = {"number": 1, "digest": "sha256:" + "1" * 64}
SECOND = {"number": 2, "digest": "sha256:" + "2" * 64}


def _result(generation: dict[str, Any] | None, missing: int = 0) -> dict[str, Any]:
    status = {"node": "b", "generation": generation, "wanted_missing": missing}
    return {"rc": 0, "stdout": json.dumps(status)}


def test_a_node_that_serves_it_whole_lacks_nothing() -> None:
    assert seed.seed_lacks(_result(SECOND), SECOND) == ""


def test_a_site_without_images_waits_for_nothing() -> None:
    assert seed.seed_lacks(_result(None), None) == ""


def test_a_newer_generation_is_no_lack() -> None:
    assert seed.seed_lacks(_result(SECOND), FIRST) == ""


def test_an_older_one_none_or_another_of_the_same_number_is_a_lack() -> None:
    assert "generation 1" in seed.seed_lacks(_result(FIRST), SECOND)
    assert "no generation" in seed.seed_lacks(_result(None), SECOND)
    assert seed.seed_lacks(_result({"number": 2, "digest": "sha256:other"}), SECOND)


def test_why_a_node_does_not_follow_is_said_in_its_agents_words() -> None:
    result = _result({"number": 2, "digest": "sha256:other"})
    problem = {"code": "APL-0306", "what": "two different generations have the number 2", "why": "this and that"}
    status = json.loads(result["stdout"]) | {
        "standing": {"settled": False, "silent": [], "refused": [{"problem": problem}]}
    }
    said = seed.seed_lacks({**result, "stdout": json.dumps(status)}, SECOND)
    assert said.endswith("; APL-0306: two different generations have the number 2: this and that")


def test_missing_blobs_are_counted() -> None:
    assert "7" in seed.seed_lacks(_result(SECOND, missing=7), SECOND)


def test_an_agent_that_is_down_or_talks_nonsense_is_a_lack() -> None:
    down = {"rc": 1, "stdout": "", "stderr": "APL-0402: the agent of this node does not answer\n{}"}
    assert "APL-0402" in seed.seed_lacks(down, SECOND)
    assert seed.seed_lacks({"rc": 0, "stdout": "<html>"}, SECOND)
    assert seed.seed_lacks({}, SECOND)


def test_all_that_are_behind_are_named_at_once() -> None:
    results = {"a": _result(SECOND), "b": _result(FIRST), "c": _result(SECOND, missing=1)}
    lines = seed.seed_behind(results, SECOND)
    assert [line.split(":")[0] for line in lines] == ["b", "c"]
