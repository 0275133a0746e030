"""Reader of docker-archives, as ``docker save``, ``podman save``, ``skopeo docker-archive:`` and ``crane`` write them.

They hold no manifest. The one made here is byte for byte what containerd's importer makes of the same file
(core/images/archive/importer.go), so every node and ``ctr images import`` agree on the digest.

Decisions 34 and 47.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from appliance.archives.compression import detect
from appliance.archives.entries import check_names
from appliance.archives.limits import Limits
from appliance.archives.model import ArchiveContents, Context, NamedImage
from appliance.archives.names import Meaning, read_saved_name
from appliance.archives.oci_layout import read_config, read_document
from appliance.archives.scan import Collected
from appliance.errors import fail
from appliance.oci.blob import StoredBlob
from appliance.oci.digests import digest_of
from appliance.oci.manifests import Descriptor
from appliance.oci.mediatypes import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_MANIFEST
from appliance.oci.strictjson import dump_json, is_clean_text, load_json

DIGESTS_LOST = (
    "docker-archives do not keep the registry's digests: names with @sha256: and signatures made for the "
    "original image do not match what is served."
)

Reread = Callable[[set[str]], "dict[str, str | None]"]
"""Learns the diff_ids of compressed members, by digest, from a second pass."""


@dataclass(frozen=True)
class _Item:
    config: str
    names: list[str]
    layers: list[str]


def resolve_docker(
    manifest_json: bytes,
    collected: Collected,
    context: Context,
    contents: ArchiveContents,
    reread: Reread,
    covered: Collection[str] = (),
) -> None:
    """Fill ``contents`` from a ``manifest.json``.

    :param covered: digests of configs whose images are known from elsewhere and passed over.
    :raises ApplianceError: APL-0121 (bad manifest.json), APL-0112 (missing member), APL-0118 (a layer that the
        config does not name), APL-0114 (one name for two images), and those of names and documents.
    """
    where = context.where
    items = [
        item
        for item in _parse(manifest_json, context.limits, where)
        if not covered or _member(collected, item.config, where).digest not in covered
    ]
    if not items:
        return
    diff_ids = dict(collected.diff_ids)
    layers = [_member(collected, path, where) for item in items for path in item.layers]
    unknown = {blob.digest for blob in layers if _compressed(blob) and blob.digest not in diff_ids}
    if unknown:
        diff_ids.update(reread(unknown))
    for item in items:
        image = _image(item, collected, diff_ids, context, contents)
        meanings = [read_saved_name(name, image.descriptor.digest) for name in item.names]
        contents.notes += [meaning.note for meaning in meanings if meaning.note]
        contents.images += [
            replace(image, reference=meaning.reference, problem=meaning.problem) for meaning in meanings or [Meaning()]
        ]
    check_names(contents.images, where)
    contents.settle()
    contents.notes.append(DIGESTS_LOST)


def _parse(data: bytes, limits: Limits, where: str) -> list[_Item]:
    place = f"{where}: manifest.json"
    document = load_json(data, limit=limits.json_bytes, where=place)
    if not isinstance(document, list):
        fail("APL-0121", "manifest.json is not a list", where=place)
    if len(document) > limits.descriptors:
        fail("APL-0104", "archive has too many images", where=where)
    if not document:
        fail("APL-0120", "archive contains no image", where=where, why="its manifest.json lists none")
    return [_item(entry, place) for entry in document]


def _item(entry: Any, place: str) -> _Item:
    if not isinstance(entry, dict):
        fail("APL-0121", "manifest.json lists something else than images", where=place)
    config, names, layers = entry.get("Config"), entry.get("RepoTags") or [], entry.get("Layers") or []
    if not is_clean_text(config) or not config:
        fail("APL-0121", "manifest.json has an image without Config", where=place)
    for words in (names, layers):
        if not isinstance(words, list) or not all(is_clean_text(word) for word in words):
            fail("APL-0121", "manifest.json has RepoTags or Layers that are no list of strings", where=place)
    return _Item(config, names, layers)


def _member(collected: Collected, path: str, where: str) -> StoredBlob:
    # As docker reads it: "/x" lies below the root of the archive (buildpacks write such names).
    found = None if ".." in path.split("/") else collected.lookup(posixpath.normpath(path.lstrip("/")))
    if found is None:
        fail(
            "APL-0112",
            f"image is incomplete: {path[:200]!r} is missing",
            where=where,
            why="manifest.json names it, the archive does not hold it",
            fix="Copy or save the archive again",
        )
    return found


def _compressed(blob: StoredBlob) -> bool:
    return detect(blob.head) != "none"


def _image(
    item: _Item,
    collected: Collected,
    diff_ids: dict[str, str | None],
    context: Context,
    contents: ArchiveContents,
) -> NamedImage:
    sink, limits, where = context.sink, context.limits, context.where
    config = _member(collected, item.config, where)
    place = f"{where}: {item.names[0][:200] if item.names else item.config[:200]}"
    document = read_config(read_document(sink, config.digest, limits, place), place)
    layers = [_member(collected, path, where) for path in item.layers]
    if len(layers) != len(document.diff_ids):
        fail(
            "APL-0118",
            "layers and config do not belong together",
            where=place,
            why=f"{len(layers)} layers, {len(document.diff_ids)} diff_ids",
        )
    for path, blob, diff_id in zip(item.layers, layers, document.diff_ids, strict=True):
        known = diff_ids.get(blob.digest) if _compressed(blob) else blob.digest
        if known != diff_id:
            fail(
                "APL-0118",
                "layer is not the one that the config names",
                where=f"{place}: {path[:200]}",
                why=f"it unpacks to {known or 'nothing (damaged)'}, expected {diff_id[:150]}",
                fix="Copy or save the archive again",
            )
    manifest = synthetic_manifest(config, layers)
    digest = digest_of(manifest)
    sink.put([manifest], size=len(manifest), expect=digest, where=f"{where}: manifest of {item.config[:200]}")
    contents.blobs.update({blob.digest: blob.size for blob in (config, *layers)})
    contents.blobs[digest] = len(manifest)
    platforms = [document.platform.normalised()] if document.platform.runnable else []
    return NamedImage(None, Descriptor(DOCKER_MANIFEST, digest, len(manifest)), platforms)


def synthetic_manifest(config: StoredBlob, layers: list[StoredBlob]) -> bytes:
    """The manifest that containerd makes for an image of a docker-archive, byte for byte.

    Layers stay as they are stored; any compression is called gzip, as containerd calls it.
    """
    return dump_json(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {"mediaType": DOCKER_CONFIG, "digest": config.digest, "size": config.size},
            "layers": [
                {
                    "mediaType": DOCKER_LAYER_GZIP if _compressed(layer) else DOCKER_LAYER,
                    "digest": layer.digest,
                    "size": layer.size,
                }
                for layer in layers
            ],
        }
    )
