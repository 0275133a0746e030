"""Conditional requests (RFC 9110 section 13): the strong validator of content is its digest.

A server that sends an ``ETag`` has to evaluate them; a client that has a blob or manifest already is then sent nothing.
``If-Modified-Since`` and its like do not count, since nothing here carries a date (13.1.3, 13.1.4).
"""

from __future__ import annotations

from collections.abc import Mapping

from flask import Request, Response
from werkzeug.datastructures import Headers

from appliance.web.responses import error_response

_KEPT = ("ETag", "Docker-Content-Digest", "Cache-Control")


def unmet(asked: Request, headers: Mapping[str, str] | Headers) -> Response | None:
    """The answer where a precondition ends the request: 304 or 412; None where it goes on.

    :param headers: what the whole would be sent with; its ``ETag`` is what conditions are held against.
    """
    digest = headers["ETag"].strip('"')
    # In the order of RFC 9110 13.2.2.
    if "If-Match" in asked.headers and not asked.if_match.contains(digest):
        return error_response(412, "DIGEST_INVALID", f"this is {digest}, which If-Match does not name")
    if "If-None-Match" in asked.headers and (asked.if_none_match.star_tag or asked.if_none_match.contains_weak(digest)):
        response = Response(status=304, headers={name: headers[name] for name in _KEPT if name in headers})
        del response.headers["Content-Type"]
        return response
    return None


def range_header(asked: Request, etag: str) -> str | None:
    """The ``Range`` of a request; None where there is none, or ``If-Range`` is about other content (13.1.5)."""
    condition = asked.headers.get("If-Range")
    return asked.headers.get("Range") if condition is None or condition.strip() == etag else None
