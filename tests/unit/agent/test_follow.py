"""Following: the newest that a seed signed, whole, and soon again when it could not be had."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from gevent.event import Event

from appliance.agent.fetch import Fetcher
from appliance.agent.follow import Follower
from appliance.agent.troubles import Troubles
from appliance.peers.transport import PeerError
from appliance.store.blobs import BlobStore
from appliance.store.generations import Generation, Generations
from appliance.store.index import Entry, NameIndex
from appliance.store.pins import Pinned
from appliance.store.pushes import Pushed
from appliance.store.reachability import needed
from tests.unit.agent.fakes import FakePeer, FakePeers, at_once
from tests.unit.store import made

NAME = "docker.io/library/a:1"


def serving(
    generation: Generation | None,
    blobs: Mapping[str, bytes],
    *,
    pushed: Pushed | None = None,
    pinned: Pinned | None = None,
    **more: Any,
) -> FakePeer:
    def said(index: NameIndex | None) -> dict[str, Any] | None:
        return {"number": index.number, "digest": index.digest} if index else None

    def whole(index: NameIndex | None) -> tuple[int, bytes]:
        return 200, json.dumps({"raw": index.raw.decode() if index else "", "signature": None}).encode()

    ping = {"node": "x", "generation": said(generation)}
    ping |= {name: said(index) for name, index in (("pushes", pushed), ("pins", pinned)) if index}
    return FakePeer(
        dict(blobs),
        answers={
            "/p2p/v1/ping": lambda: (200, json.dumps(ping).encode()),
            "/p2p/v1/generation": lambda: whole(generation),
            "/p2p/v1/pushes": lambda: whole(pushed),
            "/p2p/v1/pins": lambda: whole(pinned),
        },
        **more,
    )


def follower(store: BlobStore, **peers: FakePeer) -> Follower:
    fakes = FakePeers(**peers)
    fetcher = Fetcher(store, fakes, at_once)
    return Follower(made.store(store), fakes, fetcher, at_once)


@pytest.fixture
def publisher(tmp_path_factory: pytest.TempPathFactory) -> BlobStore:
    """Another node's store."""
    return made.open_store(tmp_path_factory.mktemp("publisher") / "store")


def contents(store: BlobStore) -> dict[str, bytes]:
    return {digest: store.read(digest, 1 << 30) for digest, _ in store.digests()}


def test_a_newer_generation_is_followed_with_all_its_manifests(store: BlobStore, publisher: BlobStore) -> None:
    both = made.index({"amd64": made.image(1), "arm64": made.image(2, arch="arm64", size=2 << 20)})
    generation = made.publish(publisher, {NAME: both}, piece_maps=True)
    subject = follower(store, a=serving(generation, contents(publisher)))
    assert subject.look() == [generation]
    assert subject.seen == {"a": 1}
    assert not subject.behind
    (piece_map,) = generation.piece_maps.values()
    manifests = {both.digest, *(item["digest"] for item in both.document["manifests"]), piece_map.digest}
    assert {digest for digest, _ in store.digests()} == manifests
    assert subject.look() == []


def test_signatures_come_with_the_generation(store: BlobStore, publisher: BlobStore) -> None:
    """Their manifests before it is followed; their blobs are wanted as those of names are."""
    one = made.image(1)
    signature = made.image(5, subject=one)
    nested = made.image(6, subject=signature)
    generation = made.publish(publisher, {NAME: one}, referrers={one.digest: [signature], signature.digest: [nested]})
    subject = follower(store, a=serving(generation, contents(publisher)))
    assert subject.look() == [generation]
    assert {digest for digest, _ in store.digests()} == {one.digest, signature.digest, nested.digest}
    found = needed(generation, store)
    assert {*signature.blobs, *nested.blobs} <= found.keys()
    lacking = {digest: raw for digest, raw in contents(publisher).items() if digest != nested.digest}
    behind = follower(made.open_store(store.root.parent / "third"), a=serving(generation, lacking))
    assert behind.look() == []


def test_the_newest_of_all_is_taken(store: BlobStore, publisher: BlobStore) -> None:
    old = made.publish(publisher, {NAME: made.image(1)})
    new = made.publish(publisher, {NAME: made.image(2)})
    held = contents(publisher)
    subject = follower(store, a=serving(old, held), b=serving(new, held, slow=5), c=serving(None, {}))
    assert subject.look() == [new]
    assert subject.seen == {"a": 1, "b": 2, "c": None}


