"""The units as systemd runs them: who is let in by TLS, and when the watchdog hears nothing more."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import pki
from appliance.config import LiveConfig, load
from appliance.peers.https import HttpsTransport
from appliance.peers.transport import PeerError
from appliance.store import readiness
from tests.integration.conftest import APPLIANCE, Process, appliance, free_port, request, run, wait_for, workers_of
from tests.keys import certify
from tests.unit.store import made

A = "docker.io/library/a:1"


class Tls:
    """A site with nodes a (the publisher) and b, one that was removed, and another site."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        for ca in ("ca", "other"):
            pki.init_ca(root / ca)
        for ca, node in (("ca", "a"), ("ca", "b"), ("ca", "gone"), ("other", "b")):
            certify(root / ca, self.pki(node, ca), node, "127.0.0.1")
        # As the publisher's agent leaves it once the other node, which listens nowhere here, has answered.
        (root / "store-a").mkdir()
        readiness.mark_ready(root / "store-a", "a")

    def pki(self, node: str, ca: str = "ca") -> Path:
        return self.root / f"{ca}-{node}"

    def config(self, node: str, **changes: Any) -> Path:
        """Write the configuration of a node, as the role does: by a rename over the one that is there."""
        file, new = self.root / f"{node}.yaml", self.root / f"{node}.new"
        document = {
            "node": node,
            "store": str(self.root / f"store-{node}"),
            "pki": str(self.pki(node)),
            "seeds": ["a"],
            "peers": [
                {"id": "a", "address": "127.0.0.1", "url": f"https://127.0.0.1:{self.port}", "seed": True},
                {"id": "b", "address": "127.0.0.1", "url": f"https://127.0.0.1:{self.port + 1}"},
            ],
            "peer_listen": f"127.0.0.1:{self.port}",
            "mirror_listen": f"127.0.0.1:{free_port()}",
            "agent_socket": str(self.root / f"{node}.sock"),
            "free_percent": 0,
            "scrub_rate": 0,
        }
        new.write_text(yaml.safe_dump(document | changes))
        return new.rename(file)

    def context(self, directory: Path | None, ca: str = "ca") -> ssl.SSLContext:
        """Of a client with that node's certificate, or without any."""
        context = ssl.create_default_context(cafile=str(self.root / ca / "ca.crt"))
        if directory is not None:
            context.load_cert_chain(directory / "node.crt", directory / "node.key")
        return context

    def ask(self, path: str, directory: Path | None, ca: str = "ca", method: str = "GET") -> tuple[int, bytes]:
        """One request as a client with that node's certificate, or without any."""
        context = self.context(directory, ca)
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="a") as secure,
        ):
            secure.sendall(f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            response = http.client.HTTPResponse(secure, method=method)
            response.begin()
            return response.status, response.read()


@pytest.fixture
def tls(root: Path) -> Iterator[Tls]:
    """Node a's peer listener with a seeded store."""
    made_one = Tls(root)
    config = made_one.config("a")
    source = made.write_oci_archive(root / "a.tar", {A: made.image(1, size=2 << 20)})
    appliance("seed", "--store", root / "store-a", "--config", config, source)
    process = Process([*APPLIANCE, "unit", "peer", "--config", str(config)], root / "peer.log")
    try:
        wait_for("the listener", lambda: made_one.ask("/healthz", None)[0] == 200)
        yield made_one
    finally:
        process.kill()


def test_who_is_let_in(tls: Tls) -> None:
    layer = made.image(1, size=2 << 20).layers[0]
    paths = ["/v2/", "/v2/_catalog", "/v2/library/a/manifests/1", "/p2p/v1/ping", "/p2p/v1/generation"]
    paths += [f"/p2p/v1/blobs/{layer}", f"/v2/library/a/blobs/{layer}"]
    for path in paths:
        assert tls.ask(path, None)[0] == 401, path
        assert tls.ask(path, tls.pki("gone"))[0] == 403, path
        assert tls.ask(path, tls.pki("b"))[0] == 200, path
    assert tls.ask("/p2p/v1/wake", None, method="POST")[0] == 401
    assert tls.ask("/p2p/v1/wake", tls.pki("b"), method="POST")[0] == 204
    assert tls.ask("/healthz", None) == tls.ask("/healthz", tls.pki("gone"))
    assert tls.ask(f"/p2p/v1/blobs/{layer}", tls.pki("b"))[1] == made.image(1, size=2 << 20).blobs[layer]


@pytest.mark.parametrize(
    ("suite", "spoken"), [("ECDHE-ECDSA-AES128-SHA256", False), ("ECDHE-ECDSA-AES256-GCM-SHA384", True)]
)
def test_openssl_gets_no_cbc(tls: Tls, suite: str, spoken: bool) -> None:
    words = ["openssl", "s_client", "-connect", f"127.0.0.1:{tls.port}", "-tls1_2", "-cipher", suite]
    done = run(*words, "-CAfile", tls.root / "ca" / "ca.crt", input="", check=False)
    assert (done.returncode == 0) is spoken, done.stdout + done.stderr
    assert (f"Cipher is {suite}" in done.stdout) is spoken


def test_a_removed_node_is_refused_on_the_connection_that_it_has(tls: Tls) -> None:
    """And one that was added is let in, by the same process."""
    peers = yaml.safe_load(tls.config("a").read_text())["peers"]
    connection = http.client.HTTPSConnection("127.0.0.1", tls.port, context=tls.context(tls.pki("b")), timeout=20)
    connection._context.check_hostname = False  # type: ignore[attr-defined]  # the certificate names the node

    def ask() -> tuple[int, str]:
        connection.request("GET", "/p2p/v1/ping")
        response = connection.getresponse()
        return response.status, response.read().decode()

    assert ask()[0] == 200
    used = connection.sock
    tls.config("a", peers=[*peers[:1], {"id": "gone", "address": "127.0.0.1"}])
    status, said = ask()
    assert (status, "b is not a node of this site" in said) == (403, True)
    assert connection.sock is used, "the same connection"
    assert tls.ask("/p2p/v1/ping", tls.pki("gone"))[0] == 200
    tls.config("a")
    assert ask()[0] == 200
    connection.close()


def test_another_authority_ends_the_handshake(tls: Tls) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.BadStatusLine)):
        tls.ask("/v2/", tls.pki("b", "other"))
    with pytest.raises(ssl.SSLCertVerificationError):
        tls.ask("/v2/", tls.pki("b"), ca="other")
    assert tls.ask("/v2/", tls.pki("b"))[0] == 200


