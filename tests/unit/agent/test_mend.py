"""Each kind of file of a store × each kind of damage: it is noticed, and healed or named with what is lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.agent.daemon import Agent
from appliance.agent.indexes import HEAD_ANSWER, UNSIGNED_BYTES, IndexReader
from appliance.config import Peer
from appliance.errors import ApplianceError
from appliance.peers.transport import PeerError
from appliance.store import auditlog, readiness
from appliance.store.diff import Changes
from appliance.store.fsck import Report, check
from appliance.store.healing import heal
from appliance.store.index import SIZE_LIMIT
from appliance.store.inspection import Fault
from appliance.store.kinds import KINDS, kind_of, table
from appliance.store.pins import Pins
from appliance.store.staged import StagedReadings
from appliance.trust import Signature, Trust
from tests.unit.agent.fakes import FakePeer, FakePeers, at_once
from tests.unit.agent.test_daemon import Node, World
from tests.unit.store import made

GIVEN_UP = made.sha(b"given up")


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lose(path: Path) -> None:
    path.unlink()


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES = {"bit": flip, "half": halve, "gone": lose, "zeroes": zero}


class Made(World):
    """A world whose keys are there."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._patch = root, monkeypatch


class Site:
    """A publisher and a follower."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes = {"publisher": world.node("a", "a"), "follower": world.node("b", "a")}
        self.pins = {
            name: Pins(node.blobs, Trust(node.pki, node.name, node.seeds)) for name, node in self.nodes.items()
        }

    def fill(self) -> None:
        """Give both files of every kind."""
        (a, b), pins, before = self.nodes.values(), self.pins, None
        for number in range(1, 5):
            made_now = a.publish(number)
            auditlog.record(a.blobs.root, made_now, Changes.of(before, made_now))
            before = made_now
            with a.pushes.changing():
                a.pushes.replace({"docker.io/team/app:1": made.image(number).entry})
            pins["publisher"].replace({"docker.io/library/a:1": made.image(number).entry})
            b.follow(a)
            current = pins["publisher"].current()
            assert current is not None
            pins["follower"].accept(current.raw, pins["publisher"].signature(current), lambda _: None)
        auditlog.note(a.blobs.root, {"action": "take-over", "given_up": [GIVEN_UP]})
        readiness.mark_ready(a.blobs.root, "a", [GIVEN_UP])
        for node in self.nodes.values():
            for blobs in (1, 20, 300):
                auditlog.note(node.blobs.root, {"action": "gc", "blobs": blobs})
            (node.blobs.root / "scrub.json").write_bytes(b'{"after":"","blobs":0}')
            (node.blobs.root / "form").write_bytes(b"1 1\n")
            StagedReadings(node.blobs.root).keep("0123456789", {"a": 1}, blobs={}, stored={}, piece_maps={})

    def path(self, of: str, what: str) -> Path:
        """The file that a word stands for."""
        node = self.nodes[of]
        directory, number, end = {
            "index.json": ("", 0, ""),
            "current copy": ("generations", 4, "json"),
            "older copy": ("generations", 2, "json"),
            "current signature": ("generations", 4, "sig"),
            "older signature": ("generations", 2, "sig"),
            "signature of pushes": ("pushes", 4, "sig"),
            "older signature of pushes": ("pushes", 2, "sig"),
            "signature of pins": ("pins", 4, "sig"),
            "staged": ("staged", 0, "json"),
        }.get(what, ("", 0, ""))
        if not directory:
            return node.blobs.root / what
        (found,) = (node.blobs.root / directory).glob(f"{number:08d}-*.{end}" if number else f"*.{end}")
        return found

    def agent(self, of: str, *, alone: bool = False) -> Agent:
        name, other = ("b", "follower") if of == "publisher" else ("a", "publisher")
        peer = FakePeer(dead=True) if alone else as_peer(self.nodes[other], self.pins[other])
        return self.world.agent(self.nodes[of], **{name: peer})

    def fsck(self, of: str) -> Report:
        return check(self.nodes[of].store)


def as_peer(node: Node, pins: Pins) -> FakePeer:
    """A node that answers with the files that it keeps, too."""
    peer = node.as_peer()
    current = pins.current()
    assert current is not None
    signature = pins.signature(current)
    ping = json.loads(peer.answers["/p2p/v1/ping"]()[1]) | {
        "pins": {"number": current.number, "digest": current.digest}
    }
    said = json.dumps({"raw": current.raw.decode(), "signature": signature and signature.__dict__}).encode()
    peer.answers["/p2p/v1/ping"] = lambda: (200, json.dumps(ping).encode())
    peer.answers["/p2p/v1/pins"] = lambda: (200, said)
    peer.answers = Answers(peer.answers, node.blobs.root)
    return peer


class Answers(dict[str, Callable[[], tuple[int, bytes]]]):
    """Answers of a peer; below ``/p2p/v1/kept/`` its files as they are now."""

    def __init__(self, answers: dict[str, Callable[[], tuple[int, bytes]]], root: Path) -> None:
        super().__init__(answers)
        self.root = root

    def __contains__(self, path: object) -> bool:
        return super().__contains__(path) or str(path).startswith("/p2p/v1/kept/")

    def __missing__(self, path: str) -> Callable[[], tuple[int, bytes]]:
        file = self.root / path.removeprefix("/p2p/v1/kept/")
        return lambda: (200, file.read_bytes()) if file.exists() else (404, b"")


def minute(agent: Agent) -> None:
    """What the agent does by itself within a minute."""
    for _ in range(2):
        agent._mender.look()
        agent.look()
    agent._mender.look()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site on the disk; keys and signatures take a second and a half."""
    root = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        Site(World(root, patch)).fill()
    return root