def test_one_that_is_slow_to_answer_is_not_waited_for_and_not_forgotten(store: BlobStore, publisher: BlobStore) -> None:
    first = made.publish(publisher, {NAME: made.image(1)})
    second = made.publish(publisher, {NAME: made.image(2)})
    held, followed = contents(publisher), Event()
    quick, slow = serving(first, held), serving(second, held)
    answer, ping = quick.answers["/p2p/v1/generation"], slow.answers["/p2p/v1/ping"]
    quick.answers["/p2p/v1/generation"] = lambda: (followed.set(), answer())[1]
    slow.answers["/p2p/v1/ping"] = lambda: (followed.wait(5), ping())[1]
    assert follower(store, a=slow, b=quick, c=FakePeer(dead=True)).look() == [first, second]


def test_nothing_is_followed_that_is_not_whole(store: BlobStore, publisher: BlobStore) -> None:
    first = made.publish(publisher, {NAME: made.image(1)})
    one = made.image(2)
    second = made.publish(publisher, {NAME: one})
    held = contents(publisher)
    subject = follower(store, a=serving(first, held))
    assert subject.look() == [first]
    lacking = {digest: raw for digest, raw in held.items() if digest != one.digest}
    behind = follower(store, a=serving(second, lacking))
    assert behind.look() == []
    assert behind.behind
    assert made.generations(store).current() == first
    assert follower(store, a=serving(second, held)).look() == [second]


def test_a_manifest_is_had_from_whoever_holds_it(store: BlobStore, publisher: BlobStore) -> None:
    one = made.image(1)
    generation = made.publish(publisher, {NAME: one})
    subject = follower(store, a=serving(generation, {}), b=serving(None, {one.digest: one.raw}))
    assert subject.look() == [generation]


def test_what_one_name_leaves_out_is_brought_for_another(store: BlobStore, publisher: BlobStore) -> None:
    arm = made.image(2, arch="arm64")
    both = made.index({"amd64": made.image(1), "arm64": arm})
    made.fill(publisher, [both])
    sparse = Entry(both.entry.descriptor, frozenset({arm.digest}))
    generation = made.publish(publisher, {NAME: sparse, "docker.io/library/b:1": both})
    assert follower(store, a=serving(generation, contents(publisher))).look() == [generation]
    assert store.has(arm.digest)


def test_one_bad_peer_does_not_hide_a_good_one(store: BlobStore, publisher: BlobStore) -> None:
    generation = made.publish(publisher, {NAME: made.image(1)})
    held = contents(publisher)
    liars: dict[str, FakePeer] = {}
    for number, answer in enumerate(
        [
            (200, b"rot"),
            (200, b"[]"),
            (200, b'{"raw":5,"signature":null}'),
            (500, b""),
            (200, b'{"raw":"x","signature":5}'),
        ]
    ):
        liar = serving(generation, held)
        liar.answers["/p2p/v1/generation"] = lambda answer=answer: answer  # type: ignore[misc]  # bound at once
        liars[f"a{number}"] = liar
    for number, ping in enumerate([b"rot", b"[]", b'{"generation":5}', b'{"generation":{"number":"x","digest":1}}']):
        liar = serving(generation, held)
        liar.answers["/p2p/v1/ping"] = lambda ping=ping: (200, ping)  # type: ignore[misc]  # bound at once
        liars[f"b{number}"] = liar
    liars["dead"] = FakePeer(dead=True)
    subject = follower(store, **liars, good=serving(generation, held, slow=20))
    assert subject.look() == [generation]
    assert not subject.behind


def test_what_is_pinned_is_followed_and_nothing_is_fetched_for_it(store: BlobStore, publisher: BlobStore) -> None:
    generation = made.publish(publisher, {NAME: made.image(1)})
    gone = {NAME: made.image(1).entry, "docker.io/library/gone:1": made.image(2).entry}
    pinned = made.pins(publisher).replace(gone)
    subject = follower(store, a=serving(generation, contents(publisher), pinned=pinned))
    assert subject.look() == [generation, pinned]
    assert made.pins(store).current() == pinned
    assert not subject.behind
    for number in range(8):
        pinned = made.pins(publisher).replace({} if number % 2 else gone)
        assert follower(store, a=serving(generation, {}, pinned=pinned)).look() == [pinned]
    assert made.pins(store).current() == pinned


