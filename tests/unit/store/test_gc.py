"""Garbage collection: nothing that a root reaches goes, everything else that is old enough does."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.oci.manifests import Descriptor
from appliance.store import auditlog, gc
from appliance.store.blobs import BlobStore
from appliance.store.fsck import check
from appliance.store.gc import GarbageCollector, Image, Plan, SweepResult, collect
from appliance.store.generations import make
from appliance.store.index import Entry
from appliance.store.pins import pin
from appliance.store.uploads import Uploads
from tests.unit.store import made

A, B, C = "docker.io/library/a:1", "docker.io/library/b:1", "quay.io/team/c:2"
LATER = 10_000.0
"""Seconds after which everything that a test placed is beyond the grace period."""


def collector(blobs: BlobStore, *, later: float = LATER, **more: Any) -> GarbageCollector:
    """A collector of a store, by a clock that runs ahead."""
    import time

    given: dict[str, Any] = {"keep": 1, "clock": lambda: time.time() + later, **more}
    return GarbageCollector(
        blobs, made.generations(blobs), made.pushes(blobs), made.pins(blobs), Uploads(blobs), **given
    )


def here(blobs: BlobStore) -> set[str]:
    return {digest for digest, _ in blobs.digests()}


def sizes(blobs: BlobStore) -> int:
    return sum(size for _, size in blobs.digests())


def is_sound(blobs: BlobStore) -> bool:
    report = check(made.store(blobs))
    return not report.problems


def refusal(subject: GarbageCollector) -> ApplianceError:
    with pytest.raises(ApplianceError) as raised:
        subject.plan()
    return raised.value


# --------------------------------------------------------------------------------------------- the property

IMAGES = [made.image(number) for number in range(6)]
INDEX = made.index({"amd64": IMAGES[0], "arm64": made.image(7, arch="arm64")})
SPARSE = made.index({"amd64": IMAGES[1], "arm64": made.image(8, arch="arm64")}, leave_out=["arm64"])
SHARING = made.image(3, layers=2)  # its first layer is that of IMAGES[3]
ALL = [*IMAGES, INDEX, SPARSE, SHARING]
NAMES = [f"docker.io/library/{letter}:1" for letter in "abcd"]
_some = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(range(len(ALL))), max_size=4)


def entry(item: made.Image) -> Entry:
    """An image's entry, with the child that a sparse index leaves out."""
    missing = {child["digest"] for child in item.document.get("manifests", ()) if child["digest"] not in item.blobs}
    return replace(item.entry, absent=frozenset(missing))


