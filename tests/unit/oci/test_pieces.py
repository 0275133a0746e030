"""Piece maps: one map for one blob, and no piece that it does not name."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.oci import pieces as module
from appliance.oci.digests import digest_of
from appliance.oci.pieces import MIB, PieceHasher, PieceMap, piece_size

GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 1),
        (1, 1),
        (MIB, 1),
        (512 * MIB, 1),
        (512 * MIB + 1, 2),
        (GIB, 2),
        (GIB + 1, 4),
        (2 * GIB, 4),
        (4 * GIB, 8),
        (99 * GIB, 8),
    ],
)
def test_piece_size(size: int, expected: int) -> None:
    assert piece_size(size) == expected * MIB


@given(st.integers(min_value=1, max_value=2**45))
def test_piece_size_is_the_smallest_that_gives_at_most_512(size: int) -> None:
    pieces = piece_size(size)
    assert pieces in (MIB, 2 * MIB, 4 * MIB, 8 * MIB)
    assert -(-size // pieces) <= 512 or pieces == 8 * MIB
    assert pieces == MIB or -(-size // (pieces // 2)) > 512


def make(data: bytes, steps: list[int]) -> PieceMap:
    hasher = PieceHasher(len(data))
    at = 0
    for step in steps:
        hasher.update(memoryview(data)[at : at + step])
        at += step
    hasher.update(data[at:])
    return hasher.finish(digest_of(data))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(min_value=0, max_value=3 * MIB + 5),
    st.lists(st.integers(min_value=0, max_value=2 * MIB), max_size=5),
)
@example(MIB, [])
@example(2 * MIB, [MIB])
@example(2 * MIB + 1, [MIB - 1, 2])
@example(0, [])
def test_the_map_does_not_depend_on_how_bytes_come(size: int, steps: list[int]) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    result = make(data, steps)
    assert result.pieces == tuple(hashlib.sha256(data[at : at + MIB]).hexdigest() for at in range(0, size, MIB))
    assert PieceMap.from_bytes(result.to_bytes()) == result
    assert sum(result.bounds(number)[1] for number in range(len(result.pieces))) == size
    for number in range(len(result.pieces)):
        start, length = result.bounds(number)
        piece = data[start : start + length]
        assert result.verify(number, piece)
        assert not result.verify(number, piece[:-1])
        assert not result.verify(number, piece[:-1] + b"!")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 9000), st.lists(st.integers(0, 3000), max_size=5))
@example(2048, [])
@example(2049, [2048])
@example(4096, [1])
@example(4097, [4096])
def test_without_a_size_it_is_the_map_of_the_size_that_came(
    monkeypatch: pytest.MonkeyPatch, size: int, steps: list[int]
) -> None:
    """With pieces of 4 to 32 bytes: up to 1024 of the smallest there is a map, and it is the one of that size."""
    monkeypatch.setattr(module, "_MIN_PIECE", 4)
    monkeypatch.setattr(module, "_MAX_PIECE", 32)
    data, at = bytes(number % 251 for number in range(size)), 0
    known, unknown = PieceHasher(size), PieceHasher(None)
    for step in [*steps, size]:
        known.update(data[at : at + step])
        unknown.update(data[at : at + step])
        at += step
    assert known.fits(size)
    assert unknown.fits(size) is (size <= 4096)
    assert not unknown.fits(size + 1) and not known.fits(size + 1)
    if size <= 4096:
        assert unknown.finish(digest_of(data)) == known.finish(digest_of(data))


def test_bounds_refuses_what_is_not_there() -> None:
    result = make(b"x" * (MIB + 1), [])
    for number in (-1, 2):
        with pytest.raises(IndexError):
            result.bounds(number)


def test_wrong_size_is_refused() -> None:
    hasher = PieceHasher(10)
    hasher.update(b"x" * 9)
    with pytest.raises(ApplianceError, match="APL-0206"):
        hasher.finish(digest_of(b"x" * 9))


GOOD = make(b"x" * (2 * MIB + 1), []).to_bytes()


def changed(**values: object) -> bytes:
    return json.dumps({**json.loads(GOOD), **values}, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        GOOD + b"\n",
        GOOD.replace(b",", b", ", 1),
        json.dumps(dict(reversed(json.loads(GOOD).items())), separators=(",", ":")).encode(),
        changed(extra=1),
        changed(schemaVersion=2),
        changed(mediaType="text/plain"),
        changed(size=-1),
        changed(size=True),
        changed(size="1"),
        changed(size=2**62),
        changed(pieceSize=2 * MIB),
        changed(pieceSize=0),
        changed(blob="sha256:../x"),
        changed(pieces=[]),
        changed(pieces={}),
        changed(pieces=["0" * 64, "0" * 64]),
        changed(pieces=["0" * 64, "0" * 64, "0" * 63]),
        changed(pieces=["0" * 64, "0" * 64, 7]),
        changed(pieces=["0" * 64, "0" * 64, "A" * 64]),
    ],
)
def test_anything_but_the_canonical_document_is_refused(data: bytes) -> None:
    assert PieceMap.from_bytes(GOOD).to_bytes() == GOOD
    with pytest.raises(ApplianceError) as caught:
        PieceMap.from_bytes(data)
    assert caught.value.code in ("APL-0201", "APL-0203", "APL-0204", "APL-0206")
