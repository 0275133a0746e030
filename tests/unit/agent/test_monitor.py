"""What a site has lost is told once, with what it breaks; and so is a store that fills up."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

import pytest

from appliance.agent.fetch import Fetcher
from appliance.agent.monitor import LostBlobs, RoomWatch
from appliance.store.blobs import BlobStore
from appliance.store.impact import Lost, blame
from appliance.store.quota import Quota
from tests.unit.agent.fakes import FakePeer, FakePeers, at_once
from tests.unit.store import made

A, B = "docker.io/library/a:1", "docker.io/library/b:1"
ONE, TWO = made.sha(b"one"), made.sha(b"two")


class Site:
    """What other nodes say, by blob."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, bool | None]] = {}
        self.asked: list[str] = []
        self.here: set[str] = set()
        self.now = 0.0
        self.subject = LostBlobs(self._holders, self._blame, self.here.__contains__, lambda: self.now)

    def _holders(self, digest: str) -> Mapping[str, bool | None]:
        self.asked.append(digest)
        return self.held.get(digest, {})

    @staticmethod
    def _blame(digests: Collection[str]) -> dict[str, Lost]:
        return {digest: Lost(digest, (A,), "/media/stick (generation 1)") for digest in digests}


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_blob_that_nobody_holds_is_lost_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    site.held[ONE] = {"a": False, "b": False}
    for _ in range(3):
        assert [lost.digest for lost in site.subject.judge([ONE])] == [ONE]
    (said,) = errors(caplog)
    assert said.startswith("APL-0421")
    for word in (ONE, A, "/media/stick (generation 1)"):
        assert word in said


def test_what_one_node_holds_or_cannot_be_asked_for_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    site.held = {ONE: {"a": False, "b": True}, TWO: {"a": False, "b": None}}
    assert site.subject.judge([ONE, TWO]) == []
    # A node that is off is asked for one blob, not for all.
    site.asked.clear()
    assert site.subject.judge([TWO, ONE]) == []
    assert site.asked == [TWO]
    assert errors(caplog) == []


def test_what_is_lost_stays_so_while_a_node_is_off_and_is_found_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site()
    site.held[ONE] = {"a": False}
    site.subject.judge([ONE])
    site.held[ONE] = {"a": None}
    assert len(site.subject.judge([ONE])) == 1
    site.held[ONE] = {"a": True}
    assert site.subject.judge([ONE]) == []
    assert "not lost any more" not in caplog.text, "it does not lie here yet"
    site.now = 60
    site.here.add(ONE)
    assert site.subject.judge([]) == site.subject.all() == []
    assert f"{ONE} is not lost any more" in caplog.text
    site.now = 120
    site.here.clear()
    site.held[ONE] = {"a": False}
    assert len(site.subject.judge([ONE])) == 1
    assert len(errors(caplog)) == 2, "it is lost anew"
    site.now = 180
    assert site.subject.judge([]) == []
    assert caplog.text.count("not lost any more") == 1, "of what is not needed any more nobody says so"


