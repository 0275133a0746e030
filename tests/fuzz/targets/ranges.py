"""Headers that hold numbers: ``Range``, ``Content-Range`` of an upload, and ``Authorization``.

Input: the size of the blob (one byte) and the header.
"""

from __future__ import annotations

import base64
import string

from appliance.web.auth import basic
from appliance.web.ranges import Unsatisfiable, parse_range
from appliance.web.request_body import content_range
from appliance.web.responses import RegistryError

WORDS = ("bytes=", "Bytes=", "bytes=-", "0-", "0-0", "-1", "9" * 19, "9" * 20, "18446744073709551616", "Basic ", ",")
_DIGITS = frozenset(string.digits)
_LONG = 19


def run(data: bytes) -> None:
    """Every answer is the slice that RFC 9110 says, or the whole where it may be."""
    size, header = (data[0] if data else 0), data[1:].decode("latin-1")
    _range(header, size)
    _range(f"bytes={header}", size)
    _content_range(header)
    for text in (header, f"Basic {header}", "Basic " + base64.b64encode(data[1:]).decode()):
        given = basic(text)
        assert given is None or ":" not in given[0]


def _range(header: str, size: int) -> None:
    whole = range(size)
    try:
        found = parse_range(header, size)
        answer = None if found is None else whole[found[0] : found[1]]
        # What goes into Content-Range has to be true, not only to give the right slice.
        assert found is None or 0 <= found[0] < found[1] <= size
    except Unsatisfiable:
        answer = range(0)
    expected = expected_range(header, size)
    if expected is not None:
        assert answer == expected, (header, size, answer, expected)
    elif answer is not None:
        # More than one range, or spelled oddly: RFC 9110 14.2 lets a server answer with the whole, not with a guess.
        assert not answer, (header, size, answer)


def expected_range(header: str, size: int) -> range | None:
    """The positions that one plain range means (RFC 9110 14.1.2), none for 416; None for what may be ignored."""
    unit, _, rest = header.strip().partition("=")
    first, dash, last = rest.partition("-")
    if unit.lower() != "bytes" or not dash or not (first or last) or not {*first, *last} <= _DIGITS:
        return None
    begin, end = _beyond(first), _beyond(last)
    if not first:
        return range(size)[size - min(size, end) :]
    if last and end < begin:
        return range(0)
    return range(size)[begin : end + 1 if last else None]


def _beyond(digits: str) -> int:
    """Any number that no blob reaches will do for one of more digits."""
    return int(digits[-_LONG:] or 0) + (10**_LONG if digits[:-_LONG].strip("0") else 0)


def _content_range(header: str) -> None:
    try:
        found = content_range(header)
    except RegistryError as refusal:
        assert refusal.status == 416
        refusal.answer()
        return
    assert found is not None
    assert found.length >= 0 and found.first >= 0
    assert [int(part) for part in header.strip().split("-")] == [found.first, found.last]
