"""The registry's answers: exact, scoped, and decided before the status line."""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.oci import mediatypes
from appliance.registry import read as app_module
from appliance.registry.read import Registry, create_app
from appliance.store.blobs import BlobStore
from appliance.store.catalog import LiveCatalog
from appliance.web.blob_provider import NoFetcher, Unreachable
from appliance.web.connection import SOCKET
from appliance.web.streaming import BlobBody, BlobSource, BrokenOff, FileSource
from tests.unit.store import made

SITE = frozenset({"10.77.0.11", "10.77.0.11:5443", "a", "a:5443"})
NGINX = made.image(1, docker=True)
QUAY = made.image(2)
ARM = made.image(3, arch="arm64")
BOTH = made.index({"amd64": NGINX, "arm64": ARM})
SIGNATURE = made.image(4, subject=QUAY, artifact_type="application/x.sig", annotations={"by": "us"})
PLAIN = made.image(5, subject=QUAY)
DEEP = made.image(6)
NAMES = {
    "docker.io/library/nginx:1.27": NGINX,
    "docker.io/library/nginx:latest": NGINX,
    "quay.io/library/nginx:1.27": QUAY,
    "docker.io/team/both:1": BOTH,
    "quay.io/library/nginx:a-signature": SIGNATURE,
    "quay.io/library/nginx:b-plain": PLAIN,
    "quay.io/manifests/blobs/tags:1": DEEP,
}


