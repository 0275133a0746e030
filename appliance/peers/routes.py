"""Routes of 5443 for other nodes.

=================================  ===================================================================================
route                              answer
=================================  ===================================================================================
``/healthz``                       that the process answers
``/p2p/v1/ping``                   ``{"node","version","generation":{"number","digest"}|null,"pushes":{...}|null,"pins":...}``
``/p2p/v1/generation``             ``{"raw": text of the index, "signature": {...}|null}``; 404: none
``/p2p/v1/pushes``                 the same for the index of pushes
``/p2p/v1/pins``                   the same for the index of pins
``/p2p/v1/<index>/head``           ``{"kind","number","digest","size","signature":{...,"head"}}`` of one of these three; 404: none
``/p2p/v1/<index>/raw/<digest>``   its bytes as they are, with ``HEAD``; 404: another one is current
``/p2p/v1/kept/<file>``            a file below ``generations/``, ``pushes/`` or ``pins/``, as it is; 404: not here
``/p2p/v1/blobs/<digest>``         a whole blob that lies here, with ``Range``; 404: not here
``/p2p/v1/wake``                   204; the agent looks for something newer at once
``/v2/...``                        the registry
=================================  ===================================================================================

Who may call what is in :data:`appliance.web.acl.ROUTES`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from flask import Response, request

from appliance import __version__
from appliance.config import Config
from appliance.errors import ApplianceError
from appliance.oci.digests import check_digest
from appliance.peers.served import Served
from appliance.store.catalog import LiveCatalog
from appliance.store.index import summary
from appliance.store.store import Store
from appliance.web.blob_provider import NoFetcher
from appliance.web.blobs import send_blob
from appliance.web.listener import Handler
from appliance.web.responses import error_response, json_response
from appliance.web.streaming import BlobBody, FileSource

_WRONG = "wrong passwords of operators"
_NOT_LISTED = "requests of nodes that are not listed"


class PeerRoutes:
    """The routes for other nodes.

    :param wake: tells this node's agent to look for something newer.
    :param suspect: tells it of a blob that cannot be read.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        catalog: LiveCatalog,
        wake: Callable[[], None],
        suspect: Callable[[str], None],
    ) -> None:
        self._config = config
        self._blobs = store.blobs
        self._indexes = {kind: Served(index) for kind, index in store.indexes.items()}
        self._catalog = catalog
        self._wake = wake
        # Never from other peers: two nodes that lack a blob would ask each other in a circle.
        self._fetcher = NoFetcher(suspect)

    def handlers(self) -> dict[str, Handler]:
        """The routes of the table, by name."""
        return {
            "ping": self._ping,
            "generation": lambda: _signed(self._indexes["generation"]),
            "pushes": lambda: _signed(self._indexes["pushes"]),
            "pins": lambda: _signed(self._indexes["pins"]),
            "index-head": self._head,
            "index-raw": self._raw,
            "kept": self._kept,
            "peer-blob": self._blob,
            "wake": self._awake,
        }

    def _ping(self) -> Response:
        catalog = self._catalog.get()
        return json_response(
            {
                "node": self._config.node,
                "version": __version__,
                "generation": summary(catalog.generation),
                "pushes": summary(catalog.pushed),
                "pins": self._pinned(),
            }
        )

    def _pinned(self) -> dict[str, Any] | None:
        try:
            return self._indexes["pins"].summary()
        except ApplianceError:
            return None  # a damaged one stops seedings, and has its words there

    def _blob(self, digest: str) -> Response:
        try:
            check_digest(digest)
        except ApplianceError as problem:
            return error_response(404, "DIGEST_INVALID", str(problem))
        size = self._blobs.size(digest)
        if size is None:
            return error_response(404, "BLOB_UNKNOWN", f"{digest} is not on this node")
        return send_blob(self._blobs, self._fetcher, digest, size, request)

    def _head(self, index: str) -> Response:
        head = self._indexes[index].head()
        return error_response(404, "NAME_UNKNOWN", "this node has none yet") if head is None else json_response(head)

    def _raw(self, index: str, digest: str) -> Response:
        """A node that has read the head takes it, and checks it by its digest."""
        handle = self._indexes[index].open(digest)
        if handle is None:
            return error_response(404, "NAME_UNKNOWN", f"{index} {digest} is not current on this node")
        return _send_file(handle, index)

    def _kept(self, kind: str, file: str) -> Response:
        """A node whose own copy is damaged takes it, and checks it by its name and signature."""
        try:
            handle = os.open(self._blobs.root / kind / file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return error_response(404, "NAME_UNKNOWN", f"{file} is not on this node")
        return _send_file(handle, file)

    def _awake(self) -> Response:
        self._wake()
        return Response(status=204)


def _send_file(handle: int, name: str) -> Response:
    """Send an open file whole, and close it."""
    size = os.fstat(handle).st_size
    source = FileSource(handle, size)
    body: BlobBody | bytes = b""
    if request.method == "HEAD":
        source.close()
    else:
        try:
            body = BlobBody(request.environ, source, 0, size)
        except OSError as problem:
            source.close()
            return error_response(503, "NAME_UNKNOWN", f"{name} cannot be read now: {problem}")
    response = Response(body, direct_passthrough=True, content_type="application/octet-stream")
    response.headers["Content-Length"] = str(size)
    return response


def _signed(index: Served) -> Response:
    document = index.document()
    if document is None:
        return error_response(404, "NAME_UNKNOWN", "this node has none yet")
    response = Response(document.pieces(), content_type="application/json")
    response.headers["Content-Length"] = str(len(document.content))
    return response
