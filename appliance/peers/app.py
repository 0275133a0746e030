"""What a node answers on 5443 behind TLS: its peers, and operators where pushing is on.

=========================  ==================================================================================
route                      answer
=========================  ==================================================================================
``/healthz``               that the process answers
``/p2p/v1/ping``           ``{"node","version","generation":{"number","digest"}|null,"pushes":{...}|null,"pins":...}``
``/p2p/v1/generation``     ``{"raw": text of the index, "signature": {...}|null}``; 404: none
``/p2p/v1/pushes``         the same for the index of pushes
``/p2p/v1/pins``           the same for the index of pins
``/p2p/v1/blobs/<digest>`` a whole blob that lies here, with ``Range``; 404: not here
``/p2p/v1/wake``           204; the agent looks for something newer at once
``/v2/...``                the registry
=========================  ==================================================================================

Who may call what is in :data:`appliance.registry.access.ROUTES`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flask import Flask, Response, request
from gevent.lock import BoundedSemaphore

from appliance import __version__
from appliance.config import Config, CurrentConfig
from appliance.errors import ApplianceError
from appliance.oci.digests import check_digest
from appliance.offload import offload
from appliance.registry.access import Caller, Identity
from appliance.registry.answers import document, error
from appliance.registry.app import send_blob
from appliance.registry.catalog import CurrentCatalog
from appliance.registry.credentials import Operators
from appliance.registry.fetcher import NoFetcher
from appliance.registry.listener import Handler, listener
from appliance.store.blobs import BlobStore
from appliance.store.signed import NameIndex, SignedIndex, summary
from appliance.trust import common_name

T = TypeVar("T", bound=NameIndex)


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
        self._generations = generations
        self._pushes = pushes
        self._pins = pins
        self._catalog = catalog
        self._wake = wake
        # Never from other peers: two nodes that lack a blob would ask each other in a circle.
        self._fetcher = NoFetcher(suspect)

    def handlers(self) -> dict[str, Handler]:
        """The routes of the table, by name."""
        return {
            "ping": self._ping,
            "generation": lambda: _signed(self._generations),
            "pushes": lambda: _signed(self._pushes),
            "pins": lambda: _signed(self._pins),
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
                "pins": summary(self._pinned()),
            }
        )

    def _pinned(self) -> NameIndex | None:
        try:
            return offload(self._pins.current)
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

    def _awake(self) -> Response:
        self._wake()
        return Response(status=204)


def _signed(index: SignedIndex[T]) -> Response:
    # Beside the event loop: of 100,000 names it takes longer than a worker may stand still for a few who ask.
    current = offload(index.current)
    if current is None:
        return error(404, "NAME_UNKNOWN", "this node has none yet")
    signature = index.signature(current)
    return document({"raw": current.raw.decode(), "signature": signature.__dict__ if signature else None})


def create_app(current: CurrentConfig, handlers: Mapping[str, Handler], operators: Operators | None) -> Flask:
    """The application of the peer listener.

    :param current: says who is a node; asked for each request, so that one who was removed is refused at its next,
        whatever connection it comes by.
    :param handlers: of every route that it answers.
    :param operators: who may push; None where pushing is off.
    """
    # One at a time: whoever guesses passwords takes one thread from the others, and memory once.
    turn = BoundedSemaphore(1)
    offered = frozenset[Caller]({"node"} if operators is None else {"node", "operator"})

    def identify() -> Identity:
        node = _node(current.get(), is_open=operators is None or not request.path.startswith("/v2"))
        given = request.headers.get("Authorization")
        if operators is None or given is None:
            return node
        operator = operators.remembered(given)
        if operator is None:
            with turn:
                operator = offload(operators.check, given)
        if operator is None:
            return Identity(problem="wrong name or password of an operator")
        return Identity(node.roles | {"operator"}, operator)

    return listener(handlers, offered, identify)


def _node(config: Config, *, is_open: bool) -> Identity:
    """What a request proves by its connection.

    :param is_open: whether, in development without a PKI, everybody counts as a node here.
    """
    if config.pki is None:
        return Identity(frozenset({"node"} if is_open else ()))
    sock = request.environ.get("gunicorn.socket")
    name = common_name(sock.getpeercert()) if isinstance(sock, ssl.SSLSocket) else None
    if name is None:
        return Identity(problem="no client certificate of this site")
    if name not in config.ids:
        return Identity(problem=f"{name} is not a node of this site", refused=True)
    return Identity(frozenset({"node"}), name)
