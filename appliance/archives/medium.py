"""Sources that are opened before the process gives up the right to read them.

A medium is often readable for root alone. Root opens it, and reads nothing of it: what an archive says is looked at by
the store's owner, through the descriptors that are kept here. What could not be opened is tried again where it is read,
which then has the words for it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from appliance.archives.dispatch import expand_sources
from appliance.archives.rawfile import checksum_file, keep_open
from appliance.errors import ApplianceError

_MOST = 400
"""Descriptors kept open, at most; a process may have 1024."""

_expanded: dict[Path, list[Path] | ApplianceError] = {}


def open_beforehand(sources: list[Path]) -> None:
    """Find the archives in what the operator named, and open each with the checksum beside it."""
    left = _MOST
    for source in sources:
        try:
            found = expand_sources([source]).sources
        except ApplianceError as error:
            _expanded[source] = error
            continue
        except OSError:
            continue
        _expanded[source] = found
        for path in found[: left // 2]:
            left -= 2
            # What the operator named may be a link; in a directory none is followed.
            for file in (path, checksum_file(path)):
                with contextlib.suppress(ApplianceError, OSError):
                    keep_open(file, follow=path == source)


def expand(source: Path) -> list[Path]:
    """The sources in what the operator named; see :func:`expand_sources`."""
    known = _expanded.get(source)
    if known is None:
        return expand_sources([source]).sources
    if isinstance(known, ApplianceError):
        raise known
    return known


def weigh(sources: list[Path]) -> int:
    """Bytes of all that is in the sources, as far as it can be seen; what an import may cost follows from it."""
    total = 0
    for source in sources:
        with contextlib.suppress(OSError):
            total += os.stat(source).st_size
        for folder, _, files in os.walk(source):
            for name in files:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(folder, name)).st_size
    return total
