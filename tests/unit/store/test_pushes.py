"""The index of pushes: the same bytes for the same content, one step at a time, and nothing in between."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.oci import mediatypes
from appliance.oci.manifests import Descriptor
from appliance.store.blobs import BlobStore
from appliance.store.index import Entry
from appliance.store.pushes import Pushed, Pushes, parse
from appliance.trust import Trust
from tests.keys import site_keys
from tests.unit.store import made

digests = st.binary(max_size=4).map(made.sha)
words = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
descriptors = st.builds(
    Descriptor, st.sampled_from([mediatypes.OCI_MANIFEST, mediatypes.OCI_INDEX]), digests, st.integers(0, 2**40)
)
entries = st.builds(Entry, descriptors, st.frozensets(digests, max_size=3))
tagged = st.builds(lambda host, path, tag: f"{host}.io/{path}/x:{tag}", words, words, words)
untagged = st.builds(lambda host, path, digest: f"{host}.io/{path}/x@{digest}", words, words, digests)
maps = st.dictionaries(digests, st.builds(Descriptor, st.just(mediatypes.PIECE_MAP), digests, st.integers(0, 2**20)))
NAME = "docker.io/team/app:1"


@given(st.dictionaries(tagged | untagged, entries, max_size=6), maps)
def test_what_is_written_is_read(names: dict[str, Entry], piece_maps: dict[str, Descriptor]) -> None:
    first = Pushed.after(None, names, piece_maps, made.CREATED)
    read = parse(first.raw, "test")
    assert read == first
    assert (read.names, read.piece_maps) == (names, piece_maps)
    second = Pushed.after(read, names, piece_maps, made.CREATED)
    assert (second.number, second.digest == first.digest) == (2, False)


@given(st.dictionaries(tagged, entries, max_size=4))
def test_the_order_of_the_names_does_not_matter(names: dict[str, Entry]) -> None:
    backwards = dict(reversed(names.items()))
    assert Pushed.after(None, names, {}, made.CREATED).raw == Pushed.after(None, backwards, {}, made.CREATED).raw


def test_it_is_an_oci_image_index() -> None:
    document = json.loads(Pushed.after(None, {NAME: made.image(1).entry}, {}, made.CREATED).raw)
    assert (document["schemaVersion"], document["mediaType"]) == (2, mediatypes.OCI_INDEX)
    assert document["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == NAME


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"rot",
        b"[]",
        b"{}",
        b'{"manifests":[],"annotations":{}}',
        Pushed.after(None, {}, {}, made.CREATED).raw.replace(b'"1"', b'"0"'),
        Pushed.after(None, {}, {}, made.CREATED).raw.replace(b'"1"', b'"x"'),
        Pushed.after(None, {}, {}, made.CREATED).raw.replace(b'"1"', b"1e999"),
        Pushed.after(None, {NAME: made.image(1).entry}, {}, made.CREATED).raw.replace(b"team/app:1", b"TEAM/app:1"),
        b"[" * 100_000,
    ],
)
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(ApplianceError, match="APL-0314"):
        parse(raw, "test")


def test_a_fresh_store_has_none(store: BlobStore) -> None:
    pushes = made.pushes(store)
    assert pushes.current() is None
    assert pushes.state() is None


def test_each_change_is_one_step_that_shows(store: BlobStore) -> None:
    pushes = made.pushes(store)
    states = [pushes.state()]
    for number in range(1, 4):
        with pushes.changing():
            pushes.replace({NAME: made.image(number).entry}, {})
        current = pushes.current()
        assert current is not None
        assert (current.number, current.names[NAME]) == (number, made.image(number).entry)
        states.append(pushes.state())
    assert len(set(states)) == 4


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A CA and the keys of nodes a, b and c below it."""
    return site_keys(tmp_path, "a", "b", "c")


def node(site: Path, name: str, seeds: tuple[str, ...] = ("a",)) -> Pushes:
    return Pushes(made.open_store(site / f"store-{name}"), Trust(site / name, name, seeds))


def change(pushes: Pushes, seed: int) -> None:
    with pushes.changing():
        pushes.replace({NAME: made.image(seed).entry}, {})


def test_a_node_takes_what_the_publisher_signed_and_nothing_else(site: Path) -> None:
    publisher, follower, stranger = node(site, "a"), node(site, "b"), node(site, "c")
    change(publisher, 1)
    change(stranger, 2)
    first, forged = publisher.current(), stranger.current()
    assert first is not None and forged is not None
    signature = publisher.signature(first)
    assert signature is not None and signature.signer == "a"
    for raw, by in ((forged.raw, stranger.signature(forged)), (forged.raw, signature), (first.raw, None)):
        with pytest.raises(ApplianceError, match="APL-0606"):
            follower.accept(raw, by, lambda _: None)
    assert follower.current() is None
    assert follower.accept(first.raw, signature, lambda _: None) == first
    assert follower.accept(first.raw, signature, lambda _: None) is None
    assert follower.signature(first) == signature


def test_a_damaged_index_gives_way_to_the_same_or_a_newer_one_of_another_node(site: Path) -> None:
    publisher, follower, stranger = node(site, "a"), node(site, "b"), node(site, "c")
    states = []
    for number in (1, 2, 3):
        change(publisher, number)
        current = publisher.current()
        assert current is not None
        states.append((current, publisher.signature(current)))
    change(stranger, 4)
    (first, of_first), (second, of_second), (third, of_third) = states
    for item, signature in states[:2]:
        follower.accept(item.raw, signature, lambda _: None)
    flipped = second.raw.replace(made.image(2).digest.encode(), made.image(5).digest.encode(), 1)
    for damaged, offered, signature in ((b"rot", second, of_second), (flipped, third, of_third)):
        follower.index.write_bytes(damaged)
        with pytest.raises(ApplianceError, match="APL-0314"):
            follower.current()
        assert follower.put_back() is None, "no copies are kept"
        with pytest.raises(ApplianceError, match="APL-0606"):
            follower.accept(offered.raw, stranger.signature(stranger.current()), lambda _: None)  # type: ignore[arg-type]
        assert follower.accept(first.raw, of_first, lambda _: None) is None
        assert follower.accept(offered.raw, signature, lambda _: None) == offered
        assert follower.current() == offered


