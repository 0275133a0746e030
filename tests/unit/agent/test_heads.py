"""Following by heads: the long text is read only where a signed head says which it is and how long."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.agent.fetch import Fetcher
from appliance.agent.follow import Follower
from appliance.agent.indexes import HEAD_ANSWER, HEAD_SECONDS, IndexReader
from appliance.config import Peer
from appliance.peers.transport import PeerError
from appliance.store import readiness
from appliance.store.generations import Generation
from appliance.trust import Trust
from tests.unit.agent.fakes import FakePeer, FakePeers, at_once
from tests.unit.agent.test_daemon import Node, World
from tests.unit.store import made

HEAD, PUSHES_HEAD = "/p2p/v1/generation/head", "/p2p/v1/pushes/head"


class Site:
    """The publisher a, the follower b that has its first generation, and c, which is no seed and as far as a."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.a, self.b, self.c = world.node("a", "a"), world.node("b", "a"), world.node("c", "a")
        self.first = self.a.publish(1)
        self.b.follow(self.a)
        self.old = self.a.as_peer(heads=True)
        self.second = self.a.publish(2)
        with self.a.pushes.changing():
            self.pushed = self.a.pushes.replace({"docker.io/team/app:1": made.image(1).entry})

    @property
    def raw(self) -> str:
        """Path of the bytes of the newest generation."""
        return f"/p2p/v1/generation/raw/{self.second.digest}"

    def follower(self, **peers: FakePeer) -> tuple[Follower, FakePeers]:
        """Return what b follows with, and the way to its peers."""
        fakes = FakePeers(**peers)
        fetcher = Fetcher(self.b.blobs, fakes, at_once)
        return Follower(self.b.store, fakes, fetcher, at_once), fakes


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(World(tmp_path, monkeypatch))


def changed(peer: FakePeer, path: str = HEAD, **fields: Any) -> FakePeer:
    """Change fields of a head, and of its signature."""
    head = json.loads(peer.answers[path]()[1])
    for name, value in fields.items():
        (head["signature"] if name in head["signature"] else head)[name] = value
    return giving(peer, path, json.dumps(head).encode())


def giving(peer: FakePeer, path: str, body: bytes, status: int = 200) -> FakePeer:
    peer.answers[path] = lambda: (status, body)
    return peer


def paths(fakes: FakePeers, peer: str) -> list[str]:
    return [path for who, path, _ in fakes.asked if who == peer and path != "/p2p/v1/ping" and "/blobs/" not in path]


def test_the_head_is_read_first_and_then_as_many_bytes_as_it_says(site: Site) -> None:
    subject, fakes = site.follower(a=site.a.as_peer(heads=True))
    assert subject.look() == [site.second, site.pushed]
    pushes = f"/p2p/v1/pushes/raw/{site.pushed.digest}"
    assert paths(fakes, "a") == [HEAD, site.raw, PUSHES_HEAD, pushes]
    limits = {path: limit for _, path, limit in fakes.asked}
    assert (limits[site.raw], limits[HEAD]) == (len(site.second.raw), HEAD_ANSWER)
    signature = site.b.generations.signature(site.second)
    assert signature == site.a.generations.signature(site.second)
    assert signature is not None and signature.head is not None, "others have the head from here"
    assert subject.troubles.all() == []


def test_a_peer_without_heads_is_read_as_before(site: Site) -> None:
    subject, fakes = site.follower(a=site.a.as_peer())
    assert subject.look() == [site.second, site.pushed]
    assert paths(fakes, "a") == [HEAD, "/p2p/v1/generation", PUSHES_HEAD, "/p2p/v1/pushes"]
    assert subject.troubles.all() == []


def test_a_node_that_is_no_seed_hands_heads_on(site: Site) -> None:
    site.c.follow(site.a)
    subject, fakes = site.follower(c=site.c.as_peer(heads=True))
    assert subject.look() == [site.second, site.pushed]
    assert "/p2p/v1/generation" not in paths(fakes, "c")


def _by_no_seed(site: Site) -> FakePeer:
    head = site.a.generations.head(site.second)
    own = Trust(site.c.pki, "c", ["c"]).sign(site.second.raw, head.to_bytes())
    assert own is not None
    return changed(site.a.as_peer(heads=True), **own.to_dict())


