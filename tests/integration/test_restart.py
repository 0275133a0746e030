"""A restart of a unit as systemd does it, in the middle of downloads: nobody is refused, nobody is cut by a reset."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.integration.conftest import (
    Process,
    free_port,
    lowered,
    request,
    wait_for,
    workers_of,
)
from tests.integration.test_containerd import Containerd
from tests.integration.test_trouble import BIG, BLOB, LAYER, MANIFEST, RAW, SMALL, Unit, answer, patch

_HAND_OVER = """\
import os, sys
kept = int(sys.argv[1])
os.dup2(kept, 3)
if kept != 3:
    os.close(kept)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""

_SO_MAX_PACING_RATE = 47
"""socket(7), Linux: bytes a second; what a listener accepts has its rate."""


class Systemd:
    """Stand-in for systemd and one unit: keep its listening socket while it restarts (``FileDescriptorStoreMax=1``), or
    make one that it never gives up (a socket unit).
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._env = {**os.environ, "NOTIFY_SOCKET": str(path)}
        self.kept: int | None = None
        self._name = "listener"
        self.said: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 4)
            self.said += message.decode().splitlines()
            if message.startswith(b"close"):
                return
            if b"FDSTORE=1" in message:
                assert b"FDNAME=listener" in message and self._name == "listener"
                # systemd knows a socket that it has already.
                if self.kept is None:
                    self.kept = descriptors.pop()
            if b"FDSTOREREMOVE=1" in message and self._name == "listener":
                self.forget()
            for descriptor in descriptors:
                os.close(descriptor)

    def listen(self, port: int) -> None:
        """Start a socket unit."""
        if self.kept is None:
            self.kept, self._name = socket.create_server(("127.0.0.1", port)).detach(), "appliance-mirror.socket"

    def start(self, words: Sequence[str], log: Path) -> Process:
        self.said.clear()
        if self.kept is None:
            return Process(list(words), log, self._env)
        handed = [sys.executable, "-c", _HAND_OVER, str(self.kept), self._name, *words]
        return Process(handed, log, self._env, pass_fds=(self.kept,))

    def forget(self) -> None:
        if self.kept is not None:
            os.close(self.kept)
        self.kept = None

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as me:
            me.connect(self._env["NOTIFY_SOCKET"])
            me.send(b"close")
        wait_for("its end", lambda: "close" in self.said)
        self._socket.close()
        self.forget()


class Service(Unit):
    """The two listeners of a node, run by a systemd of their own each."""

    def __init__(self, root: Path, program: Sequence[str]) -> None:
        self.systemd = {name: Systemd(root / f"{name}.notify") for name in ("mirror", "peer")}
        self._program = program
        super().__init__(root, program)

    def start(self, name: str) -> Process:
        words = [*self._program, "unit", name, "--config", str(self.config)]
        if name == "mirror":
            self.systemd[name].listen(self.port)
            words.append("--socket-unit")
        return self.systemd[name].start(words, self.tls.root / f"{name}.log")

    def stop(self, name: str) -> float:
        """SIGTERM for every process of the unit, as systemd sends it; returns how many seconds it took."""
        begun = time.monotonic()
        popen = self.processes[name].popen
        os.killpg(popen.pid, signal.SIGTERM)
        assert popen.wait(30) == 0
        return time.monotonic() - begun

    def restart(self, name: str) -> float:
        """What ``systemctl restart`` does; returns how long the stop took."""
        spent = self.stop(name)
        self.processes[name] = self.start(name)
        return spent

    def kill(self) -> None:
        super().kill()
        for systemd in self.systemd.values():
            systemd.close()


@pytest.fixture
def service(root: Path) -> Iterator[Service]:
    """It ends with the test."""
    running = Service(root, lowered(None, DOWNLOAD_GRACE_SECONDS=1.5, PUSH_GRACE_SECONDS=8.0))
    wait_for("the listener to be kept", lambda: running.systemd["peer"].kept is not None)
    yield running
    running.kill()


class Prober:
    """A client that asks again and again, each time on a new connection."""

    def __init__(self, service: Service, name: str) -> None:
        self._service, self._name = service, name
        self._end = threading.Event()
        self.problems: list[Exception] = []
        self.waits: list[float] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(0.02):
            begun = time.monotonic()
            try:
                with self._service.connect(self._name) as client:
                    assert answer(client, MANIFEST) == (200, SMALL.raw)
            except Exception as problem:
                self.problems.append(problem)
            self.waits.append(time.monotonic() - begun)

    def stop(self) -> None:
        self._end.set()
        self._thread.join(40)


def begin(service: Service, name: str, start: int = 0) -> tuple[socket.socket, http.client.HTTPResponse]:
    """A download whose client reads nothing but the head for now."""
    client = service.connect(name, 4096)
    ranged = f"Range: bytes={start}-\r\n" if start else ""
    client.sendall(f"GET {BLOB} HTTP/1.1\r\nHost: localhost\r\n{ranged}\r\n".encode())
    response = http.client.HTTPResponse(client)
    response.begin()
    return client, response


def read_all(response: http.client.HTTPResponse) -> bytes:
    """Until the stream ends, whole or not; a reset is an error."""
    got = bytearray()
    while piece := response.read(1 << 20):
        got += piece
    return bytes(got)


@pytest.mark.parametrize("name", ["mirror", "peer"])
def test_a_slow_download_is_cut_by_fin_and_resumed_and_nobody_is_refused(service: Service, name: str) -> None:
    client, response = begin(service, name)
    prober = Prober(service, name)
    wait_for("some answers", lambda: len(prober.waits) > 5)
    spent = service.restart(name)
    assert 1.4 < spent < 4
    before = len(prober.waits)
    wait_for("answers of the next process", lambda: len(prober.waits) > before + 5)
    prober.stop()
    assert prober.problems == [], service.log()
    assert max(prober.waits) < 8
    with client, response:
        got = read_all(response)
    assert len(got) < len(RAW)
    assert got == RAW[: len(got)]
    client, response = begin(service, name, len(got))
    with client, response:
        assert response.status == 206
        assert got + read_all(response) == RAW
    assert "Traceback" not in service.log()


@pytest.mark.parametrize("name", ["mirror", "peer"])
def test_a_download_that_can_end_in_time_does(service: Service, name: str) -> None:
    client, response = begin(service, name)
    stopping = threading.Thread(target=service.stop, args=(name,))
    stopping.start()
    with client, response:
        assert read_all(response) == RAW
    stopping.join(20)


def test_a_push_has_more_time(service: Service) -> None:
    client, _ = patch(service)
    client.sendall(bytes(500_000))
    stopping = threading.Thread(target=service.stop, args=("peer",))
    begun = time.monotonic()
    stopping.start()
    left = [500_000]

    def send() -> bool:
        client.sendall(bytes(min(left[0], 5000)))
        left[0] -= min(left[0], 5000)
        return left[0] == 0

    wait_for("the body, for longer than downloads may take", send, 30)
    answered = http.client.HTTPResponse(client, method="PATCH")
    answered.begin()
    assert (answered.status, answered.headers["Range"]) == (202, "0-999999")
    answered.close()
    stopping.join(20)
    assert time.monotonic() - begun > 2


def test_idle_connections_hold_up_no_stop(service: Service) -> None:
    for name in ("mirror", "peer"):
        idle = [service.connect(name) for _ in range(20)]
        for client in idle:
            assert answer(client, MANIFEST)[0] == 200
        assert service.stop(name) < 1.5
        assert [client.recv(10) for client in idle] == [b""] * 20


def test_a_worker_that_is_killed_is_replaced_and_nobody_is_refused(service: Service) -> None:
    prober = Prober(service, "mirror")
    wait_for("some answers", lambda: len(prober.waits) > 5)
    service.processes["mirror"].kill()
    service.processes["mirror"] = service.start("mirror")
    before = len(prober.waits)
    wait_for("answers of the next process", lambda: len(prober.waits) > before + 5)
    prober.stop()
    # Only who was being answered in that moment sees it.
    assert len(prober.problems) <= 1
    assert not any(isinstance(problem, ConnectionRefusedError) for problem in prober.problems)


def closed_at_once(service: Service) -> bool:
    """Return whether the mirror closes a connection that asks for something at once."""
    with service.connect("mirror") as client:
        client.settimeout(0.5)
        try:
            client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return client.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


def test_a_mirror_that_cannot_start_closes_each_connection_at_once(service: Service) -> None:
    """The socket stays open: systemd holds it, so that nobody else gets the port."""
    service.stop("mirror")
    good = service.config.read_text()
    service.config.write_text(good + "\nunknown: key\n")
    service.processes["mirror"] = service.start("mirror")
    wait_for("a closed connection", lambda: closed_at_once(service))
    assert "unknown" in service.processes["mirror"].log, "the error comes first"
    assert all(closed_at_once(service) for _ in range(20))
    service.config.write_text(good)
    popen = service.processes["mirror"].popen
    popen.terminate()
    assert popen.wait(5) == -signal.SIGTERM
    service.processes["mirror"] = service.start("mirror")
    wait_for("an answer", lambda: request(service.port, "/healthz")[0] == 200)


def test_a_mirror_whose_workers_do_not_start_closes_each_connection_at_once(service: Service) -> None:
    service.stop("mirror")
    (service.store / "form").write_text("9 9\n")
    service.processes["mirror"] = service.start("mirror")
    wait_for("a closed connection", lambda: closed_at_once(service))
    assert all(closed_at_once(service) for _ in range(20))
    service.processes["mirror"].popen.terminate()
    assert service.processes["mirror"].popen.wait(5) == -signal.SIGTERM


def test_the_mirror_takes_no_socket_but_the_socket_units(service: Service) -> None:
    service.stop("mirror")
    service.config.write_text(service.config.read_text().replace(f":{service.port}", f":{free_port()}"))
    service.processes["mirror"] = service.start("mirror")
    assert service.processes["mirror"].popen.wait(20) == 1
    assert "APL-0405: systemd gave the mirror no listening socket" in service.processes["mirror"].log


def test_a_peer_listener_that_cannot_start_is_down_and_does_not_let_its_clients_wait(service: Service) -> None:
    service.stop("peer")
    good = service.config.read_text()
    service.config.write_text(good + "\nunknown: key\n")
    failed = service.start("peer")
    assert failed.popen.wait(20) == 1
    wait_for("the listener to be let go", lambda: service.systemd["peer"].kept is None)
    with pytest.raises(ConnectionRefusedError):
        service.connect("peer")
    service.config.write_text(good)
    service.processes["peer"] = service.start("peer")
    wait_for("an answer", lambda: service.tls.ask("/healthz", None)[0] == 200)


def test_a_kept_listener_of_another_address_is_not_taken(service: Service) -> None:
    service.stop("peer")
    old, new = service.tls.port, free_port()
    service.config.write_text(service.config.read_text().replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}"))
    service.processes["peer"] = service.start("peer")
    service.tls.port = new
    wait_for("an answer", lambda: service.tls.ask("/healthz", None)[0] == 200)
    service.tls.port = old
    with pytest.raises(ConnectionRefusedError):
        service.connect("peer")


def test_a_real_pull_goes_on_across_restarts(service: Service) -> None:
    """Straight to the listener, which the kernel slows down, with nothing in between that would hide a refusal."""
    kept = service.systemd["mirror"].kept
    assert kept is not None
    with socket.socket(fileno=os.dup(kept)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, 6 << 20)
    containerd = Containerd(service.tls.root)
    content = service.tls.root / "root/io.containerd.content.v1.content"

    def got() -> int:
        return sum(path.stat().st_size for path in content.glob("ingest/*/data"))

    try:
        containerd.trust(service.port, registries=["docker.io"])
        said: list[str] = []
        pull = threading.Thread(
            target=lambda: said.append(containerd.pull("docker.io/library/big:1", check=False)), daemon=True
        )
        pull.start()
        for number in (1, 2):
            wait_for("a part of the layer", lambda number=number: got() > number * (5 << 20), 30)  # type: ignore[misc]  # bound at once
            assert pull.is_alive()
            service.restart("mirror")
            wait_for("the next process", lambda: "READY=1" in service.systemd["mirror"].said)
        pull.join(60)
        assert BIG.digest in containerd.ctr("images", "list"), said
        assert containerd.blob(LAYER) == RAW
    finally:
        containerd.process.stop()


def test_a_worker_ends_with_its_parent(service: Service) -> None:
    (worker,) = workers_of(service.processes["mirror"].popen.pid)
    os.kill(service.processes["mirror"].popen.pid, signal.SIGKILL)
    wait_for("its end", lambda: not Path(f"/proc/{worker}").exists())