@pytest.fixture
def site(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A copy of it."""
    root = shutil.copytree(filled, tmp_path / "site")
    return Site(Made(root, monkeypatch))


FILES = (
    "oci-layout",
    "index.json",
    "current copy",
    "older copy",
    "current signature",
    "older signature",
    "pushes.json",
    "signature of pushes",
    "older signature of pushes",
    "pins.json",
    "signature of pins",
    "form",
    "standing.json",
    "journal.jsonl",
    "staged",
    "scrub.json",
)
HARMLESS = {
    ("form", "gone"),
    ("standing.json", "gone"),
    ("staged", "gone"),
    ("scrub.json", "gone"),
    ("scrub.json", "bit"),
    ("older signature of pushes", "gone"),
    ("older signature of pushes", "bit"),
}
"""Damage that does no harm, and that nobody has to see."""
NOT_HEALED = {("form", "half"), ("form", "zeroes"), ("form", "bit"), ("journal.jsonl", "bit")}


def test_a_sound_site_has_no_damage(site: Site) -> None:
    for of in site.nodes:
        assert site.fsck(of).problems == []
        agent = site.agent(of)
        minute(agent)
        assert agent.status()["health"]["damage"] == []


def test_every_file_that_a_store_has_is_of_a_kind(site: Site) -> None:
    for node in site.nodes.values():
        files = [str(path.relative_to(node.blobs.root)) for path in node.blobs.root.rglob("*") if path.is_file()]
        assert {file: kind_of(file) for file in files if kind_of(file) is None} == {}
    assert kind_of("notes.txt") is None
    assert len({kind.name for kind in KINDS}) == len(KINDS)


CASES = [
    (of, what, damage)
    for of in ("publisher", "follower")
    for what in FILES
    for damage in DAMAGES
    if (of, what) != ("follower", "standing.json")
]


@pytest.mark.parametrize(("of", "what", "damage"), CASES)
def test_damage_is_noticed_and_healed(
    site: Site, of: str, what: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, agent = site.path(of, what), site.agent(of)
    before = path.read_bytes()
    minute(agent)
    DAMAGES[damage](path)
    relative = str(path.relative_to(site.nodes[of].blobs.root))
    if (what, damage) in HARMLESS or (of == "follower" and what == "journal.jsonl" and damage == "gone"):
        minute(agent)
        assert site.fsck(of).problems == []
        return
    found = site.fsck(of)
    faults = {fault.path: fault for fault in found.faults}
    if (what, damage) == ("journal.jsonl", "half"):
        # A line that is cut short is what a power loss leaves, too.
        assert not found.problems
        assert ["the last line is cut short" in said for said in found.remarks] == [True]
    else:
        assert relative in faults
    minute(agent)
    (said,) = (item for item in agent.status()["health"]["damage"] if item["path"] == relative)
    logged = [record.getMessage() for record in caplog.records if record.name == "appliance.mend"]
    assert sum(relative in line and "APL-03" in line for line in logged) == 1
    if (what, damage) in NOT_HEALED:
        assert (said["healed"], said["lost"], said["fix"]) == (None, faults[relative].lost, faults[relative].about.fix)
        assert said["fix"]
        return
    assert said["healed"] is not None
    assert any(line.startswith(f"{relative} is healed") for line in logged)
    assert site.fsck(of).problems == []
    if what in ("index.json", "current copy", "older copy", "pushes.json", "pins.json", "oci-layout"):
        assert path.read_bytes() == before
    if what == "standing.json":
        assert readiness.given_up(site.nodes[of].blobs.root) == {GIVEN_UP}
    # Nothing is said again.
    minute(agent)
    assert logged == [record.getMessage() for record in caplog.records if record.name == "appliance.mend"]


@pytest.mark.parametrize("left", ["no log", "an empty log", "half a line", "no line of the last generation"])
def test_what_a_killed_command_leaves_is_no_damage_and_the_agent_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    node = World(tmp_path, monkeypatch).node("a", "a")
    if left == "no line of the last generation":
        auditlog.record(node.blobs.root, first := node.publish(1), Changes.of(None, first))
    elif left != "no log":
        (node.blobs.root / auditlog.FILE).write_text('{"seq":1,"prev":"' if left == "half a line" else "")
    node.publish(2)

    def fsck() -> Report:
        return check(node.store)

    assert (fsck().problems, len(fsck().remarks)) == ([], 1)
    minute(World(tmp_path, monkeypatch).agent(node))
    assert (fsck().problems, fsck().remarks) == ([], [])
    (node.blobs.root / auditlog.FILE).unlink()
    assert bool(fsck().problems) == (left == "no line of the last generation"), "two generations had two lines"


def test_a_generation_that_no_node_has_is_named_with_what_is_lost(site: Site) -> None:
    for node in site.nodes.values():
        (path,) = (node.blobs.root / "generations").glob("00000002-*.json")
        path.unlink()
    for of in site.nodes:
        minute(agent := site.agent(of))
        (said,) = agent.status()["health"]["damage"]
        assert (said["kind"], said["healed"]) == ("generation-copy", None)
        assert said["lost"] == "generation 2 can no longer be rolled back to"
        assert "does not have it" in said["how"]
        (fault,) = site.fsck(of).faults
        assert fault.lost in said["lost"]


def test_a_generation_without_any_trace_but_the_audit_log_is_missed(site: Site) -> None:
    for path in (site.nodes["publisher"].blobs.root / "generations").glob("00000002-*"):
        path.unlink()
    assert [fault.path[:20] for fault in site.fsck("publisher").faults] == ["generations/00000002"]
    minute(site.agent("publisher"))
    assert site.fsck("publisher").problems == []
    for path in (site.nodes["follower"].blobs.root / "generations").glob("00000002-*"):
        path.unlink()
    assert site.fsck("follower").problems == [], "a follower may have skipped it"


@pytest.mark.parametrize("what", ["current signature", "older signature", "signature of pushes", "signature of pins"])
def test_the_publisher_signs_anew_what_it_can_prove(site: Site, what: str) -> None:
    path, agent = site.path("publisher", what), site.agent("publisher", alone=True)
    before = path.read_bytes()
    zero(path)
    minute(agent)
    assert site.fsck("publisher").problems == []
    assert path.read_bytes() != before
    assert Signature.from_json(path.read_bytes()).signer == "a"


def test_the_publisher_signs_nothing_that_it_cannot_prove(site: Site) -> None:
    """A generation of another publisher has no line here; the file that is gone named no digest."""
    site.path("publisher", "journal.jsonl").unlink()
    older, pushes = site.path("publisher", "older signature"), site.path("publisher", "signature of pushes")
    lose(older)
    lose(pushes)
    minute(site.agent("publisher", alone=True))
    assert not older.exists()
    assert not pushes.exists()
    minute(site.agent("publisher"))
    assert older.exists()
    assert pushes.exists()


def test_a_follower_without_another_node_says_what_is_lost(site: Site) -> None:
    lose(site.path("follower", "current signature"))
    agent = site.agent("follower", alone=True)
    minute(agent)
    (said,) = agent.status()["health"]["damage"]
    assert said["healed"] is None
    assert "nodes that come back cannot take it from here" in said["lost"]


@pytest.mark.parametrize("answer", [b"", b"{}", b"\xff" * 100, b"[" * 100_000], ids=len)
def test_what_a_bad_peer_gives_is_not_taken_and_the_next_one_is_asked(site: Site, answer: bytes) -> None:
    liar = FakePeer(answers=dict.fromkeys(["/p2p/v1/ping"], lambda: (200, b"{}")))
    for what in ("older copy", "older signature"):
        path = site.path("follower", what)
        for ending in (".json", ".sig"):
            name = path.with_suffix(ending).name
            liar.answers[f"/p2p/v1/kept/generations/{name}"] = lambda: (200, answer)
        before = path.read_bytes()
        zero(path)
        node = site.nodes["follower"]
        good = as_peer(site.nodes["publisher"], site.pins["publisher"])
        minute(site.world.agent(node, x=FakePeer(dead=True), y=liar, a=good))
        assert path.read_bytes() == before


def kept(path: Path, ending: str = "") -> str:
    """Return the route of a generation's file."""
    return f"/p2p/v1/kept/generations/{path.with_suffix(ending or path.suffix).name}"


def test_what_a_peer_may_send_for_a_damaged_file_is_bounded(site: Site) -> None:
    """It was 256 MiB in 600 s for each file, and a node that sent them was named nowhere."""
    path, node = site.path("follower", "older copy"), site.nodes["follower"]
    good = as_peer(site.nodes["publisher"], site.pins["publisher"])
    before = path.read_bytes()
    zero(path)
    flood = as_peer(site.nodes["publisher"], site.pins["publisher"])
    flood.answers[kept(path)] = lambda: (200, bytes(UNSIGNED_BYTES + 1))
    agent = site.world.agent(node, c=flood, d=good)
    agent._mender.look()
    assert path.read_bytes() == before
    asked = [(who, route, limit) for who, route, limit in agent._peers.asked if "/kept/" in route]  # type: ignore[attr-defined]
    assert asked == [
        ("c", kept(path, ".sig"), HEAD_ANSWER),
        ("c", kept(path), UNSIGNED_BYTES),
        ("d", kept(path, ".sig"), HEAD_ANSWER),
        ("d", kept(path), UNSIGNED_BYTES),
    ]
    (trouble,) = agent._follower.troubles.all()
    assert (trouble.peer, trouble.about) == ("c", "kept files")
    assert path.name in trouble.keeps_back
    assert trouble.ended, "another node gave it"


def test_a_peer_that_gives_no_file_costs_each_look_once_and_comes_last(site: Site) -> None:
    """One that dripped was waited for with each damaged file anew."""
    node = site.nodes["follower"]
    damaged = [site.path("follower", "older copy"), site.path("follower", "current signature")]
    for path in damaged:
        zero(path)

    def drips() -> tuple[int, bytes]:
        raise PeerError("c: no whole answer in 3 s")

    bad = as_peer(site.nodes["publisher"], site.pins["publisher"])
    for path in damaged:
        bad.answers[kept(path, ".sig")] = drips
    agent = site.world.agent(node, c=bad)
    fakes = agent._peers
    for times in (1, 2, 3):
        agent._mender.look()
        routes = [route for who, route, _ in fakes.asked if "/kept/" in route]  # type: ignore[attr-defined]
        assert len(routes) == times, "one question in each look, however many files are damaged"
    fakes._all = (*fakes.others, Peer("d", "http://d", "d"))  # type: ignore[attr-defined]
    fakes.fakes["d"] = as_peer(site.nodes["publisher"], site.pins["publisher"])  # type: ignore[attr-defined]
    fakes.asked.clear()  # type: ignore[attr-defined]
    agent._mender.look()
    assert {who for who, route, _ in fakes.asked if "/kept/" in route} == {"d"}  # type: ignore[attr-defined]
    assert all(damage["healed"] for damage in agent._mender.all())


def test_a_seed_may_send_a_file_of_any_size(site: Site) -> None:
    fakes = FakePeers(a=FakePeer(answers={"/p2p/v1/kept/generations/x.json": lambda: (200, b"{}")}))
    subject = IndexReader(fakes, at_once)
    (node,) = fakes.others
    for seed, size in ((True, 0), (False, 0), (False, 100 << 20)):
        subject.kept(replace(node, seed=seed), "generations/x.json", size)
    assert [limit for _, _, limit in fakes.asked] == [SIZE_LIMIT, UNSIGNED_BYTES, 200 << 20]


def test_a_generation_of_another_node_is_taken_only_with_the_signature_of_one_that_was_followed(site: Site) -> None:
    """The beginning of a digest alone is not enough where the own signature is gone."""
    world, follower = site.world, site.nodes["follower"]
    copy = site.path("follower", "older copy")
    raw = copy.read_bytes()
    forged = Trust(world.root / "c", "c", ()).sign(raw)
    assert forged is not None
    other = FakePeer(
        answers={
            "/p2p/v1/ping": lambda: (200, b"{}"),
            f"/p2p/v1/kept/generations/{copy.name}": lambda: (200, raw),
            f"/p2p/v1/kept/generations/{copy.with_suffix('.sig').name}": lambda: (200, forged.to_json()),
        }
    )
    lose(copy)
    zero(copy.with_suffix(".sig"))
    minute(world.agent(follower, c=other))
    assert not copy.exists()


def test_rot_that_changes_no_time_is_found_at_the_next_start(site: Site) -> None:
    path = site.path("follower", "older copy")
    agent = site.agent("follower")
    minute(agent)
    before, status = path.read_bytes(), path.stat()
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    minute(site.agent("follower"))
    assert path.read_bytes() == before


def test_pushes_that_are_gone_do_not_begin_again_with_number_one(site: Site) -> None:
    a = site.nodes["publisher"]
    lose(site.path("publisher", "pushes.json"))
    with pytest.raises(ApplianceError, match="not there any more") as caught:
        a.pushes.replace({})
    assert caught.value.code == "APL-0314"
    peer = as_peer(site.nodes["follower"], site.pins["follower"])
    current = site.nodes["follower"].pushes.current()
    assert current is not None
    for file in (a.blobs.root / "pushes").glob("*"):
        file.rename(file.with_name(file.name.replace("0000000", "0000001")))
    minute(site.world.agent(a, b=peer))
    assert a.pushes.current() is None, "what another node has is older than what was lost"


def test_a_disk_that_takes_no_change_is_said_and_not_raised(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    zero(site.path("follower", "older copy"))
    agent = site.agent("follower")

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("appliance.store.healing.write_atomically", refuse)
    agent._mender.look()
    (said,) = agent.status()["health"]["damage"]
    assert "Read-only file system" in said["how"]


def test_the_audit_log_keeps_every_sound_line(site: Site) -> None:
    path = site.path("publisher", "journal.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = bytes(len(lines[1]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))
    minute(agent := site.agent("publisher"))
    (said,) = agent.status()["health"]["damage"]
    assert said["why"] == "lines that are damaged, at or just before: 2"
    assert path.read_bytes() == b"".join(lines), "it is evidence"
    auditlog.note(path.parent, {"action": "gc"})
    zero(path)
    minute(agent)
    (aside,) = path.parent.glob("journal-damaged-*.jsonl")
    assert not aside.read_bytes().strip(b"\0")
    begun = json.loads(path.read_bytes().splitlines()[0])
    assert (begun["action"], begun["set_aside"], begun["generation"]["number"]) == ("begin-log", aside.name, 4)
    assert site.fsck("publisher").problems == []


def test_each_kind_has_its_words_and_its_row_in_the_manual(site: Site) -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "reference" / "files.md"
    assert table() in page.read_text(encoding="utf-8")
    for kind in KINDS:
        assert kind.recognised and kind.healed and kind.lost
        assert Fault(kind.name, "x", "y").lost == f"lost: {kind.lost}"
    node = site.nodes["publisher"]
    assert heal(site.agent("publisher")._mender._inspector.store, Fault("form", "form", "x"), is_alone=True) is None
    assert node.generations.current() is not None
