"""Body of a request: bounded, counted, and never waited for without end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flask import Request

from appliance.web.connection import BODY, STEP, BrokenBody
from appliance.web.responses import RegistryError

_RANGE_DIGITS = 19


def chunks(asked: Request) -> Iterator[bytes | memoryview]:
    """The body of a request, in steps of at most :data:`~appliance.web.connection.STEP` bytes.

    A piece is overwritten when the one after the next is asked for.

    :raises BrokenBody: when the client goes away, or sends less than a minute's least.
    """
    receive = asked.environ.get(BODY)
    pieces: Iterator[memoryview] | None = None if receive is None else receive()
    if pieces is not None:
        yield from pieces
        return
    expected, seen = asked.content_length, 0
    while chunk := asked.stream.read(STEP if expected is None else min(STEP, expected - seen)):
        seen += len(chunk)
        yield chunk
    if expected is not None and seen < expected:
        raise BrokenBody(f"{seen} of {expected} bytes came")


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
    except BrokenBody as problem:
        raise RegistryError(400, "SIZE_INVALID", f"the body broke off: {problem}") from problem
    return bytes(body)


def _too_large(limit: int) -> RegistryError:
    return RegistryError(413, "MANIFEST_INVALID", f"a manifest may have {limit} bytes")


@dataclass(frozen=True)
class ContentRange:
    """Position of a chunk in an upload: ``Content-Range: <first>-<last>``, without a unit, both inclusive."""

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
    raise RegistryError(416, "BLOB_UPLOAD_INVALID", f"Content-Range is <first>-<last>, not {header[:80]!r}")
