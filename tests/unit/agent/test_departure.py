"""What a node that leaves would take with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gevent

from appliance.agent.departure import Leaving
from appliance.agent.fetch import Fetcher
from appliance.config import Peer
from appliance.peers.transport import PeerError
from appliance.store.blobs import BlobStore
from tests.unit.agent.fakes import FakePeer, FakePeers, at_once
from tests.unit.store import made

NAME, OTHER, PUSHED = "docker.io/library/a:1", "docker.io/library/b:1", "docker.io/team/app:1"
ONE, TWO, THREE = made.image(1, size=5000), made.image(2, size=6000), made.image(3)


def peer(*images: made.Image, lacks: Iterable[str] = (), **more: Any) -> FakePeer:
    held = {digest: raw for image in images for digest, raw in image.blobs.items() if digest not in set(lacks)}
    return FakePeer(held, answers={"/p2p/v1/ping": lambda: (200, b"{}")}, **more)


def dead() -> FakePeer:
    return FakePeer(dead=True)


def leaving(store: BlobStore, *, keep: int = 3, **peers: FakePeer) -> Leaving:
    fakes = FakePeers(**peers)
    fetcher = Fetcher(store, fakes, at_once)
    return Leaving(made.store(store, keep_generations=keep), fakes, fetcher, lambda _: None, at_once)


def digests(rows: list[dict[str, Any]]) -> set[str]:
    return {row["digest"] for row in rows}


def test_nobody_leaves(store: BlobStore) -> None:
    made.publish(store, {NAME: ONE}, leave_out=ONE.layers)
    found = leaving(store, b=dead(), c=peer()).report(["b", "c"])
    assert found == {"leaving": [], "silent": ["b"], "only_there": [], "at_risk": []}


def test_what_others_hold_may_leave(store: BlobStore) -> None:
    made.publish(store, {NAME: ONE}, leave_out=ONE.layers)
    for gone in (peer(ONE), dead()):
        found = leaving(store, b=peer(ONE), c=gone).report(["b"])
        assert (found["leaving"], found["only_there"], found["at_risk"]) == (["c"], [], [])


def test_what_only_the_leaving_one_holds_is_named_with_its_images_and_fetched(store: BlobStore) -> None:
    made.publish(store, {NAME: ONE, OTHER: TWO}, leave_out=ONE.layers)
    made.push(store, {PUSHED: ONE})
    (layer,) = ONE.layers
    store.path(layer).unlink()
    subject = leaving(store, b=peer(), c=peer(ONE))
    names = [NAME, PUSHED, f"docker.io/team/app@{ONE.digest}"]
    expected = [{"digest": layer, "size": len(ONE.blobs[layer]), "names": names, "served": True}]
    found = subject.report(["b"])
    assert (found["only_there"], found["at_risk"]) == (expected, [])
    assert not store.has(layer), "to look changes nothing"
    brought = subject.fetch(["b"])
    assert (brought["fetched"], brought["failed"], brought["only_there"]) == (1, [], [])
    assert store.has(layer)


def test_what_is_pinned_counts_after_its_name_has_left(store: BlobStore) -> None:
    made.publish(store, {NAME: ONE, OTHER: TWO})
    made.pins(store).replace({NAME: ONE.entry})
    for number in range(4):
        made.publish(store, {OTHER: made.image(20 + number)})
    (layer,) = ONE.layers
    store.path(layer).unlink()
    found = leaving(store, b=peer(), c=peer(ONE)).report(["b"])
    assert [(row["digest"], row["names"], row["served"]) for row in found["only_there"]] == [(layer, [NAME], True)]
    assert leaving(store, b=peer(), c=peer(ONE)).fetch(["b"])["fetched"] == 1
    assert store.has(layer)


def test_what_a_silent_one_may_hold_is_at_risk_and_what_nobody_holds_is_not(store: BlobStore) -> None:
    made.publish(store, {NAME: ONE}, leave_out=ONE.layers)
    found = leaving(store, b=peer(), c=dead()).report(["b"])
    assert digests(found["at_risk"]) == set(ONE.layers)
    assert found["silent"] == ["c"]
    assert leaving(store, b=peer(), c=peer()).report(["b"])["at_risk"] == [], "it does not have it either"
    both = leaving(store, b=peer(), c=dead(), d=peer(ONE)).report(["b"])
    assert (both["at_risk"], digests(both["only_there"])) == ([], set(ONE.layers))


def test_a_node_that_stays_and_is_silent_counts_as_holding_nothing(store: BlobStore) -> None:
    made.publish(store, {NAME: ONE}, leave_out=ONE.layers)
    found = leaving(store, b=dead(), c=peer(ONE)).report(["b"])
    assert digests(found["only_there"]) == set(ONE.layers)


class Dripping(FakePeers):
    """Peers of which c answers pings alone."""

    heads = 0

    def ask(self, peer: Peer, method: str, path: str, **bounds: Any) -> tuple[int, bytes]:
        if peer.id == "c" and method == "HEAD":
            self.heads += 1
            for _ in range(3):
                gevent.sleep(0)
            raise PeerError("c: no whole answer in 1.8 s")
        return super().ask(peer, method, path, **bounds)


def test_a_node_that_drips_is_asked_no_more_and_counts_as_silent(store: BlobStore) -> None:
    """Each of 602 blobs cost its time-out: a report took 73 s."""
    images = [made.image(number, size=100) for number in range(30, 90)]
    made.publish(
        store,
        {f"docker.io/library/x{number}:1": image for number, image in enumerate(images)},
        leave_out=[digest for image in images for digest in image.layers],
    )
    subject = leaving(store)
    for staying in (["b"], ["c"]):
        subject._peers = fakes = Dripping(b=peer(*images[:-1]), c=peer(*images))
        found = subject.report(staying)
        assert found["silent"] == ["c"]
        assert 0 < fakes.heads <= 16, "those that were asked in one moment"
        if staying == ["b"]:
            assert digests(found["at_risk"]) == set(images[-1].layers), "it may hold it"
        else:
            assert len(found["only_there"]) == len(images) - 1, "it counts as holding nothing"


def test_older_generations_that_are_kept_count_too(store: BlobStore) -> None:
    made.publish(store, {NAME: ONE}, leave_out=ONE.layers)
    made.publish(store, {NAME: TWO})
    (row,) = leaving(store, c=peer(ONE)).report([])["only_there"]
    assert (row["digest"], row["names"], row["served"]) == (ONE.layers[0], [NAME], False)
    made.push(store, {PUSHED: ONE})
    store.path(ONE.layers[0]).unlink()
    (row,) = leaving(store, c=peer(ONE)).report([])["only_there"]
    assert row["served"], "what was pushed is served"


def test_what_was_collected_of_generations_that_are_history_is_no_loss(store: BlobStore) -> None:
    made.publish(store, {NAME: ONE}, leave_out=ONE.blobs)
    made.publish(store, {NAME: TWO})
    made.publish(store, {NAME: THREE})
    for gone in (dead(), peer(ONE)):
        found = leaving(store, keep=2, b=peer(TWO, THREE), c=gone).report(["b"])
        assert (found["leaving"], found["only_there"], found["at_risk"]) == (["c"], [], [])


def test_a_manifest_that_is_brought_shows_what_else_is_only_there(store: BlobStore) -> None:
    made.publish(store, {NAME: ONE}, leave_out=ONE.blobs)
    subject = leaving(store, c=peer(ONE))
    assert digests(subject.report([])["only_there"]) == {ONE.digest}
    assert subject.fetch([])["fetched"] == len(ONE.blobs)
    assert all(store.has(digest) for digest in ONE.blobs)


def test_what_cannot_be_fetched_is_said(store: BlobStore) -> None:
    made.publish(store, {NAME: ONE}, leave_out=ONE.layers)
    (layer,) = ONE.layers
    rotten = peer(ONE)
    rotten.blobs[layer] = bytes(len(ONE.blobs[layer]))
    found = leaving(store, c=rotten).fetch([])
    assert (found["fetched"], digests(found["only_there"])) == (0, {layer})
    assert layer in found["failed"][0]
