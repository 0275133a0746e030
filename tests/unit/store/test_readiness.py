"""The publisher's mark: who has to have it, and what is said to one that has not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.config import Config, Peer
from appliance.errors import ApplianceError
from appliance.store import readiness

PEERS = tuple(Peer(name, f"https://{name}", name) for name in "abc")
SITE = Config(node="a", store=Path("/s"), peers=PEERS, seeds=("a",), pki=Path("/pki"))


def found(settled: bool, *refused: ApplianceError, silent: list[str] | None = None) -> Callable[[], dict[str, Any]]:
    rows = [{"peer": "b", "index": "generation", "number": 7, "problem": problem.as_dict()} for problem in refused]
    return lambda: {"settled": settled, "refused": rows, "silent": silent or []}


def down() -> dict[str, Any]:
    raise ConnectionError("the agent does not answer")


def refused(*arguments: Any) -> str:
    with pytest.raises(ApplianceError) as caught:
        readiness.make_sure(*arguments)
    return str(caught.value)


def test_a_new_store_has_no_mark_and_it_can_be_taken_away(tmp_path: Path) -> None:
    assert not readiness.is_settled(tmp_path)
    readiness.mark_ready(tmp_path, "a")
    assert readiness.is_settled(tmp_path)
    readiness.clear(tmp_path)
    readiness.clear(tmp_path)
    assert not readiness.is_settled(tmp_path)


def test_what_was_given_up_stays_so_as_long_as_the_mark(tmp_path: Path) -> None:
    assert readiness.given_up(tmp_path) == set()
    readiness.mark_ready(tmp_path, "a", {"sha256:1"})
    readiness.mark_ready(tmp_path, "a")
    readiness.mark_ready(tmp_path, "a", {"sha256:2"})
    assert readiness.given_up(tmp_path) == {"sha256:1", "sha256:2"}
    (tmp_path / "standing.json").write_text("[cut")
    assert readiness.is_settled(tmp_path)
    assert readiness.given_up(tmp_path) == set()
    readiness.clear(tmp_path)
    readiness.mark_ready(tmp_path, "a")
    assert readiness.given_up(tmp_path) == set()


def test_what_waits_for_nobody_needs_the_mark(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match="APL-0341"):
        readiness.require(tmp_path, SITE)
    readiness.mark_ready(tmp_path, "a")
    readiness.require(tmp_path, SITE)


@pytest.mark.parametrize(
    "config",
    [
        Config(node="a", store=Path("/s"), peers=PEERS[:1], pki=Path("/pki")),
        Config(node="a", store=Path("/s"), peers=PEERS),
    ],
    ids=["alone", "development"],
)
def test_nobody_is_asked_where_nobody_could_know(tmp_path: Path, config: Config) -> None:
    readiness.require(tmp_path, config)
    readiness.make_sure(tmp_path, config, down)


def test_a_publisher_that_is_sure_goes_on_without_its_agent(tmp_path: Path) -> None:
    assert "the agent does not answer" in refused(tmp_path, SITE, down)
    readiness.mark_ready(tmp_path, "a")
    readiness.make_sure(tmp_path, SITE, down)


def test_what_the_look_found_is_said(tmp_path: Path) -> None:
    readiness.make_sure(tmp_path, SITE, found(True, silent=["c"]))
    said = refused(tmp_path, SITE, found(False, silent=["b", "c"]))
    assert "APL-0341" in said and "no answer from b, c" in said and "take-over --without" in said
    two = ApplianceError("APL-0306", "two different generations have the number 7", why="this and that")
    assert refused(tmp_path, SITE, found(False, two, silent=["c"])).startswith("APL-0306: two different")
    bad = ApplianceError("APL-0606", "a generation without a valid signature was refused")
    said = refused(tmp_path, SITE, found(False, bad))
    assert said.startswith("APL-0341") and "generation 7 of b cannot be followed: APL-0606" in said
