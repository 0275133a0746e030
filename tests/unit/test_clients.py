"""When a client is given up: by what moved, never by how long it took over all."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import bounds
from appliance.serve import clients
from appliance.serve.clients import Client, Clients, Pace, Traffic, traffic


def test_too_slow_is_fewer_than_the_least_in_a_window() -> None:
    for count, slow in ((0, True), (bounds.LEAST_BYTES - 1, True), (bounds.LEAST_BYTES, False)):
        pace = Pace()
        assert not pace.look(100.0, 7, True)
        assert not pace.look(100.0 + bounds.STALL_SECONDS - 0.01, 7 + count, True)
        assert pace.look(100.0 + bounds.STALL_SECONDS, 7 + count, True) is slow


def test_who_is_not_waited_for_is_never_too_slow() -> None:
    pace, now = Pace(), 0.0
    for _ in range(1000):
        now += 1
        assert not pace.look(now, 0, expected=int(now) % 59 != 0)


@given(st.lists(st.integers(bounds.LEAST_BYTES // 10, 10**7), min_size=100, max_size=300))
def test_a_steady_client_is_never_too_slow(steps: list[int]) -> None:
    """A sixth of the window each, with some more than a sixth of the least."""
    pace, now, count = Pace(), 0.0, 0
    for step in steps:
        now += bounds.STALL_SECONDS / 10
        count += step + 1
        assert not pace.look(now, count, True)


@given(st.lists(st.integers(0, bounds.LEAST_BYTES // 70), min_size=130, max_size=130))
def test_a_byte_now_and_then_does_not_help(steps: list[int]) -> None:
    pace, count = Pace(), 0
    for second, step in enumerate(steps):
        count += step
        if pace.look(float(second), count, True):
            return
    pytest.fail("two windows, and never given up")


class Clock:
    """Seconds that a test lets pass."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeSocket:
    """Notes that it was shut down."""

    def __init__(self) -> None:
        self.cut: list[int] = []
        self._sock = self

    def shutdown(self, how: int) -> None:
        self.cut.append(how)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Traffic | None]:
    """What the kernel says, by socket."""
    said: dict[Any, Traffic | None] = {}
    monkeypatch.setattr(clients, "traffic", said.get)
    return said


def entered(among: Clients, address: str = "10.0.0.7") -> tuple[Client, FakeSocket]:
    sock = FakeSocket()
    return among.enter(sock, (address, 1)), sock


class Unreader:
    """gunicorn's reader of a connection; runs something while it waits."""

    def __init__(self, meanwhile: Any = lambda: None) -> None:
        self._meanwhile = meanwhile

    def chunk(self, *_: object) -> bytes:
        self._meanwhile()
        return b"x"


def test_a_client_that_takes_nothing_is_cut_and_named(seen: dict[Any, Traffic | None]) -> None:
    clock, lines = Clock(), list[str]()
    among = Clients(10, lines.append, clock)
    (good, good_sock), (bad, bad_sock), (server, server_sock) = (entered(among, f"10.0.0.{n}") for n in range(3))
    for client in (good, bad, server):
        client.serving("GET", Unreader(), clock.now)
    for second in range(int(bounds.STALL_SECONDS) + 2):
        clock.now += 1
        seen[good_sock] = Traffic(second * 1000, 0, True)
        seen[bad_sock] = Traffic(1000, 0, True)
        # This one's answer is what is waited for.
        seen[server_sock] = Traffic(1000, 0, False)
        among.sweep()
    assert (good_sock.cut, bad_sock.cut, server_sock.cut) == ([], [socket.SHUT_RDWR] * len(bad_sock.cut), [])
    assert bad_sock.cut
    assert all("10.0.0.1 took fewer than 16384 bytes" in line for line in lines)


