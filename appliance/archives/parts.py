"""Archives that were cut into parts: which files belong together, in which order.

Forms: ``haul.tar.zst.000``, ``.001``, ... as Hauler and ``split -d -a 3`` write them (numbers of three digits or more,
from 0 or 1 on), and Hauler's older ``haul_0.tar.zst``, ``haul_1.tar.zst``, ... Files of the older form may as well be
archives of their own; they are parts where all but the first begin in the middle of something.
"""

from __future__ import annotations

import os
import re
import tarfile
from itertools import islice
from pathlib import Path

from appliance.archives.compression import detect
from appliance.errors import fail

ARCHIVE_NAME = re.compile(r".+\.(?:tar(?:\.(?:gz|zst|zstd|xz|bz2|lz4))?|tgz|tzst|txz|tbz2?)", re.IGNORECASE | re.DOTALL)
"""What an archive in a directory is called."""

_NUMBERED = re.compile(r"(?P<base>.+)\.(?P<number>\d{3,9})")
_OLDER = re.compile(r"(?P<base>.+)_(?P<number>\d{1,9})(?P<end>\.(?:tar(?:\.\w+)?|tgz|tzst|txz|tbz2?))", re.IGNORECASE)


def whole_name(name: str) -> str | None:
    """What the archive is called whose part is called ``name``, in the form with a number at the end; else None."""
    found = _NUMBERED.fullmatch(name)
    return found["base"] if found and ARCHIVE_NAME.fullmatch(found["base"]) else None


def parts_of(path: Path) -> list[Path]:
    """All parts of the archive that ``path`` is a part of, in order; ``[path]`` for an archive in one piece.

    :raises ApplianceError: APL-0144 where a part between the first and the last, or the first, is not there.
    """
    if whole_name(path.name) is not None:
        return _in_order(_siblings(path, _NUMBERED), path)
    if _OLDER.fullmatch(path.name):
        numbered = _siblings(path, _OLDER)
        files = [numbered[number] for number in sorted(numbered)]
        if len(files) > 1 and min(numbered) < 2 and _begins(files[0]) and not any(map(_begins, files[1:])):
            return _in_order(numbered, path)
    return [path]


def _siblings(path: Path, form: re.Pattern[str]) -> dict[int, Path]:
    """The files beside ``path`` whose names differ from its name in the number alone, by number."""
    own = form.fullmatch(path.name)
    assert own is not None
    found: dict[int, Path] = {int(own["number"]): path}
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        return found  # only the file itself may be read here
    for name in names:
        other = form.fullmatch(name)
        same = other is not None and all(other[key] == own[key] for key in own.groupdict() if key != "number")
        if other is not None and same and not path.with_name(name).is_symlink():
            found.setdefault(int(other["number"]), path.with_name(name))
    return found


def _in_order(numbered: dict[int, Path], path: Path) -> list[Path]:
    first, last = min(numbered), max(numbered)
    start = min(first, 1)
    missing = list(islice((number for number in range(start, last) if number not in numbered), 10))
    if missing:
        listed = ", ".join(map(str, missing))
        fail(
            "APL-0144",
            "parts of an archive are missing",
            where=str(path),
            why=f"there are parts up to number {last}, but not {listed}",
            fix="Bring all parts, in one directory",
        )
    return [numbered[number] for number in sorted(numbered)]


def _begins(path: Path) -> bool:
    """Whether a file begins as an archive does; false for one that cannot be read, which reading it will say."""
    try:
        # Opening a pipe must not wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        head = os.read(handle, tarfile.BLOCKSIZE)
        if detect(head[:6]) != "none":
            return True
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (OSError, tarfile.HeaderError, ValueError, OverflowError):
        return False
    finally:
        os.close(handle)
    return True