def test_a_node_that_says_yes_and_no_by_turns_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Two lines for each blob each half-minute, for as long as it liked."""
    site, many = Site(), [made.sha(str(number).encode()) for number in range(120)]
    for turn in range(60):
        site.now = turn * 5.0
        site.held = {digest: {"c": turn % 2 == 1} for digest in many}
        lost = site.subject.judge(many)
        assert len(lost) == (0 if turn % 2 else len(many)), "the state follows"
    lines = errors(caplog)
    assert len(lines) == 3, "one a minute, until each is named"
    assert [caplog.text.count(digest) for digest in many] == [1] * len(many)
    assert "; 119 more are lost: " in lines[0]
    assert " and 70 more" in lines[0]
    assert "not lost any more" not in caplog.text


def test_what_is_being_fetched_is_neither_lost_nor_back(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    assert site.subject.judge([ONE, TWO], running=[ONE]) == [Lost(TWO, (A,), "/media/stick (generation 1)")]
    assert len(site.subject.judge([ONE, TWO], running=[TWO])) == 2
    assert site.asked == [TWO, ONE]
    assert "not lost any more" not in caplog.text


def test_thousands_that_are_lost_are_all_known_in_time() -> None:
    site, many = Site(), [made.sha(str(number).encode()) for number in range(450)]
    for known in (200, 400, 450, 450):
        assert len(site.subject.judge(many)) == known
    # Those too are asked for again: one may be on a node by now.
    site.held[sorted(many)[0]] = {"a": True}
    site.asked.clear()
    site.subject.judge(many)
    assert len(site.asked) == 200


def test_a_site_of_one_node_has_lost_what_it_lacks() -> None:
    assert [lost.digest for lost in Site().subject.judge([ONE])] == [ONE]


def test_the_other_nodes_are_asked_by_head(store: BlobStore) -> None:
    fakes = FakePeers(a=FakePeer({made.sha(b"x"): b"x"}), b=FakePeer({}), c=FakePeer({}, dead=True))
    said = Fetcher(store, fakes, at_once).holders(made.sha(b"x"))
    assert said == {"a": True, "b": False, "c": None}


def test_what_a_blob_breaks_and_where_it_came_from(store: BlobStore) -> None:
    shared, other = made.image(1), made.image(2)
    made.publish(store, {A: shared}, sources=["/media/first"])
    made.publish(store, {A: shared, B: made.index({"amd64": shared})}, sources=["/media/second"])
    made.publish(store, {A: shared, B: other}, sources=["/media/third"])
    made.push(store, {"docker.io/team/pushed:1": made.image(3)})
    layer = shared.layers[0]
    wanted = [layer, other.digest, made.image(3).layers[0], made.sha(b"?")]
    found = blame(wanted, made.store(store))
    assert found[layer].images == (A,)
    assert found[layer].medium.startswith("/media/first (generation 1 of ")
    assert found[other.digest] == Lost(other.digest, (B,), f"/media/third (generation 3 of {made.CREATED})")
    assert found[wanted[2]] == Lost(wanted[2], ("docker.io/team/pushed:1",), "a push of an operator")
    assert found[wanted[3]].images == ()
    # With the first generation forgotten it is not known any more that it was the first.
    made.forget(store, 1)
    again = blame([layer], made.store(store))
    assert again[layer].medium == f"/media/second (generation 2 of {made.CREATED} or before)"


def test_a_store_that_fills_up_is_told_of_once_with_what_takes_most(caplog: pytest.LogCaptureFixture) -> None:
    class Fake(Quota):
        taken = 899

        def __init__(self) -> None: ...

        def recount(self) -> None: ...

        def used(self) -> int:
            return self.taken

        def most(self) -> int:
            return 1000

        def left(self) -> int:
            return 1000 - self.taken

    caplog.set_level(logging.INFO)
    room, asked = Fake(), []

    def largest() -> list[tuple[str, int]]:
        asked.append(1)
        return [(A, 500)]

    now = [0.0]
    watch = RoomWatch(room, largest, lambda: now[0])
    shown = watch.look()
    assert shown == {"limit_bytes": 1000, "used_bytes": 899, "free_bytes": 101, "near": False, "largest": []}
    assert not asked
    assert not caplog.records
    room.taken = 900
    for _ in range(3):
        assert watch.look()["largest"] == [{"name": A, "bytes": 500}]
    # Asked once: it is a second's work for many names.
    assert asked == [1]
    now[0] += 601
    watch.look()
    assert asked == [1, 1]
    (record,) = caplog.records
    assert record.getMessage().startswith("APL-0326")
    assert f"{A} 500 B" in record.getMessage()
    room.taken = 10
    watch.look()
    room.taken = 1200
    watch.look()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]


def test_the_state_of_the_room_is_counted_when_it_is_asked_for(store: BlobStore) -> None:
    room = Quota(store.root, reserve=0, limit=1 << 30, clock=lambda: 100.0)
    digest = store.put([bytes(1000)], size=1000).digest
    watch = RoomWatch(room, list)
    assert watch.look()["used_bytes"] == 1000
    # A collection in another process, within the moment for which a count is believed.
    store.path(digest).unlink()
    assert (watch.look()["used_bytes"], watch.look()["free_bytes"]) == (0, room.left())
