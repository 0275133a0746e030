"""Fetching: from whoever has it, byte after byte, and never a wrong one shown."""

from __future__ import annotations

import errno
import os
from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from appliance.agent import delivery
from appliance.agent import fetch as module
from appliance.agent.delivery import (
    FASTER,
    GOOD_BYTES,
    LEAST_BYTES,
    LEAST_SECONDS,
    REMEMBER_SECONDS,
    Delivery,
    Verdict,
)
from appliance.agent.fetch import Fetcher, Progress
from appliance.agent.troubles import Troubles
from appliance.oci.pieces import PieceHasher, PieceMap
from appliance.store.blobs import BlobStore
from tests.unit.agent.fakes import CLOCK, STEP, FakePeer, FakePeers, at_once
from tests.unit.store import made

MIB = 1 << 20
BIG = made.noise(1, 3 * MIB + 12345)
DIGEST = made.sha(BIG)
WRONG = bytearray(BIG)
WRONG[MIB + 5] ^= 1
SMALL = b"a small one"


def map_of(content: bytes) -> PieceMap:
    hasher = PieceHasher(len(content))
    hasher.update(content)
    return hasher.finish(made.sha(content))


MAP = map_of(BIG)


def fetcher(store: BlobStore, **peers: FakePeer) -> tuple[Fetcher, FakePeers]:
    fakes = FakePeers(**peers)
    return Fetcher(store, fakes, at_once, CLOCK), fakes


def watch(subject: Fetcher, digest: str, size: int, piece_map: PieceMap | None) -> tuple[Progress, list[int]]:
    """Fetch, and note every offset that was shown while it was not complete."""
    progress, shown = subject.start(digest, size, piece_map), [0]
    while progress.state == "fetching":
        progress.changed.wait()
        if progress.state == "fetching":
            shown.append(progress.verified)
    return progress, shown


def partials(store: BlobStore) -> list[str]:
    return [path.name for path in (store.root / "partial").iterdir()]


def test_a_peer_that_does_not_say_whether_it_holds_a_blob_is_among_the_troubles_until_it_does(
    store: BlobStore,
) -> None:
    """Although another one delivers. Not to hold a blob is no fault, and a node that is off is known by its pings."""
    troubles, bad = Troubles(CLOCK), FakePeer(denies=500)
    peers = FakePeers(a=bad, b=FakePeer({DIGEST: BIG}, slow=3), c=FakePeer({}), d=FakePeer(dead=True))
    assert Fetcher(store, peers, at_once, CLOCK, troubles).fetch(DIGEST, len(BIG), MAP).state == "complete"
    (trouble,) = troubles.all()
    assert (trouble.peer, trouble.about, trouble.ended) == ("a", "blob lookup", None)
    assert DIGEST in trouble.reason and "500" in trouble.reason
    store.path(DIGEST).unlink()
    bad.denies = 404
    peers.down.clear()
    assert Fetcher(store, peers, at_once, CLOCK, troubles).fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert [item.ended is not None for item in troubles.all()] == [True]


def test_a_blob_comes_whole_and_is_shown_piece_by_piece(store: BlobStore) -> None:
    subject, _ = fetcher(store, a=FakePeer({DIGEST: BIG}))
    progress, shown = watch(subject, DIGEST, len(BIG), MAP)
    assert (progress.state, progress.verified) == ("complete", len(BIG))
    assert shown == [0, MIB, 2 * MIB, 3 * MIB]
    assert store.read(DIGEST, len(BIG)) == BIG
    assert partials(store) == []


