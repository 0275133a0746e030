"""From what the operator named to the archives and layouts in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.archives.checksums import is_checksum_file
from appliance.archives.parts import ARCHIVE_NAME, parts_of, whole_name
from appliance.errors import fail

_DEPTH = 4
_LITTER = frozenset({"System Volume Information", "lost+found", "$RECYCLE.BIN"})


@dataclass(frozen=True)
class SourceList:
    """What :func:`expand_sources` found.

    :param sources: files and layout directories to read, in order.
    :param ignored: files that look like no archive, for the report.
    """

    sources: list[Path]
    ignored: list[Path]


def expand_sources(paths: Sequence[Path]) -> SourceList:
    """Turn what the operator gave into sources, one by one.

    A file is taken whatever its name. A directory is one source if it is an OCI layout or a skopeo ``dir:``;
    otherwise the archives in it (by name, sorted, four levels down) are. Checksum files, dot-files and what file
    systems and desktops leave behind are passed over; symbolic links in a directory are not followed. An archive in
    parts is one source, its first part.

    :raises ApplianceError: APL-0144 (:func:`parts_of`), APL-0101 for a path that is not there, APL-0122 for a directory
        with nothing in it.
    """
    sources: list[Path] = []
    ignored: list[Path] = []
    taken: set[Path] = set()
    for path in paths:
        if path.is_dir():
            before = len(sources)
            _expand(path, sources, ignored, taken, 0)
            if len(sources) == before:
                others = ", ".join(sorted(other.name for other in ignored)[:5])
                fail(
                    "APL-0122",
                    "no image archive in this directory",
                    where=str(path),
                    why=f"there are only: {others}" if others else "it is empty",
                    fix="Is this the right stick, and is it mounted? Archives end in .tar, .tar.gz, .tar.zst or alike",
                )
        elif path.exists():
            _take(path, sources, taken)
        else:
            fail("APL-0101", "source is not there", where=str(path), fix="Is the stick plugged in and mounted?")
    return SourceList(list(dict.fromkeys(sources)), ignored)


def _take(path: Path, sources: list[Path], taken: set[Path]) -> None:
    """Add an archive; of one in parts the first part, once."""
    if path not in taken:
        parts = parts_of(path)
        taken.update(parts)
        sources.append(parts[0])


def _expand(directory: Path, sources: list[Path], ignored: list[Path], taken: set[Path], depth: int) -> None:
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        fail("APL-0116", "source cannot be read", where=str(directory), why=str(error.strerror))
    names = {entry.name for entry in entries}
    if "oci-layout" in names or {"index.json", "blobs"} <= names or {"version", "manifest.json"} <= names:
        sources.append(directory)
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name in _LITTER or is_checksum_file(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            if depth < _DEPTH:
                _expand(path, sources, ignored, taken, depth + 1)
            else:
                ignored.append(path)
        elif entry.is_file(follow_symlinks=False) and ARCHIVE_NAME.fullmatch(whole_name(entry.name) or entry.name):
            _take(path, sources, taken)
        else:
            ignored.append(path)
