"""Two or three mirrors as processes: following, pulling, and what a dead one costs."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.conftest import Node, Relay, Site, appliance, free_port, request, run, wait_for, workers_of
from tests.unit.store import made

ONE, TWO = made.image(1, size=5000), made.image(2, size=3 << 20, docker=False)
BIG = made.image(3, size=24 << 20)
A, B, C = "docker.io/library/one:1", "quay.io/team/two:2", "docker.io/library/big:1"


def medium(site: Site, **names: made.Image) -> Path:
    return made.write_oci_archive(site.root / "medium.tar", names)


def publish(site: Site, publisher: Node, images: dict[str, made.Image]) -> int:
    answer = publisher.seed(made.write_oci_archive(site.root / "medium.tar", images))
    assert answer["published"]
    return int(answer["generation"]["number"])


def all_follow(nodes: list[Node], number: int, seconds: float = 10.0) -> None:
    for node in nodes:
        wait_for(f"generation {number}", lambda node=node: node.generation() == number, seconds)  # type: ignore[misc]  # bound at once


def test_followers_follow_and_serve_the_same_bytes(site: Site) -> None:
    a, b, c = site.trio()
    number = publish(site, a, {A: ONE, B: TWO})
    begun = time.monotonic()
    all_follow([b, c], number)
    assert time.monotonic() - begun < 5, "the publisher's call should have been enough"
    for node in (a, b, c):
        for path, item in (("library/one", ONE), ("quay.io/team/two", TWO)):
            for digest, raw in item.blobs.items():
                status, headers, body = request(node.port, f"/v2/{path}/blobs/{digest}")
                assert (status, body) == (200, raw)
                assert headers["Content-Length"] == str(len(raw))
    assert b.holds(TWO.layers[0])
    second = publish(site, a, {A: TWO})
    all_follow([b, c], second)
    assert request(c.port, "/v2/library/one/manifests/1")[2] == TWO.raw
    assert json.loads(appliance("fsck", "--store", a.store, "--json").stdout)["problems"] == []


def test_a_second_after_it_was_published_every_node_serves_it(site: Site) -> None:
    """Whole images, although one node is silent; without a restart of anything."""
    ports = [free_port() for _ in range(5)]
    a, *others, silent = [
        site.add("abcde"[number], [p for p in ports if p != port], publisher=not number, port=port)
        for number, port in enumerate(ports)
    ]
    for node in (a, *others, silent):
        node.ready()
    all_follow([*others, silent], publish(site, a, {A: ONE}))
    pids = [node.process.popen.pid for node in others]
    os.killpg(silent.process.popen.pid, signal.SIGSTOP)

    def pulled(node: Node, name: str, item: made.Image) -> float:
        wait_for("the tag", lambda: request(node.port, f"/v2/{name}/manifests/1")[2] == item.raw)
        for digest, raw in item.blobs.items():
            assert request(node.port, f"/v2/{name}/blobs/{digest}")[2] == raw
        return time.monotonic()

    took = []
    for number in range(5):
        item = made.image(10 + number, size=1 << 20)
        publish(site, a, {A: item})
        begun = time.monotonic()
        with ThreadPoolExecutor() as pool:
            ends = list(pool.map(lambda node, item=item: pulled(node, "library/one", item), others))
        took.append(max(ends) - begun)
    print("seconds from the publish to the last node:", [round(each, 2) for each in took])
    assert sorted(took)[len(took) // 2] <= 1, took
    assert pids == [node.process.popen.pid for node in others]


def test_a_node_that_was_off_catches_up_by_itself(site: Site) -> None:
    a, b, c = site.trio()
    all_follow([b, c], publish(site, a, {A: ONE}))
    b.process.kill()
    all_follow([c], publish(site, a, {A: TWO}))
    a.process.kill()
    b.start()
    all_follow([b], 2)
    assert request(b.port, "/v2/library/one/manifests/1")[2] == TWO.raw


def test_pins_are_everywhere_and_an_heir_keeps_to_them(site: Site) -> None:
    a, b, c = site.trio()
    all_follow([b, c], publish(site, a, {A: ONE, B: TWO}))
    appliance("pin", "--store", a.store, A)

    def pinned(node: Node) -> list[str]:
        images = json.loads(appliance("images", "--store", node.store, "--json").stdout)["images"]
        return [item["name"] for item in images if item["pinned"]]

    for node in (b, c):
        wait_for("the pin", lambda node=node: pinned(node) == [A])  # type: ignore[misc]  # bound at once
    assert not list(b.store.rglob("journal.jsonl"))
    a.process.kill()
    refused = appliance(
        "seed", "--store", b.store, made.write_oci_archive(site.root / "new.tar", {A: BIG}), check=False
    )
    assert (refused.returncode, refused.stderr.split(":")[0]) == (1, "APL-0141")
    a.start()
    a.ready()
    appliance("unpin", "--store", a.store, A)
    for node in (b, c):
        wait_for("the pin to go", lambda node=node: not pinned(node))  # type: ignore[misc]  # bound at once


def test_skopeo_pulls_both_images_byte_for_byte(site: Site) -> None:
    a, b, _ = site.trio()
    all_follow([b], publish(site, a, {A: ONE, B: TWO}))
    for name, item in (("library/one:1", ONE), ("quay.io/team/two:2", TWO)):
        out = site.root / f"out-{item.digest[7:15]}"
        run("skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--preserve-digests",
            f"docker://127.0.0.1:{b.port}/{name}", f"dir:{out}")  # fmt: skip
        assert (out / "manifest.json").read_bytes() == item.raw
        for digest, raw in item.blobs.items():
            if digest != item.digest:
                assert (out / digest[7:]).read_bytes() == raw
    missing = run("skopeo", "inspect", "--tls-verify=false", f"docker://127.0.0.1:{b.port}/library/none:1", check=False)
    assert missing.returncode != 0
    assert "docker.io/library/none is not among the repositories of generation 1" in missing.stderr
    listed = run("skopeo", "list-tags", "--tls-verify=false", f"docker://127.0.0.1:{b.port}/library/one")
    assert json.loads(listed.stdout)["Tags"] == ["1"]


def test_many_ranges_of_a_blob_that_is_still_coming(site: Site) -> None:
    a, b, _ = site.trio()
    all_follow([b], publish(site, a, {C: BIG}))
    layer = BIG.layers[0]
    raw = BIG.blobs[layer]
    cuts = [0, 1, 5 << 20, 11 << 20, (24 << 20) - 7]
    found: dict[int, bytes] = {}

    def get(start: int) -> None:
        found[start] = request(b.port, f"/v2/library/big/blobs/{layer}", headers={"Range": f"bytes={start}-"})[2]

    threads = [threading.Thread(target=get, args=(start,)) for start in cuts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(found[start] == raw[start:] for start in cuts)


def follower_behind_relays(site: Site, first: Relay, second: Relay) -> Node:
    node = site.add("f", [first.port, second.port])
    node.ready()
    return node


def two_holders(site: Site) -> tuple[Node, Node]:
    """A publisher and a follower that holds the big layer too."""
    a = site.add("a", [], publisher=True)
    a.ready()
    publish(site, a, {C: BIG})
    b = site.add("b", [a.port])
    b.ready()
    all_follow([b], 1)
    assert request(b.port, f"/v2/library/big/blobs/{BIG.layers[0]}")[2] == BIG.blobs[BIG.layers[0]]
    assert b.holds(BIG.layers[0])
    return a, b


def test_kill_9_of_a_peer_in_mid_transfer_costs_no_byte(site: Site) -> None:
    a, b = two_holders(site)
    layer, raw = BIG.layers[0], BIG.blobs[BIG.layers[0]]
    relays = {Relay(a.port, rate=8 << 20): a, Relay(b.port, rate=8 << 20): b}
    follower = follower_behind_relays(site, *relays)
    all_follow([follower], 1)
    found: list[bytes] = []
    client = threading.Thread(
        target=lambda: found.append(request(follower.port, f"/v2/library/big/blobs/{layer}")[2]), daemon=True
    )
    client.start()
    wait_for("a transfer under way", lambda: max(relay.sent for relay in relays) > 5 << 20, 30)
    serving = max(relays, key=lambda relay: relay.sent)
    before = follower.partial(layer).stat().st_size
    assert 0 < before < len(raw)
    relays[serving].process.kill()
    client.join(60)
    assert found == [raw]
    other = next(relay for relay in relays if relay is not serving)
    assert other.sent < len(raw) - (3 << 20), "the other peer sent again what had come already"
    wait_for("the whole blob", lambda: follower.holds(layer))
    assert not follower.partial(layer).exists()
    assert made.sha((follower.store / "blobs" / layer.replace(":", "/")).read_bytes()) == layer
    for relay in relays:
        relay.close()


def test_kill_9_of_the_fetching_node_keeps_what_it_had(site: Site) -> None:
    a, _ = two_holders(site)
    layer, raw = BIG.layers[0], BIG.blobs[BIG.layers[0]]
    relay = Relay(a.port, rate=8 << 20)
    node = site.add("f", [relay.port])
    node.ready()
    all_follow([node], 1)
    threading.Thread(target=_ignore_errors, args=(node.port, f"/v2/library/big/blobs/{layer}"), daemon=True).start()
    wait_for(
        "pieces on disk", lambda: node.partial(layer).exists() and node.partial(layer).stat().st_size > 4 << 20, 30
    )
    node.process.kill()
    sent = relay.sent
    node.start()
    node.ready()
    assert request(node.port, f"/v2/library/big/blobs/{layer}")[2] == raw
    assert relay.sent - sent < len(raw) - (3 << 20), "it began at the first byte again"
    relay.close()


def _ignore_errors(port: int, path: str) -> None:
    try:
        request(port, path)
    except (OSError, http.client.HTTPException):
        return


def test_a_peer_that_goes_silent_costs_about_a_second(site: Site) -> None:
    a, b = two_holders(site)
    layer, raw = BIG.layers[0], BIG.blobs[BIG.layers[0]]
    silent = Relay(a.port, silent_after=6 << 20)
    # The one that goes silent answers first; the other one a little later.
    slow = Relay(b.port, rate=200 << 20)
    node = follower_behind_relays(site, silent, slow)
    all_follow([node], 1)
    begun = time.monotonic()
    status, _, body = request(node.port, f"/v2/library/big/blobs/{layer}")
    spent = time.monotonic() - begun
    assert (status, body) == (200, raw)
    assert spent < 2.5
    silent.close()
    slow.close()


def test_a_peer_that_never_answers_costs_about_a_second(site: Site) -> None:
    a = site.add("a", [], publisher=True)
    a.ready()
    publish(site, a, {A: ONE, C: BIG})
    with socket.create_server(("127.0.0.1", 0)) as mute:
        node = site.add("f", [int(mute.getsockname()[1]), a.port])
        node.ready()
        all_follow([node], 1)
        begun = time.monotonic()
        assert request(node.port, f"/v2/library/one/blobs/{ONE.layers[0]}")[2] == ONE.blobs[ONE.layers[0]]
        assert time.monotonic() - begun < 2.5
        a.process.kill()
        begun = time.monotonic()
        status, _, body = request(node.port, f"/v2/library/big/blobs/{BIG.layers[0]}")
        assert time.monotonic() - begun < 2.5
        assert status == 503
        assert b"127.0.0.1" in body


def test_with_all_peers_dead_a_miss_is_404_and_a_known_blob_503(site: Site) -> None:
    a, b, c = site.trio()
    all_follow([b, c], publish(site, a, {A: ONE, C: BIG}))
    a.process.kill()
    c.process.kill()
    for path in ("library/none/manifests/1", "library/one/manifests/2", f"library/one/blobs/{made.sha(b'x')}"):
        begun = time.monotonic()
        assert request(b.port, f"/v2/{path}")[0] == 404
        assert time.monotonic() - begun < 1
    assert request(b.port, "/v2/library/one/manifests/1")[2] == ONE.raw
    for _ in range(3):
        begun = time.monotonic()
        status, _, body = request(b.port, f"/v2/library/big/blobs/{BIG.layers[0]}")
        assert status == 503
        assert BIG.layers[0].encode() in body
        assert time.monotonic() - begun < 2.5
    a.start()
    a.ready()
    wait_for("the blob again", lambda: request(b.port, f"/v2/library/big/blobs/{BIG.layers[0]}")[0] == 200, 40)


def test_an_agent_that_is_dead_takes_nothing_with_it(site: Site) -> None:
    a, b, _ = site.trio()
    all_follow([b], publish(site, a, {A: ONE}))
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(b.store / "agent.sock"))
        (agent, _, _) = struct.unpack("3i", asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    assert agent in workers_of(b.process.popen.pid)
    os.kill(agent, signal.SIGKILL)
    assert request(b.port, "/v2/library/one/manifests/1")[2] == ONE.raw
    wait_for("503", lambda: request(b.port, f"/v2/library/one/blobs/{ONE.layers[0]}")[0] in (200, 503), 5)


def test_a_client_that_takes_nothing_holds_up_nobody(site: Site) -> None:
    a = site.add("a", [], publisher=True)
    a.ready()
    publish(site, a, {A: ONE, C: BIG})
    idle = []
    for _ in range(20):
        client = socket.create_connection(("127.0.0.1", a.port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(f"GET /v2/library/big/blobs/{BIG.layers[0]} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        idle.append(client)
    begun = time.monotonic()
    assert request(a.port, f"/v2/library/big/blobs/{BIG.layers[0]}")[2] == BIG.blobs[BIG.layers[0]]
    assert time.monotonic() - begun < 5
    for client in idle:
        client.close()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_one_connection_serves_many_requests(site: Site, method: str) -> None:
    a = site.add("a", [], publisher=True)
    a.ready()
    publish(site, a, {A: ONE, B: TWO})
    connection = http.client.HTTPConnection("127.0.0.1", a.port, timeout=20)
    for _ in range(3):
        for digest, raw in TWO.blobs.items():
            connection.request(method, f"/v2/quay.io/team/two/blobs/{digest}")
            response = connection.getresponse()
            body = response.read()
            assert (response.status, response.headers["Content-Length"]) == (200, str(len(raw)))
            assert body == (raw if method == "GET" else b"")
        connection.request("GET", "/v2/none/manifests/x")
        missing = connection.getresponse()
        assert missing.status == 404
        missing.read()
    connection.close()