def test_a_source_that_gives_wrong_bytes_is_among_the_troubles_until_it_gives_a_blob(store: BlobStore) -> None:
    troubles = Troubles(CLOCK)
    liar = FakePeer({DIGEST: bytes(len(BIG))})
    subject = Fetcher(store, FakePeers(a=liar, b=FakePeer({DIGEST: BIG}, slow=3)), at_once, CLOCK, troubles)
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    (trouble,) = troubles.all()
    assert (trouble.peer, trouble.about, trouble.ended) == ("a", "blobs", None)
    assert DIGEST in trouble.reason and "wrong bytes" in trouble.reason
    store.path(DIGEST).unlink()
    liar.blobs[DIGEST] = BIG
    alone = Fetcher(store, FakePeers(a=liar), at_once, CLOCK, troubles)
    assert alone.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert [item.ended is not None for item in troubles.all()] == [True]


def test_what_is_here_is_not_fetched(store: BlobStore) -> None:
    made.fill(store, [])
    store.put([BIG], size=len(BIG))
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}))
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert peers.fakes["a"].heads == 0


def test_two_who_want_one_blob_share_one_fetch(store: BlobStore) -> None:
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}))
    first, second = subject.start(DIGEST, len(BIG), MAP), subject.start(DIGEST, len(BIG), MAP)
    assert first is second
    assert subject.fetch(DIGEST, len(BIG), MAP) is first
    assert peers.fakes["a"].streams == [0]


def test_without_a_map_nothing_is_shown_until_it_is_whole(store: BlobStore) -> None:
    subject, _ = fetcher(store, a=FakePeer({DIGEST: BIG}))
    progress, shown = watch(subject, DIGEST, len(BIG), None)
    assert progress.state == "complete"
    assert shown == [0]
    assert store.read(DIGEST, len(BIG)) == BIG


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(BIG) - 1), st.booleans(), st.booleans())
@example(0, True, True)
@example(MIB, True, False)
@example(len(BIG) - 1, True, True)
def test_the_next_peer_goes_on_at_the_byte_where_one_broke_off(
    tmp_path_factory: pytest.TempPathFactory, at: int, mapped: bool, by_fin: bool
) -> None:
    store = made.open_store(tmp_path_factory.mktemp("s"))
    dying = FakePeer({DIGEST: BIG}, ends_at=at) if by_fin else FakePeer({DIGEST: BIG}, breaks_at=at)
    subject, peers = fetcher(store, a=dying, b=FakePeer({DIGEST: BIG}, slow=3))
    progress, shown = watch(subject, DIGEST, len(BIG), MAP if mapped else None)
    assert progress.state == "complete"
    # One new connection to what had delivered, and not to what had not.
    assert peers.fakes["a"].streams == ([0, at] if at else [0])
    assert peers.blamed == ["a"]
    assert peers.fakes["b"].streams == [at]
    assert shown == sorted(shown)
    assert store.read(DIGEST, len(BIG)) == BIG


def test_a_peer_that_breaks_again_and_again_is_still_used_while_it_gives(store: BlobStore) -> None:
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}, breaks_at=MIB + 7, breaks=1))
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert peers.fakes["a"].streams == [0, MIB + 7]


def test_a_wrong_piece_is_dropped_and_had_from_another(store: BlobStore) -> None:
    subject, peers = fetcher(store, a=FakePeer({DIGEST: bytes(WRONG)}), b=FakePeer({DIGEST: BIG}, slow=3))
    progress, shown = watch(subject, DIGEST, len(BIG), MAP)
    assert progress.state == "complete"
    assert peers.fakes["b"].streams == [MIB]
    assert peers.blamed == ["a"]
    assert shown == [0, MIB, 2 * MIB, 3 * MIB]
    assert store.read(DIGEST, len(BIG)) == BIG


def test_wrong_bytes_without_a_map_are_had_anew_from_another(store: BlobStore) -> None:
    subject, peers = fetcher(store, a=FakePeer({DIGEST: bytes(WRONG)}), b=FakePeer({DIGEST: BIG}, slow=3))
    assert subject.fetch(DIGEST, len(BIG), None).state == "complete"
    assert peers.fakes["b"].streams == [0]
    assert peers.blamed == ["a"]
    assert store.read(DIGEST, len(BIG)) == BIG


