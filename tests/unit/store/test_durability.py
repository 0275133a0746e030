"""What is durable before what, as the calls to the system show it: a power loss cannot be made in a unit test, its order can."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from appliance.store.blobs import BlobStore
from tests.unit.store import made

NAME = "docker.io/library/a:1"


class Calls:
    """The calls that make something durable or give it its name, in order: ``("fsync", inode)`` and ``("rename", target)``.

    :param store: looked at when a blob gets its name, for whether a collection would have to wait.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: BlobStore) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.stayed: list[bool] = []
        fsync, rename = os.fsync, os.rename

        def noted_fsync(handle: int) -> None:
            fsync(handle)
            self.seen.append(("fsync", os.fstat(handle).st_ino))

        def noted_rename(source: Any, target: Any, **more: Any) -> None:
            if Path(target).is_relative_to(store.root / "blobs"):
                self.stayed.append(made.stays(store))
            rename(source, target, **more)
            self.seen.append(("rename", str(target)))

        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(os, "rename", noted_rename)

    def named(self, path: Path) -> int:
        return self.seen.index(("rename", str(path)))

    def durable(self, path: Path, after: int = -1) -> int:
        """Position of the first time that a file or directory was made durable after another call."""
        return next(
            number for number, call in enumerate(self.seen) if number > after and call == ("fsync", path.stat().st_ino)
        )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, store: BlobStore) -> Calls:
    """The calls from here on."""
    return Calls(monkeypatch, store)


@pytest.mark.parametrize("way", ["written", "moved"])
def test_a_blob_has_its_name_once_its_bytes_are_durable(store: BlobStore, calls: Calls, way: str) -> None:
    """By ``put`` as seedings write it, and by ``place`` as pushes and fetches bring it."""
    content = b"the bytes of a layer"
    if way == "written":
        store.put_bytes(content)
    else:
        file = store.root / "partial" / "one.data"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        store.place(file, made.sha(content))
    path = store.path(made.sha(content))
    assert calls.durable(path) < calls.named(path) < calls.durable(path.parent, calls.named(path))
    assert calls.stayed == [True], "no collection runs while it gets its name"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_the_directory_of_an_algorithm_is_durable_before_its_first_blob(store: BlobStore, calls: Calls) -> None:
    store.put([b"x"], expect=made.sha(b"x", "sha512"))
    path = store.path(made.sha(b"x", "sha512"))
    assert calls.durable(path.parent.parent) < calls.named(path)


def test_a_generation_has_its_copy_before_it_is_the_current_one(store: BlobStore, calls: Calls) -> None:
    """Whoever sees the new ``index.json`` finds the copy that a rollback and a repair take."""
    generation = made.publish(store, {NAME: made.image(1)})
    (copy,) = (store.root / "generations").glob("00000001-*.json")
    index = store.root / "index.json"
    assert copy.read_bytes() == index.read_bytes() == generation.raw
    assert calls.durable(copy) < calls.named(copy) < calls.durable(copy.parent, calls.named(copy)) < calls.named(index)
    assert calls.durable(index) < calls.named(index) < calls.durable(store.root, calls.named(index))


def test_a_blob_in_quarantine_has_both_directories_durable(store: BlobStore, calls: Calls) -> None:
    digest = store.put_bytes(b"rotten").digest
    path = store.path(digest)
    moved = store.quarantine(digest)
    assert moved is not None
    for directory in (moved.parent, path.parent):
        assert calls.durable(directory, calls.named(moved))


def test_a_link_in_the_place_of_a_blob_is_not_followed(store: BlobStore, tmp_path: Path) -> None:
    digest = store.put_bytes(b"sound").digest
    (tmp_path / "elsewhere").write_bytes(b"sound")
    path = store.path(digest)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        store.open(digest)


def test_a_link_in_the_place_of_the_index_is_not_followed(store: BlobStore, tmp_path: Path) -> None:
    made.publish(store, {NAME: made.image(1)})
    index, generations = store.root / "index.json", made.generations(store)
    state = generations.state()
    assert state is not None
    index.rename(tmp_path / "elsewhere")
    index.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        generations.open(state)
