"""Transport to the other nodes: what may be asked of them, whatever carries the questions.

Decision 91.
"""

from __future__ import annotations

import abc
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Final

from appliance.config import Peer

READ_SECONDS = 0.9
"""No byte for so long is a dead peer (stall limit; 16 s cost others 2.3 times the whole transfer)."""
ANSWER_SECONDS = 1.8
"""How long a small answer may take as a whole, and how long a large one until its head is there: connection, handshake,
head and body. Time-outs on silence never end what drips, and whoever waits for all peers waits for it. Three times the
0.6 s that a satellite takes to and fro."""
SMALL_ANSWER = 64 << 10
"""Most bytes of a ping's answer and the like."""
INDEX_ANSWER = 320 << 20
"""Most bytes of a generation of the largest size, wrapped in JSON."""

_BASE: Final = "/p2p/v1"


class PeerError(Exception):
    """A peer did not do what it was asked; the text says which and how."""


class BrokeOff(PeerError):
    """A body ended early on a connection that had delivered: the peer lives, and may give the rest over a new one."""


class PeerTransport(abc.ABC):
    """Way to the other nodes of the site.

    :class:`~appliance.peers.https.HttpsTransport` carries the questions over mutual TLS. Another transport implements the
    abstract methods; the agent uses nothing else.
    """

    body_errors: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    """Exceptions that reading on in a body raises when its connection breaks."""

    @property
    @abc.abstractmethod
    def others(self) -> tuple[Peer, ...]:
        """Every listed node but this one."""

    @abc.abstractmethod
    def available(self) -> list[Peer]:
        """Return the peers that may be asked now: seeds first, without those that failed a moment ago."""

    @abc.abstractmethod
    def is_down(self, peer: Peer) -> bool:
        """Return whether the peer failed so recently that it is not asked now."""

    @abc.abstractmethod
    def failed(self, peer: Peer) -> None:
        """Leave a peer alone for a while."""

    @abc.abstractmethod
    def ask(
        self,
        peer: Peer,
        method: str,
        path: str,
        *,
        read_seconds: float = READ_SECONDS,
        seconds: float = ANSWER_SECONDS,
        limit: int = SMALL_ANSWER,
    ) -> tuple[int, bytes]:
        """Return status and body of one request.

        :param path: a route of :mod:`appliance.peers.routes`.
        :param read_seconds: how long there may be no byte.
        :param seconds: how long all of it may take, from the first packet to the last byte.
        :param limit: most bytes of the body.
        :raises PeerError: the peer does not answer in time, or sends more.
        """

    @abc.abstractmethod
    def stream(self, peer: Peer, path: str, start: int) -> AbstractContextManager[Any]:
        """Open a body from byte ``start`` on. Its ``read1`` may raise :attr:`body_errors`.

        :raises PeerError: there is no answer, or none that serves the range.
        """

    @abc.abstractmethod
    def broken(self, peer: Peer, error: Exception, delivered: int = 0) -> PeerError:
        """Return what it means that a body from this peer broke off.

        :param delivered: bytes of the body that came over this connection.
        """

    def ping(self, peer: Peer) -> tuple[int, bytes]:
        """Ask a peer which indexes it has; status and body, which :class:`appliance.peers.wire.Ping` reads."""
        return self.ask(peer, "GET", f"{_BASE}/ping")

    def wake(self, peer: Peer) -> None:
        """Tell a peer's agent to look for a newer index now."""
        self.ask(peer, "POST", f"{_BASE}/wake")

    def has(self, peer: Peer, digest: str) -> int:
        """Ask a peer whether it holds a blob; 200 where it does, 404 where it does not."""
        return self.ask(peer, "HEAD", f"{_BASE}/blobs/{digest}")[0]

    def open(self, peer: Peer, digest: str, start: int) -> AbstractContextManager[Any]:
        """Open a blob of a peer from byte ``start`` on; see :meth:`stream`."""
        return self.stream(peer, f"{_BASE}/blobs/{digest}", start)

    def index(self, peer: Peer, *parts: str, **bounds: Any) -> tuple[int, bytes]:
        """Ask a peer for an index or a part of it.

        :param parts: steps of the route: a kind of index and ``head``, or ``raw`` and a digest; or ``kept`` and a file.
        :param bounds: of :meth:`ask`.
        """
        return self.ask(peer, "GET", "/".join((_BASE, *parts)), **bounds)
