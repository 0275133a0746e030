"""Fetch of one blob from any peer that holds it. Its verified bytes can be sent on while the rest arrives.

What is received is hashed piece by piece against the map that the signed generation lists; only verified pieces
are shown to anybody, and the last one only when the digest of the whole has matched. A blob without a map is shown
when it is whole. A source that dies, stalls or is slow (:mod:`appliance.agent.delivery`) is replaced by the next, at the
byte where it stopped; one whose connection breaks gets one new connection first.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
from gevent import spawn
from gevent.event import Event
from gevent.pool import Pool

from appliance.agent.delivery import LEAST_BYTES, LEAST_SECONDS, Delivery, Verdict
from appliance.agent.sources import SlowPeers, Sources
from appliance.agent.troubles import Troubles
from appliance.config import Peer
from appliance.errors import ApplianceError
from appliance.oci.digests import hasher
from appliance.oci.pieces import BIG_BLOB, PieceMap
from appliance.peers.transport import BrokeOff, PeerError, PeerTransport
from appliance.sizes import size_words
from appliance.store.blobs import BlobStore
from appliance.store.quarantine import verify_or_quarantine

_READ = 256 << 10
_PASSES = 2
_LOOKUP = "blob lookup"
"""Name of the trouble with a peer that lives and does not say whether it holds a blob."""
SLOW_BLOBS = "slow blobs"
"""Name of the trouble with a peer that delivers a blob slowly, where no other node has it."""
_SLOW_SPANS = 10
"""Slow seconds between two notes of the same source in one fetch; a source may be slow for a moment."""
_CLIENT_SECONDS = 30.0
"""Seconds for which a client counts as waiting for a blob after it asked; it asks again after 10 s at the most."""


@dataclass
class Progress:
    """Progress of a fetch, as the web workers see it.

    :param size: bytes of the blob.
    :param verified: bytes from the start that may be sent to a client.
    :param state: ``fetching``, ``complete`` or ``failed``.
    :param reason: why it failed, or why it takes long.
    :param gives_way: whether other blobs wait for the place of this fetch, which ends when its source is slow.
    :param insisting: callers for whom it goes on all the same.
    :param client_until: time until which a client counts as waiting for it.
    """

    size: int
    verified: int = 0
    state: str = "fetching"
    reason: str = ""
    changed: Event = field(default_factory=Event)
    gives_way: bool = False
    insisting: int = 0
    client_until: float = 0.0

    def advance(self, verified: int | None = None, state: str | None = None, reason: str = "") -> None:
        """Note progress and wake those who wait for it."""
        if verified is not None:
            self.verified = verified
        if state is not None:
            self.state, self.reason = state, reason
        old, self.changed = self.changed, Event()
        old.set()


class Fetcher:
    """All fetches of a node, one per digest at a time.

    :param blobs: the node's store.
    :param peers: whom to ask.
    :param offload: runs a function that hashes or writes off the event loop and returns its result.
    :param clock: monotonic seconds; a parameter for tests.
    :param troubles: where sources that fail or are slow are counted.
    """

    def __init__(
        self,
        blobs: BlobStore,
        peers: PeerTransport,
        offload: Callable[..., Any],
        clock: Callable[[], float] = time.monotonic,
        troubles: Troubles | None = None,
    ) -> None:
        self._blobs = blobs
        self._peers = peers
        self._offload = offload
        self._clock = clock
        self._troubles = troubles or Troubles(clock)
        self._slow = SlowPeers(clock)
        self._running: dict[str, Progress] = {}
        self._admitted: dict[str, Progress] = {}

    def start(
        self, digest: str, size: int, piece_map: PieceMap | None, *, suspect: bool = False, for_client: bool = False
    ) -> Progress:
        """Begin to fetch a blob, or join the fetch of it that is running.

        :param suspect: do not believe the one that lies here by its size; see :func:`appliance.store.quarantine.verify_or_quarantine`.
        :param for_client: a client waits for it, so the fetch gives way to no other for a while.
        """
        progress = self._running.get(digest)
        if progress is None:
            progress = self._running[digest] = Progress(size)
            spawn(self._run, digest, progress, piece_map, suspect)
        if for_client:
            progress.client_until = self._clock() + _CLIENT_SECONDS
        return progress

    def fetch(
        self,
        digest: str,
        size: int,
        piece_map: PieceMap | None,
        *,
        suspect: bool = False,
        may_give_way: bool = False,
    ) -> Progress:
        """Fetch a blob and return when it is complete or has failed.

        :param may_give_way: :meth:`give_way` may end it, unless somebody else fetches the blob too.
        """
        progress = self.start(digest, size, piece_map, suspect=suspect)
        progress.insisting += not may_give_way
        try:
            while progress.state == "fetching":
                progress.changed.wait()
        finally:
            progress.insisting -= not may_give_way
        return progress

    def give_way(self, digest: str) -> None:
        """Have the fetch of a blob that runs end as soon as its source is slow, because others wait for its place."""
        progress = self._running.get(digest)
        if progress is not None:
            progress.gives_way = True

    def partial(self, digest: str) -> Path:
        """Return the file of a blob that is being fetched."""
        return self._blobs.root / "partial" / f"{digest.replace(':', '-')}.data"

    def holders(self, digest: str) -> dict[str, bool | None]:
        """Of each other node whether it says that it holds the blob; None where it cannot be asked now."""

        def ask(peer: Peer) -> bool | None:
            try:
                status = self._peers.has(peer, digest)
            except PeerError:
                return None
            return {200: True, 404: False}.get(status)

        others = self._peers.others
        return dict(zip((peer.id for peer in others), Pool(max(1, len(others))).map(ask, others), strict=True))

    def _run(self, digest: str, progress: Progress, piece_map: PieceMap | None, suspect: bool) -> None:
        try:
            if self._offload(
                functools.partial(verify_or_quarantine, suspect=suspect), self._blobs, digest, progress.size
            ):
                progress.advance(progress.size, "complete")
                return
            if progress.size > BIG_BLOB:
                # Manifests and the like may go into the reserve: a full node still learns of every name.
                self._check_room(progress.size)
                self._admitted[digest] = progress
            with contextlib.closing(
                _Partial(self.partial(digest), digest, progress, piece_map, self._offload)
            ) as partial:
                partial.resume()
                if not partial.full:
                    self._from_anybody(partial)
                if partial.finished:
                    self._offload(self._blobs.place, partial.path, digest)
                    progress.advance(progress.size, "complete")
        except (ApplianceError, PeerError, OSError) as error:
            progress.advance(state="failed", reason=str(error))
        finally:
            if progress.state == "fetching":
                progress.advance(state="failed", reason="the fetch ended without a result")
            self._running.pop(digest, None)
            self._admitted.pop(digest, None)

    def _check_room(self, size: int) -> None:
        # With what the fetches that run will still write.
        needed = size + sum(progress.size - progress.verified for progress in self._admitted.values())
        if self._offload(self._blobs.room) < needed:
            # What was found damaged is evidence, and is in nobody's way before this.
            self._offload(self._blobs.empty_quarantine, self._blobs.quarantined())
        self._offload(self._blobs.check_room, needed)

    def _from_anybody(self, partial: _Partial) -> None:
        reasons: dict[str, str] = {}

        def asked(peer: Peer, wrong: str, is_answer: bool) -> None:
            if not wrong:
                self._troubles.ended(peer.id, _LOOKUP)
            # That a node is off is known by its pings, and ends with them.
            elif is_answer or self._answers(peer):
                self._troubles.failed(peer.id, _LOOKUP, f"{partial.digest}: {wrong}")

        sources = Sources(self._peers, partial.digest, self._slow, reasons, asked, self._clock)
        for _ in range(_PASSES):
            before = partial.received
            sources.ask()
            while (peer := sources.next()) is not None:
                self._all_from(peer, partial, sources, reasons)
                if partial.finished:
                    self._troubles.ended(peer.id, "blobs")
                    return
                why = reasons.get(peer.id, f"{peer.id} did not give all of it")
                self._troubles.failed(peer.id, "blobs", f"{partial.digest}: {why}")
            if partial.received == before:
                break
        raise PeerError(_summary(reasons, [peer.id for peer in self._peers.others if self._peers.is_down(peer)]))

    def _answers(self, peer: Peer) -> bool:
        """Ask a peer that has just failed whether it lives; it is left alone for a while in any case."""
        try:
            self._peers.ping(peer)
        except PeerError:
            return False
        self._peers.failed(peer)
        return True

    def _all_from(self, peer: Peer, partial: _Partial, sources: Sources, reasons: dict[str, str]) -> None:
        """Take what is missing from one peer, over a new connection where that may have the rest.

        :raises GaveWay: when the fetch ends because others wait.
        """
        self._deliver(peer, partial, sources, reasons)
        # It keeps nothing back any more, or somebody else is asked. After GaveWay it still does.
        self._troubles.ended(peer.id, SLOW_BLOBS)

    def _deliver(self, peer: Peer, partial: _Partial, sources: Sources, reasons: dict[str, str]) -> None:
        partial.progress.reason = ""
        delivery = Delivery()
        while True:
            try:
                self._from(peer, partial, sources, delivery)
            except WrongBytes as error:
                reasons[peer.id] = str(error)
                if len(error.givers) > 1:
                    # A piece that two peers gave together does not say which of them was wrong.
                    continue
                if error.givers:
                    self._peers.failed(peer)
            except BrokeOff as error:
                # It has just delivered. To wait, or to ask somebody else first, helps less than to ask for the rest at once.
                reasons[peer.id] = str(error)
                self._troubles.failed(peer.id, "blobs", f"{partial.digest}: {error}")
                continue
            except Slow as error:
                reasons[peer.id] = str(error)
                sources.found_slow(peer, delivery.rate)
            except Stuck as error:
                reasons[peer.id] = str(error)
                sources.give_up(peer, delivery.rate)
            except GaveWay:
                raise
            except PeerError as error:
                reasons[peer.id] = str(error)
            return

    def _from(self, peer: Peer, partial: _Partial, sources: Sources, delivery: Delivery) -> None:
        """Take what is missing over one connection to a peer."""
        came = 0
        self._judge(peer, partial, sources, delivery, delivery.connecting())
        begun = self._clock()
        with self._peers.open(peer, partial.digest, partial.received) as response:
            self._judge(peer, partial, sources, delivery, delivery.connected(self._clock() - begun))
            while not partial.full:
                patience = delivery.patience(can_be_replaced=sources.may_replace)
                begun = self._clock()
                try:
                    chunk = _read(response, patience)
                except self._peers.body_errors as error:
                    raise self._peers.broken(peer, error, came) from error
                waited = self._clock() - begun
                if chunk == b"":
                    ended = EOFError(f"the body ended at byte {partial.received} of {partial.progress.size}")
                    raise self._peers.broken(peer, ended, came)
                if chunk is not None:
                    came += len(chunk)
                    # Outside of the above: a full disk here is not the peer's fault, and its time does not count.
                    partial.take(chunk, peer.id)
                    self._judge(peer, partial, sources, delivery, delivery.note(waited, len(chunk)))
                else:
                    self._judge(peer, partial, sources, delivery, delivery.note(max(waited, patience), 0))
                    # A read that was given up has closed the connection.
                    raise Slow(peer, delivery)

    def _judge(self, peer: Peer, partial: _Partial, sources: Sources, delivery: Delivery, verdict: Verdict) -> None:
        """Go on with a source, or raise why not.

        :raises Slow: when another holder may be faster.
        :raises Stuck: when it delivers next to nothing.
        :raises GaveWay: when it is slow, nobody is faster, and other blobs wait for its place.
        """
        if verdict is Verdict.WELL or partial.full:
            return
        if verdict is Verdict.STUCK:
            raise Stuck(peer)
        if sources.has_better(delivery.rate):
            raise Slow(peer, delivery)
        progress = partial.progress
        progress.reason = str(Slow(peer, delivery))
        if delivery.slow_spans % _SLOW_SPANS == 0:
            why = f"{partial.digest}: {progress.reason}, and no other node gives it"
            self._troubles.failed(peer.id, SLOW_BLOBS, why, f"blob {partial.digest}")
        if progress.gives_way and not progress.insisting and progress.client_until <= self._clock():
            raise GaveWay(peer, delivery)
        sources.look_again()


def _read(response: Any, seconds: float) -> bytes | None:
    """Read what has come, None when there is nothing after some seconds.

    The time-out of the socket begins anew at each byte, and a record of TLS shows nothing before its last one: of 16 KiB,
    a byte each half-second, that is two hours.
    """
    expired = gevent.Timeout.start_new(seconds)
    try:
        chunk: bytes = response.read1(_READ)
    except gevent.Timeout as timeout:
        if timeout is not expired:
            raise
        return None
    finally:
        expired.close()
    return chunk


class Slow(PeerError):
    """A source that delivers less than it should."""

    def __init__(self, peer: Peer, delivery: Delivery) -> None:
        super().__init__(f"{peer.id} delivers {size_words(delivery.rate)} a second")


class GaveWay(PeerError):
    """A fetch from a slow source ended because other blobs waited for its place; it is tried again."""

    def __init__(self, peer: Peer, delivery: Delivery) -> None:
        super().__init__(f"other blobs were fetched first: {Slow(peer, delivery)}")


class Stuck(PeerError):
    """A source that delivers next to nothing."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(f"{peer.id} delivered less than {size_words(LEAST_BYTES)} in {LEAST_SECONDS:g} s")


