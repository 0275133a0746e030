"""Damaged blobs: out of the way, said so, and never a right one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.store import blobs as module
from appliance.store.blobs import BlobStore
from appliance.store.fsck import check
from appliance.store.quarantine import verify_or_quarantine
from tests.unit.store import made

CONTENT = b"what the site was given"
DIGEST = made.sha(CONTENT)


def spoil(store: BlobStore, content: bytes) -> Path:
    path = store.path(DIGEST)
    path.chmod(0o644)
    path.write_bytes(content)
    return path


@pytest.fixture
def held(store: BlobStore) -> BlobStore:
    """A store with one blob."""
    store.put_bytes(CONTENT)
    return store


def lying(store: BlobStore) -> list[bytes]:
    return [path.read_bytes() for path in (store.root / "quarantine").iterdir()]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(content=st.binary(max_size=40), suspect=st.booleans(), size=st.sampled_from([None, len(CONTENT), 5]))
def test_what_is_believed_is_right_or_has_its_size_and_no_suspicion(
    store: BlobStore, content: bytes, suspect: bool, size: int | None
) -> None:
    store.empty_quarantine(store.quarantined())
    store.put_bytes(CONTENT)
    spoil(store, content)
    try:
        believed = verify_or_quarantine(store, DIGEST, size, suspect=suspect)
    except ApplianceError as problem:
        assert problem.code == "APL-0316"
        assert content == CONTENT
        believed = True
    if believed:
        assert content == CONTENT or (len(content) == size and not suspect)
        assert lying(store) == []
    else:
        assert content != CONTENT
        assert lying(store) == [content]
        assert not store.has(DIGEST)
    store.path(DIGEST).unlink(missing_ok=True)


def test_what_is_not_there_is_not_there(store: BlobStore) -> None:
    assert not verify_or_quarantine(store, DIGEST, 5, suspect=True)
    assert store.quarantine(DIGEST) is None


def test_a_wrong_listing_takes_no_right_blob(held: BlobStore) -> None:
    with pytest.raises(ApplianceError, match="23 bytes, 7 are listed"):
        verify_or_quarantine(held, DIGEST, 7)
    assert held.read(DIGEST, 100) == CONTENT


def test_a_blob_that_cannot_be_read_is_damaged(
    held: BlobStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "readv", broken)
    assert verify_or_quarantine(held, DIGEST, len(CONTENT)), "nobody has complained"
    assert not verify_or_quarantine(held, DIGEST, len(CONTENT), suspect=True)
    assert lying(held) == [CONTENT]
    assert "APL-0315" in caplog.text
    assert "Input/output error" in caplog.text


def test_a_blob_that_was_replaced_meanwhile_stays(held: BlobStore) -> None:
    path = spoil(held, b"rot")
    # Open, as while it is hashed: until then its number belongs to no other file.
    with path.open("rb") as found:
        path.unlink()
        held.put_bytes(CONTENT)
        assert held.quarantine(DIGEST, os.fstat(found.fileno())) is None
    assert held.read(DIGEST, 100) == CONTENT


def test_it_is_durable_and_who_reads_it_reads_on(held: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(module, "sync_directory", lambda path: synced.append(path.name))
    opened = held.open(DIGEST)
    assert opened is not None
    moved = held.quarantine(DIGEST)
    assert moved is not None
    assert moved.parent == held.root / "quarantine"
    assert moved.name.startswith(DIGEST.replace(":", "-") + "-")
    assert sorted(synced) == ["quarantine", "sha256"]
    assert os.pread(opened[0], 100, 0) == CONTENT
    os.close(opened[0])


def test_of_each_digest_the_newest_is_kept(held: BlobStore) -> None:
    other = held.put_bytes(b"another").digest
    held.quarantine(other)
    for content in (b"one", b"two", b"three"):
        held.put_bytes(CONTENT)
        spoil(held, content)
        verify_or_quarantine(held, DIGEST, len(CONTENT))
    assert sorted(lying(held)) == [b"another", b"three"]
    assert set(held.quarantined()) == {DIGEST, other}
    assert held.empty_quarantine([DIGEST]) == 1
    assert lying(held) == [b"another"]


def test_a_disk_that_takes_no_change_says_so(held: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def readonly(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    spoil(held, b"rot")
    monkeypatch.setattr(os, "rename", readonly)
    with pytest.raises(ApplianceError, match=r"APL-0311.*Read-only"):
        verify_or_quarantine(held, DIGEST, len(CONTENT))


def test_fsck_names_what_is_in_quarantine_until_it_is_back(held: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    held.quarantine(DIGEST)

    def run() -> Any:
        return check(made.store(held))

    assert run().quarantined == [DIGEST]
    held.put_bytes(CONTENT)
    assert run().quarantined == []

    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "readv", broken)
    assert run().problems == [f"{DIGEST} is damaged: could not be read: Input/output error"]
    assert run().damaged == [DIGEST]
