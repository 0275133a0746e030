"""Walk over the manifests of an OCI layout, in a tar or in a directory.

Rules: image-layout.md of the OCI image specification 1.1. An index whose children are not all in the source is sparse: it is
accepted and reported; :mod:`appliance.archives.entries` decides what the entries of ``index.json`` mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from appliance.archives.limits import Limits
from appliance.archives.model import Context
from appliance.archives.sink import BlobSink
from appliance.errors import ApplianceError, fail
from appliance.oci import mediatypes
from appliance.oci.blob import StoredBlob
from appliance.oci.manifests import Descriptor, Manifest, parse_manifest
from appliance.oci.platforms import Platform
from appliance.oci.strictjson import load_json

_BUILD_CACHE = "application/vnd.buildkit.cacheconfig."
_SAMPLE = 5

FindBlob = Callable[[str], "StoredBlob | None"]
"""Looks for a blob in the source, by digest."""


@dataclass
class Node:
    """Node of the walk: a descriptor and what it leads to.

    :param whole: everything below it is at hand (for an index: at least one child).
    :param platforms: what its whole parts run on.
    :param missing: some of the digests below it that are not at hand, for messages.
    :param manifest: the parsed document, if it is one and is there.
    """

    whole: bool = True
    platforms: list[Platform] = field(default_factory=list)
    missing: tuple[str, ...] = ()
    manifest: Manifest | None = None


class Walker:
    """Follows descriptors down to blobs, checks every size and layer list, and adds up what is there.

    :param find: looks for a blob in the source.
    :param context: the sink reads documents back; blobs that it has from before count as being there.
    :param diff_ids: digests of unpacked layers where they are known.
    """

    def __init__(self, find: FindBlob, context: Context, diff_ids: Mapping[str, str | None] | None = None) -> None:
        """Start with nothing seen."""
        self.blobs: dict[str, int] = {}
        self.parents: dict[str, list[Descriptor]] = {}
        self.missing: dict[str, None] = {}
        self.odd: dict[str, str] = {}
        self.present: set[str] = set()
        self._find = find
        self._sink = context.sink
        self._limits = context.limits
        self._where = context.where
        # Not a copy: of a directory it grows while its blobs are walked.
        self._diff_ids = {} if diff_ids is None else diff_ids
        self._nodes: dict[str, Node] = {}
        self._count = 0

    def visit(self, descriptor: Descriptor, depth: int = 0) -> Node:
        """Walk from one descriptor.

        :raises ApplianceError: APL-0104 (too deep, too many), APL-0106 (sizes differ), APL-0118 (layers and
            config do not belong together), and those of :func:`parse_manifest`.
        """
        if depth > self._limits.depth:
            fail(
                "APL-0104",
                "indexes are nested too deep",
                where=self._where,
                why=f"over {self._limits.depth} levels",
            )
        self._count += 1
        if self._count > self._limits.descriptors:
            fail("APL-0104", "archive has too many descriptors", where=self._where)
        key = f"{descriptor.digest} {descriptor.media_type} {descriptor.size}"
        if key not in self._nodes:
            self._nodes[key] = self._walk(descriptor, depth)
        return self._nodes[key]

    def _walk(self, descriptor: Descriptor, depth: int) -> Node:
        if not self._present(descriptor):
            return Node(whole=False, missing=(descriptor.digest,))
        media_type = descriptor.media_type
        if not _is_servable(media_type):
            return Node()
        data = self._read(descriptor.digest, descriptor.digest)
        manifest = parse_manifest(data, media_type, where=f"{self._where}: {descriptor.digest}")
        if manifest.kind == "index":
            return self._index(manifest, descriptor, depth)
        if manifest.config is not None and manifest.config.media_type.startswith(_BUILD_CACHE):
            self._refuse_cache(descriptor.digest)
        return self._image(manifest, descriptor.digest)

    def _present(self, descriptor: Descriptor) -> bool:
        found = self._find(descriptor.digest)
        # Also what is held from before has a size of its own: the proof before publishing would refuse it too late.
        size = self._sink.size(descriptor.digest) if found is None else found.size
        if size is None:
            self.missing[descriptor.digest] = None
            return False
        if size != descriptor.size:
            fail(
                "APL-0106",
                "blob has another size than its descriptor says",
                where=f"{self._where}: {descriptor.digest}",
                why=f"{size} bytes, not {descriptor.size}",
            )
        self.present.add(descriptor.digest)
        if found is not None:
            self.blobs[descriptor.digest] = size
        return True

    def index_of(self, digest: str, stated: str) -> Descriptor | None:
        """Return the index of a digest that contains a manifest, whole or sparse; None where the source has none.

        :param digest: digest of the manifest.
        :param stated: digest of the index.
        """
        pending, seen = [digest], {digest}
        while pending:
            for parent in self.parents.get(pending.pop(), ()):
                if parent.digest == stated:
                    return parent
                if parent.digest not in seen:
                    seen.add(parent.digest)
                    pending.append(parent.digest)
        return self._unlisted_index(digest, stated)

    def _unlisted_index(self, digest: str, stated: str) -> Descriptor | None:
        """Find an index that lies among the blobs and that ``index.json`` does not list."""
        found = self._find(stated)
        if found is None or found.size > self._limits.manifest_bytes or not found.head.startswith(b"{"):
            return None
        try:
            manifest = parse_manifest(self._read(stated, stated), where=f"{self._where}: {stated}")
        except ApplianceError:
            return None  # an image's config, or another blob that is no manifest
        if manifest.kind != "index" or digest not in {child.digest for child in manifest.manifests}:
            return None
        descriptor = Descriptor(manifest.media_type, stated, found.size)
        self.visit(descriptor)
        return descriptor

    def _check_children(self, manifest: Manifest, digest: str) -> None:
        """Refuse an index of which no entry is a manifest: no node could pull anything by it."""
        children = [child.media_type for child in manifest.manifests]
        if not children or any(map(_is_servable, children)):
            return
        if any(media_type.startswith(_BUILD_CACHE) for media_type in children):
            self._refuse_cache(digest)
        fail(
            "APL-0167",
            "not an image: nothing that its index lists is a manifest",
            where=f"{self._where}: {digest}",
            why=f"it lists {', '.join(repr(media_type[:100]) for media_type in sorted(set(children))[:3])}",
            fix="Take the file off the medium, or save the image again with a current tool",
        )

    def _refuse_cache(self, digest: str) -> NoReturn:
        fail(
            "APL-0167",
            "not an image but a build cache of BuildKit",
            where=f"{self._where}: {digest}",
            why="it holds the layers of a build, and no image that a node could run",
            fix="Take the file off the medium; bring what the build made (docker buildx build --output type=oci,dest=FILE)",
        )

    def _read(self, digest: str, image: str) -> bytes:
        return read_document(self._sink, digest, self._limits, f"{self._where}: {image}")

    def _index(self, manifest: Manifest, descriptor: Descriptor, depth: int) -> Node:
        node = Node(whole=not manifest.manifests, manifest=manifest)
        self._check_children(manifest, descriptor.digest)
        for child in manifest.manifests:
            if not _is_servable(child.media_type):
                # The specification allows it; it is listed, and not served.
                self.odd[child.digest] = child.media_type
                continue
            self.parents.setdefault(child.digest, []).append(descriptor)
            below = self.visit(child, depth + 1)
            node.missing = (node.missing + below.missing)[:_SAMPLE]
            node.whole = node.whole or below.whole
            if below.whole:
                said = [child.platform.normalised()] if child.platform and child.platform.runnable else []
                node.platforms += [p for p in below.platforms or said if p not in node.platforms]
        return node

    def _image(self, manifest: Manifest, digest: str) -> Node:
        node = Node(manifest=manifest)
        config_here = True
        for blob in manifest.blobs:
            self._count += 1
            if not self._present(blob):
                node.missing = (*node.missing, blob.digest)[:_SAMPLE]
                config_here = config_here and blob is not manifest.config
                if "nondistributable" not in blob.media_type and ".foreign." not in blob.media_type:
                    node.whole = False
        if self._count > self._limits.descriptors:
            fail("APL-0104", "archive has too many descriptors", where=self._where)
        config = manifest.config
        if config is not None and config_here:
            layers_unpack = all(layer.media_type in mediatypes.LAYER_TYPES for layer in manifest.layers)
            if config.media_type in mediatypes.CONFIG_TYPES and layers_unpack:
                node.platforms = self._check_config(manifest, config, digest)
        return node

    def _check_config(self, manifest: Manifest, config: Descriptor, digest: str) -> list[Platform]:
        place = f"{self._where}: {digest}"
        document = read_config(self._read(config.digest, digest), place)
        diff_ids = document.diff_ids
        if len(diff_ids) != len(manifest.layers):
            fail(
                "APL-0118",
                "manifest and config do not belong together",
                where=place,
                why=f"{len(manifest.layers)} layers, {len(diff_ids)} diff_ids",
            )
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True):
            plain = layer.media_type in mediatypes.PLAIN_LAYER_TYPES
            known = layer.digest if plain else self._diff_ids.get(layer.digest, diff_id)
            if known != diff_id and known is not None and known.partition(":")[0] == diff_id.partition(":")[0]:
                fail(
                    "APL-0118",
                    "layer is not the one that the config names",
                    where=place,
                    why=f"{layer.digest} unpacks to {known}, expected {diff_id}",
                    fix="Save the image again with a current tool",
                )
        return [document.platform.normalised()] if document.platform.runnable else []


def _is_servable(media_type: str) -> bool:
    """Tell whether a descriptor of this type leads to a manifest; schema 1 does, and has an error of its own."""
    return mediatypes.is_manifest_or_index(media_type) or media_type in mediatypes.SCHEMA1_TYPES


def read_document(sink: BlobSink, digest: str, limits: Limits, where: str) -> bytes:
    """Read a manifest or a config back from a sink.

    :param where: archive and image for messages.
    :raises ApplianceError: APL-0204 for what is larger than such a document may be, or is none.
    """
    size = sink.size(digest)
    if size is not None and size > limits.manifest_bytes:
        fail(
            "APL-0204",
            "manifest or config is too large",
            where=where,
            why=f"{digest} has {size} bytes, the limit is {limits.manifest_bytes}",
            fix="No registry takes it; make the image again with less in its labels, history or environment",
        )
    try:
        return sink.read(digest, limits.manifest_bytes)
    except ApplianceError as error:
        raise error.within(where) from error


@dataclass(frozen=True)
class Config:
    """Fields of an image's config that the readers use.

    :param platform: what it runs on.
    :param diff_ids: digests of its unpacked layers, bottom first.
    """

    platform: Platform
    diff_ids: tuple[str, ...]


def read_config(data: bytes, where: str) -> Config:
    """Parse an image's config.

    :raises ApplianceError: APL-0118 if it is none; APL-0203 to APL-0205 for bad JSON or a bad platform.
    """
    document = load_json(data, limit=len(data), where=where)
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if diff_ids is None and isinstance(rootfs, dict):
        diff_ids = []
    if not isinstance(diff_ids, list) or not all(isinstance(diff_id, str) for diff_id in diff_ids):
        fail(
            "APL-0118",
            "image config is not one",
            where=where,
            why="rootfs.diff_ids is missing or no list of strings",
        )
    return Config(Platform.from_dict(document, where), tuple(diff_ids))


def check_layout_version(data: bytes, limits: Limits, where: str) -> None:
    """Check an ``oci-layout`` file.

    :raises ApplianceError: APL-0119 for a version that is not known.
    """
    document = load_json(data, limit=limits.json_bytes, where=f"{where}: oci-layout")
    version = document.get("imageLayoutVersion") if isinstance(document, dict) else None
    if version != "1.0.0":
        fail(
            "APL-0119",
            "OCI layout of an unknown version",
            where=where,
            why=f"{str(version)[:50]!r}, expected '1.0.0'",
        )