@pytest.mark.parametrize("mapped", [True, False])
def test_who_only_finished_a_wrong_piece_is_not_blamed_for_it(store: BlobStore, mapped: bool) -> None:
    liar = FakePeer({DIGEST: bytes(WRONG)}, breaks_at=MIB + 100)
    subject, peers = fetcher(store, a=liar, b=FakePeer({DIGEST: BIG}, slow=3))
    assert subject.fetch(DIGEST, len(BIG), MAP if mapped else None).state == "complete"
    assert peers.fakes["b"].streams == [MIB + 100, MIB if mapped else 0]
    assert "b" not in peers.blamed
    assert store.read(DIGEST, len(BIG)) == BIG


@pytest.mark.parametrize("mapped", [True, False])
def test_wrong_bytes_only_are_never_kept(store: BlobStore, mapped: bool) -> None:
    subject, peers = fetcher(store, a=FakePeer({DIGEST: bytes(WRONG)}), b=FakePeer({DIGEST: bytes(WRONG)}))
    progress, shown = watch(subject, DIGEST, len(BIG), MAP if mapped else None)
    assert progress.state == "failed"
    assert "wrong bytes from" in progress.reason
    assert max(shown) == (MIB if mapped else 0)
    assert not store.has(DIGEST)
    assert set(peers.blamed) == {"a", "b"}
    if mapped:
        assert subject.partial(DIGEST).read_bytes() == BIG[:MIB]
    else:
        assert partials(store) == []


@pytest.mark.parametrize("extra", [b"x", b"x" * 100_000])
@pytest.mark.parametrize("mapped", [True, False])
def test_more_bytes_than_there_are_is_no_blob(store: BlobStore, extra: bytes, mapped: bool) -> None:
    subject, _ = fetcher(store, a=FakePeer({DIGEST: BIG + extra}), b=FakePeer({DIGEST: BIG}, slow=2))
    assert subject.fetch(DIGEST, len(BIG), MAP if mapped else None).state == "complete"
    assert store.read(DIGEST, len(BIG)) == BIG


def test_the_last_piece_waits_for_the_digest(store: BlobStore) -> None:
    """A map that is right piece by piece, of a blob that has another digest: a lying map."""
    named = made.sha(b"what it should be")
    lying = PieceMap(named, len(BIG), MAP.pieces)
    subject, _ = fetcher(store, a=FakePeer({named: BIG}))
    progress, shown = watch(subject, named, len(BIG), lying)
    assert progress.state == "failed"
    assert max(shown) == 3 * MIB
    assert progress.verified <= 3 * MIB
    assert not store.has(named)


def test_a_map_of_another_size_is_not_used(store: BlobStore) -> None:
    subject, _ = fetcher(store, a=FakePeer({DIGEST: BIG}))
    progress, shown = watch(subject, DIGEST, len(BIG), map_of(BIG[:-1]))
    assert (progress.state, shown) == ("complete", [0])


def leave_partial(store: BlobStore, content: bytes) -> None:
    (store.root / "partial" / f"{DIGEST.replace(':', '-')}.data").write_bytes(content)


@pytest.mark.parametrize(
    ("content", "start"),
    [
        (b"", 0),
        (BIG[: MIB - 1], 0),
        (BIG[:MIB], MIB),
        (BIG[: 2 * MIB + 77], 2 * MIB),
        (bytes(WRONG[: 3 * MIB]), MIB),
        (b"\0" * (2 * MIB), 0),
        (BIG[:-1], 3 * MIB),
    ],
)
def test_what_an_earlier_process_had_counts_once_it_is_hashed_again(
    store: BlobStore, content: bytes, start: int
) -> None:
    leave_partial(store, content)
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}))
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert peers.fakes["a"].streams == [start]
    assert store.read(DIGEST, len(BIG)) == BIG


@pytest.mark.parametrize("content", [BIG, BIG + b"more"])
def test_a_partial_that_was_whole_needs_no_peer(store: BlobStore, content: bytes) -> None:
    leave_partial(store, content)
    subject, peers = fetcher(store, a=FakePeer(dead=True))
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert peers.fakes["a"].heads == 0
    assert store.read(DIGEST, len(BIG) + 9) == BIG


