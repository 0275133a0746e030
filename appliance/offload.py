"""Work that blocks, run on threads beside the event loop: hashing and the disk never hold up other requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import gevent

T = TypeVar("T")


def offload(function: Callable[..., T], *arguments: Any) -> T:
    """Run a blocking function on a thread and return its result, or raise what it raised."""
    result: T = gevent.get_hub().threadpool.apply(function, arguments)
    return result


def feed(chunks: Iterable[bytes | memoryview], take: Callable[[bytes | memoryview], None]) -> None:
    """Hand every chunk to ``take`` on a thread, in order; the next one is read while the last is taken.

    Of two chunks that follow each other the first is not looked at any more when the one after them is asked for.
    """
    pending = None
    try:
        for chunk in chunks:
            if pending is not None:
                pending.get()
            pending = gevent.get_hub().threadpool.spawn(take, chunk)
    finally:
        # Also when reading broke off: what was handed over is finished before anybody looks at the result.
        if pending is not None:
            pending.get()
