"""When a client is given up: by what moved, never by how long it took over all."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import limits
from appliance.countedlog import CountedLog
from appliance.server import connections
from appliance.server.connections import Client, Clients, StallDetector, Traffic, traffic


def test_too_slow_is_fewer_than_the_least_in_a_window() -> None:
    for count, slow in ((0, True), (limits.LEAST_BYTES - 1, True), (limits.LEAST_BYTES, False)):
        pace = StallDetector()
        assert not pace.look(100.0, 7, True)
        assert not pace.look(100.0 + limits.STALL_SECONDS - 0.01, 7 + count, True)
        assert pace.look(100.0 + limits.STALL_SECONDS, 7 + count, True) is slow


def test_who_is_not_waited_for_is_never_too_slow() -> None:
    pace, now = StallDetector(), 0.0
    for _ in range(1000):
        now += 1
        assert not pace.look(now, 0, expected=int(now) % 59 != 0)


@given(st.lists(st.integers(limits.LEAST_BYTES // 10, 10**7), min_size=100, max_size=300))
def test_a_steady_client_is_never_too_slow(steps: list[int]) -> None:
    """A sixth of the window each, with some more than a sixth of the least."""
    pace, now, count = StallDetector(), 0.0, 0
    for step in steps:
        now += limits.STALL_SECONDS / 10
        count += step + 1
        assert not pace.look(now, count, True)


@given(st.lists(st.integers(0, limits.LEAST_BYTES // 70), min_size=130, max_size=130))
def test_a_byte_now_and_then_does_not_help(steps: list[int]) -> None:
    pace, count = StallDetector(), 0
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

    def fileno(self) -> int:
        return -1


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Traffic | None]:
    """What the kernel says, by socket."""
    said: dict[Any, Traffic | None] = {}
    monkeypatch.setattr(connections, "traffic", said.get)
    return said


def entered(among: Clients, address: str = "10.0.0.7") -> tuple[Client, FakeSocket]:
    sock = FakeSocket()
    client = among.enter(sock, (address, 1))
    assert client is not None
    return client, sock


def clients_of(most: int, lines: list[str], clock: Clock, listed: Collection[str] | None = None) -> Clients:
    """The connections of a worker whose log is a list, and whose minutes never end."""
    log = CountedLog(lines.append, lambda seconds, function: None)
    return Clients(most, log, None if listed is None else lambda: listed, clock)


class Unreader:
    """gunicorn's reader of a connection; runs something while it waits."""

    def __init__(self, meanwhile: Any = lambda: None) -> None:
        self._meanwhile = meanwhile

    def chunk(self, *_: object) -> bytes:
        self._meanwhile()
        return b"x"


def test_a_client_that_takes_nothing_is_cut_and_named(seen: dict[Any, Traffic | None]) -> None:
    clock, lines = Clock(), list[str]()
    among = clients_of(10, lines, clock)
    (good, good_sock), (bad, bad_sock), (server, server_sock) = (entered(among, f"10.0.0.{n}") for n in range(3))
    for client in (good, bad, server):
        client.serving("GET", Unreader(), clock.now)
    for second in range(int(limits.STALL_SECONDS) + 2):
        clock.now += 1
        seen[good_sock] = Traffic(second * 1000, 0, True)
        seen[bad_sock] = Traffic(1000, 0, True)
        # This one's answer is what is waited for.
        seen[server_sock] = Traffic(1000, 0, False)
        among.sweep()
    assert (good_sock.cut, bad_sock.cut, server_sock.cut) == ([], [socket.SHUT_RDWR] * len(bad_sock.cut), [])
    assert bad_sock.cut
    assert lines == ["connections closed that took fewer than 16384 bytes of its answer in 60 s: 1 from 10.0.0.1"]


def test_only_a_body_that_is_waited_for_can_be_late(seen: dict[Any, Traffic | None]) -> None:
    clock, lines = Clock(), list[str]()
    among = clients_of(10, lines, clock)
    client, sock = entered(among)

    def wait() -> None:
        for _ in range(int(limits.STALL_SECONDS) + 2):
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
    client, _ = entered(clients_of(10, [], Clock()))
    reader = Unreader()
    client.serving("GET", reader, 1.0)
    watched = reader.chunk
    client.serving("GET", reader, 2.0)
    assert reader.chunk is watched


def test_at_the_bound_the_one_longest_at_rest_makes_room(seen: dict[Any, Traffic | None]) -> None:
    clock, lines = Clock(), list[str]()
    among = clients_of(3, lines, clock)
    first, first_sock = entered(among, "10.0.0.1")
    clock.now += 1
    _, second_sock = entered(among, "10.0.0.2")
    first.serving("GET", Unreader(), clock.now)
    clock.now += limits.YIELD_SECONDS
    seen[first_sock] = Traffic(5, 0, True)
    among.sweep()
    assert not second_sock.cut, "there is room"
    entered(among, "10.0.0.3")
    assert (first_sock.cut, second_sock.cut) == ([], [socket.SHUT_RDWR])
    assert lines == ["connections closed to make room for others at the bound of 3: 1 from 10.0.0.2"]