def test_a_partial_is_not_trusted_without_a_map(store: BlobStore) -> None:
    leave_partial(store, BIG[: 2 * MIB])
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}))
    assert subject.fetch(DIGEST, len(BIG), None).state == "complete"
    assert peers.fakes["a"].streams == [0]


def test_a_partial_that_only_a_lying_map_vouches_for_is_fetched_anew(store: BlobStore) -> None:
    leave_partial(store, bytes(WRONG))
    lying = PieceMap(DIGEST, len(BIG), map_of(bytes(WRONG)).pieces)
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}))
    assert subject.fetch(DIGEST, len(BIG), lying).state == "failed"
    assert peers.fakes["a"].streams[0] == 0
    assert not store.has(DIGEST)


def test_bytes_that_were_verified_stay_for_the_next_attempt(store: BlobStore) -> None:
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}, breaks_at=2 * MIB + 5))
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "failed"
    assert partials(store) != []
    peers.fakes["a"].breaks_at = None
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert peers.fakes["a"].streams[-1] == 2 * MIB


@pytest.mark.parametrize(
    ("peers", "words"),
    [
        ({}, ["lists no other node"]),
        ({"a": FakePeer()}, ["a does not hold it"]),
        ({"a": FakePeer(dead=True), "b": FakePeer()}, ["a: timed out", "b does not hold it"]),
        ({"a": FakePeer(denies=403)}, ["a answered 403"]),
    ],
)
def test_a_failure_names_every_peer(store: BlobStore, peers: dict[str, FakePeer], words: list[str]) -> None:
    subject, _ = fetcher(store, **peers)
    progress = subject.fetch(DIGEST, len(BIG), MAP)
    assert progress.state == "failed"
    for word in words:
        assert word in progress.reason


def test_peers_that_failed_just_now_are_not_asked_but_named(store: BlobStore) -> None:
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}))
    peers.down.add("a")
    progress = subject.fetch(DIGEST, len(BIG), MAP)
    assert progress.state == "failed"
    assert "failed just now: a" in progress.reason
    assert peers.fakes["a"].heads == 0


def test_a_holder_that_answers_late_is_waited_for_when_the_first_is_no_good(store: BlobStore) -> None:
    first = FakePeer({DIGEST: BIG}, breaks_at=0)
    subject, peers = fetcher(store, a=first, b=FakePeer({DIGEST: BIG}, slow=200), c=FakePeer(dead=True, slow=50))
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert peers.fakes["b"].streams == [0]


def test_a_dead_peer_is_not_waited_for_while_another_gives(store: BlobStore) -> None:
    dead = FakePeer(silent=True)
    subject, _ = fetcher(store, a=dead, b=FakePeer({DIGEST: BIG}))
    with gevent.Timeout(60):
        assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"


def test_an_empty_blob_needs_nobody(store: BlobStore) -> None:
    subject, _ = fetcher(store)
    assert subject.fetch(made.sha(b""), 0, None).state == "complete"
    assert store.size(made.sha(b"")) == 0
    progress = subject.fetch(made.sha(b"x"), 0, None)
    assert progress.state == "failed"
    assert not store.has(made.sha(b"x"))


def test_a_full_disk_here_is_nobodys_fault_but_ours(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}), b=FakePeer({DIGEST: BIG}))
    monkeypatch.setattr(os, "pwrite", full)
    progress = subject.fetch(DIGEST, len(BIG), MAP)
    assert progress.state == "failed"
    assert "No space left" in progress.reason
    assert peers.blamed == []


def test_what_does_not_fit_is_not_begun_but_names_still_come(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlobStore, "room", lambda _: 0)
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG, made.sha(SMALL): SMALL}))
    progress = subject.fetch(DIGEST, len(BIG), MAP)
    assert progress.state == "failed"
    assert "APL-0310" in progress.reason
    assert peers.fakes["a"].streams == []
    assert subject.fetch(made.sha(SMALL), len(SMALL), None).state == "complete"


