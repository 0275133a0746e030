"""TLS to peers, as urllib3 and http.client use a socket."""

from __future__ import annotations

import io
import socket
import ssl
from typing import Any

from appliance.tls import TlsSocket


class PeerContext(ssl.SSLContext):
    """Settings of TLS whose connections are :class:`PeerSocket`."""

    def wrap_socket(  # type: ignore[override]  # urllib3 gives these alone, and takes whatever is like a socket
        self, sock: Any, *_: object, server_hostname: str = "", **__: object
    ) -> PeerSocket:
        """Begin a connection, with its handshake.

        :raises OSError: when the handshake fails.
        """
        made = PeerSocket(sock, self, server_hostname)
        made.do_handshake()
        return made


class PeerSocket(TlsSocket):
    """A client's connection to a peer."""

    def makefile(self, mode: str, buffering: int | None = None, **_: object) -> Any:
        """Return a file that reads from the connection; the socket is closed once both are."""
        raw = socket.SocketIO(self, "r")  # type: ignore[arg-type]  # it needs recv_into and the count of references
        self.plain._io_refs += 1
        return raw if buffering == 0 else io.BufferedReader(raw, io.DEFAULT_BUFFER_SIZE)

    def version(self) -> str | None:
        """Return the version of TLS that is spoken."""
        return self._tls.version()

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol that was agreed on; None."""
        return self._tls.selected_alpn_protocol()

    def _decref_socketios(self) -> None:
        self.plain._decref_socketios()
