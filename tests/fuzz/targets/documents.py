"""JSON from strangers: manifests, indexes, configs, piece maps, signed indexes of peers; and a medium's label, in YAML.

Input: which media type it came with (one byte), and the document. ``[n]`` markers of nesting are made by the engine
poorly, so a second byte says how deep the document is put into lists in the place of ``"@"``.
"""

from __future__ import annotations

import json
from typing import Any

from appliance.archives.label import Label, parse_label
from appliance.archives.limits import Limits
from appliance.archives.oci_layout import check_layout_version, read_config
from appliance.oci import mediatypes
from appliance.oci.digests import is_digest
from appliance.oci.manifests import Descriptor, Manifest, parse_manifest
from appliance.oci.pieces import PieceMap
from appliance.oci.platforms import Platform, matches, parse_platform
from appliance.oci.strictjson import dump_json, is_clean_text, load_json
from appliance.store import generations, pins, pushes
from appliance.store.index import ABSENT, CREATED, PIECES_OF, PREFIX
from appliance.trust import Signature
from tests.fuzz.checks import attempt

TYPES = (
    None,
    mediatypes.OCI_INDEX,
    mediatypes.OCI_MANIFEST,
    mediatypes.OCI_ARTIFACT_MANIFEST,
    mediatypes.DOCKER_LIST,
    mediatypes.DOCKER_MANIFEST,
    mediatypes.DOCKER_SCHEMA1_SIGNED,
    "text/plain",
)
WORDS = (
    '"schemaVersion":2,',
    '"mediaType":"',
    *(f'"{kind}"' for kind in TYPES if kind),
    *(f'"{key}":' for key in ("config", "layers", "manifests", "blobs", "subject", "annotations", "artifactType")),
    *(f'"{key}":' for key in ("digest", "size", "platform", "os", "architecture", "variant", "os.version", "urls")),
    '"rootfs":{"diff_ids":[',
    '"sha256:' + "a" * 64 + '"',
    *(
        f'"{key}":'
        for key in (
            generations.NUMBER,
            PREFIX + pushes.Pushed.KIND,
            PREFIX + pins.Pinned.KIND,
            CREATED,
            ABSENT,
            PIECES_OF,
        )
    ),
    "1e999",
    "NaN",
    '"\\ud800"',
    "9223372036854775808",
    "@",
)
_LIMIT = 256 << 10
_DEEPEST = 5000


def run(data: bytes) -> None:
    """What is accepted says one thing, can be written again, and holds only checked digests and sizes."""
    media_type = TYPES[data[0] % len(TYPES)] if data else None
    depth = (data[1] if len(data) > 1 else 0) * _DEEPEST // 255
    text = data[2:].replace(b"@", b"[" * depth + b"]" * depth, 1)
    value = attempt(lambda: load_json(text, limit=_LIMIT))
    manifest = attempt(lambda: parse_manifest(text, media_type, limit=_LIMIT, where="a document"))
    if manifest is not None:
        _manifest(manifest, media_type, json.loads(text, object_pairs_hook=_once))
    config = attempt(lambda: read_config(text, "a config"))
    if config is not None:
        _platform(config.platform)
    attempt(lambda: check_layout_version(text, Limits(), "a layout"))
    descriptor = attempt(lambda: Descriptor.from_dict(value))
    if descriptor is not None:
        _descriptor(descriptor)
    platform = attempt(lambda: Platform.from_dict(value))
    if platform is not None:
        _platform(platform)
    pieces = attempt(lambda: PieceMap.from_bytes(text))
    if pieces is not None:
        assert pieces.to_bytes() == text
        assert sum(pieces.bounds(index)[1] for index in range(len(pieces.pieces))) == pieces.size
    _indexes(text)
    label = attempt(lambda: parse_label(text, "medium.yaml"))
    if label is not None:
        assert label == Label(**label.as_dict()) and label.time.tzinfo is not None
        assert all(is_clean_text(word) for word in label.as_dict().values())
    parsed = attempt(lambda: parse_platform(text[:200].decode("latin-1")))
    if parsed is not None:
        _platform(parsed)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    assert len(found) == len(pairs), "a key given twice means two things"
    return found


def _manifest(manifest: Manifest, media_type: str | None, document: dict[str, Any]) -> None:
    assert manifest.media_type == (media_type or document.get("mediaType") or manifest.media_type)
    assert mediatypes.is_manifest_or_index(manifest.media_type)
    assert (manifest.kind == "index") == mediatypes.is_index(manifest.media_type)
    assert not (manifest.manifests and manifest.blobs)
    listed = document.get("manifests") if manifest.kind == "index" else document.get("layers", document.get("blobs"))
    assert len(manifest.manifests or manifest.layers) == len(listed or [])
    for descriptor in (*manifest.blobs, *manifest.manifests, *([manifest.subject] if manifest.subject else [])):
        _descriptor(descriptor)
    dump_json(dict(manifest.annotations)).decode().encode("utf-8")
    assert manifest.artifact_type is None or is_clean_text(manifest.artifact_type)


def _descriptor(descriptor: Descriptor) -> None:
    assert is_digest(descriptor.digest) and 0 <= descriptor.size < 1 << 63
    assert Descriptor.from_dict(json.loads(dump_json(descriptor.to_dict()))) == descriptor
    for text in (descriptor.media_type, *descriptor.annotations, *descriptor.annotations.values()):
        text.encode("utf-8")
    if descriptor.platform is not None:
        _platform(descriptor.platform)


def _platform(platform: Platform) -> None:
    normal = platform.normalised()
    assert normal.normalised() == normal
    assert matches(platform, platform) and matches(platform, normal) and matches(normal, platform)
    assert str(platform).isascii() and " " not in str(platform)


def _indexes(text: bytes) -> None:
    generation = attempt(lambda: generations.parse(text, "a peer"))
    if generation is not None:
        assert generation.raw == text and generation.number >= 1
    pushed = attempt(lambda: pushes.parse(text, "a peer"))
    if pushed is not None:
        assert pushed.raw == text and pushed.number >= 1
        again = pushes.Pushed.after(None, pushed.names, pushed.piece_maps, pushed.created)
        read = pushes.parse(again.raw, "again")
        assert (read.names, read.piece_maps) == (again.names, again.piece_maps)
    pinned = attempt(lambda: pins.parse(text, "a store"))
    if pinned is not None:
        assert pinned.raw == text and pinned.number >= 1
        kept = pins.parse(pins.Pinned.after(None, pinned.names, {}, pinned.created).raw, "again")
        assert kept.names == pinned.names
    attempt(lambda: Signature.from_json(text))