def test_a_damaged_index_keeps_no_other_from_being_followed(store: BlobStore, publisher: BlobStore) -> None:
    generation = made.publish(publisher, {NAME: made.image(1)})
    pushed = made.push(publisher, {"docker.io/team/app:1": made.image(2)})
    for name in ("pins.json", "pushes.json"):
        (store.root / name).write_bytes(b"rot")
    subject = follower(store, a=serving(generation, contents(publisher), pushed=pushed))
    assert subject.look() == [generation]
    (store.root / "pushes.json").unlink()
    assert subject.look() == [pushed]


def test_a_damaged_generation_is_put_back_and_what_is_newer_followed(store: BlobStore, publisher: BlobStore) -> None:
    first = made.publish(publisher, {NAME: made.image(1)})
    assert follower(store, a=serving(first, contents(publisher))).look() == [first]
    (store.root / "index.json").write_bytes(first.raw.replace(b"sha256:1", b"sha256:2", 1)[:-1])
    # From its own copy, with nobody to ask.
    subject = follower(store)
    assert subject.look() == [] and made.generations(store).current() == first
    (store.root / "index.json").write_bytes(b"rot")
    second = made.publish(publisher, {NAME: made.image(2)})
    assert follower(store, a=serving(second, contents(publisher))).look() == [second]


def test_without_a_copy_it_comes_from_whoever_has_the_same(store: BlobStore, publisher: BlobStore) -> None:
    first = made.publish(publisher, {NAME: made.image(1)})
    second = made.publish(publisher, {NAME: made.image(2)})
    held = contents(publisher)
    assert follower(store, a=serving(second, held)).look() == [second]
    (copy,) = (store.root / "generations").glob("*.json")
    for path in (copy, store.root / "index.json"):
        path.write_bytes(b"rot")
    # One that is older would be a step back.
    assert follower(store, a=serving(first, held)).look() == []
    assert (store.root / "index.json").read_bytes() == b"rot"
    assert follower(store, a=serving(first, held), b=serving(second, held)).look() == [second]
    assert made.generations(store).current() == second and copy.read_bytes() == second.raw
    # One that is newer is followed over it.
    for path in (copy, store.root / "index.json"):
        path.write_bytes(b"rot")
    third = made.publish(publisher, {NAME: made.image(3)})
    assert follower(store, b=serving(third, contents(publisher))).look() == [third]


def test_a_copy_that_was_never_served_is_not_put_back_where_others_have_its_number(
    store: BlobStore, publisher: BlobStore
) -> None:
    """The publisher was ended before it switched, its index damaged, and another node has published since."""
    first = made.publish(publisher, {NAME: made.image(1)})
    held = contents(publisher)
    follower(store, a=serving(first, held)).look()
    never = made.publish(store, {NAME: made.image(7)})
    (store.root / "index.json").write_bytes(b"rot")
    second = made.publish(publisher, {NAME: made.image(2)})
    third = made.publish(publisher, {NAME: made.image(3)})
    assert never.number == second.number
    assert follower(store, a=serving(second, contents(publisher))).look() == []
    assert (store.root / "index.json").read_bytes() == b"rot"
    assert follower(store, a=serving(third, contents(publisher))).look() == [third]


def test_nobody_to_ask(store: BlobStore) -> None:
    assert follower(store).look() == []


def test_peers_that_failed_just_now_are_asked_for_news_all_the_same(store: BlobStore, publisher: BlobStore) -> None:
    generation = made.publish(publisher, {NAME: made.image(1)})
    subject = follower(store, a=serving(generation, contents(publisher)))
    fakes = subject._peers
    assert isinstance(fakes, FakePeers)
    fakes.down.add("a")
    fakes.fakes["a"].answers["/p2p/v1/ping"] = _ping_and_recover(fakes, generation)
    assert subject.look() == [generation]


def _ping_and_recover(fakes: FakePeers, generation: Generation) -> Any:
    def ping() -> tuple[int, bytes]:
        fakes.down.clear()  # an answer closes the breaker
        return 200, json.dumps({"generation": {"number": 1, "digest": generation.digest}}).encode()

    return ping


