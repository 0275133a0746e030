"""Locks of a store: held by one process at a time, and taken in one order everywhere."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.store.blobs import BlobStore
from appliance.store.locks import OutOfOrder, Rank, locked, names_locked, try_lock
from appliance.store.schema import Migration, check, prepare
from tests.unit.store import made


def in_a_thread(act: Callable[[], object]) -> object:
    """Do it in another thread, which holds no lock yet, and return what it returns."""
    done = list[object]()
    thread = threading.Thread(target=lambda: done.append(act()))
    thread.start()
    thread.join(20)
    assert done, "it waits still"
    return done[0]


def is_free(path: Path) -> bool:
    handle = os.open(path, os.O_RDONLY)
    try:
        return bool(in_a_thread(lambda: try_lock(handle)))
    finally:
        os.close(handle)


@pytest.mark.parametrize("name", ["file", "directory"])
def test_one_holds_it_and_lets_it_go_however_it_ends(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "directory":
        path.mkdir()
    with pytest.raises(KeyboardInterrupt), locked(path, Rank.INDEX):
        assert not is_free(path)
        raise KeyboardInterrupt
    assert is_free(path)
    with locked(path, Rank.INDEX):
        assert not is_free(path)


def test_a_lock_that_is_shared_keeps_the_exclusive_one_away_alone(tmp_path: Path) -> None:
    def share() -> bool:
        with locked(tmp_path, Rank.BLOBS, shared=True):
            return True

    with locked(tmp_path, Rank.BLOBS, shared=True):
        assert in_a_thread(share)
        assert not is_free(tmp_path)
        with locked(tmp_path / "pushes", Rank.PUSHES), locked(tmp_path, Rank.BLOBS, shared=True):
            assert not is_free(tmp_path)
        assert not is_free(tmp_path), "the inner one does not let the outer one's go"
    assert is_free(tmp_path)


@given(st.lists(st.sampled_from(Rank), max_size=6))
def test_what_is_out_of_order_fails_before_it_waits(
    tmp_path_factory: pytest.TempPathFactory, ranks: list[Rank]
) -> None:
    root = tmp_path_factory.mktemp("locks")

    def take(left: list[Rank], highest: int) -> None:
        if not left:
            return
        first, *rest = left
        path = root / first.name
        if first <= highest:
            with pytest.raises(OutOfOrder, match=first.name), locked(path, first):
                raise AssertionError
            assert not path.exists() or is_free(path) or first in ranks[: len(ranks) - len(left)]
            return
        with locked(path, first):
            take(rest, first)

    take(ranks, 0)
    for rank in ranks:
        # Nothing is kept of what failed.
        with locked(root / rank.name, rank):
            pass


def test_what_one_thread_holds_is_no_matter_of_another(tmp_path: Path) -> None:
    def lower() -> bool:
        with names_locked(tmp_path):
            return True

    with locked(tmp_path, Rank.LOG):
        assert in_a_thread(lower)


def test_a_conversion_may_publish_an_index(store: BlobStore) -> None:
    """It waited for itself, and every service of the node with it."""
    made.publish(store, {"docker.io/library/a:1": made.image(1)})

    def convert(root: Path) -> None:
        made.publish(BlobStore(root, reserve=0), {"docker.io/library/a:1": made.image(2)})

    conversions = (Migration(1, convert),)

    def bring_up() -> bool:
        prepare(store, conversions)
        return True

    assert in_a_thread(bring_up)
    assert check(store.root, conversions) == 2
    current = made.generations(store).current()
    assert current is not None and current.number == 2
