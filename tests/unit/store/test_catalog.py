"""The catalog: each repository serves what its own names reach, and nothing else."""

from __future__ import annotations

import threading

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.oci.manifests import Descriptor
from appliance.oci.reference import parse_reference
from appliance.store.blobs import BlobStore
from appliance.store.catalog import Catalog, LiveCatalog, NameTable, PushedNames, Repository
from appliance.store.generations import Generations
from appliance.store.index import Entry
from tests.unit.store import made

A, B = "docker.io/library/a", "quay.io/team/b"


def digest(found: Descriptor | None) -> str | None:
    return None if found is None else found.digest


def test_names_registries_and_tags(store: BlobStore) -> None:
    one, two = made.image(1), made.image(2)
    catalog = Catalog(made.publish(store, {f"{A}:1": one, f"{A}:2": two, f"{B}:1": one}), store)
    assert catalog.repositories() == [A, B]
    assert catalog.registries() == ["docker.io", "quay.io"]
    tags = catalog.tags(A)
    assert tags is not None
    assert {tag: found.digest for tag, found in tags.items()} == {"1": one.digest, "2": two.digest}
    assert catalog.tags("docker.io/library/else") is None


def test_an_empty_store_knows_nothing(store: BlobStore) -> None:
    catalog = Catalog(None, store)
    assert catalog.repositories() == catalog.registries() == []
    assert catalog.tags(A) is None
    assert catalog.closure(A) == {}
    assert catalog.manifest(A, "1") is None
    assert list(catalog.referrers(A, made.sha(b""))) == []


def test_a_blob_of_one_repository_is_not_readable_by_anothers_name(store: BlobStore) -> None:
    one, two = made.image(1), made.image(2)
    catalog = Catalog(made.publish(store, {f"{A}:1": one, f"{B}:1": two}), store)
    for item, own, other in ((one, A, B), (two, B, A)):
        for blob in item.blobs:
            assert digest(catalog.blob(own, blob)) == blob
            assert catalog.blob(other, blob) is None
        assert digest(catalog.manifest(own, item.digest)) == item.digest
        assert catalog.manifest(other, item.digest) is None


def test_a_blob_is_no_manifest(store: BlobStore) -> None:
    one = made.image(1)
    catalog = Catalog(made.publish(store, {f"{A}:1": one}), store)
    assert catalog.manifest(A, one.layers[0]) is None
    assert digest(catalog.manifest(A, "1")) == one.digest
    assert catalog.manifest(A, "2") is None


def test_names_by_digest_serve_without_a_tag(store: BlobStore) -> None:
    one = made.image(1)
    catalog = Catalog(made.publish(store, {f"{A}@{one.digest}": one}), store)
    assert catalog.tags(A) == {}
    assert digest(catalog.manifest(A, one.digest)) == one.digest


def test_children_of_an_index_are_manifests_of_its_repository(store: BlobStore) -> None:
    arm = made.image(2, arch="arm64")
    both = made.index({"amd64": made.image(1), "arm64": arm})
    catalog = Catalog(made.publish(store, {f"{A}:1": both}), store)
    assert digest(catalog.manifest(A, arm.digest)) == arm.digest
    assert set(catalog.closure(A)) == set(both.blobs)


def test_what_a_sparse_index_leaves_out_is_not_served(store: BlobStore) -> None:
    arm = made.image(2, arch="arm64")
    sparse = made.index({"amd64": made.image(1), "arm64": arm}, leave_out=["arm64"])
    made.fill(store, [sparse])
    entry = Entry(sparse.entry.descriptor, frozenset({arm.digest}))
    catalog = Catalog(made.publish(store, {f"{A}:1": entry}), store)
    assert catalog.manifest(A, arm.digest) is None
    assert set(catalog.closure(A)) == set(sparse.blobs)


def test_a_manifest_that_comes_back_is_served_with_all_it_reaches(store: BlobStore) -> None:
    one = made.image(1)
    catalog = Catalog(made.publish(store, {f"{A}:1": one}, leave_out=[one.digest]), store)
    assert catalog.blob(A, one.layers[0]) is None
    made.fill(store, [one])
    assert digest(catalog.blob(A, one.layers[0])) == one.layers[0]