def test_only_a_body_that_is_waited_for_can_be_late(seen: dict[Any, Traffic | None]) -> None:
    clock, lines = Clock(), list[str]()
    among = Clients(10, lines.append, clock)
    client, sock = entered(among)

    def wait() -> None:
        for _ in range(int(bounds.STALL_SECONDS) + 2):
            clock.now += 1
            seen[sock] = Traffic(0, 100, False)
            among.sweep()

    reader = Unreader(wait)
    client.serving("PATCH", reader, clock.now)
    wait()
    assert not sock.cut, "the server was not reading"
    reader.chunk(1000)
    assert sock.cut
    assert "sent fewer than 16384 bytes of its body" in lines[0]


def test_the_reader_is_watched_once(seen: dict[Any, Traffic | None]) -> None:
    client, _ = entered(Clients(10, print, Clock()))
    reader = Unreader()
    client.serving("GET", reader, 1.0)
    watched = reader.chunk
    client.serving("GET", reader, 2.0)
    assert reader.chunk is watched


def test_at_the_bound_the_one_longest_at_rest_makes_room(seen: dict[Any, Traffic | None]) -> None:
    clock, lines = Clock(), list[str]()
    among = Clients(3, lines.append, clock)
    first, first_sock = entered(among, "10.0.0.1")
    clock.now += 1
    _, second_sock = entered(among, "10.0.0.2")
    first.serving("GET", Unreader(), clock.now)
    clock.now += bounds.YIELD_SECONDS
    seen[first_sock] = Traffic(5, 0, True)
    among.sweep()
    assert not second_sock.cut, "there is room"
    entered(among, "10.0.0.3")
    assert (first_sock.cut, second_sock.cut) == ([], [socket.SHUT_RDWR])
    assert lines == ["connections that were closed: 1 made room for others at the bound of 3 (the last: 10.0.0.2)"]


def test_nobody_makes_room_who_has_just_come(seen: dict[Any, Traffic | None]) -> None:
    clock = Clock()
    among = Clients(2, print, clock)
    socks = [entered(among)[1] for _ in range(2)]
    among.sweep()
    assert [sock.cut for sock in socks] == [[], []]
    clock.now += bounds.YIELD_SECONDS
    among.sweep()
    assert sum(len(sock.cut) for sock in socks) == 1


def test_what_is_common_is_told_once_a_minute() -> None:
    clock, lines = Clock(), list[str]()
    among = Clients(10, lines.append, clock)
    for _ in range(1000):
        clock.now += 0.05
        among.note("did not finish the TLS handshake", "10.0.0.7")
    assert len(lines) == 1
    clock.now += 60
    among.sweep()
    assert lines[1:] == ["connections that were closed: 999 did not finish the TLS handshake (the last: 10.0.0.7)"]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as there,
    ):
        here, _ = listener.accept()
        with here:
            yield here, there


def test_the_kernel_tells_what_was_taken_and_what_is_owed(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    before = traffic(here)
    assert before is not None
    assert not before.owed
    here.setblocking(False)
    sent = 0
    while True:
        try:
            sent += here.send(bytes(1 << 20))
        except BlockingIOError:
            break
    full = traffic(here)
    assert full is not None
    assert full.owed
    there.sendall(b"12345")
    assert here.recv(10) == b"12345"
    got = 0
    while got < sent:
        got += len(there.recv(1 << 20))
    end = time.monotonic() + 10
    # The last of it may be acknowledged a moment later.
    while (after := traffic(here)) is not None and after.owed and time.monotonic() < end:
        select.select([], [], [], 0.01)
    assert after is not None
    assert not after.owed
    # The kernel counts the SYN as one.
    assert after.taken - before.taken >= sent - 1
    assert after.given - before.given == 5
    here.close()
    assert traffic(here) is None


def test_at_rest_is_who_was_served_and_said_nothing_since(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    client = Client(here, ("127.0.0.1", 1), 0.0)
    assert not client.is_idle(), "its first request may be on its way"
    client.serving("GET", Unreader(), 1.0)
    assert not client.is_idle()
    client.served(2.0)
    assert client.is_idle()
    there.sendall(b"G")
    assert here.recv(1, socket.MSG_PEEK) == b"G"
    assert not client.is_idle()
