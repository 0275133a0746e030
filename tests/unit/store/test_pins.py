"""Pins: what they list, what they keep, and what changes them."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance import pki
from appliance.errors import ApplianceError
from appliance.store import index
from appliance.store.blobs import BlobStore
from appliance.store.fsck import check
from appliance.store.pins import Pinned, Pins, parse, pin, unpin
from appliance.store.reachability import needed_by_pins
from appliance.trust import Signature, Trust
from tests.keys import certify
from tests.unit.store import made

A, B = "docker.io/library/a:1", "docker.io/library/b:1"


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    """A store that serves two names."""
    store = made.open_store(tmp_path / "store")
    made.publish(store, {A: made.image(1), B: made.image(2)})
    return store


def names(blobs: BlobStore) -> list[str]:
    current = made.pins(blobs).current()
    return list(current.names) if current else []


def change(blobs: BlobStore, *texts: str) -> list[str]:
    return pin(blobs, made.generations(blobs), made.pins(blobs), texts)


def test_pin_and_unpin(blobs: BlobStore) -> None:
    assert names(blobs) == []
    assert change(blobs, "b:1", "a:1", "docker.io/library/a:1") == [A, B]
    assert names(blobs) == [A, B]
    raw = (blobs.root / "pins.json").read_bytes()
    assert change(blobs, "a:1") == []
    assert (blobs.root / "pins.json").read_bytes() == raw
    assert unpin(blobs, made.pins(blobs), ["a:1"]) == [A]
    assert names(blobs) == [B]
    assert unpin(blobs, made.pins(blobs), ["b:1"]) == [B]
    assert names(blobs) == []


def test_the_journal_says_what_was_pinned(blobs: BlobStore) -> None:
    change(blobs, "a:1")
    change(blobs, "a:1")
    unpin(blobs, made.pins(blobs), ["a:1"])
    lines = [json.loads(line) for line in (blobs.root / "journal.jsonl").read_text().splitlines()]
    assert [(line["action"], line["names"]) for line in lines] == [("pin", [A]), ("unpin", [A])]


def test_no_pin_without_its_line(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended before or after the index is switched; done again, nothing is missing in the log."""

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    actions: list[Callable[[], object]] = [
        lambda: change(blobs, "a:1"),
        lambda: unpin(blobs, made.pins(blobs), ["a:1"]),
    ]
    for action in actions:
        before = names(blobs)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(index, "write_atomically", killed)
            action()
        assert names(blobs) == before
        action()
    lines = [json.loads(line) for line in (blobs.root / "journal.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["pin", "pin", "unpin", "unpin"]


@pytest.mark.parametrize("text", ["c:1", "a:2", "quay.io/library/a:1"])
def test_only_what_is_served_can_be_pinned_and_nothing_is_half_done(blobs: BlobStore, text: str) -> None:
    with pytest.raises(ApplianceError, match="APL-0332"):
        change(blobs, "a:1", text)
    assert names(blobs) == []


def test_a_name_with_a_digest_is_pinned_only_where_it_is_that_image(blobs: BlobStore) -> None:
    with pytest.raises(ApplianceError, match="APL-0332") as raised:
        change(blobs, "b:1", f"a:1@{made.image(2).digest}")
    assert f"not there: {A}@{made.image(2).digest}" in str(raised.value)
    assert names(blobs) == []
    assert change(blobs, f"a:1@{made.image(1).digest}") == [A]


def test_a_full_disk_is_said_to_be_full(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(index, "write_atomically", full)
        with pytest.raises(ApplianceError, match="APL-0310"):
            change(blobs, "a:1")
    assert names(blobs) == []


def test_a_pin_that_is_not_there_cannot_be_taken_away(blobs: BlobStore) -> None:
    change(blobs, "a:1")
    with pytest.raises(ApplianceError, match=r"APL-0333.*b:1"):
        unpin(blobs, made.pins(blobs), ["a:1", "b:1"])
    assert names(blobs) == [A]


def test_not_under_a_seeding(blobs: BlobStore) -> None:
    with made.seeding_elsewhere(blobs.root), pytest.raises(ApplianceError, match="APL-0307"):
        change(blobs, "a:1")


def test_what_a_pin_keeps_is_known_when_its_name_has_left(blobs: BlobStore) -> None:
    one = made.image(1)
    change(blobs, "a:1")
    made.publish(blobs, {B: made.image(2)})
    made.pins(blobs).follow({})
    current = made.pins(blobs).current()
    assert current is not None
    assert set(needed_by_pins(current, blobs)) == set(one.blobs)
    blobs.path(one.layers[0]).unlink()
    assert check(made.store(blobs)).problems == [f"{one.layers[0]} is missing"]


def test_a_node_that_follows_lacks_nothing_that_it_never_had_of_a_pin(blobs: BlobStore) -> None:
    change(blobs, "a:1")
    gone = made.image(9)
    pinned = made.pins(blobs).current()
    assert pinned is not None
    made.pins(blobs).replace({**pinned.names, "docker.io/library/gone:1": gone.entry})
    report = check(made.follower(blobs))
    assert (report.problems, report.elsewhere) == ([], [gone.digest])
    assert check(made.store(blobs)).problems == [f"{gone.digest} is missing"]


def test_signatures_of_those_before_do_not_pile_up(blobs: BlobStore, tmp_path: Path) -> None:
    """Neither where pins are made nor where they are followed."""
    follower = made.open_store(tmp_path / "follower")
    for number in range(12):
        made_here = made.pins(blobs).replace({A: made.image(number).entry})
        signature = Signature("a", "x", "y")
        assert made.pins(follower).accept(made_here.raw, signature, lambda _: None) == made_here
    assert len(list((follower.root / "pins").iterdir())) == 4


def test_a_pin_follows_its_name(blobs: BlobStore) -> None:
    change(blobs, "a:1")
    made.publish(blobs, {A: made.image(3), B: made.image(2)})
    served = made.generations(blobs).current()
    assert served is not None
    made.pins(blobs).follow(served.names)
    current = made.pins(blobs).current()
    assert current is not None
    assert (current.number, current.names[A].descriptor.digest) == (2, made.image(3).digest)
    last = json.loads((blobs.root / "journal.jsonl").read_text().splitlines()[-1])
    assert (last["action"], last["digests"]) == ("move-pinned", {A: made.image(3).digest})
    made.pins(blobs).follow(served.names)
    assert made.pins(blobs).current() == current


def test_the_bytes_depend_on_nothing_else() -> None:
    one, two = made.image(1).entry, made.image(2).entry
    first = Pinned.after(None, {B: two, A: one}, {}, made.CREATED)
    assert first.raw == Pinned.after(None, {A: one, B: two}, {}, made.CREATED).raw
    assert parse(first.raw, "x") == first
    assert first.piece_maps == {}


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"manifests":[],"annotations":{}}', b"\xff"])
def test_damaged_pins_are_an_error(blobs: BlobStore, raw: bytes) -> None:
    (blobs.root / "pins.json").write_bytes(raw)
    with pytest.raises(ApplianceError, match="APL-0331"):
        made.pins(blobs).current()
    report = check(made.store(blobs))
    assert any("APL-0331" in problem for problem in report.problems)


def test_pins_are_signed_by_the_publisher(blobs: BlobStore, tmp_path: Path) -> None:
    pki.init_ca(tmp_path / "ca")
    certify(tmp_path / "ca", tmp_path / "pki", "a", "192.0.2.1")
    trust = Trust(tmp_path / "pki", "a", ("a",))
    pins = Pins(blobs, trust)
    pin(blobs, made.generations(blobs), pins, ["a:1"])
    current = pins.current()
    assert current is not None
    trust.check(current.raw, pins.signature(current))
    with pytest.raises(ApplianceError, match="APL-0606"):
        trust.check(current.raw + b" ", pins.signature(current))
