"""What each label alone reaches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.store.blobs import BlobStore
from appliance.store.marking import exclusive
from tests.unit.store import made
from tests.unit.store.test_gc import collector

A, B = "docker.io/library/a:1", "docker.io/library/b:1"


@given(st.dictionaries(st.sampled_from("abcd"), st.sets(st.sampled_from("uvwxyz")), max_size=4))
def test_going_without_a_label_frees_what_only_it_reaches(reached: dict[str, set[str]]) -> None:
    sizes = {digest: 1 << number for number, digest in enumerate("uvwxy")}  # z is not here
    found = exclusive(reached, sizes)
    assert set(found) == set(reached)
    everything = set().union(*reached.values()) if reached else set()
    for label, size in found.items():
        others = set().union(*(digests for other, digests in reached.items() if other != label))
        assert size == sum(sizes.get(digest, 0) for digest in everything - others)


def test_what_takes_most_is_a_name_an_older_generation_or_garbage(store: BlobStore) -> None:
    big, old, shared = made.image(1, size=90_000), made.image(2, size=50_000), made.image(3, size=70_000)
    made.fill(store, [made.image(4, size=30_000)])
    made.publish(store, {A: old, B: shared})
    made.publish(store, {A: big, B: shared})
    made.push(store, {"docker.io/team/x:1": shared, "docker.io/team/y:1": made.image(5, size=1000)})
    found = collector(store, keep=2).largest(10)
    assert [name for name, _ in found] == [A, "generation 1", "garbage", "docker.io/team/y:1 (pushed)"]
    assert [size for _, size in found] == sorted((size for _, size in found), reverse=True)
