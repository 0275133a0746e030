"""Descriptors, manifests and indexes, parsed from untrusted bytes.

Rules are those of the OCI image specification 1.1; what could mean two things to two readers is refused
(GHSA-mc8v-mgrf-8f4m, CVE-2021-41190).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from appliance.errors import fail
from appliance.oci import mediatypes
from appliance.oci.digests import check_digest
from appliance.oci.platforms import Platform
from appliance.oci.strictjson import is_clean_text, load_json

MANIFEST_LIMIT = 4 * 1024 * 1024
"""Largest manifest or image index in bytes, as containerd, distribution and zot have it."""

IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
SUBJECT = "io.containerd.manifest.subject"
"""On an entry of an index: the digest that a manifest refers to, as containerd's exporter writes it."""

_MAX_SIZE = 2**63 - 1
_FIELDS = frozenset(
    {
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "layers",
        "manifests",
        "blobs",
        "subject",
        "annotations",
        "fsLayers",
    }
)
_FOLDED = {name.lower(): name for name in _FIELDS}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Points at a blob: what it is, its digest and its size.

    :param media_type: media type of the blob.
    :param digest: digest of the blob.
    :param size: size in bytes.
    :param annotations: free strings; names of images live here.
    :param platform: what it runs on, for entries of an index.
    :param artifact_type: type of an artifact, for entries of a referrers list.

    ``urls`` and ``data`` are not kept: nothing is ever fetched from, or taken out of, a descriptor.
    """

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON object, keys in the specification's order."""
        result: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            result["annotations"] = dict(self.annotations)
        if self.platform is not None:
            result["platform"] = self.platform.to_dict()
        if self.artifact_type is not None:
            result["artifactType"] = self.artifact_type
        return result

    @classmethod
    def from_dict(cls, value: Any, where: str = "") -> Descriptor:
        """Read and check a descriptor.

        :raises ApplianceError: APL-0208 for a wrong type or value, APL-0201 for a bad digest.
        """
        if not isinstance(value, dict):
            fail("APL-0208", "descriptor is not an object", where=where)
        media_type = value.get("mediaType")
        if not is_clean_text(media_type) or not media_type or len(media_type) > 255:
            fail("APL-0208", "descriptor without a proper mediaType", where=where)
        size = value.get("size")
        if type(size) is not int or not 0 <= size <= _MAX_SIZE:
            fail("APL-0208", f"descriptor with a bad size: {str(size)[:50]}", where=where)
        artifact_type = value.get("artifactType")
        if artifact_type is not None and not is_clean_text(artifact_type):
            fail("APL-0208", "descriptor with a bad artifactType", where=where)
        platform = value.get("platform")
        return cls(
            media_type=media_type,
            digest=check_digest(value.get("digest"), where),
            size=size,
            annotations=read_annotations(value.get("annotations"), where),
            platform=None if platform is None else Platform.from_dict(platform, where),
            artifact_type=artifact_type,
        )


@dataclass(frozen=True)
class Manifest:
    """A parsed manifest or index.

    :param kind: ``image`` (config and layers, artifacts included) or ``index``.
    :param media_type: its media type, inferred where the document is silent.
    :param config: descriptor of the config; None for an index.
    :param layers: layers of an image, bottom first.
    :param manifests: entries of an index.
    :param subject: what it refers to, for signatures and attestations.
    :param artifact_type: as the document says.
    :param annotations: as the document says.
    """

    kind: Literal["image", "index"]
    media_type: str
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers, in that order; what ``/blobs/`` serves for it."""
        return self.layers if self.config is None else (self.config, *self.layers)

    @property
    def referrer_type(self) -> str | None:
        """The ``artifactType`` of its entry in a referrers list, by the distribution specification's rule."""
        if self.artifact_type:
            return self.artifact_type
        return None if self.config is None else self.config.media_type


def read_annotations(value: Any, where: str = "") -> dict[str, str]:
    """Check an ``annotations`` object; ``null`` is empty.

    :raises ApplianceError: APL-0208.
    """
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(is_clean_text(k) and is_clean_text(v) for k, v in value.items()):
        fail("APL-0208", "annotations are not an object of strings", where=where)
    return value


