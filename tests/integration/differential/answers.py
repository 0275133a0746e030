"""What of an answer is compared, in a form in which two right answers are equal.

Left out is what nobody compares: the words of an error, the ids of uploads, dates. Where the two statuses differ,
nothing else is looked at: it follows from that.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from tests.integration.differential.observed import Observed
from tests.integration.differential.servers import Answer, Server

ABSENT = "absent"
STATUS, CODE, BODY = "status", "code", "body"
_HEADERS = (
    "Content-Type",
    "Content-Range",
    "Docker-Content-Digest",
    "Range",
    "ETag",
    "Accept-Ranges",
    "Docker-Distribution-Api-Version",
    "Allow",
)
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def compare(
    request: str, method: str, repository: str, theirs: tuple[Server, Answer], ours: tuple[Server, Answer]
) -> Iterator[Observed]:
    """Every field in which two answers differ.

    :param repository: the scenario's own, which shapes write as ``<name>``.
    """
    left, right = (fields(method, repository, *side) for side in (theirs, ours))
    if left[STATUS] != right[STATUS]:
        yield Observed(request, STATUS, *(f"{side[STATUS]} {side.get(CODE, '')}".strip() for side in (left, right)))
        return
    for field in left | right:
        before, after = left.get(field, ABSENT), right.get(field, ABSENT)
        if before != after:
            yield Observed(request, field, before, after)


def fields(method: str, repository: str, server: Server, answer: Answer) -> dict[str, str]:
    """The fields of an answer, by name."""
    found = {name: answer.headers[name] for name in _HEADERS if name in answer.headers}
    found |= {
        name.title(): ", ".join(answer.headers.get_all(name, []))
        for name in answer.headers
        if name[:4].lower() == "oci-"
    }
    if "WWW-Authenticate" in answer.headers:
        found["WWW-Authenticate"] = answer.headers["WWW-Authenticate"].split(" ")[0]
    if "Docker-Upload-UUID" in answer.headers:
        found["Docker-Upload-UUID"] = "there"
    if "Location" in answer.headers:
        found["Location"], found["Location, its form"] = _location(server, answer.headers["Location"], repository)
    if "Link" in answer.headers:
        found["Link"] = _link(answer.headers["Link"])
    found[STATUS] = str(answer.status) + ("" if answer.is_whole else ", cut short")
    if answer.status >= 400:
        code = _code(answer.body)  # a HEAD has none
        if code:
            found[CODE] = code
        return found
    kind = found.get("Content-Type", "").partition(";")[0]
    if kind == "application/json" and method != "HEAD":
        # Lists that the server writes: their meaning counts, not where spaces stand; and docker-registry gives tags as
        # its directory happens to have them, now so and now so.
        listed = json.loads(answer.body)
        found[BODY] = json.dumps(
            {key: sorted(value) if key == "tags" and value else value for key, value in listed.items()}
        )
    else:
        found[BODY] = (
            f"{len(answer.body)} bytes {hashlib.sha256(answer.body).hexdigest()[:12]}" if answer.body else "empty"
        )
        if answer.status != 204 and kind != "application/json":
            found["Content-Length"] = answer.headers.get("Content-Length", ABSENT)
    return found


def _code(body: bytes) -> str:
    try:
        return "+".join(str(item["code"]) for item in json.loads(body)["errors"])
    except (ValueError, KeyError, TypeError):
        return ""


def _location(server: Server, value: str, repository: str) -> tuple[str, str]:
    form = "absolute" if value.startswith(server.base) else "relative"
    parts = urlsplit(value)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if query.pop("_state", None):
        form += " with _state"
    path = _UPLOAD_ID.sub("<id>", unquote(parts.path)) if "/uploads/" in parts.path else unquote(parts.path)
    path = path.replace(f"/v2/{repository}/", "/v2/<name>/")
    return path + (f"?{urlencode(sorted(query.items()))}" if query else ""), form


def _link(value: str) -> str:
    target, _, rest = value.strip().partition(">")
    parts = urlsplit(target.lstrip("<"))
    return f"<{parts.path}?{urlencode(sorted(parse_qsl(parts.query)))}>{rest}"
