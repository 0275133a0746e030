"""From a name to everything it needs: the walk over manifests that the catalog, peers and checks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from appliance.oci.blob import BlobReader
from appliance.oci.manifests import MANIFEST_LIMIT, Descriptor, Manifest, parse_manifest
from appliance.store.blobs import BlobStore
from appliance.store.generations import Generation
from appliance.store.pins import Pinned
from appliance.store.pushes import Pushed
from appliance.store.signed import Entry


@dataclass(frozen=True)
class Needed:
    """One blob that a name needs.

    :param descriptor: its digest, size and media type.
    :param is_manifest: whether it is a manifest or index, held by every node, and not a config or layer.
    :param manifest: the parsed manifest, where it was at hand.
    """

    descriptor: Descriptor
    is_manifest: bool
    manifest: Manifest | None = None


def walk(entry: Entry, read: Callable[[Descriptor], bytes | None]) -> Iterator[Needed]:
    """Everything one name needs, each digest once, a manifest before what it names.

    :param entry: where the name points to.
    :param read: gives the bytes of a manifest, or None where it is not at hand (its children are then unknown).
    """
    seen: set[str] = set(entry.absent)
    pending = [entry.descriptor]
    while pending:
        descriptor = pending.pop()
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        content = read(descriptor)
        manifest = None if content is None else parse_manifest(content, descriptor.media_type)
        yield Needed(descriptor, True, manifest)
        if manifest is None:
            continue
        pending.extend(reversed(manifest.manifests))
        for part in manifest.blobs:
            if part.digest not in seen:
                seen.add(part.digest)
                yield Needed(part, False)


def reach(
    entry: Entry, read: Callable[[Descriptor], bytes | None], parsed: Mapping[str, Manifest] = MappingProxyType({})
) -> Iterator[Needed]:
    """One manifest that was pushed, and the blobs that it lists: its children were pushed by themselves.

    :param parsed: manifests by digest that need not be read again.
    """
    descriptor = entry.descriptor
    manifest = parsed.get(descriptor.digest)
    if manifest is None:
        content = read(descriptor)
        manifest = None if content is None else parse_manifest(content, descriptor.media_type)
    yield Needed(descriptor, True, manifest)
    for part in manifest.blobs if manifest else ():
        if part.digest not in entry.absent:
            yield Needed(part, False)


def reader(blobs: BlobReader) -> Callable[[Descriptor], bytes | None]:
    """Read manifests from a store or a sink, for :func:`walk`."""

    def read(descriptor: Descriptor) -> bytes | None:
        return blobs.read(descriptor.digest, MANIFEST_LIMIT) if blobs.has(descriptor.digest) else None

    return read


def needed_by_pushes(pushed: Pushed, blobs: BlobStore) -> dict[str, Needed]:
    """Every blob that what was pushed needs, by digest, piece maps included."""
    found: dict[str, Needed] = {}
    for entry in pushed.names.values():
        if entry.descriptor.digest not in found:
            for item in reach(entry, reader(blobs)):
                found.setdefault(item.descriptor.digest, item)
    for descriptor in pushed.piece_maps.values():
        found[descriptor.digest] = Needed(descriptor, True)
    return found


def needed(generation: Generation, blobs: BlobStore) -> dict[str, Needed]:
    """Every blob a generation needs, by digest, piece maps included (they count as manifests: every node has them)."""
    found: dict[str, Needed] = {}
    for entry in generation.names.values():
        for item in walk(entry, reader(blobs)):
            found.setdefault(item.descriptor.digest, item)
    for descriptor in generation.piece_maps.values():
        found[descriptor.digest] = Needed(descriptor, True)
    return found


def needed_by_pins(pinned: Pinned, blobs: BlobStore) -> dict[str, Needed]:
    """Every blob that the pinned images need, by digest: what is kept whatever else is not.

    An image that left the generation and whose manifest is not here is listed by its manifest alone.
    """
    found: dict[str, Needed] = {}
    for entry in pinned.names.values():
        for item in walk(entry, reader(blobs)):
            found.setdefault(item.descriptor.digest, item)
    return found
