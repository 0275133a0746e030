"""Reader of the checksum files that lie beside archives on a medium."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from appliance.archives.checksums import (
    Checksums,
    last_step,
    list_files,
    own_files,
    parse_checksums,
    release_file,
    whole_files,
)
from appliance.archives.discovery import SourceList
from appliance.archives.filenames import is_archive_name
from appliance.archives.medium import Medium
from appliance.archives.split import looks_like_part
from appliance.errors import fail

_LIMIT = 1024 * 1024
"""Bytes of a checksum file that are read."""
_MISSING_LISTED = 10


def read_checksums(parts: Sequence[Path], medium: Medium) -> dict[str | None, str]:
    """Return what is known of the parts of an archive: SHA-256 by the part's name, under None that of them joined.

    A checksum file lies beside each part, or one for the whole (``haul.tar.zst.sha256`` beside ``haul.tar.zst.000``),
    which may list the parts. A list counts for the files that it names.

    :raises ApplianceError: APL-0115 if a ``.sha256`` has nothing for its file.
    """
    if len(parts) == 1:
        only = _digest(parts[0], medium)
        return {None: only} if only else {}
    expected: dict[str | None, str] = {}
    for whole in whole_files(parts):
        own = _read_own(whole, medium)
        if own is not None:
            expected |= {part.name: digest for part in parts if (digest := own.of(part.name))}
        if own is None or own.of(whole.name) or not expected:
            joined = _digest(whole, medium)
            expected |= {None: joined} if joined else {}
    return expected | {part.name: digest for part in parts if (digest := _digest(part, medium))}


def check_lists(found: SourceList, medium: Medium) -> None:
    """Refuse a medium that lacks an archive which a list beside its archives names.

    :raises ApplianceError: APL-0157.
    """
    names = {folder: frozenset(name.casefold() for name in present) for folder, present in found.names.items()}
    for file in found.lists:
        listed = _read(file, medium) or Checksums(())
        missing = [path for path, _ in listed.entries if _is_missing(path, file.parent, names)]
        if missing:
            more = f" and {len(missing) - _MISSING_LISTED} more" if len(missing) > _MISSING_LISTED else ""
            fail(
                "APL-0157",
                "archives that a list of checksums names are not on the medium",
                where=str(file),
                why=", ".join(sorted(missing)[:_MISSING_LISTED]) + more,
                fix="Bring them; or take their lines, or the list, off the medium, or name the archives one by one",
            )


def _is_missing(listed: str, folder: Path, names: Mapping[Path, frozenset[str]]) -> bool:
    name = last_step(listed)
    if not is_archive_name(name) and not looks_like_part(name):
        return False
    return not any(name.casefold() in names.get(place, ()) for place in (folder, (folder / listed).parent))


def _digest(path: Path, medium: Medium) -> str | None:
    """Return what is said of one file; None where nothing is."""
    own = _read_own(path, medium)
    if own is None:
        release = release_file(path)
        lists = [*([release] if release else []), *list_files(path)]
        said = (found.of(path.name) for file in lists if (found := _read_list(file, medium)))
        return next((digest for digest in said if digest), None)
    # Renamed on the way, or a bare digest: the name of the checksum file says what it is for.
    digest = own.of(path.name) or own.only
    if digest is None:
        fail(
            "APL-0115",
            "checksum file does not name its file",
            where=str(next(file for file in own_files(path) if medium.has(file))),
            why=f"no line for {path.name}",
            fix="Bring the checksum that belongs to the file, or remove it",
        )
    return digest


def _read_own(path: Path, medium: Medium) -> Checksums | None:
    return next(_present(_read(file, medium) for file in own_files(path)), None)


def _present(found: Iterable[Checksums | None]) -> Iterator[Checksums]:
    return (item for item in found if item is not None)


def _read_list(file: Path, medium: Medium) -> Checksums | None:
    """Read a list, which is for many files, once."""
    if file not in medium.checksum_lists:
        medium.checksum_lists[file] = _read(file, medium)
    return medium.checksum_lists[file]


def _read(file: Path, medium: Medium) -> Checksums | None:
    """Read a checksum file; None where it is not there."""
    if not medium.has(file):
        return None
    descriptor = medium.open(file)
    try:
        return parse_checksums(os.read(descriptor, _LIMIT))
    except OSError as error:
        fail("APL-0116", "checksum file cannot be read", where=str(file), why=str(error.strerror))
    finally:
        os.close(descriptor)
