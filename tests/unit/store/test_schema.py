"""The form of a store: an artificial conversion, ended at each point, taken back, and met by a release that is too old."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from appliance.errors import ApplianceError
from appliance.store.blobs import BlobStore
from appliance.store.schema import CONVERSIONS, Migration, check, prepare
from tests.unit.store import made


def upper(root: Path) -> None:
    """Write a file's text in capitals, by a rename."""
    new = root / "note.new"
    new.write_text((root / "note").read_text().upper())
    new.rename(root / "note")


GENTLE = (Migration(1, upper),)
STRICT = (Migration(1, upper), Migration(2, lambda root: None))


@pytest.fixture
def old(store: BlobStore) -> BlobStore:
    """A store of form 1."""
    (store.root / "note").write_text("a note")
    return store


def refused(root: Path, conversions: tuple[Migration, ...] = ()) -> str:
    with pytest.raises(ApplianceError) as caught:
        check(root, conversions)
    assert caught.value.code == "APL-0343"
    return str(caught.value)


def test_this_releases_own_stores_have_its_form(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "new", reserve=0)
    prepare(blobs)
    assert check(blobs.root) == len(CONVERSIONS) + 1
    blobs.require()


def test_a_store_is_converted_once(old: BlobStore) -> None:
    for _ in range(2):
        prepare(old, GENTLE)
        assert (old.root / "note").read_text() == "A NOTE"
        assert check(old.root, GENTLE) == 2
        (old.root / "note").write_text("A NOTE")


def test_the_release_before_still_uses_it_and_the_one_before_that_refuses(old: BlobStore) -> None:
    prepare(old, GENTLE)
    assert check(old.root, ()) == 2
    prepare(old, ())
    assert (old.root / "form").read_text() == "2 1\n", "going back changes nothing"
    prepare(old, STRICT)
    before = made.tree(old.root)
    assert "form 3" in refused(old.root)
    with pytest.raises(ApplianceError, match="APL-0343"):
        prepare(old, ())
    assert made.tree(old.root) == before
    assert check(old.root, GENTLE) == 3


def test_one_that_was_ended_in_the_middle_is_finished_by_the_next(old: BlobStore) -> None:
    ended = [True]

    def power_loss(root: Path) -> None:
        upper(root)
        if ended.pop():
            raise KeyboardInterrupt

    conversions = (Migration(1, power_loss),)
    with pytest.raises(KeyboardInterrupt):
        prepare(old, conversions)
    assert check(old.root, conversions) == 1
    ended.append(False)
    prepare(old, conversions)
    assert check(old.root, conversions) == 2


def test_of_three_services_that_start_at_once_one_converts(old: BlobStore) -> None:
    done: list[Path] = []
    barrier = threading.Barrier(3)

    def start() -> None:
        barrier.wait()
        prepare(BlobStore(old.root), (Migration(1, done.append),))

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [old.root]


@pytest.mark.parametrize("content", [b"", b"2", b"two one", b"1 2 3", b"\xff"])
def test_a_damaged_file_is_refused(old: BlobStore, content: bytes) -> None:
    (old.root / "form").write_bytes(content)
    assert "not two numbers" in refused(old.root)


@pytest.mark.parametrize("content", [b"0 0", b"0 1", b"-1 1", b"1 0", b"1 2"])
def test_numbers_that_no_store_has_are_refused(old: BlobStore, content: bytes) -> None:
    (old.root / "form").write_bytes(content)
    assert "no store has form" in refused(old.root)
    with pytest.raises(ApplianceError, match="APL-0343"):
        prepare(old)


def test_a_store_that_is_not_there_has_no_form_to_refuse(tmp_path: Path) -> None:
    assert check(tmp_path / "nowhere") == 1
