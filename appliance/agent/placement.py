"""Placement: the blobs that each node keeps, whether or not a client of that node has asked for them.

Decision 12.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from appliance.config import Config
from appliance.errors import ApplianceError
from appliance.oci.digests import digest_of
from appliance.oci.manifests import Descriptor
from appliance.oci.pieces import MAP_LIMIT, PieceMap
from appliance.store.blobs import BlobStore
from appliance.store.reachability import Needed


def keepers(digest: str, config: Config) -> Sequence[str]:
    """Ids of the nodes that hold a blob by policy: the publisher, and the first others in rendezvous order.

    Rendezvous hashing over ids, never addresses: every node computes the same without asking, and a node that is
    added or removed moves only its own share.
    """
    ids = [peer.id for peer in config.peers]
    if config.mirror_copies is None or config.mirror_copies >= len(ids):
        return ids
    others = sorted(
        (node for node in ids if node != config.publisher),
        key=lambda node: hashlib.sha256(f"{node}\0{digest}".encode()).digest(),
        reverse=True,
    )
    first = [config.publisher] if config.publisher else []
    return first + others[: config.mirror_copies - len(first)]


def wanted(needs: Iterable[Needed], blobs: BlobStore, config: Config) -> list[Descriptor]:
    """Return the blobs that this node should hold and does not, the smallest first: most names become safe soonest.

    Every manifest, the blobs that are this node's to keep, and those that lay here until they were found damaged.
    """
    damaged = blobs.quarantined()
    missing = {
        item.descriptor.digest: item.descriptor
        for item in needs
        if item.is_lost
        or (
            blobs.size(item.descriptor.digest) != item.descriptor.size
            and (
                item.is_manifest
                or item.descriptor.digest in damaged
                or config.node in keepers(item.descriptor.digest, config)
            )
        )
    }
    return sorted(missing.values(), key=lambda descriptor: (descriptor.size, descriptor.digest))


def piece_map(
    descriptor: Descriptor | None,
    blobs: BlobStore,
    digest: str,
    damaged: Callable[[Descriptor], object] = lambda _: None,
) -> PieceMap | None:
    """The piece map of a blob, where a signed index lists one and it is here and sound.

    :param descriptor: what the index lists.
    :param damaged: told of a map that is not; the blob can still be had, verified as a whole.
    """
    if descriptor is None or not blobs.has(descriptor.digest):
        return None
    try:
        content = blobs.read(descriptor.digest, MAP_LIMIT)
        if digest_of(content, descriptor.digest.partition(":")[0]) == descriptor.digest:
            found = PieceMap.from_bytes(content, digest)
            return found if found.blob == digest else None
    except (ApplianceError, OSError):
        pass
    damaged(descriptor)
    return None
