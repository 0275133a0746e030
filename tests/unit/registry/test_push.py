"""The write side: what the distribution specification asks for, and what this site promises beyond it."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from appliance.oci import mediatypes
from appliance.oci.manifests import MANIFEST_LIMIT
from appliance.registry import push
from appliance.store import auditlog
from appliance.store import index as signed
from appliance.store.blobs import BlobStore
from appliance.store.pushes import Pushes
from appliance.store.reachability import needed_by_pushes
from appliance.store.uploads import Uploads
from tests.unit.registry.listeners import Listener, authorization, code
from tests.unit.store import made

ONE = made.image(1)
TWO = made.image(2, arch="arm64")
BOTH = made.index({"amd64": ONE, "arm64": TWO})
RAW = made.noise(3, 6000)
REPOSITORY = "docker.io/team/app"


def text(answer: TestResponse) -> str:
    (item,) = json.loads(answer.data)["errors"]
    return str(item["message"])


def manifest_of(blobs: dict[str, bytes], **more: Any) -> dict[str, Any]:
    config, *layers = [
        {"mediaType": kind, "digest": digest, "size": len(raw)}
        for (digest, raw), kind in zip(
            blobs.items(), [mediatypes.OCI_CONFIG, *[mediatypes.OCI_LAYER] * (len(blobs) - 1)], strict=True
        )
    ]
    return {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": config,
        "layers": layers,
        **more,
    }


# ------------------------------------------------------------------------------------------------ uploads


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
class TestUploads:
    """The ways a blob comes in, each with both algorithms."""

    def served(self, node: Listener, raw: bytes, algorithm: str) -> None:
        digest = made.sha(raw, algorithm)
        for repository, status in (("team/app", 200), ("team/other", 404)):
            answer = node("GET", f"/v2/{repository}/blobs/{digest}")
            assert answer.status_code == status
            if status == 200:
                assert answer.data == raw
                assert answer.headers["Docker-Content-Digest"] == digest
            head = node("HEAD", f"/v2/{repository}/blobs/{digest}")
            assert (head.status_code, head.data) == (status, b"")

    def test_one_post(self, node: Listener, algorithm: str) -> None:
        digest = made.sha(RAW, algorithm)
        answer = node("POST", f"/v2/team/app/blobs/uploads/?digest={digest}", RAW)
        assert answer.status_code == 201
        assert answer.headers["Location"] == f"/v2/team/app/blobs/{digest}"
        assert answer.headers["Docker-Content-Digest"] == digest
        self.served(node, RAW, algorithm)

    def test_post_then_put(self, node: Listener, algorithm: str) -> None:
        where = node.upload("team/app")
        assert node("PUT", f"{where}?digest={made.sha(RAW, algorithm)}", RAW).status_code == 201
        assert node("GET", where).status_code == 404
        self.served(node, RAW, algorithm)

    def test_chunks_in_order(self, node: Listener, algorithm: str) -> None:
        where, cut = node.upload("team/app"), 2500
        assert node("GET", where).headers["Range"] == "0-0"
        first = node("PATCH", where, RAW[:cut], Content_Range=f"0-{cut - 1}")
        assert (first.status_code, first.headers["Range"]) == (202, f"0-{cut - 1}")
        for method in ("GET", "HEAD"):
            status = node(method, first.headers["Location"])
            assert (status.status_code, status.headers["Range"]) == (204, f"0-{cut - 1}")
        second = node("PATCH", first.headers["Location"], RAW[cut:], Content_Range=f"{cut}-{len(RAW) - 1}")
        assert (second.status_code, second.headers["Range"]) == (202, f"0-{len(RAW) - 1}")
        done = node("PUT", f"{second.headers['Location']}?digest={made.sha(RAW, algorithm)}")
        assert done.status_code == 201
        self.served(node, RAW, algorithm)

    def test_the_last_chunk_may_come_with_the_put(self, node: Listener, algorithm: str) -> None:
        where, cut = node.upload("team/app"), 4000
        node("PATCH", where, RAW[:cut], Content_Range=f"0-{cut - 1}")
        digest = made.sha(RAW, algorithm)
        done = node("PUT", f"{where}?digest={digest}", RAW[cut:], Content_Range=f"{cut}-{len(RAW) - 1}")
        assert done.status_code == 201
        self.served(node, RAW, algorithm)

    @pytest.mark.parametrize("method", ["PATCH", "PUT"])
    def test_a_chunk_out_of_order_changes_nothing(self, node: Listener, algorithm: str, method: str) -> None:
        where, digest = node.upload("team/app"), made.sha(RAW, algorithm)
        target = where if method == "PATCH" else f"{where}?digest={digest}"
        for held in (0, 100):
            if held:
                assert node("PATCH", where, RAW[:100], Content_Range="0-99").status_code == 202
            for first in {0, 50, 101, 5000} - {held}:
                wrong = node(method, target, RAW[first : first + 10], Content_Range=f"{first}-{first + 9}")
                assert wrong.status_code == 416
                assert wrong.headers["Range"] == f"0-{max(0, held - 1)}"
                assert wrong.headers["Location"] == where
                assert node("GET", where).headers["Range"] == f"0-{max(0, held - 1)}"
        rest = node("PUT", f"{where}?digest={digest}", RAW[100:], Content_Range=f"100-{len(RAW) - 1}")
        assert rest.status_code == 201
        self.served(node, RAW, algorithm)

    def test_a_stream_without_a_range(self, node: Listener, algorithm: str) -> None:
        where = node.upload("team/app")
        for start in range(0, len(RAW), 1000):
            assert node("PATCH", where, RAW[start : start + 1000]).status_code == 202
        assert node("PUT", f"{where}?digest={made.sha(RAW, algorithm)}").status_code == 201
        self.served(node, RAW, algorithm)

    @pytest.mark.parametrize("last", ["first", "other"])
    def test_another_worker_goes_on(self, node: Listener, store: BlobStore, algorithm: str, last: str) -> None:
        where = node.upload("team/app")
        node("PATCH", where, RAW[:1000])
        other = Listener(store)
        assert other("GET", where).headers["Range"] == "0-999"
        other("PATCH", where, RAW[1000:2000])
        node("PATCH", where, RAW[2000:])
        finishing = {"first": node, "other": other}[last]
        assert finishing("PUT", f"{where}?digest={made.sha(RAW, algorithm)}").status_code == 201
        self.served(node, RAW, algorithm)

    def test_cancelling(self, node: Listener, algorithm: str) -> None:
        where = node.upload("team/app")
        node("PATCH", where, RAW)
        assert node("DELETE", where).status_code == 204
        assert [node(method, where).status_code for method in ("GET", "PATCH", "DELETE")] == [404] * 3
        assert node("PUT", f"{where}?digest={made.sha(RAW, algorithm)}").status_code == 404

    def test_an_empty_blob(self, node: Listener, algorithm: str) -> None:
        where, digest = node.upload("team/app"), made.sha(b"", algorithm)
        assert node("PUT", f"{where}?digest={digest}").status_code == 201
        self.served(node, b"", algorithm)

    def test_wrong_digests_are_refused(self, node: Listener, algorithm: str) -> None:
        other = made.sha(b"other", algorithm)
        bad = [other, f"{algorithm}:0", f"{algorithm}:{'g' * 64}", "md5:d41d8cd98f00b204e9800998ecf8427e", "x", ""]
        for digest in bad:
            assert node("PUT", f"{node.upload('team/app')}?digest={digest}", RAW).status_code == 400
            answer = node("POST", f"/v2/team/app/blobs/uploads/?digest={digest}", RAW)
            assert (answer.status_code, code(answer)) == (400, "DIGEST_INVALID")
        assert node("PUT", node.upload("team/app"), RAW).status_code == 400
        assert node("GET", f"/v2/team/app/blobs/{other}").status_code == 404
        assert node("GET", f"/v2/team/app/blobs/{made.sha(RAW, algorithm)}").status_code == 404

    def test_mounting(self, node: Listener, algorithm: str) -> None:
        digest = node.blob("team/app", RAW, algorithm)
        base = "/v2/team/other/blobs/uploads/"
        mounted = node("POST", f"{base}?mount={digest}&from=team/app")
        assert (mounted.status_code, mounted.headers["Location"]) == (201, f"/v2/team/other/blobs/{digest}")
        assert node("GET", f"/v2/team/other/blobs/{digest}").data == RAW
        missing = node("POST", f"{base}?mount={made.sha(b'no', algorithm)}&from=team/app")
        assert missing.status_code == 202
        done = node("PUT", f"{missing.headers['Location']}?digest={made.sha(b'no', algorithm)}", b"no")
        assert done.status_code == 201
        nowhere = ("&from=team/none", "&from=team/App", "&from=", "")
        for query in (f"mount={digest}{source}" for source in nowhere):
            answer = node("POST", f"/v2/team/third/blobs/uploads/?{query}")
            assert answer.status_code == 202
            assert node("GET", f"/v2/team/third/blobs/{digest}").status_code == 404

    def test_deleting_a_blob_is_for_one_repository(self, node: Listener, algorithm: str) -> None:
        digest = node.blob("team/app", RAW, algorithm)
        node("POST", f"/v2/team/other/blobs/uploads/?mount={digest}&from=team/app")
        assert node("DELETE", f"/v2/team/app/blobs/{digest}").status_code == 202
        assert node("GET", f"/v2/team/app/blobs/{digest}").status_code == 404
        assert node("HEAD", f"/v2/team/other/blobs/{digest}").status_code == 200
        assert node("DELETE", f"/v2/team/app/blobs/{digest}").status_code == 404


@pytest.mark.parametrize(
    "header", ["bytes 0-9/10", "0-", "-9", "9-0", "a-b", "0-9/10", "0 - 9", "٠-٩", "0-" + "9" * 30]
)
def test_a_content_range_that_is_none(node: Listener, header: str) -> None:
    where = node.upload("team/app")
    assert node("PATCH", where, b"0123456789", Content_Range=header).status_code == 416
    assert node("GET", where).headers["Range"] == "0-0"


def test_a_range_that_the_length_denies(node: Listener) -> None:
    where = node.upload("team/app")
    answer = node("PATCH", where, b"0123456789", Content_Range="0-10")
    assert (answer.status_code, code(answer)) == (400, "SIZE_INVALID")
    assert node("GET", where).headers["Range"] == "0-0"


def test_an_upload_is_its_repositorys(node: Listener) -> None:
    where = node.upload("team/app").replace("team/app", "team/other")
    for method in ("GET", "PATCH", "DELETE"):
        assert node(method, where).status_code == 404
    assert code(node("PUT", f"{where}?digest={made.sha(RAW)}", RAW)) == "BLOB_UPLOAD_UNKNOWN"


def test_a_second_writer_of_one_upload_is_told_so(node: Listener, store: BlobStore) -> None:
    where = node.upload("team/app")
    held = Listener(store).uploads.open(REPOSITORY, where.rpartition("/")[2])
    assert held is not None
    assert node("PATCH", where, b"x").status_code == 416
    held.close()
    assert node("PATCH", where, b"x").status_code == 202


def test_a_body_that_breaks_off_keeps_what_came(node: Listener) -> None:
    where = node.upload("team/app")
    answer = node.client.patch(
        where,
        data=RAW[:100],
        headers={"Content-Length": "500", **authorization()},
        environ_overrides={"CONTENT_LENGTH": "500"},
    )
    assert answer.status_code == 400
    assert node("GET", where).headers["Range"] == "0-99"
    assert node("PUT", f"{where}?digest={made.sha(RAW)}", RAW[100:]).status_code == 201


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6), st.booleans()), max_size=8))
def test_any_sequence_of_chunks_ends_in_what_the_status_says(
    node: Listener, steps: list[tuple[int, int, bool]]
) -> None:
    """Chunks at any offset, ranged or not: what was accepted is what is there, and the rest changed nothing."""
    where, held = node.upload("team/app"), b""
    for number, (offset, length, ranged) in enumerate(steps):
        chunk = bytes([number + 1]) * length
        is_ranged = ranged and length > 0
        content_range = f"{offset}-{offset + length - 1}"
        answer = node("PATCH", where, chunk, Content_Range=content_range) if is_ranged else node("PATCH", where, chunk)
        if is_ranged and offset != len(held):
            assert answer.status_code == 416
        else:
            assert answer.status_code == 202
            held += chunk
        assert node("GET", where).headers["Range"] == f"0-{max(0, len(held) - 1)}"
    assert node("PUT", f"{where}?digest={made.sha(held)}").status_code == 201
    assert node("GET", f"/v2/team/app/blobs/{made.sha(held)}").data == held


def test_a_full_disk_is_507_and_leaves_no_upload(node: Listener, store: BlobStore, monkeypatch: Any) -> None:
    where = node.upload("team/app")
    monkeypatch.setattr(BlobStore, "room", lambda self: 100)
    answer = node("PATCH", where, RAW)
    assert (answer.status_code, code(answer)) == (507, "DENIED")
    assert "APL-0310" in text(answer)
    assert list((store.root / "uploads").iterdir()) == []


# ---------------------------------------------------------------------------------------------- manifests


def test_a_push_is_served_by_tag_and_digest_byte_for_byte(node: Listener) -> None:
    node.image("team/app", "1", BOTH)
    for reference in ("1", BOTH.digest, ONE.digest, TWO.digest):
        answer = node("GET", f"/v2/team/app/manifests/{reference}")
        expected = BOTH if reference == "1" else next(item for item in (BOTH, ONE, TWO) if item.digest == reference)
        assert (answer.status_code, answer.data) == (200, expected.raw)
        assert answer.headers["Content-Type"] == expected.descriptor["mediaType"]
        head = node("HEAD", f"/v2/team/app/manifests/{reference}")
        assert head.headers["Content-Length"] == str(len(expected.raw))
    for digest, raw in BOTH.blobs.items():
        assert node("GET", f"/v2/team/app/blobs/{digest}").data == raw
    assert json.loads(node("GET", "/v2/team/app/tags/list").data) == {"name": "team/app", "tags": ["1"]}
    assert json.loads(node("GET", "/v2/_catalog").data) == {"repositories": [REPOSITORY]}


def test_the_answer_to_a_push(node: Listener) -> None:
    for digest, raw in ONE.blobs.items():
        if digest != ONE.digest:
            node.blob("team/app", raw)
    answer = node.manifest("team/app", "1", ONE)
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/v2/team/app/manifests/{ONE.digest}"
    assert answer.headers["Docker-Content-Digest"] == ONE.digest
    assert "OCI-Subject" not in answer.headers


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_several_tags_at_once(node: Listener, algorithm: str) -> None:
    node.image("team/app", ONE.digest, ONE)
    digest, tags = made.sha(ONE.raw, algorithm), [f"t{number}" for number in range(12)]
    query = "&".join(f"tag={tag}" for tag in tags)
    answer = node("PUT", f"/v2/team/app/manifests/{digest}?{query}", ONE.raw, Content_Type=mediatypes.OCI_MANIFEST)
    assert answer.status_code == 201
    assert answer.headers.getlist("OCI-Tag") == tags
    for tag in tags:
        found = node("GET", f"/v2/team/app/manifests/{tag}")
        assert (found.data, found.headers["Docker-Content-Digest"]) == (ONE.raw, digest)
    many = "&".join(f"tag=x{number}" for number in range(push.TAGS_AT_ONCE + 1))
    for wrong in (many, "tag=-x", "tag="):
        answer = node("PUT", f"/v2/team/app/manifests/{digest}?{wrong}", ONE.raw, Content_Type=mediatypes.OCI_MANIFEST)
        assert answer.status_code == 400
    assert len(json.loads(node("GET", "/v2/team/app/tags/list").data)["tags"]) == 12


@pytest.mark.parametrize("left_out", ["config", "layer", "child"])
def test_what_is_not_whole_is_not_published(node: Listener, left_out: str) -> None:
    gone = {"config": ONE.document["config"]["digest"], "layer": ONE.layers[0], "child": TWO.digest}[left_out]
    item = BOTH if left_out == "child" else ONE
    for digest, raw in item.blobs.items():
        if digest not in (gone, ONE.digest, TWO.digest, BOTH.digest):
            node.blob("team/app", raw)
    if left_out == "child":
        assert node.manifest("team/app", ONE.digest, ONE).status_code == 201
    answer = node.manifest("team/app", "1", item)
    assert (answer.status_code, code(answer)) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert gone in text(answer) and "APL-0505" in text(answer)
    assert node("GET", "/v2/team/app/manifests/1").status_code == 404


def test_a_blob_of_another_repository_does_not_count(node: Listener) -> None:
    node.image("team/app", "1", ONE)
    assert code(node.manifest("team/other", "1", ONE)) == "MANIFEST_BLOB_UNKNOWN"
    assert node("GET", "/v2/team/other/tags/list").status_code == 404


def test_a_manifest_that_lies_about_a_size_is_refused(node: Listener) -> None:
    node.image("team/app", "1", ONE)
    document = ONE.document
    document["layers"][0]["size"] += 1
    assert code(node.manifest("team/app", "2", document)) == "MANIFEST_BLOB_UNKNOWN"
    index = made.index({"amd64": ONE}).document
    index["manifests"][0]["mediaType"] = mediatypes.DOCKER_MANIFEST
    assert code(node.manifest("team/app", "2", index)) == "MANIFEST_BLOB_UNKNOWN"


def test_layers_that_may_not_be_distributed_need_not_be_there(node: Listener) -> None:
    blobs = {made.sha(b"{}"): b"{}"}
    node.blob("team/app", b"{}")
    foreign = {
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": made.sha(b"elsewhere"),
        "size": 9,
        "urls": ["https://store.site/base"],
    }
    document = manifest_of(blobs, layers=[foreign])
    assert node.manifest("team/app", "1", document).status_code == 201
    assert node("GET", f"/v2/team/app/blobs/{foreign['digest']}").status_code == 404
    current = made.pushes(node.store).current()
    assert current is not None
    assert current.names[f"{REPOSITORY}:1"].absent == {foreign["digest"]}


@pytest.mark.parametrize(
    ("raw", "kind", "status"),
    [
        (b"", mediatypes.OCI_MANIFEST, 400),
        (b"rot", mediatypes.OCI_MANIFEST, 400),
        (b"[]", mediatypes.OCI_MANIFEST, 400),
        (b"[" * 50_000, mediatypes.OCI_MANIFEST, 400),
        (ONE.raw, mediatypes.OCI_INDEX, 400),
        (ONE.raw, "application/json", 400),
        (ONE.raw, ";;", 400),
        (ONE.raw, mediatypes.DOCKER_SCHEMA1, 400),
        (ONE.raw[:-1] + b',"manifests":[]}', mediatypes.OCI_MANIFEST, 400),
        (ONE.raw[:-1] + b',"Config":{}}', mediatypes.OCI_MANIFEST, 400),
        (b" " * (MANIFEST_LIMIT + 1), mediatypes.OCI_MANIFEST, 413),
    ],
    ids=["empty", "rot", "list", "deep", "other-type", "json", "no-type", "schema1", "both", "folded", "large"],
)
def test_bad_manifests(node: Listener, raw: bytes, kind: str, status: int) -> None:
    node.image("team/app", "good", ONE)
    answer = node("PUT", "/v2/team/app/manifests/bad", raw, Content_Type=kind)
    assert (answer.status_code, code(answer)) == (status, "MANIFEST_INVALID")
    assert json.loads(node("GET", "/v2/team/app/tags/list").data)["tags"] == ["good"]


def test_a_manifest_as_large_as_allowed(node: Listener) -> None:
    node.blob("team/app", b"{}")
    document = manifest_of({made.sha(b"{}"): b"{}"}, annotations={"x": ""})
    document["annotations"]["x"] = "y" * (MANIFEST_LIMIT - len(made.compact(document)))
    raw = made.compact(document)
    assert len(raw) == MANIFEST_LIMIT
    assert node.manifest("team/app", "1", document).status_code == 201
    assert node("GET", "/v2/team/app/manifests/1").data == raw


@pytest.mark.parametrize(
    ("reference", "status"),
    [
        (made.sha(b"other"), 400),
        ("sha256:baddigeststring", 400),
        ("sha512:" + "0" * 64, 400),
        ("md5:" + "0" * 32, 400),
        ("-tag", 400),
        ("x" * 129, 400),
    ],
)
def test_bad_references(node: Listener, reference: str, status: int) -> None:
    node.image("team/app", "good", ONE)
    assert node.manifest("team/app", reference, ONE).status_code == status


@pytest.mark.parametrize("name", ["team/App", "team//app", "team/../app", "a" * 256, "team/app_", "-a/b"])
def test_bad_names(node: Listener, name: str) -> None:
    for method, path in (("POST", "blobs/uploads/"), ("PUT", "manifests/1"), ("DELETE", "manifests/1")):
        answer = node(method, f"/v2/{name}/{path}", ONE.raw, Content_Type=mediatypes.OCI_MANIFEST)
        assert (answer.status_code, code(answer)) == (400, "NAME_INVALID")


def test_unknown_fields_are_kept(node: Listener) -> None:
    node.blob("team/app", b"{}")
    document = manifest_of({made.sha(b"{}"): b"{}"}, extra={"deep": [1, None, "ä"]})
    document["config"]["extra"] = True
    assert node.manifest("team/app", "1", document).status_code == 201
    assert node("GET", "/v2/team/app/manifests/1").data == made.compact(document)


def test_pushing_the_same_again_changes_nothing(node: Listener) -> None:
    node.image("team/app", "1", BOTH)
    before = made.pushes(node.store).current()
    node.image("team/app", "1", BOTH)
    assert made.pushes(node.store).current() == before


def test_a_tag_moves_and_what_it_pointed_to_stays(node: Listener) -> None:
    node.image("team/app", "1", ONE)
    node.image("team/app", "1", TWO)
    assert node("GET", "/v2/team/app/manifests/1").data == TWO.raw
    assert node("GET", f"/v2/team/app/manifests/{ONE.digest}").data == ONE.raw


# ---------------------------------------------------------------------------------------------- deletions


def test_deleting_a_tag_takes_the_tag_alone(node: Listener) -> None:
    node.image("team/app", "1", ONE)
    node.image("team/app", "2", ONE)
    assert node("DELETE", "/v2/team/app/manifests/1").status_code == 202
    assert node("GET", "/v2/team/app/manifests/1").status_code == 404
    assert node("GET", "/v2/team/app/manifests/2").status_code == 200
    assert node("GET", f"/v2/team/app/manifests/{ONE.digest}").status_code == 200
    assert node("DELETE", "/v2/team/app/manifests/1").status_code == 404


def test_deleting_a_digest_takes_its_tags(node: Listener) -> None:
    node.image("team/app", "1", ONE)
    node.image("team/app", "2", ONE)
    node.image("team/app", "3", TWO)
    node.image("team/other", "1", ONE)
    assert node("DELETE", f"/v2/team/app/manifests/{ONE.digest}").status_code == 202
    assert json.loads(node("GET", "/v2/team/app/tags/list").data)["tags"] == ["3"]
    for reference in ("1", "2", ONE.digest):
        assert node("GET", f"/v2/team/app/manifests/{reference}").status_code == 404
    assert node("GET", f"/v2/team/other/manifests/{ONE.digest}").data == ONE.raw
    assert node("DELETE", f"/v2/team/app/manifests/{ONE.digest}").status_code == 404
    assert node("DELETE", f"/v2/team/none/manifests/{ONE.digest}").status_code == 404


def test_a_child_that_is_deleted_is_gone_although_an_index_lists_it(node: Listener) -> None:
    node.image("team/app", "1", BOTH)
    assert node("DELETE", f"/v2/team/app/manifests/{TWO.digest}").status_code == 202
    assert node("GET", f"/v2/team/app/manifests/{TWO.digest}").status_code == 404
    assert node("GET", "/v2/team/app/manifests/1").data == BOTH.raw


def test_a_blob_in_use_is_not_deleted(node: Listener) -> None:
    node.image("team/app", "1", BOTH)
    for digest in (ONE.layers[0], ONE.digest):
        answer = node("DELETE", f"/v2/team/app/blobs/{digest}")
        assert (answer.status_code, code(answer)) == (405, "UNSUPPORTED")
        assert "APL-0506" in text(answer) and ONE.digest in text(answer)
    node("DELETE", f"/v2/team/app/manifests/{BOTH.digest}")
    node("DELETE", f"/v2/team/app/manifests/{ONE.digest}")
    assert node("DELETE", f"/v2/team/app/blobs/{ONE.layers[0]}").status_code == 202
    assert node("GET", f"/v2/team/app/blobs/{ONE.layers[0]}").status_code == 404


def test_piece_maps_come_and_go_with_their_blobs(node: Listener) -> None:
    big, other = made.image(5, size=2 << 20), made.image(6, size=2 << 20)

    def listed() -> set[str]:
        current = made.pushes(node.store).current()
        return set(current.piece_maps) if current else set()

    node.image("team/app", "1", big)
    node.image("team/app", "2", other)
    node("POST", f"/v2/team/else/blobs/uploads/?mount={big.layers[0]}&from=team/app")
    assert listed() == {big.layers[0], other.layers[0]}
    node("DELETE", f"/v2/team/app/manifests/{big.digest}")
    assert listed() == {other.layers[0]}


# ---------------------------------------------------------------------- the site: seeds, publisher, names


def test_a_seeded_name_is_neither_moved_nor_deleted(node: Listener) -> None:
    made.publish(node.store, {f"{REPOSITORY}:1": ONE})
    for digest, raw in TWO.blobs.items():
        if digest != TWO.digest:
            node.blob("team/app", raw)
    attempts: list[Callable[[], TestResponse]] = [
        lambda: node.manifest("team/app", "1", TWO),
        lambda: node("DELETE", "/v2/team/app/manifests/1"),
        lambda: node("DELETE", f"/v2/team/app/manifests/{ONE.digest}"),
        lambda: node("DELETE", f"/v2/team/app/blobs/{ONE.layers[0]}"),
    ]
    for attempt in attempts:
        answer = attempt()
        assert (answer.status_code, code(answer)) == (403, "DENIED")
        assert "APL-0502" in text(answer) and "generation 1" in text(answer)
    assert node("GET", "/v2/team/app/manifests/1").data == ONE.raw
    assert made.pushes(node.store).current() is None


def test_pushing_what_is_seeded_is_no_change(node: Listener) -> None:
    made.publish(node.store, {f"{REPOSITORY}:1": ONE})
    assert node.manifest("team/app", "1", ONE).status_code == 201
    assert node.manifest("team/app", "2", ONE).status_code == 201
    assert json.loads(node("GET", "/v2/team/app/tags/list").data)["tags"] == ["1", "2"]
    assert node("DELETE", "/v2/team/app/manifests/2").status_code == 202
    assert node("GET", "/v2/team/app/manifests/1").data == ONE.raw


def test_a_new_generation_wins_and_its_going_brings_the_push_back(node: Listener) -> None:
    node.image("team/app", "1", TWO)
    node.image("team/app", "2", TWO)
    made.publish(node.store, {f"{REPOSITORY}:1": ONE})
    assert node("GET", "/v2/team/app/manifests/1").data == ONE.raw
    assert node("GET", "/v2/team/app/manifests/2").data == TWO.raw
    assert json.loads(node("GET", "/v2/team/app/tags/list").data)["tags"] == ["1", "2"]
    made.publish(node.store, {"docker.io/team/else:1": ONE})
    assert node("GET", "/v2/team/app/manifests/1").data == TWO.raw


@pytest.mark.parametrize("path", ["team/app", "10.0.0.1:5443/team/app", "docker.io/team/app", "b:5443/team/app"])
def test_every_spelling_of_a_node_means_the_site(node: Listener, path: str) -> None:
    node.image(path, "1", ONE)
    for query in ("", "?ns=10.0.0.1:5443", "?ns=10.0.0.2:5443", "?ns=a:5443", "?ns=docker.io"):
        assert node("GET", f"/v2/team/app/manifests/1{query}").data == ONE.raw
    for query in ("?ns=quay.io", "?ns=10.0.0.9:5443"):
        assert node("GET", f"/v2/team/app/manifests/1{query}").status_code == 404


def test_the_registry_is_part_of_the_name(node: Listener) -> None:
    node.image("quay.io/team/app", "1", ONE)
    node.image("team/app", "1", TWO)
    assert node("GET", "/v2/team/app/manifests/1?ns=quay.io").data == ONE.raw
    assert node("GET", "/v2/team/app/manifests/1").data == TWO.raw
    for digest, repository in ((ONE.layers[0], "team/app"), (TWO.layers[0], "quay.io/team/app")):
        assert node("GET", f"/v2/{repository}/blobs/{digest}").status_code == 404
    where = node("POST", "/v2/team/app/blobs/uploads/?ns=quay.io").headers["Location"]
    assert node("PUT", f"{where}&digest={made.sha(RAW)}", RAW).status_code == 201
    assert node("GET", f"/v2/quay.io/team/app/blobs/{made.sha(RAW)}").status_code == 200
    assert node("GET", f"/v2/team/app/blobs/{made.sha(RAW)}").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "blobs/uploads/"),
        ("PATCH", "blobs/uploads/" + "0" * 32),
        ("PUT", "manifests/1"),
        ("DELETE", "manifests/1"),
        ("DELETE", f"blobs/{ONE.layers[0]}"),
    ],
)
def test_another_node_names_the_publisher(store: BlobStore, method: str, path: str) -> None:
    node = Listener(store, node="b")
    answer = node(method, f"/v2/team/app/{path}", ONE.raw, Content_Type=mediatypes.OCI_MANIFEST)
    assert (answer.status_code, code(answer)) == (403, "DENIED")
    assert "APL-0501" in text(answer) and "a, https://10.0.0.1:5443" in text(answer)


def test_a_node_serves_what_was_pushed_whether_pushing_is_on_or_not(store: BlobStore) -> None:
    made.push(store, {f"{REPOSITORY}:1": BOTH})
    node = Listener(store, node="b", push=False)
    assert node("GET", "/v2/team/app/manifests/1", auth=False).data == BOTH.raw
    assert node("GET", f"/v2/team/app/blobs/{ONE.layers[0]}", auth=False).data == ONE.blobs[ONE.layers[0]]


# ----------------------------------------------------------------------------------------------- referrers


def listed(node: Listener, digest: str, query: str = "") -> list[dict[str, Any]]:
    answer = node("GET", f"/v2/team/app/referrers/{digest}{query}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, mediatypes.OCI_INDEX)
    document = json.loads(answer.data)
    assert (document["schemaVersion"], document["mediaType"]) == (2, mediatypes.OCI_INDEX)
    assert ("OCI-Filters-Applied" in answer.headers) == bool(query)
    found: list[dict[str, Any]] = document["manifests"]
    return found


@pytest.mark.parametrize("seeded", [False, True])
def test_a_referrer_without_a_name_is_listed(node: Listener, seeded: bool) -> None:
    signature = made.image(4, subject=ONE, artifact_type="application/x.sig", annotations={"by": "us"})
    plain = made.image(5, subject=ONE)
    if seeded:
        made.publish(node.store, {f"{REPOSITORY}:1": ONE})
    assert listed(node, ONE.digest) == []
    for item in (signature, plain):
        for digest, raw in item.blobs.items():
            if digest != item.digest:
                node.blob("team/app", raw)
        answer = node.manifest("team/app", item.digest, item)
        assert (answer.status_code, answer.headers["OCI-Subject"]) == (201, ONE.digest)
    assert {entry["digest"] for entry in listed(node, ONE.digest)} == {signature.digest, plain.digest}
    (entry,) = listed(node, ONE.digest, "?artifactType=application/x.sig")
    assert entry == {
        "mediaType": mediatypes.OCI_MANIFEST,
        "digest": signature.digest,
        "size": len(signature.raw),
        "artifactType": "application/x.sig",
        "annotations": {"by": "us"},
    }
    assert [
        entry["digest"] for entry in listed(node, ONE.digest, f"?{urlencode({'artifactType': mediatypes.OCI_CONFIG})}")
    ] == [plain.digest]
    assert node("DELETE", f"/v2/team/app/manifests/{signature.digest}").status_code == 202
    assert [entry["digest"] for entry in listed(node, ONE.digest)] == [plain.digest]


def test_referrers_of_sha512_of_an_index_and_of_nothing(node: Listener) -> None:
    digest = made.sha(b"nowhere", "sha512")
    node.blob("team/app", b"{}")
    subject = {"mediaType": mediatypes.OCI_MANIFEST, "digest": digest, "size": 7}
    index = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": [], "subject": subject}
    image = manifest_of({made.sha(b"{}"): b"{}"}, subject=subject)
    for document in (index, image):
        raw = made.compact(document)
        answer = node.manifest("team/app", made.sha(raw, "sha512"), document)
        assert answer.headers["OCI-Subject"] == digest
    found = {entry["digest"]: entry for entry in listed(node, digest)}
    assert len(found) == 2
    assert "artifactType" not in found[made.sha(made.compact(index), "sha512")]
    assert node("GET", f"/v2/never/seen/referrers/{digest}").status_code == 200
    assert node("GET", "/v2/team/app/referrers/sha256:x").status_code == 400


@pytest.mark.parametrize("seeded", [False, True])
def test_referrers_by_tag_are_listed_too(node: Listener, seeded: bool) -> None:
    """What clients push where a registry has no referrers: an index under the subject's digest, and cosign's tags."""
    tag = ONE.digest.replace(":", "-")
    first, second = made.image(6), made.image(7)
    other = made.image(8, subject=TWO)
    fallback = made.index({"amd64": first, "arm64": other})
    names = {"1": ONE, tag: fallback, f"{tag}.sig": second}
    if seeded:
        made.publish(node.store, {f"{REPOSITORY}:{key}": item for key, item in names.items()})
    else:
        for key, item in names.items():
            node.image("team/app", key, item)
    assert {entry["digest"] for entry in listed(node, ONE.digest)} == {first.digest, second.digest}
    assert {entry["digest"] for entry in listed(node, TWO.digest)} == {other.digest}


# -------------------------------------------------------------------------------------- catalog and paging


def test_lists_hold_both_indexes_once_each_in_order(node: Listener) -> None:
    made.publish(node.store, {f"{REPOSITORY}:{tag}": ONE for tag in ("b", "d", "Z")} | {"quay.io/x/y:1": ONE})
    node.image("team/app", "a", ONE)
    for tag in ("c", "d", "_"):
        assert node.manifest("team/app", tag, ONE).status_code == 201
    node.image("team/aaa", "1", ONE)
    assert json.loads(node("GET", "/v2/team/app/tags/list").data)["tags"] == ["Z", "_", "a", "b", "c", "d"]
    seen: list[str] = []
    path: str | None = "/v2/team/app/tags/list?n=2"
    while path:
        answer = node("GET", path)
        seen += json.loads(answer.data)["tags"]
        link = answer.headers.get("Link")
        path = link[1:].partition(">")[0] if link else None
    assert seen == ["Z", "_", "a", "b", "c", "d"]
    assert json.loads(node("GET", "/v2/_catalog").data)["repositories"] == [
        "docker.io/team/aaa",
        REPOSITORY,
        "quay.io/x/y",
    ]


def test_a_repository_without_tags_has_an_empty_list(node: Listener) -> None:
    node.image("team/app", ONE.digest, ONE)
    assert json.loads(node("GET", "/v2/team/app/tags/list").data) == {"name": "team/app", "tags": []}


# ------------------------------------------------------------------------------------------------- journal


def test_the_journal_says_who_did_what(node: Listener) -> None:
    node.image("team/app", "1", ONE)
    node("DELETE", f"/v2/team/app/manifests/{ONE.digest}")
    lines = [json.loads(line) for line in (node.store.root / "journal.jsonl").read_text().splitlines()]
    assert [(line["action"], line["by"], line["digest"], line["names"]) for line in lines] == [
        ("push", "ops", ONE.digest, [f"{REPOSITORY}:1"]),
        ("delete", "ops", ONE.digest, [f"{REPOSITORY}:1", f"{REPOSITORY}@{ONE.digest}"]),
    ]
    assert not auditlog.was_published(node.store.root, None, f"{REPOSITORY}:1")


def test_a_journal_that_cannot_be_written_takes_no_push_back(node: Listener, monkeypatch: Any) -> None:
    def full(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(auditlog, "note", full)
    node.image("team/app", "1", ONE)
    assert node("GET", "/v2/team/app/manifests/1").data == ONE.raw


def test_a_push_that_fails_at_the_rename_leaves_what_was_served(node: Listener, monkeypatch: Any) -> None:
    node.image("team/app", "1", ONE)
    node.image("team/app", TWO.digest, TWO)

    def power_loss(*_: object) -> None:
        raise OSError("power loss")

    with monkeypatch.context() as patch:
        patch.setattr("appliance.store.index.write_atomically", power_loss)
        assert node.manifest("team/app", "1", TWO).status_code == 503
    assert node("GET", "/v2/team/app/manifests/1").data == ONE.raw
    assert node.manifest("team/app", "1", TWO).status_code == 201
    assert node("GET", "/v2/team/app/manifests/1").data == TWO.raw


# ------------------------------------------------------------------------------- what pushes must not break


def test_a_pushed_index_stays_whole_when_the_generation_drops_what_it_lists(node: Listener, store: BlobStore) -> None:
    """A client does not push what HEAD says is there; a rollback of generations leaves pushes alone."""
    inner = made.index({"amd64": ONE})
    whole = made.index({"amd64": inner, "arm64": TWO})
    made.publish(store, {f"{REPOSITORY}:seeded": inner})
    node.image("team/app", "arm", TWO)
    assert node.manifest("team/app", "1", whole).status_code == 201
    made.publish(store, {"docker.io/team/else:1": TWO})
    for item in (whole, inner, ONE, TWO):
        assert node("GET", f"/v2/team/app/manifests/{item.digest}").data == item.raw
    for digest, raw in ONE.blobs.items():
        assert node("GET", f"/v2/team/app/blobs/{digest}").data == raw
    pushed = made.pushes(store).current()
    assert pushed is not None
    assert set(whole.blobs) <= set(needed_by_pushes(pushed, store))
    assert node("DELETE", f"/v2/team/app/manifests/{inner.digest}").status_code == 202


@pytest.mark.parametrize("where", ["os.rename", "os.fsync"])
def test_a_disk_that_is_full_at_the_last_step_is_said_to_be_full(
    node: Listener, store: BlobStore, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    node.image("team/app", "1", ONE)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(where, full)
        answers = [node.manifest("team/app", "2", ONE), node("DELETE", "/v2/team/app/manifests/1")]
        if where == "os.rename":
            digest = next(digest for digest in ONE.blobs if digest != ONE.digest)
            answers.append(node("POST", f"/v2/team/other/blobs/uploads/?mount={digest}&from=team/app"))
    for answer in answers:
        assert (answer.status_code, code(answer)) == (507, "DENIED")
        assert "APL-0310" in text(answer)
    assert json.loads(node("GET", "/v2/team/app/tags/list").data)["tags"] == ["1"]


def test_the_event_loop_does_not_read_the_manifests_of_a_repository(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.push(store, {f"{REPOSITORY}:{number}": made.image(number) for number in range(5)})
    readers: list[int] = []
    real = store.read

    def noting(digest: str, limit: int) -> bytes:
        readers.append(threading.get_ident())
        return real(digest, limit)

    monkeypatch.setattr(store, "read", noting)
    item = made.image(0)
    for path, own in ((f"manifests/{item.digest}", 1), (f"blobs/{item.digest}", 0), (f"referrers/{item.digest}", 0)):
        readers.clear()
        assert Listener(store)("GET", f"/v2/team/app/{path}").status_code == 200
        assert len(readers) == 5 + own
        assert readers.count(threading.get_ident()) == own


@pytest.mark.parametrize("garbage", [b"garbage", b" " * len(ONE.raw)], ids=["shorter", "as-long"])
def test_a_damaged_manifest_costs_itself_alone_and_may_be_pushed_again(store: BlobStore, garbage: bytes) -> None:
    first = Listener(store)
    first.image("team/app", "1", ONE)
    first.image("team/app", "2", TWO)
    path = store.path(ONE.digest)
    path.chmod(0o644)
    path.write_bytes(garbage)
    node = Listener(store)
    assert node("GET", f"/v2/team/app/manifests/{TWO.digest}").data == TWO.raw
    assert node("GET", "/v2/team/app/manifests/1").status_code == 503
    pushed = made.pushes(store).current()
    assert pushed is not None
    assert set(TWO.blobs) <= set(needed_by_pushes(pushed, store))
    node.image("team/app", "1", ONE)
    for reference in ("1", ONE.digest):
        assert node("GET", f"/v2/team/app/manifests/{reference}").data == ONE.raw
    assert set(ONE.blobs) <= set(needed_by_pushes(pushed, store))


def test_an_index_that_nobody_would_read_again_is_not_published(
    node: Listener, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.image("team/app", "1", ONE)
    before = (store.root / "pushes.json").read_bytes()
    monkeypatch.setattr(signed, "SIZE_LIMIT", len(before) + 100)
    answer = node.manifest("team/app", "2", ONE)
    assert (answer.status_code, code(answer)) == (507, "DENIED")
    assert "APL-0317" in text(answer)
    assert (store.root / "pushes.json").read_bytes() == before
    assert node("GET", "/v2/team/app/manifests/1").data == ONE.raw
    assert node("DELETE", "/v2/team/app/manifests/1").status_code == 202


def test_a_blob_that_is_served_and_not_on_this_disk_is_not_mounted(store: BlobStore) -> None:
    """The client uploads it then. A mount would let it push a manifest whose layer the publisher cannot send to anybody."""
    made.publish(store, {"docker.io/library/a:1": ONE})
    node = Listener(store)
    layer = ONE.layers[0]
    request = f"/v2/team/other/blobs/uploads/?mount={layer}&from=library/a"
    assert node("POST", request).status_code == 201
    store.path(layer).unlink()
    assert Listener(store)("POST", request.replace("team/other", "team/third")).status_code == 202


def test_nothing_is_collected_while_a_manifest_or_a_mount_refers_to_what_is_here(
    node: Listener, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    replaced, claimed = Pushes.replace, Uploads.link

    def replace(self: Pushes, *arguments: Any) -> Any:
        seen.append(made.stays(store))
        return replaced(self, *arguments)

    def claim(self: Uploads, *arguments: Any) -> None:
        seen.append(made.stays(store))
        claimed(self, *arguments)

    node.image("team/app", "1", ONE)
    monkeypatch.setattr(Pushes, "replace", replace)
    monkeypatch.setattr(Uploads, "link", claim)
    assert node.manifest("team/app", "2", ONE).status_code == 201
    assert node("POST", f"/v2/team/other/blobs/uploads/?mount={ONE.layers[0]}&from=team/app").status_code == 201
    assert seen
    assert all(seen)
    assert not made.stays(store)
