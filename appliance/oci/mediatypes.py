"""Media types of images, as the OCI image specification and Docker's registry API name them."""

from __future__ import annotations

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_ARTIFACT_MANIFEST = "application/vnd.oci.artifact.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"

DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

PIECE_MAP = "application/vnd.k3s-airgap-appliance.piece-map.v1+json"
OCTETS = "application/octet-stream"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST, OCI_ARTIFACT_MANIFEST})
SCHEMA1_TYPES = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})

PLAIN_LAYER_TYPES = frozenset(
    {
        OCI_LAYER,
        DOCKER_LAYER,
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    }
)
"""Layers whose digest is their diff_id."""

LAYER_TYPES = PLAIN_LAYER_TYPES | frozenset(
    {
        OCI_LAYER_GZIP,
        OCI_LAYER_ZSTD,
        DOCKER_LAYER_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    }
)
"""Layers that unpack into a root file system."""


def is_index(media_type: str) -> bool:
    """Return whether a document of this type lists manifests."""
    return media_type in INDEX_TYPES


def is_distributable(media_type: str) -> bool:
    """Return whether a blob of this type is pushed with what lists it; base layers of Windows, for instance, are not."""
    return ".nondistributable." not in media_type and ".foreign." not in media_type


def is_manifest(media_type: str) -> bool:
    """Return whether a document of this type is one image (or artifact): config and layers."""
    return media_type in MANIFEST_TYPES


def is_manifest_or_index(media_type: str) -> bool:
    """Return whether a registry serves a document of this type under ``/manifests/``."""
    return media_type in MANIFEST_TYPES or media_type in INDEX_TYPES
