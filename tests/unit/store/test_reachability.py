"""From a name to everything it needs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.errors import ApplianceError
from appliance.oci import mediatypes
from appliance.store.blobs import BlobStore
from appliance.store.index import Entry
from appliance.store.reachability import maps_needed, needed, needed_by_pushes, reader, walk
from tests.unit.store import made


def test_an_image_needs_its_manifest_config_and_layers(store: BlobStore) -> None:
    one = made.image(1, layers=2)
    made.fill(store, [one])
    found = list(walk(one.entry, reader(store)))
    assert {item.descriptor.digest for item in found} == set(one.blobs)
    assert found[0].descriptor.digest == one.digest
    assert [item.is_manifest for item in found] == [True, False, False, False]
    assert found[0].manifest is not None


def test_an_index_needs_all_its_children_each_once(store: BlobStore) -> None:
    same = made.image(1)
    both = made.index({"amd64": same, "arm64": made.image(2, arch="arm64"), "386": same})
    made.fill(store, [both])
    found = [item.descriptor.digest for item in walk(both.entry, reader(store))]
    assert sorted(found) == sorted(both.blobs)


def test_what_the_medium_left_out_is_not_needed(store: BlobStore) -> None:
    arm = made.image(2, arch="arm64")
    sparse = made.index({"amd64": made.image(1), "arm64": arm}, leave_out=["arm64"])
    made.fill(store, [sparse])
    entry = Entry(sparse.entry.descriptor, frozenset({arm.digest}))
    assert {item.descriptor.digest for item in walk(entry, reader(store))} == set(sparse.blobs)


def test_what_one_name_leaves_out_another_may_need(store: BlobStore) -> None:
    arm = made.image(2, arch="arm64")
    both = made.index({"amd64": made.image(1), "arm64": arm})
    generation = made.publish(
        store,
        {
            "docker.io/library/a:1": Entry(both.entry.descriptor, frozenset({arm.digest})),
            "docker.io/library/b:1": both,
        },
    )
    assert set(needed(generation, store)) == set(both.blobs)


def test_what_one_pushed_name_leaves_out_another_may_need(store: BlobStore) -> None:
    one = made.image(1, layers=2)
    made.fill(store, [one])
    pushed = made.push(
        store,
        {
            "docker.io/library/a:1": Entry(one.entry.descriptor, frozenset(set(one.blobs) - {one.digest})),
            "docker.io/library/b:1": one,
        },
    )
    assert set(needed_by_pushes(pushed, store)) == set(one.blobs)


def test_children_of_a_manifest_that_is_not_at_hand_are_unknown(store: BlobStore) -> None:
    one = made.image(1)
    found = list(walk(one.entry, reader(store)))
    assert [(item.descriptor.digest, item.manifest) for item in found] == [(one.digest, None)]


def test_piece_maps_are_held_like_manifests(store: BlobStore) -> None:
    one = made.image(1, size=2 << 20)
    generation = made.publish(store, {"docker.io/library/a:1": one}, piece_maps=True)
    (descriptor,) = generation.piece_maps.values()
    found = needed(generation, store)
    assert found[descriptor.digest].is_manifest
    assert set(found) == set(one.blobs) | {descriptor.digest}


def test_a_manifest_called_another_thing_is_refused(store: BlobStore) -> None:
    one = made.image(1)
    made.fill(store, [one])
    wrong = Entry(replace(one.entry.descriptor, media_type=mediatypes.OCI_INDEX))
    with pytest.raises(ApplianceError) as caught:
        list(walk(wrong, reader(store)))
    assert caught.value.code == "APL-0207"


def test_a_piece_map_goes_with_the_last_name_of_its_blob(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "BIG_BLOB", 100)
    generation = made.publish(store, {"docker.io/library/a:1": made.image(1)}, piece_maps=True)
    maps, names = dict(generation.piece_maps), {"docker.io/library/b:1": made.image(2).entry}
    made.fill(store, [made.image(2)])
    assert maps_needed(generation.names, maps, store) == maps
    assert maps_needed(names, maps, store) == {}
    assert maps_needed({**generation.names, **names}, maps, store) == maps
    # What a manifest lists that is not at hand is not known: nothing is given up for that.
    store.path(made.image(2).digest).unlink()
    assert maps_needed(names, maps, store) == maps