def test_two_generations_of_one_number_change_nothing(store: BlobStore, publisher: BlobStore) -> None:
    mine = made.publish(store, {NAME: made.image(1)})
    other = made.publish(publisher, {NAME: made.image(2)})
    subject = follower(store, a=serving(other, contents(publisher)))
    assert subject.look() == []
    assert subject.behind
    assert made.generations(store).current() == mine


def test_an_older_one_is_not_even_asked_for(store: BlobStore, publisher: BlobStore) -> None:
    old = made.publish(publisher, {NAME: made.image(1)})
    made.publish(store, {NAME: made.image(1)})
    mine = made.publish(store, {NAME: made.image(2)})
    peer = serving(old, contents(publisher))
    peer.answers["/p2p/v1/generation"] = lambda: (500, b"")
    subject = follower(store, a=peer)
    assert subject.look() == []
    assert not subject.behind
    assert made.generations(store).current() == mine


def test_what_was_pushed_is_followed_with_its_manifests_beside_the_generation(
    store: BlobStore, publisher: BlobStore
) -> None:
    both = made.index({"amd64": made.image(1, size=2 << 20), "arm64": made.image(2, arch="arm64")})
    generation = made.publish(publisher, {NAME: made.image(3)})
    first = made.push(publisher, {"docker.io/team/app:1": both}, piece_maps=True)
    held = contents(publisher)
    subject = follower(store, a=serving(generation, held, pushed=first))
    assert subject.look() == [generation, first]
    assert made.pushes(store).current() == first
    (piece_map,) = first.piece_maps.values()
    assert all(store.has(item["digest"]) for item in both.manifests)
    assert store.has(piece_map.digest)
    assert not store.has(made.image(1, size=2 << 20).layers[0]), "layers come by the policy"
    assert subject.look() == []
    second = made.push(publisher, {})
    assert follower(store, a=serving(generation, held, pushed=second)).look() == [second]
    assert made.generations(store).current() == generation


def test_pushes_that_are_not_whole_hold_up_no_generation(store: BlobStore, publisher: BlobStore) -> None:
    one = made.image(1)
    generation = made.publish(publisher, {NAME: made.image(3)})
    pushed = made.push(publisher, {"docker.io/team/app:1": one})
    held = {digest: raw for digest, raw in contents(publisher).items() if digest != one.digest}
    subject = follower(store, a=serving(generation, held, pushed=pushed))
    assert subject.look() == [generation]
    assert subject.behind
    assert made.pushes(store).current() is None


def test_a_child_that_was_deleted_is_not_waited_for(store: BlobStore, publisher: BlobStore) -> None:
    both = made.index({"amd64": made.image(1), "arm64": made.image(2, arch="arm64")}, leave_out=["arm64"])
    pushed = made.push(publisher, {"docker.io/team/app:1": both})
    subject = follower(store, a=serving(None, contents(publisher), pushed=pushed))
    assert subject.look() == [pushed]
    assert not subject.behind


def test_what_a_newer_release_says_beside_it_is_passed_over(store: BlobStore, publisher: BlobStore) -> None:
    generation = made.publish(publisher, {NAME: made.image(1)})
    peer = serving(generation, contents(publisher))
    more = {"node": "x", "feature": [1], "generation": {"number": 1, "digest": generation.digest, "form": "new"}}
    signed = {"signer": "a", "certificate": "c", "signature": "s", "algorithm": "new"}
    peer.answers["/p2p/v1/ping"] = lambda: (200, json.dumps(more).encode())
    whole = {"raw": generation.raw.decode(), "signature": signed, "proof": {}}
    peer.answers["/p2p/v1/generation"] = lambda: (200, json.dumps(whole).encode())
    assert follower(store, a=peer).look() == [generation]


def test_who_does_not_answer_is_named(store: BlobStore) -> None:
    odd = {"/p2p/v1/ping": lambda: (200, b"rot")}
    refusing = {"/p2p/v1/ping": lambda: (403, b"{}")}
    subject = follower(
        store, a=serving(None, {}), b=FakePeer(dead=True), c=FakePeer(answers=odd), d=FakePeer(answers=refusing)
    )
    subject.look()
    assert subject.silent == ["b", "c", "d"]