class WrongBytes(PeerError):
    """Bytes that do not have the hash they should have.

    :param givers: the peers that sent them; empty for what lay on this disk.
    """

    def __init__(self, why: str, givers: set[str]) -> None:
        super().__init__(f"wrong bytes from {', '.join(sorted(givers)) or 'this disk'}: {why}")
        self.givers = givers


class _Partial:
    """The file under ``partial/`` and what is known of it. Only verified pieces are written to it for good."""

    def __init__(
        self, path: Path, digest: str, progress: Progress, piece_map: PieceMap | None, offload: Callable[..., Any]
    ) -> None:
        self.path = path
        self.digest = digest
        self.progress = progress
        self.finished = False
        self._map = piece_map if piece_map is not None and piece_map.size == progress.size else None
        self._offload = offload
        self._whole = hasher(digest)
        self._verified = 0
        self._buffer = bytearray()
        self._givers: set[str] = set()
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @property
    def received(self) -> int:
        """Offset the next byte belongs to."""
        return self._verified + len(self._buffer)

    @property
    def full(self) -> bool:
        """Return whether every byte has come."""
        return self.received >= self.progress.size

    def resume(self) -> None:
        """Take over what an earlier process had verified: its pieces are hashed again before they count."""
        held = os.fstat(self._handle).st_size
        while self._map is not None and self._verified < held:
            index = self._verified // self._map.piece_size
            start, length = self._map.bounds(index)
            piece = self._offload(os.pread, self._handle, length, start)
            if len(piece) != length or not self._offload(self._map.verify, index, piece):
                break
            self._offload(self._whole.update, piece)
            self._verified += length
            if self._verified >= self.progress.size:
                break
            self.progress.advance(self._verified)
        os.ftruncate(self._handle, self._verified)
        if self._verified >= self.progress.size:
            # All of it was here, or there is nothing to have. What is wrong as a whole is fetched anew.
            with contextlib.suppress(WrongBytes):
                self._finish()

    def take(self, chunk: bytes, giver: str) -> None:
        """Take the next bytes from a peer; verify and keep each piece that becomes whole."""
        self._givers.add(giver)
        self._buffer += chunk
        if self.received > self.progress.size:
            self._drop("more bytes than the blob has")
        while self._buffer:
            length = self._next_length()
            if len(self._buffer) < length:
                return
            piece = bytes(self._buffer[:length])
            index = self._verified // self._map.piece_size if self._map else 0
            self._offload(self._keep, index, piece)
            del self._buffer[:length]
            if self._map is not None:
                self._givers = {giver} if self._buffer else set()
            if self._verified >= self.progress.size:
                self._finish()
            elif self._map is not None:
                self.progress.advance(self._verified)

    def _next_length(self) -> int:
        if self._map is not None:
            return self._map.bounds(self._verified // self._map.piece_size)[1]
        # Without a map nothing can be shown early; what has come is only moved from memory to disk.
        return min(8 << 20, self.progress.size - self._verified)

    def _keep(self, index: int, piece: bytes) -> None:
        if self._map is not None and not self._map.verify(index, piece):
            self._drop(f"piece {index} does not have its hash")
        self._whole.update(piece)
        written = 0
        while written < len(piece):
            written += os.pwrite(self._handle, memoryview(piece)[written:], self._verified + written)
        self._verified += len(piece)

    def _drop(self, why: str) -> None:
        givers, self._givers = self._givers, set()
        self._buffer.clear()
        if self._map is None:
            self._restart()
        raise WrongBytes(why, givers)

    def _restart(self) -> None:
        os.ftruncate(self._handle, 0)
        self._verified, self._whole = 0, hasher(self.digest)

    def _finish(self) -> None:
        computed = f"{self.digest.partition(':')[0]}:{self._whole.hexdigest()}"
        if computed != self.digest:
            givers, self._givers = self._givers, set()
            self._restart()
            raise WrongBytes(f"the whole has {computed}", givers)
        self.finished = True

    def close(self) -> None:
        """Let go of the file; a partial without a map, which nobody could trust later, is removed."""
        os.close(self._handle)
        if not self.finished and self._map is None:
            self.path.unlink(missing_ok=True)


def _summary(reasons: dict[str, str], down: Iterable[str]) -> str:
    parts = [reasons[peer] for peer in sorted(reasons)]
    silent = sorted(set(down) - set(reasons))
    if silent:
        parts.append(f"not asked, because they failed just now: {', '.join(silent)}")
    return "; ".join(parts) if parts else "the site lists no other node"
