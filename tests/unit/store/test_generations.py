"""Generations: the same bytes for the same content, one publisher, newer only."""

from __future__ import annotations

import contextlib
import json
import string
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.oci import mediatypes
from appliance.oci.manifests import Descriptor
from appliance.store import generations as module
from appliance.store import index
from appliance.store.blobs import EMPTY_INDEX, BlobStore
from appliance.store.generations import Generation, Generations, make, parse
from appliance.store.index import PREFIX, Entry
from appliance.store.locks import names_locked
from appliance.trust import Signature, Trust
from tests.keys import site_keys
from tests.unit.store import made

digests = st.binary(max_size=4).map(made.sha)
words = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
names = st.builds(lambda host, path, tag: f"{host}.io/{path}/x:{tag}", words, words, words)
descriptors = st.builds(
    Descriptor, st.sampled_from([mediatypes.OCI_MANIFEST, mediatypes.OCI_INDEX]), digests, st.integers(0, 2**40)
)
entries = st.builds(Entry, descriptors, st.frozensets(digests, max_size=3))
maps = st.dictionaries(digests, st.builds(Descriptor, st.just(mediatypes.PIECE_MAP), digests, st.integers(0, 2**20)))
sources = st.lists(st.text(max_size=10), max_size=3)


def entry(seed: int = 1) -> Entry:
    return Entry(Descriptor(mediatypes.OCI_MANIFEST, made.sha(bytes([seed])), 10 + seed))


def following(parent: Generation | None, seed: int = 1) -> Generation:
    return make(
        parent, {"docker.io/library/a:1": entry(seed)}, {}, cause="seeding", created=made.CREATED, sources=["/mnt/a"]
    )


@given(st.dictionaries(names, entries, max_size=5), maps, sources, st.text(string.printable, max_size=20))
def test_a_generation_reads_back_as_it_was_made(
    given_names: dict[str, Entry], piece_maps: dict[str, Descriptor], given_sources: list[str], created: str
) -> None:
    made_one = make(
        None, given_names, piece_maps, cause="seeding", created=created.replace("\0", ""), sources=given_sources
    )
    read = parse(made_one.raw, "test")
    assert read == made_one
    assert read is not None
    assert module._serialise(replace(read, raw=b"")) == made_one.raw
    assert read.digest == made.sha(made_one.raw)


@given(st.dictionaries(names, entries, min_size=2, max_size=5))
def test_the_order_of_names_does_not_change_the_bytes(given_names: dict[str, Entry]) -> None:
    backwards = dict(reversed(given_names.items()))
    one, two = (
        make(None, each, {}, cause="seeding", created=made.CREATED, sources=[]) for each in (given_names, backwards)
    )
    assert one.raw == two.raw


@given(st.binary(max_size=200))
def test_bytes_that_are_no_generation_are_refused(raw: bytes) -> None:
    with pytest.raises(ApplianceError) as caught:
        parse(raw, "a file")
    assert caught.value.code == "APL-0305"
    assert caught.value.where == "a file"


def _changed(**annotations: object) -> bytes:
    document = json.loads(following(None).raw)
    for key, value in annotations.items():
        full = PREFIX + key
        if value is None:
            del document["annotations"][full]
        else:
            document["annotations"][full] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b"null",
        b"[]",
        b'{"manifests":{}}',
        _changed(generation="0"),
        _changed(generation="-1"),
        _changed(generation="x"),
        following(None).raw.replace(b'"1"', b"1e999", 1),
        _changed(generation=None),
        _changed(sources='[{"a":1}]'),
        _changed(sources="5"),
        _changed(cause=None),
        _changed(media="[]"),
        _changed(media='{"/m":{"id":5}}'),
        _changed(media='{"/m":"x"}'),
        _changed(by=5),
        following(None).raw.replace(b"docker.io/library/a:1", b"docker.io/LIBRARY/a:1"),
        following(None).raw.replace(b'"size":11', b'"size":-1'),
        following(None).raw[:-1],
    ],
    ids=lambda raw: bytes(raw[:30]).decode(),
)
def test_damaged_generations_are_refused(raw: bytes) -> None:
    with pytest.raises(ApplianceError) as caught:
        parse(raw, "x")
    assert caught.value.code == "APL-0305"


def test_a_generation_that_is_too_large_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "SIZE_LIMIT", 10)
    with pytest.raises(ApplianceError, match="APL-0305"):
        parse(following(None).raw, "x")


def test_the_empty_index_is_no_generation(generations: Generations) -> None:
    assert generations.current() is None
    assert generations.kept() == []


