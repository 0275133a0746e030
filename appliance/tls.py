"""TLS in steps: a connection that cannot keep this process busy by what OpenSSL does unseen.

``SSL_read`` and ``SSL_do_handshake`` go on for as long as the socket has bytes. Some messages of TLS are dealt with inside (a HelloRequest before the
handshake, tickets and key updates after it), so a peer that sends nothing else holds the one call, and with it gevent's loop and all of its
timers: at 5 MB/s for ever. Here OpenSSL sees a buffer in memory. It gets 32 KiB at a time, others have their turn in between, and a connection
that has sent :data:`MOST_WITHOUT_DATA` bytes without a byte of data is over.
"""

from __future__ import annotations

import io
import socket
import ssl
from typing import Any

import gevent

STEP = 32 << 10
"""Bytes of a connection that OpenSSL gets at a time: nearly two records of TLS."""
MOST_WITHOUT_DATA = 64 << 10
"""Bytes that a peer may send without any data: certificates of a site are some KiB, its tickets some hundred bytes."""


class StepwiseContext(ssl.SSLContext):
    """Settings of TLS whose connections go in steps."""

    def wrap_socket(  # type: ignore[override]  # urllib3 gives these alone, and takes whatever is like a socket
        self, sock: Any, *_: object, server_hostname: str | None = None, **__: object
    ) -> Any:
        """Begin a connection as a client, with its handshake.

        :raises OSError: when the handshake fails, see :meth:`Stepwise.handshake`.
        """
        stepwise = Stepwise(sock, self, server_hostname)
        stepwise.handshake()
        return stepwise


class Stepwise:
    """One side of a TLS connection over a socket, as far as an HTTP client needs a socket."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str | None) -> None:
        self._socket: Any = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._without_data = 0

    def handshake(self) -> None:
        """Make the handshake.

        :raises ssl.SSLError: when it fails.
        :raises ConnectionAbortedError: where the other side sent too much that is no handshake.
        """
        self._until_done(self._tls.do_handshake)
        self._without_data = 0

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Read into a buffer; 0 at the end.

        :raises OSError: as :meth:`handshake`.
        """
        try:
            count: int = self._until_done(self._tls.read, nbytes or len(buffer), buffer)
        except ssl.SSLEOFError:
            # It ended without saying so, as a process that is killed does; the length of a body says what is missing.
            return 0
        except ssl.SSLZeroReturnError:
            return 0
        self._without_data = 0
        return count

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of the bytes."""
        with memoryview(data) as view, view.cast("B") as left:
            sent = 0
            while sent < len(left):
                sent += self._until_done(self._tls.write, left[sent : sent + STEP])

    def makefile(self, mode: str, buffering: int | None = None, **_: object) -> Any:
        """Return a file that reads from the connection; closing it leaves the connection open."""
        raw = socket.SocketIO(self, "r")  # type: ignore[arg-type]  # it needs recv_into and the count of references
        self._socket._io_refs += 1
        return raw if buffering == 0 else io.BufferedReader(raw, io.DEFAULT_BUFFER_SIZE)

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return the certificate of the other side."""
        return self._tls.getpeercert(binary_form)

    def version(self) -> str | None:
        """Return the version of TLS that is spoken."""
        return self._tls.version()

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol that was agreed on; None."""
        return self._tls.selected_alpn_protocol()

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return int(self._socket.fileno())

    def settimeout(self, value: float | None) -> None:
        """Bound each wait for bytes, in seconds."""
        self._socket.settimeout(value)

    def gettimeout(self) -> float | None:
        """Return the bound of each wait, in seconds."""
        timeout: float | None = self._socket.gettimeout()
        return timeout

    def close(self) -> None:
        """Close the socket, once nothing reads from a file of it."""
        self._socket.close()

    def shutdown(self, how: int) -> None:
        """End the connection below."""
        self._socket.shutdown(how)

    def _decref_socketios(self) -> None:
        self._socket._decref_socketios()

    def _until_done(self, act: Any, *arguments: Any) -> Any:
        """Let OpenSSL act on what has come, and bring it more until it has acted."""
        while True:
            try:
                done = act(*arguments)
            except ssl.SSLWantReadError:
                self._flush()
                self._bring()
            except BaseException:
                # Among what is to be sent may be why: an alert.
                self._flush()
                raise
            else:
                self._flush()
                return done

    def _bring(self) -> None:
        data = self._socket.recv(STEP)
        if not data:
            self._incoming.write_eof()
            return
        self._without_data += len(data)
        if self._without_data > MOST_WITHOUT_DATA:
            raise ConnectionAbortedError(f"{self._without_data} bytes of TLS came without any data")
        self._incoming.write(data)
        if self._without_data > STEP:
            # Where bytes come faster than OpenSSL looks at them, nothing else would have a turn.
            gevent.sleep(0)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._socket.sendall(self._outgoing.read())
