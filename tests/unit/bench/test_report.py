"""Ratios are of pairs, goals are held against what they name, and nothing is printed without its peer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.report import Goal, Result, table, write


def test_the_ratio_is_the_median_of_the_pairs_and_not_of_the_medians() -> None:
    # The machine was twice as slow in the second turn; both were.
    result = Result("c", "m", "MiB/s", "nginx", [100, 50, 110], [100, 50, 100])
    assert (result.ratio, result.ours, result.theirs) == (1.0, 100, 100)


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal(0.5, "least"), True),
        (Goal(0.6, "least"), False),
        (Goal(0.5, "most"), True),
        (Goal(0.4, "most"), False),
        (Goal(1, "most", of="ours"), True),
        (Goal(0.9, "most", of="ours"), False),
    ],
)
def test_goals(goal: Goal, met: bool) -> None:
    assert goal.met(Result("c", "m", "s", "p", [1], [2])) is met


def test_a_goal_of_a_ratio_is_not_met_without_a_peer() -> None:
    assert not Goal(0, "least").met(Result("c", "m", "s", "", [1]))


def test_table_and_json_say_the_same(tmp_path: Path) -> None:
    results = [
        Result("blob", "throughput", "MiB/s", "nginx", [30], [20], Goal(1, "least")),
        Result("x", "y", "s", "", [1]),
    ]
    lines = table(results).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "blob", "throughput", "nginx", "1.50 ×", "30 : 20 MiB/s", "≥ 1 ×", "met",
    ]  # fmt: skip
    write(tmp_path / "new" / "bench.json", results, quick=True, versions={"nginx": "1"})
    written = json.loads((tmp_path / "new" / "bench.json").read_bytes())
    assert written["quick"] is True
    assert [(item["ratio"], item["met"]) for item in written["results"]] == [(1.5, True), (None, None)]