@given(st.data())
def test_no_byte_of_the_index_changes_unnoticed(data: st.DataObject) -> None:
    """Most changed bytes leave an index that reads well, of another name or another digest."""
    with tempfile.TemporaryDirectory() as directory:
        generations = made.generations(made.open_store(Path(directory) / "store"))
        first = following(None)
        generations.publish(first)
        raw = bytearray(first.raw)
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
        # Of a number that has no files nothing is known: they may have been lost.
        with contextlib.suppress(ApplianceError):
            other = parse(bytes(raw), "changed")
            assume(other is not None and other.number == 1)
        generations.index.write_bytes(raw)
        with pytest.raises(ApplianceError, match="APL-0305"):
            generations.current()


def two(generations: Generations) -> Generation:
    """Publish two generations; returns the second."""
    first, second = following(None), following(following(None), 2)
    generations.publish(first)
    generations.publish(second)
    return second


def orphan(generations: Generations, generation: Generation) -> None:
    """What a publisher leaves that is ended before it switches."""
    before = generations.index.read_bytes()
    generations.publish(generation)
    generations.index.write_bytes(before)


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.write_bytes(b"rot"), lambda path: path.write_bytes(b""), Path.unlink],
    ids=["rot", "empty", "gone"],
)
def test_a_damaged_index_is_put_back_from_the_copy(generations: Generations, damage: Callable[[Path], object]) -> None:
    second = two(generations)
    assert generations.put_back() == second, "a sound one stays"
    damage(generations.index)
    with pytest.raises(ApplianceError, match="APL-0305"):
        generations.current()
    assert generations.put_back() == generations.current() == second
    assert [generation.number for generation in generations.kept()] == [1, 2]


def test_opening_a_store_that_lost_its_index_begins_no_new_one(store: BlobStore, generations: Generations) -> None:
    generations.publish(following(None))
    generations.index.unlink()
    store.create()
    assert not generations.index.exists()
    with pytest.raises(ApplianceError, match="APL-0305"):
        generations.publish(following(None, 2))


def test_an_index_that_the_disk_does_not_give_is_damaged_too(generations: Generations) -> None:
    generations.publish(following(None))
    generations.index.unlink()
    generations.index.mkdir()
    with pytest.raises(ApplianceError, match=r"APL-0305.*cannot be read"):
        generations.current()


def test_another_node_has_the_same_one_or_a_newer_one(generations: Generations) -> None:
    second = two(generations)
    first, third = following(None), following(second, 3)
    other = following(following(None), 7)
    for offered in (second, third):
        generations.index.write_bytes(b"rot")
        for older in (first, other):
            assert generations.accept(older.raw, None, lambda _: None) is None
        assert generations.index.read_bytes() == b"rot"
        assert generations.accept(offered.raw, None, lambda _: None) == offered
        assert generations.current() == offered
    # Without a trace of what was here, the one that is offered might be a step back.
    for path in generations.index.parent.glob("generations/*"):
        path.unlink()
    assert generations.current() == third, "sound all the same"
    generations.index.write_bytes(b"rot")
    with pytest.raises(ApplianceError, match="APL-0305"):
        generations.accept(third.raw, None, lambda _: None)


def test_no_copy_is_believed_that_is_damaged_or_in_doubt(generations: Generations) -> None:
    second = two(generations)
    (kept,) = generations.index.parent.glob("generations/00000002-*.json")
    generations.index.write_bytes(b"rot")
    kept.write_bytes(b"rot")
    assert generations.put_back() is None
    kept.write_bytes(following(None).raw)
    assert generations.put_back() is None
    kept.write_bytes(second.raw)
    other = following(following(None), 3)
    kept.with_name(f"00000002-{other.digest[7:23]}.json").write_bytes(other.raw)
    assert generations.put_back() is None and len(generations.newest()) == 2


def test_what_a_publisher_left_before_it_switched_is_taken_for_nothing(generations: Generations) -> None:
    second = two(generations)
    third, fourth = following(second, 3), following(second, 4)
    orphan(generations, third)
    assert generations.current() == second
    generations.remove_orphans(second)
    assert generations.newest() == [(2, second.digest[7:23])]
    orphan(generations, third)
    generations.publish(fourth)
    generations.remove_orphans(fourth)
    assert generations.newest() == [(3, fourth.digest[7:23])]
    generations.index.write_bytes(b"rot")
    with pytest.raises(ApplianceError, match="APL-0305"):
        generations.remove_orphans(second)
    assert generations.put_back() == fourth
    # An index that is empty again was lost: what is left of the others is all that there is.
    generations.index.write_bytes(EMPTY_INDEX)
    generations.remove_orphans(None)
    assert len(generations.newest()) == 1


def test_the_very_first_one_that_was_not_switched_to_goes_too(generations: Generations) -> None:
    orphan(generations, following(None))
    assert generations.current() is None and generations.newest()
    generations.remove_orphans(None)
    assert generations.newest() == []


