"""Heads of indexes: signed beside the index, taken over with its signature, and worth nothing where they do not verify."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.files import write_atomically
from appliance.store.generations import Generation, Generations, make, parse
from appliance.store.head import IndexHead
from appliance.store.pins import Pins
from appliance.store.pushes import Pushes
from appliance.trust import Signature, Trust
from tests.keys import site_keys
from tests.unit.store import made

NAME = "docker.io/library/a:1"
DIGESTS = st.binary(max_size=8).map(made.sha)
HEADS = st.builds(
    IndexHead,
    st.sampled_from(["generation", "pushes", "pins"]),
    st.integers(1, 1 << 53),
    DIGESTS,
    st.integers(1, 1 << 28),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with the keys of nodes a and b."""
    return site_keys(tmp_path_factory.mktemp("site"), "a", "b")


def generations(site: Path, root: Path, node: str, *seeds: str) -> Generations:
    """Return the generations of a node that believes the seeds."""
    return Generations(made.open_store(root / f"store-{node}"), Trust(site / node, node, seeds))


def following(parent: Generation | None) -> Generation:
    return make(parent, {NAME: made.image(1).entry}, {}, cause="seeding", created=made.CREATED, sources=["/mnt"])


def signed(index: Generations, item: Generation) -> Signature:
    signature = index.signature(item)
    assert signature is not None
    return signature


@given(HEADS, HEADS)
def test_two_heads_are_signed_by_different_bytes(one: IndexHead, other: IndexHead) -> None:
    assert (one.to_bytes() == other.to_bytes()) is (one == other)


@given(HEADS)
def test_what_is_signed_of_a_head_is_no_index(head: IndexHead) -> None:
    with pytest.raises(ApplianceError, match="APL-0305"):
        parse(head.to_bytes(), "x")


def test_the_head_of_each_index_is_signed(site: Path, tmp_path: Path) -> None:
    store = made.open_store(tmp_path / "store")
    trust = Trust(site / "a", "a", ["a"])
    index, pushes, pins = Generations(store, trust), Pushes(store, trust), Pins(store, trust)
    first = following(None)
    index.publish(first)
    head = index.head(first)
    assert head == IndexHead("generation", 1, first.digest, len(first.raw))
    index.check_head(head, signed(index, first))
    with pushes.changing():
        pushed = pushes.replace({NAME: made.image(1).entry})
    pinned = pins.replace({NAME: made.image(1).entry})
    pushes.check_head(pushes.head(pushed), pushes.signature(pushed))
    pins.check_head(pins.head(pinned), pins.signature(pinned))
    assert (pushes.head(pushed).kind, pins.head(pinned).kind) == ("pushes", "pins")
    with pytest.raises(ApplianceError, match="APL-0606"):
        pins.check_head(pins.head(pinned), pushes.signature(pushed))


@pytest.mark.parametrize(
    "change",
    [{"kind": "pushes"}, {"number": 2}, {"digest": made.sha(b"other")}, {"size": 1 << 28}],
    ids=lambda change: next(iter(change)),
)
def test_a_head_with_another_word_in_it_is_refused(site: Path, tmp_path: Path, change: dict[str, object]) -> None:
    index = generations(site, tmp_path, "a", "a")
    first = following(None)
    index.publish(first)
    lie = replace(index.head(first), **change)  # type: ignore[arg-type]  # each is of the type of its field
    with pytest.raises(ApplianceError, match="APL-0606"):
        index.check_head(lie, signed(index, first))


def test_a_head_counts_where_its_index_would(site: Path, tmp_path: Path) -> None:
    """Not without a signature, nor by a node that is no seed, unless it may sign beside the seeds."""
    index, stranger = generations(site, tmp_path, "a", "a"), Trust(site / "b", "b", ["b"])
    head = index.head(following(None))
    own = stranger.sign(b"", head.to_bytes())
    for signature in (None, own, replace(own, head=None) if own else None, replace(own, signer="a") if own else None):
        with pytest.raises(ApplianceError, match="APL-0606"):
            index.check_head(head, signature)
    index.check_head(head, own, ["b"])


def test_the_signature_of_an_index_is_none_of_its_head_nor_the_other_way_round(site: Path, tmp_path: Path) -> None:
    index = generations(site, tmp_path, "a", "a")
    first = following(None)
    index.publish(first)
    signature = signed(index, first)
    assert signature.head is not None
    with pytest.raises(ApplianceError, match="APL-0606"):
        index.check_head(index.head(first), replace(signature, head=signature.signature))
    with pytest.raises(ApplianceError, match="APL-0606"):
        index.check(first.raw, replace(signature, signature=signature.head))


def test_a_follower_takes_the_head_with_the_signature(site: Path, tmp_path: Path) -> None:
    publisher, follower = generations(site, tmp_path, "a", "a"), generations(site, tmp_path, "b", "a")
    first = following(None)
    publisher.publish(first)
    assert follower.accept(first.raw, signed(publisher, first), lambda _: None) == first
    follower.check_head(follower.head(first), signed(follower, first))


