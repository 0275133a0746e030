"""Peers without a network: each does what a test wrote down for it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gevent
import urllib3

from appliance.config import Peer
from appliance.peers.client import PeerError, Peers

READ = 64 << 10


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
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    breaks_at: int | None = None
    breaks: int = 10**9
    ends_at: int | None = None
    dead: bool = False
    denies: int | None = None
    silent: bool = False
    slow: int = 0
    heads: int = 0
    streams: list[int] = field(default_factory=list)
    answers: dict[str, Callable[[], tuple[int, bytes]]] = field(default_factory=dict)


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
        chunk = self._file.read(limit)
        self._at += len(chunk)
        return chunk


class FakePeers(Peers):
    """Stands in for the way to the peers."""

    def __init__(self, **peers: FakePeer) -> None:
        self.fakes = peers
        self._all = tuple(Peer(name, f"http://{name}", name) for name in peers)
        self.down: set[str] = set()
        self.blamed: list[str] = []

    @property
    def others(self) -> tuple[Peer, ...]:
        return self._all

    def available(self) -> list[Peer]:
        return [peer for peer in self.others if peer.id not in self.down]

    def is_down(self, peer: Peer) -> bool:
        return peer.id in self.down

    def failed(self, peer: Peer) -> None:
        self.blamed.append(peer.id)

    def broken(self, peer: Peer, error: Exception) -> PeerError:
        self.failed(peer)
        return PeerError(f"{peer.id}: {error}")

    def ask(self, peer: Peer, method: str, path: str, **bounds: float) -> tuple[int, bytes]:
        fake = self.fakes[peer.id]
        if fake.silent:
            # A timer and not a loop: this greenlet outlives its test, and every later one would share the processor with it.
            gevent.sleep(3600)
        for _ in range(fake.slow + 1):
            gevent.sleep(0)
        if fake.dead:
            self.failed(peer)
            raise PeerError(f"{peer.id}: timed out")
        if path in fake.answers:
            return fake.answers[path]()
        assert method == "HEAD"
        fake.heads += 1
        if fake.denies is not None:
            return fake.denies, b""
        return (200 if path.rpartition("/")[2] in fake.blobs else 404), b""

    @contextlib.contextmanager
    def stream(self, peer: Peer, path: str, start: int) -> Iterator[Any]:
        fake = self.fakes[peer.id]
        fake.streams.append(start)
        content = fake.blobs.get(path.rpartition("/")[2])
        if content is None:
            raise PeerError(f"{peer.id} does not hold it")
        yield _Body(fake, content, start)


def at_once(function: Any, *arguments: Any) -> Any:
    """Stands in for the thread pool."""
    gevent.sleep(0)
    return function(*arguments)
