"""Asking peers: what a dead one costs, and what a wrong answer does."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from appliance.config import Config, LiveConfig, Peer
from appliance.peers import https as module
from appliance.peers.https import CONNECT_SECONDS, HttpsTransport
from appliance.peers.transport import ANSWER_SECONDS, READ_SECONDS, BrokeOff, PeerError

A = Peer("a", "http://a", "10.0.0.1")
B = Peer("b", "http://b", "10.0.0.2", seed=True)
ME = Peer("me", "http://me", "10.0.0.3")


class Clock:
    """Time that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Pool:
    """A connection pool that gives one answer, or raises."""

    def __init__(self, answer: Exception | tuple[int, bytes, Mapping[str, str]]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.responses: list[urllib3.HTTPResponse] = []

    def request(self, method: str, url: str, **more: Any) -> urllib3.HTTPResponse:
        self.asked.append((method, url, more))
        if isinstance(self.answer, Exception):
            raise self.answer
        status, body, headers = self.answer
        made = urllib3.HTTPResponse(io.BytesIO(body), headers=headers, status=status, preload_content=False)
        self.responses.append(made)
        return made


def peers_with(monkeypatch: pytest.MonkeyPatch, **pools: Pool) -> tuple[HttpsTransport, Clock]:
    monkeypatch.setattr(module, "_pool", lambda peer, config: pools.get(peer.id, Pool((404, b"", {}))))
    clock = Clock()
    return HttpsTransport(LiveConfig(Config(node="me", store=Path("/s"), peers=(A, B, ME))), clock), clock


REFUSED = urllib3.exceptions.ProtocolError("refused")


def test_this_node_asks_itself_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    peers, _ = peers_with(monkeypatch)
    assert [peer.id for peer in peers.others] == ["a", "b"]


def test_seeds_are_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    peers, _ = peers_with(monkeypatch)
    assert [peer.id for peer in peers.available()] == ["b", "a"]


def test_an_answer_comes_with_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool((403, b"no", {}))
    peers, _ = peers_with(monkeypatch, a=pool)
    assert peers.ask(A, "GET", "/x") == (403, b"no")
    ((method, url, more),) = pool.asked
    assert (method, url, more["redirect"], more["retries"]) == ("GET", "http://a/x", False, False)
    assert more["timeout"].connect_timeout == CONNECT_SECONDS < 1
    assert more["timeout"].read_timeout == READ_SECONDS < 1
    assert pool.responses[0].closed


@pytest.mark.parametrize("error", [REFUSED, OSError("unreachable"), urllib3.exceptions.TimeoutError("slow")])
def test_a_dead_peer_costs_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    pool = Pool(error)
    peers, clock = peers_with(monkeypatch, a=pool)
    with pytest.raises(PeerError, match=r"a \(10.0.0.1\)"):
        peers.ask(A, "GET", "/x")
    assert peers.is_down(A)
    assert [peer.id for peer in peers.available()] == ["b"]
    clock.now = 1.9
    assert peers.is_down(A)
    clock.now = 2.0
    assert not peers.is_down(A)


@given(st.integers(1, 20))
def test_the_pause_doubles_up_to_half_a_minute(failures: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        peers, clock = peers_with(patch)
        for number in range(1, failures + 1):
            peers.failed(A)
            pause = min(30.0, 2.0**number)
            clock.now += pause - 0.001
            assert peers.is_down(A)
            clock.now += 0.002
            assert not peers.is_down(A)
        peers.answered(A)
        peers.failed(A)
        clock.now += 2.001
        assert not peers.is_down(A)


def test_a_peer_that_answers_is_well_again(monkeypatch: pytest.MonkeyPatch) -> None:
    peers, _ = peers_with(monkeypatch, a=Pool((200, b"", {})))
    peers.failed(A)
    peers.ask(A, "GET", "/x")
    assert not peers.is_down(A)


def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    peers, _ = peers_with(monkeypatch, a=Pool((200, b"x" * 11, {})), b=Pool((200, b"x" * 10, {})))
    with pytest.raises(PeerError, match="more than 10"):
        peers.ask(A, "GET", "/x", limit=10)
    assert peers.ask(B, "GET", "/x", limit=10) == (200, b"x" * 10)
    assert not peers.is_down(B)


def test_an_answer_that_comes_byte_by_byte_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks all peers waits for the last one: a byte within each time-out must not be enough."""

    def read1(self: Any, amount: int = -1) -> bytes:
        clock.now += READ_SECONDS / 2
        return b"x"

    monkeypatch.setattr(urllib3.HTTPResponse, "read1", read1)
    peers, clock = peers_with(monkeypatch, a=Pool((200, b"", {})))
    begun = clock.now
    with pytest.raises(PeerError, match=r"no whole answer in 1\.8 s"):
        peers.ask(A, "GET", "/x")
    assert clock.now - begun < ANSWER_SECONDS + 1
    assert peers.is_down(A)


def test_a_stream_starts_where_it_was_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool((206, b"rest", {"Content-Range": "bytes 5-8/9"}))
    peers, _ = peers_with(monkeypatch, a=pool)
    with peers.stream(A, "/blob", 5) as response:
        assert response.read1(100) == b"rest"
    assert pool.asked[0][2]["headers"] == {"Range": "bytes=5-"}
    assert pool.responses[0].closed


@pytest.mark.parametrize(
    ("status", "headers", "start"),
    [
        (404, {}, 0),
        (500, {}, 0),
        (302, {"Location": "http://elsewhere"}, 0),
        (200, {}, 5),
        (206, {}, 5),
        (206, {"Content-Range": "bytes 4-8/9"}, 5),
        (206, {"Content-Range": "bytes 50-80/90"}, 5),
    ],
)
def test_a_stream_of_anything_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], start: int
) -> None:
    pool = Pool((status, b"wrong", headers))
    peers, _ = peers_with(monkeypatch, a=pool)
    with pytest.raises(PeerError), peers.stream(A, "/blob", start):
        raise AssertionError("it was opened")
    assert pool.responses[0].closed


def test_a_whole_answer_will_do_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    peers, _ = peers_with(monkeypatch, a=Pool((200, b"all", {})))
    with peers.stream(A, "/blob", 0) as response:
        assert response.read1(10) == b"all"


SILENT = urllib3.exceptions.ReadTimeoutError(None, "/b", "timed out")  # type: ignore[arg-type]  # no pool is read here


@pytest.mark.parametrize(
    ("error", "delivered", "is_dead"),
    [
        (REFUSED, 1, False),
        (ConnectionResetError("reset"), 5 << 20, False),
        (EOFError("early end"), 1, False),
        (REFUSED, 0, True),
        (EOFError("early end"), 0, True),
        (SILENT, 5 << 20, True),
        (TimeoutError("silent"), 1, True),
    ],
)
def test_a_body_that_breaks_after_it_delivered_is_no_dead_peer(
    monkeypatch: pytest.MonkeyPatch, error: Exception, delivered: int, is_dead: bool
) -> None:
    peers, _ = peers_with(monkeypatch)
    problem = peers.broken(A, error, delivered)
    assert isinstance(problem, BrokeOff) is not is_dead
    assert peers.is_down(A) is is_dead
    assert "a (10.0.0.1)" in str(problem)


class Listed(LiveConfig):
    """A list of nodes that a test changes."""

    def __init__(self, *peers: Peer) -> None:
        self.peers = peers

    def get(self) -> Config:
        return Config(node="me", store=Path("/s"), peers=self.peers)


def test_a_change_of_the_list_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Peer] = []

    def pool(peer: Peer, config: Config) -> Pool:
        made.append(peer)
        return Pool((200, b"", {}))

    monkeypatch.setattr(module, "_pool", pool)
    listed = Listed(A, B, ME)
    peers = HttpsTransport(listed, Clock())
    for peer in peers.others:
        peers.ask(peer, "GET", "/x")
    peers.failed(A)
    assert peers.is_down(A)
    moved = Peer("a", "http://elsewhere", "10.0.0.9")
    listed.peers = (moved, ME)
    assert peers.available() == [moved], "what failed at its old address says nothing of the new one"
    peers.ask(moved, "GET", "/x")
    assert made == [A, B, moved], "one pool for each"


def test_what_still_runs_with_a_removed_peer_may_end_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool((206, b"rest", {"Content-Range": "bytes 3-6/7"}))
    monkeypatch.setattr(module, "_pool", lambda peer, config: pool)
    listed = Listed(A, B, ME)
    peers = HttpsTransport(listed, Clock())
    with peers.stream(A, "/b", 3) as response:
        listed.peers = (B, ME)
        assert peers.available() == [B]
        assert response.read1() == b"rest"
        peers.broken(A, REFUSED)
    assert peers.available() == [B]
