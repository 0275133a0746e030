"""Peers without a network: each does what a test wrote down for it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gevent
import urllib3

from appliance.config import Peer
from appliance.peers.transport import SMALL_ANSWER, BrokeOff, PeerError, PeerTransport

READ = 64 << 10
STEP = 1 << 10


class Clock:
    """Time that moves only while a slow peer is waited for."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


@dataclass
class FakePeer:
    """One peer.

    :param blobs: digest to the bytes that it sends, right or wrong.
    :param breaks_at: offset at which its connection breaks; None: never. Broken only ``breaks`` times.
    :param ends_at: offset at which it ends the body, as if that were all.
    :param dead: answers nothing at all.
    :param denies: answers HEAD with this status.
    :param silent: does not answer HEAD while the test runs.
    :param slow: turns of the loop before it answers HEAD.
    :param rate: bytes a second of :data:`CLOCK`, :data:`STEP` at a time; 0: no time passes.
    :param answers_after: seconds of :data:`CLOCK` until the head of its answer with a blob is there.
    :param hangs_at: offset from which on a read does not return; None: never.
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    breaks_at: int | None = None
    breaks: int = 10**9
    ends_at: int | None = None
    dead: bool = False
    denies: int | None = None
    silent: bool = False
    slow: int = 0
    rate: float = 0
    answers_after: float = 0
    hangs_at: int | None = None
    heads: int = 0
    streams: list[int] = field(default_factory=list)
    answers: dict[str, Callable[[], tuple[int, bytes]]] = field(default_factory=dict)


def _named(peer: Peer, ping: bytes) -> bytes:
    """Give a ping the name of whoever answers with it: tests write it before they say whose it is."""
    name = json.dumps({"node": peer.id})[1:-1].encode()
    if b'"node"' in ping or not ping.startswith(b"{"):
        return ping.replace(b'"node": "x"', name)
    return b"{" + name + (b"," if ping[1:2] != b"}" else b"") + ping[1:]


class _Body:
    def __init__(self, peer: FakePeer, content: bytes, start: int) -> None:
        self._peer, self._file, self._at = peer, io.BytesIO(content[start:]), start

    def read1(self, amount: int) -> bytes:
        gevent.sleep(0)
        limit = min(amount, READ)
        if self._peer.breaks_at is not None and self._peer.breaks > 0:
            if self._at >= self._peer.breaks_at:
                self._peer.breaks -= 1
                raise urllib3.exceptions.ProtocolError("connection broken")
            limit = min(limit, self._peer.breaks_at - self._at)
        if self._peer.ends_at is not None:
            limit = min(limit, max(0, self._peer.ends_at - self._at))
        if self._peer.hangs_at is not None:
            if self._at >= self._peer.hangs_at:
                gevent.sleep(3600)
            limit = min(limit, self._peer.hangs_at - self._at)
        if self._peer.rate:
            limit = min(limit, STEP)
            CLOCK.now += limit / self._peer.rate
        chunk = self._file.read(limit)
        self._at += len(chunk)
        return chunk


class FakePeers(PeerTransport):
    """Stands in for the way to the peers."""

    body_errors = (urllib3.exceptions.HTTPError, OSError)

    def __init__(self, **peers: FakePeer) -> None:
        self.fakes = peers
        self._all = tuple(Peer(name, f"http://{name}", name) for name in peers)
        self.down: set[str] = set()
        self.blamed: list[str] = []
        self.asked: list[tuple[str, str, int]] = []
        """Peer, path, and the most bytes that the answer might have."""

    @property
    def others(self) -> tuple[Peer, ...]:
        return self._all

    def available(self) -> list[Peer]:
        return [peer for peer in self.others if peer.id not in self.down]

    def is_down(self, peer: Peer) -> bool:
        return peer.id in self.down

    def failed(self, peer: Peer) -> None:
        self.blamed.append(peer.id)

    def broken(self, peer: Peer, error: Exception, delivered: int = 0) -> PeerError:
        if delivered:
            return BrokeOff(f"{peer.id}: {error}")
        self.failed(peer)
        return PeerError(f"{peer.id}: {error}")

    def ask(
        self, peer: Peer, method: str, path: str, *, limit: int = SMALL_ANSWER, **bounds: float
    ) -> tuple[int, bytes]:
        fake = self.fakes[peer.id]
        self.asked.append((peer.id, path, limit))
        if fake.silent:
            # A timer and not a loop: this greenlet outlives its test, and every later one would share the processor with it.
            gevent.sleep(3600)
        for _ in range(fake.slow + 1):
            gevent.sleep(0)
        if fake.dead:
            self.failed(peer)
            raise PeerError(f"{peer.id}: timed out")
        if path in fake.answers:
            status, body = fake.answers[path]()
            if len(body) > limit:
                raise PeerError(f"{peer.id} sent more than {limit} bytes")
            return status, _named(peer, body) if path == "/p2p/v1/ping" else body
        if path.startswith("/p2p/v1/") and path.endswith("/head"):
            # As a peer of an older release.
            return 404, b""
        assert method == "HEAD"
        fake.heads += 1
        if fake.denies is not None:
            return fake.denies, b""
        return (200 if path.rpartition("/")[2] in fake.blobs else 404), b""

    @contextlib.contextmanager
    def stream(self, peer: Peer, path: str, start: int) -> Iterator[Any]:
        fake = self.fakes[peer.id]
        fake.streams.append(start)
        CLOCK.now += fake.answers_after
        content = fake.blobs.get(path.rpartition("/")[2])
        if content is None:
            raise PeerError(f"{peer.id} does not hold it")
        yield _Body(fake, content, start)


def at_once(function: Any, *arguments: Any) -> Any:
    """Stands in for the thread pool."""
    gevent.sleep(0)
    return function(*arguments)
