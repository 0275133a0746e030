"""Uploads: bytes that become a blob, and which repository uploaded which blob.

An upload is one file, named by an id that nobody can guess and by a hash of the repository it belongs to; so it
survives any process, no other repository finds it, and there is nothing beside it that could be lost. What it holds is
counted by the file's size, and hashed in full before it becomes a blob.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.errors import ApplianceError, fail
from appliance.oci.blob import check_put
from appliance.oci.digests import check_digest, hasher, is_digest
from appliance.oci.manifests import Descriptor
from appliance.oci.mediatypes import PIECE_MAP
from appliance.oci.pieces import BIG_BLOB, PieceHasher
from appliance.store.blobs import WRITE_BACK, BlobStore, write_back
from appliance.store.locks import try_lock

if TYPE_CHECKING:
    from hashlib import _Hash

OPEN_LIMIT = 1024
"""Uploads that may be open at a time."""
IDLE_SECONDS = 24 * 3600
"""An upload without a byte for so long is dropped, and so is the claim of a blob that no manifest came for."""
_ID = re.compile(r"[0-9a-f]{32}")
_STEP = 1 << 20
_REMEMBERED = 128


class UploadBusy(Exception):
    """Another request is writing to the upload."""


@dataclass
class _Hashing:
    """Hashes of the first ``offset`` bytes of an upload, as this process wrote them."""

    offset: int
    whole: _Hash
    pieces: PieceHasher

    def take(self, chunk: bytes | memoryview) -> None:
        self.whole.update(chunk)
        self.pieces.update(chunk)
        self.offset += len(chunk)


class Uploads:
    """The uploads of a store: ``uploads/``, and ``claims/`` with what each repository uploaded.

    :param blobs: the store that finished uploads go to.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._directory = blobs.root / "uploads"
        self._claims = blobs.root / "claims"
        self._hashing: dict[str, _Hashing] = {}  # by upload, while no request of this process has it

    def begin(self, repository: str) -> str:
        """Open an upload; returns its id. APL-0504 where too many are open, APL-0310 where the disk is full."""
        self._directory.mkdir(exist_ok=True)
        if sum(1 for _ in os.scandir(self._directory)) >= OPEN_LIMIT:
            fail(
                "APL-0504",
                "too many uploads are open",
                where=str(self._directory),
                why=f"{OPEN_LIMIT} are the limit",
                fix="Wait for others to end; what is left of broken ones is dropped after a day",
            )
        identity = secrets.token_hex(16)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with self._blobs.disk_errors("an upload"):
            os.close(os.open(self._path(repository, identity), flags, 0o600))
        return identity

    def size(self, repository: str, identity: str) -> int | None:
        """Bytes that an upload holds; None where the repository has no such upload."""
        if not _ID.fullmatch(identity):
            return None
        try:
            return self._path(repository, identity).stat().st_size
        except FileNotFoundError:
            return None

    def open(self, repository: str, identity: str) -> Upload | None:
        """Take an upload to write to it; None where there is none. The caller closes it.

        :raises UploadBusy: when another request has it.
        """
        if not _ID.fullmatch(identity):
            return None
        path = self._path(repository, identity)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        if not try_lock(handle):
            os.close(handle)
            raise UploadBusy
        if os.fstat(handle).st_nlink == 0 or not path.exists():
            # Finished or cancelled between the two calls.
            os.close(handle)
            return None
        return Upload(self, self._blobs, repository, identity, path, handle, self._hashing.pop(identity, None))

    def keep(self, identity: str, hashing: _Hashing | None) -> None:
        """Remember the hashes of an upload until its next request; the oldest make room."""
        if hashing is not None:
            self._hashing[identity] = hashing
            while len(self._hashing) > _REMEMBERED:
                del self._hashing[next(iter(self._hashing))]

    def link(self, repository: str, digest: str, piece_map: Descriptor | None = None) -> None:
        """Note that a repository uploaded or mounted a blob, with its piece map where it has one."""
        path = self._claim(repository, digest)
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        with self._blobs.disk_errors(digest):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Renamed into place: a reader in another process sees all of it or nothing.
            temporary.write_text("" if piece_map is None else json.dumps(piece_map.to_dict()), encoding="ascii")
            os.rename(temporary, path)

    def is_linked(self, repository: str, digest: str) -> bool:
        """Return whether the repository uploaded the blob, and it is here. Who was told so has a day again to name it."""
        try:
            os.utime(self._claim(repository, digest))
        except FileNotFoundError:
            return False
        except OSError:
            pass  # a disk that takes no change; the claim is as old as it was
        return self._blobs.has(digest)

    def claims(self) -> Iterator[tuple[str, Descriptor | None]]:
        """Every blob that some repository uploaded and may still name, with its piece map where it has one."""
        for path in self._claims.glob("*/[!.]*"):
            digest = path.name.replace("-", ":", 1)
            if is_digest(digest):
                yield digest, _piece_map(path)

    def unlink(self, repository: str, digest: str) -> bool:
        """Take a claim back; whether there was one."""
        try:
            self._claim(repository, digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def piece_map(self, repository: str, digest: str) -> Descriptor | None:
        """The piece map that came with a claim; None where there is none, or no claim."""
        return _piece_map(self._claim(repository, digest))

    def expire(self, idle_seconds: float = IDLE_SECONDS) -> int:
        """Drop what nobody has touched for so long; returns how many files went."""
        # A clock that was set back makes files look young, never old: nothing is dropped too early for that.
        oldest = time.time() - idle_seconds
        dropped = 0
        for path in (*self._directory.glob("*"), *self._claims.glob("*/*")):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime >= oldest:
                    continue
                with path.open("rb") as file:
                    # One that is held is being written to, however old a clock that was set forward makes it.
                    if try_lock(file.fileno()) and path.stat().st_mtime < oldest:
                        path.unlink()
                        dropped += 1
        return dropped

    def _path(self, repository: str, identity: str) -> Path:
        return self._directory / f"{identity}-{_scope(repository)}"

    def _claim(self, repository: str, digest: str) -> Path:
        return self._claims / _scope(repository) / check_digest(digest).replace(":", "-")


class Upload:
    """An upload that is held for writing; its lock goes with its descriptor, however the process ends.

    All but :meth:`close` block: they are for a thread, not for an event loop.
    """

    def __init__(
        self,
        uploads: Uploads,
        blobs: BlobStore,
        repository: str,
        identity: str,
        path: Path,
        handle: int,
        hashing: _Hashing | None,
    ) -> None:
        self._uploads = uploads
        self._blobs = blobs
        self._repository = repository
        self._path = path
        self._handle = handle
        self._hashing = hashing
        self.id = identity
        self.size = os.fstat(handle).st_size
        """Bytes that it holds."""

    def expect(self, length: int | None, algorithm: str | None = None) -> None:
        """Prepare for ``length`` more bytes, where that is known; refuse (APL-0310) what there is no room for.

        :param algorithm: of its digest, where these bytes are the last ones. Where it turns out to be another one, or
            where more bytes follow than made a piece map possible, the file is read a second time.
        """
        if length is not None:
            self._blobs.check_room(length)
        if self.size == 0:
            self._hashing = _Hashing(0, hasher(algorithm or "sha256"), PieceHasher(length if algorithm else None))

    def append(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes; APL-0310 where the disk is full."""
        self._blobs.check_room(len(chunk))
        view, position = memoryview(chunk), self.size
        with self._blobs.disk_errors(self._path.name):
            while view:
                written = os.pwrite(self._handle, view, position)
                view, position = view[written:], position + written
        if position // WRITE_BACK > self.size // WRITE_BACK:
            write_back(self._handle, position)
        if self._hashing is not None and self._hashing.offset == self.size:
            self._hashing.take(chunk)
        self.size = position

    def truncate(self, size: int) -> None:
        """Forget all bytes after ``size``."""
        os.ftruncate(self._handle, size)
        self.size = size
        self._hashing = None

    def finish(self, digest: str) -> None:
        """Verify the whole, make it a blob of the store, durable, and the repository's claim. The upload is gone then.

        The file is read again where this process did not see all of it pass.

        :raises ApplianceError: APL-0107 when the bytes have another digest; the upload is dropped.
        """
        check_digest(digest)
        hashing = self._all(digest.partition(":")[0])
        computed = f"{hashing.whole.name}:{hashing.whole.hexdigest()}"
        try:
            check_put(computed, self.size, size=self.size, expect=digest, where=self._repository)
        except ApplianceError:
            self.cancel()
            raise
        pieces = self._pieces(hashing).finish(digest).to_bytes() if self.size > BIG_BLOB else None
        piece_map = None
        with self._blobs.gc_lock_shared():
            if pieces is not None:
                stored = self._blobs.put_bytes(pieces)
                piece_map = Descriptor(PIECE_MAP, stored.digest, stored.size)
            # Also where the blob is here already: these bytes were verified just now, and those may have rotted.
            with self._blobs.disk_errors(digest):
                self._blobs.place(self._path, digest)
            self._hashing = None
            self._uploads.link(self._repository, digest, piece_map)

    def cancel(self) -> None:
        """Drop the upload and its bytes."""
        self._hashing = None
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others have it."""
        self._uploads.keep(self.id, self._hashing)
        os.close(self._handle)

    def _all(self, algorithm: str) -> _Hashing:
        """The hashes of everything; the file is read again where they did not pass by here, or not the right ones."""
        seen = self._hashing
        if seen is not None and seen.offset == self.size and seen.whole.name == algorithm:
            return seen
        made = _Hashing(0, hasher(algorithm), PieceHasher(self.size))
        self._read(made.take)
        return made

    def _pieces(self, hashing: _Hashing) -> PieceHasher:
        if hashing.pieces.fits(self.size):
            return hashing.pieces
        made = PieceHasher(self.size)
        self._read(made.update)
        return made

    def _read(self, take: Callable[[memoryview], None]) -> None:
        # One buffer for all of it: the pages of a fresh one cost as much as the hash.
        view, position = memoryview(bytearray(_STEP)), 0
        while count := os.preadv(self._handle, [view], position):
            take(view[:count])
            position += count


def _piece_map(claim: Path) -> Descriptor | None:
    try:
        return Descriptor.from_dict(json.loads(claim.read_text(encoding="ascii")))
    except (OSError, ValueError, ApplianceError):
        return None


def _scope(repository: str) -> str:
    return hashlib.sha256(repository.encode()).hexdigest()[:32]
