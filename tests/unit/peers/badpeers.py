"""Listeners on loopback that answer badly, each in a way of its own, over TLS with a good certificate."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from appliance.trust import server_context

Conversation = Callable[[socket.socket, ssl.SSLContext], Iterator[bytes]]
"""Yields what is sent, raw; drives the handshake where there is one."""
DRIP = 0.3
"""Seconds between bytes: below every time-out on silence."""


class Tls:
    """The server's end of TLS over a socket, with each record in the test's hands."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock, self._in, self._out = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._until(self._tls.do_handshake)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._until(lambda: self._tls.read(4096)) or b""

    def record(self, content: bytes) -> bytes:
        """Encrypt; what is due on the wire."""
        self._tls.write(content)
        return self._out.read()

    def _until(self, step: Callable[[], bytes | None]) -> bytes | None:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._flush()
                came = self._sock.recv(65536)
                if not came:
                    raise ConnectionError("the client left") from None
                self._in.write(came)
                continue
            self._flush()
            return result

    def _flush(self) -> None:
        if out := self._out.read():
            self._sock.sendall(out)


def drip(content: bytes) -> Iterator[bytes]:
    """Yield byte by byte; an empty one is a pause."""
    for byte in content:
        yield bytes([byte])
        yield b""


def answer(body: bytes, **headers: str) -> bytes:
    lines = {"Content-Length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + body


def handshake_drips(sock: socket.socket, context: ssl.SSLContext) -> Iterator[bytes]:
    yield from drip(b"\x16\x03\x03\x40\x00" + bytes(1000))


def head_drips(sock: socket.socket, context: ssl.SSLContext) -> Iterator[bytes]:
    tls = Tls(sock, context)
    for byte in drip(answer(b"{}") * 99):
        yield tls.record(byte) if byte else b""


def body_drips(sock: socket.socket, context: ssl.SSLContext) -> Iterator[bytes]:
    tls = Tls(sock, context)
    yield tls.record(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n")
    for byte in drip(bytes(9000)):
        yield tls.record(byte) if byte else b""


def record_drips(sock: socket.socket, context: ssl.SSLContext) -> Iterator[bytes]:
    yield from drip(Tls(sock, context).record(answer(bytes(9000))))


def continues_slowly(sock: socket.socket, context: ssl.SSLContext) -> Iterator[bytes]:
    tls = Tls(sock, context)
    while True:
        yield tls.record(b"HTTP/1.1 100 Continue\r\n\r\n")
        yield b""


def continues_fast(sock: socket.socket, context: ssl.SSLContext) -> Iterator[bytes]:
    tls = Tls(sock, context)
    while True:
        yield tls.record(b"HTTP/1.1 100 Continue\r\n\r\n" * 500)


def trailer_has_no_end(sock: socket.socket, context: ssl.SSLContext) -> Iterator[bytes]:
    tls = Tls(sock, context)
    yield tls.record(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
    for number in itertools.count():
        yield tls.record(f"X-{number}: y\r\n".encode() * 500)


def body_has_no_end(sock: socket.socket, context: ssl.SSLContext) -> Iterator[bytes]:
    tls = Tls(sock, context)
    yield tls.record(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        yield tls.record(bytes(16000))


def honest(sock: socket.socket, context: ssl.SSLContext) -> Iterator[bytes]:
    yield Tls(sock, context).record(answer(b"{}"))


class BadPeers:
    """Listeners that run until they are closed, one for each way to answer.

    :param pki: directory of the node that all of them are.
    """

    def __init__(self, pki: Path, *ways: Conversation) -> None:
        self._context = server_context(pki)
        self._ended = threading.Event()
        self._open: list[socket.socket] = []
        self.ports: dict[str, int] = {}
        for way in ways:
            listener = socket.create_server(("127.0.0.1", 0))
            self._open.append(listener)
            self.ports[way.__name__] = listener.getsockname()[1]
            threading.Thread(target=self._listen, args=(listener, way), daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _listen(self, listener: socket.socket, way: Conversation) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self._open.append(sock)
            threading.Thread(target=self._converse, args=(sock, way), daemon=True).start()

    def _converse(self, sock: socket.socket, way: Conversation) -> None:
        with contextlib.suppress(OSError), sock:
            for piece in way(sock, self._context):
                if self._ended.is_set():
                    return
                if piece:
                    sock.sendall(piece)
                else:
                    self._ended.wait(DRIP)