def test_referrers_of_a_repository(store: BlobStore) -> None:
    one = made.image(1)
    signature = made.image(9, subject=one, artifact_type="application/x.sig", annotations={"by": "us"})
    elsewhere = made.image(8, subject=one)
    catalog = Catalog(made.publish(store, {f"{A}:1": one, f"{A}:sha256-x.sig": signature, f"{B}:1": elsewhere}), store)
    found = list(catalog.referrers(A, one.digest))
    assert [item.digest for item, _ in found] == [signature.digest]
    assert found[0][1].artifact_type == "application/x.sig"
    assert list(catalog.referrers(A, signature.digest)) == []


def test_referrers_without_a_name_are_served_where_their_subject_is(store: BlobStore) -> None:
    """In every repository of it and in no other, by digest with all of their blobs, nested and of an index's children."""
    one, other = made.image(1), made.image(2)
    both = made.index({"amd64": one, "arm64": made.image(3, arch="arm64")})
    sbom, signature = made.image(9, subject=one), made.image(7)
    nested = made.image(8, subject=sbom)
    generation = made.publish(
        store,
        {f"{A}:1": both, f"{A}:2": other, f"{B}:1": other},
        referrers={one.digest: [sbom, signature], sbom.digest: [nested]},
    )
    catalog = Catalog(generation, store)
    # One of them says nothing itself: then the generation's word counts.
    assert {item.digest for item, _ in catalog.referrers(A, one.digest)} == {sbom.digest, signature.digest}
    assert [item.digest for item, _ in catalog.referrers(A, sbom.digest)] == [nested.digest]
    for item in (sbom, signature, nested):
        assert digest(catalog.manifest(A, item.digest)) == item.digest
        assert digest(catalog.blob(A, item.layers[0])) == item.layers[0]
        assert catalog.is_seeded(A, item.digest)
        assert catalog.manifest(B, item.digest) is None
    assert list(catalog.referrers(B, one.digest)) == []
    assert set(catalog.tags(A) or ()) == {"1", "2"}


def test_the_current_catalog_follows_the_index(store: BlobStore, generations: Generations) -> None:
    current = LiveCatalog(store, generations, made.pushes(store))
    assert current.get().generation is None
    made.publish(store, {f"{A}:1": made.image(1)})
    first = current.get()
    assert first.repositories() == [A]
    assert current.get() is first
    made.publish(store, {f"{B}:1": made.image(1)})
    assert current.get().repositories() == [B]
    assert first.repositories() == [A]


def test_of_two_indexes_the_sound_one_is_followed(store: BlobStore, generations: Generations) -> None:
    current = LiveCatalog(store, generations, made.pushes(store))
    made.publish(store, {f"{A}:1": made.image(1)})
    made.push(store, {f"{B}:1": made.image(2)})
    assert current.get().repositories() == [A, B]
    (store.root / "pushes.json").write_bytes(b"rot")
    made.publish(store, {f"{A}/next:1": made.image(1)})
    assert current.get().repositories() == [f"{A}/next", B]


def test_a_damaged_index_is_an_error_until_it_is_sound(store: BlobStore, generations: Generations) -> None:
    current = LiveCatalog(store, generations, made.pushes(store))
    made.publish(store, {f"{A}:1": made.image(1)})
    raw = generations.index.read_bytes()
    generations.index.write_bytes(b"rot")
    for _ in range(2):
        with pytest.raises(ApplianceError, match="APL-0305"):
            current.get()
    generations.index.unlink()
    generations.index.write_bytes(raw)
    assert current.get().repositories() == [A]


def test_a_generation_lies_over_what_was_pushed(store: BlobStore) -> None:
    one, two, three = made.image(1), made.image(2), made.image(3)
    pushed = made.push(store, {f"{A}:1": two, f"{A}:2": three, f"{B}:1": three})
    catalog = Catalog(made.publish(store, {f"{A}:1": one}), store, pushed)
    assert catalog.repositories() == [A, B]
    assert digest(catalog.manifest(A, "1")) == one.digest
    assert digest(catalog.manifest(A, "2")) == three.digest
    # The covered push stays reachable by its digest: it comes back when the generation lets go of the name.
    assert digest(catalog.manifest(A, two.digest)) == two.digest
    assert catalog.is_seeded(A, "1") and not catalog.is_seeded(A, "2")
    assert catalog.is_seeded(A, one.digest) and not catalog.is_seeded(A, two.digest)
    assert catalog.blob(B, two.layers[0]) is None
    assert digest(catalog.blob(A, two.layers[0])) == two.layers[0]


