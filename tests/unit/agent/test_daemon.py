"""The publisher's agent: it publishes nothing before it has the newest that any node has."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import spawn_later

from appliance import pki
from appliance.agent import daemon
from appliance.agent.daemon import Agent
from appliance.agent.fetch import Progress
from appliance.config import Config, LiveConfig, Peer
from appliance.oci.manifests import Descriptor
from appliance.store import readiness
from appliance.store.catalog import LiveCatalog
from appliance.store.generations import Generation, make
from appliance.store.index import SignedIndex
from appliance.store.pins import Pins
from appliance.trust import Trust
from tests.keys import certify
from tests.unit.agent.fakes import FakePeer, FakePeers, at_once
from tests.unit.store import made

NAME = "docker.io/library/a:1"
NODES = ("a", "b", "c")


class Node:
    """A node's store with its keys.

    :param name: its id.
    :param seeds: whom it believes.
    """

    def __init__(self, root: Path, name: str, *seeds: str) -> None:
        self.name, self.pki = name, root / name
        self.blobs = made.open_store(root / f"store-{name}")
        self.listen_to(*seeds)

    def listen_to(self, *seeds: str) -> None:
        self.seeds = seeds
        listed = tuple(Peer(name, f"https://{name}", name) for name in NODES)
        self.store = made.store(
            self.blobs, trust=Trust(self.pki, self.name, seeds), node=self.name, peers=listed, seeds=seeds, pki=self.pki
        )
        self.generations, self.pushes = self.store.generations, self.store.pushes
        self.indexes: dict[str, SignedIndex[Any]] = {"generation": self.generations, "pushes": self.pushes}

    def publish(self, number: int) -> Generation:
        """Make the generation that follows and has one image."""
        image = made.image(number)
        made.fill(self.blobs, [image])
        made_now = make(
            self.generations.current(), {NAME: image.entry}, {}, cause="seeding", created=made.CREATED, sources=[]
        )
        self.generations.publish(made_now)
        return made_now

    def follow(self, other: Node) -> None:
        """Take what another node has, with all blobs."""
        for digest, _ in other.blobs.digests():
            self.blobs.put_bytes(other.blobs.read(digest, 1 << 20))
        for name, theirs in other.indexes.items():
            current = theirs.current()
            if current is not None:
                self.indexes[name].accept(current.raw, theirs.signature(current), lambda _: None)

    def as_peer(self, *, heads: bool = False) -> FakePeer:
        """Return the node as a peer that answers others.

        :param heads: whether it gives heads of its indexes; an older release gives none.
        """
        ping, answers = {}, dict[str, Callable[[], tuple[int, bytes]]]()
        for name, index in self.indexes.items():
            current = index.current()
            if current is None:
                continue
            signature = index.signature(current)
            ping[name] = {"number": current.number, "digest": current.digest}
            said = json.dumps({"raw": current.raw.decode(), "signature": signature and signature.__dict__}).encode()
            answers[f"/p2p/v1/{name}"] = lambda said=said: (200, said)  # type: ignore[misc]
            if heads and signature is not None:
                head = json.dumps({**asdict(index.head(current)), "signature": signature.to_dict()}).encode()
                answers[f"/p2p/v1/{name}/head"] = lambda head=head: (200, head)  # type: ignore[misc]
                answers[f"/p2p/v1/{name}/raw/{current.digest}"] = lambda raw=current.raw: (200, raw)  # type: ignore[misc]
        answers["/p2p/v1/ping"] = lambda: (200, json.dumps(ping).encode())
        held = {digest: self.blobs.read(digest, 1 << 20) for digest, _ in self.blobs.digests()}
        return FakePeer(held, answers=answers)


class World:
    """The keys of a site, and agents over fake peers."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._patch = root, monkeypatch
        pki.init_ca(root / "ca")
        self.key(*NODES)

    def key(self, *names: str) -> None:
        """Make keys and certificates, anew where there are some."""
        for name in names:
            directory = self.root / name
            for file in directory.glob("node.*"):
                file.unlink()
            certify(self.root / "ca", directory, name)

    def node(self, name: str, *seeds: str) -> Node:
        return Node(self.root, name, *seeds)

    def agent(self, node: Node, **peers: FakePeer) -> Agent:
        listed = tuple(Peer(name, f"https://{name}", name) for name in (node.name, *peers))
        config = Config(node.name, node.blobs.root, listed, node.seeds, pki=node.pki)
        self._patch.setattr(daemon, "HttpsTransport", lambda current: FakePeers(**peers))
        self._patch.setattr(daemon, "run_in_thread", at_once)
        catalog = LiveCatalog(node.blobs, node.generations, node.pushes)
        return Agent(LiveConfig(config), node.store, catalog)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def signer(node: Node) -> str | None:
    current = node.generations.current()
    signature = node.generations.signature(current) if current else None
    return signature.signer if signature else None