def _of_another_kind(site: Site) -> FakePeer:
    peer = site.a.as_peer(heads=True)
    return giving(peer, HEAD, peer.answers[PUSHES_HEAD]()[1])


def _in_another_kinds_name(site: Site) -> FakePeer:
    return changed(_of_another_kind(site), kind="generation", number=9)


WRONG_HEADS: dict[str, tuple[Callable[[Site], FakePeer], str]] = {
    "letters": (lambda site: giving(site.a.as_peer(heads=True), HEAD, b"<html>"), "APL-0430"),
    "number-of-letters": (lambda site: changed(site.a.as_peer(heads=True), number="two"), "APL-0430"),
    "1-mib": (lambda site: giving(site.a.as_peer(heads=True), HEAD, b" " * (1 << 20)), "APL-0401"),
    "failed": (lambda site: giving(site.a.as_peer(heads=True), HEAD, b"", 500), "APL-0401"),
    "no-seed": (_by_no_seed, "APL-0606"),
    "another-kind": (_of_another_kind, "APL-0430"),
    "another-kinds-name": (_in_another_kinds_name, "APL-0606"),
    "number": (lambda site: changed(site.a.as_peer(heads=True), number=9), "APL-0606"),
    "size": (lambda site: changed(site.a.as_peer(heads=True), size=1 << 28), "APL-0606"),
    "digest": (lambda site: changed(site.a.as_peer(heads=True), digest=made.sha(b"x")), "APL-0606"),
    "signature-number": (lambda site: changed(site.a.as_peer(heads=True), signer=1), "APL-0605"),
    "signature-of-head-missing": (lambda site: changed(site.a.as_peer(heads=True), head=None), "APL-0606"),
    "older": (lambda site: giving(site.a.as_peer(heads=True), HEAD, site.old.answers[HEAD]()[1]), "APL-0430"),
}


@pytest.mark.parametrize("name", WRONG_HEADS)
def test_a_wrong_head_has_nothing_read_behind_it(site: Site, name: str) -> None:
    wrong, code = WRONG_HEADS[name]
    bad = wrong(site)
    subject, fakes = site.follower(c=bad)
    assert site.second not in subject.look()
    assert paths(fakes, "c")[0] == HEAD
    assert not {site.raw, "/p2p/v1/generation"} & set(paths(fakes, "c")), "its text is not asked for"
    (refused,) = [item for item in subject.refused if item.index == "generation"]
    assert (refused.peer, refused.problem.code, refused.signed) == ("c", code, False)
    assert [(item.peer, item.about) for item in subject.troubles.all()] == [("c", "generation")]
    subject, _ = site.follower(c=bad, a=site.a.as_peer(heads=True))
    assert site.second in subject.look(), "it concerns that peer alone"
    assert site.b.generations.current() == site.second


WRONG_TEXTS: dict[str, tuple[Callable[[bytes], tuple[int, bytes]], str]] = {
    "longer": (lambda raw: (200, raw + b" "), "APL-0401"),
    "shorter": (lambda raw: (200, raw[:-1]), "APL-0430"),
    "empty": (lambda raw: (200, b""), "APL-0430"),
    "other": (lambda raw: (200, raw.replace(b"seeding", b"feeding")), "APL-0430"),
    "gone": (lambda raw: (404, b"{}"), "APL-0401"),
    "failed": (lambda raw: (500, b""), "APL-0401"),
}


@pytest.mark.parametrize("name", WRONG_TEXTS)
def test_a_wrong_text_behind_a_right_head_is_refused(site: Site, name: str) -> None:
    change, code = WRONG_TEXTS[name]
    bad = site.a.as_peer(heads=True)
    bad.answers[site.raw] = lambda: change(site.second.raw)
    subject, fakes = site.follower(c=bad)
    assert site.second not in subject.look()
    assert "/p2p/v1/generation" not in paths(fakes, "c"), "it is no older release"
    (refused,) = [item for item in subject.refused if item.index == "generation"]
    assert (refused.problem.code, refused.number) == (code, 2)
    assert refused.signed, "a seed has signed that there is something newer"
    before = [path for path in paths(fakes, "c") if "/generation" in path]
    subject.look()
    assert [path for path in paths(fakes, "c") if "/generation" in path] == before, "it is left alone for a while"
    subject, _ = site.follower(c=bad, a=site.a.as_peer(heads=True))
    assert site.second in subject.look()


