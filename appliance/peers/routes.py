"""What a node answers on 5443 behind TLS: its peers, and operators where pushing is on.

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

import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, request

from appliance import __version__
from appliance.config import Config, CurrentConfig
from appliance.countedlog import CountedLog, Report, origin
from appliance.errors import ApplianceError
from appliance.oci.digests import check_digest
from appliance.peers.served import Served
from appliance.registry.blob_provider import NoFetcher
from appliance.registry.read import send_blob
from appliance.store.blobs import BlobStore
from appliance.store.catalog import CurrentCatalog
from appliance.store.index import SignedIndex, summary
from appliance.threads import offload
from appliance.trust import common_name
from appliance.web.acl import TRUST, Caller, Identity
from appliance.web.auth import Operators, basic
from appliance.web.guesses import Guesses, Turns
from appliance.web.listener import Handler, listener
from appliance.web.responses import Refusal, document, error
from appliance.web.streaming import Body, WholeFile

_LOG = logging.getLogger("appliance.peers")
_WRONG = "wrong passwords of operators"
_NOT_LISTED = "requests of nodes that are not listed"


class PeerRoutes:
    """The routes for other nodes.

    :param generations: the file of the current generation.
    :param pushes: the file of what was pushed.
    :param pins: the file of what is pinned.
    :param wake: tells this node's agent to look for something newer.
    :param suspect: tells it of a blob that cannot be read.
    """

    def __init__(
        self,
        config: Config,
        blobs: BlobStore,
        generations: SignedIndex[Any],
        pushes: SignedIndex[Any],
        pins: SignedIndex[Any],
        catalog: CurrentCatalog,
        wake: Callable[[], None],
        suspect: Callable[[str], None],
    ) -> None:
        self._config = config
        self._blobs = blobs
        self._indexes = {index.kind: Served(index) for index in (generations, pushes, pins)}
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
        return document(
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
            return error(404, "DIGEST_INVALID", str(problem))
        size = self._blobs.size(digest)
        if size is None:
            return error(404, "BLOB_UNKNOWN", f"{digest} is not on this node")
        return send_blob(self._blobs, self._fetcher, digest, size, request)

    def _head(self, index: str) -> Response:
        head = self._indexes[index].head()
        return error(404, "NAME_UNKNOWN", "this node has none yet") if head is None else document(head)

    def _raw(self, index: str, digest: str) -> Response:
        """A node that has read the head takes it, and checks it by its digest."""
        handle = self._indexes[index].open(digest)
        if handle is None:
            return error(404, "NAME_UNKNOWN", f"{index} {digest} is not current on this node")
        return _send_file(handle, index)

    def _kept(self, kind: str, file: str) -> Response:
        """A node whose own copy is damaged takes it, and checks it by its name and signature."""
        try:
            handle = os.open(self._blobs.root / kind / file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return error(404, "NAME_UNKNOWN", f"{file} is not on this node")
        return _send_file(handle, file)

    def _awake(self) -> Response:
        self._wake()
        return Response(status=204)


def _send_file(handle: int, name: str) -> Response:
    """Send an open file whole, and close it."""
    size = os.fstat(handle).st_size
    source = WholeFile(handle, size)
    body: Body | bytes = b""
    if request.method == "HEAD":
        source.close()
    else:
        try:
            body = Body(request.environ, source, 0, size)
        except OSError as problem:
            source.close()
            return error(503, "NAME_UNKNOWN", f"{name} cannot be read now: {problem}")
    response = Response(body, direct_passthrough=True, content_type="application/octet-stream")
    response.headers["Content-Length"] = str(size)
    return response


def _signed(index: Served) -> Response:
    document = index.document()
    if document is None:
        return error(404, "NAME_UNKNOWN", "this node has none yet")
    response = Response(document.pieces(), content_type="application/json")
    response.headers["Content-Length"] = str(len(document.content))
    return response


def create_app(
    current: CurrentConfig, handlers: Mapping[str, Handler], operators: Operators | None, report: Report | None = None
) -> Flask:
    """The application of the peer listener.

    :param current: says who is a node; asked for each request, so that one who was removed is refused at its next,
        whatever connection it comes by.
    :param handlers: of every route that it answers.
    :param operators: who may push; None where pushing is off.
    :param report: takes what strangers do, as data.
    """
    guesses, log = Guesses(), CountedLog(_LOG.warning, report=report)
    turns = Turns(guesses.is_clean)
    offered = frozenset[Caller]({"node"} if operators is None else {"node", "operator"})

    def identify() -> Identity:
        node = _node(current.get(), is_open=operators is None or not request.path.startswith("/v2"))
        if node.refused:
            log.count(_NOT_LISTED, origin(request.remote_addr or ""), node.problem)
        trust = request.environ.get(TRUST, lambda: None)
        if node.roles:
            trust()
        given = request.headers.get("Authorization")
        if operators is None or given is None:
            return node
        operator = operators.remembered(given) or _checked(operators, given, guesses, turns, log)
        if operator is None:
            return Identity(problem="wrong name or password of an operator")
        trust()
        return Identity(node.roles | {"operator"}, operator)

    return listener(handlers, offered, identify)


def _checked(operators: Operators, given: str, guesses: Guesses, turns: Turns, log: CountedLog) -> str | None:
    """Name of the operator with these credentials, None for wrong ones; 429 for an address that has to wait."""
    named = basic(given)
    if named is None:
        return None
    name, address = named[0], origin(request.remote_addr or "")

    def refuse_early() -> None:
        wait = math.ceil(guesses.wait(address, name))
        if wait:
            log.count(_WRONG, address, name)
            why = f"too many wrong passwords for this name from {address}; the next is looked at in {wait} s"
            raise Refusal(429, "TOOMANYREQUESTS", why, Retry_After=str(wait))

    refuse_early()
    with turns.turn(address):
        # Meanwhile others from there had their turn, with the same password or with wrong ones.
        operator = operators.remembered(given)
        if operator is None:
            refuse_early()
            operator = offload(operators.check, given)
    if operator is None:
        guesses.wrong(address, name)
        log.count(_WRONG, address, name)
    else:
        guesses.right(address, name)
    return operator


def _node(config: Config, *, is_open: bool) -> Identity:
    """What a request proves by its connection.

    :param is_open: whether, in development without a PKI, everybody counts as a node here.
    """
    if config.pki is None:
        return Identity(frozenset({"node"} if is_open else ()))
    sock: Any = request.environ.get("gunicorn.socket")
    name = common_name(sock.getpeercert()) if hasattr(sock, "getpeercert") else None
    if name is None:
        return Identity(problem="no client certificate of this site")
    if name not in config.ids:
        return Identity(problem=f"{name} is not a node of this site", refused=True)
    return Identity(frozenset({"node"}), name)
