"""Each kind of content through its whole life: pushed, listed, pulled, referred to, deleted; both algorithms.

The cases are those that the distribution specification's conformance suite has for content, in our own words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from appliance.oci import mediatypes
from appliance.store.blobs import BlobStore
from tests.unit.registry.listeners import Listener
from tests.unit.store import made

ALGORITHMS = ("sha256", "sha512")
EMPTY = b"{}"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
REPOSITORY = "team/conformance"


@dataclass
class Content:
    """What is pushed: blobs, and manifests in the order in which they may be.

    :param named: the last manifest gets the tag; without it, each is pushed by its digest alone.
    """

    algorithm: str
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: list[tuple[str, bytes, str]] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    named: bool = True

    def blob(self, raw: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        digest = made.sha(raw, self.algorithm)
        self.blobs[digest] = raw
        return {"mediaType": media_type, "digest": digest, "size": len(raw), **more}

    def document(self, document: dict[str, Any]) -> dict[str, Any]:
        raw = made.compact({"schemaVersion": 2, **document})
        digest = made.sha(raw, self.algorithm)
        self.manifests.append((digest, raw, document["mediaType"]))
        if "subject" in document:
            self.subjects.append(document["subject"]["digest"])
        return {"mediaType": document["mediaType"], "digest": digest, "size": len(raw)}

    def image(self, seed: int = 1, *, layers: int = 2, **more: Any) -> dict[str, Any]:
        config = {"os": "linux", "architecture": "amd64", "seed": seed, "rootfs": {"type": "layers", "diff_ids": []}}
        return self.document(
            {
                "mediaType": mediatypes.OCI_MANIFEST,
                "config": self.blob(made.compact(config), mediatypes.OCI_CONFIG),
                "layers": [
                    self.blob(made.noise(seed * 10 + number, 2000), mediatypes.OCI_LAYER_GZIP)
                    for number in range(layers)
                ],
                **more,
            }
        )

    def artifact(self, seed: int = 1, **more: Any) -> dict[str, Any]:
        return self.document(
            {
                "mediaType": mediatypes.OCI_MANIFEST,
                "artifactType": "application/vnd.example.artifact",
                "config": self.blob(EMPTY, OCI_EMPTY),
                "layers": [self.blob(made.noise(seed, 500), "application/vnd.example.layer")],
                **more,
            }
        )

    def index(self, *children: dict[str, Any], **more: Any) -> dict[str, Any]:
        return self.document({"mediaType": mediatypes.OCI_INDEX, "manifests": list(children), **more})


def _image(content: Content) -> None:
    content.image()


def _no_layers(content: Content) -> None:
    content.image(layers=0)


def _large(content: Content) -> None:
    content.image(annotations={f"org.example.{number}": "x" * 10_000 for number in range(390)})


def _data_and_custom_fields(content: Content) -> None:
    config = content.blob(EMPTY, OCI_EMPTY, data="e30=", custom="config")
    layer = content.blob(EMPTY, OCI_EMPTY, data="e30=")
    document = {"mediaType": mediatypes.OCI_MANIFEST, "config": config, "layers": [layer], "org.example": {"deep": [1]}}
    content.document(document)


def _index(content: Content) -> None:
    platform = {"os": "linux", "architecture": "amd64"}
    content.index({**content.image(1), "platform": platform}, {**content.image(2), "platform": platform})


def _nested_index(content: Content) -> None:
    content.index(content.index(content.image(1)), content.index(content.image(2)))


def _empty_index(content: Content) -> None:
    content.index()


def _artifact(content: Content) -> None:
    content.artifact()


def _artifact_without_layers(content: Content) -> None:
    content.artifact(layers=[content.blob(EMPTY, OCI_EMPTY)])


def _artifact_index(content: Content) -> None:
    content.index(content.artifact(1), content.artifact(2), artifactType="application/vnd.example.index")


def _referrers(content: Content) -> None:
    subject = content.image(1)
    content.artifact(2, subject=subject, annotations={"org.example": "two"})
    content.artifact(3, subject=subject)
    content.named = False


def _index_with_subject(content: Content) -> None:
    content.index(content.image(2), subject=content.image(1), artifactType="application/vnd.example.index")


def _missing_subject(content: Content) -> None:
    nowhere = made.sha(b"nowhere", content.algorithm)
    content.artifact(subject={"mediaType": mediatypes.OCI_MANIFEST, "digest": nowhere, "size": 7})


def _non_distributable(content: Content) -> None:
    absent = Content(content.algorithm)
    layer = absent.blob(b"of somebody else", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")
    content.artifact(layers=[layer])


def _same_blob_twice(content: Content) -> None:
    layer = content.blob(b"twice", mediatypes.OCI_LAYER)
    content.artifact(layers=[layer, layer])


KINDS = (
    _image,
    _no_layers,
    _large,
    _data_and_custom_fields,
    _index,
    _nested_index,
    _empty_index,
    _artifact,
    _artifact_without_layers,
    _artifact_index,
    _referrers,
    _index_with_subject,
    _missing_subject,
    _non_distributable,
    _same_blob_twice,
)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.strip("_"))
def test_the_life_of(store: BlobStore, kind: Any, algorithm: str) -> None:
    node, content, base = Listener(store), Content(algorithm), f"/v2/{REPOSITORY}"
    kind(content)

    # Before: nothing of it is there, and asking for it is no error of the server.
    for digest in content.blobs:
        assert node("HEAD", f"{base}/blobs/{digest}").status_code == 404
    for digest, _, _ in content.manifests:
        assert node("GET", f"{base}/manifests/{digest}").status_code == 404
        assert node("GET", f"{base}/referrers/{digest}").status_code == 200

    # Push.
    for raw in content.blobs.values():
        node.blob(REPOSITORY, raw, algorithm)
    for digest, raw, media_type in content.manifests:
        answer = node("PUT", f"{base}/manifests/{digest}", raw, Content_Type=media_type)
        assert answer.status_code == 201, answer.data
        assert answer.headers["Docker-Content-Digest"] == digest
        subject = json.loads(raw).get("subject")
        assert answer.headers.get("OCI-Subject") == (subject["digest"] if subject else None)
    if content.named:
        digest, raw, media_type = content.manifests[-1]
        answer = node("PUT", f"{base}/manifests/{digest}?tag=one&tag=two", raw, Content_Type=media_type)
        assert (answer.status_code, answer.headers.getlist("OCI-Tag")) == (201, ["one", "two"])

    # List, head and pull.
    tags = json.loads(node("GET", f"{base}/tags/list").data)["tags"]
    assert tags == (["one", "two"] if content.named else [])
    last = content.manifests[-1]
    named = [("one", *last), ("two", *last)] if content.named else []
    for reference, digest, raw, media_type in [*named, *((item[0], *item) for item in content.manifests)]:
        got, head = (node(method, f"{base}/manifests/{reference}") for method in ("GET", "HEAD"))
        assert (got.status_code, head.status_code, got.data) == (200, 200, raw)
        for answer in (got, head):
            assert answer.headers["Content-Type"] == media_type
            assert answer.headers["Content-Length"] == str(len(raw))
            assert answer.headers["Docker-Content-Digest"] == digest
    for digest, raw in content.blobs.items():
        assert node("GET", f"{base}/blobs/{digest}").data == raw
        part = node("GET", f"{base}/blobs/{digest}", Range="bytes=1-")
        assert (part.status_code, part.data) == (206, raw[1:])

    # Refer.
    for subject in content.subjects:
        expected = {digest for digest, raw, _ in content.manifests if _subject(raw) == subject}
        found = json.loads(node("GET", f"{base}/referrers/{subject}").data)["manifests"]
        assert {entry["digest"] for entry in found} == expected
        assert node("GET", f"/v2/team/other/referrers/{subject}").status_code == 200
        assert json.loads(node("GET", f"/v2/team/other/referrers/{subject}").data)["manifests"] == []

    # Delete, at once and for good.
    for tag in tags:
        assert node("DELETE", f"{base}/manifests/{tag}").status_code == 202
        assert node("GET", f"{base}/manifests/{tag}").status_code == 404
    for digest, _, _ in content.manifests:
        assert node("DELETE", f"{base}/manifests/{digest}").status_code == 202
        assert node("HEAD", f"{base}/manifests/{digest}").status_code == 404
    for subject in content.subjects:
        assert json.loads(node("GET", f"{base}/referrers/{subject}").data)["manifests"] == []
    for digest in content.blobs:
        assert node("DELETE", f"{base}/blobs/{digest}").status_code == 202
        assert node("GET", f"{base}/blobs/{digest}").status_code == 404
    assert node("GET", f"{base}/tags/list").status_code == 404


def _subject(raw: bytes) -> str | None:
    subject = json.loads(raw).get("subject")
    return str(subject["digest"]) if subject else None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_manifest_under_a_digest_of_other_bytes(store: BlobStore, algorithm: str) -> None:
    node, content = Listener(store), Content(algorithm)
    content.artifact()
    for raw in content.blobs.values():
        node.blob(REPOSITORY, raw, algorithm)
    _, raw, media_type = content.manifests[0]
    for digest in (made.sha(raw + b" ", algorithm), f"{algorithm}:short", f"{algorithm}:"):
        answer = node("PUT", f"/v2/{REPOSITORY}/manifests/{digest}", raw, Content_Type=media_type)
        assert answer.status_code == 400
    assert node("GET", f"/v2/{REPOSITORY}/tags/list").status_code == 404