def parse_manifest(
    data: bytes | bytearray | memoryview,
    media_type: str | None = None,
    *,
    limit: int = MANIFEST_LIMIT,
    where: str = "",
) -> Manifest:
    """Parse a manifest or an index.

    :param data: the document.
    :param media_type: what the descriptor or the request called it; None where nothing did.
    :param limit: largest accepted size in bytes; generations have a limit of their own.
    :param where: digest or file for messages.
    :raises ApplianceError: APL-0203 (no manifest), APL-0204 (too large or deep), APL-0207 (means two things),
        APL-0208 (bad descriptor), APL-0201 (bad digest).
    """
    document = load_json(data, limit=limit, where=where)
    if not isinstance(document, dict):
        fail("APL-0203", "manifest is not a JSON object", where=where)
    for key in document:
        if key not in _FIELDS and key.lower() in _FOLDED:
            # Go's decoder ignores the case of keys, others do not.
            fail(
                "APL-0207",
                "manifest is ambiguous",
                where=where,
                why=f"key {key!r} for {_FOLDED[key.lower()]!r}",
            )
    said = document.get("mediaType")
    if said is not None and (not is_clean_text(said) or not said):
        fail("APL-0203", "manifest with a bad mediaType", where=where)
    if said and media_type and said != media_type:
        fail(
            "APL-0207",
            "manifest is ambiguous",
            where=where,
            why=f"it says {said!r}, it came as {media_type!r}",
        )
    version = document.get("schemaVersion", 2)
    actual = media_type or said or _infer(document, where)
    if version == 1 or actual in mediatypes.SCHEMA1_TYPES:
        fail(
            "APL-0203",
            "Docker schema 1 manifest",
            where=where,
            why="containerd does not run these any more",
            fix="Save the image again with a current tool",
        )
    if type(version) is not int or version != 2:
        fail("APL-0203", "manifest with an unknown schemaVersion", where=where)
    if mediatypes.is_index(actual):
        return _index(document, actual, where)
    if not mediatypes.is_manifest(actual):
        fail("APL-0203", f"neither a manifest nor an index: {actual[:100]!r}", where=where)
    return _image(document, actual, where)


def _infer(document: dict[str, Any], where: str) -> str:
    # The image specification makes mediaType optional; only OCI documents may leave it out.
    if document.get("manifests") is not None:
        return mediatypes.OCI_INDEX
    if document.get("config") is not None or document.get("layers") is not None:
        return mediatypes.OCI_MANIFEST
    if "manifests" not in document:
        fail(
            "APL-0203",
            "neither a manifest nor an index",
            where=where,
            why="no mediaType, no config, no manifests",
        )
    return mediatypes.OCI_INDEX


def _forbid(document: dict[str, Any], names: tuple[str, ...], actual: str, where: str) -> None:
    for name in names:
        if document.get(name) is not None:
            fail(
                "APL-0207",
                "manifest is ambiguous",
                where=where,
                why=f"{name!r} in a document of type {actual}",
            )


def _index(document: dict[str, Any], actual: str, where: str) -> Manifest:
    _forbid(document, ("config", "layers", "blobs", "fsLayers"), actual, where)
    if "manifests" not in document:
        fail("APL-0203", "index without manifests", where=where)
    return Manifest(
        kind="index",
        media_type=actual,
        manifests=_descriptors(document.get("manifests"), "manifests", where),
        subject=_subject(document, where),
        artifact_type=_artifact_type(document, where),
        annotations=read_annotations(document.get("annotations"), where),
    )


def _image(document: dict[str, Any], actual: str, where: str) -> Manifest:
    artifact = actual == mediatypes.OCI_ARTIFACT_MANIFEST
    _forbid(
        document,
        ("manifests", "fsLayers", *(("config", "layers") if artifact else ("blobs",))),
        actual,
        where,
    )
    config = None
    if not artifact:
        if not isinstance(document.get("config"), dict):
            fail("APL-0203", "manifest without a config", where=where)
        config = Descriptor.from_dict(document["config"], where)
    field_name = "blobs" if artifact else "layers"
    return Manifest(
        kind="image",
        media_type=actual,
        config=config,
        layers=_descriptors(document.get(field_name), field_name, where),
        subject=_subject(document, where),
        artifact_type=_artifact_type(document, where),
        annotations=read_annotations(document.get("annotations"), where),
    )


def _descriptors(value: Any, name: str, where: str) -> tuple[Descriptor, ...]:
    if value is None:  # Go writes an empty list this way
        return ()
    if not isinstance(value, list):
        fail("APL-0203", f"{name} is not a list", where=where)
    return tuple(Descriptor.from_dict(item, where) for item in value)


def _subject(document: dict[str, Any], where: str) -> Descriptor | None:
    value = document.get("subject")
    return None if value is None else Descriptor.from_dict(value, where)


def _artifact_type(document: dict[str, Any], where: str) -> str | None:
    value = document.get("artifactType")
    if value is not None and not is_clean_text(value):
        fail("APL-0203", "manifest with a bad artifactType", where=where)
    return value or None
