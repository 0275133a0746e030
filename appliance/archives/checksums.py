"""Checksums that lie beside archives: which files they are in, and what they say.

Read are ``<file>.sha256``, and ``sha256sum-<arch>.txt``, which K3s and RKE2 bring beside the ``<file>-<arch>.tar.zst`` of
a release. Lines have the forms of ``sha256sum`` and ``sha256sum --tag``, or are a bare digest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.archives.parts import whole_name
from appliance.errors import fail

if TYPE_CHECKING:
    from appliance.archives.medium import Medium

_LIMIT = 1024 * 1024
_PLAIN_LINE = re.compile(r"\\?([0-9a-fA-F]{64})(?:[ \t]+[ *]?(.+))?")
_BSD_LINE = re.compile(r"SHA256 ?\((.+)\) ?= ?([0-9a-fA-F]{64})")
_OF_RELEASE = re.compile(r".+-(\w+)\.(?:tar(?:\.\w+)?|tgz|tzst|txz|tbz2?)", re.IGNORECASE)
_RELEASE = re.compile(r"sha256sum-\w+\.txt")


def is_checksum_file(name: str) -> bool:
    """Whether a file's name says that it holds checksums."""
    return name.endswith(".sha256") or _RELEASE.fullmatch(name) is not None


def checksum_files(parts: Sequence[Path]) -> list[Path]:
    """Where the checksums of an archive may lie, for each part and for all of it."""
    files = [*parts] if len(parts) == 1 else [*parts, *_whole(parts)]
    return [*map(_own, files), *(found for file in files if (found := _of_release(file)))]


def read_checksums(parts: Sequence[Path], medium: Medium) -> dict[str | None, str]:
    """What is known of the parts of an archive beforehand: SHA-256 by the part's name, under None that of them joined.

    A checksum file lies beside each part, or one for the whole (``haul.tar.zst.sha256`` beside ``haul.tar.zst.000``),
    which may list the parts. A release's list counts for what it lists and has no file of its own.

    :raises ApplianceError: APL-0115 if a ``.sha256`` has nothing for its file.
    """
    if len(parts) == 1:
        only = _digest(parts[0], medium)
        return {None: only} if only else {}
    expected: dict[str | None, str] = {}
    for whole in _whole(parts):
        own = _read(_own(whole), medium)
        if own is not None:
            expected |= {part.name: own[part.name] for part in parts if part.name in own}
        if own is None or whole.name in own or not expected:
            digest = _digest(whole, medium)
            expected |= {None: digest} if digest else {}
    return expected | {part.name: digest for part in parts if (digest := _digest(part, medium))}


def _digest(path: Path, medium: Medium) -> str | None:
    """What is said of one file; None where nothing is."""
    own = _read(_own(path), medium)
    if own is None:
        release = _of_release(path)
        return (_read(release, medium) or {}).get(path.name) if release else None
    if path.name not in own and len(own) != 1:
        fail(
            "APL-0115",
            "checksum file does not name its file",
            where=f"{path}.sha256",
            why=f"no line for {path.name}",
            fix="Bring the checksum that belongs to the file, or remove it",
        )
    # Renamed on the way, or a bare digest: the name of the checksum file says what it is for.
    return own[path.name] if path.name in own else next(iter(own.values()))


def _whole(parts: Sequence[Path]) -> list[Path]:
    name = whole_name(parts[0].name)
    return [parts[0].with_name(name)] if name else []


def _own(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _of_release(path: Path) -> Path | None:
    found = _OF_RELEASE.fullmatch(path.name)
    return path.with_name(f"sha256sum-{found[1]}.txt") if found else None


def _read(file: Path, medium: Medium) -> dict[str, str] | None:
    """The lines of a checksum file: file name to digest, a bare digest has the name ``""``; None where it is not there."""
    if not medium.has(file):
        return None
    descriptor = medium.open(file)
    try:
        text = os.read(descriptor, _LIMIT).decode("utf-8", "replace")
    except OSError as error:
        fail("APL-0116", "checksum file cannot be read", where=str(file), why=str(error.strerror))
    finally:
        os.close(descriptor)
    found: dict[str, str] = {}
    for line in text.splitlines():
        if plain := _PLAIN_LINE.fullmatch(line.strip()):
            found[(plain.group(2) or "").replace("\\", "/").rpartition("/")[2]] = plain.group(1).lower()
        elif bsd := _BSD_LINE.fullmatch(line.strip()):
            found[bsd.group(1).rpartition("/")[2]] = bsd.group(2).lower()
    return found
