"""What both registries hold before the first request, and the manifests that the requests push."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.oci import mediatypes
from tests.unit.store import made

ONE = made.image(1, size=3000)
TWO = made.image(2, arch="arm64")
DOCKER = made.image(3, docker=True)
BOTH = made.index({"amd64": ONE, "arm64": TWO})
SIGNATURE = made.image(4, subject=ONE, artifact_type="application/x.sig", annotations={"by": "us"})
ELSEWHERE = made.image(5)

LAYER = ONE.layers[0]
LAYER_BYTES = ONE.blobs[LAYER]
CONFIG = str(ONE.document["config"]["digest"])
MISSING = made.sha(b"missing")
MISSING_512 = made.sha(b"missing", "sha512")
RAW = made.noise(6, 6000)
EMPTY_JSON = b"{}"

NAMES: Mapping[tuple[str, str], made.Image] = {
    **{("team/app", tag): ONE for tag in ("1", "latest", "a", "B", "c.d", "_e")},
    ("team/app", "2"): TWO,
    ("team/app", "both"): BOTH,
    ("team/app", "docker"): DOCKER,
    ("team/app", SIGNATURE.digest): SIGNATURE,
    ("team/untagged", TWO.digest): TWO,
    ("team/other", "1"): ELSEWHERE,
    ("library/nginx", "1"): DOCKER,
    ("quay.io/team/app", "1"): TWO,
    ("team/manifests/blobs/tags", "1"): TWO,
    ("deep/a.b/c_d/e__f/g--h/1", "1"): TWO,
}
"""Repository and reference, to what lies there; pushed in this order, blobs and listed manifests first."""


@dataclass(frozen=True)
class Document:
    """A manifest that a request pushes.

    :param raw: its bytes.
    :param media_type: what the request calls it; "" for no Content-Type at all.
    """

    raw: bytes
    media_type: str = mediatypes.OCI_MANIFEST

    @property
    def digest(self) -> str:
        """Its sha256 digest."""
        return made.sha(self.raw)


def manifest(*, drop: tuple[str, ...] = (), **more: Any) -> Document:
    """A manifest without layers whose config is ``{}``; ``more`` replaces or adds fields, ``drop`` takes some away."""
    document = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": descriptor(EMPTY_JSON, "application/vnd.oci.empty.v1+json"),
        "layers": [],
        **more,
    }
    return Document(made.compact({key: value for key, value in document.items() if key not in drop}))


def descriptor(raw: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    """A descriptor of some bytes."""
    return {"mediaType": media_type, "digest": made.sha(raw), "size": len(raw), **more}