def test_plain_http_gets_nothing(tls: Tls) -> None:
    with pytest.raises((http.client.HTTPException, OSError)):
        connection = http.client.HTTPConnection("127.0.0.1", tls.port, timeout=10)
        connection.request("GET", "/healthz")
        connection.getresponse()
    assert tls.ask("/v2/", tls.pki("b"))[0] == 200


def test_the_nodes_own_client_knows_the_node_by_its_name(tls: Tls) -> None:
    peers = HttpsTransport(LiveConfig(load(tls.config("b"))))
    (peer,) = peers.others
    assert peers.ask(peer, "GET", "/p2p/v1/ping")[0] == 200
    impostor = HttpsTransport(LiveConfig(load(_renamed(tls))))
    (peer,) = impostor.others
    with pytest.raises(PeerError, match=r"(?i)certificate|hostname"):
        impostor.ask(peer, "GET", "/p2p/v1/ping")


def _renamed(tls: Tls) -> Path:
    """A configuration in which another node's name has the publisher's address."""
    document = yaml.safe_load(tls.config("b").read_text())
    document["peers"][0]["id"], document["seeds"] = "c", ["c"]
    file = tls.root / "renamed.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def test_a_follower_takes_the_signed_generation_and_the_bytes(tls: Tls) -> None:
    config = tls.config("b")
    agent = Process([*APPLIANCE, "unit", "agent", "--config", str(config)], tls.root / "agent.log")
    try:
        wait_for("the agent", (tls.root / "b.sock").exists)

        def status() -> dict[str, Any]:
            answer: dict[str, Any] = json.loads(appliance("status", "--config", config, "--json").stdout)
            return answer

        answer: dict[str, Any] = wait_for("the generation", lambda: (found := status())["generation"] and found, 30)
        assert answer["names"] == 1
        wait_for("all blobs", lambda: status()["wanted_missing"] == 0, 30)
        signatures = list((tls.root / "store-b" / "generations").glob("*.sig"))
        assert [json.loads(path.read_bytes())["signer"] for path in signatures] == ["a"]
        appliance("fsck", "--store", tls.root / "store-b")
        assert (tls.root / "b.sock").stat().st_mode & 0o077 == 0
    finally:
        agent.kill()