def test_an_error_nobody_thought_of_ends_the_fetch_too(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    subject, _ = fetcher(store, a=FakePeer({DIGEST: BIG}))
    monkeypatch.setattr(module._Partial, "resume", broken)
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *_: None)
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "failed"
    monkeypatch.undo()
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"


faults = st.builds(
    FakePeer,
    st.sampled_from([{DIGEST: BIG}, {DIGEST: bytes(WRONG)}, {}]),
    breaks_at=st.none() | st.integers(0, len(BIG)),
    breaks=st.integers(1, 3),
    ends_at=st.none() | st.integers(0, len(BIG)),
    dead=st.booleans(),
    slow=st.integers(0, 5),
)


@settings(max_examples=30)
@given(st.lists(faults, max_size=4), st.booleans(), st.booleans())
def test_whatever_the_peers_do_no_wrong_byte_is_kept(
    tmp_path_factory: pytest.TempPathFactory, bad: list[FakePeer], mapped: bool, rescue: bool
) -> None:
    store = made.open_store(tmp_path_factory.mktemp("s"))
    peers = {f"p{number}": fake for number, fake in enumerate(bad)}
    if rescue:
        peers["good"] = FakePeer({DIGEST: BIG})
    subject, _ = fetcher(store, **peers)
    progress, shown = watch(subject, DIGEST, len(BIG), MAP if mapped else None)
    if rescue:
        assert progress.state == "complete", progress.reason
    if progress.state == "complete":
        assert store.read(DIGEST, len(BIG)) == BIG
    else:
        assert not store.has(DIGEST)
        assert mapped or partials(store) == []
        assert max(shown) <= 3 * MIB


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_blob_is_taken_out_and_fetched_again(store: BlobStore, damage: str, mapped: bool) -> None:
    store.put_bytes(BIG)
    path = store.path(DIGEST)
    path.chmod(0o644)
    path.write_bytes(BIG[:-5] if damage == "cut" else bytes(WRONG))
    subject, fakes = fetcher(store, a=FakePeer({DIGEST: BIG}))
    # Of its size, it is believed until somebody complains.
    assert subject.fetch(DIGEST, len(BIG), MAP if mapped else None).state == "complete"
    assert fakes.fakes["a"].heads == (1 if damage == "cut" else 0)
    assert subject.fetch(DIGEST, len(BIG), MAP if mapped else None, suspect=True).state == "complete"
    assert store.read(DIGEST, len(BIG)) == BIG
    assert fakes.fakes["a"].heads == 1
    assert list(store.quarantined()) == [DIGEST]


def test_a_sound_blob_survives_any_suspicion(store: BlobStore) -> None:
    store.put_bytes(BIG)
    subject, _ = fetcher(store)
    assert subject.fetch(DIGEST, len(BIG), MAP, suspect=True).state == "complete"
    wrong = subject.fetch(DIGEST, 5, None)
    assert wrong.state == "failed"
    assert "APL-0316" in wrong.reason
    assert store.read(DIGEST, len(BIG)) == BIG


