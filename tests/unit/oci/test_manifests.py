"""Manifests from strangers: one meaning, bounded, typed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.oci import mediatypes
from appliance.oci.manifests import MANIFEST_LIMIT, Descriptor, parse_manifest
from appliance.oci.platforms import Platform

D1, D2 = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def descriptor(media_type: str = mediatypes.OCI_CONFIG, digest: str = D1, size: Any = 2, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size, **more}


def image(**more: Any) -> dict[str, Any]:
    layer = descriptor(mediatypes.OCI_LAYER, D2, 9)
    return {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": descriptor(),
        "layers": [layer],
        **more,
    }


def index(**more: Any) -> dict[str, Any]:
    entry = descriptor(
        mediatypes.OCI_MANIFEST, D1, 5, platform={"os": "linux", "architecture": "arm64", "variant": "v8"}
    )
    return {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": [entry], **more}


def test_image() -> None:
    manifest = parse_manifest(json.dumps(image()).encode(), mediatypes.OCI_MANIFEST)
    assert manifest.kind == "image"
    assert manifest.config == Descriptor(mediatypes.OCI_CONFIG, D1, 2)
    assert [blob.digest for blob in manifest.blobs] == [D1, D2]
    assert manifest.referrer_type == mediatypes.OCI_CONFIG


def test_index() -> None:
    manifest = parse_manifest(json.dumps(index(subject=descriptor(mediatypes.OCI_MANIFEST, D2))).encode())
    assert manifest.kind == "index"
    assert manifest.manifests[0].platform == Platform("linux", "arm64", "v8")
    assert manifest.subject is not None
    assert manifest.subject.digest == D2
    assert D2 not in [child.digest for child in manifest.manifests]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"schemaVersion": 2, "manifests": []}, mediatypes.OCI_INDEX),
        ({"schemaVersion": 2, "manifests": None}, mediatypes.OCI_INDEX),
        ({"schemaVersion": 2, "config": descriptor(), "layers": []}, mediatypes.OCI_MANIFEST),
        ({"schemaVersion": 2, "config": descriptor(), "layers": None}, mediatypes.OCI_MANIFEST),
    ],
)
def test_media_type_is_inferred(document: dict[str, Any], expected: str) -> None:
    assert parse_manifest(json.dumps(document).encode()).media_type == expected


@pytest.mark.parametrize(
    ("document", "media_type", "code"),
    [
        (image(manifests=[]), None, "APL-0207"),
        (index(layers=[]), None, "APL-0207"),
        (index(config=descriptor()), None, "APL-0207"),
        (image(fsLayers=[{}]), None, "APL-0207"),
        (image(), mediatypes.OCI_INDEX, "APL-0207"),
        (index(), mediatypes.OCI_MANIFEST, "APL-0207"),
        (image(mediaType=mediatypes.DOCKER_MANIFEST), mediatypes.OCI_MANIFEST, "APL-0207"),
        (image(Layers=[]), None, "APL-0207"),
        (image(MediaType=mediatypes.OCI_INDEX), None, "APL-0207"),
        (image(layers={}), None, "APL-0203"),
        (image(layers="x"), None, "APL-0203"),
        (image(config=None), None, "APL-0203"),
        (image(config=[]), None, "APL-0203"),
        (image(schemaVersion=1), None, "APL-0203"),
        (image(schemaVersion=True), None, "APL-0203"),
        (image(schemaVersion="2"), None, "APL-0203"),
        (image(mediaType=7), None, "APL-0203"),
        (image(mediaType="text/plain"), None, "APL-0203"),
        ({"schemaVersion": 2}, None, "APL-0203"),
        ({"schemaVersion": 1, "fsLayers": []}, mediatypes.DOCKER_SCHEMA1_SIGNED, "APL-0203"),
        (image(layers=[[]]), None, "APL-0208"),
        (image(layers=[descriptor(size=-1)]), None, "APL-0208"),
        (image(layers=[descriptor(size=True)]), None, "APL-0208"),
        (image(layers=[descriptor(size=1.5)]), None, "APL-0208"),
        (image(layers=[descriptor(size="9")]), None, "APL-0208"),
        (image(layers=[descriptor(size=2**63)]), None, "APL-0208"),
        (image(layers=[descriptor(media_type="")]), None, "APL-0208"),
        (image(layers=[descriptor(media_type="x\ud800")]), None, "APL-0208"),
        (image(layers=[descriptor(annotations={"a": 1})]), None, "APL-0208"),
        (image(layers=[descriptor(annotations=[])]), None, "APL-0208"),
        (image(layers=[descriptor(digest="sha256:../../etc/passwd")]), None, "APL-0201"),
        (index(manifests=[descriptor(platform="linux")]), None, "APL-0205"),
        (index(manifests=[descriptor(platform={"os": ["linux"]})]), None, "APL-0205"),
        (image(annotations={"a": None}), None, "APL-0208"),
        (image(subject=[]), None, "APL-0208"),
        (image(artifactType={}), None, "APL-0203"),
    ],
)
def test_refused(document: dict[str, Any], media_type: str | None, code: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        parse_manifest(json.dumps(document).encode(), media_type, where="there")
    assert caught.value.code == code
    assert "there" in caught.value.where


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "APL-0203"),
        (b"[]", "APL-0203"),
        (b"null", "APL-0203"),
        (b"{", "APL-0203"),
        (b"\xff\xfe{}", "APL-0203"),
        (json.dumps(index()).encode("utf-16"), "APL-0203"),
        (b'{"manifests": [], "manifests": []}', "APL-0203"),
        (b'{"size": NaN, "manifests": []}', "APL-0203"),
        (b'{"manifests": [], "x": ' + b"9" * 5000 + b"}", "APL-0203"),
        (b"[" * 200_000, "APL-0204"),
        (b'{"a":' * 200_000, "APL-0204"),
        (b" " * (MANIFEST_LIMIT + 1), "APL-0204"),
    ],
)
def test_hostile_bytes(data: bytes, code: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        parse_manifest(data)
    assert caught.value.code == code


def test_limit_can_be_raised_for_generations() -> None:
    entries = [descriptor(mediatypes.OCI_MANIFEST, f"sha256:{number:064x}") for number in range(40_000)]
    data = json.dumps(index(manifests=entries)).encode()
    assert len(data) > MANIFEST_LIMIT
    with pytest.raises(ApplianceError, match="APL-0204"):
        parse_manifest(data)
    assert len(parse_manifest(data, limit=64 << 20).manifests) == 40_000


def test_descriptor_round_trip() -> None:
    value = Descriptor(mediatypes.OCI_MANIFEST, D1, 7, {"a": "b"}, Platform("windows", "amd64", "", "10.0.1"), "x/y")
    assert Descriptor.from_dict(json.loads(json.dumps(value.to_dict()))) == value
    assert Descriptor.from_dict({**value.to_dict(), "urls": ["http://example.invalid"], "data": "e30="}) == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(D1),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*image(), "manifests", "digest", "size", "platform", "os"]), inner, max_size=4
        )
    ),
    max_leaves=15,
)


@settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from([*image(), "manifests", "subject", "annotations"]), json_values, max_size=5),
    st.sampled_from([None, mediatypes.OCI_INDEX, mediatypes.DOCKER_MANIFEST]),
)
def test_any_json_gives_a_manifest_or_a_clear_error(document: dict[str, Any], media_type: str | None) -> None:
    for base in ({}, image(), index()):
        try:
            manifest = parse_manifest(json.dumps({**base, **document}).encode(), media_type)
        except ApplianceError as error:
            assert error.code.startswith("APL-02")
        else:
            assert (manifest.kind == "index") == mediatypes.is_index(manifest.media_type)
            assert not (manifest.layers and manifest.manifests)
