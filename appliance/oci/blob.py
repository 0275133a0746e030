"""A blob that was read whole, and the check against what was announced for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from appliance.errors import fail

HEAD_BYTES = 16
"""Bytes kept from the start of each blob, enough to tell a compression."""


@dataclass(frozen=True)
class StoredBlob:
    """A blob that was read whole and hashed.

    :param digest: its digest, in the algorithm that was expected, else SHA-256.
    :param size: its size in bytes.
    :param head: its first :data:`HEAD_BYTES` bytes.
    """

    digest: str
    size: int
    head: bytes


def check_put(digest: str, seen: int, *, size: int | None, expect: str | None, where: str) -> str:
    """The checks that every sink makes at the end of a blob; returns ``digest``.

    :param digest: what was computed.
    :param seen: bytes that came.
    :raises ApplianceError: APL-0106 for another size, APL-0107 for another digest.
    """
    if size is not None and seen != size:
        fail("APL-0106", "blob has another size than announced", where=where, why=f"{seen} bytes, not {size}")
    if expect is not None and digest != expect:
        fail(
            "APL-0107",
            "blob does not match its digest",
            where=where,
            why=f"expected {expect}, computed {digest}",
            fix="The file is damaged or was changed: copy it again, or make it again",
        )
    return digest


class BlobReader(Protocol):
    """Interface to read small blobs."""

    def read(self, digest: str, limit: int) -> bytes:
        """A blob's bytes.

        :param limit: largest accepted size in bytes.
        :raises ApplianceError: it is larger, or not there.
        """
        ...

    def has(self, digest: str) -> bool:
        """Return whether the blob is held, whole."""
        ...

    def size(self, digest: str) -> int | None:
        """Size in bytes of a blob that is held, else None."""
        ...
