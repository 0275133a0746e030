"""One stream, several uses at once: each gets all of it in order, and an error of one ends it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from appliance.store.fanout import DEPTH, SMALL, Lanes


def collected() -> tuple[list[bytes], Any]:
    taken: list[bytes] = []
    return taken, lambda chunk: taken.append(bytes(chunk))


@pytest.mark.parametrize("sizes", [[10, 20], [SMALL, SMALL], [10, SMALL, 10, 3 * SMALL, 1], [SMALL] * 40])
def test_every_use_gets_all_of_it_in_order(sizes: list[int]) -> None:
    chunks = [bytes([number]) * size for number, size in enumerate(sizes)]
    (one, use_one), (two, use_two) = collected(), collected()
    with Lanes([use_one, use_two]) as lanes:
        for chunk in chunks:
            lanes.take(chunk)
        lanes.wait()
    assert one == two == chunks


def test_memory_that_changes_is_used_before_take_returns() -> None:
    buffer, (taken, use) = bytearray(SMALL), collected()
    with Lanes([use]) as lanes:
        for number in range(20):
            buffer[:] = bytes([number]) * SMALL
            lanes.take(memoryview(buffer))
    assert [chunk[0] for chunk in taken] == list(range(20))


def test_what_a_use_raises_ends_the_stream_and_no_thread_stays() -> None:
    def full(_: object) -> None:
        raise OSError(28, "full")

    before = threading.active_count()
    with pytest.raises(OSError, match="full"), Lanes([len, full]) as lanes:
        for _ in range(10 * DEPTH):
            lanes.take(bytes(SMALL))
        lanes.wait()
    assert threading.active_count() == before


def test_uses_overlap() -> None:
    """Each waits for the other: they would never end one after the other."""
    meeting = threading.Barrier(2)
    with Lanes([lambda _: meeting.wait(60), lambda _: meeting.wait(60)]) as lanes:
        for _ in range(3):
            lanes.take(bytes(SMALL))
        lanes.wait()


def test_a_stream_that_ends_early_uses_nothing_more_and_leaves_no_thread() -> None:
    taken, use = collected()
    before = threading.active_count()
    with pytest.raises(RuntimeError), Lanes([use]) as lanes:
        lanes.take(bytes(SMALL))
        raise RuntimeError
    assert len(taken) <= 1
    assert threading.active_count() == before