@pytest.mark.parametrize("head", ["", "x", "%%%", "\ud800", None], ids=repr)
def test_a_wrong_head_is_dropped_and_its_signature_kept(site: Path, tmp_path: Path, head: str | None) -> None:
    publisher, follower = generations(site, tmp_path, "a", "a"), generations(site, tmp_path, "b", "a")
    first = following(None)
    publisher.publish(first)
    signature = signed(publisher, first)
    assert follower.accept(first.raw, replace(signature, head=head), lambda _: None) == first
    assert signed(follower, first) == signature.without_head()
    start = first.digest.partition(":")[2][:16]
    follower.put_signature(1, start, first.raw, replace(signature, head=head))
    assert signed(follower, first) == signature.without_head()
    follower.put_signature(1, start, first.raw, signature)
    assert signed(follower, first) == signature


def test_a_head_of_another_index_is_dropped(site: Path, tmp_path: Path) -> None:
    publisher, follower = generations(site, tmp_path, "a", "a"), generations(site, tmp_path, "b", "a")
    first = following(None)
    publisher.publish(first)
    old = signed(publisher, first)
    second = following(first)
    publisher.publish(second)
    mixed = replace(signed(publisher, second), head=old.head)
    assert follower.accept(second.raw, mixed, lambda _: None) == second
    assert signed(follower, second).head is None


@pytest.mark.parametrize("head", [None, "x"])
def test_the_publisher_adds_a_head_that_an_older_release_did_not_sign(
    site: Path, tmp_path: Path, head: str | None
) -> None:
    index = generations(site, tmp_path, "a", "a")
    first = following(None)
    index.publish(first)
    write_atomically(index._file(first, ".sig"), replace(signed(index, first), head=head).to_json())
    assert not index.sign_anew(), "nobody is taken over from"
    index.check_head(index.head(first), signed(index, first))
    index.check(first.raw, signed(index, first))
    state = index.signatures_state()
    assert not index.sign_anew()
    assert index.signatures_state() == state, "what has its head is left alone"


def test_what_another_seed_signed_is_not_signed_anew_for_its_head(site: Path, tmp_path: Path) -> None:
    """The audit log holds whoever signed an index for the one who published it."""
    publisher, follower = generations(site, tmp_path, "a", "a", "b"), generations(site, tmp_path, "b", "a", "b")
    first = following(None)
    publisher.publish(first)
    follower.accept(first.raw, signed(publisher, first).without_head(), lambda _: None)
    assert not follower.sign_anew()
    assert (signed(follower, first).signer, signed(follower, first).head) == ("a", None)


def test_a_seed_that_signs_anew_signs_the_head(site: Path, tmp_path: Path) -> None:
    publisher, heir = generations(site, tmp_path, "a", "a"), generations(site, tmp_path, "b", "a", "b")
    first = following(None)
    publisher.publish(first)
    heir.accept(first.raw, signed(publisher, first), lambda _: None)
    alone = generations(site, tmp_path, "b", "b")
    assert alone.sign_anew()
    assert signed(alone, first).signer == "b"
    alone.check_head(alone.head(first), signed(alone, first))


def test_a_damaged_head_is_damage_of_the_signatures_file(site: Path, tmp_path: Path) -> None:
    index = generations(site, tmp_path, "a", "a")
    first = following(None)
    index.publish(first)
    signature = signed(index, first)
    assert index.why_unsound(1, first.raw, signature.to_json()) is None
    assert index.why_unsound(1, first.raw, signature.without_head().to_json()) is None
    assert index.why_unsound(2, first.raw, signature.to_json()) is not None
    assert index.why_unsound(1, first.raw, replace(signature, head="x").to_json()) is not None
    index.put_signature(1, first.digest.partition(":")[2][:16], first.raw)
    index.check_head(index.head(first), signed(index, first))


def test_a_file_without_a_head_is_as_an_older_release_writes_it() -> None:
    assert json.loads(Signature("a", "b", "c").to_json()) == {"signer": "a", "certificate": "b", "signature": "c"}
    with_head = Signature("a", "b", "c", "d")
    assert Signature.from_json(with_head.to_json()) == with_head
    others: tuple[object, ...] = (5, None, [], {"signature": "d"}, True)
    for head in others:
        found = Signature.from_json({"signer": "a", "certificate": "b", "signature": "c", "head": head})
        assert found == Signature("a", "b", "c")


def test_the_file_of_an_index_is_opened_as_it_was_seen(site: Path, tmp_path: Path) -> None:
    index = generations(site, tmp_path, "a", "a")
    first = following(None)
    index.publish(first)
    before = index.state()
    assert before is not None
    handle = index.open(before)
    assert handle is not None
    assert os.pread(handle, len(first.raw) + 1, 0) == first.raw
    os.close(handle)
    index.publish(following(first))
    assert index.open(before) is None
    index.index.unlink()
    assert index.open(before) is None
