"""A real containerd of its own pulls from the mirror through hosts.toml, by tag and by digest."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.integration.conftest import Process, Site, run, wait_for
from tests.unit.store import made

ONE, TWO = made.image(1, size=5000, layers=2), made.image(2, size=3 << 20)
NAMES = {"docker.io/library/one:1": ONE, "quay.io/team/two:2": TWO}


class Containerd:
    """A containerd with its own root, state and socket, that knows no registry but the mirror."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "c.sock"
        config = root / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "{root}/root"\nstate = "{root}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
            f'[grpc]\naddress = "{self.socket}"\n'
        )
        self.process = Process(["containerd", "-c", str(config)], root / "containerd.log")
        wait_for("containerd", self.socket.exists)

    def trust(self, *ports: int, registries: Sequence[str] = ("docker.io", "quay.io")) -> None:
        """Write hosts.toml: these mirrors in order, and a last resort that is not there."""
        for registry in registries:
            directory = self.root / "certs.d" / registry
            directory.mkdir(parents=True, exist_ok=True)
            hosts = [f'[host."http://127.0.0.1:{port}"]\n  capabilities = ["pull", "resolve"]\n' for port in ports]
            (directory / "hosts.toml").write_text('server = "http://127.0.0.1:1"\n' + "".join(hosts))

    def ctr(self, *words: object, check: bool = True) -> str:
        done = run("ctr", "-a", self.socket, *words, check=check)
        return done.stdout + done.stderr

    def pull(self, name: str, *options: str, check: bool = True) -> str:
        words = ["images", "pull", "--hosts-dir", self.root / "certs.d", "--snapshotter", "native", *options, name]
        return self.ctr(*words, check=check)

    def blob(self, digest: str) -> bytes:
        return (self.root / "root/io.containerd.content.v1.content/blobs" / digest.replace(":", "/")).read_bytes()


@pytest.fixture
def containerd(root: Path) -> Iterator[Containerd]:
    """It ends with the test."""
    made_one = Containerd(root)
    yield made_one
    made_one.process.stop()


def test_pulls_by_tag_and_by_digest(site: Site, containerd: Containerd) -> None:
    _, b = site.pair(NAMES)
    containerd.trust(b.port)
    for name, item in NAMES.items():
        containerd.pull(name)
        containerd.pull(f"{name.rpartition(':')[0]}@{item.digest}")
        listed = containerd.ctr("images", "list")
        assert item.digest in listed
        for digest, raw in item.blobs.items():
            assert containerd.blob(digest) == raw
    missing = containerd.pull("docker.io/library/none:1", check=False)
    assert "not found" in missing or "refused" in missing
    # One name on two registries is two images: ns decides.
    assert "not found" in (wrong := containerd.pull("quay.io/library/one:1", check=False)) or "refused" in wrong


def test_a_mirror_that_is_down_costs_one_refused_connection(site: Site, containerd: Containerd) -> None:
    a, b = site.pair(NAMES)
    containerd.trust(b.port, a.port)
    b.process.kill()
    containerd.pull("quay.io/team/two:2")
    assert TWO.digest in containerd.ctr("images", "list")


_CLOSES = """
import socket, sys
from appliance.server.sdnotify import close_clients
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
close_clients(listener.fileno(), 100)
"""


def test_a_mirror_that_cannot_start_costs_closed_connections(site: Site, containerd: Containerd) -> None:
    a, b = site.pair(NAMES)
    containerd.trust(b.port, a.port)
    b.process.kill()
    closes = Process([sys.executable, "-c", _CLOSES, str(b.port)], containerd.root / "closes.log")
    wait_for("it to listen", lambda: "ready" in closes.log)
    begun = time.monotonic()
    containerd.pull("quay.io/team/two:2")
    assert time.monotonic() - begun < 10, "containerd waits 30 s for an answer"
    assert TWO.digest in containerd.ctr("images", "list")
    closes.kill()
