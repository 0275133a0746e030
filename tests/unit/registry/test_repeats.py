"""Repeated requests for a blob: seen by every worker, for a while, and a hash for each is affordable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from appliance.registry.read import Registry, create_app
from appliance.registry.repeats import AGAIN_SECONDS, SOUND_SECONDS, Repeats
from appliance.store.blobs import BlobStore
from appliance.store.catalog import LiveCatalog
from appliance.store.quarantine import verify_or_quarantine
from appliance.web.blob_provider import NoFetcher, Unreachable
from appliance.web.streaming import BlobSource, FileSource
from tests.unit.store import made

IMAGE = made.image(1, size=300_000)
LAYER = IMAGE.layers[0]
RAW = IMAGE.blobs[LAYER]
BLOB = f"/v2/library/nginx/blobs/{LAYER}"
KUBELET = {"User-Agent": "containerd/v2.3.4"}


class Clock:
    """Time that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repeats(clock: Clock) -> Repeats:
    return Repeats(clock)


def test_a_repetition_is_of_the_same_client_and_the_same_blob_within_a_while(repeats: Repeats, clock: Clock) -> None:
    assert not repeats.asked("one", "x")
    assert not repeats.asked("one", "y")
    assert not repeats.asked("two", "x")
    clock.now += AGAIN_SECONDS - 1
    assert repeats.asked("one", "x")
    clock.now += AGAIN_SECONDS - 1
    assert repeats.asked("one", "x"), "each request counts anew"
    clock.now += AGAIN_SECONDS
    assert not repeats.asked("one", "x")


def test_a_file_is_sound_for_a_while_and_only_as_it_was(repeats: Repeats, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"right")
    file = (tmp_path / "x").stat()
    assert not repeats.is_sound("x", file)
    repeats.found_sound("x", file)
    assert repeats.is_sound("x", file)
    assert not repeats.is_sound("y", file)
    os.utime(tmp_path / "x", ns=(1, 1))
    assert not repeats.is_sound("x", (tmp_path / "x").stat())
    (tmp_path / "x").unlink()
    (tmp_path / "y").write_bytes(b"other")
    (tmp_path / "x").write_bytes(b"right")
    assert not repeats.is_sound("x", (tmp_path / "x").stat())
    clock.now += SOUND_SECONDS
    assert not repeats.is_sound("x", file)


def test_what_one_process_is_asked_all_know(repeats: Repeats) -> None:
    """The workers: each is forked from the process that made the table."""
    for _ in range(2):
        child = os.fork()
        if child == 0:
            repeats.asked("one", "x")
            os._exit(0)
        os.waitpid(child, 0)
    assert repeats.asked("one", "x")


def test_a_node_that_pulls_thousands_of_layers_forgets_none(repeats: Repeats, clock: Clock) -> None:
    for number in range(2000):
        clock.now += 0.01
        repeats.asked("one", f"layer {number}")
    assert sum(repeats.asked("one", f"layer {number}") for number in range(2000)) == 2000


# ------------------------------------------------------------------------------------------------ before a registry


class Agent(NoFetcher):
    """Hashes what it is asked to, and fetches from one peer what is damaged."""

    def __init__(self, store: BlobStore) -> None:
        super().__init__()
        self.store = store
        self.hashed = 0
        self.holds = True
        self.answers = True

    def source(self, digest: str, size: int, start: int, *, suspect: bool = False) -> BlobSource:
        if not self.answers:
            raise Unreachable("the agent does not answer")
        self.hashed += suspect
        if not verify_or_quarantine(self.store, digest, size, suspect=suspect):
            if not self.holds:
                raise Unreachable("b does not hold it")
            self.store.put_bytes(RAW)
        opened = self.store.open(digest)
        assert opened is not None
        return FileSource(*opened)


@pytest.fixture
def agent(store: BlobStore) -> Agent:
    made.publish(store, {"docker.io/library/nginx:1": IMAGE})
    return Agent(store)


@pytest.fixture
def client(store: BlobStore, agent: Agent, repeats: Repeats) -> FlaskClient:
    catalog = LiveCatalog(store, made.generations(store), made.pushes(store))
    return create_app(Registry(store, catalog, agent, frozenset(), None, repeats)).test_client()


def get(client: FlaskClient, **headers: str) -> tuple[int, bytes]:
    answer = client.get(BLOB, headers={**KUBELET, **headers})
    return answer.status_code, answer.data


def rot(store: BlobStore) -> None:
    path = store.path(LAYER)
    path.chmod(0o644)
    path.write_bytes(b"?" + RAW[1:])


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-"}])
def test_a_wrong_blob_is_given_once(
    client: FlaskClient, agent: Agent, store: BlobStore, headers: dict[str, str]
) -> None:
    rot(store)
    assert get(client, **headers)[1] != RAW
    for _ in range(3):
        assert get(client, **headers)[1] == RAW
    assert list(store.quarantined()) == [LAYER]


def test_a_wrong_blob_that_nobody_else_holds_is_not_given_again(
    client: FlaskClient, agent: Agent, store: BlobStore
) -> None:
    agent.holds = False
    rot(store)
    assert get(client)[0] == 200
    status, body = get(client)
    assert status == 503
    assert b"b does not hold it" in body


def test_a_right_blob_is_hashed_once_in_a_while(client: FlaskClient, agent: Agent, clock: Clock) -> None:
    for _ in range(10):
        assert get(client) == (200, RAW)
    assert agent.hashed == 1
    clock.now += SOUND_SECONDS
    for _ in range(10):
        assert get(client) == (200, RAW)
    assert agent.hashed == 2


def test_what_is_no_repetition_is_not_hashed(client: FlaskClient, agent: Agent) -> None:
    assert get(client) == (200, RAW)
    assert get(client, **{"User-Agent": "curl"}) == (200, RAW)
    assert get(client, Range="bytes=100-") == (206, RAW[100:])
    assert get(client, Range="bytes=0-99") == (206, RAW[:100])
    assert client.head(BLOB, headers=KUBELET).status_code == 200
    assert get(client, **{"If-None-Match": f'"{LAYER}"'}) == (304, b"")
    assert agent.hashed == 0


def test_without_an_agent_what_lies_here_is_given(client: FlaskClient, agent: Agent) -> None:
    agent.answers = False
    for _ in range(3):
        assert get(client) == (200, RAW)
    agent.answers = True
    assert get(client) == (200, RAW)
    assert agent.hashed == 1, "it was not taken for hashed"


def test_an_empty_blob_is_never_hashed(store: BlobStore, repeats: Repeats) -> None:
    store.put_bytes(b"")
    calls: list[Any] = []

    class Fetcher(NoFetcher):
        def source(self, *arguments: Any, **more: Any) -> BlobSource:
            calls.append(arguments)
            raise Unreachable("never")

    from flask import Flask, request

    from appliance.registry.recheck import Recheck
    from appliance.web.blobs import send_blob

    app = Flask("test")
    recheck = Recheck(store, Fetcher(), repeats)
    for _ in range(2):
        with app.test_request_context("/"):
            assert send_blob(store, Fetcher(), made.sha(b""), 0, request, recheck).status_code == 200
    assert calls == []
