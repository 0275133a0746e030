"""The same requests to Debian's docker-registry and to ours: what differs is listed with its reason, or is wrong."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.differential.cases import SCENARIOS, pairs_of, requests
from tests.integration.differential.differences import DIFFERENCES, Difference
from tests.integration.differential.observed import Observed
from tests.integration.differential.runner import observe
from tests.integration.differential.servers import running

GROUPS = sorted({f"{pair}:{scenario.group}" for scenario in SCENARIOS for pair in pairs_of(scenario)})


@pytest.fixture(scope="module")
def seen() -> Iterator[list[Observed]]:
    """Every field that differed in any request; all of them are sent once, some seconds' work."""
    root = Path(tempfile.mkdtemp(prefix="apl-"))
    try:
        with running(root) as pairs:
            yield observe(pairs)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def test_there_are_hundreds_of_requests_each_of_a_name_of_its_own() -> None:
    assert requests() > 1500
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    assert len({entry.title for entry in DIFFERENCES}) == len(DIFFERENCES)


@pytest.fixture(scope="module")
def allowed(seen: list[Observed]) -> dict[str, frozenset[Observed]]:
    """What each entry of the list allows, by its title."""
    return {entry.title: entry.allowed(seen) for entry in DIFFERENCES}


@pytest.mark.parametrize("group", GROUPS)
def test_what_differs_is_listed(seen: list[Observed], allowed: dict[str, frozenset[Observed]], group: str) -> None:
    listed = frozenset().union(*allowed.values())
    found = [one for one in seen if one.request.startswith(f"{group}/") and one not in listed]
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("entry", DIFFERENCES, ids=lambda entry: entry.title)
def test_what_is_listed_differs(allowed: dict[str, frozenset[Observed]], entry: Difference) -> None:
    mine = allowed[entry.title]
    assert entry.unused(mine) == []
    assert mine - frozenset().union(*(allowed[other.title] for other in DIFFERENCES if other is not entry)), (
        "the other entries allow all that this one does"
    )
