# SPDX-License-Identifier: Apache-2.0
"""Where the checksum of an archive may lie, by the names that ``appliance.archives.checksums`` looks for.

The controller does not import the appliance's package; a unit test compares the two.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

_CASES: tuple[Callable[[str], str], ...] = (str.lower, str.upper, str.capitalize)
_ENDINGS = tuple(
    f".{case(ending)}" for ending in ("sha256", "sha256sum", "sha256sums", "sha256.txt") for case in _CASES
)
_ARCHIVE_ENDING = r"\.(?:tar(?:\.(?:gz|zst|zstd|xz|bz2|lz4))?|tgz|tzst|txz|tbz2?)"
_STEM = re.compile(rf"(?P<stem>.+?){_ARCHIVE_ENDING}", re.IGNORECASE | re.DOTALL)
_OF_RELEASE = re.compile(r".+-(\w+)\.(?:tar(?:\.\w+)?|tgz|tzst|txz|tbz2?)", re.IGNORECASE)
_LONGEST_NAME = 255


def checksum_names(name: str) -> list[str]:
    """Return the names that the checksum of one file may have beside it.

    The lists of a directory (``SHA256SUMS``) are not among them: files of several directories are carried into one, where one list would
    replace the other. A name that no file system takes is left out.
    """
    stem, release = _STEM.fullmatch(name), _OF_RELEASE.fullmatch(name)
    names = [f"{name}{ending}" for ending in _ENDINGS]
    names += [f"{stem['stem']}{ending}" for ending in _ENDINGS] if stem else []
    names += [f"sha256sum-{release[1]}.txt"] if release else []
    return [name for name in dict.fromkeys(names) if len(os.fsencode(name)) <= _LONGEST_NAME]


def checksum_paths(sources: list[str]) -> list[str]:
    """Return the paths that the checksums of sources may have, each once."""
    split = (os.path.split(source.rstrip("/")) for source in sources)
    return list(dict.fromkeys(os.path.join(folder, found) for folder, name in split for found in checksum_names(name)))
