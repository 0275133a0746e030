"""A disk that loses, cuts or flips bytes: no client gets a wrong one, and what was damaged comes back from a peer."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.agent.client import AgentClient
from tests.integration.conftest import APPLIANCE, Node, Site, appliance, request, run, wait_for
from tests.unit.store import made

ONE, BIG = made.image(1, size=5000), made.image(3, size=24 << 20)
BOTH = made.index({"amd64": ONE, "arm64": made.image(2, arch="arm64")})
NAMES = {"docker.io/library/both:1": BOTH, "docker.io/library/big:1": BIG}
LAYER = BIG.layers[0]
RAW = BIG.blobs[LAYER]
BLOB = f"/v2/library/big/blobs/{LAYER}"


def file_of(node: Node, digest: str) -> Path:
    return node.store / "blobs" / digest.replace(":", "/")


def quarantine(node: Node) -> list[str]:
    """Digests of what lies there."""
    names = (path.name.split("-") for path in (node.store / "quarantine").iterdir())
    return sorted(f"{algorithm}:{encoded}" for algorithm, encoded, _ in names)


def pair(site: Site) -> tuple[Node, Node]:
    """A publisher, and a follower that holds everything."""
    a, b = site.pair(NAMES)
    for path, item in (("both", BOTH), ("big", BIG)):
        for digest, raw in item.blobs.items():
            assert request(b.port, f"/v2/library/{path}/blobs/{digest}")[2] == raw
    return a, b


def lose(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(20)
        byte = file.read(1)
        file.seek(20)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("damage", [lose, cut, flip])
def test_a_damaged_manifest_is_brought_back_within_the_request(site: Site, damage: Callable[[Path], None]) -> None:
    _, b = pair(site)
    for digest in (BOTH.digest, ONE.digest):
        damage(file_of(b, digest))
        status, headers, body = request(b.port, f"/v2/library/both/manifests/{digest}")
        assert (status, body) == (200, BOTH.blobs[digest])
        assert headers["Docker-Content-Digest"] == digest
    assert quarantine(b) == ([] if damage is lose else sorted([BOTH.digest, ONE.digest]))
    assert json.loads(appliance("fsck", "--store", b.store, "--json").stdout)["problems"] == []


@pytest.mark.parametrize("damage", [lose, cut, flip])
def test_what_a_damaged_index_lists_is_not_called_unknown(site: Site, damage: Callable[[Path], None]) -> None:
    """After a start nothing is in memory yet, and what an index lists can be found only by reading it."""
    _, b = pair(site)
    b.process.kill()
    damage(file_of(b, BOTH.digest))
    b.start()
    b.ready()
    for path in (f"manifests/{ONE.digest}", f"blobs/{ONE.layers[0]}"):
        status, _, body = request(b.port, f"/v2/library/both/{path}")
        assert (status, made.sha(body)) == (200, path.partition("/")[2])


def test_without_a_peer_it_is_503_with_the_reason_and_comes_back_unasked(site: Site) -> None:
    a, b = pair(site)
    a.process.kill()
    flip(file_of(b, BOTH.digest))
    flip(file_of(b, ONE.digest))
    for path in ("manifests/1", f"manifests/{ONE.digest}"):
        status, _, body = request(b.port, f"/v2/library/both/{path}")
        assert status == 503
        assert b"lost or damaged here" in body
        assert f"127.0.0.1:{a.port}".encode() in body
    assert request(b.port, "/v2/library/both/manifests/none")[0] == 404
    assert quarantine(b) == sorted([BOTH.digest, ONE.digest])
    assert not file_of(b, ONE.digest).exists()
    a.start()
    a.ready()
    wait_for("both to be back", lambda: all(file_of(b, digest).exists() for digest in (BOTH.digest, ONE.digest)), 60)
    assert request(b.port, "/v2/library/both/manifests/1")[2] == BOTH.raw


@pytest.mark.parametrize("damage", [lose, cut])
def test_a_layer_that_is_lost_or_cut_is_fetched_again(site: Site, damage: Callable[[Path], None]) -> None:
    _, b = pair(site)
    damage(file_of(b, LAYER))
    assert request(b.port, BLOB)[2] == RAW
    assert quarantine(b) == ([] if damage is lose else [LAYER])
    wait_for("it to be back", lambda: file_of(b, LAYER).exists())
    assert made.sha(file_of(b, LAYER).read_bytes()) == LAYER


def download(port: int, start: int = 0) -> tuple[socket.socket, http.client.HTTPResponse]:
    """A download whose client takes nothing but the head for now."""
    client = socket.socket()
    client.settimeout(20)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    ranged = f"Range: bytes={start}-\r\n" if start else ""
    client.sendall(f"GET {BLOB} HTTP/1.1\r\nHost: x\r\n{ranged}\r\n".encode())
    response = http.client.HTTPResponse(client)
    response.begin()
    return client, response


def test_a_layer_that_cannot_be_read_on_ends_by_fin_and_the_resume_gets_the_rest(site: Site) -> None:
    _, b = pair(site)
    client, response = download(b.port)
    with client, response:
        os.truncate(file_of(b, LAYER), 16 << 20)
        got = bytearray()
        # Until the end of the stream: a reset would be an error here.
        while piece := response.read(1 << 20):
            got += piece
    assert len(got) < len(RAW)
    assert got == RAW[: len(got)]
    resumed, response = download(b.port, len(got))
    with resumed, response:
        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes {len(got)}-{len(RAW) - 1}/{len(RAW)}"
        assert response.read() == RAW[len(got) :]
    assert quarantine(b) == [LAYER]
    assert f"the answer ends at byte {16 << 20} of {len(RAW)}" in b.process.log
    assert "APL-0315" in b.process.log
    assert "Traceback" not in b.process.log


PULL = {"User-Agent": "containerd/v2.3.4"}


def test_a_wrong_layer_is_given_to_a_client_once(site: Site) -> None:
    """Whichever of the workers it comes to: the second pull is right, mapped or not, and with the size that is listed."""
    _, b = pair(site)
    b.serve_by(3)
    small = ONE.layers[0]
    for digest, path, raw in ((LAYER, BLOB, RAW), (small, f"/v2/library/both/blobs/{small}", ONE.blobs[small])):
        flip(file_of(b, digest))
        status, _, body = request(b.port, path, headers=PULL)
        assert status == 200
        # What containerd refuses, since nobody had looked before it.
        assert made.sha(body) != digest
        for _ in range(6):
            assert request(b.port, path, headers=PULL)[2] == raw
    assert quarantine(b) == sorted([LAYER, small])
    assert b.process.log.count("APL-0315") == 2


def test_a_wrong_layer_that_nobody_else_holds_is_given_once_and_then_503(site: Site) -> None:
    a, b = pair(site)
    flip(file_of(b, LAYER))
    a.process.kill()
    assert made.sha(request(b.port, BLOB, headers=PULL)[2]) != LAYER
    for _ in range(2):
        status, _, body = request(b.port, BLOB, headers=PULL)
        assert status == 503
        assert f"127.0.0.1:{a.port}".encode() in body
    a.start()
    a.ready()
    wait_for("it to be back", lambda: request(b.port, BLOB, headers=PULL)[2] == RAW, 60)


def test_fsck_finds_a_flipped_byte_and_with_repair_it_is_mended(site: Site) -> None:
    _, b = pair(site)
    flip(file_of(b, LAYER))
    words = [*APPLIANCE, "fsck", "--store", b.store]
    found = run(*words, check=False)
    assert found.returncode == 1
    assert f"{LAYER} is damaged" in found.stdout
    assert "--repair" in found.stdout
    assert quarantine(b) == [], "a check changes nothing"
    assert LAYER in run(*words, "--repair", check=False).stdout
    assert quarantine(b) == [LAYER]
    assert request(b.port, BLOB)[2] == RAW
    assert run(*words).returncode == 0


@pytest.mark.parametrize(("of", "damage"), [("publisher", lose), ("publisher", flip), ("follower", cut)])
def test_a_damaged_index_of_names_comes_back_by_itself(site: Site, damage: Callable[[Path], None], of: str) -> None:
    nodes = dict(zip(("publisher", "follower"), pair(site), strict=True))
    node = nodes[of]
    index = node.store / "index.json"
    raw = index.read_bytes()
    # Who has read it goes on with that, damaged or not.
    damage(index)
    assert request(node.port, BLOB)[2] == RAW
    wait_for("it to be put back while it serves", lambda: index.exists() and index.read_bytes() == raw)
    node.process.kill()
    damage(index)
    node.start()
    wait_for("it to be put back after a start", lambda: index.exists() and index.read_bytes() == raw)
    # It says so when it is done.
    wait_for("the agent to say so", lambda: "is put back from the copy here" in node.process.log)
    assert "APL-0305" in node.process.log
    # The agent runs before the mirror listens.
    node.ready()
    assert request(node.port, BLOB)[2] == RAW
    assert json.loads(appliance("fsck", "--store", node.store, "--json").stdout)["problems"] == []
    # Its history and the numbers go on.
    assert nodes["publisher"].seed(made.write_oci_archive(site.root / "next.tar", {"quay.io/t/next:1": ONE}))[
        "published"
    ]
    # This publisher knows no peers, and tells nobody.
    AgentClient(nodes["follower"].store / "agent.sock").wake()
    wait_for("the next generation", lambda: nodes["follower"].generation() == 2)


@pytest.mark.parametrize("damage", [lose, cut])
def test_an_older_generation_comes_back_from_the_other_node(site: Site, damage: Callable[[Path], None]) -> None:
    """At the next start for sure, and the layout's file with it."""
    a, b = pair(site)
    a.seed(made.write_oci_archive(site.root / "next.tar", {"quay.io/t/next:1": ONE}))
    AgentClient(b.store / "agent.sock").wake()
    wait_for("the next generation", lambda: b.generation() == 2)
    b.process.kill()
    (older,) = (b.store / "generations").glob("00000002-*.json")
    raw = older.read_bytes()
    damage(older)
    (b.store / "oci-layout").write_bytes(b"rot")
    found = run(*APPLIANCE, "fsck", "--store", b.store, check=False)
    assert found.returncode == 1
    assert str(older) in found.stdout and "oci-layout" in found.stdout
    b.start()
    b.ready()
    wait_for("it to be back", lambda: older.exists() and older.read_bytes() == raw, 60)
    wait_for("the layout", lambda: (b.store / "oci-layout").read_bytes() != b"rot", 60)
    (first,) = (b.store / "generations").glob("00000001-*.json")
    raw = first.read_bytes()
    cut(first)
    wait_for("the one before to come from the other node", lambda: first.read_bytes() == raw, 60)

    def shown() -> list[dict[str, Any]]:
        damage: list[dict[str, Any]] = AgentClient(b.store / "agent.sock").status()["health"]["damage"]
        return damage

    # A file is back a moment before the agent notes it.
    wait_for("status to say so", lambda: all(item["healed"] for item in shown()))
    assert {item["kind"] for item in shown()} == {"generation-copy", "layout"}
    assert "Traceback" not in b.process.log