def test_what_running_fetches_will_write_counts_as_used(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two would fit alone; both together would fill the disk."""
    asked = list[int]()
    monkeypatch.setattr(store, "check_room", asked.append)
    subject, _ = fetcher(store, a=FakePeer({DIGEST: BIG}))
    running = Progress(1000)
    running.advance(verified=400)
    subject._admitted["another"] = running
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert asked[0] == len(BIG) + 600


def test_quarantine_makes_room_before_a_fetch_is_refused(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    old = store.put_bytes(b"rotten").digest
    store.quarantine(old)
    monkeypatch.setattr(store, "room", lambda: 0 if store.quarantined() else 1 << 30)
    subject, _ = fetcher(store, a=FakePeer({DIGEST: BIG}))
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert store.quarantined() == {}


# ------------------------------------------------------------------------------------------------------- slow sources


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("rate", [2, 64 << 10, GOOD_BYTES - 4096])
def test_a_slow_source_is_replaced_and_what_it_gave_is_kept(store: BlobStore, rate: int, mapped: bool) -> None:
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}, rate=rate), b=FakePeer({DIGEST: BIG}, slow=3))
    begun = CLOCK.now
    assert subject.fetch(DIGEST, len(BIG), MAP if mapped else None).state == "complete"
    spent = CLOCK.now - begun
    assert spent <= 1.0 + STEP / rate
    assert peers.fakes["a"].streams == [0]
    assert peers.fakes["b"].streams == [pytest.approx(rate * spent)]
    assert peers.blamed == [], "slow is not dead: its answers to other questions still count"
    assert store.read(DIGEST, len(BIG)) == BIG


def test_a_source_that_is_fast_enough_is_kept(store: BlobStore) -> None:
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}, rate=GOOD_BYTES), b=FakePeer({DIGEST: BIG}, slow=3))
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert peers.fakes["b"].streams == []


def test_a_slow_disk_here_is_not_the_sources_fault(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite

    def slowly(*arguments: Any) -> int:
        CLOCK.now += 60
        return write(*arguments)

    monkeypatch.setattr(os, "pwrite", slowly)
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}), b=FakePeer({DIGEST: BIG}, slow=3))
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert peers.fakes["b"].streams == []


@pytest.mark.parametrize("mapped", [True, False])
def test_a_slow_source_is_used_where_nobody_else_holds_the_blob(store: BlobStore, mapped: bool) -> None:
    """Also over a link that no site has: twice the least."""
    rate = 2 * LEAST_BYTES / LEAST_SECONDS
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}, rate=rate), b=FakePeer())
    said: list[str] = []
    progress = subject.start(DIGEST, len(BIG), MAP if mapped else None)
    while progress.state == "fetching":
        gevent.sleep(0)
        said.append(progress.reason)
    assert progress.state == "complete"
    assert progress.reason == ""
    assert "a delivers 1.1 KiB a second" in said
    assert peers.fakes["a"].streams == [0]


def slow_fetch(store: BlobStore, troubles: Troubles | None = None) -> tuple[Fetcher, FakePeer]:
    """Return a fetcher whose one source gives 8 KiB a second."""
    peer = FakePeer({DIGEST: BIG}, rate=8 << 10)
    return Fetcher(store, FakePeers(a=peer, b=FakePeer()), at_once, CLOCK, troubles), peer


def test_a_slow_source_that_nobody_can_replace_is_among_the_troubles(store: BlobStore) -> None:
    troubles = Troubles(CLOCK)
    subject, _ = slow_fetch(store, troubles)
    progress = subject.start(DIGEST, len(BIG), MAP)
    while not troubles.times("a", "slow blobs"):
        gevent.sleep(0)
    (trouble,) = troubles.all()
    assert (trouble.peer, trouble.keeps_back, trouble.ended) == ("a", f"blob {DIGEST}", None)
    assert "a delivers 8.0 KiB a second, and no other node gives it" in trouble.reason
    while progress.state == "fetching":
        progress.changed.wait()
    assert [item.ended is None for item in troubles.all()] == [False], "it gave all of it at last"


def test_a_slow_fetch_gives_way_and_goes_on_later(store: BlobStore) -> None:
    troubles = Troubles(CLOCK)
    subject, peer = slow_fetch(store, troubles)
    fetch = gevent.spawn(subject.fetch, DIGEST, len(BIG), MAP, may_give_way=True)
    begun = CLOCK.now
    while CLOCK.now - begun < 200:
        gevent.sleep(0)
    subject.give_way(DIGEST)
    progress = fetch.get()
    assert progress.state == "failed"
    assert progress.reason == "other blobs were fetched first: a delivers 8.0 KiB a second"
    assert CLOCK.now - begun < 205
    assert troubles.times("a", "slow blobs"), "it still keeps the blob back"
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert peer.streams == [0, MAP.piece_size], "the pieces that came were kept"


@pytest.mark.parametrize("who", ["client", "caller"])
def test_a_fetch_that_somebody_waits_for_gives_no_way(store: BlobStore, who: str) -> None:
    subject, _ = slow_fetch(store)
    fetch = gevent.spawn(subject.fetch, DIGEST, len(BIG), MAP, may_give_way=True)
    gevent.sleep(0)
    if who == "client":
        subject.start(DIGEST, len(BIG), MAP, for_client=True).client_until += 1e6
    else:
        gevent.spawn(subject.fetch, DIGEST, len(BIG), MAP)
        gevent.sleep(0)
    subject.give_way(DIGEST)
    assert fetch.get().state == "complete"


def test_a_source_that_is_fast_enough_gives_no_way(store: BlobStore) -> None:
    subject = Fetcher(store, FakePeers(a=FakePeer({DIGEST: BIG}, rate=2 * GOOD_BYTES)), at_once, CLOCK)
    fetch = gevent.spawn(subject.fetch, DIGEST, len(BIG), MAP, may_give_way=True)
    gevent.sleep(0)
    subject.give_way(DIGEST)
    assert fetch.get().state == "complete"


@pytest.mark.parametrize("rate", [0.5, 2, 0.9 * LEAST_BYTES / LEAST_SECONDS])
def test_a_source_that_gives_next_to_nothing_is_given_up_at_last(store: BlobStore, rate: float) -> None:
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}, rate=rate))
    begun = CLOCK.now
    progress = subject.fetch(DIGEST, len(BIG), MAP)
    assert progress.state == "failed"
    assert progress.reason == "a delivered less than 16.0 KiB in 30 s"
    assert CLOCK.now - begun <= LEAST_SECONDS + STEP / rate
    assert peers.blamed == []


def test_of_slow_sources_the_fastest_is_used(store: BlobStore) -> None:
    rates = {"a": 3000, "b": 60_000, "c": 20_000}
    subject, peers = fetcher(store, **{name: FakePeer({DIGEST: BIG}, rate=rate) for name, rate in rates.items()})
    begun = CLOCK.now
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert CLOCK.now - begun < len(BIG) / 60_000 + 10
    assert len(peers.fakes["b"].streams) == 2
    # Tried once each, and again where they may have become well; not again and again.
    assert all(len(peers.fakes[name].streams) <= 2 for name in "ac")


def test_a_slow_source_is_not_left_for_one_that_is_hardly_faster(store: BlobStore) -> None:
    subject, peers = fetcher(
        store, a=FakePeer({DIGEST: BIG}, rate=100_000), b=FakePeer({DIGEST: BIG}, rate=100_000 / FASTER, slow=3)
    )
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert len(peers.fakes["a"].streams) == 2
    assert len(peers.fakes["b"].streams) == 1


def test_somebody_who_has_it_later_is_found_while_a_slow_source_delivers(store: BlobStore) -> None:
    late = FakePeer()
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}, rate=8 << 10), b=late)
    progress = subject.start(DIGEST, len(BIG), MAP)
    begun = CLOCK.now
    while progress.state == "fetching":
        gevent.sleep(0)
        if CLOCK.now - begun > REMEMBER_SECONDS / 2:
            late.blobs = {DIGEST: BIG}
    assert progress.state == "complete"
    assert CLOCK.now - begun < REMEMBER_SECONDS + 5
    assert peers.fakes["a"].streams == [0]


def test_a_slow_source_comes_last_in_the_next_fetch_and_is_forgiven(store: BlobStore) -> None:
    other = made.noise(5, MIB)
    blobs = {DIGEST: BIG, made.sha(other): other}
    subject, peers = fetcher(store, a=FakePeer(blobs, rate=1000), b=FakePeer(blobs, slow=3))
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    begun = CLOCK.now
    assert subject.fetch(made.sha(other), len(other), None).state == "complete"
    assert CLOCK.now == begun, "it was not even tried"
    assert peers.fakes["a"].streams == [0]
    CLOCK.now += REMEMBER_SECONDS
    third = made.noise(6, MIB)
    for fake in peers.fakes.values():
        fake.blobs = {made.sha(third): third}
        fake.rate = 0
    assert subject.fetch(made.sha(third), len(third), None).state == "complete"
    assert len(peers.fakes["a"].streams) == 2


@pytest.mark.parametrize("at", [0, 100, MIB + 5])
def test_a_read_that_does_not_return_is_given_up(store: BlobStore, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """A record of TLS that comes byte by byte: the socket is never silent, and nothing can be read."""
    monkeypatch.setattr(delivery, "GOOD_SECONDS", 0.02)
    subject, peers = fetcher(store, a=FakePeer({DIGEST: BIG}, hangs_at=at), b=FakePeer({DIGEST: BIG}, slow=3))
    with gevent.Timeout(60):
        assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert peers.fakes["b"].streams == [at]
    monkeypatch.setattr(delivery, "LEAST_SECONDS", 0.05)
    alone, _ = fetcher(made.open_store(store.root.parent / "alone"), a=FakePeer({DIGEST: BIG}, hangs_at=at % MIB))
    with gevent.Timeout(60):
        assert alone.fetch(DIGEST, len(BIG), MAP).state == "failed"


def test_a_source_that_answers_late_and_breaks_off_is_not_waited_for_again(store: BlobStore) -> None:
    """A client stood still for the time of two answers, 3.2 s."""
    subject, peers = fetcher(
        store,
        a=FakePeer({DIGEST: BIG}, answers_after=1.4, breaks_at=600_000),
        b=FakePeer({DIGEST: BIG}, slow=3),
    )
    begun = CLOCK.now
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert (peers.fakes["a"].streams, peers.fakes["b"].streams) == ([0], [600_000])
    assert CLOCK.now - begun < 2
    alone, peers = fetcher(
        made.open_store(store.root.parent / "alone"),
        a=FakePeer({DIGEST: BIG}, answers_after=1.4, breaks_at=600_000, breaks=1),
    )
    assert alone.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert peers.fakes["a"].streams == [0, 600_000], "nobody else holds it"


def test_a_connection_counts_as_long_as_it_takes() -> None:
    subject = Delivery()
    assert subject.connecting() is subject.connected(5) is Verdict.WELL, "the first is free"
    assert subject.connecting() is Verdict.SLOW, "as the one before"
    quick = Delivery()
    quick.connecting()
    quick.connected(0.01)
    assert quick.connecting() is Verdict.WELL
    assert quick.connected(0.4) is Verdict.WELL, "no more than was counted"
    quick = Delivery()
    quick.connecting()
    quick.connected(0.01)
    quick.connecting()
    assert quick.connected(1.4) is Verdict.SLOW


@pytest.mark.parametrize("every", [1, 1000, 300_000])
def test_a_connection_that_breaks_again_and_again_is_judged_by_what_comes(store: BlobStore, every: int) -> None:
    class Breaking(FakePeer):
        """Breaks so many bytes after each start."""

        @property
        def breaks_at(self) -> int:
            return self.streams[-1] + every

        @breaks_at.setter
        def breaks_at(self, _: int | None) -> None:
            """Keep to the bytes."""

    subject, peers = fetcher(store, a=Breaking({DIGEST: BIG}))
    progress = subject.fetch(DIGEST, len(BIG), MAP)
    if every * 60 < LEAST_BYTES:
        assert progress.state == "failed"
        assert len(peers.fakes["a"].streams) <= 2 * LEAST_SECONDS + 1
    else:
        assert progress.state == "complete"
        assert store.read(DIGEST, len(BIG)) == BIG