def test_nobody_makes_room_who_has_just_come(seen: dict[Any, Traffic | None]) -> None:
    clock = Clock()
    among = clients_of(2, [], clock)
    socks = [entered(among)[1] for _ in range(2)]
    among.sweep()
    assert [sock.cut for sock in socks] == [[], []]
    clock.now += limits.YIELD_SECONDS
    among.sweep()
    assert sum(len(sock.cut) for sock in socks) == 1


def asks(client: Client, clock: Clock) -> None:
    """A request comes, and is answered at once."""
    client.serving("GET", Unreader(), clock.now)
    client.served(clock.now)


@pytest.mark.parametrize("listed", [None, ["10.0.0.1"]])
def test_at_the_bound_who_waits_longest_for_a_next_request_makes_room_at_once(
    monkeypatch: pytest.MonkeyPatch, listed: list[str] | None
) -> None:
    """Of many that ask every few seconds none is at rest for long, and they have all room."""
    clock, lines = Clock(), list[str]()
    monkeypatch.setattr(limits, "STRANGERS", 8)
    among = clients_of(8 if listed is None else 100, lines, clock, listed)
    kept = []
    for number in range(7 if listed is None else 8):
        client, sock = entered(among, f"10.9.9.{number}")
        clock.now += 0.1
        asks(client, clock)
        kept.append(sock)
    entered(among, "10.8.8.8")
    assert [bool(sock.cut) for sock in kept] == [True] + [False] * (len(kept) - 1)
    assert lines == ["connections at rest closed to make room for others at the bound of 8: 1 from 10.9.9.0"]


def test_room_is_made_as_soon_as_somebody_is_served() -> None:
    clock = Clock()
    among = clients_of(3, [], clock)
    made = [entered(among) for _ in range(3)]
    assert not any(sock.cut for _, sock in made), "each may have its first request on the way"
    made[1][0].serving("GET", Unreader(), clock.now)
    among.served(made[1][0])
    assert [bool(sock.cut) for _, sock in made] == [False, True, False]
    among.served(made[1][0])
    assert not made[0][1].cut, "there is room"


def test_whoever_gave_right_credentials_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(limits, "STRANGERS", 8)
    among = clients_of(100, [], clock, ["10.0.0.1"])
    operators = [entered(among, "10.7.7.7") for _ in range(4)]
    for client, _ in operators:
        asks(client, clock)
        client.trust()
    for number in range(50):
        clock.now += 0.1
        came = among.enter(FakeSocket(), (f"10.9.9.{number}", 1))
        assert came is not None
        asks(came, clock)
    assert not any(sock.cut for _, sock in operators)


def test_a_first_request_is_waited_for_as_long_as_a_slow_link_needs(seen: dict[Any, Traffic | None]) -> None:
    clock, lines = Clock(), list[str]()
    among = clients_of(10, lines, clock, set())
    (_, silent_sock), (shaking, shaking_sock), (asks, asks_sock) = (entered(among) for _ in range(3))
    shaking.shaking = True
    asks.serving("GET", Unreader(), clock.now)
    asks.served(clock.now)
    clock.now += limits.FIRST_HEAD_SECONDS - 0.1
    among.sweep()
    assert not silent_sock.cut
    clock.now += 0.1
    among.sweep()
    assert silent_sock.cut and not shaking_sock.cut and not asks_sock.cut
    assert not lines, "a spare connection of an honest client is no news"


# ----------------------------------------------------------------------------------------------------- addresses


def number_of(among: Clients, addresses: Iterable[str], *, proven: bool = False) -> int:
    """How many of these connections are taken."""
    taken = 0
    for address in addresses:
        client = among.enter(FakeSocket(), (address, 1))
        if client is not None:
            taken += 1
            if proven:
                client.meet(proven=True)
    return taken


def test_one_address_has_no_more_than_its_part_and_is_named_once() -> None:
    lines = list[str]()
    among = clients_of(limits.CONNECTIONS, lines, Clock(), {"10.0.0.1"})
    assert number_of(among, ["10.9.9.9"] * 3000) == limits.ADDRESS_UNASKED
    assert number_of(among, ["10.0.0.1"] * 3000, proven=True) == limits.NODE_CONNECTIONS
    assert len(lines) == 1
    assert "closed at once: 1 from 10.9.9.9" in lines[0]


def test_users_of_a_nodes_address_do_not_keep_the_node_out() -> None:
    """Without a certificate they have a stranger's part of it, and make room where the address has all it may have."""
    clock, lines = Clock(), list[str]()
    among = clients_of(limits.CONNECTIONS, lines, clock, {"10.0.0.1"})
    users = [entered(among, "10.0.0.1") for _ in range(300)]
    for client, _ in users[-limits.ADDRESS_CONNECTIONS :]:
        client.meet(proven=False)
        asks(client, clock)
    assert sum(not sock.cut for _, sock in users) == limits.ADDRESS_CONNECTIONS
    assert number_of(among, ["10.0.0.1"] * 256, proven=True) == 256
    assert len(among._here) == limits.NODE_CONNECTIONS
    assert all(sock.cut for _, sock in users), "those of the node stay"
    assert number_of(among, ["10.0.0.1"]) == 0
    assert len(lines) == 2 and "connections without a certificate closed to make room for their node's" in lines[0]


