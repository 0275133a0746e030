"""The names of a store: kept whole while it serves, and brought back onto a fresh one, or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance import pki
from appliance.backup import container
from appliance.backup import contents as names
from appliance.errors import ApplianceError
from appliance.files import write_atomically
from appliance.publish.seed import Request, seed
from appliance.store import generations, readiness
from appliance.store import index as signed
from appliance.store.auditlog import note, record
from appliance.store.blobs import BlobStore
from appliance.store.diff import Changes
from appliance.store.fsck import check
from appliance.store.generations import Generations, make
from appliance.store.pins import pin
from appliance.store.store import Store
from appliance.trust import Trust
from tests.keys import certify
from tests.unit.store import made

A, B = "docker.io/library/a:1", "docker.io/library/b:1"
PUSHED = "10.0.0.1:5443/ops/tool:1"
BIG = 3 << 20


@dataclass
class Box:
    """A publisher's store."""

    root: Path

    @property
    def blobs(self) -> BlobStore:
        return BlobStore(self.root, reserve=0)

    @property
    def store(self) -> Store:
        return made.store(self.blobs)

    def publish(self, items: dict[str, made.Image]) -> None:
        before = made.generations(self.blobs).current()
        after = made.publish(self.blobs, {**items}, piece_maps=True, sources=["/media/stick"])
        record(self.root, after, Changes.between(before.names if before else {}, after.names))

    def backup(self, path: Path, *, pushed_blobs: bool = True) -> dict[str, Any]:
        contents, about = names.collect(self.store, pushed_blobs=pushed_blobs)
        container.write(path, names.KIND, made.CREATED, about, contents)
        return about

    def restore(self, path: Path, *, over: bool = False) -> dict[str, Any]:
        with container.open_backup(path) as file:
            return names.restore(self.store, file, path.name, over=over)

    def served(self) -> tuple[object, ...]:
        return tuple(index.current() for index in self.store.indexes.values())

    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.root / "journal.jsonl").read_text().splitlines()]

    def problems(self) -> list[str]:
        return check(self.store).problems


@pytest.fixture
def old(tmp_path: Path) -> Box:
    """A publisher with a history: two generations, a pin, and what operators pushed."""
    made.open_store(tmp_path / "old")
    store = Box(tmp_path / "old")
    store.publish({A: made.image(1, size=BIG)})
    store.publish({A: made.image(1, size=BIG), B: made.image(2)})
    made.push(store.blobs, {PUSHED: made.image(5)})
    note(store.root, {"action": "push", "names": [PUSHED]})
    pin(store.blobs, made.generations(store.blobs), made.pins(store.blobs), [A])
    return store


@pytest.fixture
def new(tmp_path: Path) -> Box:
    """A host that was made anew."""
    return Box(tmp_path / "new")


def test_a_fresh_store_serves_the_names_again_and_says_what_is_missing(old: Box, new: Box, tmp_path: Path) -> None:
    about = old.backup(tmp_path / "b.tar")
    assert about["generation"]["number"] == 2 and about["names"] == 2
    assert about["media"] == ["/media/stick"] and about["missing"] == []
    said = new.restore(tmp_path / "b.tar")
    assert said["changed"]
    assert new.served() == old.served()
    assert [generation.number for generation in new.store.generations.kept()] == [1, 2]
    assert new.journal()[:-1] == old.journal()
    assert new.journal()[-1]["action"] == "restore"
    # Manifests and piece maps are here; what media bring is named, and nothing else is missing.
    one, two = made.image(1, size=BIG), made.image(2)
    brought = {digest for item in (one, two) for digest in item.blobs if digest != item.digest}
    assert {problem.split()[0] for problem in new.problems()} == brought


def test_a_second_restore_changes_nothing(old: Box, new: Box, tmp_path: Path) -> None:
    old.backup(tmp_path / "b.tar")
    new.restore(tmp_path / "b.tar")
    before = made.tree(new.root)
    assert new.restore(tmp_path / "b.tar") == {
        "changed": False,
        "states": dict.fromkeys(("pins.json", "pushes.json", "index.json"), "same"),
        "blobs": 0,
    }
    after = made.tree(new.root)
    assert before == after


