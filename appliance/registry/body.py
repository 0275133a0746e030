"""Sending big bodies: ``os.sendfile`` on a plain socket, large reads under TLS, never 8 KiB loops.

gevent's own ``socket.sendfile`` reads and sends 8 KiB at a time and starves every other request of the worker; so the
file is sent here, in steps that give the others their turn.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

_FIRST = 64 << 10
_STEP = 256 << 10
"""Bytes sent before the others get their turn. Fewer cost a single download; with four times as many, manifests beside
downloads wait twice as long."""
_STALL_SECONDS = 60


class Source(Protocol):
    """Bytes that are verified up to some offset, and may still be growing."""

    def fileno(self) -> int:
        """Descriptor of the file the bytes lie in."""
        ...

    def wait_beyond(self, offset: int) -> int:
        """Block until a byte at ``offset`` may be sent; returns how far the verified bytes reach (exclusive)."""
        ...

    def close(self) -> None:
        """Let go of the descriptor."""
        ...


class WholeFile:
    """A blob that is in the store."""

    def __init__(self, handle: int, size: int) -> None:
        self._handle = handle
        self._size = size

    def fileno(self) -> int:
        """Descriptor of the open blob."""
        return self._handle

    def wait_beyond(self, offset: int) -> int:
        """All of it may be sent."""
        return self._size

    def close(self) -> None:
        """Close the descriptor; harmless a second time."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class Body:
    """The iterable that answers a GET: the first piece through the server, with the headers, the rest by sendfile.

    An exception out of :meth:`__iter__` makes gunicorn shut the connection down, which the client sees as a FIN
    before the announced length: containerd then resumes with a ``Range``; after a reset it would fail the pull.

    :param source: where the bytes lie.
    :param start: first byte sent.
    :param end: end, exclusive.
    :raises OSError: when the first byte is not at hand; nothing has been sent then.
    """

    def __init__(self, environ: Mapping[str, Any], source: Source, start: int, end: int) -> None:
        self._source = source
        self._start = start
        self._end = end
        sock = environ.get("gunicorn.socket")
        self._socket = None if sock is None or isinstance(sock, ssl.SSLSocket) else sock
        limit = min(source.wait_beyond(start), end) if end > start else end
        self._first = os.pread(source.fileno(), min(_FIRST, limit - start), start) if end > start else b""
        if end > start and not self._first:
            raise OSError(f"no byte at {start} of a blob that should reach {end}")

    def __iter__(self) -> Iterator[bytes]:
        """Yield what the server shall write; send the rest past it."""
        position = self._start + len(self._first)
        if self._first:
            yield self._first
        while position < self._end:
            limit = min(self._source.wait_beyond(position), self._end)
            if self._socket is None:
                piece = os.pread(self._source.fileno(), min(_STEP, limit - position), position)
                if not piece:
                    raise OSError(f"blob ended at {position}, {self._end} announced")
                position += len(piece)
                yield piece
                _yield_turn()
            else:
                position = _send(self._socket, self._source.fileno(), position, limit)

    def close(self) -> None:
        """Called by the server at the end, however it came."""
        self._source.close()


def _send(sock: Any, handle: int, position: int, limit: int) -> int:
    from gevent import Timeout
    from gevent.socket import wait_write

    while position < limit:
        try:
            sent = os.sendfile(sock.fileno(), handle, position, min(_STEP, limit - position))
        except BlockingIOError:
            # A client that takes nothing for a minute does not hold a worker's memory any longer.
            with Timeout(_STALL_SECONDS, TimeoutError("client takes no bytes")):
                wait_write(sock.fileno())
            continue
        if sent == 0:
            raise OSError(f"blob ended at {position}, {limit} announced")
        position += sent
        _yield_turn()
    return position


def _yield_turn() -> None:
    from gevent import sleep

    sleep(0)
