"""Real processes on loopback ports, and waits that end at an effect and not after a time."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.unit.store import made

T = TypeVar("T")
APPLIANCE = [sys.executable, "-m", "appliance"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below this directory is an integration test."""
    for item in items:
        if "integration" in Path(str(item.fspath)).parts:
            item.add_marker(pytest.mark.integration)


def wait_for(what: str, effect: Callable[[], T], seconds: float = 20.0) -> T:
    """Poll until ``effect`` gives something true; connection errors count as not yet."""
    end = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < end:
        try:
            found = effect()
        except (OSError, http.client.HTTPException) as error:
            last = error
        else:
            if found:
                return found
            last = found
        threading.Event().wait(0.03)
    raise AssertionError(f"{what} did not happen in {seconds} s; last: {last!r}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*words: object, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a program; its output is in the failure."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, timeout=100, **more
    )
    assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def appliance(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run(*APPLIANCE, *words, check=check)


def request(
    port: int, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """One request on loopback: status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def lowered(report: Path | None = None, **bounds: float) -> list[str]:
    """The words that run ``appliance`` with other bounds on its clients than it ships with.

    :param report: file in which each worker says at each beat how many greenlets it has.
    """
    code = f"import sys, tests.integration.lowered as it; it.run({bounds!r}, {str(report) if report else None!r})"
    return [sys.executable, "-c", code]


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def workers_of(pid: int) -> set[int]:
    """The processes that a process has started."""
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


class Process:
    """A program in a group of its own, so that kill -9 takes all of it, as a power loss would."""

    def __init__(
        self, words: list[str], log: Path, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> None:
        self._log = log
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                words,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=env,
                pass_fds=pass_fds,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL for the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(20)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what is left."""
        self.popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(5)
        self.kill()


class Node:
    """An ``appliance serve``."""

    def __init__(
        self, store: Path, port: int, peers: list[int], *, publisher: bool, program: Sequence[str] = APPLIANCE
    ) -> None:
        self.store, self.port = store, port
        words = [*program, "serve", "--store", str(store), "--listen", f"127.0.0.1:{port}"]
        words += [word for peer in peers for word in ("--peer", f"http://127.0.0.1:{peer}")]
        self._words = [*words, "--publisher" if publisher else "--follower"]
        self.start()

    def start(self) -> None:
        self.process = Process(self._words, self.store.with_suffix(".log"))

    def rehash(self, rate: int) -> None:
        """Start again, re-hashing so many bytes a second."""
        self._words += ["--scrub-rate", str(rate)]
        self.start()

    def serve_by(self, workers: int) -> None:
        """Start again with so many processes that answer."""
        self.process.kill()
        self._words += ["--workers", str(workers)]
        self.start()
        self.ready()

    def ready(self) -> None:
        wait_for("listening", lambda: self.ping() is not None)
        wait_for("the agent", lambda: self.store.joinpath("agent.sock").exists())

    def ping(self) -> dict[str, Any] | None:
        status, _, body = request(self.port, "/p2p/v1/ping")
        return json.loads(body) if status == 200 else None

    def generation(self) -> int:
        answer = self.ping()
        return int(answer["generation"]["number"]) if answer and answer["generation"] else 0

    def seed(self, *words: object) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(appliance("seed", "--store", self.store, "--json", *words).stdout)
        return answer

    def holds(self, digest: str) -> bool:
        return (self.store / "blobs" / digest.replace(":", "/")).exists()

    def partial(self, digest: str) -> Path:
        return self.store / "partial" / f"{digest.replace(':', '-')}.data"


class Site:
    """Some nodes on one machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nodes: list[Node] = []

    def add(
        self,
        name: str,
        peers: list[int],
        *,
        publisher: bool = False,
        port: int = 0,
        program: Sequence[str] = APPLIANCE,
    ) -> Node:
        node = Node(self.root / name, port or free_port(), peers, publisher=publisher, program=program)
        self.nodes.append(node)
        return node

    def pair(self, names: Mapping[str, made.Image]) -> tuple[Node, Node]:
        """A publisher that was seeded with these names, and one that follows it and has not been asked for a layer."""
        a = self.add("a", [], publisher=True)
        a.ready()
        a.seed(made.write_oci_archive(self.root / "medium.tar", names))
        b = self.add("b", [a.port])
        b.ready()
        wait_for("the generation", lambda: b.generation() == 1)
        return a, b

    def trio(self) -> tuple[Node, Node, Node]:
        """A publisher and two followers, each knowing the others."""
        ports = [free_port() for _ in range(3)]
        nodes = []
        for number, port in enumerate(ports):
            others = [other for other in ports if other != port]
            nodes.append(self.add("abc"[number], others, publisher=number == 0, port=port))
        for node in nodes:
            node.ready()
        return nodes[0], nodes[1], nodes[2]


class Relay:
    """A TCP relay in front of a node: throttles what the node sends, goes silent on demand, and counts.

    :param rate: bytes a second towards the client; 0: as fast as it goes.
    :param silent_after: bytes after which a connection says nothing any more and stays open.
    :param cuts: how many connections are ended once ``cut_after`` bytes have passed.
    :param reset: end them by a reset and not by a FIN.
    :param drips_after: bytes after which a connection gives one byte each half-second, so that it is never silent.
    :param late: seconds by which each small answer comes later.
    """

    def __init__(
        self,
        target: int,
        *,
        rate: int = 0,
        silent_after: int | None = None,
        cuts: int = 0,
        cut_after: int = 0,
        reset: bool = False,
        drips_after: int | None = None,
        late: float = 0.0,
    ) -> None:
        self._drips_after, self._late = drips_after, late
        self._target, self._rate, self._silent_after = target, rate, silent_after
        self.cuts, self._cut_after, self._reset = cuts, cut_after, reset
        self.sent = 0
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            passed = 0
            while data := server.recv(32 << 10):
                if self._silent_after is not None and passed + len(data) > self._silent_after:
                    self._closing.wait()
                    return
                if self._late and len(data) <= 4096:
                    self._closing.wait(self._late)
                client.sendall(data)
                passed += len(data)
                self.sent += len(data)
                if self.cuts and passed >= self._cut_after:
                    self.cuts -= 1
                    if self._reset:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    # The other thread reads there: close() alone sends nothing before that one returns.
                    client.shutdown(socket.SHUT_RD if self._reset else socket.SHUT_RDWR)
                    server.shutdown(socket.SHUT_RDWR)
                    return
                if self._drips_after is not None and passed >= self._drips_after:
                    self._drip(client, server)
                    return
                if self._rate and len(data) > 4096:
                    self._closing.wait(len(data) / self._rate)
            # The other thread reads there: without this its end would come only when that one returns.
            client.shutdown(socket.SHUT_RDWR)

    def _drip(self, client: socket.socket, server: socket.socket) -> None:
        while (data := server.recv(1)) and not self._closing.wait(0.5):
            client.sendall(data)

    @staticmethod
    def _up(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._closing.set()
        self._listener.close()


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory with a short path: a unix socket's may have 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="apl-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def site(root: Path) -> Iterator[Site]:
    """Nodes that are gone after the test, whatever it did."""
    made = Site(root)
    yield made
    for node in made.nodes:
        node.process.kill()