def test_what_did_not_change_is_not_read_again(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    current = LiveCatalog(store, made.generations(store), made.pushes(store))
    images = [made.image(number) for number in range(1, 6)]
    made.publish(store, {f"{A}:seeded": images[0]})
    made.push(store, {f"{B}:{number}": item for number, item in enumerate(images[1:4])})
    first = current.get()
    assert len(first.closure(A)) == len(first.closure(B)) / 3 == 3
    made.push(store, {f"{B}:{number}": item for number, item in enumerate(images[1:])})
    read: list[str] = []
    real = store.read

    def noting(digest: str, limit: int) -> bytes:
        read.append(digest)
        return real(digest, limit)

    monkeypatch.setattr(store, "read", noting)
    second = current.get()
    assert second is not first
    assert len(second.closure(B)) == 12
    assert second.closure(A) == first.closure(A)
    assert read == [images[4].digest]


def test_a_manifest_that_another_one_lists_as_a_layer_is_still_a_manifest(store: BlobStore) -> None:
    one = made.image(1)
    document = {**one.document, "layers": [{**one.descriptor, "mediaType": "application/x.layer"}]}
    raw = made.compact(document)
    wrapping = made.Image(
        {"mediaType": one.descriptor["mediaType"], "digest": made.sha(raw), "size": len(raw)},
        {**one.blobs, made.sha(raw): raw},
    )
    pushed = made.push(store, {f"{A}:a": wrapping, f"{A}:z": one})
    assert digest(Catalog(None, store, pushed).manifest(A, one.digest)) == one.digest


def test_many_who_ask_at_once_wait_for_one_reading(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    generations = made.generations(store)
    current = LiveCatalog(store, generations, made.pushes(store))
    made.publish(store, {f"{A}:1": made.image(1)})
    read: list[int] = []
    real = generations.current

    def slowly() -> object:
        read.append(1)
        threading.Event().wait(0.05)
        return real()

    monkeypatch.setattr(generations, "current", slowly)
    turns: list[int] = []

    def tick() -> None:
        while True:
            turns.append(1)
            gevent.sleep(0.005)

    ticking = gevent.spawn(tick)
    found = [job.get() for job in [gevent.spawn(current.get) for _ in range(20)]]
    ticking.kill()
    assert len(read) == 1
    assert all(item is found[0] for item in found)
    assert len(turns) > 2, "the event loop went on meanwhile"


_part = st.from_regex(r"[ab1]([._-][ab1]|[ab1]){0,2}", fullmatch=True)
_names = st.builds(
    lambda host, path, ending: f"{host}/{'/'.join(path)}{ending}",
    st.sampled_from(["quay.io", "a.b:5000", "[::1]:5000"]),
    st.lists(_part, min_size=1, max_size=3),
    st.sampled_from([":1", ":A", ":_", ":a-1", f"@{made.sha(b'')}", f"@{made.sha(b'', 'sha512')}"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.sets(_names, max_size=20))
def test_each_repository_finds_its_own_names_and_no_others(store: BlobStore, names: set[str]) -> None:
    """Whatever characters go on where another repository's name ends."""
    entries = {name: Entry(Descriptor("m", made.sha(name.encode()), 1)) for name in names}
    layer = NameTable(entries, store)
    expected: dict[str, set[str]] = {}
    for name in names:
        expected.setdefault(parse_reference(name).name, set()).add(name)
    assert sorted(layer.repositories()) == sorted(expected)
    for repository, own in expected.items():
        found = layer.find(repository)
        assert found is not None
        assert {entry.descriptor.digest for entry in found.entries} == {entries[n].descriptor.digest for n in own}
        tags = {parse_reference(name).tag: entries[name].descriptor for name in own if parse_reference(name).tag}
        assert found.tags == tags
        for other in (repository[:-1], repository + "a", repository + "/a", repository.rpartition("/")[0]):
            assert other in expected or layer.find(other) is None


def test_a_repository_looked_up_while_the_next_catalog_is_made_breaks_nothing(store: BlobStore) -> None:
    """A push makes the next catalog on a thread, and the event loop goes on looking up in the one before."""
    before = PushedNames({}, store)

    class Found(Repository):
        def __getattribute__(self, name: str) -> object:
            before._asked[f"docker.io/team/{len(before._asked)}"] = Repository()
            return super().__getattribute__(name)

    before._asked[A] = Found()
    assert PushedNames({}, store, before).tags(A) == {}