@given(
    generations=st.lists(_some, max_size=4),
    pushed=_some,
    pinned=st.booleans(),
    running=st.lists(st.sampled_from(range(len(ALL))), max_size=2),
    stray=st.lists(st.sampled_from(range(len(ALL))), max_size=3),
    young=st.lists(st.sampled_from(range(len(ALL))), max_size=2),
    claimed=st.lists(st.sampled_from(range(6)), max_size=2),
    keep=st.integers(1, 3),
)
def test_what_a_root_reaches_stays_and_everything_else_that_is_old_goes(
    generations: list[dict[str, int]],
    pushed: dict[str, int],
    pinned: bool,
    running: list[int],
    stray: list[int],
    young: list[int],
    claimed: list[int],
    keep: int,
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        blobs = made.open_store(Path(directory) / "store")
        needed: set[str] = set()
        if generations and pinned and generations[0]:
            made.fill(blobs, [ALL[number] for number in generations[0].values()])
        for position, names in enumerate(generations):
            made.fill(blobs, [ALL[number] for number in names.values()])
            made.publish(blobs, {name: entry(ALL[number]) for name, number in names.items()})
            if position == 0 and pinned and names:
                pin(blobs, made.generations(blobs), made.pins(blobs), list(names))
                needed |= {digest for number in names.values() for digest in ALL[number].blobs}
            if position >= len(generations) - keep:
                needed |= {digest for number in names.values() for digest in ALL[number].blobs}
        made.fill(blobs, [ALL[number] for number in [*pushed.values(), *running, *stray, *claimed]])
        if pushed:
            # As the registry does it: every manifest is named by itself.
            entries: dict[str, Entry] = {}
            for name, number in pushed.items():
                entries[name] = entry(ALL[number])
                for item in ALL[number].manifests:
                    if item["digest"] in ALL[number].blobs:
                        entries[f"{name.rpartition(':')[0]}@{item['digest']}"] = Entry(
                            Descriptor.from_dict({key: item[key] for key in ("mediaType", "digest", "size")})
                        )
            made.pushes(blobs).replace(entries)
            needed |= {digest for number in pushed.values() for digest in ALL[number].blobs}
        needed |= {digest for number in running for digest in ALL[number].blobs}
        for number in claimed:
            Uploads(blobs).link("docker.io/team/x", IMAGES[number].layers[0])
            needed.add(IMAGES[number].layers[0])
        before = here(blobs)
        # By a clock of its own: what is young was there before, and was touched since.
        recent = {digest for number in young for digest in ALL[number].blobs} & before
        for digest in recent:
            os.utime(blobs.path(digest), (2**33, 2**33))
        subject = collector(blobs, keep=keep, running=[Image("x", ALL[number].digest) for number in running])
        total = sizes(blobs)
        plan, swept = collect(subject)
        assert here(blobs) == before & (needed | recent)
        assert (swept.blobs, swept.size) == (len(before - here(blobs)), total - sizes(blobs))
        assert (len(plan.doomed), plan.size) == (swept.blobs, swept.size)
        again, nothing = collect(subject)
        assert (again.size, nothing.size, nothing.blobs) == (0, 0, 0)
        assert again.id == plan.id


# --------------------------------------------------------------------------------------------- one by one


def test_the_plan_removes_nothing_and_says_what_stays_for_what(store: BlobStore) -> None:
    gone, kept = made.image(1), made.image(2)
    made.publish(store, {A: gone})
    made.publish(store, {B: kept})
    before = made.tree(store.root)
    plan = collector(store).plan()
    assert made.tree(store.root) == before
    assert plan.size == sum(map(len, gone.blobs.values()))
    shown = plan.as_dict()
    assert shown["kept_for"]["generations"] == {"blobs": 3, "bytes": sum(map(len, kept.blobs.values()))}
    assert shown["names"] == [{"name": A, "digest": gone.digest, "generation": 1, "bytes": shown["bytes"]}]
    assert shown["generations"] == [2]
    assert json.dumps(shown)


def test_a_clock_that_was_set_back_makes_nothing_old(store: BlobStore) -> None:
    """A file's own time may be of any year; when it came to its place is the change of the file that no program sets."""
    blob, bad = store.put_bytes(b"a blob"), store.put_bytes(b"a bad one")
    partial = store.root / "partial" / f"{made.sha(b'x').replace(':', '-')}.data"
    partial.parent.mkdir(exist_ok=True)
    partial.write_bytes(b"x")
    for path in (store.path(blob.digest), store.path(bad.digest), partial):
        os.utime(path, (0, 0))
    plan, swept = collect(collector(store, later=0))
    assert (dict(plan.doomed), dict(plan.leftovers), swept.blobs) == ({}, {}, 0)
    assert partial.exists() and here(store) == {blob.digest, bad.digest}


def test_what_came_within_the_grace_period_stays(store: BlobStore) -> None:
    made.fill(store, [made.image(1)])
    subject = collector(store, later=gc.GRACE_SECONDS - 60)
    plan, swept = collect(subject)
    assert (swept.blobs, plan.kept_for["recent"][0]) == (0, 3)
    assert collect(replace(subject, grace=0))[1].blobs == 3


def test_a_moved_tag_keeps_both_until_the_older_generation_is_given_up(store: BlobStore) -> None:
    made.publish(store, {A: made.image(1)})
    made.publish(store, {A: made.image(2)})
    assert collect(collector(store, keep=2))[1].blobs == 0
    assert collect(collector(store, keep=1))[1].blobs == 3
    assert is_sound(store)


def test_a_follower_that_skipped_generations_keeps_no_older_ones_for_that(store: BlobStore) -> None:
    for number in range(1, 5):
        made.publish(store, {A: made.image(number)})
    for path in (store.root / "generations").glob("0000000[23]-*"):
        path.unlink()
    plan = collector(store, keep=3).plan()
    assert plan.generations == [4]
    assert set(made.image(1).blobs) <= set(plan.doomed)
    assert collector(store, keep=4).plan().generations == [1, 4]


def test_piece_maps_stay_with_their_generation_and_go_with_it(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "BIG_BLOB", 100)
    generation = made.publish(store, {A: made.image(1)}, piece_maps=True)
    maps = {descriptor.digest for descriptor in generation.piece_maps.values()}
    assert maps
    collect(collector(store))
    assert maps <= here(store)
    made.publish(store, {B: made.image(2)})
    collect(collector(store))
    assert not maps & here(store)


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_a_manifest_that_cannot_be_read_stops_it_and_is_named(store: BlobStore, damage: str) -> None:
    item = made.image(1)
    made.publish(store, {A: item})
    made.publish(store, {A: item, B: made.image(2)})
    path = store.path(item.digest)
    path.chmod(0o644)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[::-1])
    problem = refusal(collector(store, keep=2))
    assert problem.code == "APL-0321"
    assert item.digest in problem.why
    assert A in problem.why
    # By consent nothing is kept for it.
    plan, _ = collect(collector(store, keep=2, lost=[item.digest]))
    assert set(item.layers) <= set(plan.doomed)


