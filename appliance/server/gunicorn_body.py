"""Body of a request, read from gunicorn's socket into reused buffers.

gunicorn's own reader copies each byte several times and takes each chunk of a chunked body by itself. Go's clients send
chunks of 32 KiB (docker, podman and skopeo push that way), and at that size a push took a second of processor time more
for each GiB, twice what its hash takes. Here a chunk costs one match and one copy. Whatever is unusual (extensions of a
chunk, trailers, the last chunk, what is malformed) is given back to gunicorn's reader, whose rules are the strict ones
of RFC 9112.

Decision 40.
"""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Iterator
from typing import Any, Protocol

from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import ParseException

from appliance import limits
from appliance.web.connection import STEP, BrokenBody

_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_LINE = 10


class _Decoder(Protocol):
    def take(self, view: memoryview) -> int:
        """Put the next bytes of the body into the buffer; returns how many, 0 at the end of the body."""
        ...


def body(environ: dict[str, Any]) -> Iterator[memoryview] | None:
    """The pieces of a request's body, :data:`STEP` bytes each but for the last, and all bytes that came.

    A piece is overwritten when the one after the next is asked for.

    :returns: None where no gunicorn is below (a test client), or where something was read of the body before.
    :raises BrokenBody: by the iterator, after the last piece.
    """
    sock, received = environ.get("gunicorn.socket"), environ.get("wsgi.input")
    if sock is None or not isinstance(received, Body) or received.buf.tell():
        return None
    reader = received.reader
    decoder: _Decoder
    if isinstance(reader, LengthReader):
        decoder = _Counted(_Socket(sock, reader.unreader), reader)
    elif isinstance(reader, ChunkedReader) and _is_unread(reader):
        decoder = _Chunked(_Socket(sock, reader.req.unreader), received)
    else:
        return None
    return _pieces(decoder, sock, received)


def _is_unread(reader: Any) -> bool:
    return reader.parser is not None and inspect.getgeneratorstate(reader.parser) == inspect.GEN_CREATED


def _pieces(decoder: _Decoder, sock: Any, received: Any) -> Iterator[memoryview]:
    buffers = memoryview(bytearray(STEP)), memoryview(bytearray(STEP))
    before, number = sock.gettimeout(), 0
    # Until the last byte came nobody knows where the next request begins: gunicorn closes the connection then.
    received.failed = True
    try:
        while True:
            out, filled, problem = buffers[number % 2], 0, None
            try:
                while filled < STEP and (count := decoder.take(out[filled:])):
                    filled += count
            except (OSError, ParseException, BrokenBody) as error:
                problem = error
            if filled:
                yield out[:filled]
            if problem is not None:
                raise BrokenBody(str(problem) or type(problem).__name__) from problem
            if filled < STEP:
                break
            number += 1
        received.failed = False
    finally:
        sock.settimeout(before)


class _Socket:
    """Receives into a buffer, what gunicorn has received already first; never slower than the least rate."""

    def __init__(self, sock: Any, unreader: Any) -> None:
        self._socket = sock
        self._unreader = unreader
        self._ahead = memoryview(unreader.take_buffered())
        self._waited, self._came = 0.0, 0

    def receive(self, view: memoryview) -> int:
        """Some bytes, as they come; 0 when the client has ended the connection."""
        if self._ahead:
            count = min(len(self._ahead), len(view))
            view[:count], self._ahead = self._ahead[:count], self._ahead[count:]
            return count
        while True:
            # Only waiting counts: a slow disk here is not the client's fault.
            if self._waited >= limits.STALL_SECONDS:
                if self._came < limits.LEAST_BYTES:
                    raise TimeoutError(f"less than {limits.LEAST_BYTES} bytes came in {limits.STALL_SECONDS:g} s")
                self._waited, self._came = 0.0, 0
            begun = time.monotonic()
            try:
                self._socket.settimeout(limits.STALL_SECONDS - self._waited)
                count = int(self._socket.recv_into(view))
                self._came += count
                return count
            except TimeoutError:
                self._waited = limits.STALL_SECONDS
            finally:
                self._waited += time.monotonic() - begun

    def give_back(self, rest: memoryview) -> None:
        """Let gunicorn read on from here."""
        self._unreader.unread(bytes(rest) + bytes(self._ahead))
        self._ahead = memoryview(b"")
        self._socket.settimeout(limits.STALL_SECONDS)


class _Counted:
    """A body with a ``Content-Length``."""

    def __init__(self, source: _Socket, reader: Any) -> None:
        self._source = source
        self._reader = reader

    def take(self, view: memoryview) -> int:
        missing = self._reader.length
        if not missing:
            # A client may have sent its next request already.
            self._source.give_back(memoryview(b""))
            return 0
        count = self._source.receive(view[:missing])
        if not count:
            raise BrokenBody(f"the last {missing} bytes did not come")
        self._reader.length -= count
        return count


class _Chunked:
    """A body with ``Transfer-Encoding: chunked``."""

    def __init__(self, source: _Socket, received: Any) -> None:
        self._source = source
        self._received = received
        self._given_back = False
        self._raw = bytearray(STEP)
        self._view = memoryview(self._raw)
        self._begin = self._end = 0
        """Of what was received and not taken, in the buffer."""
        self._left = 0
        """Bytes of the current chunk that were not taken."""
        self._is_behind_one = False

    def take(self, view: memoryview) -> int:
        while not self._left and not self._given_back:
            self._next_chunk()
        if self._given_back:
            content = self._received.read(len(view))
            view[: len(content)] = content
            return len(content)
        if self._begin == self._end:
            self._receive()
        count = min(self._left, self._end - self._begin, len(view))
        view[:count] = self._view[self._begin : self._begin + count]
        self._begin += count
        self._left -= count
        return count

    def _next_chunk(self) -> None:
        """Read the line that says how long the next chunk is; what is not quite usual is gunicorn's."""
        if self._is_behind_one:
            while self._end - self._begin < 2:
                self._receive()
            if self._raw[self._begin : self._begin + 2] != b"\r\n":
                raise BrokenBody("a chunk is longer than it says")
            self._begin += 2
            self._is_behind_one = False
        while True:
            line = _CHUNK.match(self._raw, self._begin, self._end)
            if line is not None and int(line[1], 16):
                self._begin, self._left, self._is_behind_one = line.end(), int(line[1], 16), True
                return
            held = self._raw[self._begin : self._end]
            if line is not None or len(held) >= _LINE or b"\n" in held:
                self._source.give_back(self._view[self._begin : self._end])
                self._begin = self._end = 0
                self._given_back = True
                return
            self._receive()

    def _receive(self) -> None:
        """More bytes behind those that are held, which are few."""
        held = self._end - self._begin
        self._view[:held] = bytes(self._view[self._begin : self._end])
        self._begin, self._end = 0, held
        count = self._source.receive(self._view[held:])
        if not count:
            raise BrokenBody("the connection ended before the last chunk")
        self._end += count
