"""HTTP: any sequence of requests to both listeners, reading and writing.

Input: requests as text, with a line of ``--`` between two. The first line is who asks and where, the method and the
target; then header lines; then, after an empty line, the body::

    P+ PUT {location}?digest={digest}
    Content-Range: 0-4

    hello

``L`` is 127.0.0.1:5000 and ``P`` the peers' 5443; ``+`` sends an operator's credentials, ``-`` nothing, ``*`` the
body in chunked transfer encoding and credentials. ``{location}`` is the last Location that was answered, ``{digest}``
the body's own digest, ``{1}`` to ``{9}`` digests that were seeded.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_to_bytes

from appliance.oci.digests import digest_of, is_digest
from appliance.oci.reference import split_path
from tests.fuzz.targets.ranges import expected_range
from tests.fuzz.world import BOTH, LOST, LOST_LAYER, ONE, OPERATOR, SIGNATURE, SITE, TWO, Answer, World, reached, world

_DIGESTS = (
    ONE.digest,
    ONE.layers[0],
    ONE.document["config"]["digest"],
    TWO.digest,
    TWO.layers[0],
    BOTH.digest,
    SIGNATURE.digest,
    LOST.digest,
    LOST_LAYER,
)
_MOST_REQUESTS = 8
_LENGTH_LIMIT = 1 << 40
_CODES = frozenset(
    [
        "BLOB_UNKNOWN",
        "BLOB_UPLOAD_INVALID",
        "BLOB_UPLOAD_UNKNOWN",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "SIZE_INVALID",
        "UNAUTHORIZED",
        "DENIED",
        "UNSUPPORTED",
        "TOOMANYREQUESTS",
    ]
)
"""The error codes of the distribution specification."""
_HEADERS = frozenset({"range", "content-range", "content-type", "accept", "authorization", "if-none-match", "host"})
_TOKEN = re.compile(r"[A-Z]{1,12}")
_BLOB = re.compile(r"/(?:v2/(?P<name>.+)|p2p/v1)/blobs/(?P<digest>[^/]+)", re.DOTALL)
_MANIFEST = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)", re.DOTALL)

WORDS = (
    *("L- GET ", "L- HEAD ", "P- GET ", "P+ PUT ", "P+ POST ", "P+ PATCH ", "P+ DELETE ", "P* PATCH ", "P* PUT "),
    *("/v2/", "/blobs/", "/manifests/", "/tags/list", "/referrers/", "/blobs/uploads/", "/v2/_catalog", "/p2p/v1/"),
    *("library/nginx", "quay.io/team/app", "team/app", "registry.site:5000/blobs/manifests", "?ns=quay.io", "&ns="),
    *("{location}", "{digest}", "{1}", "{6}", "{8}", "{9}", "?digest=", "?mount=", "&from=", "?n=", "&last=", "&tag="),
    *("\n--\n", "\nRange: bytes=", "\nContent-Range: ", "\nContent-Type: ", "\nContent-Length: ", "?artifactType="),
    *("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json", "%2f", "%00", "//"),
)


@dataclass
class Request:
    """One request of an input."""

    is_local: bool
    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = -1

    @property
    def path(self) -> str:
        """The path as the application sees it."""
        path = unquote_to_bytes(self.target.partition("?")[0]).decode("utf-8", "replace")
        # Werkzeug takes any number of slashes at the very beginning for one, for routing and for the table of callers.
        return "/" + path.lstrip("/")

    @property
    def namespace(self) -> str | None:
        """The query parameter ``ns``."""
        query = parse_qsl(self.target.partition("?")[2], keep_blank_values=True, errors="replace")
        return next((value for name, value in query if name == "ns"), None)

    @property
    def is_trusted(self) -> bool:
        """Whether an operator's credentials are sent, and may change something."""
        return self.headers.get("Authorization") == OPERATOR and not self.is_local


def parse(text: bytes, location: str) -> Request | None:
    """A request from its text; None for what no client could send."""
    head, _, body = text.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    who, _, rest = first.partition(" ")
    method, _, target = rest.partition(" ")
    if len(who) != 2 or not _TOKEN.fullmatch(method) or not target:
        return None
    digest = digest_of(body)
    target = target.replace("{location}", location).replace("{digest}", digest)
    for number, known in enumerate(_DIGESTS, 1):
        target = target.replace(f"{{{number}}}", known)
        body = body.replace(b"{%d}" % number, known.encode())
    found = Request(who[0] == "L", method, re.sub(r"[\x00-\x20\x7f]", "", target), body=body)
    if who[1] in "+*":
        found.headers["Authorization"] = OPERATOR
    if who[1] == "*":
        found.length = None
    for line in lines:
        name, colon, value = line.partition(":")
        value = re.sub(r"[\x00-\x1f\x7f]", " ", value).strip()
        if name.lower() == "content-length" and value.isdigit() and value.isascii() and int(value[:20]) < _LENGTH_LIMIT:
            found.length = int(value[:20])
        elif colon and name.lower() in _HEADERS:
            found.headers[name.title()] = value
    return found


