"""Quarantine of a blob whose bytes do not have its digest: the one place where that is decided.

Decision 33.
"""

from __future__ import annotations

import logging
import os

from appliance.errors import fail, make_error
from appliance.oci.digests import hasher
from appliance.store.blobs import BlobStore

_LOG = logging.getLogger("appliance.store")
_STEP = 1 << 20


def verify_or_quarantine(blobs: BlobStore, digest: str, size: int | None, *, suspect: bool = False) -> bool:
    """Return whether the blob has its digest. If not, move it to ``quarantine/`` and log that.

    A file of the size that is listed is believed, since it was verified when it was stored; any other is hashed first:
    a manifest may list a wrong size, which is no reason to throw away what another one lists rightly.

    :param size: bytes that a signed index lists for it; None for any.
    :param suspect: hash it in any case: it could not be read, or gave other bytes than it should.
    :raises ApplianceError: APL-0316 when it is right and listed with another size.
    """
    try:
        opened = blobs.open(digest)
    except OSError as problem:
        # A link, a directory, or an inode that cannot be read.
        return _remove(blobs, digest, None, problem.strerror or str(problem))
    if opened is None:
        return False
    handle, held = opened
    try:
        if held == size and not suspect:
            return True
        file = os.fstat(handle)
        try:
            computed = hash_file(handle, digest)
        except OSError as problem:
            return _remove(blobs, digest, file, problem.strerror or str(problem))
    finally:
        os.close(handle)
    if computed != digest:
        return _remove(blobs, digest, file, f"its {held} bytes have {computed}")
    if size not in (None, held):
        fail(
            "APL-0316",
            "a blob is listed with a size that it does not have",
            where=digest,
            why=f"it has {held} bytes, {size} are listed",
            fix="The image that lists it is wrong: bring it anew, or push it again",
        )
    return True


def hash_file(handle: int, digest: str) -> str:
    """The digest of an open file, by the algorithm of ``digest``; raises OSError where it cannot be read."""
    state, buffer = hasher(digest), bytearray(_STEP)
    os.lseek(handle, 0, os.SEEK_SET)
    while count := os.readv(handle, [buffer]):
        state.update(memoryview(buffer)[:count])
    return f"{digest.partition(':')[0]}:{state.hexdigest()}"


def _remove(blobs: BlobStore, digest: str, file: os.stat_result | None, why: str) -> bool:
    moved = blobs.quarantine(digest, file)
    if moved is not None:
        _LOG.error(
            "%s",
            make_error(
                "APL-0315",
                "a blob was damaged on this disk; it is not served any more, and is fetched again from another node",
                where=str(moved),
                why=why,
                fix="Look at the disk: dmesg, smartctl",
            ),
        )
    return False
