"""Threads for blocking work, so that hashing and the disk never hold up the event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import gevent

T = TypeVar("T")


def run_in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Run a blocking function on a thread and return its result, or raise what it raised."""
    came: tuple[T | None, Exception | None] = gevent.get_hub().threadpool.apply(_attempt, (function, arguments))
    return _result(came)


def pipe_to_thread(chunks: Iterable[bytes | memoryview], take: Callable[[bytes | memoryview], None]) -> None:
    """Hand every chunk to ``take`` on a thread, in order; the next one is read while the last is taken.

    Of two chunks that follow each other the first is not looked at any more when the one after them is asked for.
    """
    pending = None
    try:
        for chunk in chunks:
            if pending is not None:
                _result(pending.get())
            pending = gevent.get_hub().threadpool.spawn(_attempt, take, (chunk,))
    finally:
        # Also when reading broke off: what was handed over is finished before anybody looks at the result.
        if pending is not None:
            _result(pending.get())


def _attempt(function: Callable[..., T], arguments: tuple[Any, ...]) -> tuple[T | None, Exception | None]:
    """Call, and carry an error back as a value: gevent's pool writes a traceback to the log of every one that it sees,
    and a refusal is an answer, of which a client may ask for any number.
    """
    try:
        return function(*arguments), None
    except Exception as error:
        return None, error


def _result(came: tuple[T | None, Exception | None]) -> T:
    result, error = came
    if error is not None:
        raise error
    return cast(T, result)
