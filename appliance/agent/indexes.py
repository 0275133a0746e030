"""Reader of an index from a peer: first the signed head, then as many bytes as the head says, within bounds on time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from appliance.config import Peer
from appliance.oci.digests import digest_of
from appliance.peers import wire
from appliance.peers.transport import INDEX_ANSWER, PeerError, PeerTransport
from appliance.store.head import IndexHead
from appliance.store.index import SIZE_LIMIT
from appliance.trust import Signature

HEAD_ANSWER = 24 << 10
"""Most bytes of a head: two signatures, and a certificate of at most 16 KiB."""
UNSIGNED_BYTES = 16 << 20
"""Most bytes that are taken without a head from a node which is no seed, where the current index is small: some 40,000 names. The size
of an index is known only when all of it is here, and decoding it takes three times as much memory; a seed, whose signature is
believed, may send :data:`appliance.peers.https.INDEX_ANSWER`."""
HEAD_SECONDS = 3.0
"""Most seconds for a head, however often it failed before: 24 KiB that nobody has signed yet. Longer waits held a publication up for
minutes, because the publisher asks every peer before it publishes."""
_SECONDS = 3.0
_RATE = 2 << 20
"""Bytes a second that a peer inside a site gives; each failure in a row halves what is asked for, where there is a reason to wait."""
_SLOWEST = 600.0
_SILENCE = 2.0
_PATIENT = 16.0
"""Seconds for which a peer may be silent after some failures: one of an older release reads all of a large index first."""
_USUAL = 4 << 20
"""Bytes that the first try is made for, where the current index is smaller."""


class IndexReader:
    """Reads indexes from peers.

    :param offload: runs a blocking function off the event loop.
    """

    def __init__(self, peers: PeerTransport, offload: Callable[..., Any]) -> None:
        self._peers = peers
        self._offload = offload
        self._slow: dict[tuple[str, str], int] = {}

    def failures(self, peer: str, index: str) -> int:
        """Return how often in a row a large answer of a peer came to nothing.

        A true ping does not clear it, as it clears a trouble: a node that pings truly between two publications, and drips what
        it relays after each, was asked first each time and waited for up to 600 s (81 s after the fifth publication).
        """
        return self._slow.get((peer, index), 0)

    def head(self, peer: Peer, index: str) -> tuple[IndexHead, Signature | None] | None:
        """Return the head of a peer's index and the signatures of both, unchecked; None where the peer gives no heads.

        :raises PeerError: when it cannot be had, or is another index's.
        :raises ApplianceError: for a signature that is none.
        """
        status, body = self._peers.index(
            peer, index, "head", read_seconds=_SILENCE, seconds=HEAD_SECONDS, limit=HEAD_ANSWER
        )
        if status == 404:
            return None
        if status != 200:
            raise PeerError(f"{peer.id} answered {status}")
        told = wire.read(body, wire.Head, peer.id)
        if told.kind != index:
            raise wire.NotAnAnswer(f"{peer.id} sent the head of its {told.kind} for that of its {index}")
        return told.signed, None if told.signature is None else Signature.from_json(told.signature)

    def text(self, peer: Peer, head: IndexHead) -> bytes | None:
        """Return the bytes of the index that a head describes; None where the peer has another one by now.

        :param head: its signature was found valid.
        :raises PeerError: when they cannot be had, or are others.
        """
        parts = (head.kind, "raw", head.digest)
        status, raw = self._ask(peer, head.kind, parts, head.size, max(_USUAL, head.size), is_patient=True)
        if status == 404:
            return None
        if status != 200:
            raise PeerError(f"{peer.id} answered {status}")
        if len(raw) != head.size or self._offload(digest_of, raw, head.digest) != head.digest:
            raise wire.NotAnAnswer(f"{peer.id} sent {len(raw)} bytes that are not {head.kind} {head.number}")
        return raw

    def whole(self, peer: Peer, index: str, size: int) -> tuple[bytes, Signature | None]:
        """Return the bytes of a peer's index and the signature over them, unchecked, from a peer that gives no heads.

        :param size: bytes of the one that is current here.
        :raises PeerError: when it cannot be had.
        :raises ApplianceError: for a signature that is none.
        """
        limit = INDEX_ANSWER if peer.seed else max(UNSIGNED_BYTES, 2 * size)
        # What a seed sends is likely to be worth the wait; any other listed node would only have to send nothing to be waited for.
        status, body = self._ask(peer, index, (index,), limit, max(_USUAL, size), is_patient=peer.seed)
        if status != 200:
            raise PeerError(f"{peer.id} answered {status}")
        told = self._offload(wire.read, body, wire.Told, peer.id)
        raw: bytes = self._offload(told.raw.encode)
        return raw, None if told.signature is None else Signature.from_json(told.signature)

    def kept(self, peer: Peer, path: str, size: int) -> bytes | None:
        """Return a file of an index that a peer keeps, unchecked; None where it has none.

        :param path: relative to the state directory.
        :param size: bytes of the largest such file that lies here. A seed may send a longer one.
        :raises PeerError: when it cannot be had.
        """
        limit = SIZE_LIMIT if peer.seed else max(UNSIGNED_BYTES, 2 * size)
        status, body = self._ask(peer, "kept", ("kept", path), limit, max(_USUAL, size), is_patient=peer.seed)
        return _kept(peer, status, body)

    def kept_signature(self, peer: Peer, path: str) -> bytes | None:
        """Return a file with a signature that a peer keeps, unchecked; None where it has none.

        :param path: relative to the state directory.
        :raises PeerError: when it cannot be had.
        """
        status, body = self._peers.index(
            peer, "kept", path, read_seconds=_SILENCE, seconds=HEAD_SECONDS, limit=HEAD_ANSWER
        )
        return _kept(peer, status, body)

    def _ask(
        self, peer: Peer, index: str, parts: tuple[str, ...], limit: int, expected: int, *, is_patient: bool
    ) -> tuple[int, bytes]:
        """Ask for something large. A slow link gets more time at each further try, a peer that drips gets little at first.

        :param limit: most bytes.
        :param expected: bytes that the time is made for.
        :param is_patient: whether a further try gets more time.
        """
        key = (peer.id, index)
        slow = self._slow.get(key, 0) if is_patient else 0
        # From nobody but a seed is it worth more: the look of a publisher, which a seeding waits for, takes as long.
        seconds = min(_SLOWEST, (_SECONDS + expected / _RATE) * 2**slow) if is_patient else _SECONDS
        silence = min(_PATIENT, _SILENCE * 2**slow)
        try:
            answer = self._peers.index(peer, *parts, read_seconds=silence, seconds=seconds, limit=limit)
        except PeerError:
            if is_patient:
                self._slow[key] = min(slow + 1, 8)
            raise
        self._slow.pop(key, None)
        return answer


def _kept(peer: Peer, status: int, body: bytes) -> bytes | None:
    if status not in (200, 404):
        raise PeerError(f"{peer.id} answered {status}")
    return body if status == 200 else None