def journal(node: Node) -> list[dict[str, object]]:
    file = node.blobs.root / "journal.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_new_site_is_settled_once_everybody_has_said_that_there_is_nothing(world: World) -> None:
    a, b = world.node("a", "a"), world.node("b", "a")
    dead = FakePeer(dead=True)
    found = world.agent(a, b=b.as_peer(), c=dead).look()
    assert found == {"settled": False, "silent": ["c"], "refused": []}
    assert world.agent(a, b=b.as_peer(), c=FakePeer(answers={"/p2p/v1/ping": lambda: (403, b"")})).look()["silent"] == [
        "c"
    ]
    assert world.agent(a, b=b.as_peer()).look() == {"settled": True, "silent": [], "refused": []}
    assert world.agent(a, b=dead).look()["settled"], "once it is sure it stays so"
    assert journal(a) == []


def test_a_publisher_that_was_rebuilt_from_nothing_goes_on_from_what_the_others_have(world: World) -> None:
    a, b = world.node("a", "a"), world.node("b", "a")
    a.publish(1)
    second = a.publish(2)
    with a.pushes.changing():
        a.pushes.replace({"docker.io/team/app:1": made.image(1).entry})
    b.follow(a)
    world.key("a")
    rebuilt = Node(world.root / "again", "a", "a")
    rebuilt.pki = a.pki
    rebuilt.listen_to("a")
    assert world.agent(rebuilt, b=b.as_peer()).look()["settled"]
    assert rebuilt.generations.current() == second
    assert rebuilt.pushes.current() == a.pushes.current()
    assert rebuilt.publish(3).number == 3
    b.follow(rebuilt)
    assert b.generations.current() == rebuilt.generations.current()
    assert [line["action"] for line in journal(rebuilt)] == ["take-over"]


def test_the_heir_follows_the_newest_of_the_lost_publisher_before_it_signs_anew(world: World) -> None:
    a, b, c = world.node("a", "a"), world.node("b", "a"), world.node("c", "a")
    a.publish(1)
    b.follow(a)
    newest = a.publish(2)
    c.follow(a)
    b.listen_to("b")
    found = world.agent(b, c=FakePeer(dead=True)).look()
    assert (found["settled"], signer(b)) == (False, "a"), "the one that is silent may have something newer"
    assert world.agent(b, c=c.as_peer()).look()["settled"]
    assert (b.generations.current(), signer(b)) == (newest, "b")
    c.listen_to("b")
    third = b.publish(3)
    c.follow(b)
    assert c.generations.current() == third


def test_a_lost_publishers_signature_counts_no_more_once_the_heir_has_signed(world: World) -> None:
    a, b, c = world.node("a", "a"), world.node("b", "a"), world.node("c", "a")
    a.publish(1)
    b.follow(a)
    b.listen_to("b")
    assert world.agent(b).look()["settled"]
    late = a.publish(2)
    c.follow(a)
    found = world.agent(b, c=c.as_peer()).look()
    assert b.generations.current() != late
    ((refused,), settled) = found["refused"], found["settled"]
    assert settled, "who only says that it has something newer holds up nobody"
    assert (refused["peer"], refused["number"], refused["problem"]["code"]) == ("c", 2, "APL-0606")


def test_no_other_node_takes_what_no_listed_seed_signed(world: World) -> None:
    a, b, c = world.node("a", "a"), world.node("b", "a"), world.node("c", "a")
    a.publish(1)
    for node in (b, c):
        node.follow(a)
        node.listen_to("b")
    a.publish(2)
    found = world.agent(c, a=a.as_peer()).look()
    assert [refused["problem"]["code"] for refused in found["refused"]] == ["APL-0606"]
    assert not readiness.is_settled(c.blobs.root)


