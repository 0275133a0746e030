"""Strangers on the peers' listener: guessers, floods of connections and nonsense cost themselves, and few lines of a log."""

from __future__ import annotations

import base64
import contextlib
import http.client
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import limits
from appliance.agent.client import AgentClient
from tests.integration.conftest import APPLIANCE, appliance, wait_for
from tests.integration.test_trouble import BASIC, Unit, answer

#: Other hosts than the listed nodes, which are 127.0.0.1 here.
STRANGERS = [f"127.0.9.{number}" for number in range(1, 31)]
OPERATOR = "127.0.8.1"


@pytest.fixture
def unit(root: Path) -> Iterator[Unit]:
    """The listeners of node a, with the bounds that are shipped."""
    made = Unit(root, APPLIANCE)
    yield made
    made.kill()


class Stranger:
    """A TLS connection without a certificate, from an address of its own."""

    def __init__(self, unit: Unit, address: str) -> None:
        plain = socket.create_connection(("127.0.0.1", unit.tls.port), 60, source_address=(address, 0))
        self._sock = unit.tls.context(None).wrap_socket(plain, server_hostname="a")

    def ask(self, authorization: str) -> int:
        """The status of the answer to a request with these credentials."""
        head = f"GET /v2/ HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n"
        self._sock.sendall(head.encode())
        response = http.client.HTTPResponse(self._sock)
        response.begin()
        response.read()
        return response.status

    def close(self) -> None:
        self._sock.close()


def guess(unit: Unit, number: int, until: threading.Event, statuses: list[int]) -> None:
    """Try one password after the other, as fast as an answer comes and no more than five a second."""
    with contextlib.closing(Stranger(unit, STRANGERS[number % 10])) as stranger:
        tried = 0
        while not until.wait(0.2):
            tried += 1
            wrong = base64.b64encode(f"ops:{number} {tried} wrong".encode()).decode()
            statuses.append(stranger.ask(f"Basic {wrong}"))


def test_an_operator_is_let_in_while_100_guess(unit: Unit) -> None:
    until, statuses = threading.Event(), list[int]()
    guessers = [threading.Thread(target=guess, args=(unit, n, until, statuses), daemon=True) for n in range(100)]
    for guesser in guessers:
        guesser.start()
    try:
        # Each address was wrong once by then; without that nothing tells a guesser from an operator.
        wait_for("each to have tried", lambda: len(statuses) >= 20, 60)
        with contextlib.closing(Stranger(unit, OPERATOR)) as operator:
            begun = time.monotonic()
            assert operator.ask(BASIC) == 200
            took = time.monotonic() - begun
    finally:
        until.set()
        for guesser in guessers:
            guesser.join(60)
    assert took < 2, f"{took:.1f} s while {len(statuses)} passwords were tried"
    assert set(statuses) == {401, 429}
    lines = [line for line in unit.log().splitlines() if "wrong passwords" in line]
    assert len(lines) == 1 and "from 127.0.9." in lines[0] and '("ops")' in lines[0], lines


def test_status_says_what_strangers_did(unit: Unit) -> None:
    """The web workers count it, each for itself, and the agent has the sum."""
    unit.processes["agent"] = unit.start("agent")
    file = unit.tls.root / "a.sock"
    agent = AgentClient(file)
    wait_for("the agent", file.exists)
    with contextlib.closing(Stranger(unit, STRANGERS[0])) as stranger:
        assert stranger.ask("Basic " + base64.b64encode(b"ops:wrong").decode()) == 401
    for name in ("mirror", "peer"):
        with unit.connect(name) as client:
            client.sendall(b"nonsense\r\n\r\n")
            client.recv(4096)

    def said() -> set[tuple[str, str]]:
        return {(item["service"], item["what"]) for item in agent.status()["clients"]}

    wait_for(
        "status to have all of it",
        lambda: (
            said()
            >= {
                ("peer", "wrong passwords of operators"),
                ("peer", "malformed requests"),
                ("mirror", "malformed requests"),
            }
        ),
    )
    shown = appliance("status", "--config", unit.config).stdout
    assert "clients of peer: wrong passwords of operators: 1 times since " in shown
    assert '1 from 127.0.9.1 ("ops")' in shown


