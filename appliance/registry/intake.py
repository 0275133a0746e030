"""Reading what a client sends: bounded, counted, and never waiting for ever for the next byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flask import Request

from appliance.registry.answers import Refusal

STEP = 1 << 20
"""Bytes read at a time: smaller steps cost several times the processor time."""
STALL_SECONDS = 60.0
"""How long a client may send nothing in mid-body."""
_RANGE_DIGITS = 19


class Truncated(Exception):
    """The client went away before the length that it had announced."""


def chunks(asked: Request) -> Iterator[bytes]:
    """The body of a request, in steps of at most :data:`STEP` bytes.

    :raises Truncated: when fewer bytes come than ``Content-Length`` says.
    :raises OSError: when the client sends nothing for :data:`STALL_SECONDS`, or goes away.
    """
    sock = asked.environ.get("gunicorn.socket")
    before = sock.gettimeout() if sock is not None else None
    expected, seen = asked.content_length, 0
    try:
        if sock is not None:
            sock.settimeout(STALL_SECONDS)
        while chunk := asked.stream.read(STEP if expected is None else min(STEP, expected - seen)):
            seen += len(chunk)
            yield chunk
    finally:
        if sock is not None:
            sock.settimeout(before)
    if expected is not None and seen < expected:
        raise Truncated(f"{seen} of {expected} bytes came")


def document(asked: Request, limit: int) -> bytes:
    """A small body whole; 413 for one of more than ``limit`` bytes, however its length was announced."""
    if (asked.content_length or 0) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        for chunk in chunks(asked):
            body += chunk
            if len(body) > limit:
                raise _too_large(limit)
    except (Truncated, OSError) as problem:
        raise Refusal(400, "SIZE_INVALID", f"the body broke off: {problem}") from problem
    return bytes(body)


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "MANIFEST_INVALID", f"a manifest may have {limit} bytes")


@dataclass(frozen=True)
class ContentRange:
    """Where the chunk of an upload belongs: ``Content-Range: <first>-<last>``, without a unit, both inclusive."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """Bytes of the chunk."""
        return self.last - self.first + 1


def content_range(header: str | None) -> ContentRange | None:
    """Read the header of a chunk; None where there is none; 416 for one that makes no sense."""
    if header is None:
        return None
    first, dash, last = header.strip().partition("-")
    numbers = (first, last)
    if dash and all(text.isascii() and text.isdigit() and len(text) <= _RANGE_DIGITS for text in numbers):
        found = ContentRange(int(first), int(last))
        if found.length >= 0:
            return found
    raise Refusal(416, "BLOB_UPLOAD_INVALID", f"Content-Range is <first>-<last>, not {header[:80]!r}")