def test_without_certificates_a_nodes_address_is_believed() -> None:
    log = CountedLog(lambda line: None, lambda seconds, function: None)
    among = Clients(limits.CONNECTIONS, log, lambda: ["10.0.0.1"], believed=True)
    users = [entered(among, "10.0.0.1") for _ in range(limits.NODE_CONNECTIONS)]
    assert not any(sock.cut for _, sock in users)
    assert number_of(among, ["10.0.0.1"]) == 0


def test_of_a_nodes_address_handshakes_make_room_last() -> None:
    clock = Clock()
    among = clients_of(limits.CONNECTIONS, [], clock, {"10.0.0.1"})
    shaking = [entered(among, "10.0.0.1") for _ in range(10)]
    clock.now += 1
    others = [entered(among, "10.0.0.1") for _ in range(limits.ADDRESS_CONNECTIONS - 10)]
    for client, _ in others:
        client.meet(proven=False)
    assert number_of(among, ["10.0.0.1"] * len(others)) == len(others)
    assert all(sock.cut for _, sock in others) and not any(sock.cut for _, sock in shaking)


def test_those_that_were_served_count_in_full() -> None:
    clock = Clock()
    among = clients_of(limits.CONNECTIONS, [], clock, {"10.0.0.1"})
    taken = 0
    for _ in range(3000):
        client = among.enter(FakeSocket(), ("10.9.9.9", 1))
        if client is not None:
            taken += 1
            client.serving("GET", Unreader(), clock.now)
            client.served(clock.now)
    assert taken == limits.ADDRESS_CONNECTIONS


def test_a_place_is_free_again_when_its_connection_is_over() -> None:
    among = clients_of(limits.CONNECTIONS, [], Clock(), set())
    held = [entered(among)[0] for _ in range(limits.ADDRESS_UNASKED)]
    assert number_of(among, ["10.0.0.7"]) == 0
    among.leave(held[0])
    among.leave(held[0])
    assert number_of(among, ["10.0.0.7"] * 2) == 1


def test_strangers_from_many_addresses_leave_room_for_nodes() -> None:
    among = clients_of(limits.CONNECTIONS, [], Clock(), {"10.0.0.1"})
    number_of(among, (f"10.9.{n // 250}.{n % 250}" for n in range(3000)))
    strangers = sum(not client.is_node for client in among._here)
    assert strangers == limits.STRANGERS
    assert number_of(among, ["10.0.0.1"] * 10) == 10


def test_a_stranger_that_has_little_gets_in_where_another_has_much(seen: dict[Any, Traffic | None]) -> None:
    lines = list[str]()
    among = clients_of(limits.CONNECTIONS, lines, Clock(), set())
    number_of(among, (f"10.9.9.{n % 10}" for n in range(3000)))
    assert number_of(among, ["10.8.8.8"] * 5) == 5
    assert len(among._here) == limits.STRANGERS
    assert any("to make room for others" in line for line in lines)


def test_bad_nodes_do_not_keep_a_good_one_out(seen: dict[Any, Traffic | None]) -> None:
    nodes = {f"10.0.0.{n}" for n in range(9)}
    among = clients_of(limits.CONNECTIONS, [], Clock(), nodes)
    number_of(among, (f"10.0.0.{n % 8}" for n in range(6000)), proven=True)
    assert len(among._here) == limits.CONNECTIONS
    assert number_of(among, ["10.0.0.8"] * 20) == 20


def test_whoever_is_being_served_gives_nothing_up(seen: dict[Any, Traffic | None]) -> None:
    clock = Clock()
    among = clients_of(4, [], clock, {"10.0.0.1", "10.0.0.2"})
    for _ in range(4):
        entered(among, "10.0.0.1")[0].serving("GET", Unreader(), clock.now)
    assert number_of(among, ["10.0.0.2"]) == 0


def test_ipv6_is_counted_by_network_and_nodes_by_address() -> None:
    among = clients_of(limits.CONNECTIONS, [], Clock(), {"2001:db8::1", "10.0.0.1"})
    assert number_of(among, (f"2001:db8::{n:x}" for n in range(2, 3000))) == limits.ADDRESS_UNASKED
    assert number_of(among, ["2001:db8::1"] * 100) == 100
    assert number_of(among, ["::ffff:10.0.0.1"] * 100) == 100


def test_the_local_listener_knows_no_addresses(seen: dict[Any, Traffic | None]) -> None:
    among = clients_of(limits.CONNECTIONS, [], Clock())
    assert number_of(among, ["127.0.0.1"] * limits.CONNECTIONS) == limits.CONNECTIONS


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
    client = Client(here, "127.0.0.1", 0.0)
    assert not client.is_idle(), "its first request may be on its way"
    client.serving("GET", Unreader(), 1.0)
    assert not client.is_idle()
    client.served(2.0)
    assert client.is_idle()
    there.sendall(b"G")
    assert here.recv(1, socket.MSG_PEEK) == b"G"
    assert not client.is_idle()