def test_what_is_not_followed_is_logged_once(
    store: BlobStore, publisher: BlobStore, caplog: pytest.LogCaptureFixture
) -> None:
    made.publish(store, {NAME: made.image(1)})
    other = made.publish(publisher, {NAME: made.image(2)})
    subject = follower(store, a=serving(other, contents(publisher)))
    for _ in range(3):
        subject.look()
    (said,) = [message for message in caplog.messages if "APL-0306" in message]
    assert other.digest in said
    (refused,) = subject.refused
    assert (refused.peer, refused.index, refused.number, refused.digest) == ("a", "generation", 1, other.digest)


def test_a_peer_of_an_older_release_knows_of_no_pushes(store: BlobStore, publisher: BlobStore) -> None:
    pushed = made.push(publisher, {"docker.io/team/app:1": made.image(1)})
    held = contents(publisher)
    assert follower(store, a=serving(None, held), b=serving(None, held, pushed=pushed)).look() == [pushed]


@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_manifest_is_fetched_before_a_generation_is_followed(
    store: BlobStore, publisher: BlobStore, cut: bool
) -> None:
    """It lies here, so it would pass for held; but what it lists would be missing."""
    both = made.index({"amd64": made.image(1), "arm64": made.image(2, arch="arm64")})
    generation = made.publish(publisher, {NAME: both})
    store.put_bytes(both.raw)
    path = store.path(both.digest)
    path.chmod(0o644)
    path.write_bytes(both.raw[:50] if cut else both.raw.replace(b"2", b"3"))
    assert follower(store, a=serving(generation, contents(publisher))).look() == [generation]
    for digest in (both.digest, *(item["digest"] for item in both.manifests)):
        assert made.sha(store.read(digest, 1 << 20)) == digest
    assert list(store.quarantined()) == [both.digest]