@pytest.mark.parametrize("lost", ["index", "signatures"])
def test_what_is_only_half_there_is_no_dead_end(site: Path, lost: str) -> None:
    """Ended between the signature and the very first index; or the signatures were removed by hand."""
    publisher = node(site, "a")
    change(publisher, 1)
    if lost == "index":
        publisher.index.unlink()
        assert publisher.current() is None
    else:
        for path in (publisher.index.parent / "pushes").glob("*"):
            path.unlink()
        assert publisher.current() is not None
    change(publisher, 2)
    assert publisher.current() is not None


def test_signatures_of_another_line_of_numbers_do_not_push_out_its_own(site: Path) -> None:
    publisher = node(site, "a")
    change(publisher, 1)
    for number in range(20, 60):
        (publisher.index.parent / "pushes" / f"{number:08d}-{number:016x}.sig").write_bytes(b"")
    for number in range(2, 6):
        change(publisher, number)
        current = publisher.current()
        assert current is not None and publisher.signature(current) is not None


def test_two_states_of_one_number_are_refused_and_both_named(store: BlobStore, tmp_path: Path) -> None:
    other = made.pushes(made.open_store(tmp_path / "other"))
    change(made.pushes(store), 1)
    change(other, 2)
    mine, theirs = made.pushes(store).current(), other.current()
    assert mine is not None and theirs is not None
    with pytest.raises(ApplianceError) as caught:
        made.pushes(store).accept(theirs.raw, None, lambda _: None)
    assert caught.value.code == "APL-0306"
    assert mine.digest in str(caught.value) and theirs.digest in str(caught.value)


def test_the_heir_of_a_lost_publisher_goes_on_from_what_it_has(site: Path) -> None:
    publisher = node(site, "a", ("a", "b"))
    change(publisher, 1)
    first = publisher.current()
    assert first is not None
    heir = node(site, "b", ("a", "b"))
    heir.accept(first.raw, publisher.signature(first), lambda _: None)
    alone = Pushes(BlobStore(site / "store-b"), Trust(site / "b", "b", ("b",)))
    assert alone.sign_anew()
    assert not alone.sign_anew()
    change(alone, 2)
    second = alone.current()
    assert second is not None and second.number == 2
    late = node(site, "c", ("b",))
    assert late.accept(second.raw, alone.signature(second), lambda _: None) == second


def test_old_signatures_go_and_the_current_one_stays(site: Path) -> None:
    pushes = node(site, "a")
    for number in range(40):
        change(pushes, number % 3)
    current = pushes.current()
    assert current is not None and pushes.signature(current) is not None
    assert 1 < len(list((site / "store-a" / "pushes").iterdir())) <= 20


@pytest.mark.parametrize("after", range(8))
def test_whatever_ends_a_change_leaves_the_one_or_the_other(
    site: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Fail at each system call that writes, one after the other: what is current is whole and signed."""
    pushes = node(site, "a")
    change(pushes, 1)
    before, left = pushes.current(), [after]

    def limited(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object) -> object:
            if left[0] == 0:
                raise OSError("power loss")
            left[0] -= 1
            return real(*arguments)

        monkeypatch.setattr(os, name, call)

    for name in ("rename", "fsync"):
        limited(name)
    try:
        change(pushes, 2)
        ended = False
    except OSError:
        ended = True
    monkeypatch.undo()
    current = pushes.current()
    assert current is not None and current.names[NAME] in (made.image(1).entry, made.image(2).entry)
    assert pushes.signature(current) is not None
    assert ended or current != before
    change(pushes, 3)
    now = pushes.current()
    assert now is not None and now.names[NAME] == made.image(3).entry


def _many(root: Path, worker: int) -> None:
    pushes = made.pushes(BlobStore(root))
    for number in range(20):
        with pushes.changing():
            current = pushes.current()
            names = dict(current.names) if current else {}
            pushes.replace({**names, f"docker.io/w{worker}/x:{number}": made.image(1).entry}, {})


def _hold(root: Path, held: object) -> None:
    with made.pushes(BlobStore(root)).changing():
        held.set()  # type: ignore[attr-defined]  # an event of another process
        signal.pause()


def test_processes_that_push_at_once_lose_nothing(store: BlobStore) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_many, args=(store.root, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    current = made.pushes(store).current()
    assert current is not None
    assert (current.number, len(current.names)) == (60, 60)


def test_what_a_killed_push_left_half_written_goes_with_the_next(store: BlobStore) -> None:
    (store.root / ".pushes.json.0123456789abcdef").write_bytes(b"half")
    made.push(store, {NAME: made.image(1)})
    assert [path.name for path in store.root.iterdir() if path.name.startswith(".")] == []


def test_a_killed_process_leaves_no_lock(store: BlobStore) -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()
    worker = context.Process(target=_hold, args=(store.root, held))
    worker.start()
    assert held.wait(20)
    worker.kill()
    worker.join(20)
    change(made.pushes(store), 1)
    assert made.pushes(store).current() is not None