class FakeFetcher:
    """Says why it cannot, or gives a file."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.suspects: list[str] = []

    def source(self, digest: str, size: int, start: int, *, suspect: bool = False) -> BlobSource:
        self.asked.append((digest, size, start))
        raise Unreachable("b is down")

    def mend(self, digest: str, size: int) -> None:
        raise Unreachable("b is down")

    def suspect(self, digest: str) -> None:
        self.suspects.append(digest)


def client_of(store: BlobStore, fetcher: Any = None) -> FlaskClient:
    catalog = LiveCatalog(store, made.generations(store), made.pushes(store))
    return create_app(Registry(store, catalog, fetcher or NoFetcher(), SITE)).test_client()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> BlobStore:
    """A store that tests only read."""
    store = made.open_store(tmp_path_factory.mktemp("registry") / "store")
    made.publish(store, NAMES)
    return store


@pytest.fixture
def client(shared: BlobStore) -> FlaskClient:
    return client_of(shared)


def code(response: Any) -> str:
    assert response.content_type == "application/json"
    (item,) = json.loads(response.data)["errors"]
    assert set(item) == {"code", "message", "detail"}
    return str(item["code"])


def body(response: Any) -> Any:
    return json.loads(response.data)


def digest(response: Any) -> str:
    return str(response.headers["Docker-Content-Digest"])


def test_version(client: FlaskClient) -> None:
    for path in ("/v2/", "/v2"):
        response = client.get(path)
        assert (response.status_code, response.json) == (200, {})
        assert response.headers["Docker-Distribution-API-Version"] == "registry/2.0"
        assert client.head(path).status_code == 200
    assert client.get("/healthz").json == {"status": "ok"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/library/nginx/manifests/1.27", NGINX),
        ("/v2/nginx/manifests/1.27", NGINX),
        ("/v2/library/nginx/manifests/1.27?ns=docker.io", NGINX),
        ("/v2/library/nginx/manifests/1.27?ns=index.docker.io", NGINX),
        ("/v2/library/nginx/manifests/1.27?ns=registry-1.docker.io", NGINX),
        ("/v2/library/nginx/manifests/1.27?ns=quay.io", QUAY),
        ("/v2/library/nginx/manifests/1.27?ns=QUAY.io", QUAY),
        ("/v2/quay.io/library/nginx/manifests/1.27", QUAY),
        ("/v2/docker.io/library/nginx/manifests/1.27", NGINX),
        ("/v2/quay.io/library/nginx/manifests/1.27?ns=10.77.0.11:5443", QUAY),
        ("/v2/library/nginx/manifests/1.27?ns=10.77.0.11", NGINX),
        ("/v2/library/nginx/manifests/1.27?ns=a:5443", NGINX),
        ("/v2/library/nginx/manifests/1.27?ns=", NGINX),
        ("/v2/library%2fnginx/manifests/1.27", NGINX),
        ("/v2/manifests/blobs/tags/manifests/1?ns=quay.io", DEEP),
        (f"/v2/team/both/manifests/{ARM.digest}", ARM),
    ],
)
def test_ns_and_paths_select_one_repository(client: FlaskClient, path: str, expected: made.Image) -> None:
    for method in (client.get, client.head):
        response = method(path)
        assert response.status_code == 200
        assert digest(response) == expected.digest
        assert response.headers["Content-Length"] == str(len(expected.raw))
        assert response.headers["Content-Type"] == expected.descriptor["mediaType"]
        assert response.data == (expected.raw if method == client.get else b"")
    namespace = re.search(r"ns=([^&]+)", path)
    assert ("OCI-Namespace" in response.headers) == (namespace is not None)


def test_the_type_is_the_one_it_was_given_as(client: FlaskClient) -> None:
    assert client.get("/v2/nginx/manifests/latest").headers["Content-Type"] == mediatypes.DOCKER_MANIFEST
    assert client.get("/v2/team/both/manifests/1").headers["Content-Type"] == mediatypes.OCI_INDEX


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/v2/library/none/manifests/1", 404, "NAME_UNKNOWN"),
        ("/v2/library/nginx/manifests/none", 404, "MANIFEST_UNKNOWN"),
        ("/v2/library/nginx/manifests/1.27?ns=ghcr.io", 404, "NAME_UNKNOWN"),
        ("/v2/library/nginx/manifests/1.27?ns=10.77.0.99:5443", 404, "NAME_UNKNOWN"),
        (f"/v2/library/nginx/manifests/{made.sha(b'x')}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/library/nginx/manifests/{NGINX.layers[0]}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/library/nginx/manifests/{QUAY.digest}", 404, "MANIFEST_UNKNOWN"),
        ("/v2/library/nginx/manifests/sha256:short", 404, "DIGEST_INVALID"),
        ("/v2/library/nginx/manifests/-x", 404, "MANIFEST_UNKNOWN"),
        ("/v2/library/nginx/manifests/" + "x" * 129, 404, "MANIFEST_UNKNOWN"),
        ("/v2/library/nginx/manifests/a%2fb", 404, "UNSUPPORTED"),
        (f"/v2/library/nginx/blobs/{made.sha(b'x')}", 404, "BLOB_UNKNOWN"),
        (f"/v2/library/nginx/blobs/{QUAY.layers[0]}", 404, "BLOB_UNKNOWN"),
        (f"/v2/library/none/blobs/{NGINX.layers[0]}", 404, "BLOB_UNKNOWN"),
        ("/v2/library/nginx/blobs/sha256:../../x", 404, "UNSUPPORTED"),
        ("/v2/library/nginx/blobs/latest", 404, "DIGEST_INVALID"),
        ("/v2/library/none/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/library//nginx/manifests/1.27", 400, "NAME_INVALID"),
        ("/v2//library/nginx/manifests/1.27", 404, "UNSUPPORTED"),
        ("/v2/library/nginx//manifests/1.27", 400, "NAME_INVALID"),
        ("/v2/library%2f%2fnginx/manifests/1.27", 400, "NAME_INVALID"),
        (f"/v2/library//nginx/blobs/{NGINX.layers[0]}", 404, "NAME_INVALID"),
        ("/v2/library/NGINX/manifests/1.27", 400, "NAME_INVALID"),
        ("/v2/library/../nginx/manifests/1.27", 400, "NAME_INVALID"),
        ("/v2/library/nginx/manifests/1.27?ns=../etc", 400, "NAME_INVALID"),
        ("/v2/library/nginx/manifests/1.27?ns=http://quay.io", 400, "NAME_INVALID"),
        ("/v2/library/nginx", 404, "UNSUPPORTED"),
        ("/v2/library/nginx/uploads/x", 404, "UNSUPPORTED"),
        ("/v2/_oci/ext/discover", 404, "UNSUPPORTED"),
        ("/v2/library/nginx/referrers/latest", 400, "DIGEST_INVALID"),
    ],
)
def test_a_miss_says_what_and_where(client: FlaskClient, path: str, status: int, expected: str) -> None:
    response = client.get(path)
    assert (response.status_code, code(response)) == (status, expected)
    head = client.head(path)
    assert (head.status_code, head.data) == (status, b"")


def test_a_miss_names_the_generation(client: FlaskClient, store: BlobStore) -> None:
    message = body(client.get("/v2/library/none/manifests/1"))["errors"][0]["message"]
    assert "docker.io/library/none" in message
    assert "generation 1" in message
    assert "never seeded" in client_of(store).get("/v2/none/tags/list").get_data(as_text=True)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path",
    ["library/nginx/blobs/uploads/", "library/nginx/manifests/1.27", f"nginx/blobs/{NGINX.layers[0]}", "_catalog"],
)
def test_writes_are_refused(client: FlaskClient, method: str, path: str) -> None:
    response = client.open(f"/v2/{path}", method=method, data=b"x")
    assert response.status_code == 405
    assert code(response) == "UNSUPPORTED"
    assert response.headers["Allow"] == ("" if "uploads" in path else "GET, HEAD")


LAYER = NGINX.layers[0]
RAW = NGINX.blobs[LAYER]
BLOB = f"/v2/library/nginx/blobs/{LAYER}"


def test_a_blob_is_served_verbatim(client: FlaskClient) -> None:
    for blob, raw in NGINX.blobs.items():
        response = client.get(f"/v2/library/nginx/blobs/{blob}")
        assert response.status_code == 200
        assert response.data == raw
        assert digest(response) == blob
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert response.headers["Content-Length"] == str(len(raw))
        assert response.headers["Accept-Ranges"] == "bytes"
        assert "Content-Range" not in response.headers


def test_a_head_says_what_a_get_would(client: FlaskClient) -> None:
    for headers in ({}, {"Range": "bytes=5-9"}):
        got, head = client.get(BLOB, headers=headers), client.head(BLOB, headers=headers)
        assert head.data == b""
        assert head.status_code == got.status_code
        for name in ("Content-Length", "Content-Type", "Docker-Content-Digest", "Content-Range", "Accept-Ranges"):
            assert head.headers.get(name) == got.headers.get(name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(RAW) + 2), st.integers(0, len(RAW) + 2) | st.none())
def test_a_part_is_exact_to_the_byte(client: FlaskClient, first: int, last: int | None) -> None:
    response = client.get(BLOB, headers={"Range": f"bytes={first}-{'' if last is None else last}"})
    if first >= len(RAW) or (last is not None and last < first):
        assert response.status_code == 416
        assert response.headers["Content-Range"] == f"bytes */{len(RAW)}"
        return
    expected = RAW[first:] if last is None else RAW[first : last + 1]
    assert (response.status_code, response.data) == (206, expected)
    assert response.headers["Content-Range"] == f"bytes {first}-{first + len(expected) - 1}/{len(RAW)}"
    assert response.headers["Content-Length"] == str(len(expected))


OTHER = made.sha(b"other")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": '"{}"'}, 304),
        ({"If-None-Match": 'W/"{}"'}, 304),
        ({"If-None-Match": '"x", "{}"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": f'"{OTHER}"'}, 200),
        ({"If-None-Match": '"x'}, 200),
        ({"If-None-Match": '"{}"', "Range": "bytes=0-9"}, 304),
        ({"If-None-Match": '"{}"', "Range": "bytes=99999999-"}, 304),
        ({"If-Match": '"{}"'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": 'W/"{}"'}, 412),
        ({"If-Match": f'"{OTHER}"'}, 412),
        ({"If-Match": f'"{OTHER}"', "If-None-Match": '"{}"'}, 412),
        ({"If-Modified-Since": "Thu, 01 Jan 2037 00:00:00 GMT"}, 200),
    ],
)
@pytest.mark.parametrize("digest_of_it", [LAYER, NGINX.digest])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions_are_held_against_the_digest(
    client: FlaskClient, headers: dict[str, str], status: int, digest_of_it: str, method: str
) -> None:
    kind = "blobs" if digest_of_it == LAYER else "manifests"
    sent = {name: value.replace("{}", digest_of_it) for name, value in headers.items()}
    response = client.open(f"/v2/library/nginx/{kind}/{digest_of_it}", method=method, headers=sent)
    assert response.status_code == status
    if status == 412:
        assert method == "HEAD" or code(response) == "DIGEST_INVALID"
    else:
        assert response.headers["ETag"] == f'"{digest_of_it}"'
        assert digest(response) == digest_of_it
    if status == 304:
        assert response.data == b""
        assert "Content-Type" not in response.headers


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (f'"{LAYER}"', 206),
        (f'W/"{LAYER}"', 200),
        (f'"{OTHER}"', 200),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
    ],
)
def test_a_part_of_other_content_is_the_whole(client: FlaskClient, condition: str, status: int) -> None:
    for asked in ("bytes=5-9", "bytes=99999999-"):
        response = client.get(BLOB, headers={"Range": asked, "If-Range": condition})
        if status == 200:
            assert (response.status_code, response.data) == (200, RAW)
            assert "Content-Range" not in response.headers
        else:
            assert response.status_code == (206 if asked == "bytes=5-9" else 416)


def test_a_client_that_has_a_blob_is_told_so_although_it_is_elsewhere(store: BlobStore) -> None:
    made.publish(store, {"docker.io/library/nginx:1.27": NGINX}, leave_out=[LAYER])
    fetcher = FakeFetcher()
    assert client_of(store, fetcher).get(BLOB, headers={"If-None-Match": f'"{LAYER}"'}).status_code == 304
    assert fetcher.asked == []


def test_an_empty_blob(store: BlobStore) -> None:
    one = made.image(1)
    empty = made.sha(b"")
    document = {**one.document, "layers": [{"mediaType": mediatypes.OCI_LAYER, "digest": empty, "size": 0}]}
    raw = made.compact(document)
    changed = made.Image(
        {"mediaType": mediatypes.OCI_MANIFEST, "digest": made.sha(raw), "size": len(raw)},
        {**one.blobs, made.sha(raw): raw, empty: b""},
    )
    made.publish(store, {"docker.io/library/a:1": changed})
    client = client_of(store)
    response = client.get(f"/v2/a/blobs/{empty}")
    assert (response.status_code, response.data, response.headers["Content-Length"]) == (200, b"", "0")
    assert client.get(f"/v2/a/blobs/{empty}", headers={"Range": "bytes=0-"}).status_code == 416


def test_a_known_blob_that_cannot_be_had_is_503_with_the_reason(store: BlobStore) -> None:
    made.publish(store, {"docker.io/library/nginx:1.27": NGINX}, leave_out=[LAYER])
    fetcher = FakeFetcher()
    response = client_of(store, fetcher).get(BLOB, headers={"Range": "bytes=7-"})
    assert response.status_code == 503
    assert "b is down" in response.get_data(as_text=True)
    assert fetcher.asked == [(LAYER, len(RAW), 7)]
    assert client_of(store).get(BLOB).status_code == 503


def test_a_head_of_a_blob_elsewhere_asks_nobody(store: BlobStore) -> None:
    made.publish(store, {"docker.io/library/nginx:1.27": NGINX}, leave_out=[LAYER])
    fetcher = FakeFetcher()
    response = client_of(store, fetcher).head(BLOB)
    assert (response.status_code, response.headers["Content-Length"]) == (200, str(len(RAW)))
    assert fetcher.asked == []


def test_a_blob_of_another_size_is_not_served(store: BlobStore) -> None:
    made.publish(store, {"docker.io/library/nginx:1.27": NGINX})
    path = store.path(LAYER)
    path.chmod(0o644)
    path.write_bytes(RAW + b"more")
    fetcher = FakeFetcher()
    assert client_of(store, fetcher).get(BLOB).status_code == 503
    assert len(fetcher.asked) == 1


class Growing:
    """A source that ends before it should, as a fetch does whose peers all died."""

    def __init__(self, path: Path, verified: int) -> None:
        self._handle = os.open(path, os.O_RDONLY)
        self._verified = verified
        self.closed = False

    def fileno(self) -> int:
        return self._handle

    def wait_beyond(self, offset: int) -> int:
        if offset >= self._verified:
            raise OSError("no peer left")
        return self._verified

    def failed(self) -> None:
        raise AssertionError("what was verified can be read")

    def close(self) -> None:
        if not self.closed:
            os.close(self._handle)
        self.closed = True


@pytest.mark.parametrize("verified", [0, 100])
def test_a_stream_that_cannot_go_on_sends_verified_bytes_only(store: BlobStore, tmp_path: Path, verified: int) -> None:
    made.publish(store, {"docker.io/library/nginx:1.27": NGINX}, leave_out=[LAYER])
    path = tmp_path / "partial"
    path.write_bytes(RAW[:verified] + b"?" * 50)
    source = Growing(path, verified)

    class Fetcher:
        def source(self, digest: str, size: int, start: int, *, suspect: bool = False) -> BlobSource:
            return source

    client = client_of(store, Fetcher())
    if verified == 0:
        response = client.get(BLOB)
        assert response.status_code == 503
        assert "no peer left" in response.get_data(as_text=True)
    else:
        streamed = client.get(BLOB, buffered=False)
        assert streamed.headers["Content-Length"] == str(len(RAW))
        received = b""
        with pytest.raises(OSError, match="no peer left"):
            for chunk in streamed.response:
                received += bytes(chunk)  # type: ignore[arg-type]  # a WSGI body is bytes
        assert received == RAW[:verified]
        streamed.close()
    assert source.closed


def test_descriptors_are_closed_whatever_the_client_does(store: BlobStore) -> None:
    made.publish(store, {"docker.io/library/nginx:1.27": NGINX})
    client = client_of(store)
    client.get(BLOB)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        client.get(BLOB).close()
        client.head(BLOB).close()
        client.get(BLOB, headers={"Range": "bytes=99999999-"}).close()
        client.get(BLOB, buffered=False).close()
    assert len(os.listdir("/proc/self/fd")) <= before + 1


@pytest.mark.parametrize(
    ("query", "expected", "link"),
    [
        ("", ["a", "b", "c", "d"], None),
        ("?n=4", ["a", "b", "c", "d"], None),
        ("?n=2", ["a", "b"], ("2", "b")),
        ("?n=2&last=b", ["c", "d"], None),
        ("?n=1&last=b", ["c"], ("1", "c")),
        ("?last=bb", ["c", "d"], None),
        ("?last=z", [], None),
        ("?n=0", [], None),
        ("?n=99999999999999999999999", ["a", "b", "c", "d"], None),
    ],
)
def test_tags_by_the_page(store: BlobStore, query: str, expected: list[str], link: tuple[str, str] | None) -> None:
    made.publish(store, {f"docker.io/library/nginx:{tag}": NGINX for tag in "dbca"})
    response = client_of(store).get(f"/v2/library/nginx/tags/list{query}")
    assert response.json == {"name": "library/nginx", "tags": expected}
    if link is None:
        assert "Link" not in response.headers
    else:
        assert response.headers["Link"] == f'</v2/library/nginx/tags/list?n={link[0]}&last={link[1]}>; rel="next"'


@pytest.mark.parametrize("number", ["-1", "x", "", "1.5", "%2b1"])
def test_a_page_of_no_number_is_refused(client: FlaskClient, number: str) -> None:
    assert client.get(f"/v2/library/nginx/tags/list?n={number}").status_code == 400


def test_a_query_that_is_not_ascii_is_refused(client: FlaskClient) -> None:
    answer = client.get("/v2/library/one/tags/list", environ_overrides={"QUERY_STRING": "ns=qu\x81ay.io"})
    assert (answer.status_code, code(answer)) == (400, "UNSUPPORTED")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_following_the_links_gives_everything_once(client: FlaskClient, size: int) -> None:
    def follow(path: str, key: str) -> list[str]:
        found: list[str] = []
        while path:
            response = client.get(path)
            assert response.status_code == 200
            found += body(response)[key]
            match = re.fullmatch(r'<(.+)>; rel="next"', response.headers.get("Link", ""))
            path = match[1] if match else ""
        return found

    assert follow(f"/v2/library/nginx/tags/list?n={size}&ns=quay.io", "tags") == ["1.27", "a-signature", "b-plain"]
    assert follow(f"/v2/_catalog?n={size}", "repositories") == sorted({name.rpartition(":")[0] for name in NAMES})


def test_referrers(client: FlaskClient) -> None:
    base = f"/v2/library/nginx/referrers/{QUAY.digest}"
    response = client.get(f"{base}?ns=quay.io")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == mediatypes.OCI_INDEX
    found = {item["digest"]: item for item in body(response)["manifests"]}
    assert body(response)["schemaVersion"] == 2
    assert set(found) == {SIGNATURE.digest, PLAIN.digest}
    assert found[SIGNATURE.digest] == {
        "mediaType": mediatypes.OCI_MANIFEST,
        "digest": SIGNATURE.digest,
        "size": len(SIGNATURE.raw),
        "artifactType": "application/x.sig",
        "annotations": {"by": "us"},
    }
    assert found[PLAIN.digest]["artifactType"] == mediatypes.OCI_CONFIG
    assert "OCI-Filters-Applied" not in response.headers
    filtered = client.get(f"{base}?ns=quay.io&artifactType=application/x.sig")
    assert [item["digest"] for item in body(filtered)["manifests"]] == [SIGNATURE.digest]
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"


def test_referrers_of_nothing_are_an_empty_list(client: FlaskClient) -> None:
    for path in (f"library/nginx/referrers/{QUAY.digest}", f"library/none/referrers/{made.sha(b'x')}"):
        response = client.get(f"/v2/{path}")
        assert (response.status_code, body(response)["manifests"]) == (200, [])


def test_a_damaged_manifest_is_503_and_never_sent(store: BlobStore) -> None:
    made.publish(store, {"docker.io/library/nginx:1.27": NGINX})
    path = store.path(NGINX.digest)
    path.chmod(0o644)
    path.write_bytes(NGINX.raw.replace(b"schemaVersion", b"SchemaVersion"))
    client = client_of(store)
    response = client.get("/v2/library/nginx/manifests/1.27")
    assert response.status_code == 503
    path.unlink()
    assert client.get("/v2/library/nginx/manifests/1.27").status_code == 503


@pytest.mark.parametrize("damage", ["lost", "cut", "flipped", "grown"])
def test_a_manifest_that_is_mended_is_served_in_the_same_request(store: BlobStore, damage: str) -> None:
    made.publish(store, {"docker.io/team/both:1": BOTH})

    class Mender(FakeFetcher):
        def mend(self, digest: str, size: int) -> None:
            assert size == len(BOTH.blobs[digest])
            store.path(digest).unlink(missing_ok=True)
            store.put_bytes(BOTH.blobs[digest])
            self.asked.append((digest, size, 0))

    fetcher = Mender()
    client = client_of(store, fetcher)
    child = BOTH.document["manifests"][0]["digest"]
    for digest in (BOTH.digest, child):
        path, raw = store.path(digest), BOTH.blobs[digest]
        path.unlink()
        if damage != "lost":
            path.write_bytes({"cut": raw[:9], "flipped": raw.replace(b"2", b"3"), "grown": raw * 9000}[damage])
        # The child by its digest: only the index, which is damaged first, says that it belongs here.
        response = client.get(f"/v2/team/both/manifests/{digest if digest == child else 1}")
        assert (response.status_code, response.data) == (200, raw)
    assert [digest for digest, _, _ in fetcher.asked] == [BOTH.digest, child]


def test_what_a_lost_index_lists_is_503_and_what_nothing_can_list_404(store: BlobStore) -> None:
    made.publish(store, {"docker.io/team/both:1": BOTH})
    store.path(BOTH.digest).unlink()
    client = client_of(store, FakeFetcher())
    child = BOTH.document["manifests"][0]["digest"]
    for path in (f"manifests/{child}", f"blobs/{child}", "manifests/1"):
        response = client.get(f"/v2/team/both/{path}")
        assert response.status_code == 503
        assert f"{BOTH.digest} is lost or damaged here" in response.get_data(as_text=True)
        assert "b is down" in response.get_data(as_text=True)
    assert client.get("/v2/team/both/manifests/2").status_code == 404
    assert client.get(f"/v2/team/none/manifests/{child}").status_code == 404


@pytest.mark.parametrize("first", [True, False])
def test_a_blob_that_cannot_be_read_is_reported(store: BlobStore, monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    big = made.image(9, size=1 << 20)
    made.publish(store, {"docker.io/library/nginx:1.27": big})
    fetcher = FakeFetcher()
    client = client_of(store, fetcher)
    real = os.pread

    def pread(handle: int, count: int, offset: int) -> bytes:
        if first or offset > 0:
            raise OSError(errno.EIO, "Input/output error")
        return real(handle, count, offset)

    monkeypatch.setattr(os, "pread", pread)
    path = f"/v2/library/nginx/blobs/{big.layers[0]}"
    if first:
        response = client.get(path)
        assert response.status_code == 503
        assert "Input/output error" in response.get_data(as_text=True)
    else:
        streamed = client.get(path, buffered=False)
        with pytest.raises(BrokenOff, match=r"ends at byte \d+ of .*Input/output error"):
            list(streamed.response)
        streamed.close()
    assert fetcher.suspects == [big.layers[0]]


def test_a_send_that_fails_for_the_file_is_told_from_a_client_that_left(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = store.put_bytes(made.noise(1, 1 << 20))
    here, there = socket.socketpair()
    with here, there:
        for error, reported in ((errno.EIO, 1), (errno.EPIPE, 0), (errno.ECONNRESET, 0)):
            opened, told = store.open(blob.digest), list[int]()
            assert opened is not None
            source = FileSource(*opened, failed=functools.partial(told.append, 1))
            body = BlobBody({SOCKET: here}, source, 0, 1 << 20)

            def sendfile(*_: Any, error: int = error) -> int:
                raise OSError(error, os.strerror(error))

            monkeypatch.setattr(os, "sendfile", sendfile)
            with pytest.raises(OSError, match=os.strerror(error)) as caught:
                list(body)
            assert isinstance(caught.value, BrokenOff) is bool(reported)
            assert len(told) == reported
            body.close()


def test_referrers_come_in_pages_of_a_bounded_size(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    signatures = [
        made.image(n, subject=QUAY, artifact_type="application/x.sig", annotations={"long": "x" * 900})
        for n in range(20, 40)
    ]
    names = {f"quay.io/library/nginx:s{number}": item for number, item in enumerate(signatures)}
    made.publish(store, {"quay.io/library/nginx:1.27": QUAY, **names})
    client = client_of(store)
    monkeypatch.setattr(app_module, "_REFERRERS_BYTES", 5000)
    path: str | None = f"/v2/library/nginx/referrers/{QUAY.digest}?ns=quay.io&artifactType=application/x.sig"
    found: list[str] = []
    while path is not None:
        response = client.get(path)
        assert response.status_code == 200
        assert len(response.data) < 5200
        assert response.headers["OCI-Filters-Applied"] == "artifactType"
        page = [item["digest"] for item in body(response)["manifests"]]
        assert page
        found += page
        link = response.headers.get("Link")
        path = link[1 : link.index(">")] if link else None
    assert found == sorted(item.digest for item in signatures)


def test_a_damaged_store_is_503_and_json(store: BlobStore) -> None:
    made.publish(store, {"docker.io/library/nginx:1.27": NGINX})
    client = client_of(store)
    (store.root / "index.json").write_bytes(b"rot")
    assert client.get("/v2/library/nginx/manifests/1.27").status_code == 503
    (store.root / "index.json").unlink()
    response = client.get("/v2/library/nginx/manifests/1.27")
    assert response.status_code == 503
    assert code(response) == "UNKNOWN"


paths = st.lists(
    st.sampled_from(
        ["v2", "library", "nginx", "manifests", "blobs", "tags", "list", "referrers", "1.27", "..", ".", "", "%2f", "%00",
         "_catalog", LAYER, "sha256:x", "quay.io", "%0a", "é"]
    ),
    max_size=7,
).map("/".join)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(paths, st.sampled_from(["", "?ns=quay.io", "?ns=%00", "?n=-5", "?n=3&last=%ff", "?ns=a&ns=b"]))
def test_no_path_breaks_it_or_leads_elsewhere(client: FlaskClient, path: str, query: str) -> None:
    response = client.get(f"/v2/{path}{query}")
    assert response.status_code in (200, 400, 404)
    assert response.status_code != 200 or response.data
    served: Mapping[str, bytes] = {k: v for item in NAMES.values() for k, v in item.blobs.items()}
    if response.status_code == 200 and "Docker-Content-Digest" in response.headers:
        assert response.data == served[digest(response)]
