"""Fetching: from whoever has it, byte after byte, and never a wrong one shown."""

from __future__ import annotations

import errno
import os
from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from appliance.agent import fetch as module
from appliance.agent.fetch import Fetcher, Progress
from appliance.oci.piecemap import PieceHasher, PieceMap
from appliance.store.blobs import BlobStore
from tests.unit.agent.fakes import FakePeer, FakePeers, at_once
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
    return Fetcher(store, fakes, at_once), fakes


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


def test_a_blob_comes_whole_and_is_shown_piece_by_piece(store: BlobStore) -> None:
    subject, _ = fetcher(store, a=FakePeer({DIGEST: BIG}))
    progress, shown = watch(subject, DIGEST, len(BIG), MAP)
    assert (progress.state, progress.verified) == ("complete", len(BIG))
    assert shown == [0, MIB, 2 * MIB, 3 * MIB]
    assert store.read(DIGEST, len(BIG)) == BIG
    assert partials(store) == []


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
    assert peers.fakes["a"].streams == [0]
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


def test_quarantine_makes_room_before_a_fetch_is_refused(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    old = store.put_bytes(b"rotten").digest
    store.quarantine(old)
    monkeypatch.setattr(store, "room", lambda: 0 if store.quarantined() else 1 << 30)
    subject, _ = fetcher(store, a=FakePeer({DIGEST: BIG}))
    assert subject.fetch(DIGEST, len(BIG), MAP).state == "complete"
    assert store.quarantined() == {}
