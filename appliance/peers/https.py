"""Transport over HTTPS: mutual TLS, short time-outs, and a circuit breaker for peers that failed."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gevent
import urllib3

from appliance.config import Config, LiveConfig, Peer
from appliance.peers.heads import BoundedPools
from appliance.peers.tls import PeerContext
from appliance.peers.transport import ANSWER_SECONDS, READ_SECONDS, SMALL_ANSWER, BrokeOff, PeerError, PeerTransport
from appliance.trust import client_context
from appliance.words import one_line

CONNECT_SECONDS = 0.7
"""A connection inside a site is there within milliseconds; more is a dead peer."""
INDEX_SECONDS = 600.0
FOREIGN = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)
"""Exceptions that reading an answer raises, whatever a peer sends."""
_STEP = 1 << 20
_WORDS = 300
"""Most characters of a library's own words about a failure."""
_BREAK_FIRST = 2.0
_BREAK_MOST = 30.0


@dataclass
class _PeerState:
    """The way to one peer: its connections, and until when it is left alone because it failed."""

    pool: urllib3.PoolManager
    until: float = 0.0
    pause: float = 0.0


class HttpsTransport(PeerTransport):
    """The other nodes of the site, as they are listed now.

    A peer that left the list, or has another address there, is not asked any more; what runs over a connection to it
    runs on.

    :param current: this node's configuration.
    :param clock: monotonic seconds; a parameter for tests. Never the time of day, which may be 1970.
    """

    body_errors = (urllib3.exceptions.HTTPError, OSError)

    def __init__(self, current: LiveConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._current = current
        self._clock = clock
        self._lines: dict[Peer, _PeerState] = {}

    @property
    def others(self) -> tuple[Peer, ...]:
        """Every listed node but this one."""
        return self._current.get().others

    def available(self) -> list[Peer]:
        """Peers that may be asked now: seeds first, those whose breaker is open left out."""
        alive = [peer for peer in self.others if not self.is_down(peer)]
        return sorted(alive, key=lambda peer: not peer.seed)

    def is_down(self, peer: Peer) -> bool:
        """Return whether the peer failed so recently that it is not asked now."""
        return self._line(peer).until > self._clock()

    def failed(self, peer: Peer) -> None:
        """Leave a peer alone: for 2 s, then twice as long at each further failure, 30 s at the most."""
        line = self._line(peer)
        line.pause = min(_BREAK_MOST, line.pause * 2 or _BREAK_FIRST)
        line.until = self._clock() + line.pause

    def answered(self, peer: Peer) -> None:
        """The peer is well again."""
        line = self._line(peer)
        line.until = line.pause = 0.0

    def _line(self, peer: Peer) -> _PeerState:
        """By all that is listed of the peer: one that moved has a new line, without the failures of the old one."""
        line = self._lines.get(peer)
        if line is None:
            listed = {*self.others, peer}
            self._lines = {known: line for known, line in self._lines.items() if known in listed}
            line = self._lines[peer] = _PeerState(_pool(peer, self._current.get()))
        return line

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
        """Return status and body of one request; a peer that does not answer in time is left alone for a while."""
        end = self._clock() + seconds
        body = bytearray()
        with (
            self._within(peer, seconds),
            self._request(
                peer, method, path, {}, read_seconds, ANSWER_SECONDS - READ_SECONDS + read_seconds
            ) as response,
        ):
            try:
                while chunk := response.read1(_STEP):
                    body += chunk
                    if len(body) > limit:
                        raise PeerError(f"{peer.id} sent more than {limit} bytes")
                    if self._clock() > end:
                        raise TimeoutError(f"no whole answer in {seconds:g} s, {len(body)} bytes came")
                    # gevent reads on without a turn for others while there are bytes.
                    gevent.sleep(0)
            except FOREIGN as error:
                raise self._broken(peer, error) from error
            return response.status, bytes(body)

    @contextlib.contextmanager
    def stream(self, peer: Peer, path: str, start: int) -> Iterator[Any]:
        """Open a body from byte ``start`` on; yields the response, whose ``read1``/``stream`` may raise.

        :raises PeerError: when there is no answer, or none that serves the range.
        """
        with self._request(peer, "GET", path, {"Range": f"bytes={start}-"}, READ_SECONDS) as response:
            if response.status == 404:
                raise PeerError(f"{peer.id} does not hold it")
            if response.status not in (200, 206) or (response.status == 200 and start):
                raise PeerError(f"{peer.id} answered {response.status}")
            if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise PeerError(f"{peer.id} answered another range than the one asked for")
            yield response

    def broken(self, peer: Peer, error: Exception, delivered: int = 0) -> PeerError:
        """Return what a body from this peer that broke off means.

        After bytes of it, a reset or an early end is :class:`BrokeOff`: a process that was restarted, a full table in a
        firewall. Silence, or an end before the first byte, is a dead peer, and opens its breaker.

        :param delivered: bytes of the body that came over this connection.
        """
        if delivered and not isinstance(error, (urllib3.exceptions.TimeoutError, TimeoutError)):
            return BrokeOff(_words(peer, error))
        return self._broken(peer, error)

    @contextlib.contextmanager
    def _request(
        self,
        peer: Peer,
        method: str,
        path: str,
        headers: dict[str, str],
        read_seconds: float,
        head_seconds: float = ANSWER_SECONDS,
    ) -> Iterator[Any]:
        with self._within(peer, head_seconds):
            try:
                response = self._line(peer).pool.request(
                    method,
                    peer.url + path,
                    headers=headers,
                    preload_content=False,
                    decode_content=False,
                    redirect=False,
                    retries=False,
                    timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds),
                )
            except FOREIGN as error:
                raise self._broken(peer, error) from error
        try:
            if "Transfer-Encoding" in response.headers:
                # No node sends one, and its trailer has no bound.
                raise self._broken(peer, ValueError("an answer in chunks"))
            self.answered(peer)
            yield response
        finally:
            # A body that was not read to its end leaves a connection that cannot be used again.
            response.close()
            response.release_conn()

    @contextlib.contextmanager
    def _within(self, peer: Peer, seconds: float) -> Iterator[None]:
        """Bound a conversation as a whole.

        In the agent, whose sockets are gevent's: its time-outs begin anew with each byte, in a handshake and within a
        record of TLS too, so none of them ends what drips.

        :raises PeerError: when the time is over; the peer's breaker opens.
        """
        timer = gevent.Timeout.start_new(seconds)
        try:
            yield
        except gevent.Timeout as over:
            if over is not timer:
                raise
            raise self._broken(peer, TimeoutError(f"no whole answer in {seconds:g} s")) from None
        finally:
            timer.close()

    def _broken(self, peer: Peer, error: Exception) -> PeerError:
        self.failed(peer)
        return PeerError(_words(peer, error))


def _words(peer: Peer, error: Exception) -> str:
    # Libraries quote what the peer sent: a status line of 16 KiB is none of the words that an operator needs.
    return f"{peer.id} ({peer.address}): {type(error).__name__}: {one_line(error, _WORDS)}"


def _pool(peer: Peer, config: Config) -> urllib3.PoolManager:
    options: dict[str, Any] = {"maxsize": 16, "block": False}
    if peer.url.startswith("https:") and config.pki is not None:
        # The certificate has to name the node, not its address: a node that moved needs no new one.
        options |= {
            "ssl_context": client_context(config.pki, PeerContext),
            "assert_hostname": peer.id,
            "server_hostname": peer.id,
        }
    return BoundedPools(**options)
