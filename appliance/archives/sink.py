"""Interface of the place where a reader puts blobs, and a sink that only hashes them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from appliance.errors import fail
from appliance.oci.blob import HEAD_BYTES, BlobReader, StoredBlob, check_put
from appliance.oci.digests import hasher

if TYPE_CHECKING:
    from types import TracebackType

MIB = 1024 * 1024
DOCUMENT_LIMIT = 4 * MIB
"""Largest blob in bytes that can be read back from a sink as a document."""


class BlobSink(BlobReader, Protocol):
    """Interface of the place where a reader puts blobs."""

    def put(
        self,
        chunks: Iterable[bytes | memoryview],
        *,
        size: int | None,
        expect: str | None,
        where: str,
    ) -> StoredBlob:
        """Take one blob, hashed while it comes.

        Every chunk is used before the next is asked for: the memory behind it may be used again then. An
        error from ``chunks`` passes through, and nothing of the blob stays.

        :param chunks: the bytes.
        :param size: their number where it is known beforehand.
        :param expect: the digest they must have, or None.
        :param where: archive and member for messages.
        :raises ApplianceError: APL-0106 for another size, APL-0107 for another digest.
        """
        ...


class HashingSink:
    """Checks blobs and forgets them, but for the small documents that name the others.

    ``sizes`` holds the size in bytes of every blob that passed. Documents (what starts with ``{`` and has at
    most :data:`DOCUMENT_LIMIT` bytes) go to an unnamed temporary file, so memory stays bounded.

    :param base: a store to look into for what the archive leaves out; it is never written to.
    :param spool_limit: most bytes of documents kept.
    """

    def __init__(self, base: BlobReader | None = None, *, spool_limit: int = 1024 * MIB) -> None:
        """Start empty."""
        self.sizes: dict[str, int] = {}
        self._base = base
        self._spool_limit = spool_limit
        self._spool = tempfile.SpooledTemporaryFile(max_size=16 * MIB)  # noqa: SIM115 - lives as long as the sink
        self._end = 0
        self._documents: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> HashingSink:
        """Use as a context manager to drop the temporary file at once."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Drop the temporary file."""
        self._spool.close()

    def put(
        self,
        chunks: Iterable[bytes | memoryview],
        *,
        size: int | None,
        expect: str | None,
        where: str,
    ) -> StoredBlob:
        """Hash one blob and check it; see :meth:`BlobSink.put`."""
        state = hasher(expect or "sha256")
        seen, head = 0, b""
        start: int | None = None
        for chunk in chunks:
            if not len(chunk):
                continue
            if seen == 0 and bytes(chunk[:1]) == b"{" and (size is None or size <= DOCUMENT_LIMIT):
                start = self._end
                self._spool.seek(start)
            if len(head) < HEAD_BYTES:
                head += bytes(chunk[: HEAD_BYTES - len(head)])
            state.update(chunk)
            seen += len(chunk)
            if start is not None:
                if seen > DOCUMENT_LIMIT:
                    start = None
                else:
                    self._spool.write(chunk)
        digest = check_put(f"{state.name}:{state.hexdigest()}", seen, size=size, expect=expect, where=where)
        self.sizes[digest] = seen
        if start is not None and digest not in self._documents:
            if start + seen > self._spool_limit:
                fail(
                    "APL-0109",
                    "archive holds too many documents",
                    where=where,
                    why=f"over {self._spool_limit} bytes",
                )
            self._documents[digest] = (start, seen)
            self._end = start + seen
        return StoredBlob(digest, seen, head)

    def read(self, digest: str, limit: int) -> bytes:
        """A document's bytes; see :meth:`BlobSink.read`."""
        found = self._documents.get(digest)
        if found is None:
            if digest in self.sizes:
                fail("APL-0204", "blob is no JSON document", where=digest, why="or it is larger than 4 MiB")
            if self._base is None or not self._base.has(digest):
                fail("APL-0108", "blob is missing", where=digest)
            return self._base.read(digest, limit)
        start, size = found
        if size > limit:
            fail(
                "APL-0204",
                "JSON document is too large",
                where=digest,
                why=f"{size} bytes, the limit is {limit}",
            )
        self._spool.seek(start)
        return self._spool.read(size)

    def has(self, digest: str) -> bool:
        """Return whether the blob passed by, or is in the store that is looked into."""
        return digest in self.sizes or (self._base is not None and self._base.has(digest))

    def size(self, digest: str) -> int | None:
        """Size in bytes of what passed by, or lies in the store that is looked into."""
        held = self.sizes.get(digest)
        return held if held is not None or self._base is None else self._base.size(digest)
