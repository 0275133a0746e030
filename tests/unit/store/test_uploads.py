"""Uploads: whatever the order of processes and requests, a blob appears only whole and under its own digest."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.oci.pieces import PieceMap
from appliance.store import uploads as module
from appliance.store.blobs import BlobStore
from appliance.store.uploads import UploadBusy, Uploads
from tests.unit.store import made

REPOSITORY, OTHER = "docker.io/team/app", "docker.io/team/other"
BIG = made.noise(7, (2 << 20) + 5)


def start(uploads: Uploads, chunks: list[bytes], *, length: int | None = None) -> str:
    identity = uploads.begin(REPOSITORY)
    append(uploads, identity, chunks, length=length)
    return identity


def append(uploads: Uploads, identity: str, chunks: list[bytes], *, length: int | None = None) -> None:
    upload = uploads.open(REPOSITORY, identity)
    assert upload is not None
    upload.expect(length)
    for chunk in chunks:
        upload.append(chunk)
    upload.close()


def finish(uploads: Uploads, identity: str, digest: str) -> None:
    upload = uploads.open(REPOSITORY, identity)
    assert upload is not None
    try:
        upload.finish(digest)
    finally:
        upload.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    chunks=st.lists(st.binary(max_size=40), max_size=5),
    restarts=st.sets(st.integers(0, 5)),
    algorithm=st.sampled_from(["sha256", "sha512"]),
    announced=st.booleans(),
)
def test_any_chunks_by_any_processes_make_the_blob(
    store: BlobStore, chunks: list[bytes], restarts: set[int], algorithm: str, announced: bool
) -> None:
    """``restarts`` says before which chunk another process goes on, which has seen nothing of what came before."""
    uploads, whole = Uploads(store), b"".join(chunks)
    identity = uploads.begin(REPOSITORY)
    for number, chunk in enumerate(chunks):
        if number in restarts:
            uploads = Uploads(store)
        append(uploads, identity, [chunk], length=len(chunk) if announced else None)
    assert uploads.size(REPOSITORY, identity) == len(whole)
    digest = made.sha(whole, algorithm)
    finish(Uploads(store) if len(chunks) in restarts else uploads, identity, digest)
    assert store.read(digest, 1 << 20) == whole
    assert uploads.is_linked(REPOSITORY, digest)
    assert uploads.size(REPOSITORY, identity) is None


@pytest.mark.parametrize("length", [None, len(BIG), len(BIG) - 1])
@pytest.mark.parametrize("restart", [False, True])
def test_a_big_blob_gets_its_piece_map(store: BlobStore, length: int | None, restart: bool) -> None:
    uploads = Uploads(store)
    identity = start(uploads, [BIG[: 1 << 20], BIG[1 << 20 :]], length=length)
    finish(Uploads(store) if restart else uploads, identity, made.sha(BIG))
    found = uploads.piece_map(REPOSITORY, made.sha(BIG))
    assert found is not None
    assert found.digest == made.put_map(store, BIG).digest
    assert PieceMap.from_bytes(store.read(found.digest, 1 << 20)).verify(0, BIG[: 1 << 20])


def test_wrong_bytes_are_no_blob_and_the_upload_is_gone(store: BlobStore) -> None:
    uploads = Uploads(store)
    identity = start(uploads, [b"other"])
    with pytest.raises(ApplianceError, match="APL-0107"):
        finish(uploads, identity, made.sha(b"this"))
    assert uploads.size(REPOSITORY, identity) is None
    assert not store.has(made.sha(b"this")) and not store.has(made.sha(b"other"))
    assert not uploads.is_linked(REPOSITORY, made.sha(b"this"))


def test_bytes_that_changed_on_disk_are_found(store: BlobStore) -> None:
    identity = start(Uploads(store), [b"right"])
    (path,) = (store.root / "uploads").iterdir()
    path.write_bytes(b"wrong")
    with pytest.raises(ApplianceError, match="APL-0107"):
        finish(Uploads(store), identity, made.sha(b"right"))


def test_an_upload_belongs_to_its_repository(store: BlobStore) -> None:
    uploads = Uploads(store)
    identity = start(uploads, [b"x"])
    assert uploads.open(OTHER, identity) is None
    assert uploads.size(OTHER, identity) is None
    finish(uploads, identity, made.sha(b"x"))
    assert uploads.is_linked(REPOSITORY, made.sha(b"x"))
    assert not uploads.is_linked(OTHER, made.sha(b"x"))


@pytest.mark.parametrize("wrong", ["", "..", "../x", "x" * 32, "0" * 31, "0" * 33, "A" * 32, "0" * 32, "0" * 32 + "\n"])
def test_an_id_that_is_none_reaches_no_file(store: BlobStore, wrong: str) -> None:
    uploads = Uploads(store)
    assert uploads.open(REPOSITORY, wrong) is None
    assert uploads.size(REPOSITORY, wrong) is None


def test_one_request_at_a_time(store: BlobStore) -> None:
    identity = start(Uploads(store), [b"x"])
    upload = Uploads(store).open(REPOSITORY, identity)
    assert upload is not None
    with pytest.raises(UploadBusy):
        Uploads(store).open(REPOSITORY, identity)
    upload.close()
    again = Uploads(store).open(REPOSITORY, identity)
    assert again is not None
    again.close()


def test_what_was_taken_back_does_not_count(store: BlobStore) -> None:
    uploads = Uploads(store)
    identity = start(uploads, [b"abc"])
    upload = uploads.open(REPOSITORY, identity)
    assert upload is not None
    upload.append(b"def")
    upload.truncate(3)
    upload.close()
    finish(uploads, identity, made.sha(b"abc"))
    assert store.has(made.sha(b"abc"))


def test_cancelling_leaves_nothing(store: BlobStore) -> None:
    uploads = Uploads(store)
    upload = uploads.open(REPOSITORY, start(uploads, [b"abc"]))
    assert upload is not None
    upload.cancel()
    upload.close()
    assert list((store.root / "uploads").iterdir()) == []


@pytest.mark.parametrize("rotten", [b"abc", b"ab", b"xyz"])
def test_a_blob_that_is_here_is_replaced_by_the_verified_bytes(store: BlobStore, rotten: bytes) -> None:
    uploads, digest = Uploads(store), made.sha(b"abc")
    store.put([b"abc"])
    store.path(digest).chmod(0o644)
    store.path(digest).write_bytes(rotten)
    finish(uploads, start(uploads, [b"abc"]), digest)
    assert store.read(digest, 10) == b"abc"
    assert store.path(digest).stat().st_mode & 0o222 == 0
    assert list((store.root / "uploads").iterdir()) == []


def test_claims_are_taken_back_and_need_their_blob(store: BlobStore) -> None:
    uploads, digest = Uploads(store), made.sha(b"abc")
    uploads.link(REPOSITORY, digest)
    assert not uploads.is_linked(REPOSITORY, digest)
    store.put([b"abc"])
    assert uploads.is_linked(REPOSITORY, digest)
    assert uploads.piece_map(REPOSITORY, digest) is None
    assert uploads.unlink(REPOSITORY, digest)
    assert not uploads.unlink(REPOSITORY, digest)
    assert not uploads.is_linked(REPOSITORY, digest)


def test_an_upload_that_is_being_written_does_not_expire_when_the_clock_is_set_forward(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a start with a dead clock battery, once the time is known again."""
    uploads, later = Uploads(store), time.time() + 50 * 365 * 86400
    upload = uploads.open(REPOSITORY, uploads.begin(REPOSITORY))
    assert upload is not None
    upload.expect(len(BIG))
    upload.append(BIG)
    monkeypatch.setattr(time, "time", lambda: later)
    assert Uploads(store).expire() == 0
    upload.finish(made.sha(BIG))
    upload.close()
    assert store.size(made.sha(BIG)) == len(BIG)


