"""The scrubber: at its rate, on from where it was, and nothing damaged passes it."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.agent import scrub
from appliance.agent.scrub import PASS_SECONDS, RateLimiter, Scrubber, State
from appliance.store.blobs import BlobStore
from tests.unit.agent.fakes import at_once
from tests.unit.store import made


class Clock:
    """Time that passes only by sleeping, and by what is done."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@given(
    rate=st.floats(1, 1e9),
    parts=st.lists(st.tuples(st.integers(1, 1 << 22), st.floats(0, 3)), min_size=1, max_size=30),
)
def test_no_stretch_of_time_sees_more_than_the_rate_and_a_second_of_it(
    rate: float, parts: list[tuple[int, float]]
) -> None:
    clock = Clock()
    pace = RateLimiter(rate, clock, clock.sleep)
    marks = [(clock.now, 0)]
    total = 0
    for count, busy in parts:
        clock.now += busy
        pace.spend(count)
        total += count
        marks.append((clock.now, total))
    for begin, (start, before) in enumerate(marks):
        for end, after in marks[begin + 1 :]:
            assert after - before <= (end - start + 1.0) * rate * 1.000001 + 1e-3


def test_a_slow_disk_is_not_waited_for_beside_its_own_time() -> None:
    clock = Clock()
    pace = RateLimiter(100, clock, clock.sleep)
    for _ in range(5):
        clock.now += 2
        pace.spend(100)
    assert clock.slept == []


class World:
    """A store with a scrubber on it."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self.clock = Clock()
        self.found = 0
        self.subject = self.make()

    def make(self) -> Scrubber:
        def found() -> None:
            self.found += 1

        pace = RateLimiter(1 << 30, self.clock, self.clock.sleep)
        return Scrubber(self.store, pace, at_once, self.clock, found)


@pytest.fixture
def world(store: BlobStore) -> World:
    made.fill(store, [made.image(1), made.image(2)])
    return World(store)


def damage(store: BlobStore, digest: str) -> None:
    path = store.path(digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[::-1])


def test_a_pass_hashes_everything_once_and_the_next_is_due_a_day_later(world: World) -> None:
    assert world.subject.due_in() == 0
    world.subject.run()
    state = world.subject.state
    assert (state.blobs, state.damaged, state.passes, state.after) == (6, 0, 1, "")
    assert state.size == sum(size for _, size in world.store.digests())
    assert 0 < world.subject.due_in() <= PASS_SECONDS
    world.clock.now += PASS_SECONDS
    assert world.subject.due_in() == 0
    # Also after a restart, and with a clock that has lost its battery.
    assert world.make().state == state
    world.clock.now = 0
    assert world.make().due_in() == 0


def test_an_empty_store_is_looked_at_again_soon(store: BlobStore) -> None:
    world = World(store)
    world.subject.run()
    assert 0 < world.subject.due_in() < PASS_SECONDS / 10


def test_a_damaged_blob_goes_to_quarantine_and_is_told_of(world: World) -> None:
    digest = made.image(1).layers[0]
    damage(world.store, digest)
    world.subject.run()
    assert list(world.store.quarantined()) == [digest]
    assert not world.store.has(digest)
    assert (world.found, world.subject.state.damaged) == (1, 1)


def test_a_blob_that_cannot_be_read_is_as_a_damaged_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = made.image(1).layers[0]
    inode = world.store.path(digest).stat().st_ino
    original = os.preadv

    def broken(handle: int, *arguments: Any) -> int:
        if os.fstat(handle).st_ino == inode:
            raise OSError(errno.EIO, "Input/output error")
        return original(handle, *arguments)

    def unreadable(handle: int, *_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    monkeypatch.setattr(os, "readv", unreadable)
    world.subject.run()
    assert list(world.store.quarantined()) == [digest]
    assert (world.found, world.subject.state.blobs) == (1, 6)


def test_it_goes_on_where_it_was_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original = Scrubber._hash

    def stop(self: Scrubber, digest: str) -> tuple[int, bool]:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(digest)
        return original(self, digest)

    monkeypatch.setattr(Scrubber, "_hash", stop)
    monkeypatch.setattr(scrub, "_SAVE_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        world.subject.run()
    monkeypatch.setattr(Scrubber, "_hash", original)
    after = world.make()
    assert after.due_in() == 0
    assert after.state.after == seen[-1]
    after.run()
    assert (after.state.blobs, after.state.passes) == (6, 1)


def test_a_full_disk_does_not_stop_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scrub, "write_atomically", full)
    world.subject.run()
    assert world.subject.state.passes == 1


def test_what_is_not_cached_is_read_and_given_back_and_what_is_cached_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []
    cached = made.image(1).layers[0]
    inode = world.store.path(cached).stat().st_ino
    original = os.preadv

    def preadv(handle: int, buffers: Any, offset: int, flags: int = 0) -> int:
        if flags == os.RWF_NOWAIT:
            if os.fstat(handle).st_ino != inode:
                raise BlockingIOError(errno.EAGAIN, "not in memory")
            flags = 0
        return original(handle, buffers, offset, flags)

    def advise(handle: int, offset: int, length: int, advice: int) -> None:
        if advice == os.POSIX_FADV_DONTNEED and length:
            given.append((os.fstat(handle).st_ino, length))

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    world.subject.run()
    inodes = {world.store.path(digest).stat().st_ino for digest, _ in world.store.digests()}
    assert {found for found, _ in given} == inodes - {inode}
    assert world.subject.state.damaged == 0


@given(st.binary(max_size=200) | st.sampled_from([b'{"after":"../x","blobs":1}', State(after="sha256:x").to_bytes()]))
def test_a_place_that_cannot_be_read_is_the_start(raw: bytes) -> None:
    assert State.read(raw).after == ""


def test_a_place_is_read_as_it_was_written() -> None:
    state = State(after=made.sha(b"x"), blobs=3, size=5, damaged=1, passes=2, began=1.5, finished=0.5)
    assert State.read(state.to_bytes()) == state
