"""What is told of generations."""

from __future__ import annotations

from appliance.store.blobs import BlobStore
from appliance.store.history import history
from tests.unit.store import made

NAME = "docker.io/library/a:1"


def test_on_a_node_that_skipped_some_those_are_complete_that_collection_keeps(store: BlobStore) -> None:
    for seed in range(1, 5):
        made.publish(store, {NAME: made.image(seed)})
    made.forget(store, 2)
    made.forget(store, 3)
    generations = made.generations(store)
    rows = history(generations, store, keep=3)
    assert [(row["number"], row["state"]) for row in rows] == [(1, "kept"), (4, "current")]
    assert [generation.number for generation in generations.complete(3)] == [4]