def test_a_child_that_is_missing_stops_it_and_one_that_was_left_out_does_not(store: BlobStore) -> None:
    made.publish(store, {A: INDEX})
    store.path(IMAGES[0].digest).unlink()
    assert refusal(collector(store)).code == "APL-0321"
    sparse = replace(INDEX.entry, absent=frozenset({IMAGES[0].digest}))
    made.publish(store, {A: sparse})
    assert set(IMAGES[0].layers) <= set(collector(store).plan().doomed)


@pytest.mark.parametrize("content", [b"{", b"", None])
def test_a_kept_generation_that_is_damaged_stops_it(store: BlobStore, content: bytes | None) -> None:
    made.publish(store, {A: made.image(1)})
    made.publish(store, {B: made.image(2)})
    (first, second) = sorted((store.root / "generations").glob("*.json"))
    first.write_bytes(second.read_bytes() if content is None else content)
    assert refusal(collector(store, keep=2)).code == "APL-0321"
    assert refusal(collector(store, keep=2)).where == str(first)
    # Of no concern where it is given up anyway.
    assert set(made.image(1).blobs) <= set(collector(store, keep=1).plan().doomed)


def test_a_first_generation_that_was_not_switched_to_yet_is_kept(store: BlobStore) -> None:
    """A seeding that was killed between the copy and the switch."""
    made.publish(store, {A: made.image(1)})
    from appliance.store.blobs import EMPTY_INDEX

    (store.root / "index.json").write_bytes(EMPTY_INDEX)
    assert collector(store).plan().doomed == {}


def test_a_generation_that_was_never_switched_to_is_not_kept_once_its_number_is_anothers(store: BlobStore) -> None:
    made.publish(store, {A: IMAGES[0]})
    made.fill(store, [IMAGES[1]])
    staged = make(made.generations(store).current(), {A: IMAGES[1].entry}, {}, cause="seeding", created="", sources=())
    stray = store.root / "generations" / f"{staged.number:08d}-{staged.digest.partition(':')[2][:16]}.json"
    stray.write_bytes(staged.raw)
    collect(collector(store, keep=3))
    assert IMAGES[1].digest not in here(store)
    made.publish(store, {A: IMAGES[2]})
    made.publish(store, {A: IMAGES[3]})
    assert collector(store, keep=3).plan().generations == [1, 2, 3]
    collect(collector(store, keep=3))
    assert here(store) == {digest for image in (IMAGES[0], IMAGES[2], IMAGES[3]) for digest in image.blobs}


def test_a_deleted_push_goes_and_its_siblings_stay(store: BlobStore) -> None:
    one, two = made.image(1), made.image(2)
    made.push(store, {A: one, B: two})
    made.push(store, {B: two})
    collect(collector(store))
    assert here(store) == set(two.blobs)


