"""A body that no route reads ends its connection, and never holds a worker; the answer is readable meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.socket import socketpair
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.unreader import SocketUnreader

from appliance import limits
from appliance.server import unread_body
from appliance.server.connections import Client


@pytest.fixture
def ends() -> Iterator[tuple[Any, Any]]:
    """The server's and the client's end of a connection."""
    here, there = socketpair()
    there.settimeout(10)
    yield here, there
    here.close()
    there.close()


def counted(sock: Any, length: int) -> Any:
    return Body(LengthReader(SocketUnreader(sock), length))


def test_a_body_that_was_read_lets_another_request_follow(ends: tuple[Any, Any]) -> None:
    here, there = ends
    for body in (counted(here, 0), Body(ChunkedReader(object(), SocketUnreader(here)))):
        there.sendall(b"0\r\n\r\n")
        body.read()
        assert unread_body.drop(body, here)


@pytest.mark.parametrize("length", [1, 5000, 60_000])
def test_a_small_rest_is_dropped(ends: tuple[Any, Any], length: int) -> None:
    here, there = ends
    there.sendall(bytes(length) + b"GET")
    body = counted(here, length)
    assert unread_body.drop(body, here)
    assert body.reader.unreader.read() == b"GET"


def test_a_long_rest_ends_the_connection_and_the_others_have_their_turns(ends: tuple[Any, Any]) -> None:
    here, there = ends
    there.setblocking(False)
    turns, sent = [0], [0]

    def send() -> None:
        there.settimeout(10)
        try:
            while True:
                sent[0] += there.send(bytes(1 << 20))
        except OSError:
            pass

    def count() -> None:
        while True:
            turns[0] += 1
            gevent.sleep(0)

    sender, counter = gevent.spawn(send), gevent.spawn(count)
    begun = time.monotonic()
    here.sendall(b"answer")
    assert not unread_body.drop(counted(here, 1 << 50), here)
    here.close()
    counter.kill()
    sender.join(10)
    assert sent[0] < 64 << 20 and turns[0] > 10
    assert there.recv(100) == b"answer"
    assert time.monotonic() - begun < limits.UNREAD_SECONDS + 5


def test_a_rest_that_does_not_come_is_not_waited_for(ends: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNREAD_SECONDS", 0.1)
    here, _ = ends
    begun = time.monotonic()
    assert not unread_body.drop(counted(here, 10), here)
    assert time.monotonic() - begun < 5


def test_after_a_body_that_broke_off_no_request_follows(ends: tuple[Any, Any]) -> None:
    here, there = ends
    body = counted(here, 10)
    body.failed = True
    there.close()
    assert not unread_body.drop(body, here)


def test_reading_of_what_is_here_gives_the_others_a_turn() -> None:
    class Unreader:
        def chunk(self, *_: object) -> bytes:
            return b"x"

    client, reader, turns = Client(None, "10.0.0.7", 0.0), Unreader(), [0]
    client.serving("GET", reader, 1.0)
    other = gevent.spawn(lambda: turns.__setitem__(0, 1))
    reader.chunk()
    assert turns == [1]
    other.join()
