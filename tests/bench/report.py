"""Results: pairs, their ratios, the goals they are held against; as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Goal:
    """What a figure is held against.

    :param limit: the ratio, or our own figure in its unit, that is to be reached.
    :param bound: whether the figure must be at least or at most that.
    :param of: what is held against it.
    """

    limit: float
    bound: Literal["least", "most"]
    of: Literal["ratio", "ours"] = "ratio"

    def met(self, result: Result) -> bool:
        """Whether a result reaches it."""
        value = result.ratio if self.of == "ratio" else result.ours
        return value is not None and (value >= self.limit if self.bound == "least" else value <= self.limit)

    def text(self, unit: str) -> str:
        """As it stands in the table."""
        sign = "≥" if self.bound == "least" else "≤"
        return f"{sign} {self.limit:g}" + (f" {unit}" if self.of == "ours" else " ×")


@dataclass(frozen=True)
class Result:
    """One figure of ours beside a peer's.

    :param case: what was done.
    :param measure: what was measured, with its unit in ``unit``.
    :param peer: whose figures ``theirs`` are.
    :param ours: one figure for each repetition; ``theirs`` the peer's, of the same repetitions in the same order.
    """

    case: str
    measure: str
    unit: str
    peer: str
    our_samples: Sequence[float]
    their_samples: Sequence[float] = ()
    goal: Goal | None = None

    @property
    def ours(self) -> float:
        """Median of our figures."""
        return statistics.median(self.our_samples)

    @property
    def theirs(self) -> float | None:
        """Median of the peer's figures."""
        return statistics.median(self.their_samples) if self.their_samples else None

    @property
    def ratio(self) -> float | None:
        """Median of the ratios of each repetition, ours to theirs."""
        pairs = zip(self.our_samples, self.their_samples, strict=False)
        ratios = [ours / theirs for ours, theirs in pairs if theirs]
        return statistics.median(ratios) if ratios else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "case": self.case,
            "measure": self.measure,
            "unit": self.unit,
            "peer": self.peer,
            "ratio": self.ratio,
            "ours": self.ours,
            "theirs": self.theirs,
            "our_samples": list(self.our_samples),
            "their_samples": list(self.their_samples),
            "goal": None if self.goal is None else self.goal.text(self.unit),
            "met": None if self.goal is None else self.goal.met(self),
        }


def table(results: Sequence[Result], *, goals: bool = True) -> str:
    """Return the results in Markdown, one line each.

    :param goals: whether they are held against their goals.
    """
    rows = [("case", "measure", "against", "ratio", "ours : theirs", "goal", "")]
    for result in results:
        ratio = "" if result.ratio is None else f"{_ratio(result.ratio)} ×"
        pair = _number(result.ours) + ("" if result.theirs is None else f" : {_number(result.theirs)}")
        held = result.goal if goals else None
        goal = "" if held is None else held.text(result.unit)
        verdict = "" if held is None else "met" if held.met(result) else "**missed**"
        rows.append((result.case, result.measure, result.peer, ratio, f"{pair} {result.unit}", goal, verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write(path: Path, results: Sequence[Result], *, quick: bool, versions: dict[str, str]) -> None:
    """All samples, and what they were measured with."""
    document = {
        "quick": quick,
        "cores": os.cpu_count(),
        "load_average_at_end": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
        "results": [result.as_dict() for result in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
