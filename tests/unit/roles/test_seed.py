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


def test_what_no_node_has_is_not_waited_for_and_named_with_its_medium() -> None:
    lost = [{"digest": f"sha256:{n}", "images": ["x:1"], "medium": "/media/stick (generation 1)"} for n in range(2)]

    def result(missing: int, attempts: int, generation: dict[str, Any] = SECOND, wanted: int = 2) -> dict[str, Any]:
        status = {**json.loads(_result(generation, missing)["stdout"]), "wanted_lost": wanted, "health": {"lost": lost}}
        return {"rc": 0, "stdout": json.dumps(status), "attempts": attempts}

    said = seed.seed_lacks(result(2, 1), SECOND)
    assert said.endswith("2 are on no node any more, of x:1: bring /media/stick (generation 1)")
    assert seed.seed_waited(result(0, 1), SECOND)
    assert seed.seed_waited(result(2, 45), SECOND)
    for one in (
        result(2, 44),  # it may have come a moment ago
        result(3, 45),  # one is on its way
        result(2, 45, FIRST),
        result(2, 45, wanted=0),  # what is lost is not what it lacks
        {"rc": 1, "attempts": 45},
    ):
        assert not seed.seed_waited(one, SECOND), one


def test_an_agent_that_is_down_or_talks_nonsense_is_a_lack() -> None:
    down = {"rc": 1, "stdout": "", "stderr": "APL-0402: the agent of this node does not answer\n{}"}
    assert "APL-0402" in seed.seed_lacks(down, SECOND)
    assert seed.seed_lacks({"rc": 0, "stdout": "<html>"}, SECOND)
    assert seed.seed_lacks({}, SECOND)


def test_all_that_are_behind_are_named_at_once() -> None:
    results = {"a": _result(SECOND), "b": _result(FIRST), "c": _result(SECOND, missing=1)}
    lines = seed.seed_behind(results, SECOND)
    assert [line.split(":")[0] for line in lines] == ["b", "c"]


def _proof(*wrong: tuple[str, str, str]) -> dict[str, Any]:
    rows = [{"name": name, "answered": answered, "expected": expected} for name, answered, expected in wrong]
    shown = {"generation": SECOND, "names": 12, "wrong": rows}
    return {"rc": 1 if wrong else 0, "stdout": json.dumps(shown), "stderr": ""}


def test_what_was_proved_is_said_for_each_node() -> None:
    results = {"a": _proof(), "b": {"rc": 0, "stdout": json.dumps({"generation": None, "names": 0, "wrong": []})}}
    assert seed.seed_wrong(results) == []
    first, second = seed.seed_proved(results).splitlines()
    assert first.startswith("a: generation 2 is served, 12 names") and second.startswith("b: no generation")


def test_a_name_that_is_answered_wrongly_is_told_with_both_digests() -> None:
    lines = seed.seed_wrong({"a": _proof(), "b": _proof(("quay.io/t/x:1", "404 unknown", "sha256:1"))})
    assert lines == ["b: quay.io/t/x:1: 404 unknown, not sha256:1"]


def test_many_wrong_names_are_counted() -> None:
    lines = seed.seed_wrong({"b": _proof(*((f"quay.io/t/x:{i}", "404", "sha256:1") for i in range(25)))})
    assert len(lines) == 11 and lines[-1] == "b: and 15 names more"


def test_a_proof_that_did_not_come_to_its_end_is_no_proof() -> None:
    results = {
        "a": {"rc": 1, "stdout": "", "stderr": "APL-0404: the mirror of this node does not answer\n{}"},
        "b": {"rc": 2, "stdout": "[]", "stderr": "Traceback\nMemoryError"},
        "c": {},
    }
    assert [line.split(":")[0] for line in seed.seed_wrong(results)] == ["a", "b", "c"]
    assert "APL-0404" in seed.seed_wrong(results)[0]
    assert seed.seed_wrong(results)[1] == "b: MemoryError"
    assert seed.seed_proved(results) == ""
