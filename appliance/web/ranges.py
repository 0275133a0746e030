"""The ``Range`` header, as RFC 9110 section 14 and containerd want it answered."""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
_DIGITS = 19


class Unsatisfiable(Exception):
    """The range lies beyond the end: answer 416 with ``Content-Range: bytes */size``."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Bytes asked for, as (first, end) with ``end`` exclusive; None for the whole (200).

    A header of another unit, of several ranges or with no sense at all is ignored, as RFC 9110 14.2 allows:
    the client then gets everything. A suffix longer than the blob is the whole blob; an end beyond it is clipped.

    :param size: bytes of the blob.
    :raises Unsatisfiable: when no byte of the blob is asked for.
    """
    if not header:
        return None
    match = _RANGE.fullmatch(header.strip().lower())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        length = _number(last)
        if length == 0 or size == 0:
            raise Unsatisfiable
        return max(0, size - length), size
    start = _number(first)
    if last and _number(last) < start:
        # The grammar calls this invalid, and the conformance suite of the distribution spec wants 416 for it.
        raise Unsatisfiable
    if start >= size:
        raise Unsatisfiable
    return start, min(size, _number(last) + 1) if last else size


def _number(digits: str) -> int:
    # Beyond any blob it does not matter how far; Python refuses to read a number of thousands of digits.
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _DIGITS else 10**_DIGITS
