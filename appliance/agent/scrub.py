"""Scrubber: it hashes every blob again at a low rate, so that disk damage is found before a client asks.

Decision 57.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from appliance.errors import ApplianceError
from appliance.files import write_atomically
from appliance.oci.digests import hasher, is_digest
from appliance.sizes import size_words
from appliance.store.blobs import BlobStore
from appliance.store.quarantine import verify_or_quarantine

_LOG = logging.getLogger("appliance.scrub")
STEP = 1 << 20
PASS_SECONDS = 24 * 3600.0
"""A pass begins at most so often: a small store is not read without end."""
_EMPTY_SECONDS = 600.0
"""The same where there was nothing to read: the first medium comes soon."""
_SAVE_SECONDS = 30.0
_BEHIND_SECONDS = 1.0


class RateLimiter:
    """Holds a stream of bytes to a rate.

    :param rate: bytes a second, above 0.
    :param clock: seconds, only ever forward.
    :param sleep: waits for so many seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float], sleep: Callable[[float], object]) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._due = clock()

    def spend(self, count: int) -> None:
        """Wait until ``count`` more bytes have had their time. What was not used before is not made up for."""
        now = self._clock()
        self._due = max(self._due, now - _BEHIND_SECONDS) + count / self._rate
        if self._due > now:
            self._sleep(self._due - now)


@dataclass(frozen=True)
class State:
    """Position of the scrubber, from which it continues after a restart.

    :param after: the last digest that was looked at; empty at the start of a pass.
    :param blobs: blobs hashed in this pass.
    :param size: their bytes.
    :param damaged: those of them that were not what their digest says.
    :param passes: passes that were finished.
    :param began: when this pass began, seconds since 1970; 0: it has not.
    :param finished: when the last pass ended; 0: none has.
    """

    after: str = ""
    blobs: int = 0
    size: int = 0
    damaged: int = 0
    passes: int = 0
    began: float = 0.0
    finished: float = 0.0

    @classmethod
    def read(cls, raw: bytes) -> State:
        """Read what :meth:`to_bytes` wrote; a fresh one for anything else: it is no more than a place to go on."""
        try:
            document = json.loads(raw)
            made = cls(**{name: type(value)(document[name]) for name, value in asdict(cls()).items()})
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return cls()
        return made if made.after == "" or is_digest(made.after) else cls()

    def to_bytes(self) -> bytes:
        """The form it has on disk."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()


class Scrubber:
    """Goes through a store's blobs in the order of their digests, again and again.

    :param pace: how fast.
    :param offload: runs a function that blocks off the event loop.
    :param clock: the time, seconds since 1970; says when a pass is due.
    :param found: called after a damaged blob was moved to quarantine.
    """

    def __init__(
        self,
        blobs: BlobStore,
        pace: RateLimiter,
        offload: Callable[..., Any],
        clock: Callable[[], float],
        found: Callable[[], object],
    ) -> None:
        self._blobs = blobs
        self._pace = pace
        self._offload = offload
        self._clock = clock
        self._found = found
        self._file = blobs.root / "scrub.json"
        self._saved = 0.0
        try:
            self.state = State.read(self._file.read_bytes())
        except OSError:
            self.state = State()

    def due_in(self) -> float:
        """Seconds until there is something to do; 0 in the middle of a pass."""
        if self.state.after or not self.state.began:
            return 0.0
        # A clock that was set to another year makes a pass come early, never late by more than a day.
        since, every = self._clock() - self.state.began, PASS_SECONDS if self.state.blobs else _EMPTY_SECONDS
        return every - since if 0 <= since < every else 0.0

    def run(self) -> None:
        """One pass, or what is left of it."""
        if not self.state.after:
            passes, finished = self.state.passes, self.state.finished
            self.state = State(passes=passes, finished=finished, began=self._clock())
        for digest in self._offload(self._after, self.state.after):
            size, sound = self._hash(digest)
            self.state = replace(
                self.state,
                after=digest,
                blobs=self.state.blobs + 1,
                size=self.state.size + size,
                damaged=self.state.damaged + (not sound),
            )
            if not 0 <= self._clock() - self._saved < _SAVE_SECONDS:
                self._save()
        self.state = replace(self.state, after="", passes=self.state.passes + 1, finished=self._clock())
        self._save()
        _LOG.info(
            "all blobs were hashed again: %d of %s, %d damaged",
            self.state.blobs,
            size_words(self.state.size),
            self.state.damaged,
        )

    def _after(self, last: str) -> list[str]:
        return sorted(digest for digest in self._blobs.names() if digest > last)

    def _hash(self, digest: str) -> tuple[int, bool]:
        """Bytes that were read of a blob, and whether they are what its digest says; one that is gone is sound."""
        total = 0
        try:
            opened = self._blobs.open(digest)
            if opened is None:
                return 0, True
            handle, _ = opened
            try:
                # Without reading ahead: what is in memory after a read is what was asked for, and is given back.
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
                state, buffer = hasher(digest), bytearray(STEP)
                while count := self._offload(_step, handle, buffer, total, state):
                    total += count
                    self._pace.spend(count)
            finally:
                os.close(handle)
        except OSError as error:
            _LOG.error("%s cannot be read: %s", digest, error.strerror or error)
        else:
            if state.hexdigest() == digest.partition(":")[2]:
                return total, True
        return total, self._examined(digest)

    def _examined(self, digest: str) -> bool:
        """Let the one place that decides it decide: it looks again, and takes the blob out where it is damaged."""
        sound = False
        try:
            sound = self._offload(_examine, self._blobs, digest)
        except ApplianceError as problem:
            _LOG.error("%s", problem)
        if not sound:
            self._found()
        return sound

    def _save(self) -> None:
        self._saved = self._clock()
        with contextlib.suppress(OSError):
            self._offload(write_atomically, self._file, self.state.to_bytes())


def _step(handle: int, buffer: bytearray, offset: int, state: Any) -> int:
    """Hash the next bytes of a file; what was not in memory before is not in memory after."""
    view = memoryview(buffer)
    count = _cached(handle, view, offset)
    if count == 0:
        count = os.preadv(handle, [view], offset)
        os.posix_fadvise(handle, offset, count, os.POSIX_FADV_DONTNEED)
    state.update(view[:count])
    return count


def _cached(handle: int, view: memoryview, offset: int) -> int:
    """Read what is in memory already; 0 where nothing is, or where the kernel cannot say."""
    try:
        return os.preadv(handle, [view], offset, os.RWF_NOWAIT)
    except OSError:
        return 0


def _examine(blobs: BlobStore, digest: str) -> bool:
    return verify_or_quarantine(blobs, digest, None, suspect=True)
