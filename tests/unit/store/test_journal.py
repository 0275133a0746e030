"""The journal: one line a generation, and a power loss costs at most the line that was being written."""

from __future__ import annotations

import json
from typing import Any

from appliance.store.blobs import BlobStore
from appliance.store.generations import Generation, make
from appliance.store.journal import catch_up, record, was_published
from tests.unit.store import made


def generation(*sources: str, parent: Generation | None = None) -> Generation:
    return make(parent, {}, {}, cause="seeding", created=made.CREATED, sources=sources)


def lines(store: BlobStore) -> list[Any]:
    return [json.loads(line) for line in (store.root / "journal.jsonl").read_text().splitlines()]


def test_each_generation_is_one_line(store: BlobStore) -> None:
    first = generation("/media/a")
    record(store.root, first)
    record(store.root, generation("/media/b", parent=first))
    assert [(line["number"], line["sources"]) for line in lines(store)] == [(1, ["/media/a"]), (2, ["/media/b"])]
    assert lines(store)[0] == {
        "number": 1,
        "digest": first.digest,
        "cause": "seeding",
        "created": made.CREATED,
        "sources": ["/media/a"],
    }


def test_what_was_published_is_known_by_its_exact_name(store: BlobStore) -> None:
    assert not was_published(store.root, None, "/media/a")
    record(store.root, generation("/media/a"))
    assert was_published(store.root, None, "/media/a")
    assert not was_published(store.root, None, "/media/")
    assert was_published(store.root, generation("/media/b"), "/media/b")


def test_a_line_cut_short_swallows_neither_the_next_nor_the_last(store: BlobStore) -> None:
    record(store.root, generation("/media/a"))
    path = store.root / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"number":2,"sour')
    record(store.root, generation("/media/c"))
    for source, known in (("/media/a", True), ("/media/c", True), ("/media/b", False)):
        assert was_published(store.root, None, source) is known


def test_lines_that_are_no_records_say_nothing(store: BlobStore) -> None:
    (store.root / "journal.jsonl").write_bytes(b'5\n[]\n{"sources":"/media/a"}\n\xff\xfe\n{}\n\n')
    assert not was_published(store.root, None, "/media/a")
    assert not was_published(store.root, None, "/")


def test_a_line_that_was_never_written_is_caught_up_once(store: BlobStore) -> None:
    first = generation("/media/a")
    catch_up(store.root, first)
    catch_up(store.root, first)
    assert [line["digest"] for line in lines(store)] == [first.digest]


def test_names_that_are_no_utf8_survive(store: BlobStore) -> None:
    record(store.root, generation("/media/\udcff"))
    assert was_published(store.root, None, "/media/\udcff")