def test_two_generations_of_one_number_stop_the_publisher_until_one_is_given_up(world: World) -> None:
    a, b = world.node("a", "a"), world.node("b", "a")
    a.publish(1)
    b.follow(a)
    assert world.agent(a, b=b.as_peer()).look()["settled"]
    other = Node(world.root / "old", "a", "a")
    other.pki = a.pki
    other.listen_to("a")
    other.publish(9)
    theirs, mine = b.generations.current(), other.generations.current()
    assert theirs is not None and mine is not None
    readiness.mark_ready(other.blobs.root, "a")
    found = world.agent(other, b=b.as_peer()).look()
    assert not found["settled"]
    ((refused,), problem) = found["refused"], found["refused"][0]["problem"]
    assert (refused["peer"], refused["digest"], problem["code"]) == ("b", theirs.digest, "APL-0306")
    assert mine.digest in problem["why"] and theirs.digest in problem["why"]
    assert other.generations.current() == mine, "nothing is lost"
    assert not world.agent(other, b=b.as_peer()).look(["c"])["settled"]
    assert world.agent(other, b=b.as_peer()).look(["b"]) == {"settled": True, "silent": [], "refused": []}
    assert world.agent(other, b=b.as_peer()).look()["settled"], "it was given up for good"
    assert journal(other)[-1]["given_up"] == [theirs.digest]
    third = other.publish(3)
    b.follow(other)
    assert b.generations.current() == third


def test_without_a_node_that_will_never_answer(world: World) -> None:
    a = world.node("a", "a")
    agent = world.agent(a, b=FakePeer(dead=True), c=FakePeer(dead=True))
    assert not agent.look(["b"])["settled"]
    assert agent.look(["b", "c"])["settled"]


def test_the_one_that_is_not_the_publisher_any_more_loses_its_mark(world: World) -> None:
    a, b = world.node("a", "a"), world.node("b", "a")
    assert world.agent(a, b=b.as_peer()).look()["settled"]
    a.listen_to("b")
    assert not world.agent(a, b=b.as_peer()).look()["settled"]
    assert not readiness.is_settled(a.blobs.root)


def test_the_agent_is_asked_to_look_over_its_socket(world: World) -> None:
    a = world.node("a", "a")
    client = world.agent(a, b=FakePeer(dead=True)).application().test_client()
    assert client.get("/v1/look").status_code == 405
    assert client.post("/v1/look").json == {"settled": False, "silent": ["b"], "refused": []}
    assert json.loads(client.post("/v1/look?without=b").data)["settled"]
    assert json.loads(client.get("/v1/status").data)["standing"]["settled"]


def test_what_is_pinned_is_repaired_after_its_name_has_moved_on(world: World) -> None:
    a, b = world.node("a", "a"), world.node("b", "a")
    first = a.publish(1)
    Pins(a.blobs, Trust(a.pki, "a", a.seeds)).replace(dict(first.names))
    b.follow(a)
    for number in range(2, 7):
        a.publish(number)
    (layer,) = made.image(1).layers
    subject = world.agent(a, b=b.as_peer(), c=FakePeer())
    assert a.blobs.quarantine(layer, None) is not None
    assert [item.digest for item in subject._wanted()] == [layer]
    answer = subject.application().test_client().post("/v1/repair")
    assert answer.json is not None and answer.json["back"] == [layer]
    assert a.blobs.has(layer)


@pytest.mark.parametrize(
    "signature",
    [{"signer": 1}, {"signer": "b", "certificate": "", "signature": ""}, None, "x", {"signer": "b"}],
)
def test_a_publisher_is_not_stopped_by_what_no_listed_node_has_signed(world: World, signature: object) -> None:
    """And takes over all the same: what came and is none says that its peer has nothing."""
    a, b = world.node("a", "a"), world.node("b", "a", "b")
    b.publish(1)
    bad, signed = b.as_peer(), b.as_peer()
    raw = json.loads(bad.answers["/p2p/v1/generation"]()[1])["raw"]
    bad.answers["/p2p/v1/generation"] = lambda: (200, json.dumps({"raw": raw, "signature": signature}).encode())
    found = world.agent(a, b=bad).look()
    assert found["settled"]
    assert found["refused"][0]["number"] == 1
    # What is signed by a node that may not sign is none either.
    assert world.agent(a, b=signed).look()["settled"]


@pytest.mark.parametrize("status", [500, 200])
def test_a_publisher_that_is_not_sure_waits_for_what_it_could_not_read(world: World, status: int) -> None:
    """It may be newer; one that was sure before goes on."""
    a, b = world.node("a", "a"), world.node("b", "a")
    a.publish(1)
    b.follow(a)
    a.publish(2)
    peer = a.as_peer()
    old = world.node("c", "c")
    peer.answers["/p2p/v1/generation"] = lambda: (status, b"")
    agent = world.agent(old, b=peer)
    assert agent.look()["settled"] is (status == 200)
    readiness.mark_ready(old.blobs.root, "c")
    assert agent.look()["settled"]


