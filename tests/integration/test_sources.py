"""Sources of a blob that are slow or break off: the client goes on, from another one or over a new connection."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.agent.client import AgentClient
from tests.integration.conftest import APPLIANCE, Node, Process, Relay, Site, appliance, request, wait_for
from tests.integration.test_units import Tls
from tests.unit.store import made

BIG, OTHER = made.image(3, size=24 << 20), made.image(4, size=8 << 20)
NAMES = {"docker.io/library/big:1": BIG, "docker.io/library/other:1": OTHER}


def path_of(image: made.Image) -> str:
    return f"/v2/library/{'big' if image is BIG else 'other'}/blobs/{image.layers[0]}"


def raw_of(image: made.Image) -> bytes:
    return image.blobs[image.layers[0]]


def holders(site: Site) -> tuple[Node, Node]:
    """A publisher and a follower that both hold everything."""
    a, b = site.pair(NAMES)
    for image in (BIG, OTHER):
        assert request(b.port, path_of(image))[2] == raw_of(image)
        wait_for("the whole blob", lambda image=image: b.holds(image.layers[0]))  # type: ignore[misc]  # bound at once
    return a, b


def behind(site: Site, *relays: Relay) -> Node:
    """A node that reaches others through these alone."""
    node = site.add("f", [relay.port for relay in relays])
    node.ready()
    wait_for("the generation", lambda: node.generation() == 1)
    return node


def pull(node: Node, image: made.Image, start: int = 0) -> tuple[int, bytes, float]:
    """Pull a layer as containerd does: status, the bytes that came before the end, and the longest silence in seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=40)
    last, longest = time.monotonic(), 0.0
    got = bytearray()
    try:
        connection.request("GET", path_of(image), headers={"Range": f"bytes={start}-"} if start else {})
        response = connection.getresponse()
        while True:
            # Until the end of the stream, early or not: a reset would be an error here.
            piece = response.read1(1 << 20)
            now = time.monotonic()
            last, longest = now, max(longest, now - last)
            if not piece:
                return response.status, bytes(got), longest
            got += piece
    finally:
        connection.close()


SLOW: dict[str, Callable[[int], Relay]] = {
    "64 KiB/s": lambda port: Relay(port, rate=64 << 10),
    "2 B/s": lambda port: Relay(port, drips_after=64 << 10),
}


@pytest.mark.parametrize("how", sorted(SLOW))
def test_a_slow_source_beside_another_holder_costs_about_a_second(site: Site, how: str) -> None:
    a, b = holders(site)
    # The slow one answers first: the first holder that says yes is used first.
    slow, well = SLOW[how](a.port), Relay(b.port, rate=200 << 20, late=0.1)
    node = behind(site, slow, well)
    status, body, silence = pull(node, BIG)
    assert (status, body == raw_of(BIG)) == (200, True)
    assert silence < 2.5
    assert "delivers" in node.process.log
    # The relay may have one more part of the first pull in hand.
    before = slow.sent + (32 << 10)
    status, body, silence = pull(node, OTHER)
    assert (status, body == raw_of(OTHER)) == (200, True)
    assert silence < 1
    assert slow.sent - before < 32 << 10, "it was asked for another blob first"
    slow.close()
    well.close()


def test_a_slow_source_that_alone_holds_the_blob_is_used(site: Site) -> None:
    a, _ = site.pair(NAMES)
    slow = Relay(a.port, rate=512 << 10)
    node = behind(site, slow)
    status, body, silence = pull(node, OTHER)
    assert (status, body == raw_of(OTHER)) == (200, True)
    assert silence < 5
    slow.close()


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "fin"])
def test_a_connection_to_the_only_holder_that_breaks_costs_nothing(site: Site, reset: bool) -> None:
    a, _ = site.pair(NAMES)
    relay = Relay(a.port, cuts=3, cut_after=6 << 20, reset=reset)
    node = behind(site, relay)
    got, tries = b"", 0
    while len(got) < len(raw_of(BIG)):
        # What containerd does after an early end, and at once.
        tries += 1
        status, more, _ = pull(node, BIG, len(got))
        assert status == (206 if got else 200), more
        got += more
    assert got == raw_of(BIG)
    assert tries == 1
    assert relay.cuts == 0
    # At a reset the kernel drops what it had taken in and nobody had read; after an end nothing is lost.
    assert reset or relay.sent < len(got) + (1 << 20), "what had come was sent again"
    relay.close()


def test_a_record_of_tls_that_drips_holds_a_blob_for_a_minute_at_most(root: Path) -> None:
    """Not one byte of it can be read, and the socket is never silent."""
    tls, image = Tls(root), made.image(1, size=2 << 20)
    config = tls.config("a")
    source = made.write_oci_archive(root / "a.tar", {"docker.io/library/a:1": image})
    appliance("seed", "--store", root / "store-a", "--config", config, source)
    relay = Relay(tls.port, drips_after=100_000)
    peers = [
        {"id": "a", "address": "127.0.0.1", "url": f"https://127.0.0.1:{relay.port}", "seed": True},
        {"id": "b", "address": "127.0.0.1", "url": f"https://127.0.0.1:{tls.port + 1}"},
    ]
    agent = AgentClient(root / "b.sock")
    processes = [Process([*APPLIANCE, "unit", "peer", "--config", str(config)], root / "peer.log")]
    try:
        wait_for("the listener", lambda: tls.ask("/healthz", None)[0] == 200)
        words = [*APPLIANCE, "unit", "agent", "--config", str(tls.config("b", peers=peers))]
        processes.append(Process(words, root / "agent.log"))
        wait_for("the agent", (root / "b.sock").exists)
        wait_for("the generation", lambda: agent.status()["generation"])
        # It is what the node should hold, so the agent fetches it by itself; this joins.
        layer = image.layers[0]
        reasons: list[str] = []

        def failed() -> bool:
            answer = agent.fetch(layer, len(image.blobs[layer]), 1 << 30, wait=5)
            reasons.append(answer["reason"])
            return bool(answer["state"] == "failed")

        # A record whose last byte comes counts when it comes: one window for that, and one without any.
        wait_for("the end of the fetch", failed, 75)
        assert reasons[-1] == "a delivered less than 16.0 KiB in 30 s"
    finally:
        for process in processes:
            process.kill()
        relay.close()
