"""Listeners on loopback that answer badly, each in a way of its own, over TLS with a good certificate."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

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

    @property
    def cipher(self) -> str:
        """What was agreed on."""
        agreed = self._tls.cipher()
        assert agreed is not None
        return agreed[0]

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


def hello_requests(sock: socket.socket, context: ssl.SSLContext) -> Iterator[bytes]:
    """Send nothing but HelloRequests (RFC 5246, 7.4.1.1: four zeros each), which a client of OpenSSL skips."""
    while True:
        yield b"\x16\x03\x03\x40\x00" + bytes(1 << 14)


def tickets_have_no_end(sock: socket.socket, context: ssl.SSLContext) -> Iterator[bytes]:
    """Send nothing but tickets (RFC 8446, 4.6.1), some hundred in a record, encrypted here: Python's TLS sends two and no more."""
    with tempfile.NamedTemporaryFile() as secrets:
        context.num_tickets = 0
        context.keylog_filename = secrets.name
        tls = Tls(sock, context)
        lines = [line.split() for line in secrets.read().decode().splitlines()]
    (secret,) = (bytes.fromhex(line[2]) for line in lines if line[:1] == ["SERVER_TRAFFIC_SECRET_0"])
    key, nonce = (_expand(secret, *wanted) for wanted in ((b"key", 32), (b"iv", 12)))
    ticket = b"\4" + (14).to_bytes(3, "big") + struct.pack(">II", 7200, 0) + b"\0" + struct.pack(">H", 1) + b"x\0\0"
    content = ticket * (16000 // len(ticket)) + b"\x16"
    head = b"\x17\x03\x03" + struct.pack(">H", len(content) + 16)
    assert tls.cipher == "TLS_AES_256_GCM_SHA384"
    for number in itertools.count():
        mixed = (int.from_bytes(nonce, "big") ^ number).to_bytes(12, "big")
        yield head + AESGCM(key).encrypt(mixed, content, head)


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446, 7.1, with an empty context."""
    name = b"tls13 " + label
    info = struct.pack(">HB", length, len(name)) + name + b"\0"
    return HKDFExpand(hashes.SHA384(), length, info).derive(secret)


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
        self._ended = threading.Event()
        self._open: list[socket.socket] = []
        self.ports: dict[str, int] = {}
        for way in ways:
            listener = socket.create_server(("127.0.0.1", 0))
            self._open.append(listener)
            self.ports[way.__name__] = listener.getsockname()[1]
            context = server_context(pki)
            threading.Thread(target=self._listen, args=(listener, way, context), daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _listen(self, listener: socket.socket, way: Conversation, context: ssl.SSLContext) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self._open.append(sock)
            threading.Thread(target=self._converse, args=(sock, way, context), daemon=True).start()

    def _converse(self, sock: socket.socket, way: Conversation, context: ssl.SSLContext) -> None:
        with contextlib.suppress(OSError), sock:
            for piece in way(sock, context):
                if self._ended.is_set():
                    return
                if piece:
                    sock.sendall(piece)
                else:
                    self._ended.wait(DRIP)
