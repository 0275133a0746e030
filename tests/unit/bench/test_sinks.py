"""The client of the bench takes bodies whole, and nothing else for one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.bench.processes import Failed
from tests.bench.sinks import Address, digest, download, downloading
from tests.unit.store import made

BODY = made.noise(1, 300_000)
OK = b"HTTP/1.1 200 OK\r\nX: y\r\ncontent-length:  %d\r\n\r\n"


@contextlib.contextmanager
def server(*parts: bytes) -> Iterator[Address]:
    """Says the same after every request, in these pieces, until the client leaves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = []

        def serve(client: socket.socket) -> None:
            with client, contextlib.suppress(OSError):
                while client.recv(65536):
                    for part in parts:
                        client.sendall(part)
                    if len(parts) == 1:
                        return

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threads.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
                    threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        yield Address(int(listener.getsockname()[1]), "/b")
        # Wakes the thread that accepts; the others end when their clients have left.
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("cut", [0, 1, 100, 250_000])
def test_bodies_are_counted_and_hashed_whole(cut: int) -> None:
    whole = OK % len(BODY) + BODY
    with server(whole[: cut + 1], whole[cut + 1 :]) as address:
        assert digest(address) == made.sha(BODY)
        received, seconds = download(address, 3, 2)
        assert received == 6 * len(BODY)
        assert seconds > 0


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "404"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "200 OK"),
        (OK % 10 + b"short", "5 of 10"),
        (b"", "closed|reset"),
    ],
)
def test_what_is_no_whole_answer_fails(answer: bytes, why: str) -> None:
    with server(answer) as address, pytest.raises(Failed, match=why):
        download(address, 2, 1)


def test_downloads_go_on_until_they_are_stopped() -> None:
    whole = OK % len(BODY) + BODY
    with server(whole[:10], whole[10:]) as address, downloading(address, 2) as count:
        while count() < 10 * len(BODY):
            threading.Event().wait(0.01)
