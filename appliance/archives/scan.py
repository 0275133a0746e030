"""Reading of a tar or a directory: blobs go into a sink, and small documents are kept for the format's reader."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from appliance.archives.compression import Decoder, detect
from appliance.archives.limits import Limits
from appliance.archives.medium import Medium, open_readonly
from appliance.archives.sink import BlobSink, HashingSink
from appliance.archives.source import READ_STEP, Progress, RawFile
from appliance.archives.tar import Entry, TarStream
from appliance.errors import ApplianceError, LimitExceeded, fail
from appliance.oci.blob import StoredBlob
from appliance.oci.digests import is_digest

DOCUMENTS = ("oci-layout", "index.json", "manifest.json", "repositories")
"""Members that are read into memory; everything else goes to the sink."""

_BLOB = re.compile(r"blobs/(sha256|sha512)/([^/]+)")
_NAMED = re.compile(r"(?:sha256:)?([0-9a-f]{64})(?:\.(?:tar|tar\.gz|json))?")
"""Layers and configs of a docker-archive as skopeo, podman and crane name them: by digest."""
_LEGACY = re.compile(r"[0-9a-f]{64}/(?:VERSION|json)")


@dataclass
class Collected:
    """Result of one pass over a source.

    :param documents: content of :data:`DOCUMENTS`, by name.
    :param files: every other regular file, by cleaned path.
    :param links: links within the archive: cleaned path to cleaned path.
    :param diff_ids: for compressed members, their digest to the digest of what is inside; None where that
        cannot be unpacked.
    :param whole: whether the archive has the marker that ends a tar; false does not prove that something is missing.
    :param trailing: byte of the tar at which something begins behind its end, None where nothing does.
    """

    documents: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, StoredBlob] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    diff_ids: dict[str, str | None] = field(default_factory=dict)
    whole: bool = True
    trailing: int | None = None

    @property
    def has_blobs(self) -> bool:
        """Return whether anything lies where OCI layouts have their blobs."""
        return any(name.startswith("blobs/") for name in self.files)

    def lookup(self, path: str) -> StoredBlob | None:
        """A file by path; a link is followed one step."""
        found = self.files.get(path)
        return found or self.files.get(self.links.get(path, ""))

    def blob(self, digest: str) -> StoredBlob | None:
        """A file by its digest's path in an OCI layout."""
        found = self.lookup("blobs/" + digest.replace(":", "/"))
        return found if found is not None and found.digest == digest else None


_Chunk = TypeVar("_Chunk", bytes, memoryview)


class DiffId:
    """Hashes what is inside a compressed stream while it goes by.

    :param limits: caps for the decompressor.
    :param where: archive and member for messages.
    """

    def __init__(self, limits: Limits, where: str) -> None:
        """Start before the first byte."""
        self._limits = limits
        self._where = where
        self._head: bytes | None = b""
        self._decoder: Decoder | None = None
        self._state = hashlib.sha256()

    def pass_through(self, chunks: Iterable[_Chunk]) -> Iterator[_Chunk]:
        """Give the chunks on, unchanged."""
        for chunk in chunks:
            if self._head is not None:
                self._head += bytes(chunk)
                if len(self._head) >= 6:
                    self._begin()
            elif self._decoder is not None:
                self._feed(chunk)
            yield chunk

    def result(self) -> tuple[bool, str | None]:
        """Return whether the stream was compressed, and the digest of its content if it could be unpacked."""
        if self._head is not None:
            self._begin()
        if self._decoder is not None:
            try:
                self._decoder.close()
            except ApplianceError:
                return True, None
            return True, f"sha256:{self._state.hexdigest()}"
        return self._broken, None

    _broken = False

    def _begin(self) -> None:
        head, self._head = self._head or b"", None
        kind = detect(head)
        if kind == "none":
            return
        try:
            self._decoder = Decoder(kind, self._limits, self._where)
        except ApplianceError:  # lz4: not for us to unpack
            self._broken = True
            return
        self._feed(head)

    def _feed(self, data: bytes | memoryview) -> None:
        assert self._decoder is not None
        try:
            for step in self._decoder.feed(data):
                self._state.update(step)
        except LimitExceeded:
            raise
        except ApplianceError:
            # It may not be a layer at all; if it is one, the missing diff_id is the error.
            self._decoder, self._broken = None, True


def collect_tar(
    raw: RawFile,
    sink: BlobSink,
    limits: Limits,
    *,
    deep: bool = False,
    progress: Progress | None = None,
    only: Callable[[str], bool] | None = None,
) -> Collected:
    """Read a tar once, every regular member into the sink.

    :param deep: unpack compressed members of ``blobs/`` too, to know their diff_ids.
    :param only: read just the members whose cleaned path it accepts.
    :raises ApplianceError: see :class:`TarStream` and :class:`RawFile`; APL-0117 for two members of one name
        that differ.
    """
    where = str(raw.path)
    result = Collected()
    chunks = raw.chunks(progress)
    try:
        tar = TarStream(chunks, limits, where)
        for entry in tar:
            if only is not None and not only(entry.name):
                continue
            if entry.kind == "file":
                _file(entry, result, sink, limits, where, deep=deep)
            elif entry.target is not None:
                result.links[entry.name] = entry.target
        result.whole, result.trailing = tar.ended, tar.trailing
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    return result


