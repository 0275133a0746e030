"""Tar archive as a stream of members. It is parsed here, so that every irregularity has a defined result.

``tarfile`` ends silently on a stream cut at, or inside, a later member's header, keeps every member in
memory, and reads sparse maps; here a cut is an error or is reported, memory does not grow, and sparse members
are refused. Formats: POSIX ustar and pax (pax(1)), GNU long names and base-256 numbers (GNU tar manual,
"Standard Format").
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

from appliance.archives.compression import detect
from appliance.archives.limits import Limits
from appliance.errors import NotAnImageArchive, fail

BLOCK = 512
_MAX_HEADER = 1024 * 1024  # pax records and long names: far above any real path
_MAX_NAME = 4096  # PATH_MAX
_MAX_NAMES = 32 * 1024 * 1024  # readers keep names in memory
_KEPT = ("path", "linkpath", "size")
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_WITHOUT_DATA = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)


@dataclass(frozen=True)
class Entry:
    """One member.

    :param name: cleaned path below the root of the archive, without ``.`` and ``..``.
    :param kind: ``file``, ``symlink``, ``hardlink`` or ``other`` (directories, devices, pipes).
    :param size: bytes of content.
    :param target: cleaned path within the archive that a link means; None for what leads nowhere in it.
    :param data: the content, in chunks whose memory is used again; what is not taken is skipped.
    """

    name: str
    kind: Literal["file", "symlink", "hardlink", "other"]
    size: int
    target: str | None
    data: Iterator[memoryview]


class TarStream:
    """The members of a tar, in order, once.

    After the last member ``ended`` says whether the marker for the end of an archive was there, and ``trailing`` at which
    byte something other than zeros begins behind it (None: nowhere). A second archive there is refused.

    :param chunks: the archive's bytes.
    :param limits: cap on the number of members.
    :param where: file for messages.
    """

    def __init__(self, chunks: Iterable[bytes], limits: Limits, where: str) -> None:
        """Start before the first member."""
        self.ended = False
        self.trailing: int | None = None
        self.position = 0
        self._names = 0
        self._chunks = iter(chunks)
        self._current = memoryview(b"")
        self._limits = limits
        self._where = where

    @property
    def whole(self) -> bool:
        """Return whether the archive ends as archives do; false does not prove that something is missing."""
        return self.ended and self.trailing is None

    def __iter__(self) -> Iterator[Entry]:
        """Give the members.

        :raises ApplianceError: APL-0102 (cut), APL-0103 (damaged), APL-0104 (too many members), APL-0105 (a
            member that no image archive has), APL-0111 (no tar at all), APL-0166 (a second archive behind the end).
        """
        extended: dict[str, str] = {}
        count = 0
        while True:
            block = self._block(count)
            if block is None:
                break
            header = self._header(block, count)
            count += 1
            if count > self._limits.entries:
                fail(
                    "APL-0104",
                    "archive has too many members",
                    where=self._where,
                    why=f"over {self._limits.entries}",
                )
            if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                key = "path" if header.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
                extended[key] = _text(self._small(header.size).rstrip(b"\0"))
                continue
            if header.type in _PAX:
                extended.update(self._pax(header.size))
                continue
            if header.type == tarfile.XGLTYPE:
                for key in self._pax(header.size):
                    self._refuse("<global header>", f"it sets {key} for every member")
                continue
            yield from self._entry(header, extended)
            extended = {}
        self._drain()

    def _entry(self, header: tarfile.TarInfo, extended: dict[str, str]) -> Iterator[Entry]:
        raw = extended.get("path", header.name)
        name = self._clean(raw)
        if header.type == tarfile.GNUTYPE_SPARSE or "GNU.sparse." in extended:
            self._refuse(raw, "sparse members are not read here")
        size = header.size
        if "size" in extended:
            text = extended["size"]
            if not (text.isascii() and text.isdigit() and len(text) < 20):
                self._damaged(f"member {name!r} has a bad size")
            size = int(text)
        if header.type in _WITHOUT_DATA:
            size = 0
        kind: Literal["file", "symlink", "hardlink", "other"] = "other"
        target: str | None = None
        if header.type in _REGULAR:
            kind = "file"
        elif header.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            kind = "symlink" if header.type == tarfile.SYMTYPE else "hardlink"
            target = self._target(name, kind, extended.get("linkpath", header.linkname))
        data = self._content(size, name)
        yield Entry(name, kind, size, target, data)
        for _ in data:
            pass
        padding = -size % BLOCK
        if padding and len(self._take(padding)) != padding:
            self._cut(f"in the padding after {name!r}")

    def _target(self, name: str, kind: str, link: str) -> str | None:
        if "\0" in link:
            self._refuse(name, "its link has a NUL")
        relative = kind == "symlink" and not link.startswith("/")
        joined = posixpath.normpath(posixpath.join(posixpath.dirname(name), link) if relative else link.lstrip("/"))
        if joined == ".." or joined.startswith("../"):
            self._refuse(name, f"its link leads out of the archive: {link!r}")
        return joined

    def _clean(self, raw: str) -> str:
        if "\0" in raw:
            self._refuse(raw, "its name has a NUL")
        if ".." in raw.split("/"):
            self._refuse(raw, "its name leads upwards")
        self._names += len(raw)
        if len(raw) > _MAX_NAME or self._names > _MAX_NAMES:
            self._refuse(raw, "its name is too long, or all names together are")
        # Nothing is extracted: as docker reads it, "/x" is x below the root of the archive.
        return posixpath.normpath(raw.lstrip("/") or ".")

    def _header(self, block: bytes, count: int) -> tarfile.TarInfo:
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")  # type: ignore[arg-type,unused-ignore]
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            if count == 0:
                raise NotAnImageArchive(
                    "APL-0111",
                    "not an image archive",
                    where=self._where,
                    why="it is no tar, plain or compressed with gzip, zstd, xz or bzip2",
                ) from None
            self._damaged(f"bad header: {error}")
        if header.size < 0:
            self._damaged(f"member {header.name!r} has a negative size")
        return header

    def _pax(self, size: int) -> dict[str, str]:
        """Records ``"%d %s=%s\\n"``, the number being the record's own length in bytes."""
        data = self._small(size)
        records: dict[str, str] = {}
        at = 0
        while at < len(data):
            space = data.find(b" ", at, at + 8)
            length = data[at:space] if space > at else b""
            if not length.isdigit():
                self._damaged("bad pax record")
            end = at + int(length)
            record = data[space + 1 : end]
            key, equals, value = record[:-1].partition(b"=")
            if end > len(data) or not record.endswith(b"\n") or not equals:
                self._damaged("bad pax record")
            name = _text(key)
            if name in _KEPT or name.startswith("GNU.sparse."):
                records[name if name in _KEPT else "GNU.sparse."] = _text(value)
            at = end
        return records

    def _small(self, size: int) -> bytes:
        if size > _MAX_HEADER:
            self._damaged(f"extended header of {size} bytes")
        padded = size + -size % BLOCK
        data = self._take(padded)
        if len(data) != padded:
            self._cut("in an extended header")
        return data[:size]

    def _block(self, count: int) -> bytes | None:
        """The next header, or None at the end."""
        block = self._take(BLOCK)
        if not block:
            if count == 0:
                fail("APL-0102", "archive is empty", where=self._where)
            return None
        if block.count(b"\0") == len(block):
            second = self._take(BLOCK)
            self.ended = len(block) == len(second) == BLOCK
            if second.count(b"\0") != len(second):
                self._damaged("zeros where a header should be")
            if count == 0:
                fail("APL-0111", "archive is empty", where=self._where, why="it holds no member at all")
            return None
        if len(block) < BLOCK:
            if count == 0:
                raise NotAnImageArchive(
                    "APL-0111",
                    "not an image archive",
                    where=self._where,
                    why=f"it has only {len(block)} bytes",
                )
            self._cut("in a member's header")
        return block

    def _content(self, size: int, name: str) -> Iterator[memoryview]:
        left = size
        while left:
            if not self._fill():
                self._cut(f"in member {name!r}, {left} of its {size} bytes are missing")
            part = self._current[:left]
            self._current = self._current[len(part) :]
            self.position += len(part)
            left -= len(part)
            yield part

    def _take(self, count: int) -> bytes:
        parts = []
        while count and self._fill():
            part = self._current[:count]
            self._current = self._current[len(part) :]
            self.position += len(part)
            count -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _fill(self) -> bool:
        while not len(self._current):
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._current = memoryview(chunk)
        return True

    def _drain(self) -> None:
        """Read to the end, so that checksums of the compression and of the whole file are checked too."""
        while self._fill():
            rest = len(bytes(self._current).lstrip(b"\0")) if self.ended and self.trailing is None else 0
            self._take(len(self._current) - rest)
            if rest:
                self.trailing = self.position
                self._check_second(self._take(BLOCK), self.trailing)

    def _check_second(self, head: bytes, start: int) -> None:
        """Refuse a second archive behind the end of the first: other tools read the one or the other, or both."""
        kind = "archive"
        try:
            tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")  # type: ignore[arg-type,unused-ignore]
        except (tarfile.HeaderError, ValueError, OverflowError):
            compression = detect(head[:6])
            if compression == "none":
                return
            kind = f"archive, packed with {compression},"
        fail(
            "APL-0166",
            "two archives in one file",
            where=self._where,
            why=f"the first one has its end marker, and a second {kind} begins behind it, at byte {start} of the tar",
            fix="Save each archive to a file of its own and bring both; 'docker save' and 'podman save -m' take several "
            f"images at once. To cut the second one out of the unpacked file: tail -c +{start + 1} FILE",
        )

    def _cut(self, place: str) -> NoReturn:
        fail(
            "APL-0102",
            "archive is truncated",
            where=self._where,
            why=f"it ends {place}, after {self.position} bytes of tar",
            fix="Copy the file again; it is not whole",
        )

    def _damaged(self, why: str) -> NoReturn:
        fail(
            "APL-0103",
            "archive is damaged",
            where=self._where,
            why=f"{why}, near byte {self.position} of the tar",
            fix="Copy the file again; it was changed or damaged on its way",
        )

    def _refuse(self, name: str, why: str) -> NoReturn:
        fail("APL-0105", f"archive has a member that is refused: {name[:200]!r}", where=self._where, why=why)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
