"""The Range header: a table, and every header against a slow reader of RFC 9110."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.web.ranges import Unsatisfiable, parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("bytes=0-", (0, 10)),
        ("bytes=0-0", (0, 1)),
        ("bytes=9-9", (9, 10)),
        ("bytes=2-5", (2, 6)),
        ("bytes=5-99999", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("BYTES=2-5", (2, 6)),
        (" bytes=2-5 ", (2, 6)),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=a-b", None),
        ("bytes=1-2,4-5", None),
        ("bytes=1--2", None),
        ("bytes=+1-2", None),
        ("bytes= 1-2", None),
        ("items=1-2", None),
        ("1-2", None),
        ("bytes=2-" + "9" * 20, (2, 10)),
        ("bytes=2-" + "9" * 5000, (2, 10)),
        ("bytes=-" + "9" * 5000, (0, 10)),
        ("bytes=" + "0" * 5000 + "2-5", (2, 6)),
        ("bytes=1-\u0662", None),
    ],
)
def test_what_a_header_means(header: str | None, expected: tuple[int, int] | None) -> None:
    assert parse_range(header, 10) == expected


@pytest.mark.parametrize(
    "header", ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=5-4", "bytes=" + "9" * 19 + "-", f"bytes={'9' * 5000}-"]
)
def test_no_byte_of_it(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(header, 10)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-1", "bytes=0-0"])
def test_an_empty_blob_has_no_range(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(header, 0)


def oracle(first: int | None, last: int | None, size: int) -> list[int] | None:
    """The positions asked for, one by one; None where there are none."""
    if first is None:
        assert last is not None
        wanted = [at for at in range(size) if at >= size - last]
    else:
        wanted = [at for at in range(size) if at >= first and (last is None or at <= last)]
    return wanted or None


@given(st.integers(0, 40) | st.none(), st.integers(0, 40) | st.none(), st.integers(0, 30))
def test_every_range_against_the_oracle(first: int | None, last: int | None, size: int) -> None:
    if first is None and last is None:
        return
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    expected = oracle(first, last, size)
    try:
        found = parse_range(header, size)
    except Unsatisfiable:
        assert expected is None
    else:
        assert found is not None
        assert list(range(*found)) == expected


@given(st.text(max_size=30), st.integers(0, 1000))
def test_no_header_crashes(header: str, size: int) -> None:
    for text in (header, f"bytes={header}"):
        try:
            found = parse_range(text, size)
        except Unsatisfiable:
            continue
        assert found is None or 0 <= found[0] < found[1] <= size
