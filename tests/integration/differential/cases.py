"""The requests, as tables: scenarios of one or more requests each, whose answers are compared one by one.

A scenario of the pair ``read`` goes to both pairs, before anything else changes what they hold. A path of ``@`` is the
``Location`` of the answer before; ``@?x=y`` adds to its query. ``{r}`` is a repository of the scenario's own.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from appliance.oci import mediatypes
from appliance.oci.manifests import MANIFEST_LIMIT
from tests.integration.differential.content import (
    BOTH,
    CONFIG,
    ELSEWHERE,
    EMPTY_JSON,
    LAYER,
    LAYER_BYTES,
    MISSING,
    MISSING_512,
    ONE,
    RAW,
    SIGNATURE,
    TWO,
    Document,
    descriptor,
    manifest,
)
from tests.integration.differential.servers import Headers
from tests.unit.store import made


@dataclass(frozen=True)
class Ask:
    """One request.

    :param path: below ``/v2``, beginning with ``/``; or ``@``, ``^``; or with ``//`` for one that is not below it.
    :param chunked: whether the body goes out in chunked transfer encoding, without a length.
    """

    method: str
    path: str
    headers: Headers = ()
    body: bytes = b""
    chunked: bool = False


@dataclass(frozen=True)
class Scenario:
    """Requests that follow each other.

    :param pair: which listeners are asked; ``read``: both pairs.
    :param name: ``group/what``.
    """

    pair: Literal["read", "write", "local"]
    name: str
    asks: tuple[Ask, ...]

    @property
    def repository(self) -> str:
        """The repository that ``{r}`` stands for."""
        return f"scenario/{self.name}".lower()

    @property
    def group(self) -> str:
        """The first part of its name."""
        return self.name.partition("/")[0]


def _get(path: str, *headers: tuple[str, str | None]) -> Ask:
    return Ask("GET", path, headers)


def _both(path: str, *headers: tuple[str, str | None]) -> tuple[Ask, Ask]:
    return Ask("GET", path, headers), Ask("HEAD", path, headers)


# --------------------------------------------------------------------------------------------- reading

_VERSION = {"slash": "/", "bare": "", "query": "/?a=b", "twice": "//v2//", "dot": "/./"}
_METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")

_PAGES = {
    "all": "",
    "n-1": "?n=1",
    "n-2": "?n=2",
    "all-of-them": "?n=1000",
    "n-0": "?n=0",
    "n-negative": "?n=-1",
    "n-word": "?n=x",
    "n-empty": "?n=",
    "n-huge": "?n=99999999999999999999",
    "n-float": "?n=1.5",
    "last": "?last={last}",
    "last-unknown": "?last=bb",
    "last-beyond": "?last=zzzz",
    "n-and-last": "?n=2&last={last}",
    "last-empty": "?n=2&last=",
    "last-encoded": "?n=1&last=%2F%00",
}

_ACCEPTS: dict[str, Headers] = {
    "none": (("Accept", None),),
    "oci": (("Accept", mediatypes.OCI_MANIFEST),),
    "docker": (("Accept", mediatypes.DOCKER_MANIFEST),),
    "oci-index": (("Accept", mediatypes.OCI_INDEX),),
    "docker-list": (("Accept", mediatypes.DOCKER_LIST),),
    "schema1": (("Accept", mediatypes.DOCKER_SCHEMA1),),
    "anything": (("Accept", "*/*"),),
    "nothing-of-ours": (("Accept", "text/html"),),
    "q-0": (("Accept", f"{mediatypes.OCI_MANIFEST};q=0, */*"),),
    "one-line": (("Accept", ", ".join((mediatypes.DOCKER_MANIFEST, mediatypes.OCI_MANIFEST, mediatypes.OCI_INDEX))),),
    "lines": tuple(
        ("Accept", kind) for kind in (mediatypes.DOCKER_MANIFEST, mediatypes.OCI_MANIFEST, mediatypes.OCI_INDEX)
    ),
    "rot": (("Accept", ";;,/"),),
}

_REFERENCES = {
    "tag": "1",
    "digest": ONE.digest,
    "other-tag": "c.d",
    "index": "both",
    "index-digest": BOTH.digest,
    "child": TWO.digest,
    "docker": "docker",
    "referrer": SIGNATURE.digest,
    "missing-tag": "none",
    "missing-digest": MISSING,
    "missing-sha512": MISSING_512,
    "layer": LAYER,
    "config": CONFIG,
    "elsewhere": ELSEWHERE.digest,
    "bad-digest": "sha256:abc",
    "upper-digest": "sha256:" + ONE.digest[7:].upper(),
    "md5": "md5:d41d8cd98f00b204e9800998ecf8427e",
    "no-algorithm": ":" + "0" * 64,
    "odd-tag": "-1",
    "long-tag": "x" * 129,
    "longest-tag": "x" * 128,
    "tag-and-digest": f"1@{ONE.digest}",
    "space": "a%20b",
    "encoded-colon": ONE.digest.replace(":", "%3A"),
    "encoded-digit": "%31",
    "slash": "1/",
    "empty": "",
}

_NAMES = {
    "unknown": "team/none",
    "one-part": "none",
    "short-name-of-the-hub": "nginx",
    "whole-name-of-the-hub": "library/nginx",
    "with-a-registry": "quay.io/team/app",
    "registry-of-the-hub": "docker.io/team/app",
    "words-of-routes": "team/manifests/blobs/tags",
    "deep": "deep/a.b/c_d/e__f/g--h/1",
    "untagged": "team/untagged",
    "capitals": "team/App",
    "underscore-at-the-end": "team/app_",
    "dot-at-the-end": "team/app.",
    "two-dots": "team/a..b",
    "three-underscores": "team/a___b",
    "hyphen-first": "-team/app",
    "too-long": "/".join(["a" * 50] * 5 + ["b"]),
    "longest-of-theirs": "a" * 255,
    "empty-part": "team//app",
    "slash-first": "/team/app",
    "slash-last": "team/app/",
    "dot-part": "team/./app",
    "parent-part": "team/../team/app",
    "beyond-the-top": "../../team/app",
    "encoded-slash": "team%2Fapp",
    "encoded-slash-lower": "team%2fapp",
    "encoded-dots": "%2e%2e/app",
    "encoded-letter": "te%61m/app",
    "encoded-nul": "team/a%00pp",
    "encoded-newline": "team/app%0a",
    "encoded-percent": "team/a%2525b",
    "bad-escape": "team/%zz",
    "space": "team/a%20b",
    "letters-beyond-ascii": "team/%C3%A4pp",
    "plus": "team/a+b",
    "colon": "host:5000/app",
    "backslash": "team%5Capp",
}

_BLOBS = {
    "layer": ("team/app", LAYER),
    "config": ("team/app", CONFIG),
    "of-a-child": ("team/app", TWO.layers[0]),
    "manifest": ("team/app", ONE.digest),
    "missing": ("team/app", MISSING),
    "missing-sha512": ("team/app", MISSING_512),
    "of-another-repository": ("team/app", ELSEWHERE.layers[0]),
    "in-a-repository-that-is-not": ("team/none", LAYER),
    "bad-digest": ("team/app", "sha256:abc"),
    "upper-digest": ("team/app", "sha256:" + LAYER[7:].upper()),
    "md5": ("team/app", "md5:d41d8cd98f00b204e9800998ecf8427e"),
    "tag": ("team/app", "latest"),
    "encoded-colon": ("team/app", LAYER.replace(":", "%3A")),
    "trailing-slash": ("team/app", f"{LAYER}/"),
    "below": ("team/app", f"{LAYER}/data"),
    "above": ("team/app", f"../blobs/{LAYER}"),
    "nothing": ("team/app", ""),
}

_SIZE = len(LAYER_BYTES)
_RANGES = {
    "first-byte": "bytes=0-0",
    "first-part": "bytes=0-99",
    "middle": "bytes=500-1499",
    "open-ended": "bytes=500-",
    "open-from-the-start": "bytes=0-",
    "suffix": "bytes=-500",
    "suffix-of-one": "bytes=-1",
    "suffix-of-none": "bytes=-0",
    "suffix-beyond": f"bytes=-{_SIZE + 10}",
    "clipped": f"bytes=2000-{_SIZE + 1000}",
    "whole": f"bytes=0-{_SIZE - 1}",
    "last-byte": f"bytes={_SIZE - 1}-{_SIZE - 1}",
    "at-the-end": f"bytes={_SIZE}-",
    "beyond": f"bytes={_SIZE + 1}-{_SIZE + 10}",
    "backwards": "bytes=500-0",
    "huge": f"bytes=0-{10**30}",
    "huge-start": f"bytes={10**30}-",
    "largest-number": f"bytes=0-{2**63 - 1}",
    "two-parts": "bytes=0-9,20-29",
    "two-parts-with-a-space": "bytes=0-9, 20-29",
    "one-of-two-beyond": f"bytes=0-9,{_SIZE + 5}-",
    "both-beyond": f"bytes={_SIZE}-,{_SIZE + 5}-",
    "overlapping": "bytes=0-99,50-149",
    "many": "bytes=" + ",".join(f"{n}-{n}" for n in range(60)),
    "upper-unit": "Bytes=0-9",
    "other-unit": "items=0-9",
    "no-unit": "0-9",
    "no-numbers": "bytes=-",
    "no-range": "bytes=",
    "words": "bytes=a-b",
    "one-number": "bytes=5",
    "signed": "bytes=+0-+9",
    "negative": "bytes=--5",
    "spaces": "bytes= 0-9 ",
    "space-inside": "bytes=0 - 9",
    "hexadecimal": "bytes=0x0-0x9",
    "empty": "",
}

_TAG = f'"{LAYER}"'
_BLOB_CONDITIONS: dict[str, Headers] = {
    "none-match": (("If-None-Match", _TAG),),
    "none-match-weak": (("If-None-Match", f"W/{_TAG}"),),
    "none-match-other": (("If-None-Match", f'"{MISSING}"'),),
    "none-match-list": (("If-None-Match", f'"x", {_TAG}'),),
    "none-match-any": (("If-None-Match", "*"),),
    "none-match-unquoted": (("If-None-Match", LAYER),),
    "none-match-rot": (("If-None-Match", '"x'),),
    "none-match-with-a-range": (("If-None-Match", _TAG), ("Range", "bytes=0-9")),
    "match": (("If-Match", _TAG),),
    "match-other": (("If-Match", f'"{MISSING}"'),),
    "match-weak": (("If-Match", f"W/{_TAG}"),),
    "match-any": (("If-Match", "*"),),
    "if-range": (("If-Range", _TAG), ("Range", "bytes=0-9")),
    "if-range-other": (("If-Range", f'"{MISSING}"'), ("Range", "bytes=0-9")),
    "if-range-weak": (("If-Range", f"W/{_TAG}"), ("Range", "bytes=0-9")),
    "if-range-date": (("If-Range", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Range", "bytes=0-9")),
    "if-range-other-beyond": (("If-Range", f'"{MISSING}"'), ("Range", f"bytes={_SIZE}-")),
    "modified-since": (("If-Modified-Since", "Thu, 01 Jan 2037 00:00:00 GMT"),),
    "unmodified-since": (("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"),),
    "gzip": (("Accept-Encoding", "gzip"),),
}
_MANIFEST_CONDITIONS: dict[str, Headers] = {
    "none-match": (("If-None-Match", f'"{ONE.digest}"'),),
    "none-match-other": (("If-None-Match", f'"{MISSING}"'),),
    "none-match-list": (("If-None-Match", f'"x", "{ONE.digest}"'),),
    "none-match-unquoted": (("If-None-Match", ONE.digest),),
    "none-match-weak": (("If-None-Match", f'W/"{ONE.digest}"'),),
    "none-match-any": (("If-None-Match", "*"),),
    "match-other": (("If-Match", f'"{MISSING}"'),),
    "range": (("Range", "bytes=0-9"),),
    "gzip": (("Accept-Encoding", "gzip"),),
}

_UNKNOWN = {
    "top": "//",
    "elsewhere": "//nowhere",
    "v1": "//v1/",
    "v3": "//v3/",
    "v2-without-slash": "//v2team",
    "name-alone": "/team/app",
    "name-alone-with-slash": "/team/app/",
    "no-such-kind": "/team/app/images/1",
    "tags": "/team/app/tags",
    "tags-with-slash": "/team/app/tags/",
    "tags-list-with-slash": "/team/app/tags/list/",
    "tags-other": "/team/app/tags/other",
    "manifests": "/team/app/manifests",
    "manifests-with-slash": "/team/app/manifests/",
    "blobs": "/team/app/blobs",
    "blobs-with-slash": "/team/app/blobs/",
    "catalog-with-slash": "/_catalog/",
    "catalog-below": "/_catalog/x",
    "extensions": "/_oci/ext/discover",
    "favicon": "//favicon.ico",
    "health": "//healthz",
    "fragment": "/team/app/tags/list%23x",
    "question": "/team/app/tags/list%3Fn=1",
    "semicolon": "/team/app/tags/list;x=1",
}  # fmt: skip


def _reading() -> Iterator[Scenario]:
    def scenario(name: str, *asks: Ask) -> Scenario:
        return Scenario("read", name, asks)

    for name, path in _VERSION.items():
        yield scenario(f"version/{name}", *_both(path or "//v2"))
    for name, query in _PAGES.items():
        yield scenario(f"catalog/{name}", _get("/_catalog" + query.format(last=quote("team/app", safe=""))))
        yield scenario(f"tags/{name}", _get("/team/app/tags/list" + query.format(last="a")))
    yield scenario("catalog/head", Ask("HEAD", "/_catalog"))
    yield scenario("tags/head", Ask("HEAD", "/team/app/tags/list"))
    yield scenario("tags/followed", _get("/team/app/tags/list?n=3"), _get("/team/app/tags/list?n=3&last=a"))
    for name, headers in _ACCEPTS.items():
        for what, reference in (("image", "1"), ("index", "both"), ("docker", "docker"), ("digest", ONE.digest)):
            yield scenario(f"accept/{name}-{what}", Ask("GET", f"/team/app/manifests/{reference}", headers))
    for name, reference in _REFERENCES.items():
        yield scenario(f"manifest/{name}", *_both(f"/team/app/manifests/{reference}"))
    for name, repository in _NAMES.items():
        yield scenario(f"name/{name}-manifest", _get(f"/{repository}/manifests/1"))
        yield scenario(f"name/{name}-tags", _get(f"/{repository}/tags/list"))
        yield scenario(f"name/{name}-blob", Ask("HEAD", f"/{repository}/blobs/{TWO.layers[0]}"))
    for name, (repository, digest) in _BLOBS.items():
        yield scenario(f"blob/{name}", *_both(f"/{repository}/blobs/{digest}"))
    for name, value in _RANGES.items():
        yield scenario(f"range/{name}", *_both(f"/team/app/blobs/{LAYER}", ("Range", value)))
    for name, headers in _BLOB_CONDITIONS.items():
        yield scenario(f"condition/blob-{name}", *_both(f"/team/app/blobs/{LAYER}", *headers))
    for name, headers in _MANIFEST_CONDITIONS.items():
        yield scenario(f"condition/manifest-{name}", *_both("/team/app/manifests/1", *headers))
    for name, digest in (("some", ONE.digest), ("none", TWO.digest), ("missing", MISSING), ("bad", "sha256:abc")):
        yield scenario(f"referrers/{name}", *_both(f"/team/app/referrers/{digest}"))
    yield scenario("referrers/filtered", _get(f"/team/app/referrers/{ONE.digest}?artifactType=application/x.sig"))
    yield scenario("referrers/unknown-repository", _get(f"/team/none/referrers/{ONE.digest}"))
    yield scenario("referrers/by-tag", _get(f"/team/app/manifests/{ONE.digest.replace(':', '-')}"))
    for name, path in _UNKNOWN.items():
        yield scenario(f"unknown/{name}", _get(path))
    for method in _METHODS:
        for what, path in (
            ("version", "/"),
            ("catalog", "/_catalog"),
            ("tags", "/team/app/tags/list"),
            ("unknown", "/team/app"),
        ):
            yield scenario(f"method/{method}-{what}", Ask(method, path))
    for method in ("POST", "PATCH", "BREW", "OPTIONS"):
        yield scenario(f"method/{method}-manifest", Ask(method, "/team/app/manifests/1"))
    for method in ("POST", "PUT", "PATCH", "BREW"):
        yield scenario(f"method/{method}-blob", Ask(method, f"/team/app/blobs/{LAYER}"))


# --------------------------------------------------------------------- what the local listener refuses


def _refused() -> Iterator[Scenario]:
    upload = "/team/app/blobs/uploads/" + "0" * 32
    for name, ask in {
        "start": Ask("POST", "/team/app/blobs/uploads/"),
        "start-with-digest": Ask("POST", f"/team/app/blobs/uploads/?digest={made.sha(RAW)}", body=RAW),
        "mount": Ask("POST", f"/team/app/blobs/uploads/?mount={LAYER}&from=team/other"),
        "chunk": Ask("PATCH", upload, body=RAW),
        "finish": Ask("PUT", f"{upload}?digest={made.sha(RAW)}", body=RAW),
        "cancel": Ask("DELETE", upload),
        "status": Ask("GET", upload),
        "manifest": Ask("PUT", "/team/app/manifests/9", (("Content-Type", mediatypes.OCI_MANIFEST),), ONE.raw),
        "delete-tag": Ask("DELETE", "/team/app/manifests/1"),
        "delete-manifest": Ask("DELETE", f"/team/app/manifests/{ONE.digest}"),
        "delete-blob": Ask("DELETE", f"/team/app/blobs/{LAYER}"),
    }.items():
        yield Scenario("local", f"refused/{name}", (ask,))


# --------------------------------------------------------------------------------------- who is let in


def _credentials() -> Iterator[Scenario]:
    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    wrong: dict[str, str | None] = {
        "none": None,
        "wrong-password": basic("ops:wrong password of it"),
        "wrong-name": basic("root:correct horse battery"),
        "no-colon": basic("ops"),
        "not-base64": "Basic ???",
        "bearer": "Bearer abc",
        "scheme-alone": "Basic",
        "empty-password": basic("ops:"),
    }
    for name, value in wrong.items():
        header = (("Authorization", value),)
        for what, ask in {
            "version": Ask("GET", "/", header),
            "manifest": Ask("GET", "/team/app/manifests/1", header),
            "manifest-head": Ask("HEAD", "/team/app/manifests/1", header),
            "missing": Ask("GET", "/team/none/manifests/1", header),
            "bad-name": Ask("GET", "/team/App/manifests/1", header),
            "blob": Ask("GET", f"/team/app/blobs/{LAYER}", header),
            "catalog": Ask("GET", "/_catalog", header),
            "start": Ask("POST", "/team/app/blobs/uploads/", header),
            "push": Ask("PUT", "/team/app/manifests/9", (*header, ("Content-Type", mediatypes.OCI_MANIFEST)), ONE.raw),
            "delete": Ask("DELETE", f"/team/app/manifests/{ONE.digest}", header),
            "unknown": Ask("GET", "/team/app", header),
        }.items():
            if name == "none" or what in ("version", "push"):
                yield Scenario("write", f"credentials/{name}-{what}", (ask,))


# ---------------------------------------------------------------------------------------------- uploads

_START = Ask("POST", "/{r}/blobs/uploads/")
_STATUS = Ask("GET", "@")
_DIGEST, _DIGEST_512, _EMPTY = made.sha(RAW), made.sha(RAW, "sha512"), made.sha(b"")
_SERVED = Ask("GET", "/{r}/blobs/" + _DIGEST)


def _range(first: int, last: int) -> Headers:
    return (("Content-Range", f"{first}-{last}"),)


def _patch(body: bytes = RAW, headers: Headers = (), *, chunked: bool = False) -> Ask:
    return Ask("PATCH", "@", headers, body, chunked)


def _put(digest: str | None = _DIGEST, body: bytes = b"", headers: Headers = (), *, chunked: bool = False) -> Ask:
    return Ask("PUT", "@" if digest is None else f"@?digest={digest}", headers, body, chunked)


_CHUNK_RANGES = {
    "with-a-unit": "bytes 0-5999/6000",
    "with-an-equals-sign": "bytes=0-5999",
    "open": "0-",
    "suffix": "-5999",
    "words": "a-b",
    "backwards": "5999-0",
    "too-short": "0-99",
    "too-long": "0-9999",
    "spaces": "0 - 5999",
    "one-number": "0",
    "huge": f"0-{10**30}",
}
_BAD_DIGESTS = {
    "none": None,
    "empty": "",
    "word": "x",
    "short": "sha256:abc",
    "upper": "sha256:" + _DIGEST[7:].upper(),
    "md5": "md5:d41d8cd98f00b204e9800998ecf8427e",
    "sha384": made.sha(RAW, "sha384"),
    "of-other-bytes": MISSING,
    "sha512-of-other-bytes": MISSING_512,
    "half-sha512": _DIGEST_512[:71],
}
_MOUNTS = {
    "there": f"mount={LAYER}&from=team/app",
    "missing": f"mount={MISSING}&from=team/app",
    "from-a-repository-that-is-not": f"mount={LAYER}&from=team/none",
    "from-one-that-has-it-not": f"mount={LAYER}&from=team/other",
    "from-nowhere": f"mount={LAYER}",
    "from-empty": f"mount={LAYER}&from=",
    "from-a-bad-name": f"mount={LAYER}&from=team/App",
    "bad-digest": "mount=sha256:abc&from=team/app",
    "manifest": f"mount={ONE.digest}&from=team/app",
    "from-without-mount": "from=team/app",
    "sha512": f"mount={MISSING_512}&from=team/app",
}
_HALF = len(RAW) // 2
_FIRST, _SECOND = RAW[:_HALF], RAW[_HALF:]
_FIRST_RANGE, _SECOND_RANGE = _range(0, _HALF - 1), _range(_HALF, len(RAW) - 1)


def _uploads() -> Iterator[Scenario]:
    def scenario(name: str, *asks: Ask) -> Scenario:
        return Scenario("write", f"upload/{name}", asks)

    whole = {"post-then-put": (_START, _put(body=RAW)), "patch-then-put": (_START, _patch(), _put())}
    for name, asks in whole.items():
        yield scenario(name, *asks, _SERVED, Ask("HEAD", "/{r}/blobs/" + _DIGEST), Ask("GET", "@"))
    yield scenario("one-post", Ask("POST", f"/{{r}}/blobs/uploads/?digest={_DIGEST}", body=RAW), _SERVED)
    yield scenario("one-post-with-a-wrong-digest", Ask("POST", f"/{{r}}/blobs/uploads/?digest={MISSING}", body=RAW))
    yield scenario("one-post-with-a-bad-digest", Ask("POST", "/{r}/blobs/uploads/?digest=sha256:abc", body=RAW))
    yield scenario("one-post-chunked", Ask("POST", f"/{{r}}/blobs/uploads/?digest={_DIGEST}", body=RAW, chunked=True))
    yield scenario("stream", _START, _patch(chunked=True), _STATUS, _put(), _SERVED)
    yield scenario("stream-with-the-put", _START, _put(body=RAW, chunked=True), _SERVED)
    yield scenario("two-streams", _START, _patch(_FIRST), _STATUS, _patch(_SECOND), _STATUS, _put(), _SERVED)
    yield scenario(
        "chunks", _START, _STATUS, _patch(_FIRST, _FIRST_RANGE), _STATUS, _patch(_SECOND, _SECOND_RANGE), _STATUS, _put(),
        _SERVED,
    )  # fmt: skip
    yield scenario(
        "last-chunk-with-the-put",
        _START,
        _patch(_FIRST, _FIRST_RANGE),
        _put(body=_SECOND, headers=_SECOND_RANGE),
        _SERVED,
    )
    yield scenario("last-part-with-the-put", _START, _patch(_FIRST), _put(body=_SECOND), _SERVED)
    yield scenario("first-chunk-out-of-order", _START, _patch(_SECOND, _SECOND_RANGE), _STATUS, Ask("DELETE", "@"))
    yield scenario(
        "same-chunk-again", _START, _patch(_FIRST, _FIRST_RANGE), _patch(_FIRST, _FIRST_RANGE), Ask("GET", "@")
    )
    yield scenario(
        "overlapping-chunk", _START, _patch(_FIRST, _FIRST_RANGE), _patch(RAW[10:20], _range(10, 19)), Ask("GET", "@")
    )
    yield scenario(
        "chunk-after-a-gap",
        _START,
        _patch(_FIRST, _FIRST_RANGE),
        _patch(RAW[-10:], _range(5990, 5999)),
        Ask("GET", "@"),
    )
    yield scenario(
        "put-out-of-order",
        _START,
        _patch(_FIRST, _FIRST_RANGE),
        _put(body=RAW[-10:], headers=_range(5990, 5999)),
        Ask("GET", "@"),
    )
    for name, value in _CHUNK_RANGES.items():
        yield scenario(f"content-range-{name}", _START, _patch(headers=(("Content-Range", value),)), Ask("GET", "@"))
    for name, digest in _BAD_DIGESTS.items():
        yield scenario(f"digest-{name}", _START, _patch(), _put(digest), Ask("GET", "@"))
    yield scenario("digest-twice", _START, _patch(), Ask("PUT", f"@?digest={_DIGEST}&digest={MISSING}"))
    yield scenario("sha512", _START, _patch(), _put(_DIGEST_512), Ask("GET", "/{r}/blobs/" + _DIGEST_512))
    yield scenario(
        "sha512-announced", Ask("POST", "/{r}/blobs/uploads/?digest-algorithm=sha512"), _put(_DIGEST_512, RAW)
    )
    yield scenario("unknown-algorithm-announced", Ask("POST", "/{r}/blobs/uploads/?digest-algorithm=md5"))
    yield scenario(
        "empty",
        _START,
        _put(_EMPTY),
        Ask("GET", "/{r}/blobs/" + _EMPTY),
        Ask("GET", "/{r}/blobs/" + _EMPTY, (("Range", "bytes=0-"),)),
    )
    yield scenario("empty-patch", _START, _patch(b""), _STATUS, _put(_EMPTY))
    yield scenario("same-blob-again", _START, _put(body=RAW), _START, _put(body=RAW), _SERVED)
    yield scenario(
        "in-two-repositories",
        Ask("POST", "/{r}/a/blobs/uploads/"),
        _put(body=RAW),
        Ask("HEAD", f"/{{r}}/b/blobs/{_DIGEST}"),
    )
    yield scenario("status", _START, _STATUS, Ask("HEAD", "@"), _patch(), _STATUS, Ask("HEAD", "@"))
    yield scenario("cancel", _START, _patch(), Ask("DELETE", "@"), *(Ask(method, "@") for method in ("GET", "DELETE")))
    yield scenario("patch-after-cancel", _START, Ask("DELETE", "@"), Ask("PATCH", "@", body=RAW))
    yield scenario("put-after-cancel", _START, Ask("DELETE", "@"), Ask("PUT", f"@?digest={_DIGEST}", body=RAW))
    yield scenario(
        "finished-again", _START, _put(body=RAW), Ask("PUT", f"@?digest={_DIGEST}", body=RAW), Ask("DELETE", "@")
    )
    yield scenario("content-type-other", _START, _patch(headers=(("Content-Type", "text/plain"),)))
    yield scenario("content-type-octets", _START, _patch(headers=(("Content-Type", "application/octet-stream"),)))
    yield scenario(
        "content-type-form", _START, _patch(b"a=b", (("Content-Type", "application/x-www-form-urlencoded"),))
    )
    yield scenario("post-to-the-upload", _START, Ask("POST", "@"))
    yield scenario("start-without-slash", Ask("POST", "/{r}/blobs/uploads"))
    yield scenario("start-with-a-body", Ask("POST", "/{r}/blobs/uploads/", body=RAW), _STATUS)
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
        yield scenario(f"collection-{method}", Ask(method, "/{r}/blobs/uploads/"))
    for name, identity in {
        "unknown": "0" * 32,
        "of-theirs": "11111111-2222-3333-4444-555555555555",
        "word": "x",
        "encoded-slash": "..%2F..%2Fx",
        "encoded-nul": "%00",
    }.items():
        for method in ("GET", "PATCH", "PUT", "DELETE"):
            query = f"?digest={_DIGEST}" if method == "PUT" else ""
            yield scenario(f"id-{name}-{method}", Ask(method, f"/{{r}}/blobs/uploads/{identity}{query}"))
    for name, query in _MOUNTS.items():
        yield scenario(
            f"mount-{name}", Ask("POST", f"/{{r}}/blobs/uploads/?{query}"), Ask("HEAD", f"/{{r}}/blobs/{LAYER}")
        )
    for name in (
        "capitals",
        "three-underscores",
        "too-long",
        "hyphen-first",
        "encoded-slash",
        "empty-part",
        "with-a-registry",
    ):
        yield scenario(f"name-{name}", Ask("POST", f"/{_NAMES[name]}/blobs/uploads/"))


# -------------------------------------------------------------------------------------------- manifests


def _blob(raw: bytes = EMPTY_JSON) -> tuple[Ask, Ask]:
    return _START, Ask("PUT", f"@?digest={made.sha(raw)}", (), raw)


def _push(document: Document, reference: str = "1", query: str = "", *, chunked: bool = False) -> Ask:
    headers = (("Content-Type", document.media_type),) if document.media_type else ()
    return Ask("PUT", f"/{{r}}/manifests/{reference}{query}", headers, document.raw, chunked)


_LAYER_OF = descriptor(RAW, mediatypes.OCI_LAYER)
_SUBJECT = {"mediaType": mediatypes.OCI_MANIFEST, "digest": MISSING, "size": 7}
_PLAIN = manifest()
_ARTIFACT = manifest(
    artifactType="application/x.sbom", config=descriptor(EMPTY_JSON, "application/vnd.oci.empty.v1+json")
)
_INDEX = made.compact({"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": []})
_OF_PLAIN = made.compact(
    {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": [{"mediaType": mediatypes.OCI_MANIFEST, "digest": _PLAIN.digest, "size": len(_PLAIN.raw)}],
    }
)
_DOCKER_PLAIN = Document(
    made.compact(
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.DOCKER_MANIFEST,
            "config": descriptor(EMPTY_JSON, mediatypes.DOCKER_CONFIG),
            "layers": [],
        }
    ),
    mediatypes.DOCKER_MANIFEST,
)
_FOREIGN = descriptor(
    b"elsewhere",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    urls=["https://store.site/base"],
)
_DOCKER_FOREIGN = descriptor(
    b"elsewhere", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls=["https://store.site/base"]
)


def _padded(size: int) -> Document:
    empty = len(manifest(annotations={"x": ""}).raw)
    return manifest(annotations={"x": "y" * (size - empty)})


_DOCUMENTS = {
    "plain": _PLAIN,
    "docker": _DOCKER_PLAIN,
    "artifact": _ARTIFACT,
    "empty-index": Document(_INDEX, mediatypes.OCI_INDEX),
    "sparse-index": Document(_OF_PLAIN, mediatypes.OCI_INDEX),
    "missing-config": manifest(config=descriptor(b"not here", mediatypes.OCI_CONFIG)),
    "missing-layer": manifest(layers=[_LAYER_OF]),
    "layer-of-another-repository": manifest(layers=[descriptor(LAYER_BYTES, mediatypes.OCI_LAYER)]),
    "lies-about-a-size": manifest(config={**descriptor(EMPTY_JSON, mediatypes.OCI_CONFIG), "size": 3}),
    "negative-size": manifest(config={**descriptor(EMPTY_JSON, mediatypes.OCI_CONFIG), "size": -1}),
    "foreign-layer": manifest(layers=[_FOREIGN]),
    "foreign-docker-layer": Document(
        made.compact(
            {
                "schemaVersion": 2,
                "mediaType": mediatypes.DOCKER_MANIFEST,
                "config": descriptor(EMPTY_JSON, mediatypes.DOCKER_CONFIG),
                "layers": [_DOCKER_FOREIGN],
            }
        ),
        mediatypes.DOCKER_MANIFEST,
    ),
    "subject": manifest(subject=_SUBJECT),
    "bad-subject": manifest(subject={"digest": "x"}),
    "unknown-fields": manifest(extra={"a": [1, None]}),
    "no-media-type-inside": manifest(drop=("mediaType",)),
    "no-config": manifest(drop=("config",)),
    "no-layers": manifest(drop=("layers",)),
    "layers-null": manifest(layers=None),
    "no-schema-version": manifest(drop=("schemaVersion",)),
    "schema-version-3": manifest(schemaVersion=3),
    "schema-version-1": manifest(schemaVersion=1),
    "both-kinds": manifest(manifests=[]),
    "both-kinds-with-content": manifest(manifests=[descriptor(_PLAIN.raw, mediatypes.OCI_MANIFEST)]),
    "other-media-type-inside": manifest(mediaType=mediatypes.DOCKER_MANIFEST),
    "index-sent-as-image": Document(_INDEX),
    "image-sent-as-index": Document(_PLAIN.raw, mediatypes.OCI_INDEX),
    "no-content-type": Document(_PLAIN.raw, ""),
    "content-type-json": Document(_PLAIN.raw, "application/json"),
    "content-type-text": Document(_PLAIN.raw, "text/plain"),
    "content-type-unknown": Document(_PLAIN.raw, "application/vnd.example.thing+json"),
    "content-type-rot": Document(_PLAIN.raw, ";;"),
    "content-type-with-charset": Document(_PLAIN.raw, f"{mediatypes.OCI_MANIFEST}; charset=utf-8"),
    "content-type-in-capitals": Document(_PLAIN.raw, mediatypes.OCI_MANIFEST.upper()),
    "content-type-schema1": Document(_PLAIN.raw, mediatypes.DOCKER_SCHEMA1),
    "empty-body": Document(b""),
    "rot": Document(b"rot"),
    "cut-short": Document(_PLAIN.raw[:-5]),
    "list": Document(b"[]"),
    "null": Document(b"null"),
    "bytes-after-it": Document(_PLAIN.raw + b"{}"),
    "spaces-around-it": Document(b" \n" + _PLAIN.raw + b"\n"),
    "a-key-twice": Document(_PLAIN.raw[:-1] + b',"schemaVersion":2}'),
    "a-key-in-another-case": Document(_PLAIN.raw[:-1] + b',"Layers":[]}'),
    "byte-order-mark": Document(b"\xef\xbb\xbf" + _PLAIN.raw),
    "not-utf-8": Document(_PLAIN.raw.replace(b'"layers"', b'"\xff":1,"layers"')),
    "deep": Document(_PLAIN.raw[:-1] + b',"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
    "large": _padded(1 << 20),
    "largest": _padded(MANIFEST_LIMIT),
    "too-large": _padded(MANIFEST_LIMIT + 1),
}  # fmt: skip

_PUT_REFERENCES = {
    "digest": _PLAIN.digest,
    "sha512": made.sha(_PLAIN.raw, "sha512"),
    "other-digest": MISSING,
    "other-sha512": MISSING_512,
    "bad-digest": "sha256:abc",
    "md5": "md5:d41d8cd98f00b204e9800998ecf8427e",
    "odd-tag": "-1",
    "long-tag": "x" * 129,
    "longest-tag": "x" * 128,
    "space": "a%20b",
}


def _manifests() -> Iterator[Scenario]:
    def scenario(name: str, *asks: Ask) -> Scenario:
        return Scenario("write", f"push/{name}", asks)

    for name, document in _DOCUMENTS.items():
        yield scenario(name, *_blob(), _push(document), Ask("GET", "/{r}/manifests/1"), Ask("HEAD", "/{r}/manifests/1"))
    for name, reference in _PUT_REFERENCES.items():
        yield scenario(f"as-{name}", *_blob(), _push(_PLAIN, reference), Ask("GET", "/{r}/manifests/" + reference))
    yield scenario("chunked", *_blob(), _push(_PLAIN, chunked=True), Ask("GET", "/{r}/manifests/1"))
    yield scenario("chunked-too-large", *_blob(), _push(_DOCUMENTS["too-large"], chunked=True))
    yield scenario(
        "by-digest-with-tags", *_blob(), _push(_PLAIN, _PLAIN.digest, "?tag=a&tag=b"), Ask("GET", "/{r}/tags/list")
    )
    yield scenario("into-a-new-repository", _push(_PLAIN), Ask("GET", "/{r}/tags/list"))
    yield scenario("same-again", *_blob(), _push(_PLAIN), _push(_PLAIN), Ask("GET", "/{r}/tags/list"))
    yield scenario(
        "tag-moves", *_blob(), _push(_PLAIN), _push(_ARTIFACT), Ask("GET", "/{r}/manifests/1"),
        Ask("GET", "/{r}/manifests/" + _PLAIN.digest),
    )  # fmt: skip
    yield scenario(
        "index", *_blob(), _push(_PLAIN, _PLAIN.digest), _push(Document(_OF_PLAIN, mediatypes.OCI_INDEX), "all"),
        Ask("GET", "/{r}/manifests/all"), Ask("GET", "/{r}/manifests/" + _PLAIN.digest), Ask("GET", "/{r}/tags/list"),
    )  # fmt: skip
    yield scenario(
        "referrers-after-it",
        *_blob(),
        _push(manifest(subject=_SUBJECT), "s"),
        Ask("GET", f"/{{r}}/referrers/{MISSING}"),
    )
    for name in ("capitals", "three-underscores", "too-long", "encoded-slash", "empty-part"):
        yield scenario(
            f"name-{name}",
            Ask("PUT", f"/{_NAMES[name]}/manifests/1", (("Content-Type", _PLAIN.media_type),), _PLAIN.raw),
        )


# -------------------------------------------------------------------------------------------- deletions


def _deletions() -> Iterator[Scenario]:
    def scenario(name: str, *asks: Ask) -> Scenario:
        return Scenario("write", f"delete/{name}", asks)

    two = (*_blob(), _push(_PLAIN), _push(_PLAIN, "2"))
    lists = Ask("GET", "/{r}/tags/list")
    by_digest = f"/{{r}}/manifests/{_PLAIN.digest}"
    config = f"/{{r}}/blobs/{made.sha(EMPTY_JSON)}"
    yield scenario(
        "tag", *two, Ask("DELETE", "/{r}/manifests/1"), Ask("GET", "/{r}/manifests/1"), lists, _get(by_digest)
    )
    yield scenario("last-tag", *_blob(), _push(_PLAIN), Ask("DELETE", "/{r}/manifests/1"), lists, _get(by_digest))
    yield scenario("manifest", *two, Ask("DELETE", by_digest), _get(by_digest), Ask("HEAD", "/{r}/manifests/1"), lists)
    yield scenario("manifest-twice", *two, Ask("DELETE", by_digest), Ask("DELETE", by_digest))
    yield scenario("manifest-pushed-again", *two, Ask("DELETE", by_digest), _push(_PLAIN), _get(by_digest), lists)
    yield scenario(
        "child", *_blob(), _push(_PLAIN, _PLAIN.digest), _push(Document(_OF_PLAIN, mediatypes.OCI_INDEX), "all"),
        Ask("DELETE", by_digest), Ask("GET", "/{r}/manifests/all"), _get(by_digest),
    )  # fmt: skip
    yield scenario(
        "blob",
        _START,
        _put(body=RAW),
        Ask("DELETE", "/{r}/blobs/" + _DIGEST),
        _SERVED,
        Ask("DELETE", "/{r}/blobs/" + _DIGEST),
    )
    yield scenario(
        "blob-uploaded-again",
        _START,
        _put(body=RAW),
        Ask("DELETE", "/{r}/blobs/" + _DIGEST),
        _START,
        _put(body=RAW),
        _SERVED,
    )
    yield scenario("blob-in-use", *two, Ask("DELETE", config), Ask("HEAD", config), Ask("GET", "/{r}/manifests/1"))
    yield scenario(
        "blob-after-its-manifest", *two, Ask("DELETE", by_digest), Ask("DELETE", config), Ask("HEAD", config)
    )
    yield scenario(
        "blob-of-one-repository", _START, _put(body=RAW),
        Ask("POST", f"/{{r}}/b/blobs/uploads/?mount={_DIGEST}&from={{r}}"),
        Ask("DELETE", "/{r}/blobs/" + _DIGEST), Ask("HEAD", f"/{{r}}/b/blobs/{_DIGEST}"),
    )  # fmt: skip
    for name, path in {
        "missing-tag": "/team/app/manifests/none",
        "missing-manifest": f"/team/app/manifests/{MISSING}",
        "manifest-of-no-repository": f"/team/none/manifests/{MISSING}",
        "tag-of-no-repository": "/team/none/manifests/1",
        "bad-digest": "/team/app/manifests/sha256:abc",
        "odd-tag": "/team/app/manifests/-1",
        "bad-name": "/team/App/manifests/1",
        "missing-blob": f"/team/app/blobs/{MISSING}",
        "blob-of-another-repository": f"/team/app/blobs/{ELSEWHERE.layers[0]}",
        "blob-of-no-repository": f"/team/none/blobs/{LAYER}",
        "bad-blob": "/team/app/blobs/sha256:abc",
        "blob-bad-name": f"/team/App/blobs/{LAYER}",
        "tags": "/team/app/tags/list",
        "tag-of-the-list": "/team/app/tags/1",
        "repository": "/team/app",
        "catalog": "/_catalog",
    }.items():
        yield scenario(name, Ask("DELETE", path))


SCENARIOS: tuple[Scenario, ...] = (
    *_reading(), *_refused(), *_credentials(), *_uploads(), *_manifests(), *_deletions(),
)  # fmt: skip
"""All of them, those that only read first."""


def pairs_of(scenario: Scenario) -> tuple[str, ...]:
    """The pairs that a scenario goes to."""
    return ("write", "local") if scenario.pair == "read" else (scenario.pair,)


def requests() -> int:
    """How many requests go to each side."""
    return sum(len(scenario.asks) * len(pairs_of(scenario)) for scenario in SCENARIOS)