def test_a_manifest_that_no_disk_keeps_is_not_fetched_for_ever(
    store: BlobStore, publisher: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made.image(1)
    generation = made.publish(publisher, {NAME: one})
    subject = follower(store, a=serving(generation, contents(publisher)))
    real = store.read
    monkeypatch.setattr(store, "read", lambda digest, limit: real(digest, limit)[:-1])
    assert subject.look() == []
    assert subject.behind
    assert made.generations(store).current() is None


def test_nothing_is_collected_between_the_look_at_manifests_and_the_index_that_needs_them(
    store: BlobStore, publisher: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation, seen = made.publish(publisher, {NAME: made.image(1)}), list[bool]()
    original = Generations._replace

    def replaced(self: Generations, *arguments: Any) -> None:
        seen.append(made.stays(store))
        original(self, *arguments)

    monkeypatch.setattr(Generations, "_replace", replaced)
    assert follower(store, a=serving(generation, contents(publisher))).look() == [generation]
    assert seen == [True]
    assert not made.stays(store)


def answering(peer: FakePeer, path: str, answer: bytes | Exception) -> FakePeer:
    def give() -> tuple[int, bytes]:
        if isinstance(answer, Exception):
            raise answer
        return 200, answer

    peer.answers[path] = give
    return peer


NESTED = b"[" * 100_000
STRANGE = [
    NESTED,
    b"{" + b'"a":{' * 100_000,
    b'{"raw":"x","signature":{"signer":1}}',
    b'{"raw":"\\ud800","signature":null}',
    ZeroDivisionError("a fault of the parser"),
    RecursionError(),
]


@pytest.mark.parametrize("answer", STRANGE)
def test_whatever_one_peer_sends_as_an_index_the_others_are_followed(
    store: BlobStore, publisher: BlobStore, answer: bytes | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    generation = made.publish(publisher, {NAME: made.image(1)})
    held = contents(publisher)
    bad = answering(serving(generation, held), "/p2p/v1/generation", answer)
    alone = follower(store, a=bad)
    for _ in range(5):
        assert alone.look() == []
    (refused,) = alone.refused
    assert not refused.signed
    (trouble,) = alone.troubles.all()
    assert (trouble.peer, trouble.about, trouble.ended) == ("a", "generation", None)
    assert trouble.keeps_back == "generation 1"
    assert len(caplog.records) <= 2, "said once, and the traceback of what nobody has thought of"
    assert follower(store, a=bad, b=serving(generation, held)).look() == [generation]


@pytest.mark.parametrize(
    "ping",
    [
        b'{"generation":{"number":1e999,"digest":"DIGEST"}}',
        b'{"generation":{"number":-1,"digest":"DIGEST"}}',
        b'{"generation":{"number":1.5,"digest":"DIGEST"}}',
        b'{"generation":{"number":"7","digest":"DIGEST"}}',
        b'{"generation":{"number":99999999999999999999,"digest":"DIGEST"}}',
        b'{"generation":{"number":7,"digest":"sha256:\\u001b[31m\\nforged"}}',
        b"[" * 60_000,
        b'{"x":' + b"[" * 60_000,
        b"\xff",
        ZeroDivisionError(),
    ],
)
def test_whatever_one_peer_answers_to_a_ping_the_others_are_followed(
    store: BlobStore, publisher: BlobStore, ping: bytes | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    generation = made.publish(publisher, {NAME: made.image(1)})
    held = contents(publisher)
    given = ping.replace(b"DIGEST", generation.digest.encode()) if isinstance(ping, bytes) else ping
    subject = follower(
        store, a=answering(serving(generation, held), "/p2p/v1/ping", given), b=serving(generation, held, slow=9)
    )
    assert subject.look() == [generation]
    assert subject.silent == ["a"]
    assert "a" not in subject.seen
    (trouble,) = subject.troubles.all()
    assert (trouble.peer, trouble.about) == ("a", "ping")
    assert not any(character in message for message in caplog.messages for character in "\n\x1b")


def test_a_peer_that_lies_is_asked_less_often_and_again(store: BlobStore, publisher: BlobStore) -> None:
    generation = made.publish(publisher, {NAME: made.image(1)})
    bad = serving(generation, contents(publisher))
    honest, asked, clock = bad.answers["/p2p/v1/generation"], list[float](), [0.0]

    def lie() -> tuple[int, bytes]:
        asked.append(clock[0])
        return 200, NESTED

    bad.answers["/p2p/v1/generation"] = lie
    subject = follower(store, a=bad)
    subject.troubles = Troubles(lambda: clock[0])
    for moment in range(600):
        clock[0] = float(moment)
        subject.look()
        assert subject.refused, "it is said all the while"
        assert not subject.behind
        assert subject.pause(99) <= 60
    assert 10 <= len(asked) <= 16
    bad.answers["/p2p/v1/generation"] = honest
    clock[0] += 60
    assert subject.look() == [generation]
    assert subject.troubles.all()[0].ended


def test_a_peer_that_gives_no_index_is_waited_for_once_in_a_look(store: BlobStore, publisher: BlobStore) -> None:
    """Three indexes one after another, from somebody who is silent, would hold up the publisher's commands for as long."""
    generation = made.publish(publisher, {NAME: made.image(1)})
    pushed = made.push(publisher, {"docker.io/team/app:1": made.image(2)})
    bad = serving(generation, contents(publisher), pushed=pushed)
    asked = []

    def silent(path: str) -> Callable[[], tuple[int, bytes]]:
        def give() -> tuple[int, bytes]:
            asked.append(path)
            raise PeerError("a: timed out")

        return give

    for path in ("/p2p/v1/generation", "/p2p/v1/pushes"):
        bad.answers[path] = silent(path)
    subject = follower(store, a=bad)
    assert subject.look() == []
    assert asked == ["/p2p/v1/generation"]
    assert {item.index for item in subject.refused} == {"generation", "pushes"}
    assert subject.look() == []
    assert asked == ["/p2p/v1/generation", "/p2p/v1/pushes"], "the other one has its turn while the first is left alone"


def test_a_full_disk_is_said_and_ends_no_look(
    store: BlobStore, publisher: BlobStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    generation = made.publish(publisher, {NAME: made.image(1)})
    pushed = made.push(publisher, {"docker.io/team/app:1": made.image(2)})
    real = Generations._replace

    def full(self: Generations, *arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Generations, "_replace", full)
    subject = follower(store, a=serving(generation, contents(publisher), pushed=pushed))
    assert subject.look() == [pushed]
    assert subject.behind, "room may be there in a moment"
    subject.look()
    (trouble,) = subject.troubles.all()
    assert (trouble.peer, trouble.about, trouble.times) == ("", "generation in the store", 2)
    assert "No space left" in trouble.reason
    assert len([message for message in caplog.messages if "No space left" in message]) == 1
    monkeypatch.setattr(Generations, "_replace", real)
    assert subject.look() == [generation]
    assert subject.troubles.all()[0].ended
