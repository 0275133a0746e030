"""What a node answers to its peers, on 5443 behind mutual TLS.

====================================  ========  ==================================================================
route                                 caller    answer
====================================  ========  ==================================================================
``GET /healthz``                      anybody   that the process answers
``GET /p2p/v1/ping``                  node      ``{"node","version","generation":{"number","digest"}|null}``
``GET /p2p/v1/generation``            node      ``{"raw": text of the index, "signature": {...}|null}``; 404: none
``GET, HEAD /p2p/v1/blobs/<digest>``  node      a whole blob that lies here, with ``Range``; 404: not here
``POST /p2p/v1/wake``                 node      204; the agent looks for a newer generation at once
``GET, HEAD /v2/...``                 node      the registry, as on the local listener
====================================  ========  ==================================================================
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request

from appliance import __version__
from appliance.config import Config
from appliance.errors import ApplianceError
from appliance.oci.digests import check_digest
from appliance.registry.answers import document, error
from appliance.registry.app import NoFetcher, Registry, bare_app, send_blob
from appliance.registry.catalog import CurrentCatalog
from appliance.store.blobs import BlobStore
from appliance.store.generations import Generations
from appliance.trust import common_name

ANYBODY = ("/healthz",)
"""Paths that need no client certificate; a test walks every other route."""


def create_app(
    config: Config,
    blobs: BlobStore,
    generations: Generations,
    catalog: CurrentCatalog,
    registry: Registry,
    wake: Callable[[], None],
) -> Flask:
    """The application of the peer listener.

    :param wake: tells this node's agent to look for a newer generation.
    """
    app = bare_app()
    nodes = frozenset(peer.id for peer in config.peers)

    @app.before_request
    def only_nodes() -> Response | None:
        if request.path in ANYBODY or config.pki is None:
            return None
        caller = _caller(request.environ.get("gunicorn.socket"))
        if caller in nodes:
            return None
        why = "no client certificate of this site" if caller is None else f"{caller} is not a node of this site"
        return error(401 if caller is None else 403, "UNAUTHORIZED" if caller is None else "DENIED", why)

    @app.get("/p2p/v1/ping")
    def ping() -> Response:
        current = catalog.get().generation
        generation = {"number": current.number, "digest": current.digest} if current else None
        return document({"node": config.node, "version": __version__, "generation": generation})

    @app.get("/p2p/v1/generation")
    def generation() -> Response:
        current = generations.current()
        if current is None:
            return error(404, "NAME_UNKNOWN", "this node has no generation yet")
        signature = generations.signature(current)
        return document({"raw": current.raw.decode(), "signature": signature.__dict__ if signature else None})

    @app.get("/p2p/v1/blobs/<digest>")
    def blob(digest: str) -> Response:
        try:
            check_digest(digest)
        except ApplianceError as problem:
            return error(404, "DIGEST_INVALID", str(problem))
        size = blobs.size(digest)
        if size is None:
            return error(404, "BLOB_UNKNOWN", f"{digest} is not on this node")
        # Never from other peers: two nodes that lack a blob would ask each other in a circle.
        return send_blob(blobs, NoFetcher(), digest, size, request)

    @app.post("/p2p/v1/wake")
    def awake() -> Response:
        wake()
        return Response(status=204)

    app.register_blueprint(registry.blueprint())
    return app


def _caller(sock: Any) -> str | None:
    return common_name(sock.getpeercert()) if isinstance(sock, ssl.SSLSocket) else None
