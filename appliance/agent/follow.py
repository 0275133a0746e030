"""Following the publisher: finding a newer index, bringing its manifests, and only then switching to it."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gevent.pool import Pool

from appliance.agent.fetch import Fetcher
from appliance.config import Peer
from appliance.errors import ApplianceError, fail
from appliance.oci.manifests import Descriptor
from appliance.peers.client import INDEX_ANSWER, INDEX_SECONDS, PeerError, Peers
from appliance.store.blobs import BlobStore
from appliance.store.closure import Needed, needed, needed_by_pushes
from appliance.store.generations import Generations
from appliance.store.pins import Pins
from appliance.store.pushes import Pushes
from appliance.store.signed import NameIndex, SignedIndex, beginning
from appliance.trust import Signature

_LOG = logging.getLogger("appliance.follow")
_AT_ONCE = 8
_PATIENCE = 0.2
"""Seconds until what the others said is followed without those that have not answered: what they have comes after it."""

T = TypeVar("T", bound=NameIndex)


@dataclass(frozen=True)
class Refused:
    """A newer index, or another one of the same number, that a peer has and that this node does not follow.

    :param peer: its id.
    :param index: ``generation`` or ``pushes``.
    :param signed: whether it was found to carry a good signature, and is not just a number that the peer names.
    :param problem: why it is not followed.
    """

    peer: str
    index: str
    number: int
    digest: str
    signed: bool
    problem: ApplianceError

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
    """What a peer says it has."""

    number: int
    digest: str
    peer: Peer


class Follower:
    """Keeps a node on the newest generation, and the newest indexes of pushes and of pins, that a seed has signed.

    :param offload: runs a blocking function off the event loop.
    """

    def __init__(
        self,
        blobs: BlobStore,
        generations: Generations,
        pushes: Pushes,
        pins: Pins,
        peers: Peers,
        fetcher: Fetcher,
        offload: Callable[..., Any],
    ) -> None:
        self._blobs = blobs
        self._tracks: tuple[_Track[Any], ...] = (
            _Track("generation", generations, needed),
            _Track("pushes", pushes, needed_by_pushes),
            # What they keep came with a generation; where a node never had it, there is nothing for it to keep.
            _Track("pins", pins, lambda pinned, blobs: {}),
        )
        self._peers = peers
        self._fetcher = fetcher
        self._offload = offload
        self.seen: dict[str, int | None] = {}
        """Generation number that each peer named when it was last asked; None where it has none yet."""
        self.silent: list[str] = []
        """Ids of the peers that did not answer the last look."""
        self.refused: list[Refused] = []
        """What the last look found and did not follow."""

    @property
    def behind(self) -> bool:
        """Whether the last look found something newer that could not be followed: worth another look soon."""
        return bool(self.refused)

    def look(self, *, as_heir: bool = False) -> list[NameIndex]:
        """Ask every peer once and follow the newest of each index found; returns those that this node moved to.

        :param as_heir: whether this is the publisher, and follows one before it that may be listed no more: what that one
            signed counts as long as this node serves something that it signed.
        """
        asking, said, silent = self._ask_all()
        before = [str(item) for item in self.refused]
        besides = self._signers() if as_heir else frozenset()
        moved: list[NameIndex | None] = []
        for patience in (_PATIENCE, None):
            everybody = asking.join(patience)
            self.refused = []
            moved += [self._follow(track, said[track.name], besides) for track in self._tracks]
            if everybody:
                break
        self.silent = sorted(silent)
        for refused in self.refused:
            if str(refused) not in before:
                _LOG.error("%s", refused)
        return [index for index in moved if index is not None]

    def _signers(self) -> frozenset[str]:
        """Who signed what is served here."""
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
        with contextlib.suppress(ApplianceError, OSError):
            current = self._current(track, offers)
        refused: list[Refused] = []
        for offer in sorted(offers, key=lambda offer: -offer.number):
            if current is not None and (
                offer.number < current.number or (offer.number, offer.digest) == (current.number, current.digest)
            ):
                continue
            try:
                moved = self._take_from(track, offer.peer, besides)
            except (PeerError, ApplianceError) as error:
                refused.append(_refused(track.name, offer, error))
                continue
            if moved is not None:
                _LOG.info("following %s %d (%s) from %s", track.name, moved.number, moved.digest, offer.peer.id)
                current = moved
                break
        # What another peer gave, or what is older than that, was no loss.
        here = (current.number, current.digest) if current is not None else (0, "")
        self.refused += [item for item in refused if item.number >= here[0] and item.digest != here[1]]
        return moved

    def _current(self, track: _Track[T], offers: list[_Offer]) -> T | None:
        """What is served here; an index that is damaged is put back from this node's own copy, where nobody knows better.

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
                status, body = self._peers.ask(peer, "GET", "/p2p/v1/ping")
                said = json.loads(body) if status == 200 else {}
                found = {name: _offer(said.get(name), peer) for name in offers}
                generation = found["generation"]
                self.seen[peer.id] = generation.number if generation else None
                for name, offer in found.items():
                    if offer is not None:
                        offers[name].append(offer)
                if status == 200:
                    silent.remove(peer.id)
                else:
                    _LOG.warning("%s answered a ping with %d", peer.id, status)
            except PeerError:
                self.seen.pop(peer.id, None)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                _LOG.warning("%s: not an answer to a ping: %s", peer.id, error)

        # Those that failed just now too: the one that called may be the one that is back. All at once, so that dead
        # ones cost one time-out together.
        pool = Pool(max(1, len(self._peers.others)))
        for peer in self._peers.others:
            pool.spawn(ask, peer)
        return pool, offers, silent

    def _take_from(self, track: _Track[T], peer: Peer, besides: Collection[str]) -> T | None:
        status, body = self._peers.ask(
            peer, "GET", f"/p2p/v1/{track.name}", read_seconds=10, seconds=INDEX_SECONDS, limit=INDEX_ANSWER
        )
        if status != 200:
            raise PeerError(f"{peer.id} answered {status}")
        try:
            offer = json.loads(body)
            raw = offer["raw"].encode()
            signature = Signature.from_json(offer["signature"]) if offer["signature"] else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PeerError(f"{peer.id} sent no {track.name}: {error}") from error
        # What lies here and is found to be needed is not collected before the index that names it is the current one.
        with self._blobs.staying():
            return track.index.accept(raw, signature, lambda item: self._bring_manifests(track, item), besides)

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


def _refused(index: str, offer: _Offer, error: PeerError | ApplianceError) -> Refused:
    if isinstance(error, ApplianceError):
        signed, problem = error.code != "APL-0606", error
    else:
        signed, problem = False, ApplianceError("APL-0401", f"{index} {offer.number} cannot be had", why=str(error))
    return Refused(offer.peer.id, index, offer.number, offer.digest, signed, problem)


def _offer(said: Any, peer: Peer) -> _Offer | None:
    return _Offer(int(said["number"]), str(said["digest"]), peer) if said else None
