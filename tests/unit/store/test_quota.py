"""The limits of a store: sums that are right, cheap to know, and never refused on a guess."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.errors import ApplianceError
from appliance.store import quota as module
from appliance.store.blobs import BlobStore
from appliance.store.quota import Quota
from tests.unit.store import made


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limited(root: Path, limit: int, clock: Clock) -> BlobStore:
    blobs = made.open_store(root, limit=limit)
    blobs.space = Quota(root, reserve=0, limit=limit, clock=clock)
    return blobs


def test_what_is_on_its_way_counts_and_names_do_not(tmp_path: Path, clock: Clock) -> None:
    blobs = limited(tmp_path / "s", 1000, clock)
    for number, name in enumerate(("blobs/sha256", "partial", "incoming", "uploads", "quarantine")):
        (blobs.root / name / "x").write_bytes(bytes(10**number % 97))
    (blobs.root / "journal.jsonl").write_bytes(bytes(300))
    assert blobs.space.used() == sum(10**number % 97 for number in range(5))


def test_an_import_stops_at_the_limit_with_the_sums(tmp_path: Path, clock: Clock) -> None:
    blobs = limited(tmp_path / "s", 1000, clock)
    blobs.put([bytes(600)], size=600)
    blobs.space.collectable = lambda: 123
    with pytest.raises(ApplianceError) as refused:
        blobs.put([bytes(401)], size=401)
    assert refused.value.code == "APL-0310"
    for words in (
        "needed 401 B (401 bytes)",
        "available 400 B (400 bytes)",
        "has 600 B of the 1000 B",
        "free up to 123 B",
    ):
        assert words in refused.value.why
    assert blobs.put([bytes(400)], size=400).size == 400
    assert (blobs.room(), blobs.space.most()) == (0, 1000)


def test_the_file_system_is_a_limit_too(tmp_path: Path, clock: Clock) -> None:
    blobs = limited(tmp_path / "s", 1 << 60, clock)
    numbers = os.statvfs(tmp_path)
    assert blobs.room() <= numbers.f_blocks * numbers.f_frsize
    assert blobs.space.most() < 1 << 60


def test_files_are_counted_once_in_a_while_and_before_a_refusal(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = [0]
    original = module._size_below

    def counting(directory: Path) -> int:
        counts[0] += directory.name == "sha256"
        return original(directory)

    monkeypatch.setattr(module, "_size_below", counting)
    blobs = limited(tmp_path / "s", 1000, clock)
    for _ in range(50):
        blobs.check_room(10)
    assert counts == [1]
    # A promise is no use yet: whoever looks at the room is told what is there.
    assert (blobs.space.used(), blobs.room()) == (0, 500)
    # Promises that came to nothing, and files that somebody removed, are no reason to refuse.
    blobs.check_room(800)
    assert counts == [2]
    clock.now += 3
    blobs.space.used()
    assert counts == [3]


def test_without_a_limit_nothing_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = made.open_store(tmp_path / "s")
    monkeypatch.setattr(module, "_size_below", None)
    blobs.check_room(1)
    blobs.put([b"x"], size=1)


def test_a_collection_that_cannot_be_estimated_is_no_trouble(tmp_path: Path, clock: Clock) -> None:
    blobs = limited(tmp_path / "s", 10, clock)
    asked: list[int] = []

    def broken() -> int:
        asked.append(1)
        raise ApplianceError("APL-0321", "it cannot be known")

    blobs.space.collectable = broken
    for _ in range(2):
        with pytest.raises(ApplianceError) as refused:
            blobs.check_room(11)
        assert "appliance gc" not in refused.value.why
    assert asked == [1]