class Systemd:
    """The socket on which systemd hears READY and WATCHDOG."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.path = path

    def hear(self, seconds: float) -> str | None:
        """The next message; None when there is none for so long."""
        self._socket.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            return self._socket.recv(4096).decode()
        return None

    def hear_word(self, word: str, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if word in (self.hear(left) or ""):
                return True
        return False

    def close(self) -> None:
        self._socket.close()


def test_the_agent_beats_while_its_loop_turns(root: Path) -> None:
    config, agent_socket = root / "config.yaml", root / "x.sock"
    config.write_text(yaml.safe_dump({"node": "x", "store": str(root / "s"), "agent_socket": str(agent_socket)}))
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(agent_socket))
    stale.close()
    systemd = Systemd(root / "notify")
    process = Process(
        [*APPLIANCE, "unit", "agent", "--config", str(config)],
        root / "log",
        {**os.environ, "NOTIFY_SOCKET": str(systemd.path)},
    )
    try:
        assert systemd.hear_word("READY=1", 30)
        assert all(systemd.hear_word("WATCHDOG=1", 10) for _ in range(3))
        assert workers_of(process.popen.pid) == set()
        assert json.loads(appliance("status", "--config", config, "--json").stdout)["node"] == "x"
        assert agent_socket.stat().st_mode & 0o077 == 0
        os.kill(process.popen.pid, signal.SIGSTOP)
        while systemd.hear(0.1) is not None:
            pass
        assert systemd.hear(3) is None
        os.kill(process.popen.pid, signal.SIGCONT)
        assert systemd.hear_word("WATCHDOG=1", 10)
        process.popen.terminate()
        assert process.popen.wait(10) == 0
        assert not agent_socket.exists()
    finally:
        process.kill()
        systemd.close()


def agent_of(root: Path, name: str = "agent") -> Process:
    """An agent of a node without peers, on the socket ``x.sock``."""
    config = root / "config.yaml"
    config.write_text(yaml.safe_dump({"node": "x", "store": str(root / "s"), "agent_socket": str(root / "x.sock")}))
    return Process([*APPLIANCE, "unit", "agent", "--config", str(config)], root / f"{name}.log")


def status_of(root: Path) -> int:
    return appliance("status", "--config", root / "config.yaml", check=False).returncode


def test_a_second_agent_does_not_take_the_socket_of_the_first(root: Path) -> None:
    first = agent_of(root)
    try:
        wait_for("the agent", lambda: status_of(root) == 0)
        second = agent_of(root, "second")
        assert second.popen.wait(20) == 1
        assert "APL-0403" in second.log
        assert status_of(root) == 0
    finally:
        first.kill()


@pytest.mark.parametrize("replaced", [True, False])
def test_an_agent_that_nobody_can_reach_ends_for_systemd_to_start_it(root: Path, replaced: bool) -> None:
    process = agent_of(root)
    path = root / "x.sock"
    try:
        wait_for("the agent", lambda: status_of(root) == 0)
        path.unlink()
        if replaced:
            path.touch()
        process.popen.wait(10)
        assert "was removed or replaced" in process.log
        assert path.exists() is replaced, "it took away what was not its own"
    finally:
        process.kill()


def test_an_agent_stops_while_requests_are_open(root: Path) -> None:
    """A web worker that waits for a blob hears of the stop as of a crash: by the end of the connection."""
    process = agent_of(root)
    path = root / "x.sock"
    try:
        wait_for("the agent", lambda: status_of(root) == 0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(30)]
        for number, client in enumerate(waiting):
            client.settimeout(10)
            client.connect(str(path))
            # Half a request, none, and one whose answer nobody reads.
            client.sendall((b"GET /v1/sta", b"", b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")[number % 3])
        assert status_of(root) == 0
        begun = time.monotonic()
        process.popen.terminate()
        assert process.popen.wait(10) == 0
        assert time.monotonic() - begun < 5
        for client in waiting:
            while client.recv(1 << 16):
                pass
            client.close()
        assert "Traceback" not in process.log
        assert not path.exists()
    finally:
        process.kill()


def test_what_fails_in_the_agent_is_answered_and_it_goes_on(root: Path) -> None:
    process = agent_of(root)
    try:
        wait_for("the agent", lambda: status_of(root) == 0)
        (root / "s" / "index.json").write_bytes(b"rot")
        assert status_of(root) == 1
        (root / "s" / "index.json").write_bytes(b'{"schemaVersion":2,"manifests":[]}')
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(root / "x.sock"))
            client.sendall(b"GET /v1/fetch/nonsense HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 400")
        assert process.popen.poll() is None
    finally:
        process.kill()


@pytest.mark.parametrize("unit", ["mirror"])
def test_the_watchdog_is_fed_only_while_the_workers_live(root: Path, unit: str) -> None:
    config = root / "config.yaml"
    port = free_port()
    config.write_text(
        yaml.safe_dump(
            {"node": "x", "store": str(root / "s"), "agent_socket": str(root / "x.sock"), "workers": 2}
            | {"mirror_listen": f"127.0.0.1:{port}"}
        )
    )
    systemd = Systemd(root / "notify")
    env = {**os.environ, "NOTIFY_SOCKET": str(systemd.path)}
    process = Process([*APPLIANCE, "unit", unit, "--config", str(config)], root / "log", env)
    try:
        assert systemd.hear_word("READY=1", 30)
        assert systemd.hear_word("WATCHDOG=1", 10)
        wait_for("an answer", lambda: request(port, "/healthz")[0] == 200)
        wait_for("both workers", lambda: len(workers_of(process.popen.pid)) == 2)
        assert all(systemd.hear_word("WATCHDOG=1", 10) for _ in range(3))
        hung = min(workers_of(process.popen.pid))
        os.kill(hung, signal.SIGSTOP)
        # Beats come every second; three without one is a silence, and it begins while the worker still hangs.
        end = time.monotonic() + 12
        while systemd.hear(3) is not None:
            assert time.monotonic() < end, "the watchdog was fed although a worker hung"
        # gunicorn ends the hung worker before systemd's ten seconds are over, and the beats come back.
        assert systemd.hear_word("WATCHDOG=1", 12)
        wait_for("another worker", lambda: len(workers_of(process.popen.pid) - {hung}) == 2)
    finally:
        process.kill()
        systemd.close()
