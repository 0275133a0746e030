# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Small parts that every section of the plan is written with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def served(images: Mapping[str, Any] | None) -> str:
    """Return what the site serves now."""
    generation = (images or {}).get("generation")
    return f"generation {generation['number']}" if generation else "nothing"


def next_number(images: Mapping[str, Any]) -> int:
    """Return the number of the generation that would be published."""
    return int((images.get("generation") or {}).get("number") or 0) + 1


def names_change(images: Mapping[str, Any]) -> bool:
    """Return whether there would be a new generation; an interrupted import may have left nothing but that to do."""
    kinds = ("added", "moved", "completed", "removed", "referrers")
    return any(images.get(kind) for kind in kinds)


def publishes(images: Mapping[str, Any] | None) -> bool:
    """Return whether the plan changes what the site serves, or brings it bytes that it lacks."""
    return bool(images) and bool(names_change(images) or images["bytes_to_write"])


def short(digest: str) -> str:
    """Return a digest with as much of it as a person compares."""
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm}:{encoded[:12]}"


def limited(lines: Sequence[str], limit: int | None, indent: str, what: str = "") -> list[str]:
    """Return lines, with the number of those that are left out where there are more than a limit.

    :param limit: lines at the most; None for all.
    :param what: what the lines are, for the sum; may be empty.
    """
    if limit is None or len(lines) <= limit:
        return list(lines)
    left = len(lines) - (limit - 1)
    return [*lines[: limit - 1], f"{indent}and {left} more{f' {what}' if what else ''}"]
