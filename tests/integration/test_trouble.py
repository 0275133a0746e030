"""Clients that hang, dribble, stop or leave, on both listeners: none holds a worker, and the others notice nothing."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import pytest
import yaml

from tests.integration.conftest import (
    APPLIANCE,
    Process,
    Relay,
    Site,
    appliance,
    descriptors,
    lowered,
    request,
    run,
    wait_for,
    workers_of,
)
from tests.integration.test_units import Tls
from tests.unit.store import made

SMALL, BIG = made.image(1, size=5000), made.image(3, size=24 << 20)
NAMES = {"docker.io/library/small:1": SMALL, "docker.io/library/big:1": BIG}
MANIFEST = "/v2/library/small/manifests/1"
LAYER = BIG.layers[0]
BLOB = f"/v2/library/big/blobs/{LAYER}"
RAW = BIG.blobs[LAYER]
PASSWORD = "correct horse battery"
BASIC = "Basic " + base64.b64encode(f"ops:{PASSWORD}".encode()).decode()


class Unit:
    """Both listeners of node a, over one store that holds everything, with one worker each."""

    def __init__(self, root: Path, program: Sequence[str]) -> None:
        self.tls = Tls(root)
        self._open: list[socket.socket] = []
        self.users = root / "users"
        self.users.write_text(run(*APPLIANCE, "hash-password", "ops", "--password-stdin", input=PASSWORD).stdout)
        self.config = self.tls.config("a")
        document = yaml.safe_load(self.config.read_text()) | {"workers": 1, "push_users": str(self.users)}
        self.config.write_text(yaml.safe_dump(document))
        self.store = Path(document["store"])
        self.port = int(document["mirror_listen"].rpartition(":")[2])
        appliance("seed", "--store", self.store, "--config", self.config, made.write_oci_archive(root / "m.tar", NAMES))
        self._program = program
        self.processes = {name: self.start(name) for name in ("mirror", "peer")}
        self.client = self.tls.context(self.tls.pki("b"))
        wait_for("the local listener", lambda: request(self.port, "/healthz")[0] == 200)
        wait_for("the peer listener", lambda: self.tls.ask("/healthz", None)[0] == 200)

    def start(self, name: str) -> Process:
        """Start one of the two."""
        words = [*self._program, "unit", name, "--config", str(self.config)]
        return Process(words, self.tls.root / f"{name}.log")

    def worker(self, name: str) -> int:
        (found,) = workers_of(self.processes[name].popen.pid)
        return found

    def rest(self, name: str) -> int:
        """How many descriptors its worker has while nobody is connected."""
        port = self.port if name == "mirror" else self.tls.port
        wait_for("nobody to be connected", lambda: not connections(port))
        return descriptors(self.worker(name))

    def bare(self, name: str, buffer: int = 0) -> socket.socket:
        """A TCP connection to a listener.

        :param buffer: bytes that the client takes without reading, about; 0: as many as it likes.
        """
        client = socket.socket()
        self._open.append(client)
        client.settimeout(20)
        if buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.connect(("127.0.0.1", self.port if name == "mirror" else self.tls.port))
        return client

    def connect(self, name: str, buffer: int = 0) -> socket.socket:
        """A connection that requests can be sent on; as node b to the peer listener."""
        client = self.bare(name, buffer)
        if name == "peer":
            client = self.client.wrap_socket(client, server_hostname="a")
            self._open.append(client)
        return client

    def log(self) -> str:
        return "".join(process.log for process in self.processes.values())

    def kill(self) -> None:
        for process in self.processes.values():
            process.kill()
        for client in self._open:
            client.close()


def connections(port: int) -> int:
    """Connections to a port of loopback whose server side is open."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    # proc(5): local address, and the state; 01 is ESTABLISHED, 08 CLOSE_WAIT.
    return sum(1 for line in lines if line.split()[1] == f"0100007F:{port:04X}" and line.split()[3] in ("01", "08"))


@pytest.fixture
def start(root: Path) -> Iterator[Callable[..., Unit]]:
    """Starts the listeners with other bounds, and ends them after the test."""
    running: list[Unit] = []

    def begin(**bounds: float) -> Unit:
        running.append(Unit(root, lowered(None, **bounds)))
        return running[-1]

    yield begin
    for unit in running:
        unit.kill()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def answer(sock: socket.socket, path: str) -> tuple[int, bytes]:
    sock.sendall(get(path))
    response = http.client.HTTPResponse(sock, method="GET")
    response.begin()
    return response.status, response.read()


