"""Access table of the routes on 5000 and 5443, and the decision that follows from it.

Decision 20.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Principal = Literal["anybody", "local", "node", "operator"]
"""``local``: whoever reaches 127.0.0.1:5000. ``node``: the client certificate of a listed node. ``operator``:
credentials. ``anybody``: no proof of anything."""

_ANYBODY: Final = frozenset[Principal]({"anybody"})
_NODE: Final = frozenset[Principal]({"node"})
_READER: Final = frozenset[Principal]({"local", "node", "operator"})
_OPERATOR: Final = frozenset[Principal]({"operator"})


def _get(callers: frozenset[Principal]) -> dict[str, frozenset[Principal]]:
    return {"GET": callers, "HEAD": callers}


@dataclass(frozen=True)
class Route:
    """One route.

    :param name: what the handler is found by.
    :param path: matches the whole decoded path; its groups are the handler's arguments.
    :param callers: method to those who may call it.
    :param example: a path that it matches, for tests and for the manual.
    """

    name: str
    path: re.Pattern[str]
    callers: Mapping[str, frozenset[Principal]]
    example: str


def _route(name: str, path: str, callers: Mapping[str, frozenset[Principal]], example: str) -> Route:
    return Route(name, re.compile(path), callers, example)


_DIGEST = "sha256:" + "0" * 64
_INDEX = "(?P<index>generation|pushes|pins)"

# A component of a name may itself be `blobs` or `manifests`: names are greedy, so the last match counts.
ROUTES: Final = (
    _route("health", "/healthz", _get(_ANYBODY), "/healthz"),
    _route("version", "/v2/?", _get(_READER), "/v2/"),
    _route("catalog", "/v2/_catalog", _get(_READER), "/v2/_catalog"),
    _route("tags", "/v2/(?P<name>[^/].*)/tags/list", _get(_READER), "/v2/a/tags/list"),
    _route("uploads", "/v2/(?P<name>[^/].*)/blobs/uploads/?", {"POST": _OPERATOR}, "/v2/a/blobs/uploads/"),
    _route(
        "upload",
        "/v2/(?P<name>[^/].*)/blobs/uploads/(?P<identity>[^/]+)",
        {method: _OPERATOR for method in ("GET", "HEAD", "PATCH", "PUT", "DELETE")},
        "/v2/a/blobs/uploads/" + "0" * 32,
    ),
    _route(
        "manifest",
        "/v2/(?P<name>[^/].*)/manifests/(?P<reference>[^/]+)",
        _get(_READER) | {"PUT": _OPERATOR, "DELETE": _OPERATOR},
        "/v2/a/manifests/1",
    ),
    _route(
        "blob",
        "/v2/(?P<name>[^/].*)/blobs/(?P<digest>[^/]+)",
        _get(_READER) | {"DELETE": _OPERATOR},
        f"/v2/a/blobs/{_DIGEST}",
    ),
    _route(
        "referrers", "/v2/(?P<name>[^/].*)/referrers/(?P<digest>[^/]+)", _get(_READER), f"/v2/a/referrers/{_DIGEST}"
    ),
    _route("ping", "/p2p/v1/ping", _get(_NODE), "/p2p/v1/ping"),
    _route("generation", "/p2p/v1/generation", _get(_NODE), "/p2p/v1/generation"),
    _route("pushes", "/p2p/v1/pushes", _get(_NODE), "/p2p/v1/pushes"),
    _route("pins", "/p2p/v1/pins", _get(_NODE), "/p2p/v1/pins"),
    _route("index-head", f"/p2p/v1/{_INDEX}/head", _get(_NODE), "/p2p/v1/generation/head"),
    _route("index-raw", f"/p2p/v1/{_INDEX}/raw/(?P<digest>[^/]+)", _get(_NODE), f"/p2p/v1/pushes/raw/{_DIGEST}"),
    _route(
        "kept",
        r"/p2p/v1/kept/(?P<kind>generations|pushes|pins)/(?P<file>[0-9]{8}-[0-9a-f]{16}\.(?:json|sig))",
        _get(_NODE),
        "/p2p/v1/kept/generations/00000001-0123456789abcdef.sig",
    ),
    _route("peer-blob", "/p2p/v1/blobs/(?P<digest>[^/]+)", _get(_NODE), f"/p2p/v1/blobs/{_DIGEST}"),
    _route("wake", "/p2p/v1/wake", {"POST": _NODE}, "/p2p/v1/wake"),
)

_NODE_ONLY = frozenset(route.name for route in ROUTES if set().union(*route.callers.values()) == _NODE)


def find(path: str) -> tuple[Route, dict[str, str]] | None:
    """The route of a decoded path, with the arguments of its handler."""
    for route in ROUTES:
        match = route.path.fullmatch(path)
        if match is not None:
            return route, match.groupdict()
    return None


@dataclass(frozen=True)
class Identity:
    """Sender of a request.

    :param roles: what the request proved to be; empty for a stranger.
    :param name: the operator's or node's name, for the journal.
    :param problem: why a proof that was tried does not count; for the answer.
    :param refused: whether another proof would help (401), or this one is known and not wanted (403).
    """

    roles: frozenset[Principal] = frozenset()
    name: str = ""
    problem: str = ""
    refused: bool = False


@dataclass(frozen=True)
class Decision:
    """Decision about a request.

    :param status: 200, 401, 403, 404 or 405.
    :param allow: the methods that this listener offers on the route, for 405.
    """

    status: int
    allow: tuple[str, ...] = field(default=())


def decide(route: Route | None, method: str, identity: Identity, offered: frozenset[Principal]) -> Decision:
    """Hold a request against the table.

    :param route: None for a path that is not in it.
    :param offered: the callers that the listener can tell at all; what none of them may call does not exist there.
    """
    callers = route.callers.get(method, frozenset()) if route else frozenset()
    if "anybody" in callers:
        return Decision(200)
    if not identity.roles or identity.problem:
        # Before anything else is said: a stranger learns neither paths nor methods.
        return Decision(403 if identity.refused else 401)
    if route is None:
        return Decision(404)
    possible = offered | _ANYBODY
    allow = tuple(sorted(name for name, who in route.callers.items() if who & possible))
    if not allow and route.name in _NODE_ONLY:
        return Decision(404)
    if method not in allow:
        return Decision(405, allow)
    if callers & identity.roles:
        return Decision(200)
    return Decision(401 if "operator" in callers else 403)