def _file(entry: Entry, result: Collected, sink: BlobSink, limits: Limits, where: str, *, deep: bool) -> None:
    place = f"{where}: {entry.name}"
    if entry.name in DOCUMENTS:
        data = _document(entry, limits, place)
        if result.documents.setdefault(entry.name, data) != data:
            _differs(entry.name, where)
        return
    if _LEGACY.fullmatch(entry.name):
        return  # what Docker 1.9 read; nothing refers to it
    blob = _BLOB.fullmatch(entry.name)
    expect = f"{blob.group(1)}:{blob.group(2)}" if blob else None
    if expect is not None and not is_digest(expect):
        return  # a stray file beside the blobs: no digest can name it
    data_in: Iterable[memoryview] = entry.data
    if expect is None and (named := _NAMED.fullmatch(entry.name)) and sink.size(f"sha256:{named[1]}") == entry.size:
        # Held already, as far as name and size say: then the bytes are only hashed, and have to be those.
        expect = f"sha256:{named[1]}"
    watch = DiffId(limits, place) if deep or not (blob or entry.name.endswith(".json")) else None
    if watch is not None:
        data_in = watch.pass_through(data_in)
    stored = sink.put(data_in, size=entry.size, expect=expect, where=place)
    if result.files.setdefault(entry.name, stored).digest != stored.digest:
        _differs(entry.name, where)
    if watch is not None:
        compressed, diff_id = watch.result()
        if compressed:
            result.diff_ids[stored.digest] = diff_id


def _document(entry: Entry, limits: Limits, place: str) -> bytes:
    if entry.size > limits.json_bytes:
        fail("APL-0204", "JSON document is too large", where=place, why=f"{entry.size} bytes")
    return b"".join(bytes(chunk) for chunk in entry.data)


def _differs(name: str, where: str) -> None:
    fail(
        "APL-0117",
        f"archive holds two different members named {name!r}",
        where=where,
        why="different tools would read different images from it",
    )


def diff_ids_again(
    path: Path, medium: Medium, limits: Limits, first: Collected, wanted: set[str]
) -> dict[str, str | None]:
    """Read an archive a second time to learn the diff_ids of some compressed members.

    Only for docker-archives that keep compressed layers under ``blobs/``: that they are layers of a
    docker-archive is known when the first pass is over.

    :param wanted: digests of the members.
    """
    names = {name for name, stored in first.files.items() if stored.digest in wanted}
    with RawFile(path, limits, medium) as raw, HashingSink() as sink:
        return collect_tar(raw, sink, limits, deep=True, only=names.__contains__).diff_ids


class Directory:
    """A layout in a directory; blobs are read when they are asked for, and no link is followed.

    ``diff_ids`` holds what :class:`Collected` has by that name, of the blobs that were read so far.

    :param path: the directory.
    :param medium: opens it.
    :param deep: unpack compressed blobs too, to know their diff_ids.
    :raises ApplianceError: APL-0101.
    """

    def __init__(
        self,
        path: Path,
        medium: Medium,
        sink: BlobSink,
        limits: Limits,
        progress: Progress | None = None,
        *,
        deep: bool = False,
    ) -> None:
        """Open the directory."""
        self.path = path
        self.diff_ids: dict[str, str | None] = {}
        self._deep = deep
        self.bytes_read = 0
        self._medium = medium
        self._sink = sink
        self._limits = limits
        self._progress = progress
        self._total = 0
        self._seen: dict[str, StoredBlob | None] = {}
        self._fd = medium.open_directory(path)

    def __enter__(self) -> Directory:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the directory."""
        os.close(self._fd)

    def document(self, name: str) -> bytes | None:
        """A small file of the top directory, or None."""
        descriptor = self._open(name)
        if descriptor is None:
            return None
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(self._limits.json_bytes + 1)
        self.bytes_read += len(data)
        if len(data) > self._limits.json_bytes:
            fail("APL-0204", "JSON document is too large", where=f"{self.path}/{name}")
        return data

    def blob(self, digest: str) -> StoredBlob | None:
        """A blob of an OCI layout, put into the sink the first time; None where it is not there."""
        return self.file("blobs/" + digest.replace(":", "/"), digest)

    def file(self, name: str, expect: str) -> StoredBlob | None:
        """A file by its path, put into the sink the first time; None where it is not there."""
        if name not in self._seen:
            descriptor = self._open(name)
            if descriptor is None:
                self._seen[name] = None
            else:
                with os.fdopen(descriptor, "rb", buffering=0) as file:
                    size = os.fstat(descriptor).st_size
                    self._total += size
                    if self._total > self._limits.total_bytes:
                        fail("APL-0104", "archive is too large", where=str(self.path))
                    place = f"{self.path}/{name}"
                    chunks, watch = self._read(file.fileno(), name), DiffId(self._limits, place)
                    if self._deep:
                        chunks = watch.pass_through(chunks)
                    self._seen[name] = self._sink.put(chunks, size=size, expect=expect, where=place)
                    if self._deep:
                        compressed, diff_id = watch.result()
                        if compressed:
                            self.diff_ids[expect] = diff_id
        return self._seen[name]

    def _read(self, descriptor: int, name: str) -> Iterator[bytes]:
        while True:
            try:
                data = os.read(descriptor, READ_STEP)
            except OSError as error:
                fail("APL-0116", "source cannot be read", where=f"{self.path}/{name}", why=str(error.strerror))
            if not data:
                return
            self.bytes_read += len(data)
            if self._progress is not None:
                self._progress(self.bytes_read, max(self._total, self.bytes_read))
            yield data

    def _open(self, name: str) -> int | None:
        """Open a file below the directory, refusing links at every step; None where it is not there."""
        *folders, last = name.split("/")
        current = os.dup(self._fd)
        try:
            kept = self._medium.again(self.path / name)
            if kept is not None:
                return kept
            for folder in folders:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                deeper = os.open(folder, flags, dir_fd=current)
                os.close(current)
                current = deeper
            os.stat(last, dir_fd=current, follow_symlinks=False)
            return open_readonly(last, current, follow=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            fail("APL-0101", "source cannot be opened", where=f"{self.path}/{name}", why=str(error.strerror))
        finally:
            os.close(current)
