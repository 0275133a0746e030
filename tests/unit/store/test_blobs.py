"""Blobs: whole and right, or not there at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.files import write_atomically
from appliance.oci.pieces import BIG_BLOB, PieceHasher
from appliance.store.blobs import BlobStore
from tests.unit.store import made

CONTENT = b"what the site was given"


def leftovers(store: BlobStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file() and "incoming" in path.parts]


def files(store: BlobStore) -> list[Path]:
    return [path for path in (store.root / "blobs").rglob("*") if path.is_file()]


def test_put_keeps_the_bytes_under_their_digest(store: BlobStore) -> None:
    stored = store.put([CONTENT[:5], memoryview(CONTENT)[5:]])
    assert (stored.digest, stored.size, stored.head) == (made.sha(CONTENT), len(CONTENT), CONTENT[:16])
    path = store.root / "blobs" / "sha256" / stored.digest[7:]
    assert path == store.path(stored.digest)
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert store.has(stored.digest)
    assert store.size(stored.digest) == len(CONTENT)
    assert leftovers(store) == []


def test_an_expected_sha512_decides_the_algorithm(store: BlobStore) -> None:
    digest = made.sha(CONTENT, "sha512")
    assert store.put([CONTENT], expect=digest).digest == digest
    assert store.read(digest, 100) == CONTENT
    assert list(store.digests()) == [(digest, len(CONTENT))]


def test_chunks_whose_memory_is_used_again_are_kept_apart(store: BlobStore) -> None:
    def chunks() -> Iterator[memoryview]:
        buffer = bytearray(4)
        for part in (b"abcd", b"efgh"):
            buffer[:] = part
            yield memoryview(buffer)

    assert store.read(store.put(chunks()).digest, 100) == b"abcdefgh"


@pytest.mark.parametrize(
    ("size", "expect", "code"),
    [
        (len(CONTENT) + 1, None, "APL-0106"),
        (len(CONTENT) - 1, made.sha(CONTENT), "APL-0106"),
        (len(CONTENT), made.sha(b"other"), "APL-0107"),
        (None, made.sha(b"other", "sha512"), "APL-0107"),
    ],
)
def test_what_was_not_announced_leaves_nothing(
    store: BlobStore, size: int | None, expect: str | None, code: str
) -> None:
    with pytest.raises(ApplianceError) as caught:
        store.put([CONTENT], size=size, expect=expect)
    assert caught.value.code == code
    assert files(store) == []
    assert leftovers(store) == []


def test_a_stream_that_breaks_leaves_nothing(store: BlobStore) -> None:
    def chunks() -> Iterator[bytes]:
        yield CONTENT
        raise RuntimeError("the stick was pulled out")

    with pytest.raises(RuntimeError, match="pulled out"):
        store.put(chunks())
    assert files(store) == []
    assert leftovers(store) == []


@pytest.mark.parametrize("expect", [True, False])
def test_a_blob_that_is_here_is_not_written_again(store: BlobStore, expect: bool) -> None:
    digest = store.put([CONTENT]).digest
    before = store.path(digest).stat()
    store.put([CONTENT], size=len(CONTENT), expect=digest if expect else None)
    after = store.path(digest).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert leftovers(store) == []


def test_a_blob_that_is_here_needs_no_room(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store.put([CONTENT]).digest
    monkeypatch.setattr(BlobStore, "room", lambda _: 0)
    assert store.put([CONTENT], size=len(CONTENT), expect=digest).digest == digest
    with pytest.raises(ApplianceError, match="not enough room"):
        store.put([b"x"], size=1)


def test_a_blob_that_is_here_is_still_checked_against_what_comes(store: BlobStore) -> None:
    digest = store.put([CONTENT]).digest
    with pytest.raises(ApplianceError) as caught:
        store.put([b"another stick"], expect=digest)
    assert caught.value.code == "APL-0107"
    assert store.read(digest, 100) == CONTENT


def test_a_blob_cut_short_on_this_disk_is_written_again(store: BlobStore) -> None:
    digest = store.put([CONTENT]).digest
    path = store.path(digest)
    path.chmod(0o644)
    path.write_bytes(CONTENT[:3])
    store.put([CONTENT], size=len(CONTENT), expect=digest)
    assert path.read_bytes() == CONTENT


def test_big_blobs_get_a_piece_map_also_when_they_are_here(store: BlobStore) -> None:
    big = made.noise(1, BIG_BLOB + 5)
    hasher = PieceHasher(len(big))
    hasher.update(big)
    expected = hasher.finish(made.sha(big))
    store.put([big], size=len(big))
    assert store.piece_maps == {made.sha(big): expected}
    again = BlobStore(store.root, reserve=0)
    again.put([big], size=len(big), expect=made.sha(big))
    assert again.piece_maps == {made.sha(big): expected}


def test_small_blobs_get_no_piece_map(store: BlobStore) -> None:
    store.put([b"x" * BIG_BLOB], size=BIG_BLOB)
    assert store.piece_maps == {}


@pytest.mark.parametrize(("call", "number"), [("write", errno.ENOSPC), ("fsync", errno.EDQUOT)])
def test_a_full_disk_says_so_and_leaves_nothing(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def full(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(ApplianceError) as caught:
        store.put([CONTENT], where="images.tar")
    assert caught.value.code == "APL-0310"
    monkeypatch.undo()
    assert files(store) == []
    assert leftovers(store) == []


def test_a_directory_that_cannot_grow_is_a_full_disk_too(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(ApplianceError) as caught:
        store.put([CONTENT])
    assert caught.value.code == "APL-0310"
    assert leftovers(store) == []


def test_another_error_of_the_disk_is_not_called_full(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", broken)
    with pytest.raises(ApplianceError) as caught:
        store.put([CONTENT])
    assert caught.value.code == "APL-0311"
    assert "Input/output" in str(caught.value)


def test_short_writes_are_finished(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, view: real(handle, bytes(view)[:3]))
    assert store.read(store.put([CONTENT]).digest, 100) == CONTENT


@given(numbers=st.tuples(st.integers(1, 10**9), st.integers(0, 10**9)), percent=st.floats(0, 99), reserve=st.integers())
def test_room_leaves_what_has_to_stay_free(numbers: tuple[int, int], percent: float, reserve: int) -> None:
    blocks, free = max(numbers), min(numbers)
    reserve = abs(reserve) % 2**40
    with pytest.MonkeyPatch.context() as patch:

        class Numbers:
            f_blocks, f_frsize, f_bavail = blocks, 4096, free

        patch.setattr(os, "statvfs", lambda _: Numbers)
        store = BlobStore(Path("/"), free_percent=percent, reserve=reserve)
        room = store.room()
        keep = max(reserve, int(blocks * 4096 * percent / 100))
        assert room >= 0
        assert room == 0 or free * 4096 - room == keep
        store.check_room(room)
        with pytest.raises(ApplianceError) as caught:
            store.check_room(room + 1)
        assert caught.value.code == "APL-0310"
        assert str(room + 1) in caught.value.why
        assert str(room) in caught.value.why


def test_room_of_a_store_that_is_still_to_be_made(tmp_path: Path) -> None:
    assert BlobStore(tmp_path / "not" / "yet" / "there", reserve=0).room() > 0
    assert list(tmp_path.iterdir()) == []


def test_read_is_bounded_and_says_what_is_missing(store: BlobStore) -> None:
    digest = store.put([CONTENT]).digest
    assert store.read(digest, len(CONTENT)) == CONTENT
    with pytest.raises(ApplianceError) as caught:
        store.read(digest, len(CONTENT) - 1)
    assert caught.value.code == "APL-0303"
    with pytest.raises(ApplianceError) as caught:
        store.read(made.sha(b"else"), 10)
    assert caught.value.code == "APL-0302"


@pytest.mark.parametrize(
    "digest", ["sha256:../../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "0" * 32, "", "latest"]
)
def test_what_is_no_digest_becomes_no_path(store: BlobStore, digest: str) -> None:
    for call in (store.path, store.has, store.size, store.open):
        with pytest.raises(ApplianceError) as caught:
            call(digest)
        assert caught.value.code == "APL-0201"


def test_open_and_size_of_what_is_not_here(store: BlobStore) -> None:
    assert store.open(made.sha(b"else")) is None
    assert store.size(made.sha(b"else")) is None
    assert not store.has(made.sha(b"else"))


def test_digests_lists_blobs_and_nothing_else(store: BlobStore) -> None:
    wanted = {store.put([bytes([number])]).digest for number in range(5)}
    (store.root / "blobs" / "sha256" / "lost+found").mkdir()
    (store.root / "blobs" / "sha256" / ".hidden").write_bytes(b"")
    (store.root / "blobs" / "notes.txt").write_bytes(b"")
    assert {digest for digest, _ in store.digests()} == wanted


def test_place_moves_a_verified_file_for_good(store: BlobStore) -> None:
    partial = store.root / "partial" / "x.data"
    partial.write_bytes(CONTENT)
    store.place(partial, made.sha(CONTENT))
    assert not partial.exists()
    assert store.read(made.sha(CONTENT), 100) == CONTENT
    assert stat.S_IMODE(store.path(made.sha(CONTENT)).stat().st_mode) == 0o444


def test_create_makes_an_empty_layout_once(tmp_path: Path) -> None:
    store = made.open_store(tmp_path / "a" / "b")
    assert (store.root / "oci-layout").read_bytes() == b'{"imageLayoutVersion":"1.0.0"}'
    (store.root / "index.json").write_bytes(b"what is served")
    store.create()
    assert (store.root / "index.json").read_bytes() == b"what is served"
    store.require()


def test_require_refuses_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError) as caught:
        BlobStore(tmp_path).require()
    assert caught.value.code == "APL-0301"


def test_what_a_killed_import_left_is_removed(store: BlobStore) -> None:
    digest = store.put([CONTENT]).digest
    (store.root / "incoming" / "0123").write_bytes(b"half")
    copy = store.root / "generations" / ".00000002-0123456789abcdef.json.abc"
    for half in (store.root / ".index.json.abc", copy):
        half.write_bytes(b"half")
    store.clear_incoming()
    assert not copy.exists()
    assert leftovers(store) == []
    assert not (store.root / ".index.json.abc").exists()
    assert (store.root / "index.json").exists()
    assert store.has(digest)


def test_write_atomically_replaces_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"three")
    assert path.read_bytes() == b"two"
    assert [item.name for item in tmp_path.iterdir()] == ["index.json"]


def test_a_blob_is_durable_before_it_has_its_name(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def spy_fsync(handle: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def spy_rename(old: Any, new: Any) -> None:
        done.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "rename", spy_rename)
    store.put([CONTENT])
    assert done == ["file", "rename", "directory"]


def test_a_seeding_that_begins_leaves_alone_what_a_push_is_writing(store: BlobStore) -> None:
    raw = made.noise(1, 5000)
    (store.root / "incoming" / "leftover").write_bytes(b"x")

    def chunks() -> Iterator[bytes]:
        yield raw[:1000]
        store.clear_incoming()
        yield raw[1000:]

    assert store.put(chunks(), size=len(raw), expect=made.sha(raw)).digest == made.sha(raw)
    assert store.read(made.sha(raw), 5000) == raw
    assert list((store.root / "incoming").iterdir()) == []


def test_a_blob_whose_inode_the_disk_lost_is_not_here_and_no_trouble_to_others(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, sound = store.put([b"lost"]).digest, store.put([b"sound"]).digest
    original = os.stat

    def failing(path: Any, **more: Any) -> os.stat_result:
        if str(path) == str(store.path(lost)):
            raise OSError(errno.EIO, "Input/output error")
        return original(path, **more)

    monkeypatch.setattr(os, "stat", failing)
    assert (store.has(lost), store.size(lost)) == (False, None)
    assert (store.has(sound), store.size(sound)) == (True, 5)
    assert set(store.names()) == {lost, sound}

    def refusing(path: Any, **more: Any) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied")

    # That is no fault of the disk, and would be "fetched again" for ever.
    monkeypatch.setattr(os, "stat", refusing)
    with pytest.raises(PermissionError):
        store.size(sound)