def test_an_image_that_runs_stays_by_its_index_its_manifest_or_its_config(store: BlobStore) -> None:
    for digest in (INDEX.digest, IMAGES[0].digest, IMAGES[0].document["config"]["digest"]):
        made.fill(store, [INDEX])
        collect(collector(store, running=[Image("x", digest)]))
        assert set(IMAGES[0].blobs) <= here(store), digest
    # A config brings its manifest, and nothing above it.
    assert INDEX.digest not in here(store)


def test_what_runs_and_is_not_here_or_not_known_is_no_trouble(store: BlobStore) -> None:
    made.publish(store, {A: made.image(1)})
    running = [Image("elsewhere.test/x:1", made.sha(b"x")), Image("docker.io/library/y:1", None)]
    plan = collector(store, running=running).plan()
    assert [note for note in plan.notes if "docker.io/library/y:1" in note]
    assert plan.doomed == {}


def test_what_runs_may_lack_a_child_that_never_came_but_not_be_damaged(store: BlobStore) -> None:
    made.fill(store, [SPARSE])
    running = [Image("x", SPARSE.digest)]
    assert collector(store, running=running).plan().doomed == {}
    path = store.path(IMAGES[1].digest)
    path.chmod(0o644)
    path.write_bytes(b"{}")
    assert refusal(collector(store, running=running)).code == "APL-0321"


def test_an_upload_that_waits_for_its_manifest_stays_and_asking_for_it_renews_its_day(store: BlobStore) -> None:
    uploads, digest = Uploads(store), store.put([b"layer"], size=5).digest
    uploads.link("docker.io/team/app", digest)
    (claim,) = (store.root / "claims").glob("*/*")
    os.utime(claim, (1, 1))
    assert collector(store).plan().doomed == {}
    assert uploads.is_linked("docker.io/team/app", digest)
    assert uploads.expire() == 0
    os.utime(claim, (1, 1))
    assert uploads.expire() == 1
    assert set(collector(store).plan().doomed) == {digest}


def test_something_published_since_the_plan_is_refused_and_blobs_that_grew_old_are_not(store: BlobStore) -> None:
    made.publish(store, {A: made.image(1)})
    made.publish(store, {A: made.image(2)})
    shown = collector(store, later=0).plan()
    assert collect(collector(store), expect=shown.id)[1].blobs == 3
    made.publish(store, {A: made.image(3)})
    with pytest.raises(ApplianceError, match="APL-0325"):
        collect(collector(store), expect=shown.id)
    assert set(made.image(2).blobs) <= here(store)


def test_it_does_not_run_beside_a_seeding(store: BlobStore) -> None:
    with made.seeding_elsewhere(store.root), pytest.raises(ApplianceError, match="APL-0307"):
        collect(collector(store))


# --------------------------------------------------------------------------------------------- while others write


@contextlib.contextmanager
def between_plan_and_sweep(monkeypatch: pytest.MonkeyPatch, act: Any) -> Iterator[None]:
    """Do something in the moment in which a plan is made and nothing has gone yet."""
    original = GarbageCollector.sweep

    def sweep(self: GarbageCollector, plan: Plan, swept: SweepResult) -> None:
        act()
        original(self, plan, swept)

    monkeypatch.setattr(GarbageCollector, "sweep", sweep)
    yield


