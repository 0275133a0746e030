"""The client that downloads blobs, the same for every server: HTTP/1.1 over a socket, bytes received and dropped.

Receiving releases the interpreter's lock, so threads are enough; a megabyte costs one turn of a loop over plain HTTP.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bench.processes import Failed

_BUFFER = 1 << 20
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """Where a blob is downloaded from.

    :param tls: for TLS, with the name that the server's certificate carries.
    """

    port: int
    path: str
    tls: tuple[ssl.SSLContext, str] | None = None

    def connect(self) -> socket.socket:
        """A connection, after its handshake."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        if self.tls is None:
            return plain
        context, name = self.tls
        return context.wrap_socket(plain, server_hostname=name)


def get(connection: socket.socket, path: str, take: Callable[[memoryview], object] | None = None) -> int:
    """One GET on a connection that stays open; returns the bytes of its body.

    :param take: gets every piece of the body.
    """
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".encode())
    buffer = bytearray(_BUFFER)
    view, filled, end = memoryview(buffer), 0, -1
    while end < 0:
        count = connection.recv_into(view[filled:])
        if not count:
            raise Failed(f"{path}: closed before an answer")
        filled += count
        end = buffer.find(b"\r\n\r\n", 0, filled)
    head = bytes(view[:end])
    length = _LENGTH.search(head)
    if not head.startswith(b"HTTP/1.1 200 ") or length is None:
        raise Failed(f"{path}: {head[:300]!r}")
    total, got = int(length[1]), filled - end - 4
    if take is not None:
        take(view[end + 4 : filled])
    while got < total:
        count = connection.recv_into(view)
        if not count:
            raise Failed(f"{path}: ended after {got} of {total} bytes")
        got += count
        if take is not None:
            take(view[:count])
    return total


def digest(address: Address) -> str:
    """Download once and hash."""
    digester = hashlib.sha256()
    with address.connect() as connection:
        get(connection, address.path, digester.update)
    return f"sha256:{digester.hexdigest()}"


def download(address: Address, clients: int, times: int) -> tuple[int, float]:
    """Let some clients download at once, each ``times`` times over its own connection.

    :returns: bytes received, and the seconds from the first request to the last byte; connecting is not in them.
    """
    done: list[tuple[float, float, int]] = []
    errors: list[BaseException] = []
    start = threading.Barrier(clients + 1)

    def run() -> None:
        try:
            connection = address.connect()
        except OSError as error:
            errors.append(error)
            start.abort()
            return
        with connection, contextlib.suppress(threading.BrokenBarrierError):
            start.wait()
            try:
                begun = time.perf_counter()
                received = sum(get(connection, address.path) for _ in range(times))
                done.append((begun, time.perf_counter(), received))
            except (OSError, Failed) as error:
                errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        start.wait()
    for thread in threads:
        thread.join()
    if errors:
        raise Failed(f"download from port {address.port}: {errors[0]!r}")
    starts, ends, sizes = zip(*done, strict=True)
    return sum(sizes), max(ends) - min(starts)


@contextlib.contextmanager
def downloading(address: Address, clients: int) -> Iterator[Callable[[], int]]:
    """Clients that download over and over while the block runs; gives a function that counts their bytes so far."""
    counts, errors, stop = [0] * clients, list[BaseException](), threading.Event()

    class Enough(Exception):
        pass

    def run(number: int) -> None:
        def take(piece: memoryview) -> None:
            counts[number] += len(piece)
            if stop.is_set():
                raise Enough

        try:
            with address.connect() as connection, contextlib.suppress(Enough):
                while True:
                    get(connection, address.path, take)
        except (OSError, Failed) as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(counts)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if errors:
        raise Failed(f"downloads from port {address.port}: {errors[0]!r}")