class Hurried(FakePeers):
    """Peers that write down how long each answer may take."""

    def __init__(self, **peers: FakePeer) -> None:
        super().__init__(**peers)
        self.seconds: list[tuple[str, float]] = []

    def ask(self, peer: Peer, method: str, path: str, **bounds: Any) -> tuple[int, bytes]:
        self.seconds.append((path, bounds.get("seconds", 0.0)))
        return super().ask(peer, method, path, **bounds)


def _drips() -> tuple[int, bytes]:
    raise PeerError("c: no whole answer")


def test_only_what_a_seed_vouches_for_gets_more_time_at_each_try(site: Site) -> None:
    """A head that dripped was waited for twice as long each time, up to 600 s, and so were all commands of the publisher."""
    head = site.a.generations.head(site.second)
    bad = site.a.as_peer(heads=True)
    for path in (HEAD, "/p2p/v1/generation", site.raw):
        bad.answers[path] = _drips
    fakes = Hurried(c=bad)
    (node,) = fakes.others
    asks: tuple[tuple[Callable[[IndexReader], object], bool], ...] = (
        (lambda subject: subject.head(node, "generation"), False),
        (lambda subject: subject.whole(node, "generation", 0), False),
        (lambda subject: subject.whole(replace(node, seed=True), "generation", 0), True),
        (lambda subject: subject.text(node, head), True),
    )
    for ask, grows in asks:
        subject = IndexReader(fakes, at_once)
        fakes.seconds.clear()
        for _ in range(5):
            with pytest.raises(PeerError):
                ask(subject)
        seconds = [each for _, each in fakes.seconds]
        assert (seconds[-1] > 8 * seconds[0]) is grows, fakes.seconds
        assert grows or set(seconds) == {seconds[0]}
    assert HEAD_SECONDS <= 3


def test_a_head_that_comes_makes_nobody_less_patient_with_its_text(site: Site) -> None:
    bad = site.a.as_peer(heads=True)
    bad.answers[site.raw] = _drips
    fakes = Hurried(c=bad)
    (node,) = fakes.others
    subject = IndexReader(fakes, at_once)
    for _ in range(3):
        told = subject.head(node, "generation")
        assert told is not None
        with pytest.raises(PeerError):
            subject.text(node, told[0])
    seconds = [each for path, each in fakes.seconds if path == site.raw]
    assert seconds == sorted(set(seconds))


def test_who_failed_before_is_asked_last_whatever_number_it_names(site: Site) -> None:
    liar = site.c.as_peer()
    liar.answers["/p2p/v1/ping"] = lambda: (
        200,
        json.dumps({"generation": {"number": 9, "digest": made.sha(b"x")}}).encode(),
    )
    liar.answers[HEAD] = _drips
    subject, fakes = site.follower(a=FakePeer(dead=True), c=liar)
    subject.look()
    fakes.fakes["a"] = site.a.as_peer(heads=True)
    subject.troubles.is_paused = lambda *_: False  # type: ignore[method-assign]
    fakes.asked.clear()
    assert site.second in subject.look()
    asked = [who for who, path, _ in fakes.asked if path == HEAD]
    assert asked == ["a", "c"], "what it has may be newer all the same"
    assert [(item.peer, item.number) for item in subject.refused] == [("c", 9)]


def test_a_true_ping_between_two_publications_brings_no_dripping_peer_to_the_front(site: Site) -> None:
    """It named a higher number after each publication, relayed the head, and was waited for twice as long each time."""

    def relays(generation: Any) -> FakePeer:
        peer = site.a.as_peer(heads=True)
        ahead = {"generation": {"number": generation.number + 1, "digest": made.sha(b"x")}}
        peer.answers["/p2p/v1/ping"] = lambda: (200, json.dumps(ahead).encode())
        peer.answers[f"/p2p/v1/generation/raw/{generation.digest}"] = _drips
        return peer

    subject, fakes = site.follower(a=site.a.as_peer(heads=True), c=relays(site.second))
    assert site.second in subject.look()
    assert subject.troubles.times("c", "generation") == 1
    fakes.fakes["c"] = site.a.as_peer(heads=True)
    subject.look()
    assert subject.troubles.times("c", "generation") == 0, "it is well again, as far as its ping goes"
    third = site.a.publish(3)
    fakes.fakes.update(a=site.a.as_peer(heads=True), c=relays(third))
    fakes.asked.clear()
    assert third in subject.look()
    asked = [who for who, path, _ in fakes.asked if path.startswith("/p2p/v1/generation/")]
    assert asked[:2] == ["a", "a"], "the head and the text of the peer that never failed"


