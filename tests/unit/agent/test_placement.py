"""Who keeps what: as many as the policy says, the publisher always, and a change of the list moves its own share."""

from __future__ import annotations

from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from appliance.agent.placement import keepers, piece_map, wanted
from appliance.config import Config, Peer
from appliance.oci.manifests import Descriptor
from appliance.store.blobs import BlobStore
from appliance.store.generations import Generation
from appliance.store.index import Entry
from appliance.store.reachability import Needed, needed
from tests.unit.store import made

ids = st.lists(st.text("abcdefgh0123", min_size=1, max_size=4), min_size=1, max_size=12, unique=True)
digests = st.binary(max_size=4).map(made.sha)
copies = st.none() | st.integers(1, 15)


def needs(generation: Generation, store: BlobStore) -> list[Needed]:
    return list(needed(generation, store).values())


def config(nodes: list[str], copies: int | None = 2, node: str | None = None, publisher: bool = True) -> Config:
    return Config(
        node=node or nodes[0],
        store=Path("/s"),
        peers=tuple(Peer(name, f"http://{name}", name) for name in nodes),
        seeds=(nodes[0],) if publisher else (),
        mirror_copies=copies,
    )


@given(ids, digests, copies, st.booleans())
def test_as_many_as_asked_for_each_once(nodes: list[str], digest: str, count: int | None, publisher: bool) -> None:
    found = keepers(digest, config(nodes, count, publisher=publisher))
    assert len(found) == len(set(found)) == min(len(nodes), count or len(nodes))
    assert set(found) <= set(nodes)
    assert not publisher or nodes[0] in found


@given(ids, digests, copies, st.randoms())
def test_the_order_of_the_list_does_not_matter(
    nodes: list[str], digest: str, count: int | None, shuffle: Random
) -> None:
    others = nodes[1:]
    shuffle.shuffle(others)
    assert set(keepers(digest, config(nodes, count))) == set(keepers(digest, config([nodes[0], *others], count)))


@given(ids, digests, st.integers(1, 5), st.data())
def test_a_node_that_leaves_moves_only_its_share(
    nodes: list[str], digest: str, count: int, data: st.DataObject
) -> None:
    if len(nodes) < 2:
        return
    gone = data.draw(st.sampled_from(nodes[1:]))
    before = set(keepers(digest, config(nodes, count)))
    after = set(keepers(digest, config([node for node in nodes if node != gone], count)))
    assert before - {gone} <= after
    assert len(after - before) <= (1 if gone in before else 0)


def test_the_share_of_each_node_is_about_the_same() -> None:
    nodes = [f"n{number}" for number in range(11)]
    counts = dict.fromkeys(nodes, 0)
    for number in range(2000):
        for node in keepers(made.sha(str(number).encode()), config(nodes, 2)):
            counts[node] += 1
    assert counts["n0"] == 2000
    assert all(130 <= counts[node] <= 270 for node in nodes[1:]), counts


def test_wanted_is_what_is_missing_smallest_first(store: BlobStore) -> None:
    one = made.image(1, size=5000, layers=3)
    generation = made.publish(store, {"docker.io/library/a:1": one}, leave_out=[one.layers[0], one.layers[2]])
    found = wanted(needs(generation, store), store, config(["a", "b"], None, "b"))
    assert {item.digest for item in found} == {one.layers[0], one.layers[2]}
    assert [item.size for item in found] == sorted(item.size for item in found)
    assert wanted(needs(generation, store), store, config(["a", "b", "c"], 1, "b")) == []


def test_a_blob_of_another_size_is_wanted_again(store: BlobStore) -> None:
    one = made.image(1)
    generation = made.publish(store, {"docker.io/library/a:1": one})
    path = store.path(one.layers[0])
    path.chmod(0o644)
    path.write_bytes(b"cut")
    assert [item.digest for item in wanted(needs(generation, store), store, config(["a"]))] == one.layers


def test_every_node_wants_every_manifest_back(store: BlobStore) -> None:
    """A manifest is nobody's share; the layers that a lost one lists show when it is back."""
    one = made.image(1)
    both = made.index({"amd64": one})
    generation = made.publish(store, {"docker.io/library/a:1": both})
    mine = config(["a", "b", "c"], 1, "b")
    assert wanted(needs(generation, store), store, mine) == []
    for damage in (b"", one.raw.replace(b"2", b"3")):
        path = store.path(one.digest)
        path.unlink(missing_ok=True)
        if damage:
            path.write_bytes(damage)
        assert [item.digest for item in wanted(needs(generation, store), store, mine)] == [one.digest]
    store.path(both.digest).unlink()
    assert [item.digest for item in wanted(needs(generation, store), store, mine)] == [both.digest]


def test_what_was_found_damaged_is_wanted_back_whoever_keeps_it(store: BlobStore) -> None:
    one = made.image(1, layers=2)
    generation = made.publish(store, {"docker.io/library/a:1": one})
    mine = config(["a", "b", "c"], 1, "b")
    store.path(one.layers[0]).unlink()
    store.quarantine(one.layers[1])
    assert [item.digest for item in wanted(needs(generation, store), store, mine)] == [one.layers[1]]


def test_what_one_name_leaves_out_another_may_want(store: BlobStore) -> None:
    arm = made.image(2, arch="arm64")
    both = made.index({"amd64": made.image(1), "arm64": arm})
    sparse = Entry(both.entry.descriptor, frozenset({arm.digest, *arm.layers}))
    made.fill(store, [both], leave_out=arm.layers)
    only = made.publish(store, {"docker.io/library/a:1": sparse})
    assert wanted(needs(only, store), store, config(["a"])) == []
    generation = made.publish(
        store, {"docker.io/library/a:1": sparse, "docker.io/library/b:1": arm.entry}, leave_out=arm.layers
    )
    assert [item.digest for item in wanted(needs(generation, store), store, config(["a"]))] == arm.layers


def test_the_piece_map_of_the_signed_generation(store: BlobStore) -> None:
    one = made.image(1, size=2 << 20)
    generation = made.publish(store, {"docker.io/library/a:1": one}, piece_maps=True)
    found = piece_map(generation.piece_maps.get(one.layers[0]), store, one.layers[0])
    assert found is not None
    assert (found.blob, found.size) == (one.layers[0], len(one.blobs[one.layers[0]]))
    assert piece_map(generation.piece_maps.get(one.digest), store, one.digest) is None
    assert piece_map(None, store, one.layers[0]) is None


def test_a_map_that_is_lost_damaged_or_another_blobs_is_none(store: BlobStore) -> None:
    one = made.image(1, size=2 << 20)
    other = made.put_map(store, made.noise(5, 2 << 20))
    generation = made.publish(store, {"docker.io/library/a:1": one}, piece_maps=True)
    descriptor = generation.piece_maps[one.layers[0]]
    path = store.path(descriptor.digest)
    path.chmod(0o644)
    path.write_bytes(b"rot")
    assert piece_map(generation.piece_maps.get(one.layers[0]), store, one.layers[0]) is None
    path.unlink()
    assert piece_map(generation.piece_maps.get(one.layers[0]), store, one.layers[0]) is None
    swapped: dict[str, Descriptor] = {one.layers[0]: other}
    object.__setattr__(generation, "piece_maps", swapped)
    assert piece_map(generation.piece_maps.get(one.layers[0]), store, one.layers[0]) is None
