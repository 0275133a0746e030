"""The state directory of a node: the one door to its blobs, indexes and uploads.

Decision 90.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from appliance.config import Config, LiveConfig
from appliance.store.blobs import BlobStore
from appliance.store.gc import GarbageCollector
from appliance.store.generations import Generations
from appliance.store.index import SignedIndex
from appliance.store.pins import Pins
from appliance.store.pushes import Pushes
from appliance.store.uploads import Uploads
from appliance.trust import Trust


@dataclass(frozen=True)
class Store:
    """Blobs of a node, the three indexes that name them, and uploads that wait for a name."""

    blobs: BlobStore
    generations: Generations
    pushes: Pushes
    pins: Pins
    uploads: Uploads
    current: Callable[[], Config]
    """Returns the configuration of the node; a process that runs for long reloads parts of it."""

    @classmethod
    def open(cls, config: Config | LiveConfig) -> Store:
        """Open the store that a configuration names. Nothing is read, and nothing on the disk changes."""
        current = config.get if isinstance(config, LiveConfig) else lambda: config
        node = current()
        # A store without a site has no kubelet beside it, whose limits it would have to keep.
        blobs = BlobStore(node.store, free_percent=node.free_percent if node.peers else 0, limit=node.store_limit)
        return cls.over(blobs, Trust(node.pki, node.node, config.seeds), current)

    @classmethod
    def over(cls, blobs: BlobStore, trust: Trust, current: Callable[[], Config]) -> Store:
        """Put a store together from its blobs, the nodes that it trusts, and the node's configuration."""
        indexes = Generations(blobs, trust), Pushes(blobs, trust), Pins(blobs, trust)
        store = cls(blobs, *indexes, Uploads(blobs), current)
        # A collector for each look: what it remembers of 10,000 names is memory that a service needs for better.
        blobs.space.collectable = lambda: store.collector().plan().size
        return store

    @property
    def config(self) -> Config:
        """Configuration of the node, as it is now."""
        return self.current()

    @property
    def indexes(self) -> Mapping[str, SignedIndex[Any]]:
        """The indexes by their kind, in the order in which they are written: a generation finds what goes with it."""
        return {index.kind: index for index in (self.pins, self.pushes, self.generations)}

    def index(self, kind: str) -> SignedIndex[Any]:
        """Return the index that files of a kind belong to; see :mod:`appliance.store.kinds`."""
        return self.indexes[kind.partition("-")[0]]

    @property
    def node(self) -> str | None:
        """Id of the node whose store this is; None where it belongs to no site."""
        return self.config.node if self.config.peers else None

    def states(self) -> tuple[object, ...]:
        """Return a value that changes whenever one of the indexes is replaced."""
        return tuple(index.state() for index in self.indexes.values())

    def collector(self, **options: Any) -> GarbageCollector:
        """Return a garbage collector of this store.

        :param options: of :class:`~appliance.store.gc.GarbageCollector`.
        """
        return GarbageCollector(
            self.blobs,
            self.generations,
            self.pushes,
            self.pins,
            self.uploads,
            **{"keep": self.config.keep_generations} | options,
        )
