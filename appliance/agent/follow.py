"""Following the publisher: finding a newer generation, bringing its manifests, and only then switching to it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from gevent.pool import Pool

from appliance.agent.fetch import Fetcher
from appliance.config import Peer
from appliance.errors import ApplianceError, fail
from appliance.oci.manifests import Descriptor
from appliance.peers.client import PeerError, Peers
from appliance.store.blobs import BlobStore
from appliance.store.closure import needed
from appliance.store.generations import Generation, Generations
from appliance.trust import Signature

_LOG = logging.getLogger("appliance.follow")
_AT_ONCE = 8


class Follower:
    """Keeps a node on the newest generation that a seed has signed.

    :param offload: runs a blocking function off the event loop.
    """

    def __init__(
        self,
        blobs: BlobStore,
        generations: Generations,
        peers: Peers,
        fetcher: Fetcher,
        offload: Callable[..., Any],
    ) -> None:
        self._blobs = blobs
        self._generations = generations
        self._peers = peers
        self._fetcher = fetcher
        self._offload = offload
        self.seen: dict[str, int | None] = {}
        """Generation number that each peer named when it was last asked; None where it has none yet."""
        self.behind = False
        """Whether the last look found something newer that could not be followed: worth another look soon."""

    def look(self) -> Generation | None:
        """Ask every peer once and follow the newest generation found; returns it when this node moved."""
        current = self._offload(self._generations.current)
        mine = current.number if current else 0
        offers = sorted(self._ask_all(), key=lambda offer: -offer[0])
        self.behind = False
        for number, digest, peer in offers:
            if number < mine or (number == mine and current is not None and digest == current.digest):
                continue
            try:
                moved = self._take_from(peer)
            except (PeerError, ApplianceError) as error:
                _LOG.error("generation %d from %s: %s", number, peer.id, error)
                self.behind = True
                continue
            if moved is not None:
                self.behind = False
                _LOG.info("following generation %d (%s) from %s", moved.number, moved.digest, peer.id)
                return moved
        return None

    def _ask_all(self) -> list[tuple[int, str, Peer]]:
        offers: list[tuple[int, str, Peer]] = []

        def ask(peer: Peer) -> None:
            try:
                status, body = self._peers.ask(peer, "GET", "/p2p/v1/ping")
                said = json.loads(body)["generation"] if status == 200 else None
                self.seen[peer.id] = int(said["number"]) if said else None
                if said:
                    offers.append((int(said["number"]), str(said["digest"]), peer))
                if status != 200:
                    _LOG.warning("%s answered a ping with %d", peer.id, status)
            except PeerError:
                self.seen.pop(peer.id, None)
            except (ValueError, KeyError, TypeError) as error:
                _LOG.warning("%s: not an answer to a ping: %s", peer.id, error)

        # Those that failed just now too: the one that called may be the one that is back. All at once, so that dead
        # ones cost one time-out together.
        pool = Pool(max(1, len(self._peers.others)))
        for peer in self._peers.others:
            pool.spawn(ask, peer)
        pool.join()
        return offers

    def _take_from(self, peer: Peer) -> Generation | None:
        status, body = self._peers.ask(peer, "GET", "/p2p/v1/generation", read_seconds=10)
        if status != 200:
            raise PeerError(f"{peer.id} answered {status}")
        try:
            offer = json.loads(body)
            raw = offer["raw"].encode()
            signature = Signature.from_json(offer["signature"]) if offer["signature"] else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PeerError(f"{peer.id} sent no generation: {error}") from error
        return self._generations.accept(raw, signature, self._bring_manifests)

    def _bring_manifests(self, generation: Generation) -> None:
        """Fetch every manifest and piece map of a generation that is not here; raises when one cannot be had."""
        pool = Pool(_AT_ONCE)
        problems: list[str] = []

        def bring(descriptor: Descriptor) -> None:
            progress = self._fetcher.fetch(descriptor.digest, descriptor.size, None)
            if progress.state != "complete":
                problems.append(f"{descriptor.digest}: {progress.reason}")

        # Each wave shows the children of the one before; what one name leaves out, another may need.
        while wave := self._offload(self._lacking, generation):
            for descriptor in wave:
                pool.spawn(bring, descriptor)
            pool.join()
            if problems:
                fail(
                    "APL-0401",
                    f"generation {generation.number} is not followed yet: manifests cannot be had",
                    where=self._blobs.root.name,
                    why="; ".join(problems[:5]),
                    fix="It is tried again by itself; bring back a node that holds them",
                )

    def _lacking(self, generation: Generation) -> list[Descriptor]:
        found = needed(generation, self._blobs).items()
        return [item.descriptor for digest, item in found if item.is_manifest and not self._blobs.has(digest)]
