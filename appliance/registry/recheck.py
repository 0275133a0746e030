"""Hash a blob before it is sent again to a client that has just had it whole.

Decision 75.
"""

from __future__ import annotations

import os

from flask import Request
from gevent.lock import BoundedSemaphore

from appliance.registry.repeats import Repeats
from appliance.store.blobs import BlobStore
from appliance.web.blob_provider import Fetcher, Unreachable
from appliance.web.streaming import BlobSource, FileSource

_CHECKS_AT_ONCE = 3
"""Blobs that are hashed at a time before they are sent again, in each worker: containerd pulls so many layers at once."""
_TURN_SECONDS = 5.0
"""How long a request waits until it may have one hashed. With the hash itself that stays below the 30 s after which
containerd gives an answer up."""


class Recheck:
    """Hashes a blob before a client gets it whole for the second time: it may have refused what it got first."""

    def __init__(self, blobs: BlobStore, fetcher: Fetcher, repeats: Repeats) -> None:
        self._blobs = blobs
        self._fetcher = fetcher
        self._repeats = repeats
        self._turns = BoundedSemaphore(_CHECKS_AT_ONCE)

    def __call__(self, held: FileSource, digest: str, size: int, asked: Request) -> BlobSource:
        """Return what is to be sent: what lies here, once it is known to be right, or else what comes from a peer.

        Where the agent does not answer, or hashes for longer than a client can wait, what lies here is sent as it is; in
        the latter case the next request finds the result.

        :param held: the blob as it lies here.
        :raises Unreachable: when it is damaged and cannot be had now.
        """
        file = os.fstat(held.fileno())
        # containerd, and whatever else runs on this host, all come from 127.0.0.1.
        if not self._repeats.asked(f"{asked.remote_addr} {asked.user_agent.string}", digest):
            return held
        if self._repeats.is_sound(digest, file) or not self._turns.acquire(timeout=_TURN_SECONDS):
            return held
        try:
            source = self._fetcher.source(digest, size, 0, suspect=True)
        except Unreachable:
            opened = self._blobs.open(digest)
            if opened is None:
                held.close()
                raise
            os.close(opened[0])
            return held
        finally:
            self._turns.release()
        held.close()
        if os.path.samestat(os.fstat(source.fileno()), file):
            self._repeats.found_sound(digest, file)
        return source
