"""Images to measure with: an OCI layout that ``appliance seed`` reads, and the same blobs as docker-registry keeps them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.oci import mediatypes
from appliance.oci.manifests import REF_NAME

_MIB = 1 << 20


@dataclass(frozen=True)
class Named:
    """One name and what it needs.

    :param repository: without a registry; docker.io is meant.
    :param descriptor: of its manifest.
    :param blobs: digests of its config and layers.
    """

    repository: str
    tag: str
    descriptor: dict[str, Any]
    blobs: tuple[str, ...]


class Layout:
    """An OCI layout directory that grows by images."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: list[Named] = []
        (root / "blobs" / "sha256").mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        """Store a small blob; returns its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        (self.root / "blobs" / "sha256" / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def layer(self, size: int) -> dict[str, Any]:
        """A layer of ``size`` bytes (a multiple of 1 MiB) that do not compress; returns its descriptor."""
        noise, digester, file = bytearray(secrets.token_bytes(_MIB)), hashlib.sha256(), self.root / "layer"
        with file.open("wb") as out:
            for number in range(size // _MIB):
                noise[:8] = number.to_bytes(8, "big")
                digester.update(noise)
                out.write(noise)
        file.rename(self.root / "blobs" / "sha256" / digester.hexdigest())
        return {"mediaType": mediatypes.OCI_LAYER, "digest": f"sha256:{digester.hexdigest()}", "size": size}

    def config(self, layer: dict[str, Any]) -> dict[str, Any]:
        """The config of an image with one layer."""
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
        return self.blob(json.dumps(document).encode(), mediatypes.OCI_CONFIG)

    def image(self, repository: str, tag: str, config: dict[str, Any], layer: dict[str, Any]) -> None:
        """An image of its own: its manifest has its name in an annotation."""
        document = {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "config": config,
            "layers": [layer],
            "annotations": {"name": f"{repository}:{tag}"},
        }
        descriptor = self.blob(json.dumps(document).encode(), mediatypes.OCI_MANIFEST)
        self.images.append(Named(repository, tag, descriptor, (config["digest"], layer["digest"])))

    def finish(self) -> None:
        """Write the names."""
        manifests = [
            {**image.descriptor, "annotations": {REF_NAME: f"docker.io/{image.repository}:{image.tag}"}}
            for image in self.images
        ]
        index = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": manifests}
        (self.root / "index.json").write_text(json.dumps(index))


def docker_registry_tree(images: Iterable[Named], blobs: Path, root: Path) -> None:
    """The directory in which docker-registry keeps such images; its blobs are hard links to the same files.

    :param blobs: directory ``blobs`` of a layout that has them.
    :param root: what its configuration calls ``rootdirectory``.
    """
    base = root / "docker" / "registry" / "v2"

    def link(path: Path, digest: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(digest)

    def hold(digest: str) -> str:
        algorithm, _, encoded = digest.partition(":")
        data = base / "blobs" / algorithm / encoded[:2] / encoded / "data"
        if not data.exists():
            data.parent.mkdir(parents=True)
            os.link(blobs / algorithm / encoded, data)
        return f"{algorithm}/{encoded}/link"

    for image in images:
        repository, digest = base / "repositories" / image.repository, image.descriptor["digest"]
        for blob in image.blobs:
            if not (path := repository / "_layers" / hold(blob)).exists():
                link(path, blob)
        entry = hold(digest)
        link(repository / "_manifests" / "revisions" / entry, digest)
        link(repository / "_manifests" / "tags" / image.tag / "current" / "link", digest)
        link(repository / "_manifests" / "tags" / image.tag / "index" / entry, digest)