def test_idle_uploads_and_claims_expire_and_others_stay(store: BlobStore) -> None:
    uploads = Uploads(store)
    old, new = start(uploads, [b"x"]), start(uploads, [b"y"])
    uploads.link(REPOSITORY, made.sha(b"old"))
    uploads.link(REPOSITORY, made.sha(b"new"))
    long_ago = time.time() - 2 * module.IDLE_SECONDS
    for path in (
        *store.root.glob(f"uploads/{old}-*"),
        *store.root.glob(f"claims/*/{made.sha(b'old').replace(':', '-')}"),
    ):
        os.utime(path, (long_ago, long_ago))
    assert uploads.expire() == 2
    assert uploads.size(REPOSITORY, old) is None
    assert uploads.size(REPOSITORY, new) == 1
    # A clock that was set back makes files look as if they came from the future.
    ahead = time.time() + 10 * module.IDLE_SECONDS
    for path in store.root.glob("uploads/*"):
        os.utime(path, (ahead, ahead))
    assert uploads.expire() == 0


def test_there_is_a_limit_to_open_uploads(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_LIMIT", 2)
    uploads = Uploads(store)
    start(uploads, [])
    start(uploads, [])
    with pytest.raises(ApplianceError, match="APL-0504"):
        uploads.begin(REPOSITORY)


def test_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made.open_store(tmp_path / "s")
    upload = Uploads(store).open(REPOSITORY, Uploads(store).begin(REPOSITORY))
    assert upload is not None
    monkeypatch.setattr(store, "room", lambda: 10)
    with pytest.raises(ApplianceError, match="APL-0310"):
        upload.expect(11)
    with pytest.raises(ApplianceError, match="APL-0310"):
        upload.append(b"x" * 11)
    upload.append(b"x" * 10)
    assert upload.size == 10
    upload.close()


def test_hashes_of_abandoned_uploads_do_not_pile_up(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    uploads = Uploads(store)
    identities = [start(uploads, [bytes([number])]) for number in range(6)]
    assert len(uploads._hashing) == 3
    for number, identity in enumerate(identities):
        finish(uploads, identity, made.sha(bytes([number])))
    assert uploads._hashing == {}


def test_nothing_is_collected_between_the_blob_and_its_claim(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads, seen = Uploads(store), list[bool]()
    original = Uploads.link

    def claim(self: Uploads, *arguments: Any) -> None:
        seen.append(made.stays(store))
        original(self, *arguments)

    monkeypatch.setattr(Uploads, "link", claim)
    finish(uploads, start(uploads, [b"abc"]), made.sha(b"abc"))
    assert seen == [True]
    assert not made.stays(store)