def test_without_pushed_blobs_their_layers_stay_out(old: Box, new: Box, tmp_path: Path) -> None:
    five = made.image(5)
    old.backup(tmp_path / "with.tar")
    old.backup(tmp_path / "without.tar", pushed_blobs=False)
    new.restore(tmp_path / "without.tar")
    assert [digest for digest in five.blobs if new.blobs.has(digest)] == [five.digest]
    assert new.restore(tmp_path / "with.tar")["blobs"] == 2
    assert all(new.blobs.has(digest) for digest in five.blobs)


def test_seeding_the_same_medium_again_brings_the_layers_though_no_name_changes(
    old: Box, new: Box, tmp_path: Path
) -> None:
    source = made.write_oci_archive(tmp_path / "a.tar", {A: made.image(1, size=BIG), B: made.image(2)})
    old.backup(tmp_path / "b.tar")
    new.restore(tmp_path / "b.tar")
    for lost in new.store.generations.current().piece_maps.values():  # type: ignore[union-attr]
        new.blobs.path(lost.digest).unlink()
    result = _seed(new, source)
    assert not result.published and result.plan.is_empty
    assert result.bytes_written > BIG
    assert new.problems() == []
    assert _seed(new, source).bytes_written == 0
    assert new.served() == old.served()


def _seed(store: Box, source: Path) -> Any:
    return seed(made.store(store.blobs), Request([str(source)]))


