"""Follower: it looks for a newer index, fetches the manifests of that index, and then switches to it.

Decision 38.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from gevent.pool import Pool

from appliance.agent.fetch import Fetcher
from appliance.agent.indexes import IndexReader
from appliance.agent.troubles import Troubles, in_store
from appliance.config import Peer
from appliance.errors import ApplianceError, fail, make_error
from appliance.oci.manifests import Descriptor
from appliance.peers import wire
from appliance.peers.transport import PeerError, PeerTransport
from appliance.store.blobs import BlobStore
from appliance.store.head import IndexHead
from appliance.store.index import NameIndex, SignedIndex, beginning
from appliance.store.reachability import Needed, needed, needed_by_pushes
from appliance.store.store import Store
from appliance.trust import Signature

_LOG = logging.getLogger("appliance.follow")
_AT_ONCE = 8
_READINGS = 2
"""Times that a head is read from a peer whose index is replaced before the text is asked for."""
_PATIENCE = 0.2
"""Seconds until what the others said is followed without those that have not answered: what they have comes after it."""

T = TypeVar("T", bound=NameIndex)


@dataclass(frozen=True)
class Refused:
    """A newer index, or another one of the same number, that a peer has and that this node does not follow.

    :param peer: its id.
    :param index: ``generation`` or ``pushes``.
    :param signed: whether a node that may sign has signed it, and it is newer than what is here or another one of that number;
        everything else is just a number that the peer names.
    :param problem: why it is not followed.
    :param disproved: whether it came and is none: its peer may have nothing newer at all.
    """

    peer: str
    index: str
    number: int
    digest: str
    signed: bool
    problem: ApplianceError
    disproved: bool = False

    def __str__(self) -> str:
        return f"{self.index} {self.number} ({self.digest}) of {self.peer} is not followed: {self.problem}"

    def as_dict(self) -> dict[str, Any]:
        """The form of ``appliance status --json``."""
        return {**self.__dict__, "problem": self.problem.as_dict()}


@dataclass(frozen=True)
class _Track(Generic[T]):
    """One index that is followed.

    :param name: what it is called in a ping, and its route below ``/p2p/v1/``.
    :param index: this node's.
    :param needed: what a state of it needs, by digest.
    """

    name: str
    index: SignedIndex[T]
    needed: Callable[[T, BlobStore], dict[str, Needed]]


@dataclass(frozen=True)
class _Offer:
    """Index that a peer offers."""

    number: int
    digest: str
    peer: Peer


@dataclass
class _Attempt:
    """State of reading an offer.

    :param valid: what was read, once its signature was found valid: a head, and then the index.
    """

    valid: IndexHead | NameIndex | None = None


class Follower:
    """Keeps a node on the newest generation, and the newest indexes of pushes and of pins, that a seed has signed.

    :param offload: runs a blocking function off the event loop.
    :param troubles: where failures are counted; one of its own where none is given.
    """

    def __init__(
        self,
        store: Store,
        peers: PeerTransport,
        fetcher: Fetcher,
        offload: Callable[..., Any],
        troubles: Troubles | None = None,
    ) -> None:
        self._blobs = store.blobs
        self._tracks: tuple[_Track[Any], ...] = (
            _Track("generation", store.generations, needed),
            _Track("pushes", store.pushes, needed_by_pushes),
            # What they keep came with a generation; where a node never had it, there is nothing for it to keep.
            _Track("pins", store.pins, lambda pinned, blobs: {}),
        )
        self._peers = peers
        self._fetcher = fetcher
        self._reader = IndexReader(peers, offload)
        self._offload = offload
        self._last: dict[tuple[str, str], Refused] = {}
        self._unheard: set[str] = set()
        """Ids of the peers from which an index could not be had in this look."""
        self.troubles = troubles or Troubles()
        """Failures of peers and of this node's store."""
        self.seen: dict[str, int | None] = {}
        """Generation number that each peer named when it was last asked; None where it has none yet."""
        self.silent: list[str] = []
        """Ids of the peers that did not answer the last look."""
        self.refused: list[Refused] = []
        """What the last look found and did not follow."""

    @property
    def behind(self) -> bool:
        """Return whether the last look found something newer that could not be followed: worth another look soon."""
        return any(not self.troubles.is_paused(item.peer, item.index) for item in self.refused)

    def pause(self, most: float) -> float:
        """Seconds until another look is worth its while where nobody calls, because a peer may be tried again."""
        retry = self.troubles.retry_in() if self.refused else None
        return most if retry is None else min(most, retry)

    def look(self, *, as_heir: bool = False) -> list[NameIndex]:
        """Ask every peer once and follow the newest of each index found; returns those that this node moved to.

        :param as_heir: whether this is the publisher, and follows one before it that may be listed no more: what that one
            signed counts as long as this node serves something that it signed.
        """
        self.troubles.forget({peer.id for peer in self._peers.others})
        asking, said, silent = self._ask_all()
        besides = self._signers() if as_heir else frozenset()
        moved: list[NameIndex | None] = []
        self._unheard.clear()
        for patience in (_PATIENCE, None):
            everybody = asking.join(patience)
            self.refused = []
            moved += [self._follow(track, said[track.name], besides) for track in self._tracks]
            if everybody:
                break
        self.silent = sorted(silent)
        return [index for index in moved if index is not None]

    def _signers(self) -> frozenset[str]:
        """Return the signers of the indexes that this node serves."""
        found = []
        for track in self._tracks:
            with contextlib.suppress(ApplianceError):
                current = self._offload(track.index.current)
                found.append(track.index.signature(current) if current is not None else None)
        return frozenset(signature.signer for signature in found if signature is not None)

    def _follow(self, track: _Track[T], offers: list[_Offer], besides: Collection[str]) -> T | None:
        moved = None
        current: T | None = None
        # One that stays damaged gives way to the same one or a newer one of another node; the other indexes are followed all the same.
        try:
            current = self._current(track, offers)
        except ApplianceError:
            pass  # is in the log, and in the status of the mirror
        except OSError as error:
            self.troubles.failed("", in_store(track.name), f"{type(error).__name__}: {error}", track.name)
        refused: list[Refused] = []
        # Peers that failed come last, whatever number they name: what the others have is not held up by one that sends nothing.
        for offer in sorted(offers, key=lambda offer: (self._failures(offer.peer.id, track.name), -offer.number)):
            if moved is not None and offer.number <= moved.number:
                continue
            if _is_known(offer, current):
                self.troubles.ended(offer.peer.id, track.name)
                continue
            last = self._last.get((offer.peer.id, track.name))
            if last is not None and self.troubles.is_paused(offer.peer.id, track.name):
                # What was signed has its number; what the peer only says may be another one by now.
                refused.append(last if last.signed else replace(last, number=offer.number, digest=offer.digest))
                continue
            if offer.peer.id in self._unheard:
                # It let one index come to nothing in this look: others are not waited for too.
                refused.append(
                    _refused(track.name, offer, PeerError(f"{offer.peer.id} did not give another index"), None)
                )
                continue
            newer, problem = self._try(track, offer, current, besides)
            if problem is not None:
                refused.append(problem)
            elif newer is not None:
                _LOG.info("following %s %d (%s) from %s", track.name, newer.number, newer.digest, offer.peer.id)
                # One that failed before may have a higher number all the same: a publisher has to know.
                current = moved = newer
        # What another peer gave, or what is older than that, was no loss.
        here = (current.number, current.digest) if current is not None else (0, "")
        self.refused += [item for item in refused if item.number >= here[0] and item.digest != here[1]]
        return moved

    def _failures(self, peer: str, index: str) -> int:
        return max(self.troubles.times(peer, index), self._reader.failures(peer, index))

    def _try(
        self, track: _Track[T], offer: _Offer, current: T | None, besides: Collection[str]
    ) -> tuple[T | None, Refused | None]:
        """Take an offer; whatever happens over it concerns this peer, or this node's store, and no other offer."""
        attempt = _Attempt()
        try:
            moved = self._take_from(track, offer, current, besides, attempt)
        except Exception as error:
            refused = _refused(track.name, offer, error, attempt.valid)
            # What was validly signed and is whole lacks something, here or at all nodes, that may be there in a moment.
            is_whole = attempt.valid is not None and not isinstance(attempt.valid, IndexHead)
            self._note(refused, error, pause=not is_whole)
            if isinstance(error, PeerError) and not isinstance(error, wire.NotAnAnswer):
                self._unheard.add(offer.peer.id)
            return None, refused
        self.troubles.ended(offer.peer.id, track.name)
        if moved is not None:
            self.troubles.ended("", in_store(track.name))
        return moved, None

    def _note(self, refused: Refused, error: Exception, *, pause: bool) -> None:
        back = f"{refused.index} {refused.number}"
        if isinstance(error, OSError):
            self.troubles.failed("", in_store(refused.index), str(refused), back)
            return
        is_new = self.troubles.failed(refused.peer, refused.index, str(refused), back, pause=pause)
        self._last[refused.peer, refused.index] = refused
        if is_new and not isinstance(error, (PeerError, ApplianceError)):
            _LOG.error("%s: an answer that nobody has thought of", refused.peer, exc_info=error)

    def _current(self, track: _Track[T], offers: list[_Offer]) -> T | None:
        """Return the current index. A damaged one is restored from this node's copy if no peer has a newer one.

        :raises ApplianceError: where it stays damaged.
        """
        try:
            current = self._offload(track.index.current)
            self._offload(track.index.remove_orphans, current)
        except ApplianceError as damage:
            _LOG.error("%s", damage)
            # A publisher that was ended before it switched leaves a copy; that others have its number says that it was never served.
            last = track.index.newest()
            others = {
                (offer.number, beginning(offer.digest)) for offer in offers if last and offer.number == last[0][0]
            }
            if not others.issubset(last):
                raise
            current = self._offload(track.index.put_back)
            if current is None:
                raise
            _LOG.warning("%s %d (%s) is put back from the copy here", track.name, current.number, current.digest)
        return current  # type: ignore[no-any-return]  # what is offloaded has no type

    def _ask_all(self) -> tuple[Pool, dict[str, list[_Offer]], list[str]]:
        """Start to ask every peer; what they say is there as they say it, and who has not said it yet."""
        offers: dict[str, list[_Offer]] = {track.name: [] for track in self._tracks}

        silent: list[str] = []

        def ask(peer: Peer) -> None:
            silent.append(peer.id)
            try:
                status, body = self._peers.ping(peer)
                if status != 200:
                    raise PeerError(f"{peer.id} answered a ping with {status}")
                said = wire.read(body, wire.Ping, peer.id)
            except Exception as error:
                self.seen.pop(peer.id, None)
                if self.troubles.failed(peer.id, "ping", str(error)) and not isinstance(error, PeerError):
                    _LOG.error("%s: an answer that nobody has thought of", peer.id, exc_info=error)
                return
            self.troubles.ended(peer.id, "ping")
            self.seen[peer.id] = said.generation.number if said.generation else None
            for name, offered in offers.items():
                named: wire.Named | None = getattr(said, name)
                if named is not None:
                    offered.append(_Offer(named.number, named.digest, peer))
                else:
                    self.troubles.ended(peer.id, name)
            silent.remove(peer.id)

        # Those that failed just now too: the one that called may be the one that is back. All at once, so that dead
        # ones cost one time-out together.
        pool = Pool(max(1, len(self._peers.others)))
        for peer in self._peers.others:
            pool.spawn(ask, peer)
        return pool, offers, silent

    def _read(
        self, track: _Track[T], offer: _Offer, current: T | None, besides: Collection[str], attempt: _Attempt
    ) -> tuple[bytes, Signature | None] | None:
        """Read the index of a peer, and the signature over it; None where its head says that there is nothing newer."""
        for _ in range(_READINGS):
            told = self._reader.head(offer.peer, track.name)
            if told is None:
                state = track.index.state()
                return self._reader.whole(offer.peer, track.name, state[2] if state else 0)
            head, signature = told
            self._offload(track.index.check_head, head, signature, besides)
            if _is_known(head, current):
                return None
            attempt.valid = head
            raw = self._reader.text(offer.peer, head)
            if raw is not None:
                return raw, signature
        raise PeerError(f"{offer.peer.id} does not have the {track.name} whose head it sent")

    def _take_from(
        self, track: _Track[T], offer: _Offer, current: T | None, besides: Collection[str], attempt: _Attempt
    ) -> T | None:
        read = self._read(track, offer, current, besides, attempt)
        if read is None:
            raise _absent(track.name, offer)
        raw, signature = read
        # What lies here and is found to be needed is not collected before the index that names it is the current one.
        with self._blobs.gc_lock_shared():
            offered: T | None = self._offload(track.index.check, raw, signature, besides)
            attempt.valid = offered
            if offered is None or not self._offload(track.index.is_newer, offered, signature):
                if offered is None or offered.number < offer.number:
                    attempt.valid = None
                    raise _absent(track.name, offer)
                return None
            self._bring_manifests(track, offered)
            return offered if self._offload(track.index.switch_to, offered, signature) else None

    def _bring_manifests(self, track: _Track[T], item: T) -> None:
        """Fetch every manifest and piece map of an index that is not here; raises when one cannot be had."""
        pool = Pool(_AT_ONCE)
        problems: list[str] = []

        def bring(descriptor: Descriptor) -> None:
            # One that lies here and is asked for all the same cannot be read.
            progress = self._fetcher.fetch(descriptor.digest, descriptor.size, None, suspect=True)
            if progress.state != "complete":
                problems.append(f"{descriptor.digest}: {progress.reason}")

        # Each wave shows the children of the one before; what one name leaves out, another may need.
        brought: set[str] = set()
        while wave := self._offload(self._lacking, track, item):
            for descriptor in wave:
                if descriptor.digest in brought:
                    problems.append(f"{descriptor.digest} was fetched and still cannot be read")
                else:
                    pool.spawn(bring, descriptor)
            pool.join()
            brought |= {descriptor.digest for descriptor in wave}
            if problems:
                fail(
                    "APL-0401",
                    f"{track.name} {item.number} is not followed yet: manifests cannot be had",
                    where=self._blobs.root.name,
                    why="; ".join(problems[:5]),
                    fix="It is tried again by itself; bring back a node that holds them",
                )

    def _lacking(self, track: _Track[T], item: T) -> list[Descriptor]:
        found = track.needed(item, self._blobs).items()
        return [
            item.descriptor
            for digest, item in found
            if item.is_lost or (item.is_manifest and not self._blobs.has(digest))
        ]


