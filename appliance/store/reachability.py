"""Walk from a name to every blob that it needs, over manifests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from appliance.errors import ApplianceError
from appliance.oci.blob import BlobReader
from appliance.oci.digests import digest_of
from appliance.oci.manifests import MANIFEST_LIMIT, Descriptor, Manifest, parse_manifest
from appliance.oci.mediatypes import PIECE_MAP
from appliance.store.blobs import BlobStore
from appliance.store.generations import Generation
from appliance.store.index import Entry
from appliance.store.pins import Pinned
from appliance.store.pushes import Pushed


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

    @property
    def is_lost(self) -> bool:
        """Return whether it is a manifest that was not at hand, or not what its digest says; what it lists is then unknown."""
        return self.is_manifest and self.manifest is None and self.descriptor.media_type != PIECE_MAP


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

    One that is damaged here is as one that is not at hand: the others of its repository are served, and it may be pushed
    again.

    :param parsed: manifests by digest that need not be read again.
    """
    descriptor = entry.descriptor
    manifest = parsed.get(descriptor.digest)
    if manifest is None:
        with contextlib.suppress(ApplianceError):
            content = read(descriptor)
            manifest = None if content is None else parse_manifest(content, descriptor.media_type)
    yield Needed(descriptor, True, manifest)
    for part in manifest.blobs if manifest else ():
        if part.digest not in entry.absent:
            yield Needed(part, False)


def reader(blobs: BlobReader) -> Callable[[Descriptor], bytes | None]:
    """Read manifests from a store or a sink, for :func:`walk`; one that is damaged is not at hand."""

    def read(descriptor: Descriptor) -> bytes | None:
        digest = descriptor.digest
        if not blobs.has(digest):
            return None
        try:
            content = blobs.read(digest, MANIFEST_LIMIT)
        except OSError:
            return None
        return content if digest_of(content, digest.partition(":")[0]) == digest else None

    return read


def needed_by_pushes(pushed: Pushed, blobs: BlobStore) -> dict[str, Needed]:
    """Every blob that what was pushed needs, by digest, piece maps included."""
    found: dict[str, Needed] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    for entry in pushed.names.values():
        # What one repository leaves out of a manifest, another may have.
        if (key := (entry.descriptor.digest, entry.absent)) not in seen:
            seen.add(key)
            for item in reach(entry, reader(blobs)):
                found.setdefault(item.descriptor.digest, item)
    for descriptor in pushed.piece_maps.values():
        found[descriptor.digest] = Needed(descriptor, True)
    return found


def needed(generation: Generation, blobs: BlobStore) -> dict[str, Needed]:
    """Every blob a generation needs, by digest, piece maps included (they count as manifests: every node has them)."""
    found: dict[str, Needed] = {}
    for _, entry in generation.entries:
        for item in walk(entry, reader(blobs)):
            found.setdefault(item.descriptor.digest, item)
    for descriptor in generation.piece_maps.values():
        found[descriptor.digest] = Needed(descriptor, True)
    return found


def maps_needed(
    names: Mapping[str, Entry], piece_maps: Mapping[str, Descriptor], blobs: BlobStore
) -> dict[str, Descriptor]:
    """The piece maps of blobs that some name reaches; all of them where a manifest is not at hand."""
    reached: set[str] = set()
    for entry in names.values() if piece_maps else ():
        for item in walk(entry, reader(blobs)):
            if item.is_lost:
                return dict(piece_maps)
            reached.add(item.descriptor.digest)
    return {blob: descriptor for blob, descriptor in piece_maps.items() if blob in reached}


def needed_by_pins(pinned: Pinned, blobs: BlobStore) -> dict[str, Needed]:
    """Every blob that the pinned images need, by digest: what is kept whatever else is not.

    An image that left the generation and whose manifest is not here is listed by its manifest alone.
    """
    found: dict[str, Needed] = {}
    for entry in pinned.names.values():
        for item in walk(entry, reader(blobs)):
            found.setdefault(item.descriptor.digest, item)
    return found
