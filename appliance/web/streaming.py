"""Sending of big bodies: ``os.sendfile`` on a plain socket, large reads under TLS, never 8 KiB loops.

gevent's own ``socket.sendfile`` reads and sends 8 KiB at a time and starves every other request of the worker; so the
file is sent here, in steps that give the others their turn.

Decisions 30 and 39.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from appliance.web.connection import SOCKET

_FIRST = 64 << 10
_STEP = 256 << 10
"""Bytes sent before the others get their turn. Fewer cost a single download; with four times as many, manifests beside
downloads wait twice as long."""
_PIECE = 128 << 10
"""The same under TLS, where the bytes are read and encrypted: they stay in the processor's cache between the two."""
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF, errno.ETIMEDOUT)
"""What a write says when the client is not there any more; everything else is about the file."""


class BrokenOff(OSError):
    """The bytes of a body could not be read to their end; the text says where and why.

    Only for what lies on this side. That a client left is an :class:`OSError` like any other.
    """


class BlobSource(Protocol):
    """Bytes that are verified up to some offset, and may still be growing."""

    def fileno(self) -> int:
        """Descriptor of the file the bytes lie in."""
        ...

    def wait_beyond(self, offset: int) -> int:
        """Block until a byte at ``offset`` may be sent; returns how far the verified bytes reach (exclusive)."""
        ...

    def failed(self) -> None:
        """Note that bytes of the blob cannot be read."""
        ...

    def close(self) -> None:
        """Let go of the descriptor."""
        ...


class FileSource:
    """A blob that is in the store.

    :param failed: called when its bytes cannot be read, after which it is looked at and fetched again.
    """

    def __init__(self, handle: int, size: int, failed: Callable[[], None] | None = None) -> None:
        self._handle = handle
        self._size = size
        self._failed = failed

    def fileno(self) -> int:
        """Descriptor of the open blob."""
        return self._handle

    def wait_beyond(self, offset: int) -> int:
        """All of it may be sent."""
        return self._size

    def failed(self) -> None:
        """Its bytes cannot be read."""
        if self._failed is not None:
            self._failed()

    def close(self) -> None:
        """Close the descriptor; harmless a second time."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class BlobBody:
    """The iterable that answers a GET: the first piece through the server, with the headers, the rest by sendfile.

    An exception out of :meth:`__iter__` makes the server end the connection, which the client sees as a FIN
    before the announced length: containerd then resumes with a ``Range``; after a reset it would fail the pull. How long
    a client may take over it is the server's to judge (:mod:`appliance.server.connections`).

    :param source: where the bytes lie.
    :param start: first byte sent.
    :param end: end, exclusive.
    :raises BrokenOff: when the first byte is not at hand; nothing has been sent then.
    """

    def __init__(self, environ: Mapping[str, Any], source: BlobSource, start: int, end: int) -> None:
        self._source = source
        self._start = start
        self._end = end
        sock = environ.get(SOCKET)
        # Of a TLS connection the socket takes no plain bytes.
        self._socket: Any = None if hasattr(sock, "getpeercert") else sock
        limit = min(source.wait_beyond(start), end) if end > start else end
        self._first = self._read(min(_FIRST, limit - start), start) if end > start else b""

    def __iter__(self) -> Iterator[bytes]:
        """Yield what the server shall write; send the rest past it."""
        position = self._start + len(self._first)
        if self._first:
            yield self._first
        while position < self._end:
            limit = min(self._wait(position), self._end)
            if self._socket is None:
                piece = self._read(min(_PIECE, limit - position), position)
                position += len(piece)
                yield piece
                _yield_turn()
            else:
                position = self._send(position, limit)

    def close(self) -> None:
        """Release the source; the server calls it at the end of every answer."""
        self._source.close()

    def _wait(self, position: int) -> int:
        try:
            return self._source.wait_beyond(position)
        except OSError as problem:
            raise BrokenOff(f"the answer ends at byte {position} of {self._end}: {problem}") from problem

    def _read(self, count: int, position: int) -> bytes:
        try:
            piece = os.pread(self._source.fileno(), count, position)
        except OSError as problem:
            raise self._broken(position, problem.strerror or str(problem)) from problem
        if not piece:
            raise self._broken(position, "the file is shorter than it was")
        return piece

    def _send(self, position: int, limit: int) -> int:
        from gevent.socket import wait_write

        while position < limit:
            try:
                sent = os.sendfile(self._socket.fileno(), self._source.fileno(), position, min(_STEP, limit - position))
            except BlockingIOError:
                wait_write(self._socket.fileno())
                continue
            except OSError as problem:
                if problem.errno in _GONE:
                    raise
                raise self._broken(position, problem.strerror or str(problem)) from problem
            if sent == 0:
                raise self._broken(position, "the file is shorter than it was")
            position += sent
            _yield_turn()
        return position

    def _broken(self, position: int, why: str) -> BrokenOff:
        self._source.failed()
        return BrokenOff(f"the answer ends at byte {position} of {self._end}: {why}")


def _yield_turn() -> None:
    from gevent import sleep

    sleep(0)
