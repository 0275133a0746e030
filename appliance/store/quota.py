"""Quota of a store: the room that its file system and the operator's limit leave.

Decision 56.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from appliance.errors import ApplianceError, fail
from appliance.sizes import size_words

NEAR = 0.9
"""Share of what a store may take from which on it is near its limit."""
_KNOWN_SECONDS = 2.0
"""How long a count of the files is believed. One of 10,000 takes 50 ms, and a push asks for each megabyte."""
_ESTIMATE_SECONDS = 60.0
_COUNTED = ("blobs/sha256", "blobs/sha512", "partial", "incoming", "uploads", "quarantine")


class Quota:
    """The room of one store.

    :param root: directory of the store; it need not be there yet.
    :param free_percent: percent of the file system that imports and fetches leave free.
    :param reserve: bytes left free in any case: manifests, names and the journal are still written then.
    :param limit: bytes that the store may take; None: as many as the file system gives.
    :param clock: seconds, only ever forward.
    """

    def __init__(
        self,
        root: Path,
        *,
        free_percent: float = 0.0,
        reserve: int = 64 << 20,
        limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._free_percent = free_percent
        self._reserve = reserve
        self._limit = limit
        self._clock = clock
        self._counted: tuple[float, int] | None = None
        self._promised = 0
        self._estimated: tuple[float, int | None] | None = None
        self.collectable: Callable[[], int] | None = None
        """Bytes that a garbage collection would free, for whoever is refused; None where that is not known."""

    def used(self) -> int:
        """Bytes of the store's blobs and of what is on its way to become one, as of a moment ago."""
        now = self._clock()
        if self._counted is None or not 0 <= now - self._counted[0] < _KNOWN_SECONDS:
            self._counted = now, sum(map(_size_below, (self._root / name for name in _COUNTED)))
            self._promised = 0
        return self._counted[1]

    def left(self) -> int:
        """Bytes that may still be written before the limit of the file system or of the store is reached."""
        free = self._free()
        if self._limit is None:
            return free
        used = self.used()
        return max(0, min(free, self._limit - used - self._promised))

    def most(self) -> int:
        """Bytes that the store may take in all: its limit, or what the file system has for it, whichever is less."""
        most = self.used() + self._free()
        return most if self._limit is None else min(most, self._limit)

    def promise(self, size: int) -> None:
        """Count bytes that are about to be written as taken, until the files are counted again."""
        self._promised += size

    def recount(self) -> None:
        """Believe no count and no promise any more: what was promised and came to nothing is no reason to refuse."""
        self._counted = None

    def refuse(self, needed: int, left: int) -> NoReturn:
        """Say (APL-0310) that there is no room for so many bytes, with the sums."""
        fail(
            "APL-0310",
            "not enough room in the store",
            where=str(self._root),
            # The bytes too: what is needed and what is there may differ by less than their words show.
            why=f"needed {size_words(needed)} ({needed} bytes), available {size_words(left)} ({left} bytes): {self._sums()}",
            fix="Free space there or give the store a larger file system, then run the same again",
        )

    def _sums(self) -> str:
        sums = f"{size_words(self._free())} on the file system of {self._root} (kept free: {self._free_percent:g} % of it, "
        sums += f"at least {size_words(self._reserve)})"
        if self._limit is not None:
            sums += f"; the store has {size_words(self.used())} of the {size_words(self._limit)} that mirror_store_limit allows it"
        estimate = self._estimate()
        if estimate is not None:
            sums += f"; 'appliance gc' would free up to {size_words(estimate)}"
        return sums

    def _estimate(self) -> int | None:
        now = self._clock()
        if self._estimated is None or not 0 <= now - self._estimated[0] < _ESTIMATE_SECONDS:
            estimate = None
            if self.collectable is not None:
                with contextlib.suppress(ApplianceError, OSError):
                    estimate = self.collectable()
            self._estimated = now, estimate
        return self._estimated[1]

    def _free(self) -> int:
        # A store that is still to be made stands on the file system of the nearest directory above it.
        absolute = self._root.absolute()
        numbers = os.statvfs(next(path for path in (absolute, *absolute.parents) if path.exists()))
        keep = max(self._reserve, int(numbers.f_blocks * numbers.f_frsize * self._free_percent / 100))
        return max(0, numbers.f_bavail * numbers.f_frsize - keep)


def _size_below(directory: Path) -> int:
    total = 0
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_size
    return total