def test_the_signature_over_the_whole_is_checked_all_the_same(site: Site) -> None:
    bad = site.a.as_peer(heads=True)
    head = json.loads(bad.answers[HEAD]()[1])
    head["signature"]["signature"] = head["signature"]["head"]
    giving(bad, HEAD, json.dumps(head).encode())
    subject, fakes = site.follower(c=bad)
    assert site.second not in subject.look()
    (refused,) = subject.refused
    assert refused.problem.code == "APL-0606"
    before = paths(fakes, "c")
    subject.look()
    assert paths(fakes, "c") == before, "it is left alone for a while"


def test_a_peer_that_moves_on_meanwhile_is_read_again(site: Site) -> None:
    """The publisher publishes between the two requests."""
    before = site.a.as_peer(heads=True)
    third = site.a.publish(3)
    after = site.a.as_peer(heads=True)
    heads = [before.answers[HEAD](), after.answers[HEAD]()]
    after.answers[HEAD] = lambda: heads.pop(0)
    giving(after, site.raw, b"{}", 404)
    subject, _ = site.follower(a=after)
    assert third in subject.look()
    assert heads == []


def test_another_generation_of_one_number_is_found_by_its_head(site: Site) -> None:
    other = Node(site.world.root / "old", "a", "a")
    other.pki = site.a.pki
    other.listen_to("a")
    other.publish(9)
    subject, _ = site.follower(a=other.as_peer(heads=True))
    subject.look()
    (refused,) = subject.refused
    assert (refused.problem.code, refused.signed, refused.number) == ("APL-0306", True, 1)
    assert site.b.generations.current() == site.first


def test_what_only_a_ping_says_is_not_signed_by_a_head_that_was(site: Site) -> None:
    """Else a peer that gave one newer head in time would stop the publisher with numbers of its own."""
    bad = giving(site.a.as_peer(heads=True), site.raw, b"")
    subject, _ = site.follower(c=bad)
    subject.look()
    claims = {"number": 10**6, "digest": made.sha(b"claimed")}
    giving(bad, "/p2p/v1/ping", json.dumps({"generation": claims}).encode())
    subject.look()
    assert [(item.number, item.digest) for item in subject.refused] == [(2, site.second.digest)]
    site.b.follow(site.a)
    subject.look()
    assert subject.refused == []


def restored(site: Site, generation: Generation) -> Node:
    """Return the publisher with a store that has no more than one generation."""
    node = Node(site.world.root / "restored", "a", "a")
    node.pki = site.a.pki
    node.listen_to("a")
    signature = site.a.generations.signature(generation)
    node.generations.accept(generation.raw, signature, lambda _: None)
    return node


def test_a_publisher_does_not_publish_over_what_a_seed_has_signed(site: Site) -> None:
    """It lost the newest generation; the one peer that has it gives its head, and cannot give the text."""
    publisher = restored(site, site.first)
    peer = giving(site.a.as_peer(heads=True), site.raw, b"", 500)
    assert not site.world.agent(publisher, b=peer).look()["settled"]
    assert not readiness.is_settled(publisher.blobs.root)
    assert site.world.agent(publisher, b=site.a.as_peer(heads=True)).look()["settled"]
    assert publisher.generations.current() == site.second


@pytest.mark.parametrize("name", ["letters", "no-seed", "number", "older", "another-kind"])
def test_a_publisher_is_not_stopped_by_a_head_that_proves_nothing(site: Site, name: str) -> None:
    publisher = restored(site, site.first)
    assert site.world.agent(publisher, c=WRONG_HEADS[name][0](site)).look()["settled"]