def test_numbers_and_parents_follow_each_other(generations: Generations) -> None:
    first = following(None, 1)
    second = following(first, 2)
    assert (first.number, first.parent) == (1, None)
    assert (second.number, second.parent) == (2, first.digest)
    generations.publish(first)
    generations.publish(second)
    assert generations.current() == second
    assert generations.kept() == [first, second]
    assert generations.index.read_bytes() == second.raw


def test_index_json_is_an_index_other_tools_read(generations: Generations) -> None:
    generations.publish(following(None))
    document = json.loads(generations.index.read_bytes())
    assert document["schemaVersion"] == 2
    assert document["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == "docker.io/library/a:1"


def test_accept_takes_newer_ones_only(generations: Generations) -> None:
    first = following(None, 1)
    second = following(first, 2)
    prepared: list[int] = []

    def prepare(generation: Generation) -> None:
        prepared.append(generation.number)

    assert generations.accept(first.raw, None, prepare) == first
    assert generations.accept(second.raw, None, prepare) == second
    assert generations.accept(second.raw, None, prepare) is None
    assert generations.accept(first.raw, None, prepare) is None
    assert generations.current() == second
    assert prepared == [1, 2]


def test_accept_may_skip_numbers(generations: Generations) -> None:
    second = following(following(None, 1), 2)
    assert generations.accept(second.raw, None, lambda _: None) == second


def test_accept_ignores_an_empty_index(generations: Generations) -> None:
    assert generations.accept(b'{"manifests":[]}', None, lambda _: None) is None


def test_two_generations_of_one_number_are_named_both(generations: Generations) -> None:
    here, other = following(None, 1), following(None, 2)
    generations.publish(here)
    with pytest.raises(ApplianceError) as caught:
        generations.accept(other.raw, None, lambda _: None)
    assert caught.value.code == "APL-0306"
    assert here.digest in str(caught.value)
    assert other.digest in str(caught.value)
    assert generations.current() == here


def test_nothing_changes_when_its_manifests_cannot_be_had(generations: Generations) -> None:
    first = following(None, 1)
    generations.publish(first)

    def prepare(_: Generation) -> None:
        raise RuntimeError("no peer")

    with pytest.raises(RuntimeError):
        generations.accept(following(first, 2).raw, None, prepare)
    assert generations.current() == first
    assert generations.kept() == [first]


def published(generations: Generations, count: int) -> list[Generation]:
    chain: list[Generation] = []
    for seed in range(count):
        chain.append(following(chain[-1] if chain else None, seed))
        generations.publish(chain[-1])
    return chain


def test_the_bytes_of_the_newest_are_kept_and_fewer_are_complete(
    generations: Generations, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HISTORY", 4)
    chain = published(generations, 6)
    assert generations.prune(3) == [1, 2]
    assert generations.kept() == chain[2:]
    assert generations.complete(3) == chain[3:]
    assert generations.complete(9) == chain[2:]
    assert generations.find(3) == chain[2]
    assert generations.find(2) is None
    assert generations.prune(3) == []
    assert generations.current() == chain[-1]
    assert len(list((store.root / "generations").iterdir())) == 4
    assert generations.prune(5) == []


def test_history_takes_no_more_room_than_it_may_and_what_is_complete_is_kept_in_any_case(
    generations: Generations, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = published(generations, 5)
    monkeypatch.setattr(module, "HISTORY_BYTES", 3 * len(chain[-1].raw) + 1)
    assert generations.prune(1) == [1, 2]
    monkeypatch.setattr(module, "HISTORY_BYTES", 0)
    assert generations.prune(2) == [3]
    assert generations.kept() == chain[3:]


def test_a_generation_that_was_never_served_is_none_of_them(generations: Generations, store: BlobStore) -> None:
    """Its publisher was ended between writing its bytes and the switch; the next one has its number."""
    chain = published(generations, 2)
    for orphan in (following(chain[0], 7), following(chain[1], 8), following(chain[1], 9)):
        (store.root / "generations" / f"{orphan.number:08d}-{orphan.digest[7:23]}.json").write_bytes(orphan.raw)
    assert generations.kept() == chain
    chain.append(following(chain[1], 3))
    generations.publish(chain[2])
    assert generations.kept() == chain
    assert generations.complete(2) == chain[1:]


def test_what_a_follower_skipped_is_no_end_of_its_history(generations: Generations) -> None:
    first = following(None, 1)
    fourth = following(following(following(first, 2), 3), 4)
    for each in (first, fourth):
        generations.accept(each.raw, None, lambda _: None)
    assert generations.kept() == [first, fourth]


def test_what_a_medium_said_and_who_it_was_travel_with_the_generation() -> None:
    label = {"site": "s", "id": "stick", "created": "2026-01-01", "note": "n"}
    made_one = make(None, {}, {}, cause="seeding", created=made.CREATED, sources=["/m"], media={"/m": label}, by="ops")
    read = parse(made_one.raw, "x")
    assert read == made_one
    assert (read.media, read.by) == ({"/m": label}, "ops")
    assert read.comes_from("stick") and read.comes_from("/m") and not read.comes_from("n")


def test_one_of_an_older_release_has_neither() -> None:
    read = parse(following(None).raw, "x")
    assert read is not None
    assert (read.media, read.by) == ({}, "")
    assert b"media" not in read.raw.replace(b"mediaType", b"")


def test_a_damaged_old_generation_does_not_stop_anything(generations: Generations, store: BlobStore) -> None:
    first = following(None, 1)
    second = following(first, 2)
    generations.publish(first)
    next((store.root / "generations").glob("*.json")).write_bytes(b"rot")
    generations.publish(second)
    assert generations.kept() == [second]
    assert generations.prune(1) == []


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site with nodes a and b; ``<site>/<node>`` is a node's pki directory."""
    return site_keys(tmp_path, "a", "b")


def test_only_what_a_seed_signed_is_followed(site: Path, tmp_path: Path) -> None:
    publisher = Generations(made.open_store(tmp_path / "sa"), Trust(site / "a", "a", ["a"]))
    follower = Generations(made.open_store(tmp_path / "sb"), Trust(site / "b", "b", ["a"]))
    first = following(None)
    publisher.publish(first)
    signature = publisher.signature(first)
    assert signature is not None
    for wrong in (None, replace(signature, signer="b"), Trust(site / "b", "b", ["b"]).sign(first.raw)):
        with pytest.raises(ApplianceError) as caught:
            follower.accept(first.raw, wrong, lambda _: None)
        assert caught.value.code == "APL-0606"
    with pytest.raises(ApplianceError, match="APL-0606"):
        follower.accept(first.raw.replace(b"/mnt/a", b"/mnt/b"), signature, lambda _: None)
    assert follower.current() is None
    assert follower.accept(first.raw, signature, lambda _: None) == first
    assert follower.signature(first) == signature


def test_the_next_seed_signs_anew_what_a_lost_publisher_signed(site: Path, tmp_path: Path) -> None:
    first = following(None)
    lost = Trust(site / "a", "a", ["a", "b"]).sign(first.raw)
    heir_store = made.open_store(tmp_path / "sb")
    Generations(heir_store, Trust(site / "b", "b", ["a", "b"])).accept(first.raw, lost, lambda _: None)
    heir = Generations(heir_store, Trust(site / "b", "b", ["b"]))
    late = Trust(site / "b", "c", ["b"])
    with pytest.raises(ApplianceError, match="no seed"):
        late.check(first.raw, heir.signature(first))
    assert heir.sign_anew()
    late.check(first.raw, heir.signature(first))
    assert heir.current() == first
    assert not heir.sign_anew()


def test_sign_anew_without_anything_to_sign(generations: Generations) -> None:
    assert not generations.sign_anew()
    generations.publish(following(None))
    assert not generations.sign_anew()


def test_what_was_made_to_follow_another_one_is_not_published(generations: Generations) -> None:
    """A publisher that was behind followed a newer one while a medium was read."""
    first = following(None)
    generations.publish(first)
    made_from_nothing, made_from_first = following(None), following(first)
    generations.publish(made_from_first)
    for late in (made_from_nothing, made_from_first, following(following(made_from_first))):
        with pytest.raises(ApplianceError) as caught:
            generations.publish(late)
        assert caught.value.code == "APL-0342"
    assert generations.current() == made_from_first


def test_one_that_became_older_while_its_manifests_came_is_not_followed(generations: Generations) -> None:
    first = following(None)
    second = following(first)

    def prepare(offered: Generation) -> None:
        generations.publish(first)
        generations.publish(second)

    assert generations.accept(first.raw, None, prepare) is None
    assert generations.current() == second


def test_a_damaged_signature_file_is_an_error_with_an_id(generations: Generations, store: BlobStore) -> None:
    first = following(None)
    generations.publish(first)
    assert generations.signature(first) is None
    path = next((store.root / "generations").glob("*.json")).with_suffix(".sig")
    path.write_bytes(Signature("a", "b", "c").to_json())
    assert generations.signature(first) == Signature("a", "b", "c")
    path.write_bytes(b"{}")
    with pytest.raises(ApplianceError) as caught:
        generations.signature(first)
    assert caught.value.code == "APL-0605"


def test_one_seeding_at_a_time(store: BlobStore) -> None:
    with made.seeding_elsewhere(store.root), pytest.raises(ApplianceError) as caught, names_locked(store.root):
        pass
    assert caught.value.code == "APL-0307"
    for _ in range(2):
        with names_locked(store.root):
            pass
