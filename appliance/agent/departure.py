"""Report of what only the nodes hold that leave the site, and the fetch of it to nodes that stay.

Decision 7.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from gevent.pool import Pool

from appliance.agent.fetch import Fetcher
from appliance.config import Peer
from appliance.oci.manifests import Descriptor
from appliance.oci.pieces import PieceMap
from appliance.peers.transport import PeerError, PeerTransport
from appliance.store.generations import Generation
from appliance.store.reachability import Needed, needed, needed_by_pins, needed_by_pushes, reach, reader, walk
from appliance.store.store import Store

_AT_ONCE = 16
_NAMES = 5
"""Names that are given for each blob."""


class Leaving:
    """Looks after the blobs that kept generations, pushed names and pins need when nodes leave.

    :param piece_map: gives the piece map of a blob by its digest, where an index lists one.
    :param offload: runs a blocking function off the event loop.
    """

    def __init__(
        self,
        store: Store,
        peers: PeerTransport,
        fetcher: Fetcher,
        piece_map: Callable[[str], PieceMap | None],
        offload: Callable[..., Any],
    ) -> None:
        self._store = store
        self._peers = peers
        self._fetcher = fetcher
        self._piece_map = piece_map
        self._offload = offload

    def report(self, staying: Collection[str]) -> dict[str, Any]:
        """Report what the site would lose without the listed nodes that do not stay.

        :param staying: ids.
        :returns: ``leaving`` (ids), ``silent`` (ids of the nodes, staying or not, that do not answer), ``only_there``
            (what a leaving node holds and no staying one), and ``at_risk`` (what no node that answers holds, while one that
            leaves does not answer). Each blob has ``digest``, ``size`` (bytes), ``names``, a few that need it, and
            ``served``: whether what is served now or pinned needs it, not older generations alone.
        """
        others = self._peers.others
        leaving = [peer.id for peer in others if peer.id not in staying]
        answering = self._answering(others)
        silent = {peer.id for peer in others} - {peer.id for peer in answering}
        only_there: list[Descriptor] = []
        at_risk: list[Descriptor] = []
        if leaving:
            missing = self._offload(self._missing)
            unheld = self._unheld(missing, [peer for peer in answering if peer.id in staying], silent)
            nowhere = self._unheld(unheld, [peer for peer in answering if peer.id in leaving], silent)
            only_there = [item for item in unheld if item not in nowhere]
            # Where every leaving node says that it does not hold it either, staying is no help.
            at_risk = nowhere if silent & set(leaving) else []
        lost = {item.digest for item in [*only_there, *at_risk]}
        names, served = self._offload(self._names, lost), self._offload(self._served, lost)
        return {
            "leaving": leaving,
            "silent": sorted(silent),
            "only_there": [_row(item, names, served) for item in only_there],
            "at_risk": [_row(item, names, served) for item in at_risk],
        }

    def fetch(self, staying: Collection[str]) -> dict[str, Any]:
        """The same, after what only leaving nodes hold was brought here as far as it could be.

        ``fetched`` counts the blobs that were, ``failed`` says why others were not.
        """
        fetched = 0
        while True:
            rows = self.report(staying)["only_there"]
            failed = [problem for problem in Pool(_AT_ONCE).map(self._bring, rows) if problem]
            fetched += len(rows) - len(failed)
            # A manifest that was brought may list what nobody here knew of.
            if failed or not rows:
                return self.report(staying) | {"fetched": fetched, "failed": failed}

    def _bring(self, row: Mapping[str, Any]) -> str:
        progress = self._fetcher.fetch(row["digest"], row["size"], self._piece_map(row["digest"]))
        return "" if progress.state == "complete" else f"{row['digest']}: {progress.reason}"

    def _answering(self, peers: Sequence[Peer]) -> list[Peer]:
        """Return the peers that answer a ping. Later questions to a dead peer would each cost a time-out."""

        def answers(peer: Peer) -> bool:
            try:
                return self._peers.ping(peer)[0] == 200
            except PeerError:
                return False

        return [peer for peer, is_up in zip(peers, Pool(_AT_ONCE).map(answers, peers), strict=True) if is_up]

    def _unheld(self, items: Sequence[Descriptor], peers: Sequence[Peer], silent: set[str]) -> list[Descriptor]:
        """Return those that none of the peers holds.

        :param silent: takes the ids of peers that stop answering. They are asked no more: with some hundred blobs, a node that
            drips the head of each answer made a report take minutes.
        """

        def is_held(item: Descriptor) -> bool:
            return any(self._holds(peer, item.digest, silent) for peer in peers)

        return [item for item, held in zip(items, Pool(_AT_ONCE).map(is_held, items), strict=True) if not held]

    def _holds(self, peer: Peer, digest: str, silent: set[str]) -> bool:
        if peer.id in silent:
            return False
        try:
            return self._peers.has(peer, digest) == 200
        except PeerError:
            silent.add(peer.id)
            return False

    def _missing(self) -> list[Descriptor]:
        """Return the blobs that are needed and are not complete on this node."""
        found = self._needed(self._store.generations.complete(self._store.config.keep_generations))
        descriptors = [item.descriptor for item in found.values()]
        return [item for item in descriptors if self._store.blobs.size(item.digest) != item.size]

    def _served(self, digests: Collection[str]) -> Collection[str]:
        """Those of these that what is served now or pinned needs."""
        if not digests:
            return ()
        current = self._store.generations.current()
        return self._needed([current] if current else []).keys() & set(digests)

    def _needed(self, generations: Iterable[Generation]) -> dict[str, Needed]:
        """Return the blobs that the generations, pushed names and pins need, by digest."""
        found: dict[str, Needed] = {}
        for generation in generations:
            found |= needed(generation, self._store.blobs)
        pushed, pinned = self._store.pushes.current(), self._store.pins.current()
        found |= needed_by_pins(pinned, self._store.blobs) if pinned is not None else {}
        return found | needed_by_pushes(pushed, self._store.blobs) if pushed is not None else found

    def _names(self, digests: Collection[str]) -> dict[str, list[str]]:
        """A few of the names that need each of these."""
        found: dict[str, list[str]] = {digest: [] for digest in digests}
        for name, items in self._by_name() if digests else ():
            for digest in {item.descriptor.digest for item in items} & found.keys():
                if name not in found[digest] and len(found[digest]) < _NAMES:
                    found[digest].append(name)
        return found

    def _by_name(self) -> Iterator[tuple[str, Iterator[Needed]]]:
        read = reader(self._store.blobs)
        for generation in reversed(self._store.generations.complete(self._store.config.keep_generations)):
            yield from ((name, walk(entry, read)) for name, entry in generation.entries)
        # Under a name that has left, or moved since.
        pinned = self._store.pins.current()
        if pinned is not None:
            yield from ((name, walk(entry, read)) for name, entry in pinned.names.items())
        pushed = self._store.pushes.current()
        if pushed is not None:
            yield from ((name, reach(entry, read)) for name, entry in pushed.names.items())


def _row(item: Descriptor, names: Mapping[str, list[str]], served: Collection[str]) -> dict[str, Any]:
    return {
        "digest": item.digest,
        "size": item.size,
        "names": names[item.digest],
        "served": item.digest in served,
    }
