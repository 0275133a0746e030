"""Memory of the blobs that clients downloaded whole a short time ago. The workers of a listener share it.

A client that was given a wrong blob refuses it, and asks for the whole of it again. So whoever does that is given nothing
that was not hashed before. Who asks for the first time waits for no hash: that costs 0.7 s of a processor for each
gigabyte, and the way past it, ``sendfile``, a third of a second.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import time
from collections.abc import Callable

AGAIN_SECONDS = 900.0
"""A second request within this time is a repetition. Kubelet lets five minutes pass between two pulls at the most, and the
first of them may take some."""
SOUND_SECONDS = 300.0
"""A file that was hashed and found right is believed for so long: what is repeated without end costs a hash each five
minutes."""
_ENTRY = struct.Struct("=Qd")
"""A hash of what is remembered, and when it was noted."""
_WAYS = 8
_BUCKET = struct.Struct("=" + "Qd" * _WAYS)
_BUCKETS = 2048


class Repeats:
    """A table in memory that is shared with every process forked after it was made, and survives all of them.

    It has room for 16,384 entries, 256 KiB, in buckets of eight of which the oldest gives way. Nothing is locked: an entry
    that two workers write at the same moment is lost at worst, as if it were old.

    :param clock: monotonic seconds, the same in all processes; a parameter for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Anonymous, so no disk can be full, read-only or slow under it.
        self._memory = mmap.mmap(-1, _BUCKETS * _BUCKET.size)

    def asked(self, client: str, digest: str) -> bool:
        """Note that a client asks for a whole blob; return whether it did so before."""
        key, now = _key("asked", client, digest), self._clock()
        offset, noted = self._find(key)
        _ENTRY.pack_into(self._memory, offset, key, now)
        return now - noted < AGAIN_SECONDS

    def is_sound(self, digest: str, file: os.stat_result) -> bool:
        """Return whether this file was hashed a short time ago, and found right."""
        key = _key("sound", digest, *_identity(file))
        _, noted = self._find(key)
        return self._clock() - noted < SOUND_SECONDS

    def found_sound(self, digest: str, file: os.stat_result) -> None:
        """Note that this file was hashed, and found right."""
        key = _key("sound", digest, *_identity(file))
        _ENTRY.pack_into(self._memory, self._find(key)[0], key, self._clock())

    def _find(self, key: int) -> tuple[int, float]:
        """Return where a key is or should be put, and when it was noted: never, for one that is not there."""
        first = key % _BUCKETS * _BUCKET.size
        content = _BUCKET.unpack_from(self._memory, first)
        keys, times = content[::2], content[1::2]
        if key in keys:
            way = keys.index(key)
            return first + way * _ENTRY.size, times[way]
        # An empty one is the oldest: its time is 0.
        return first + times.index(min(times)) * _ENTRY.size, float("-inf")


def _key(*words: str) -> int:
    (key,) = struct.unpack("=Q", hashlib.blake2b("\0".join(words).encode(), digest_size=8).digest())
    return int(key) or 1


def _identity(file: os.stat_result) -> tuple[str, str, str]:
    return str(file.st_dev), str(file.st_ino), str(file.st_mtime_ns)