def test_manifests_and_media_of_all_generations_go_along_and_each_is_read_once(
    old: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        old.publish({A: made.image(1, size=BIG), B: made.image(10 + number)})
    read: list[str] = []
    bare = BlobStore.read

    def reading(self: BlobStore, digest: str, limit: int) -> bytes:
        read.append(digest)
        return bare(self, digest, limit)

    monkeypatch.setattr(BlobStore, "read", reading)
    contents, about = names.collect(old.store, pushed_blobs=True)
    images = [made.image(1, size=BIG), made.image(2), *(made.image(10 + number) for number in range(20))]
    assert {f"blobs/{image.digest.replace(':', '/')}" for image in images} <= contents.keys()
    assert about["media"] == ["/media/stick"]
    assert read.count(made.image(1, size=BIG).digest) <= 2, "for the generations, and for the pin"


def test_an_older_state_of_the_same_history_goes_forward(old: Box, new: Box, tmp_path: Path) -> None:
    old.backup(tmp_path / "first.tar")
    new.restore(tmp_path / "first.tar")
    old.publish({A: made.image(7)})
    old.backup(tmp_path / "second.tar")
    new.restore(tmp_path / "second.tar")
    assert new.served() == old.served()
    (aside,) = new.root.glob("replaced-*")
    assert (aside / "index.json").exists() and (aside / "journal.jsonl").exists()


def newer(store: Box) -> None:
    store.publish({A: made.image(7)})


def another(store: Box) -> None:
    """A site that was seeded from nothing before anybody thought of the backup."""
    for path in [store.root / "index.json", store.root / "journal.jsonl", *store.root.glob("generations/*")]:
        path.unlink()
    made.open_store(store.root)
    store.publish({A: made.image(9)})


def pushed(store: Box) -> None:
    made.push(store.blobs, {PUSHED: made.image(6)})


@pytest.mark.parametrize("change", [newer, another, pushed])
def test_what_the_backup_does_not_know_is_replaced_only_when_asked(
    old: Box, new: Box, tmp_path: Path, change: Any
) -> None:
    old.backup(tmp_path / "b.tar")
    new.restore(tmp_path / "b.tar")
    change(new)
    served = new.served()
    with pytest.raises(ApplianceError, match="APL-0873"):
        new.restore(tmp_path / "b.tar")
    assert new.served() == served
    journal = (new.root / "journal.jsonl").read_bytes()
    assert new.restore(tmp_path / "b.tar", over=True)["changed"]
    assert new.served() == old.served()
    assert {generation.number for generation in new.store.generations.kept()} == {1, 2}
    assert new.journal()[-1]["over"] is True
    # What was replaced, its history above all, is kept.
    assert journal in [path.read_bytes() for path in new.root.glob("replaced-*/journal.jsonl")]


def test_the_publisher_has_to_make_sure_again(old: Box, new: Box, tmp_path: Path) -> None:
    """What it knows of the other nodes it knows of other names."""
    old.backup(tmp_path / "b.tar")
    made.open_store(new.root)
    readiness.mark_ready(new.root, "a")
    new.restore(tmp_path / "b.tar")
    assert not readiness.is_settled(new.root)
    readiness.mark_ready(new.root, "a")
    assert not new.restore(tmp_path / "b.tar")["changed"]
    assert readiness.is_settled(new.root)


def test_not_while_a_seeding_runs(old: Box, new: Box, tmp_path: Path) -> None:
    old.backup(tmp_path / "b.tar")
    made.open_store(new.root)
    with made.seeding_elsewhere(new.root), pytest.raises(ApplianceError, match="APL-0307"):
        new.restore(tmp_path / "b.tar")


def test_a_backup_is_made_while_a_seeding_runs(old: Box, tmp_path: Path) -> None:
    with made.seeding_elsewhere(old.root):
        assert old.backup(tmp_path / "b.tar")["names"] == 2


def test_names_that_change_meanwhile_are_read_again(old: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    read, turns = names._read_names, list[int]()

    def reading(store: Store) -> Any:
        found = read(store)
        if not turns:
            old.publish({A: made.image(7)})
        turns.append(1)
        return found

    monkeypatch.setattr(names, "_read_names", reading)
    contents, about = names.collect(old.store, pushed_blobs=True)
    assert len(turns) == 2
    assert about["generation"]["number"] == 3
    assert contents["index.json"] == (old.root / "index.json").read_bytes()


def test_names_that_never_rest_are_an_error(old: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    read = names._read_names

    def reading(store: Store) -> Any:
        made.push(old.blobs, {PUSHED: made.image(5)})
        return read(store)

    monkeypatch.setattr(names, "_read_names", reading)
    with pytest.raises(ApplianceError, match="APL-0879"):
        names.collect(old.store, pushed_blobs=True)


def test_a_line_of_the_journal_that_was_cut_short_stays_out(old: Box) -> None:
    whole = (old.root / "journal.jsonl").read_bytes()
    (old.root / "journal.jsonl").write_bytes(whole + b'{"action":"pu')
    assert names.collect(old.store, pushed_blobs=True)[0]["journal.jsonl"] == whole


def test_a_blob_that_this_store_lost_is_named(old: Box, tmp_path: Path) -> None:
    layer = made.image(5).layers[0]
    old.blobs.path(layer).unlink()
    assert old.backup(tmp_path / "b.tar")["missing"] == [layer]


def test_what_has_rotted_is_left_out_and_named_and_the_rest_can_be_restored(old: Box, new: Box, tmp_path: Path) -> None:
    rotten = [made.image(2).digest, made.image(5).layers[0]]
    for digest in rotten:
        path = old.blobs.path(digest)
        path.chmod(0o600)
        path.write_bytes(bytes(path.stat().st_size))
    assert old.backup(tmp_path / "b.tar")["missing"] == sorted(rotten)
    assert new.restore(tmp_path / "b.tar")["changed"]
    assert new.served() == old.served()
    assert not any(new.blobs.has(digest) for digest in rotten)


def test_of_an_empty_store_nothing_is_kept_and_nothing_restored(new: Box, tmp_path: Path) -> None:
    made.open_store(tmp_path / "empty")
    about = Box(tmp_path / "empty").backup(tmp_path / "b.tar")
    assert about["generation"] is None
    assert not new.restore(tmp_path / "b.tar")["changed"]


@pytest.mark.parametrize(
    "name", ["oci-layout", "generations/../lock", "blobs/sha256/x", "generations/1-2.json", "lock"]
)
def test_files_that_no_backup_of_a_store_has_are_refused(new: Box, tmp_path: Path, name: str) -> None:
    with pytest.raises(ApplianceError, match="APL-0870"):
        container.write(tmp_path / "b.tar", names.KIND, made.CREATED, {}, {name: b"1"})
        new.restore(tmp_path / "b.tar")
    assert not new.root.exists()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({"index.json": b"{"}, {}),
        ({"pins.json": b"{}"}, {}),
        ({"pushes.json": None}, {}),
        ({}, {"generation": None}),
        ({}, {"generation": {"number": 99, "digest": "sha256:00", "created": ""}}),
        ({}, {"pushes": "x"}),
        ({}, {"history": 5}),
    ],
)
def test_indexes_that_are_not_what_the_backup_says_of_them_are_refused(
    old: Box, new: Box, tmp_path: Path, file: dict[str, bytes | None], said: dict[str, Any]
) -> None:
    contents, about = names.collect(old.store, pushed_blobs=True)
    whole = {name: content for name, content in {**contents, **file}.items() if content is not None}
    container.write(tmp_path / "b.tar", names.KIND, made.CREATED, {**about, **said}, whole)
    with pytest.raises(ApplianceError, match="APL-0870"):
        new.restore(tmp_path / "b.tar", over=True)
    assert not new.root.exists()


def test_a_blob_that_is_not_its_digest_is_refused_before_any_name_changes(old: Box, new: Box, tmp_path: Path) -> None:
    contents, about = names.collect(old.store, pushed_blobs=True)
    blob = next(name for name in contents if name.startswith("blobs/"))
    container.write(tmp_path / "b.tar", names.KIND, made.CREATED, about, {**contents, blob: b"other"})
    with pytest.raises(ApplianceError, match="APL-0870"):
        new.restore(tmp_path / "b.tar")
    assert new.served() == (None, None, None)


@pytest.mark.parametrize("last", range(1, 12))
def test_interrupted_anywhere_it_is_finished_by_running_it_again(
    old: Box, new: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    old.backup(tmp_path / "b.tar")
    write, count = write_atomically, iter(range(1, 1000))

    def writing(*arguments: Any) -> None:
        if next(count) == last:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(names, "write_atomically", writing)
        try:
            new.restore(tmp_path / "b.tar")
        except KeyboardInterrupt:
            current = new.store.generations.current()
            assert current is None
    new.restore(tmp_path / "b.tar")
    assert new.served() == old.served()


def test_a_restore_that_is_ended_after_its_last_index_is_in_the_journal(
    old: Box, new: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old.backup(tmp_path / "b.tar")
    write = write_atomically

    def writing(path: Path, *more: Any) -> None:
        write(path, *more)
        if path.name == "index.json":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(names, "write_atomically", writing)
        new.restore(tmp_path / "b.tar")
    assert new.restore(tmp_path / "b.tar")["changed"] is False
    assert new.journal()[-1]["action"] == "restore"


class Killed(BaseException):
    """The process is ended here."""


@contextmanager
def killed_before(monkeypatch: pytest.MonkeyPatch, call: int) -> Iterator[None]:
    """The process ends before a file is put in its place the ``call``-th time; at the end of the block where it comes to none."""
    count = iter(range(1, 1000))

    def writing(*arguments: Any) -> None:
        if next(count) >= call:
            raise Killed
        write_atomically(*arguments)

    with monkeypatch.context() as patch:
        for module in (names, signed, generations):
            patch.setattr(module, "write_atomically", writing, raising=False)
        with suppress(Killed):
            yield


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    """The publisher's: what it publishes is signed, and the signature is written before the index."""
    pki.init_ca(tmp_path / "ca")
    return Trust(certify(tmp_path / "ca", tmp_path / "a", "a"), "a", ["a"])


def _fill(store: Store, count: int, seed: int = 0) -> None:
    """Publish, push and pin so many times."""
    for number in range(1, count + 1):
        entry = made.image(seed + number).entry
        after = make(
            store.generations.current(), {A: entry}, {}, cause="seeding", created=made.CREATED, sources=[str(seed)]
        )
        made.fill(store.blobs, [made.image(seed + number)])
        store.generations.publish(after)
        store.pushes.replace({PUSHED: entry})
        store.pins.replace({A: entry})


@pytest.mark.parametrize("call", range(1, 10))
@pytest.mark.parametrize("before", [0, 1])
def test_a_signed_change_killed_anywhere_is_made_by_doing_it_again(
    tmp_path: Path, trust: Trust, monkeypatch: pytest.MonkeyPatch, before: int, call: int
) -> None:
    store = _signed(tmp_path / "store", trust)
    _fill(store, before)
    with killed_before(monkeypatch, call):
        _fill(store, 1, seed=10)
    current = [index.current() for index in store.indexes.values()]
    assert {item.number if item else 0 for item in current} <= {before, before + 1}
    for index in store.indexes.values():
        index.remove_orphans(index.current())
    assert [index.current() for index in store.indexes.values()] == current
    _fill(store, 1, seed=20)
    for index in store.indexes.values():
        item = index.current()
        assert item is not None and index.newest() == [(item.number, item.digest[7:23])]


@pytest.mark.parametrize("call", range(1, 18))
@pytest.mark.parametrize("there", [0, 5])
def test_a_signed_restore_killed_anywhere_is_finished_by_running_it_again(
    tmp_path: Path, trust: Trust, monkeypatch: pytest.MonkeyPatch, there: int, call: int
) -> None:
    """Onto a fresh host, or over what had another line of numbers: the agent's next look removes nothing that is needed."""
    old, new = _signed(tmp_path / "old", trust), _signed(tmp_path / "new", trust)
    _fill(old, 2)
    container.write(tmp_path / "b.tar", names.KIND, made.CREATED, *reversed(names.collect(old, pushed_blobs=True)))
    _fill(new, there, seed=10)

    def restore() -> None:
        with container.open_backup(tmp_path / "b.tar") as file:
            names.restore(new, file, "b.tar", over=True)

    with killed_before(monkeypatch, call):
        restore()
    for index in new.indexes.values():
        index.remove_orphans(index.current())
    restore()
    assert [index.current() for index in new.indexes.values()] == [index.current() for index in old.indexes.values()]
    new.generations.index.write_bytes(b"rot")
    assert new.generations.put_back() == old.generations.current()
    _fill(new, 1, seed=20)
    assert {index.current().number for index in new.indexes.values()} == {3}  # type: ignore[union-attr]


def test_an_index_that_nobody_can_put_back_is_restored_where_the_operator_says_so(tmp_path: Path, trust: Trust) -> None:
    store = _signed(tmp_path / "store", trust)
    _fill(store, 2)
    served = [index.current() for index in store.indexes.values()]
    container.write(tmp_path / "b.tar", names.KIND, made.CREATED, *reversed(names.collect(store, pushed_blobs=True)))
    for path in (
        *store.blobs.root.glob("*s.json"),
        *store.blobs.root.glob("index.json"),
        *store.blobs.root.glob("*/*.json"),
    ):
        path.write_bytes(b"rot")
    with (
        container.open_backup(tmp_path / "b.tar") as file,
        pytest.raises(ApplianceError, match=r"APL-0873.*that is damaged"),
    ):
        names.restore(store, file, "b.tar", over=False)
    with container.open_backup(tmp_path / "b.tar") as file:
        names.restore(store, file, "b.tar", over=True)
    assert [index.current() for index in store.indexes.values()] == served


def _signed(root: Path, trust: Trust) -> Store:
    blobs = made.open_store(root)
    return made.store(blobs, trust=trust)


def test_what_the_lost_publisher_signed_holds_after_it_was_made_anew(tmp_path: Path) -> None:
    """The key of the old host is gone for good; its certificate is in the signature, and the authority is the same."""
    ca = tmp_path / "ca"
    pki.init_ca(ca)
    lost = _signed(tmp_path / "sa", Trust(certify(ca, tmp_path / "a", "a"), "a", ["a"]))
    first = make(None, {A: made.image(1).entry}, {}, cause="seeding", created=made.CREATED, sources=[])
    lost.generations.publish(first)
    container.write(tmp_path / "b.tar", names.KIND, made.CREATED, *reversed(names.collect(lost, pushed_blobs=True)))

    again = Trust(certify(ca, tmp_path / "again", "a"), "a", ["a"])
    fresh = _signed(tmp_path / "new", again)
    with container.open_backup(tmp_path / "b.tar") as file:
        names.restore(fresh, file, "b.tar", over=False)
    node = Trust(certify(ca, tmp_path / "b", "b"), "b", ["a"])
    node.check(first.raw, fresh.generations.signature(first))
    assert not fresh.generations.sign_anew()
    # What it publishes next is signed by its own new key, and the others follow that too.
    second = make(first, {B: made.image(2).entry}, {}, cause="seeding", created=made.CREATED, sources=[])
    fresh.generations.publish(second)
    other = _signed(tmp_path / "sb", node)
    for generation in (first, second):
        signature = fresh.generations.signature(generation)
        assert other.generations.accept(generation.raw, signature, lambda _: None) == generation

    # Without the authority of old, nobody could check it: it is signed anew.
    pki.init_ca(tmp_path / "ca2")
    stranger = Generations(fresh.blobs, Trust(certify(tmp_path / "ca2", tmp_path / "c", "a"), "a", ["a"]))
    assert stranger.sign_anew()
    Trust(tmp_path / "c", "b", ["a"]).check(second.raw, stranger.signature(second))