def hello() -> bytes:
    """A ClientHello, as a TLS client sends it first."""
    out = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="a").do_handshake()
    return out.read()


def ended(sock: socket.socket) -> bool:
    """Whether the other side has closed; what it sent before is thrown away."""
    while select.select([sock], [], [], 0)[0]:
        try:
            if not sock.recv(1 << 20):
                return True
        except ssl.SSLWantReadError:
            return False
        except OSError:
            return True
    return False


def all_ended(socks: Sequence[socket.socket], seconds: float = 15) -> None:
    left = list(socks)

    def look() -> bool:
        left[:] = [sock for sock in left if not ended(sock)]
        return not left

    wait_for("the server to end them", look, seconds)


def test_half_open_handshakes_are_ended_and_hold_up_nobody(start: Callable[..., Unit]) -> None:
    unit = start(FIRST_HEAD_SECONDS=4.0, NODE_CONNECTIONS=1000, ADDRESS_CONNECTIONS=1000)
    before = unit.rest("peer")
    words = hello()
    hanging = [unit.bare("peer") for _ in range(300)]
    for number, sock in enumerate(hanging):
        # Nothing at all; half of the first message; all of it, and then silence in the middle of the handshake.
        sock.sendall((b"", words[: len(words) // 2], words)[number % 3])
    wait_for("all to be there", lambda: descriptors(unit.worker("peer")) >= before + 300)
    begun = time.monotonic()
    with unit.connect("peer") as client:
        assert answer(client, MANIFEST) == (200, SMALL.raw)
    assert time.monotonic() - begun < 3
    all_ended(hanging)
    wait_for("its descriptors back", lambda: descriptors(unit.worker("peer")) <= before)
    assert "Traceback" not in unit.log()
    assert unit.log().count("handshake") <= 1


def test_clients_that_leave_in_the_handshake_cost_one_line(start: Callable[..., Unit]) -> None:
    unit = start()
    before = unit.rest("peer")
    words = hello()
    for number in range(60):
        with unit.bare("peer") as sock:
            if number % 2:
                # A reset instead of an end.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.sendall((words[:40], words, b"GET / HTTP/1.1\r\n\r\n")[number % 3])
    assert unit.tls.ask(MANIFEST, unit.tls.pki("b")) == (200, SMALL.raw)
    wait_for("its descriptors back", lambda: descriptors(unit.worker("peer")) <= before)
    assert "Traceback" not in unit.log()
    assert unit.log().count("\n") <= 2, unit.log()


@pytest.mark.parametrize("name", ["mirror", "peer"])
def test_headers_that_come_byte_by_byte_have_an_end(start: Callable[..., Unit], name: str) -> None:
    unit = start(HEAD_SECONDS=2.0)
    slow = [unit.connect(name) for _ in range(10)]
    for sock in slow:
        sock.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    begun = time.monotonic()
    with unit.connect(name) as client:
        # And the second request of a connection, as the first.
        assert answer(client, MANIFEST) == (200, SMALL.raw)
        client.sendall(b"GET /v2/ HT")
        slow.append(client)

        def dribble() -> bool:
            for sock in list(slow):
                with contextlib.suppress(OSError):
                    sock.sendall(b"x")
                if ended(sock):
                    slow.remove(sock)
            return not slow

        wait_for("the server to end them", dribble, 60)
    assert time.monotonic() - begun > 1
    assert "Traceback" not in unit.log()


@pytest.mark.parametrize("name", ["mirror", "peer"])
def test_a_client_that_stops_reading_is_ended(start: Callable[..., Unit], name: str) -> None:
    unit = start(STALL_SECONDS=4.0, SWEEP_SECONDS=0.2)
    worker = unit.worker(name)
    before = unit.rest(name)
    idle = [unit.connect(name, 4096) for _ in range(20)]
    for number, sock in enumerate(idle):
        # One big body, or small ones without an end, which the server writes by itself.
        sock.sendall(get(BLOB) if number % 2 else get(MANIFEST) * 300)
    wait_for("them to be served", lambda: descriptors(worker) >= before + 20)
    begun = time.monotonic()
    with unit.connect(name) as client:
        assert answer(client, MANIFEST) == (200, SMALL.raw)
    assert time.monotonic() - begun < 3
    for sock in idle[::2]:
        threading.Thread(target=_flood, args=(sock,), daemon=True).start()
    wait_for("the server to end them", lambda: descriptors(worker) <= before, 60)
    assert "took fewer than 16384 bytes of its answer" in unit.log()
    assert "Traceback" not in unit.log()


def _flood(sock: socket.socket) -> None:
    """Ask without end, and never read."""
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(get(MANIFEST) * 100)


@pytest.mark.parametrize("name", ["mirror", "peer"])
def test_a_client_that_reads_slowly_gets_all_of_it(start: Callable[..., Unit], name: str) -> None:
    """Far longer than the window, at some hundred KiB a second, with small steps."""
    unit = start(STALL_SECONDS=1.0, SWEEP_SECONDS=0.1)
    with unit.connect(name, 4096) as client:
        client.sendall(get(BLOB))
        got = bytearray()
        end = time.monotonic() + 5

        def read() -> bool:
            got.extend(client.recv(16 << 10))
            return time.monotonic() > end

        wait_for("five windows", read, 60)
        assert len(got) < len(RAW) // 2
        whole = got.index(b"\r\n\r\n") + 4 + len(RAW)
        while len(got) < whole:
            got += client.recv(1 << 20) or pytest.fail("the server ended it")
    assert bytes(got).partition(b"\r\n\r\n")[2] == RAW


def patch(unit: Unit, name: str = "peer") -> tuple[socket.socket, str]:
    """A connection on which an upload has begun, and where its bytes go."""
    sock = unit.connect(name)
    sock.sendall(f"POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nAuthorization: {BASIC}\r\n\r\n".encode())  # fmt: skip
    response = http.client.HTTPResponse(sock, method="POST")
    response.begin()
    assert response.status == 202, response.read()
    where = str(response.headers["Location"])
    response.read()
    head = f"PATCH {where} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\nAuthorization: {BASIC}\r\n\r\n"
    sock.sendall(head.encode())
    return sock, where


def test_a_body_that_comes_byte_by_byte_has_an_end(start: Callable[..., Unit]) -> None:
    unit = start(STALL_SECONDS=2.0, SWEEP_SECONDS=0.2)
    slow = [patch(unit) for _ in range(5)]

    def dribble() -> bool:
        for item in list(slow):
            with contextlib.suppress(OSError):
                item[0].sendall(b"x")
            if ended(item[0]):
                slow.remove(item)
        return not slow

    wait_for("the server to end them", dribble, 60)
    assert "broke off: less than 16384 bytes came in 2 s" in unit.log()
    assert "Traceback" not in unit.log()


def test_a_body_that_comes_slowly_and_steadily_arrives(start: Callable[..., Unit]) -> None:
    unit = start(STALL_SECONDS=1.0, SWEEP_SECONDS=0.1)
    sock, _ = patch(unit)
    left = 1_000_000

    def send() -> bool:
        nonlocal left
        sock.sendall(bytes(min(left, 8000)))
        left -= min(left, 8000)
        return left == 0

    with sock:
        wait_for("all of it, in some windows", send, 60)
        response = http.client.HTTPResponse(sock, method="PATCH")
        response.begin()
        assert response.status == 202
        assert response.headers["Range"] == "0-999999"
        response.close()


@pytest.mark.parametrize("name", ["mirror", "peer"])
def test_at_the_bound_who_waits_longest_makes_room(start: Callable[..., Unit], name: str) -> None:
    unit = start(CONNECTIONS=20, YIELD_SECONDS=1.0, SWEEP_SECONDS=0.1, HEAD_SECONDS=300, STALL_SECONDS=300)
    for number in range(60):
        sock = unit.bare(name, 4096)
        if name == "mirror" and number % 2:
            sock.sendall(get(BLOB))

    def served() -> bool:
        # The peers' listener closes at once what is too much for an address, and the local one lets it wait.
        with unit.connect(name) as client:
            return answer(client, MANIFEST) == (200, SMALL.raw)

    for _ in range(3):
        wait_for("an answer", served, 10)
    assert descriptors(unit.worker(name)) < 60


# ------------------------------------------------------------------------------------------------------- leaving


def leave(sock: socket.socket, path: str, chance: Random) -> None:
    """Begin a download and go, at some byte of it, with an end or a reset."""
    with sock:
        sock.sendall(get(path))
        wanted = chance.choice([0, 0, 1, 100, 70_000, 500_000, 3_000_000])
        while wanted > 0:
            data = sock.recv(min(wanted, 1 << 16))
            if not data:
                break
            wanted -= len(data)
        if chance.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def greenlets(report: Path, pid: int) -> int:
    """How many the worker counted at its last beat after now."""
    file = report.with_suffix(f".{pid}")
    before = file.stat().st_mtime_ns if file.exists() else 0
    wait_for("a beat", lambda: file.exists() and file.stat().st_mtime_ns > before)
    return int(file.read_text())


@pytest.mark.parametrize("name", ["mirror", "peer"])
def test_hundreds_that_leave_in_mid_pull_leave_nothing_behind(root: Path, name: str) -> None:
    unit = Unit(root, lowered(root / "count"))
    try:
        worker, chance = unit.worker(name), Random(name)
        with unit.connect(name) as client:
            assert answer(client, BLOB)[1] == RAW
        before = unit.rest(name), greenlets(root / "count", worker)
        for _ in range(300):
            leave(unit.connect(name), BLOB, chance)
        wait_for("its descriptors back", lambda: descriptors(worker) <= before[0])
        wait_for("its greenlets back", lambda: greenlets(root / "count", worker) <= before[1])
        assert "Traceback" not in unit.log()
        with unit.connect(name) as client:
            assert answer(client, BLOB)[1] == RAW
    finally:
        unit.kill()


def test_hundreds_that_leave_while_the_blob_is_fetched_leave_nothing_behind(site: Site) -> None:
    a = site.add("a", [], publisher=True)
    a.ready()
    a.seed(made.write_oci_archive(site.root / "medium.tar", NAMES))
    relay = Relay(a.port, rate=6 << 20)
    node = site.add("f", [relay.port], program=lowered(site.root / "count"))
    node.ready()
    wait_for("the generation", lambda: node.generation() == 1)
    parts = workers_of(node.process.popen.pid)
    wait_for("a beat", lambda: list(site.root.glob("count.*")))
    (worker,) = {int(path.suffix[1:]) for path in site.root.glob("count.*[0-9]")}
    (agent,) = parts - {worker}
    before = descriptors(worker), descriptors(agent), greenlets(site.root / "count", worker)
    chance = Random(1)
    clients = [
        threading.Thread(
            target=leave,
            args=(socket.create_connection(("127.0.0.1", node.port), 30), BLOB, Random(chance.random())),
            daemon=True,
        )
        for _ in range(200)
    ]
    for client in clients:
        client.start()
    assert request(node.port, BLOB)[2] == RAW
    for client in clients:
        client.join(30)
    wait_for("the worker's descriptors back", lambda: descriptors(worker) <= before[0])
    wait_for("the agent's descriptors back", lambda: descriptors(agent) <= before[1] + 1)  # one connection to the peer
    wait_for("its greenlets back", lambda: greenlets(site.root / "count", worker) <= before[2])
    assert "Traceback" not in node.process.log
    relay.close()


# -------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /v2/" + b"a" * 5000 + b"/tags/list HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 5000 + b"\r\n\r\n", 431),
        (b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 70 + b"\r\n", 431),
        (b"PUT /v2/a/manifests/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", 400),
        (
            b"PUT /v2/a/manifests/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
    ],
)
@pytest.mark.parametrize("name", ["mirror", "peer"])
def test_heads_have_limits(shared: Unit, name: str, head: bytes, status: int) -> None:
    with shared.connect(name) as sock:
        sock.sendall(head)
        response = http.client.HTTPResponse(sock)
        response.begin()
        assert response.status == status
        response.close()
        assert ended(sock) or wait_for("an end", lambda: ended(sock))


def test_a_head_without_an_end_is_not_kept(shared: Unit) -> None:
    """Many headers that never end: refused at the limit, not when memory is gone."""
    with shared.bare("mirror") as sock:
        sent = 0
        with contextlib.suppress(OSError):
            sock.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n")
            while sent < 64 << 20:
                sock.sendall(b"X-Y: " + b"z" * 4000 + b"\r\n")
                sent += 4007
                if select.select([sock], [], [], 0)[0]:
                    break
        # What the kernel takes on the way is not the worker's.
        assert sent < 16 << 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unit]:
    """Listeners with the bounds that are shipped."""
    unit = Unit(Path(os.path.relpath(tmp_path_factory.mktemp("shared"))), APPLIANCE)
    yield unit
    unit.kill()


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
@pytest.mark.parametrize("name", ["mirror", "peer"])
def test_a_body_that_nobody_wants_is_not_kept(shared: Unit, name: str, method: str) -> None:
    """Routes that take no body: what comes is dropped or refused, and the worker does not grow by it."""
    worker = shared.worker(name)
    before = memory(worker)
    with shared.connect(name) as sock:
        sock.sendall(f"{method} /p2p/v1/wake HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 34}\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            for _ in range(64):
                sock.sendall(bytes(1 << 20))
        assert memory(worker) - before < 20 << 20


def memory(pid: int) -> int:
    """Bytes of a process that are its own and in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