def run(data: bytes) -> None:
    """No answer that the specification does not know, and no byte that is not what it says it is."""
    here = world()
    here.reset()
    location, is_changed = "/v2/team/app/blobs/uploads/" + "0" * 32, False
    for part in data.split(b"\n--\n")[:_MOST_REQUESTS]:
        request = parse(part, location)
        if request is None:
            continue
        answer = ask(here, request)
        check(request, answer, is_changed=is_changed)
        is_changed = is_changed or (request.is_trusted and request.method not in ("GET", "HEAD"))
        location = answer.headers.get("location", location)
        follow(here, request, answer)
    if not is_changed:
        assert not here.changed(), "something was written without an operator"


def ask(here: World, request: Request) -> Answer:
    """Send it."""
    app = here.local if request.is_local else here.peer
    return here.call(
        app, request.method, request.target, headers=request.headers, body=request.body, length=request.length
    )


def check(request: Request, answer: Answer, *, is_changed: bool) -> None:
    """What holds for one answer.

    :param is_changed: whether an operator changed something before.
    """
    where = f"{request.method} {request.target}: {answer}"
    assert 200 <= answer.status < 600 and answer.status != 429, where
    assert answer.status not in (500, 501, 502), where
    if answer.status == 507:
        assert request.length is not None and request.length > 1 << 30, where
    if answer.status == 503:
        assert LOST_LAYER in request.path and request.method == "GET", where
    if request.method == "HEAD" or answer.status in (204, 304):
        assert not answer.body, where
    elif "content-length" in answer.headers:
        assert int(answer.headers["content-length"]) == len(answer.body), where
    if answer.status >= 400 and request.method != "HEAD":
        _error(answer, where)
    if answer.status == 405:
        assert request.method not in answer.headers["allow"].split(", "), where
    if answer.status == 401:
        assert not request.is_local, where
        assert "www-authenticate" in answer.headers, where
    if "oci-namespace" in answer.headers:
        registry, _ = split_path("x/y", request.namespace, SITE)
        assert answer.headers["oci-namespace"] == registry and answer.status < 400, where
    if request.method in ("GET", "HEAD") and answer.status in (200, 206, 416):
        _content(request, answer, where, is_changed=is_changed)


def _error(answer: Answer, where: str) -> None:
    assert answer.headers["content-type"] == "application/json", where
    (item,) = json.loads(answer.body)["errors"]
    assert item["code"] in _CODES or (answer.status == 503 and item["code"] == "UNKNOWN"), where
    assert item["message"], where


def _content(request: Request, answer: Answer, where: str, *, is_changed: bool) -> None:
    if (found := _BLOB.fullmatch(request.path)) and is_digest(found["digest"]):
        _blob(request, answer, found["digest"], where)
        if not is_changed and found["name"] is not None:
            _is_served_there(request, found["name"], found["digest"], where)
    elif found := _MANIFEST.fullmatch(request.path):
        digest = answer.headers["docker-content-digest"]
        assert found["reference"] == digest or not is_digest(found["reference"]), where
        assert request.method == "HEAD" or digest_of(answer.body, digest) == digest, where
        assert ";" not in answer.headers["content-type"], where
        if not is_changed:
            _is_served_there(request, found["name"], digest, where)
    elif answer.status == 200 and request.method == "GET" and answer.body:
        json.loads(answer.body)


def _blob(request: Request, answer: Answer, digest: str, where: str) -> None:
    if answer.status == 416:
        size = int(answer.headers["content-range"].removeprefix("bytes */"))
        assert expected_range(request.headers.get("Range", ""), size) in (None, range(0)), where
        return
    assert answer.headers["docker-content-digest"] == digest, where
    assert answer.headers["accept-ranges"] == "bytes", where
    if request.method == "HEAD":
        return
    if answer.status == 200:
        assert digest_of(answer.body, digest) == digest, where
        assert expected_range(request.headers.get("Range", ""), len(answer.body)) in (None, range(len(answer.body)))
        return
    span, _, size_text = answer.headers["content-range"].removeprefix("bytes ").partition("/")
    first, last = map(int, span.split("-"))
    assert expected_range(request.headers["Range"], int(size_text)) == range(first, last + 1), where
    for blobs in reached().values():
        whole = blobs.get(digest)
        if whole is not None:
            assert answer.body == whole[first : last + 1], where


def _is_served_there(request: Request, name: str, digest: str, where: str) -> None:
    """Nothing is readable by naming another repository."""
    registry, path = split_path(name, request.namespace, SITE)
    assert digest in reached()[f"{registry}/{path}"], where


def follow(here: World, request: Request, answer: Answer) -> None:
    """What was accepted is there: a Location leads to what was sent (the specification's conformance does this too)."""
    if answer.status not in (201, 202) or "location" not in answer.headers:
        return
    location = answer.headers["location"]
    found = here.call(here.peer, "GET", location, headers={"Authorization": OPERATOR})
    where = f"{request.method} {request.target}: {answer}, then {found}"
    if answer.status == 202:
        assert found.status == 204 and found.headers["range"] == answer.headers["range"], where
        return
    assert found.status == 200, where
    digest = answer.headers["docker-content-digest"]
    assert hashlib.new(digest.partition(":")[0], found.body).hexdigest() == digest.partition(":")[2], where
    if request.method == "PUT" and "/manifests/" in request.target:
        assert found.body == request.body, where