class Idle:
    """So many connections that say nothing, opened again as they fall."""

    def __init__(self, port: int, count: int) -> None:
        self._port, self._count = port, count
        self._end = threading.Event()
        self.fallen = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _open(self, selector: selectors.BaseSelector, address: str) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((address, 0))
        with contextlib.suppress(BlockingIOError):
            sock.connect(("127.0.0.1", self._port))
        selector.register(sock, selectors.EVENT_READ, address)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for number in range(self._count):
                self._open(selector, STRANGERS[number % len(STRANGERS)])
            while not self._end.is_set():
                for key, _ in selector.select(0.1):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    selector.unregister(sock)
                    sock.close()
                    self.fallen += 1
                    self._open(selector, key.data)
                # Some thousand a second; without it the test's own process would take a core from the service.
                self._end.wait(0.05)
            for key in list(selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()

    def close(self) -> None:
        self._end.set()
        self._thread.join(30)


def test_nodes_are_answered_while_idle_connections_are_opened_again_and_again(unit: Unit) -> None:
    idle = Idle(unit.tls.port, 1500)
    took = list[float]()
    try:
        threading.Event().wait(2)
        for _ in range(7):
            begun = time.monotonic()
            assert unit.tls.ask("/p2p/v1/ping", unit.tls.pki("b"))[0] == 200
            took.append(time.monotonic() - begun)
    finally:
        idle.close()
    assert max(took) < 2, took
    assert idle.fallen > 1000
    lines = unit.log().splitlines()
    assert len(lines) < 6 and any("connections closed at once: 1 from 127.0.9." in line for line in lines), lines
    assert "Traceback" not in unit.log()


NONSENSE = (b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n")


@pytest.mark.parametrize("name", ["mirror", "peer"])
def test_malformed_requests_are_answered_and_counted(unit: Unit, name: str) -> None:
    for number in range(60):
        with unit.connect(name) as client:
            client.sendall(NONSENSE[number % len(NONSENSE)])
            answered = b""
            with contextlib.suppress(OSError, ssl.SSLError):
                while data := client.recv(4096):
                    answered += data
        assert answered.startswith(b"HTTP/1.1 400 "), answered
    assert sum("malformed requests" in line for line in unit.log().splitlines()) == 1
    assert "Traceback" not in unit.log()


@pytest.mark.parametrize("name", ["mirror", "peer"])
def test_a_body_that_nobody_reads_ends_its_connection_after_the_answer(unit: Unit, name: str) -> None:
    """And the same worker serves the others."""
    worker = unit.worker(name)
    with unit.connect(name) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (1 << 50))
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 1 << 30:
                sent += client.send(bytes(1 << 20))
        assert sent < 1 << 30
    with unit.connect(name) as client:
        assert answer(client, "/healthz")[0] == 200
    assert unit.worker(name) == worker
    assert "connections closed after a request with a body that nobody reads: 1 from 127.0.0.1" in unit.log()


def test_a_hello_in_records_of_one_byte_holds_up_nobody(unit: Unit) -> None:
    hello = b"\1\1\xff\xff\3\3" + bytes(1 << 17)
    records = b"".join(b"\x16\3\1\0\1" + bytes([byte]) for byte in hello)
    until, sent = threading.Event(), list[int]()

    def send() -> None:
        while not until.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection(
                    ("127.0.0.1", unit.tls.port), 10, source_address=(STRANGERS[0], 0)
                ) as stranger,
            ):
                stranger.sendall(records)
                sent.append(1)
                stranger.recv(100)

    worker, took = unit.worker("peer"), list[float]()
    senders = [threading.Thread(target=send, daemon=True) for _ in range(20)]
    for sender in senders:
        sender.start()
    try:
        wait_for("some hellos", lambda: len(sent) >= 20)
        for _ in range(5):
            begun = time.monotonic()
            assert unit.tls.ask("/p2p/v1/ping", unit.tls.pki("b"))[0] == 200
            took.append(time.monotonic() - begun)
    finally:
        until.set()
        for sender in senders:
            sender.join(30)
    assert max(took) < 3, took
    assert unit.worker("peer") == worker
    assert "connections closed that sent TLS records without data: 1 from 127.0.9.1" in unit.log()


def test_users_of_a_nodes_address_do_not_keep_the_node_out(unit: Unit) -> None:
    """They come from its address, as pods of it do, and show no certificate."""
    kept = []
    try:
        for _ in range(limits.NODE_CONNECTIONS + 10):
            kept.append(Stranger(unit, "127.0.0.1"))
        assert unit.tls.ask("/p2p/v1/ping", unit.tls.pki("b"))[0] == 200
    finally:
        for stranger in kept:
            stranger.close()
    assert "connections without a certificate closed to make room for their node's: 1 from 127.0.0.1" in unit.log()
