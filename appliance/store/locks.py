"""Locks of a store between the processes of its node, and the order in which they are taken.

Each is a ``flock`` and goes with its descriptor, however its process ends. A process that takes two of them in an order that
another process takes the other way round would wait for ever, so the order is checked at every lock: a mistake is an error
in the first test that meets it, and no service that hangs at a site.

Decision 84.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from appliance.errors import fail


class Rank(enum.IntEnum):
    """Order of the locks: one is taken while only lower ones are held."""

    FORM = 1
    """Conversion of the store to a newer form."""
    NAMES = 2
    """Changes of names that take long: seeding, rollback, pins, collection, restore. Nobody waits for it."""
    BLOBS = 3
    """Shared by whoever relies on blobs that are here; exclusive while some are removed."""
    PUSHES = 4
    """Changes of pushed names."""
    INDEX = 5
    """Comparison and replacement of an index; for milliseconds."""
    LOG = 6
    """Lines of the audit log."""


class OutOfOrder(RuntimeError):
    """A lock was asked for while one of the same or of a higher rank is held: a mistake of the program."""


# By thread, or by greenlet where gevent has patched threading: it answers when it is asked, not when this was imported.
_held: dict[int, list[tuple[Rank, Path]]] = {}


@contextlib.contextmanager
def locked(path: Path, rank: Rank, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock; blocks the calling thread until it is free.

    :param path: a directory, or a file, which is made where there is none.
    :param shared: together with others that share it. Where this thread holds it already, nothing more is taken.
    :raises OutOfOrder: before anything is waited for.
    """
    handle = _open(path)
    try:
        with holding(handle, path, rank, shared=shared):
            yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def holding(handle: int, path: Path, rank: Rank, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file that the caller has opened, until the caller closes it; else as :func:`locked`."""
    with _in_order(rank, path, shared=shared) as is_first:
        if is_first:
            fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def names_locked(root: Path) -> Iterator[None]:
    """Hold the store's lock for changes of names that take long.

    :raises ApplianceError: APL-0307 where another process holds it.
    """
    with _in_order(Rank.NAMES, root, shared=False):
        handle = _open(root / "lock")
        try:
            if not try_lock(handle):
                fail(
                    "APL-0307",
                    "another seeding or update is running on this store",
                    where=str(root),
                    fix="Wait for it to end, then run the same again",
                )
            yield
        finally:
            os.close(handle)


def try_lock(handle: int) -> bool:
    """Take the lock of one open file without waiting; false where another descriptor holds it. It ends with the descriptor."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_new(handle: int) -> None:
    """Lock a file that was just made, so that nobody takes it for a leftover; others only try to take it."""
    fcntl.flock(handle, fcntl.LOCK_EX)


@contextlib.contextmanager
def _in_order(rank: Rank, path: Path, *, shared: bool) -> Iterator[bool]:
    """Note a lock while it is held; gives whether it has to be taken."""
    me = threading.get_ident()
    mine = _held.setdefault(me, [])
    try:
        if shared and (rank, path) in mine:
            yield False
            return
        if mine and max(mine)[0] >= rank:
            raise OutOfOrder(f"{rank.name} ({path}) is asked for while {max(mine)[0].name} is held")
        mine.append((rank, path))
        try:
            yield True
        finally:
            mine.remove((rank, path))
    finally:
        if not mine:
            _held.pop(me, None)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except NotADirectoryError:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