def test_one_ping_that_is_none_fails_no_status(world: World) -> None:
    a, b = world.node("a", "a"), world.node("b", "a")
    odd = FakePeer(answers={"/p2p/v1/ping": lambda: (200, b"[" * 60_000)})
    endless = FakePeer(answers={"/p2p/v1/ping": lambda: (200, b'{"generation":{"number":1e999,"digest":"x"}}')})
    shown = world.agent(a, b=b.as_peer(), c=odd, d=endless).status()
    states = {peer["id"]: peer["state"] for peer in shown["peers"]}
    assert states == {"b": "up", "c": "down", "d": "down"}
    assert json.dumps(shown, allow_nan=False)


def test_the_status_waits_for_all_peers_together(world: World) -> None:
    """Of 200 listed nodes 197 are off: a promise says 2 s."""
    a, b = world.node("a", "a"), world.node("b", "a")
    agent = world.agent(a, b=b.as_peer(), **{f"n{number}": FakePeer(silent=True) for number in range(197)})
    begun = time.monotonic()
    peers = agent.status()["peers"]
    assert time.monotonic() - begun <= 2.0
    assert [peer["id"] for peer in peers if peer["state"] == "up"] == ["b"]
    assert len(peers) == 198


def test_a_read_only_store_ends_no_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = world.node("a", "a"), world.node("b", "a")

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(readiness, "mark_ready", refuse)
    agent = world.agent(a, b=b.as_peer())
    assert not agent.look()["settled"]
    (trouble,) = agent.status()["troubles"]
    assert "Read-only file system" in trouble["reason"]


def test_one_blob_that_never_ends_keeps_back_nothing_that_is_wanted_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listed node dripped one lost layer, and nothing that was published after it was replicated."""
    a, b = world.node("a", "a"), world.node("b", "a")
    for number in (1, 2):
        a.publish(number)
    b.follow(a)
    agent = world.agent(b, a=a.as_peer())
    (lost,), (later,) = made.image(2).layers, made.image(1).layers
    (b.blobs.root / "blobs" / lost.replace(":", "/")).unlink()
    begun: list[str] = []

    def fetch(digest: str, size: int, *_: object, **__: object) -> Progress:
        begun.append(digest)
        if digest == lost:
            gevent.sleep(3600)
        b.blobs.put_bytes(a.blobs.read(digest, 1 << 20))
        return Progress(size, size, "complete")

    monkeypatch.setattr(agent._fetcher, "fetch", fetch)
    judged: list[list[str]] = []
    monkeypatch.setattr(agent._lost, "judge", lambda missing, running: judged.append(running))
    loops = [gevent.spawn(daemon._forever, loop) for loop in (agent._replicating, agent._judging)]
    try:
        until(lambda: begun == [lost])
        monkeypatch.setattr(agent, "_wanted", lambda older=False: [blob(a, lost), blob(a, later)])
        agent._replicate_soon()
        until(lambda: later in begun)
        assert begun == [lost, later]
        until(lambda: bool(judged))
        assert lost in judged[-1], "nobody can say yet that it is lost"
    finally:
        gevent.killall(loops)


def blob(node: Node, digest: str) -> Descriptor:
    size = node.blobs.size(digest)
    assert size is not None
    return Descriptor("application/octet-stream", digest, size)


def until(holds: Callable[[], bool]) -> None:
    """Let others run until something holds."""
    with gevent.Timeout(10):
        while not holds():
            gevent.sleep(0.01)


def test_calls_without_a_pause_get_a_look_a_second(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = world.node("a", "b"), world.node("b", "b")
    agent = world.agent(a, b=b.as_peer())
    slept = list[float]()
    monkeypatch.setattr("appliance.agent.daemon.gevent.sleep", slept.append)
    for _ in range(3):
        agent.wake()
        spawn_later(0.01, agent.wake)
        agent._follow()
    # The fakes give turns by sleeping for no time.
    assert len([pause for pause in slept if 0 < pause <= 1]) == 2


def test_a_loop_that_fails_again_and_again_writes_one_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Ended(BaseException):
        pass

    times = iter(range(50))

    def loop() -> None:
        if next(times, None) is None:
            raise Ended
        raise ZeroDivisionError

    monkeypatch.setattr("appliance.agent.daemon.gevent.sleep", lambda _: None)
    monkeypatch.setattr("appliance.agent.daemon.time.monotonic", lambda: 1000.0)
    with pytest.raises(Ended):
        daemon._forever(loop)
    assert len(caplog.records) == 1
