"""Kind of a file by its first bytes. They are compared with constants and never unpacked.

Root does this too, before it gives up the right to read the medium; so nothing here hands bytes of the medium to a decoder.
"""

from __future__ import annotations

import codecs
import os
import tarfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from appliance.archives.compression import detect
from appliance.archives.filenames import is_archive_name

HEAD = 4096
"""Bytes that are looked at."""
_ZIP_ENTRY = b"PK\x03\x04"
_ZIPS = (_ZIP_ENTRY, b"PK\x05\x06", b"PK\x07\x08")
_ENTRY_BYTES = 30
_OF_TEXT = bytes((*b"\t\n\f\r", *range(0x20, 0x7F), *range(0x80, 0x100)))


class Kind(Enum):
    """Kinds of files, by their first bytes."""

    EMPTY = "empty"
    COMPRESSED = "compressed"
    TAR = "tar"
    ZIP = "zip"
    SEVEN_ZIP = "7z"
    RAR = "rar"
    OTHER = "other"

    @property
    def is_archive(self) -> bool:
        """True where an archive can begin like this."""
        return self in (Kind.COMPRESSED, Kind.TAR)

    @property
    def is_container(self) -> bool:
        """True for a container that is not read here."""
        return self in (Kind.ZIP, Kind.SEVEN_ZIP, Kind.RAR)


def kind_of(head: bytes) -> Kind:
    """Return the kind of a file by its first bytes."""
    if not head:
        return Kind.EMPTY
    if detect(head[:6]) != "none":
        return Kind.COMPRESSED
    if head.startswith(_ZIPS):
        return Kind.ZIP
    if head.startswith(b"7z\xbc\xaf\x27\x1c"):
        return Kind.SEVEN_ZIP
    if head.startswith(b"Rar!\x1a\x07"):
        return Kind.RAR
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError):
        return Kind.OTHER
    return Kind.TAR


def is_text(head: bytes) -> bool:
    """Return whether the first bytes of a file are text: no control characters but those of lines, or UTF-16 with its mark."""
    return head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or not head.translate(None, _OF_TEXT)


def holds_no_archive(head: bytes) -> bool:
    """Return whether a zip shows, in its first bytes, the names of files and none of an archive or layout."""
    names = [*_zip_names(head)]
    files = [name for name in names if not name.endswith("/")]
    return bool(files) and not any(
        is_archive_name(name) or name.rpartition("/")[2] in ("oci-layout", "manifest.json", "index.json")
        for name in files
    )


def _zip_names(head: bytes) -> Iterator[str]:
    """Give the names in the local headers of a zip (APPNOTE 4.3.7), as far as they lie one behind the other in ``head``."""
    at = 0
    while head[at : at + 4] == _ZIP_ENTRY and len(head) >= at + _ENTRY_BYTES:
        name = int.from_bytes(head[at + 26 : at + 28], "little")
        extra = int.from_bytes(head[at + 28 : at + 30], "little")
        content = int.from_bytes(head[at + 18 : at + 22], "little")
        raw = head[at + _ENTRY_BYTES : at + _ENTRY_BYTES + name]
        if not name or len(raw) < name:
            return
        yield raw.decode("utf-8", "replace")
        if head[at + 6] & 8:
            return  # its size stands behind its content
        at += _ENTRY_BYTES + name + extra + content


def read_head(path: Path) -> bytes:
    """Read the first bytes of a regular file; no link is followed.

    :raises OSError: where it cannot be read.
    """
    # Opening a pipe must not wait for a writer.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        handle = os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        handle = os.open(path, flags)
    try:
        return os.read(handle, HEAD)
    finally:
        os.close(handle)
