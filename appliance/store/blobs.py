"""Content-addressed blobs in an OCI image layout.

A blob appears under its digest only by write, hash, fsync, rename, fsync of the directory, and is read-only from
then on; so whatever stands under ``blobs/`` was whole and right when it was put there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from appliance.errors import DiskFull, fail, system_error
from appliance.files import sync_directory, write_atomically
from appliance.oci.blob import HEAD_BYTES, StoredBlob, check_put
from appliance.oci.digests import check_digest, hasher, is_digest
from appliance.oci.pieces import BIG_BLOB, PieceHasher, PieceMap
from appliance.sizes import size_words
from appliance.store.fanout import Lanes
from appliance.store.locks import Rank, lock_new, locked, try_lock
from appliance.store.quota import Quota

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
EMPTY_INDEX = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'

WRITE_BACK = 32 << 20
"""Bytes after which :func:`write_back` is called again."""

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EIO, errno.EUCLEAN)
"""What the system says of a blob that is not here, or that a failing disk has lost."""

_DIRECTORIES = (
    "blobs/sha256",
    "partial",
    "generations",
    "incoming",
    "quarantine",
    "pushes",
    "uploads",
    "claims",
    "staged",
)


class BlobStore:
    """The directories of one store: ``blobs/`` and those beside it, where things wait to become blobs or names.

    :param root: directory of the OCI layout.
    :param free_percent: percent of the file system that imports and fetches leave free. Kubelet starts to collect
        images at 85 % used and evicts below 15 % free of the image file system; 15 keeps the store out of both.
    :param reserve: bytes left free in any case.
    :param limit: bytes that the store may take; None: as many as the file system gives.
    """

    def __init__(
        self, root: Path, *, free_percent: float = 0.0, reserve: int = 64 << 20, limit: int | None = None
    ) -> None:
        self.root = root
        self.space = Quota(root, free_percent=free_percent, reserve=reserve, limit=limit)
        self._blobs = f"{root}/blobs"
        self._algorithms: set[str] = set()
        self.piece_maps: dict[str, PieceMap] = {}
        """Piece maps of the big blobs that passed through :meth:`put` of this object, by blob digest."""
        self.mapped: Collection[str] = ()
        """Digests of blobs whose piece map is here already: it is not made again."""
        self.placed: dict[str, int] = {}
        """Digest to size in bytes of the blobs that :meth:`put` of this object stored and that were not here before."""

    @property
    def bytes_written(self) -> int:
        """Bytes of the blobs in :attr:`placed`."""
        return sum(self.placed.values())

    def create(self) -> None:
        """Make the directories and the two files of an empty layout, where they are not there yet."""
        root = self.root.absolute()
        above = next(path for path in (root, *root.parents) if path.exists())
        missing = [name for name in _DIRECTORIES if not (root / name).is_dir()]
        for name in missing:
            (root / name).mkdir(parents=True, exist_ok=True)
        if missing:
            # Or a power loss could take them, with all that was synced in them.
            for path in (root / "blobs", root, *root.parents):
                sync_directory(path)
                if path == above:
                    break
        if not (root / "lock").exists():
            # While there is room for it: garbage is collected under it on a full disk.
            os.close(os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if not (self.root / "oci-layout").exists():
            write_atomically(self.root / "oci-layout", LAYOUT)
        # Where there are generations it was lost: an empty one would begin again with number 1, which the other nodes refuse.
        if not (self.root / "index.json").exists() and not any((self.root / "generations").glob("[0-9]*-*.json")):
            write_atomically(self.root / "index.json", EMPTY_INDEX)

    def require(self) -> None:
        """Refuse a directory that is no store (APL-0301); one that only lost its ``oci-layout`` is one."""
        if not (self.root / "oci-layout").is_file() and not (self.root / "generations").is_dir():
            fail(
                "APL-0301",
                "this directory contains no store",
                where=str(self.root),
                why="oci-layout is missing",
                fix="Name the store's directory, or seed it first with 'appliance seed'",
            )

    def require_writable(self) -> None:
        """Refuse a store that takes no change (APL-0311): a disk with errors is mounted read-only."""
        probe = self.root / "incoming" / secrets.token_hex(16)
        with self.disk_errors("a file"):
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            probe.unlink()

    def path(self, digest: str) -> Path:
        """Return the path of a blob. The digest is checked before it becomes a path."""
        return Path(self._file(digest))

    def _file(self, digest: str) -> str:
        # Text and no Path: every request opens a blob, and joining Paths took a third of that.
        algorithm, _, encoded = check_digest(digest).partition(":")
        return f"{self._blobs}/{algorithm}/{encoded}"

    def has(self, digest: str) -> bool:
        """Return whether the blob is here, whole."""
        file = self._status(digest)
        return file is not None and stat.S_ISREG(file.st_mode)

    def size(self, digest: str) -> int | None:
        """Size in bytes of a blob that is here, else None."""
        file = self._status(digest)
        return None if file is None else file.st_size

    def _status(self, digest: str) -> os.stat_result | None:
        """The file of a blob; None where there is none, or where the disk cannot say: that one cannot be read either."""
        try:
            return os.stat(self._file(digest))
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise

    def open(self, digest: str) -> tuple[int, int] | None:
        """Open a blob: (descriptor, size in bytes); None when it is not here. The caller closes the descriptor."""
        try:
            handle = os.open(self._file(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        return handle, os.fstat(handle).st_size

    def read(self, digest: str, limit: int) -> bytes:
        """The bytes of a small blob.

        :param limit: largest size in bytes that is read.
        :raises ApplianceError: APL-0302 when it is missing, APL-0303 when it is larger.
        """
        opened = self.open(digest)
        if opened is None:
            fail("APL-0302", "a blob is missing from the store", where=digest, fix="Run 'appliance fsck'")
        handle, size = opened
        with os.fdopen(handle, "rb") as file:
            if size > limit:
                fail(
                    "APL-0303",
                    "a blob is too large to be a manifest",
                    where=digest,
                    why=f"{size} bytes, {limit} allowed",
                )
            return file.read()

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Every whole blob as (digest, its file), in no order; what is no blob by its name is passed over."""
        for algorithm in ("sha256", "sha512"):
            directory = self.root / "blobs" / algorithm
            if not directory.is_dir():
                continue
            with os.scandir(directory) as entries:
                for entry in entries:
                    digest = f"{algorithm}:{entry.name}"
                    if is_digest(digest):
                        try:
                            file = entry.stat()
                        except OSError as error:
                            if error.errno not in _GONE:
                                raise
                        else:
                            yield digest, file

    def names(self) -> Iterator[str]:
        """The digests of all blobs, of those too that a failing disk says nothing of, in no order."""
        for path in (self.root / "blobs").glob("*/*"):
            digest = f"{path.parent.name}:{path.name}"
            if is_digest(digest):
                yield digest

    def digests(self) -> Iterator[tuple[str, int]]:
        """Every whole blob as (digest, size in bytes), in no order."""
        return ((digest, file.st_size) for digest, file in self.files())

    def put(
        self,
        chunks: Iterable[bytes | memoryview],
        *,
        size: int | None = None,
        expect: str | None = None,
        where: str = "",
    ) -> StoredBlob:
        """Store a stream under its digest; nothing is written again that is here already.

        :param chunks: the bytes, in order.
        :param size: bytes the stream has to have, where it is known.
        :param expect: digest the stream has to have, where it is known.
        :param where: what the stream is, for errors.
        :raises ApplianceError: APL-0106 for another size, APL-0107 for another digest than announced, APL-0310 when the
            disk is full.
        """
        algorithm = expect.partition(":")[0] if expect else "sha256"
        # One of another size than announced is a damaged one, and is written again.
        held = self.size(expect) if expect is not None else None
        present = held is not None and size in (None, held)
        if size is not None and not present:
            self.check_room(size)
        digester, pieces = hasher(algorithm), None
        uses: list[Callable[[Any], object]] = [digester.update]
        if size is not None and size > BIG_BLOB and (expect is None or expect not in self.mapped):
            pieces = PieceHasher(size)
            uses.append(pieces.update)
        head, total = b"", 0
        temporary = self.root / "incoming" / secrets.token_hex(16)
        with contextlib.ExitStack() as stack:
            if not present:
                handle = self._create(temporary, where)
                stack.callback(_unlink, temporary)
                stack.callback(os.close, handle)
                uses.append(_writer(handle))
            lanes = stack.enter_context(Lanes(uses))
            for chunk in chunks:
                if len(head) < HEAD_BYTES:
                    head += bytes(chunk[: HEAD_BYTES - len(head)])
                total += len(chunk)
                self._guard(lanes.take, chunk, total, where)
            self._guard(lambda _: lanes.wait(), b"", total, where)
            digest = check_put(
                f"{algorithm}:{digester.hexdigest()}", total, size=size, expect=expect, where=where or expect or ""
            )
            if not present and self.size(digest) != total:
                self._guard(lambda _: os.fsync(handle), b"", total, where)
                os.fchmod(handle, 0o444)
                self._guard(lambda _: self._place(temporary, digest), b"", total, where)
                self.placed[digest] = total
        if pieces is not None:
            self.piece_maps[digest] = pieces.finish(digest)
        return StoredBlob(digest, total, head)

    def put_bytes(self, content: bytes) -> StoredBlob:
        """Store a small blob that is in memory, under its sha256."""
        return self.put([content], size=len(content))

    def place(self, file: Path, digest: str) -> None:
        """Move a file that was verified against ``digest`` and lies in this store to its place, for good."""
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
            os.fchmod(handle, 0o444)
        finally:
            os.close(handle)
        self._place(file, digest)

    def quarantine(self, digest: str, file: os.stat_result | None = None) -> Path | None:
        """Take a blob out of ``blobs/``, for good: ``quarantine/<algorithm>-<hex>-<nanoseconds since 1970>``.

        Who has it open reads on in it. Of each digest the newest is kept, so that a disk that rots is not filled too.

        :param file: what was found wrong (:func:`os.fstat`); another file that has come to its place meanwhile stays.
        :returns: where it lies now; None when there was nothing to take out.
        :raises ApplianceError: APL-0311 where the disk takes no change.
        """
        path, stem = self.path(digest), digest.replace(":", "-")
        target = self.root / "quarantine" / f"{stem}-{time.time_ns()}"
        with self.disk_errors(digest):
            try:
                now = path.lstat()
                if file is not None and (now.st_dev, now.st_ino) != (file.st_dev, file.st_ino):
                    return None
                os.rename(path, target)
            except FileNotFoundError:
                return None
            sync_directory(target.parent)
            sync_directory(path.parent)
            for older in target.parent.glob(f"{stem}-*"):
                if older != target:
                    _unlink(older)
        return target

    def quarantined(self) -> dict[str, list[Path]]:
        """Return the digests of quarantined blobs."""
        found: dict[str, list[Path]] = {}
        for path in (self.root / "quarantine").glob("*-*-*"):
            algorithm, _, rest = path.name.partition("-")
            digest = f"{algorithm}:{rest.partition('-')[0]}"
            if is_digest(digest):
                found.setdefault(digest, []).append(path)
        return found

    def empty_quarantine(self, digests: Iterable[str]) -> int:
        """Remove what lies in quarantine of these; returns how many files that were."""
        lying = self.quarantined()
        gone = [path for digest in digests for path in lying.get(digest, ())]
        for path in gone:
            _unlink(path)
        return len(gone)

    def remove(self, digest: str, file: os.stat_result) -> bool:
        """Remove a blob for good, by a caller that holds :meth:`gc_lock_exclusive`; true where it was this file that lay there.

        Who has it open reads on in it; its bytes are free once nobody has.

        :param file: what was judged; another one that has come to its place meanwhile stays.
        :raises ApplianceError: APL-0311 where the disk takes no change.
        """
        path = self.path(digest)
        with self.disk_errors(digest):
            try:
                now = path.lstat()
                if (now.st_dev, now.st_ino, now.st_ctime_ns) != (file.st_dev, file.st_ino, file.st_ctime_ns):
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    @contextlib.contextmanager
    def disk_errors(self, where: str) -> Iterator[None]:
        """Turn an error of the disk into one of the appliance: APL-0310 for a full disk, else APL-0311.

        :param where: what was being written, for the message.
        """
        try:
            yield
        except OSError as error:
            self._failed(error, 0, where)

    @contextlib.contextmanager
    def gc_lock_shared(self) -> Iterator[None]:
        """Hold the GC lock, shared. Take it before you check that a blob exists and then publish a reference to it.

        Any number of processes may hold it. It blocks while the collector removes some blobs, for a fifth of a second.
        """
        # On the directory itself: a full disk need not take another file.
        with locked(Path(self._blobs), Rank.BLOBS, shared=True):
            yield

    @contextlib.contextmanager
    def gc_lock_exclusive(self) -> Iterator[None]:
        """Hold the GC lock, alone: while it is held, no blob is placed and no reference is published."""
        with locked(Path(self._blobs), Rank.BLOBS):
            yield

    def clear_incoming(self) -> None:
        """Remove what a killed import left half written; only for whoever holds the store's lock.

        What is being written now stays: a push does not hold that lock.
        """
        for leftover in self.root.glob("incoming/*"):
            with contextlib.suppress(FileNotFoundError), leftover.open("rb") as file:
                if try_lock(file.fileno()):
                    _unlink(leftover)
        # Each is as large as a generation.
        for leftover in (*self.root.glob(".index.json.*"), *self.root.glob("generations/.[0-9]*")):
            _unlink(leftover)

    def room(self) -> int:
        """Bytes that may still be written; see :meth:`appliance.store.quota.Quota.left`."""
        return self.space.left()

    def check_room(self, needed: int) -> None:
        """Refuse (APL-0310) what there is no room for, and count as used what there is room for; ``needed`` in bytes."""
        if needed > self.room():
            self.space.recount()
        left = self.room()
        if needed > left:
            self.space.refuse(needed, left)
        self.space.promise(needed)

    def _create(self, path: Path, where: str) -> int:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._failed(error, 0, where)
        lock_new(handle)
        if os.fstat(handle).st_nlink:
            return handle
        # It was taken for one between the two calls.
        os.close(handle)
        return self._create(path, where)

    def _guard(self, call: Callable[[Any], object], argument: object, total: int, where: str) -> None:
        try:
            call(argument)
        except OSError as error:
            self._failed(error, total, where)

    def _failed(self, error: OSError, total: int, where: str) -> NoReturn:
        refused = system_error(error, str(self.root), "cannot write to the store")
        if isinstance(refused, DiskFull):
            refused.why = f"the file system is full after {size_words(total)} of {where or 'a blob'}"
        raise refused from error

    def _place(self, temporary: Path, digest: str) -> None:
        target = self.path(digest)
        algorithm = digest.partition(":")[0]
        if algorithm not in self._algorithms:
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                sync_directory(target.parent.parent)
            self._algorithms.add(algorithm)
        with self.gc_lock_shared():
            os.rename(temporary, target)
        sync_directory(target.parent)


def _writer(handle: int) -> Callable[[Any], object]:
    written = 0

    def write(chunk: Any) -> None:
        nonlocal written
        view, before = memoryview(chunk), written
        while view:
            count = os.write(handle, view)
            view, written = view[count:], written + count
        if written // WRITE_BACK > before // WRITE_BACK:
            write_back(handle, written)

    return write


def write_back(handle: int, size: int) -> None:
    """Start writing to the disk the first ``size`` bytes of a file, and do not wait for it.

    The memory of what is there is given back: the sync at the end has less to wait for, and what comes does not
    displace what is being read. It is a hint, for this Linux and others may ignore it.
    """
    os.posix_fadvise(handle, 0, size, os.POSIX_FADV_DONTNEED)


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
