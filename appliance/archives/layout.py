"""OCI image layouts, in a tar or as a directory, and what Docker, containerd and Hauler make of them.

Rules: image-layout.md and annotations.md of the OCI image specification 1.1. What an index lists and the source
leaves out makes a sparse index, which is accepted and reported; an image that is itself not whole is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from appliance.archives.contents import ArchiveContents, Context, NamedImage
from appliance.archives.limits import Limits
from appliance.errors import fail
from appliance.oci import mediatypes
from appliance.oci.blob import StoredBlob
from appliance.oci.manifests import IMAGE_NAME, REF_NAME, Descriptor, Manifest, parse_manifest
from appliance.oci.names import Reference, is_tag, parse_reference
from appliance.oci.platforms import Platform
from appliance.oci.strictjson import load_json

_SUBJECT = "io.containerd.manifest.subject"
_HAULER_KIND = re.compile(r"dev\.(?:hauler|cosignproject\.cosign)/(.+)")
_HAULER_ORIGINAL = "hauler.dev/original-ref"
_IMAGE_KINDS = frozenset({"image", "imageIndex"})
_SAMPLE = 5
_COSIGN_SUFFIX = {"sigs": "sig", "atts": "att", "sboms": "sbom"}

FindBlob = Callable[[str], "StoredBlob | None"]
"""Looks for a blob in the source, by digest."""


@dataclass
class Node:
    """What a descriptor leads to.

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
        self.children: set[str] = set()
        self.missing: dict[str, None] = {}
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
        if not mediatypes.is_manifest_or_index(media_type) and media_type not in mediatypes.SCHEMA1_TYPES:
            return Node()
        data = self._sink.read(descriptor.digest, self._limits.manifest_bytes)
        manifest = parse_manifest(data, media_type, where=f"{self._where}: {descriptor.digest}")
        if manifest.kind == "index":
            return self._index(manifest, depth)
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
        if found is not None:
            self.blobs[descriptor.digest] = size
        return True

    def _index(self, manifest: Manifest, depth: int) -> Node:
        node = Node(whole=not manifest.manifests, manifest=manifest)
        for child in manifest.manifests:
            self.children.add(child.digest)
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
        document = read_config(self._sink.read(config.digest, self._limits.manifest_bytes), place)
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


@dataclass(frozen=True)
class Config:
    """What matters here of an image's config.

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


def resolve_layout(index: bytes, walker: Walker, context: Context, contents: ArchiveContents) -> None:
    """Fill ``contents`` from an ``index.json``.

    :raises ApplianceError: those of :class:`Walker`; APL-0112 for an image that is not whole, APL-0114 for one
        name that means two images, APL-0120 for a layout without images.
    """
    where = context.where
    limit = context.limits.json_bytes
    root = parse_manifest(index, mediatypes.OCI_INDEX, limit=limit, where=f"{where}: index.json")
    if not root.manifests:
        fail("APL-0120", "archive holds no image", where=where, why="its index.json lists none")
    found = [(entry, walker.visit(entry)) for entry in root.manifests]
    hauler = {
        parse_reference(name, where=entry.digest): entry.digest
        for entry in root.manifests
        if (name := entry.annotations.get(IMAGE_NAME)) and _kind(entry) in _IMAGE_KINDS
    }
    for entry, node in found:
        if not node.whole:
            # Tools list the children of an index, and what refers to an image, once more on their own.
            if _reference(entry) is None and (entry.digest in walker.children or _SUBJECT in entry.annotations):
                continue
            check_whole(node, entry, where)
        _root(entry, node, hauler, walker, contents)
    finish(contents, walker, where)


def _kind(entry: Descriptor) -> str | None:
    found = _HAULER_KIND.fullmatch(entry.annotations.get("kind", ""))
    return found.group(1) if found else None


def _root(
    entry: Descriptor, node: Node, hauler: dict[Reference, str], walker: Walker, contents: ArchiveContents
) -> None:
    subject = entry.annotations.get(_SUBJECT)
    if node.manifest is not None and node.manifest.subject is not None:
        subject = node.manifest.subject.digest
    reference = _reference(entry)
    kind = _kind(entry)
    if kind is not None and kind not in _IMAGE_KINDS and reference is not None:
        # Hauler gives a signature the name of its image; cosign looks for it under a tag made of the digest.
        image, suffix = hauler.get(reference), _COSIGN_SUFFIX.get(kind)
        subject = subject or image
        tag = f"{image.replace(':', '-')}.{suffix}" if image and suffix else None
        reference = replace(reference, tag=tag) if tag else None
    if reference is None and subject is None and entry.digest in walker.children:
        return
    contents.images.append(NamedImage(reference, clean_descriptor(entry), node.platforms, subject))


def _reference(entry: Descriptor) -> Reference | None:
    name = entry.annotations.get(IMAGE_NAME)
    if name:
        return parse_reference(name, where=entry.digest)
    original = entry.annotations.get(_HAULER_ORIGINAL)
    if original and _kind(entry) is not None:
        # What was asked for: older hauls have no other name with its registry.
        return parse_reference(original, where=entry.digest)
    name = entry.annotations.get(REF_NAME, "")
    # A bare word is a tag (or umoci's idea of one), no name: containerd would make up the rest.
    return parse_reference(name, where=entry.digest) if any(char in name for char in "/:@") else None


def ref_tag(entry: Descriptor) -> str | None:
    """The tag that a nameless entry carries, for ``--name`` without a tag."""
    name = entry.annotations.get(REF_NAME, "")
    return name if is_tag(name) else None


def check_whole(node: Node, entry: Descriptor, where: str) -> None:
    """Refuse an image that is not whole.

    :raises ApplianceError: APL-0112.
    """
    if not node.whole:
        fail(
            "APL-0112",
            "image is not whole",
            where=f"{where}: {entry.digest}",
            why=f"missing: {', '.join(node.missing)}",
            fix="Save the image again, with all of its layers",
        )


def clean_descriptor(entry: Descriptor) -> Descriptor:
    """An entry without the annotations of whoever packed it, but for a tag that may serve ``--name``."""
    tag = ref_tag(entry) if IMAGE_NAME not in entry.annotations else None
    return replace(entry, annotations={REF_NAME: tag} if tag else {})


def finish(contents: ArchiveContents, walker: Walker, where: str) -> None:
    """Add up blobs and missing digests, drop repeated names, and refuse contradictions.

    :raises ApplianceError: APL-0114.
    """
    seen: dict[str, str] = {}
    for image in contents.images:
        if image.reference is None:
            continue
        key, digest = str(image.reference), image.descriptor.digest
        if seen.setdefault(key, digest) != digest or image.reference.digest not in (None, digest):
            fail(
                "APL-0114",
                f"archive gives one name to two images: {key}",
                where=where,
                why=f"{seen[key]} and {digest}",
                fix="Save them one by one, or save the multi-platform index",
            )
    contents.images = list({image.key: image for image in contents.images}.values())
    contents.blobs = dict(walker.blobs)
    contents.missing = list(walker.missing)
    if contents.missing:
        contents.notes.append(
            f"{len(contents.missing)} blobs that indexes list are not in the source; "
            "other platforms than those shown cannot be pulled."
        )