def test_what_is_pushed_or_followed_after_the_plan_stays(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (made.image(number) for number in (1, 2, 3))
    made.fill(store, [one, two, three])

    def act() -> None:
        # Its blobs lie here and are old: nothing is written but the index.
        made.pushes(store).replace({A: one.entry})
        made.publish(store, {B: two.entry})

    with between_plan_and_sweep(monkeypatch, act):
        plan, swept = collect(collector(store))
    assert len(plan.doomed) == 9
    assert here(store) == {*one.blobs, *two.blobs}
    assert swept.blobs == 3


def test_what_is_claimed_after_the_plan_stays(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store.put([b"layer"], size=5).digest
    with between_plan_and_sweep(monkeypatch, lambda: Uploads(store).link("docker.io/team/app", digest)):
        collect(collector(store))
    assert here(store) == {digest}


def test_what_is_uploaded_again_after_the_plan_stays(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store.put([b"layer"], size=5).digest

    def act() -> None:
        file = store.root / "incoming" / "again"
        file.write_bytes(b"layer")
        store.place(file, digest)

    with between_plan_and_sweep(monkeypatch, act):
        _, swept = collect(collector(store))
    assert here(store) == {digest}
    assert swept.blobs == 0


def test_nothing_goes_while_somebody_makes_a_reference(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store.put([b"layer"], size=5).digest
    reached = threading.Event()
    original = BlobStore.gc_lock_exclusive

    def removing(self: BlobStore) -> contextlib.AbstractContextManager[None]:
        reached.set()
        return original(self)

    monkeypatch.setattr(BlobStore, "gc_lock_exclusive", removing)
    with store.gc_lock_shared():
        assert made.stays(store)
        thread = threading.Thread(target=lambda: collect(collector(store)))
        thread.start()
        assert reached.wait(20), "it removes without asking"
        Uploads(store).link("docker.io/team/app", digest)
        assert here(store) == {digest}
    thread.join()
    assert here(store) == {digest}


def test_what_is_named_between_two_batches_stays(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "_BATCH_SECONDS", 0)
    items = [made.image(number) for number in range(6)]
    made.fill(store, items)
    served = made.image(9)
    made.publish(store, {B: served})
    original, batches = BlobStore.gc_lock_exclusive, [0]
    named: list[made.Image] = []

    def removing(self: BlobStore) -> contextlib.AbstractContextManager[None]:
        batches[0] += 1
        if batches[0] == 4:
            # Whatever is still whole then.
            named.extend(item for item in items if set(item.blobs) <= here(store))
            made.pushes(store).replace({A: named[0].entry})
        return original(self)

    monkeypatch.setattr(BlobStore, "gc_lock_exclusive", removing)
    collect(collector(store))
    assert here(store) == {*named[0].blobs, *served.blobs}
    assert batches[0] > 10


def test_it_says_where_the_journal_takes_no_line_and_goes_on(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made.fill(store, [made.image(1)])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gc, "note", full)
    plan, swept = collect(collector(store))
    assert swept.blobs == 3
    assert any("No space left" in text for text in plan.notes)


def test_the_journal_says_what_went(store: BlobStore) -> None:
    made.publish(store, {A: made.image(1)})
    made.publish(store, {B: made.image(2)})
    _, swept = collect(collector(store))
    line = json.loads((store.root / "journal.jsonl").read_text().splitlines()[-1])
    assert (line["action"], line["blobs"], line["bytes"]) == ("gc", 3, swept.size)
    assert auditlog.was_published(store.root, None, "x") is False


def test_what_one_name_leaves_out_another_one_keeps(store: BlobStore) -> None:
    whole, child = INDEX.entry, IMAGES[0].digest
    for names in (
        {A: replace(whole, absent=frozenset({child})), B: whole},
        {B: replace(whole, absent=frozenset({child})), A: whole},
    ):
        made.fill(store, [INDEX])
        made.publish(store, names)
        assert collector(store).plan().doomed == {}


def test_leftovers_of_what_is_back_or_needed_by_nothing_go_and_stray_signatures(store: BlobStore) -> None:
    item, gone = made.image(1), made.image(2)
    config = item.document["config"]["digest"]
    made.publish(store, {A: item})
    made.fill(store, [gone])
    store.quarantine(item.layers[0])
    store.quarantine(gone.layers[0])
    waiting = store.quarantine(config)
    made.fill(store, [item], leave_out=[config])
    wanted, unwanted = (
        store.root / "partial" / f"{digest.replace(':', '-')}.data" for digest in (config, made.sha(b"unwanted"))
    )
    wanted.write_bytes(bytes(10))
    unwanted.write_bytes(bytes(20))
    stray = store.root / "generations" / "00000007-0123456789abcdef.sig"
    stray.write_bytes(b"{}")
    own = next((store.root / "generations").glob("*.json")).with_suffix(".sig")
    own.write_bytes(b"{}")
    assert len(collector(store, later=0).plan().leftovers) == 2
    plan, swept = collect(collector(store))
    assert swept.size == plan.size == sum(map(len, gone.blobs.values())) + len(item.blobs[item.layers[0]]) + 20
    assert plan.as_dict()["leftovers"] == 3
    assert list((store.root / "quarantine").iterdir()) == [waiting]
    assert list((store.root / "partial").iterdir()) == [wanted]
    assert own.exists()
    assert not stray.exists()
