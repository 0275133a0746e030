"""Answers of peers, read: what has the form becomes an object, anything else is one error without the peer's words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.peers import wire
from appliance.store.head import IndexHead
from appliance.store.index import SIZE_LIMIT
from tests.unit.store import made

DIGEST = made.sha(b"index")
HEAD: dict[str, Any] = {"kind": "generation", "number": 7, "digest": DIGEST, "size": 571, "signature": {"signer": "a"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def read(document: object) -> wire.Head:
    return wire.read(json.dumps(document).encode(), wire.Head, "c")


def test_a_head_is_read() -> None:
    head = read(HEAD | {"more": [1]})
    assert head.signed == IndexHead("generation", 7, DIGEST, 571)
    assert head.signature == {"signer": "a"}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "blobs"},
        {"kind": 1},
        {"number": "seven"},
        {"number": 0},
        {"number": -1},
        {"number": 7.5},
        {"number": True},
        {"number": 10**30},
        {"digest": "sha256:../../etc/passwd"},
        {"digest": DIGEST + "\n8"},
        {"digest": None},
        {"size": "571"},
        {"size": 0},
        {"size": -1},
        {"size": SIZE_LIMIT + 1},
        {"signature": "a"},
        {"signature": [1]},
    ],
    ids=str,
)
def test_what_is_no_head_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(wire.NotAnAnswer, match="c sent no head"):
        read(HEAD | change)


@pytest.mark.parametrize("field", [field for field in HEAD])
def test_a_head_has_all_its_fields(field: str) -> None:
    with pytest.raises(wire.NotAnAnswer):
        read({key: value for key, value in HEAD.items() if key != field})


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_a_head_or_one_error(body: bytes) -> None:
    with pytest.raises(wire.NotAnAnswer):
        wire.read(body, wire.Head, "c")


@given(st.sampled_from(sorted(HEAD)), JSON)
def test_a_head_that_is_read_has_bounds(field: str, value: object) -> None:
    try:
        head = read(HEAD | {field: value})
    except wire.NotAnAnswer as error:
        assert str(error).isprintable() and len(str(error)) < 300
        return
    assert head.kind in wire.INDEXES
    assert 1 <= head.number <= 1 << 53
    assert 1 <= head.size <= SIZE_LIMIT
    assert head.signed.to_bytes().count(b"\n") == 5
