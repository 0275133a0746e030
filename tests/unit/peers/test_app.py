"""What a node answers to its peers, and who is answered at all."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from appliance import __version__
from appliance.config import Config, CurrentConfig, Peer
from appliance.peers.app import PeerRoutes, create_app
from appliance.registry.access import ROUTES
from appliance.registry.app import Registry
from appliance.registry.catalog import CurrentCatalog
from appliance.registry.fetcher import NoFetcher
from appliance.store.blobs import BlobStore
from tests.unit.store import made

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
PEERS = (Peer("a", "https://a", "10.0.0.1", seed=True), Peer("b", "https://b", "10.0.0.2"))


def configured(store: BlobStore, pki: Path | None, peers: tuple[Peer, ...] = PEERS) -> Config:
    return Config(node="a", store=store.root, peers=peers, seeds=("a",), pki=pki)


def application(
    store: BlobStore,
    wake: Callable[[], None] = lambda: None,
    pki: Path | None = Path("/pki"),
    current: CurrentConfig | None = None,
) -> Flask:
    config = configured(store, pki)
    generations, pushes = made.generations(store), made.pushes(store)
    catalog = CurrentCatalog(store, generations, pushes)
    routes = PeerRoutes(config, store, generations, pushes, made.pins(store), catalog, wake, lambda digest: None)
    registry = Registry(store, catalog, NoFetcher(), config.site_addresses)
    return create_app(current or CurrentConfig(config), registry.handlers() | routes.handlers(), None)


class _Socket(ssl.SSLSocket):
    """A TLS socket whose peer showed some certificate."""

    def __init__(self, name: str | None) -> None:
        self.name = name

    def __del__(self) -> None:
        """Nothing is open."""

    def gettimeout(self) -> float | None:
        return None

    def settimeout(self, value: float | None) -> None:
        """Nobody is waited for."""

    def getpeercert(self, binary_form: bool = False) -> Any:
        return {} if self.name is None else {"subject": ((("commonName", self.name),),)}


class _Plain:
    """A socket without TLS."""

    def settimeout(self, value: float | None) -> None:
        """Nobody is waited for."""


def as_caller(name: str | None) -> dict[str, Any]:
    return {"gunicorn.socket": _Socket(name)}


@pytest.fixture
def client(store: BlobStore) -> Iterator[FlaskClient]:
    """The listener of a node without PKI: everybody is a node."""
    yield application(store, pki=None).test_client()


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({}, 401),
        (as_caller(None), 401),
        ({"gunicorn.socket": _Plain()}, 401),
        (as_caller("c"), 403),
        (as_caller(""), 403),
    ],
    ids=["plain", "no-certificate", "no-tls", "removed-node", "empty-name"],
)
def test_nothing_but_health_is_open_to_strangers(store: BlobStore, environ: dict[str, Any], status: int) -> None:
    made.publish(store, {"docker.io/library/a:1": made.image(1)})
    woken: list[int] = []
    app = application(store, lambda: woken.append(1))
    client = app.test_client()
    for route in ROUTES:
        for method in METHODS:
            response = client.open(route.example, method=method, environ_overrides=environ)
            if route.name == "health" and method in ("GET", "HEAD"):
                assert response.status_code == 200
            else:
                assert response.status_code == status, (method, route.name)
                assert b"docker.io" not in response.data
    for path in ("/nowhere", "/healthz/", "//healthz", "/healthz/../v2/", "/v2//healthz", "/p2p/v1/ping?x=/healthz"):
        assert client.get(path, environ_overrides=environ).status_code == status, path
    assert woken == []


def test_a_listed_node_is_answered(store: BlobStore) -> None:
    client = application(store).test_client()
    assert client.get("/p2p/v1/ping", environ_overrides=as_caller("b")).status_code == 200
    assert client.get("/v2/", environ_overrides=as_caller("a")).status_code == 200


def test_a_node_that_was_removed_is_refused_with_its_next_request(store: BlobStore) -> None:
    class Listed(CurrentConfig):
        peers: tuple[Peer, ...] = PEERS

        def get(self) -> Config:
            return configured(store, Path("/pki"), self.peers)

    listed = Listed(configured(store, Path("/pki")))
    client, caller = application(store, current=listed).test_client(), as_caller("b")
    assert client.get("/p2p/v1/ping", environ_overrides=caller).status_code == 200
    listed.peers = PEERS[:1]
    refused = client.get("/p2p/v1/ping", environ_overrides=caller)
    assert refused.status_code == 403
    assert "b is not a node of this site" in refused.text
    listed.peers = (*PEERS, Peer("c", "https://c", "10.0.0.3"))
    assert client.get("/v2/", environ_overrides=as_caller("c")).status_code == 200


def test_a_header_is_no_certificate(store: BlobStore) -> None:
    client = application(store).test_client()
    for name in ("X-SSL-Client-CN", "X-Client-CN", "X-Forwarded-For", "Authorization"):
        assert client.get("/v2/", headers={name: "a"}).status_code == 401


def test_ping_names_the_generation(client: FlaskClient, store: BlobStore) -> None:
    assert client.get("/p2p/v1/ping").json == {
        "node": "a",
        "version": __version__,
        "generation": None,
        "pushes": None,
        "pins": None,
    }
    generation = made.publish(store, {"docker.io/library/a:1": made.image(1)})
    assert json.loads(client.get("/p2p/v1/ping").data)["generation"] == {"number": 1, "digest": generation.digest}


def test_the_generation_is_given_byte_for_byte(client: FlaskClient, store: BlobStore) -> None:
    assert client.get("/p2p/v1/generation").status_code == 404
    generation = made.publish(store, {"docker.io/library/a:1": made.image(1)}, sources=["/media/ä\udcff"])
    answer = json.loads(client.get("/p2p/v1/generation").data)
    assert answer == {"raw": generation.raw.decode(), "signature": None}
    assert answer["raw"].encode() == generation.raw


def test_what_is_pinned_is_told_and_given(client: FlaskClient, store: BlobStore) -> None:
    assert client.get("/p2p/v1/pins").status_code == 404
    pinned = made.pins(store).replace({"docker.io/library/a:1": made.image(1).entry})
    assert json.loads(client.get("/p2p/v1/ping").data)["pins"] == {"number": 1, "digest": pinned.digest}
    assert json.loads(client.get("/p2p/v1/pins").data) == {"raw": pinned.raw.decode(), "signature": None}
    (store.root / "pins.json").write_bytes(b"rot")
    answer = client.get("/p2p/v1/ping")
    assert (answer.status_code, json.loads(answer.data)["pins"]) == (200, None)


def test_blobs_that_lie_here_and_no_others(client: FlaskClient, store: BlobStore) -> None:
    one = made.image(1)
    made.fill(store, [one])
    for digest, raw in one.blobs.items():
        assert client.get(f"/p2p/v1/blobs/{digest}").data == raw
        part = client.get(f"/p2p/v1/blobs/{digest}", headers={"Range": "bytes=3-"})
        assert (part.status_code, part.data) == (206, raw[3:])
        head = client.head(f"/p2p/v1/blobs/{digest}")
        assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(raw)))
    assert client.get(f"/p2p/v1/blobs/{made.sha(b'x')}").status_code == 404
    for wrong in ("x", "sha256:..", "sha256:" + "0" * 63):
        assert client.get(f"/p2p/v1/blobs/{wrong}").status_code == 404


def test_wake_tells_the_agent(store: BlobStore) -> None:
    woken: list[int] = []
    client = application(store, lambda: woken.append(1), pki=None).test_client()
    assert client.post("/p2p/v1/wake").status_code == 204
    assert client.get("/p2p/v1/wake").status_code == 405
    assert woken == [1]
