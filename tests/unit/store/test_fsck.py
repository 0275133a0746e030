"""fsck: every flipped byte and every hole is found, and nothing else is complained about."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.store.blobs import BlobStore
from appliance.store.fsck import Report, check
from appliance.store.index import Entry
from tests.unit.store import made

NAME = "docker.io/library/a:1"


def run(store: BlobStore, *, whole: bool = True) -> Report:
    return check(made.store(store) if whole else made.follower(store))


def overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_sound_store_has_no_problems(store: BlobStore) -> None:
    one = made.image(1, size=2 << 20)
    made.publish(store, {NAME: one}, piece_maps=True)
    seen: list[int] = []
    report = check(made.store(store), progress=seen.append)
    assert report.problems == []
    assert report.blobs == len(one.blobs) + 1
    assert report.size == sum(size for _, size in store.digests()) == seen[-1]
    assert report.as_dict() == {
        "blobs": 4,
        "bytes": report.size,
        "problems": [],
        "remarks": [],
        "elsewhere": 0,
        "quarantined": [],
        "damage": [],
    }


def test_an_empty_store_is_sound(store: BlobStore) -> None:
    assert run(store).problems == []


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_flipped_byte_is_found(store: BlobStore, data: st.DataObject) -> None:
    one = made.image(1)
    if made.generations(store).current() is None:
        made.publish(store, {NAME: one})
    digest = data.draw(st.sampled_from(sorted(one.blobs)))
    raw = bytearray(one.blobs[digest])
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    overwrite(store.path(digest), bytes(raw))
    try:
        problems = run(store).problems
    finally:
        overwrite(store.path(digest), one.blobs[digest])
    assert any(digest in problem and "damaged" in problem for problem in problems)


def test_a_missing_manifest_is_a_problem_on_every_node(store: BlobStore) -> None:
    one = made.image(1)
    made.publish(store, {NAME: one})
    store.path(one.digest).unlink()
    for whole in (True, False):
        assert run(store, whole=whole).problems == [f"{one.digest} is missing"]


def test_a_missing_layer_is_a_problem_only_where_all_has_to_be(store: BlobStore) -> None:
    one = made.image(1)
    made.publish(store, {NAME: one})
    store.path(one.layers[0]).unlink()
    assert run(store, whole=True).problems == [f"{one.layers[0]} is missing"]
    report = run(store, whole=False)
    assert (report.problems, report.elsewhere) == ([], one.layers)


def test_what_was_never_brought_is_no_problem(store: BlobStore) -> None:
    arm = made.image(2, arch="arm64")
    sparse = made.index({"amd64": made.image(1), "arm64": arm}, leave_out=["arm64"])
    made.publish(store, {NAME: sparse})
    assert run(store).problems == [f"{arm.digest} is missing"]
    made.publish(store, {NAME: Entry(sparse.entry.descriptor, frozenset({arm.digest}))})
    assert run(store).problems == []


def test_what_one_name_left_out_is_missed_by_another(store: BlobStore) -> None:
    arm = made.image(2, arch="arm64")
    sparse = made.index({"amd64": made.image(1), "arm64": arm}, leave_out=["arm64"])
    entry = Entry(sparse.entry.descriptor, frozenset({arm.digest}))
    made.publish(store, {NAME: entry, "docker.io/library/b:1": arm}, leave_out=[arm.digest, *arm.blobs])
    made.fill(store, [sparse])
    assert run(store).problems == [f"{arm.digest} is missing"]


def test_a_blob_cut_short_is_found_once_by_hash_and_once_by_size(store: BlobStore) -> None:
    one = made.image(1)
    made.publish(store, {NAME: one})
    overwrite(store.path(one.layers[0]), b"short")
    problems = run(store).problems
    assert any("damaged" in problem for problem in problems)
    assert any("5 bytes" in problem for problem in problems)


def stray(paths: Iterable[Path]) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"stray")


def test_strays_are_named_and_do_not_stop_the_check(store: BlobStore) -> None:
    one = made.image(1)
    made.publish(store, {NAME: one})
    blobs = store.root / "blobs"
    stray([blobs / "sha256" / "notes.txt", blobs / "md5" / ("0" * 32)])
    report = run(store)
    assert report.blobs == len(one.blobs)
    assert len(report.problems) == 2
    assert all("is no blob" in problem for problem in report.problems)


@pytest.mark.parametrize("content", [b"rot", b'{"manifests":[]}', b""])
def test_a_damaged_kept_generation_is_found(store: BlobStore, content: bytes) -> None:
    made.publish(store, {NAME: made.image(1)})
    (path,) = (store.root / "generations").glob("*.json")
    path.write_bytes(content)
    assert len(run(store).problems) == 1
    assert str(path) in run(store).problems[0]


def test_a_damaged_index_is_found(store: BlobStore) -> None:
    made.publish(store, {NAME: made.image(1)})
    (store.root / "index.json").write_bytes(b"rot")
    (problem,) = run(store).problems
    assert "APL-0305" in problem


def test_what_was_pushed_has_to_be_there_too(store: BlobStore) -> None:
    one = made.image(1)
    made.push(store, {"docker.io/team/app:1": one})
    assert run(store, whole=True).problems == []
    store.path(one.layers[0]).unlink()
    assert run(store, whole=True).problems == [f"{one.layers[0]} is missing"]
    assert run(store, whole=False).elsewhere == [one.layers[0]]
    (store.root / "pushes.json").write_bytes(b"rot")
    assert "APL-0314" in run(store, whole=True).problems[0]