def _is_known(offered: _Offer | IndexHead, current: NameIndex | None) -> bool:
    """Return whether an offer has nothing new; another index of the current number is new, and refused later."""
    if current is None:
        return False
    return offered.number < current.number or (offered.number, offered.digest) == (current.number, current.digest)


def _absent(index: str, offer: _Offer) -> wire.NotAnAnswer:
    return wire.NotAnAnswer(f"{offer.peer.id} names {index} {offer.number}, and does not have it")


def _refused(index: str, offer: _Offer, error: Exception, valid: IndexHead | NameIndex | None) -> Refused:
    if isinstance(error, ApplianceError):
        problem = error
    elif isinstance(error, OSError):
        problem = make_error(
            "APL-0431",
            f"{index} {offer.number} cannot be written here",
            why=f"{type(error).__name__}: {error}",
            fix="Make room on this node, or see to its disk; it is tried again by itself",
        )
    elif isinstance(error, PeerError) and not isinstance(error, wire.NotAnAnswer):
        problem = make_error("APL-0401", f"{index} {offer.number} cannot be had", why=str(error))
    else:
        problem = make_error(
            "APL-0430",
            "a peer sent an invalid answer",
            where=offer.peer.id,
            why=str(error) if isinstance(error, PeerError) else f"{type(error).__name__}: {str(error)[:200]}",
            fix="Nothing was changed, and the other nodes are followed. Look at that node; it is asked again by itself",
        )
    if valid is not None:
        return Refused(offer.peer.id, index, valid.number, valid.digest, signed=True, problem=problem)
    disproved = isinstance(error, (ApplianceError, wire.NotAnAnswer))
    return Refused(offer.peer.id, index, offer.number, offer.digest, False, problem, disproved)
