"""The client that pushes one big blob, the same for every server: bytes that were made before, sent as clients send them.

``one request`` is a POST and a PUT with a length; ``streamed`` is a POST, a PATCH whose length nobody knows beforehand
and a PUT without a body, which is what docker, podman and skopeo do: Go sends such a body by chunks of 32 KiB
(``net/http`` copies it through a buffer of that size).
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.processes import Failed
from tests.bench.sinks import Address

CHUNK = 32 << 10
_STEP = 1 << 20
_ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LOCATION = re.compile(rb"\r\nlocation: *(\S+)", re.IGNORECASE)


@dataclass(frozen=True)
class Layer:
    """Random bytes on disk, bare and in chunks; its first chunk is made anew for each push, so that none is known.

    :param size: bytes, a multiple of :data:`CHUNK`.
    """

    bare: Path
    chunked: Path
    size: int
    first: bytes = field(repr=False, default=b"")

    @classmethod
    def make(cls, directory: Path, size: int) -> Layer:
        """Write the two files."""
        directory.mkdir()
        made = cls(directory / "bare", directory / "chunked", size)
        block = os.urandom(_STEP)
        with made.bare.open("wb") as bare, made.chunked.open("wb") as chunked:
            for number in range(size // CHUNK - 1):
                piece = number.to_bytes(8, "big") + block[8 + number % 32 : 8 + number % 32 + CHUNK - 8]
                bare.write(piece)
                chunked.write(b"%x\r\n%b\r\n" % (CHUNK, piece))
        return made

    def anew(self) -> tuple[Layer, str]:
        """The same with other bytes at the beginning, and its digest."""
        first = secrets.token_bytes(CHUNK)
        digester = hashlib.sha256(first)
        with self.bare.open("rb") as file:
            while piece := file.read(_STEP):
                digester.update(piece)
        return Layer(self.bare, self.chunked, self.size, first), f"sha256:{digester.hexdigest()}"


def push(address: Address, layer: Layer, digest: str, authorization: str | None, *, streamed: bool) -> float:
    """Push a blob to the repository of the address's path (``/v2/<name>/``) over one connection.

    :param authorization: the value of that header, where the server asks for one.
    :returns: seconds from the first request to the last answer; connecting is not in them.
    """
    credentials = f"Authorization: {authorization}\r\n" if authorization else ""
    with address.connect() as connection:
        begun = time.perf_counter()
        _send(connection, "POST", f"{address.path}blobs/uploads/", credentials + "Content-Length: 0\r\n")
        where = _answer(connection, b"202")
        if streamed:
            _send(connection, "PATCH", where, credentials + "Transfer-Encoding: chunked\r\n")
            connection.sendall(b"%x\r\n%b\r\n" % (CHUNK, layer.first))
            _copy(connection, layer.chunked)
            connection.sendall(b"0\r\n\r\n")
            where = _answer(connection, b"202")
        length = 0 if streamed else layer.size
        mark = "&" if "?" in where else "?"
        _send(connection, "PUT", f"{where}{mark}digest={digest}", f"{credentials}Content-Length: {length}\r\n")
        if not streamed:
            connection.sendall(layer.first)
            _copy(connection, layer.bare)
        _answer(connection, b"201")
        return time.perf_counter() - begun


def _send(connection: socket.socket, method: str, path: str, headers: str) -> None:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n{headers}\r\n"
    connection.sendall(head.encode())


def _copy(connection: socket.socket, path: Path) -> None:
    with path.open("rb") as file:
        if isinstance(connection, ssl.SSLSocket):
            while piece := file.read(_STEP):
                connection.sendall(piece)
        else:
            connection.sendfile(file)


def _answer(connection: socket.socket, expected: bytes) -> str:
    """Read an answer without a body; returns the path and query of its Location."""
    said = b""
    while b"\r\n\r\n" not in said:
        piece = connection.recv(65536)
        if not piece:
            raise Failed(f"closed before an answer: {said[:300]!r}")
        said += piece
    status = _ANSWER.match(said)
    if status is None or status[1] != expected:
        raise Failed(f"{expected!r} expected: {said[:500]!r}")
    location = _LOCATION.search(said)
    if location is None:
        raise Failed(f"no Location: {said[:500]!r}")
    parts = urlsplit(location[1].decode())
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
