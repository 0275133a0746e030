"""TLS over memory: no client and no server can make one call into OpenSSL last.

gevent's ``SSLSocket`` lets OpenSSL read the socket itself. One call of it goes on while bytes come that are no data, and nothing else
in the process runs meanwhile, no timer either: a client's KeyUpdate messages or a ClientHello in records of one byte kept a worker from
its beats until it was killed; a server's HelloRequests, before it showed any certificate, or its tickets kept the agent of each node for as
long as they came. Here OpenSSL reads memory, :data:`_STEP` bytes of it at a time.

Decision 80.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import gevent

from appliance import limits

_STEP = 16 << 10
"""Bytes that are received at a time: as many as a record has, or 600 KeyUpdate messages, which take some milliseconds."""
_FLOW = 64 << 10
"""Bytes that are received at a time while data comes of them: OpenSSL says less often that it wants more, which costs as much as a record."""
_TURN = 256 << 10
"""Bytes that are received before the others get their turn, at most, where all of them are data."""
_WRITE = 64 << 10
"""Bytes that are encrypted before they are sent. A GiB costs 0.85 s of processor time so, as with gevent's SSLSocket; with 256 KiB
it costs 1.2 s, as the allocator then maps memory for each step and gives it back."""

_T = TypeVar("_T")


class WithoutData(ssl.SSLError):
    """The other side sent more records without data than anything honest needs."""

    def __init__(self) -> None:
        super().__init__(ssl.SSL_ERROR_SSL, f"{limits.TLS_BYTES} bytes of TLS records held no data")


class TlsSocket:
    """A connection as gunicorn and the applications use it, of one greenlet at a time.

    :param plain: gevent's socket; closed with this one.
    :param server: name of the server that is asked for, in a client; None in a server.
    """

    def __init__(self, plain: Any, context: ssl.SSLContext, server: str | None = None) -> None:
        self.plain = plain
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=server is None, server_hostname=server)
        self._buffer = memoryview(bytearray(_FLOW))
        self._unsent = memoryview(b"")
        self._flows = False
        self._fruitless = self._unturned = 0
        """Bytes that were received since the last data came of them, and since the others had a turn."""

    @property
    def _sock(self) -> Any:
        return self.plain._sock

    def do_handshake(self) -> None:
        """Make the handshake; the caller says how long it may take."""
        self._while_it_wants(self._tls.do_handshake)
        # The tickets for a later session. As in OpenSSL, a client that has left without them made its handshake.
        with contextlib.suppress(ConnectionError):
            self._flush()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return the verified certificate of the other side; None where it showed none."""
        return self._tls.getpeercert(binary_form)

    def recv(self, count: int, flags: int = 0) -> bytes:
        """Return some bytes; none where the other side has ended the connection."""
        if not count:
            return b""
        try:
            return self._data(self._while_it_wants(lambda: self._tls.read(count)))
        except ssl.SSLEOFError:
            return b""

    def recv_into(self, buffer: Any, count: int = 0, flags: int = 0) -> int:
        """Put some bytes into a buffer; returns how many, 0 where the other side has ended the connection."""
        count = count or memoryview(buffer).nbytes
        # typeshed has no overload for a call with a buffer, which returns a number.
        read: Any = self._tls.read
        try:
            return int(self._data(self._while_it_wants(lambda: read(count, buffer))))
        except ssl.SSLEOFError:
            return 0

    def send(self, data: Any, flags: int = 0) -> int:
        """Send all of it."""
        self.sendall(data)
        return memoryview(data).nbytes

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of it."""
        view = memoryview(data).cast("B")
        while view:
            # OpenSSL may take one record of it at a time.
            while view and self._to_send.pending < _WRITE:
                view = view[self._tls.write(view[:_WRITE]) :]
            self._flush()

    def fileno(self) -> int:
        """Descriptor of the connection."""
        return int(self.plain.fileno())

    def getsockopt(self, *arguments: int) -> Any:
        """An option of the connection."""
        return self.plain.getsockopt(*arguments)

    def gettimeout(self) -> float | None:
        """Seconds for which it waits for the other side to send or take something; None: for ever."""
        timeout: float | None = self.plain.gettimeout()
        return timeout

    def settimeout(self, seconds: float | None) -> None:
        """Set how long it waits for the other side to send or take something."""
        self.plain.settimeout(seconds)

    def setblocking(self, flag: bool) -> None:
        """Set whether it waits at all."""
        self.plain.setblocking(flag)

    def shutdown(self, how: int) -> None:
        """End the connection by FIN."""
        self.plain.shutdown(how)

    def close(self) -> None:
        """End the connection by FIN; harmless a second time."""
        self.plain.close()

    def _data(self, came: _T) -> _T:
        self._flows = True
        return came

    def _while_it_wants(self, call: Callable[[], _T]) -> _T:
        """Receive until a call into OpenSSL has what it wants."""
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            except ssl.SSLError:
                # The other side's library says what was wrong where it gets the alert.
                with contextlib.suppress(OSError):
                    self._flush()
                raise
            else:
                self._fruitless = 0
                return result

    def _receive(self) -> None:
        if self._fruitless >= limits.TLS_BYTES:
            raise WithoutData
        # A record may lie in two steps; from then on something else than data comes.
        if self._fruitless >= 2 * _STEP or self._unturned >= _TURN:
            self._unturned = 0
            gevent.sleep(0)
        count = self.plain.recv_into(self._buffer, _FLOW if self._flows else _STEP)
        self._flows = False
        if count:
            self._received.write(self._buffer[:count])
        else:
            self._received.write_eof()
        self._fruitless += count
        self._unturned += count

    def _flush(self) -> None:
        # What was not sent when a timeout came is kept: the next record does not fit behind half of one.
        while self._unsent or self._to_send.pending:
            if not self._unsent:
                self._unsent = memoryview(self._to_send.read())
            self._unsent = self._unsent[self.plain.send(self._unsent) :]
