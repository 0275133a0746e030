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
from appliance.config import Config, LiveConfig, Peer
from appliance.countedlog import Report
from appliance.files import write_atomically
from appliance.peers.routes import PeerRoutes
from appliance.peers.served import Served
from appliance.registry.read import Registry
from appliance.store.blobs import BlobStore
from appliance.store.catalog import LiveCatalog
from appliance.store.generations import Generations, make
from appliance.store.index import NameIndex, SignedIndex
from appliance.trust import Signature, Trust
from appliance.web.acl import ROUTES
from appliance.web.blob_provider import NoFetcher
from appliance.web.connection import SOCKET, TRUST
from appliance.web.peer_listener import create_app
from tests.keys import site_keys
from tests.unit.registry.listeners import PASSWORD, Listener, authorization
from tests.unit.store import made

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
PEERS = (Peer("a", "https://a", "10.0.0.1", seed=True), Peer("b", "https://b", "10.0.0.2"))


def configured(store: BlobStore, pki: Path | None, peers: tuple[Peer, ...] = PEERS) -> Config:
    return Config(node="a", store=store.root, peers=peers, seeds=("a",), pki=pki)


def application(
    store: BlobStore,
    wake: Callable[[], None] = lambda: None,
    pki: Path | None = Path("/pki"),
    current: LiveConfig | None = None,
    report: Report | None = None,
) -> Flask:
    config = configured(store, pki)
    opened = made.store(store)
    catalog = LiveCatalog(store, opened.generations, opened.pushes)
    routes = PeerRoutes(config, opened, catalog, wake, lambda digest: None)
    registry = Registry(store, catalog, NoFetcher(), config.site_addresses)
    return create_app(current or LiveConfig(config), registry.handlers() | routes.handlers(), None, report)


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
    return {SOCKET: _Socket(name)}


@pytest.fixture
def client(store: BlobStore) -> Iterator[FlaskClient]:
    """The listener of a node without PKI: everybody is a node."""
    yield application(store, pki=None).test_client()


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({}, 401),
        (as_caller(None), 401),
        ({SOCKET: _Plain()}, 401),
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


def test_the_server_hears_who_gave_right_credentials(store: BlobStore) -> None:
    heard = list[int]()
    trust = {TRUST: lambda: heard.append(1)}
    client = application(store).test_client()
    for name in (None, "c"):
        client.get("/p2p/v1/ping", environ_overrides=as_caller(name) | trust)
    assert not heard
    client.get("/p2p/v1/ping", environ_overrides=as_caller("b") | trust)
    assert heard == [1]
    pushing = Listener(store, pki=True)
    for password in ("wrong", PASSWORD):
        pushing.client.get("/v2/", headers=authorization("ops", password), environ_overrides=trust)
    assert heard == [1, 1]


def test_a_node_that_was_removed_is_refused_with_its_next_request(store: BlobStore) -> None:
    class Listed(LiveConfig):
        peers: tuple[Peer, ...] = PEERS

        def get(self) -> Config:
            return configured(store, Path("/pki"), self.peers)

    listed, reports = Listed(configured(store, Path("/pki"))), list[dict[str, Any]]()
    client = application(store, current=listed, report=reports.append).test_client()
    caller = as_caller("b")
    assert client.get("/p2p/v1/ping", environ_overrides=caller).status_code == 200
    listed.peers = PEERS[:1]
    refused = client.get("/p2p/v1/ping", environ_overrides=caller)
    assert refused.status_code == 403
    assert "b is not a node of this site" in refused.text
    (report,) = reports
    assert report["what"] == "requests of nodes that are not listed"
    assert report["details"] == ["b is not a node of this site"]
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


def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the name of each index that is read from now on."""
    read = list[str]()
    real = SignedIndex.current

    def current(self: SignedIndex[Any]) -> Any:
        read.append(self.index.name)
        return real(self)

    monkeypatch.setattr(SignedIndex, "current", current)
    return read


def test_readers_cost_one_reading(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight nodes that ask in turn, pings beside them: an index is parsed once for each state, and has one copy."""
    generation = made.publish(store, {"docker.io/library/a:1": made.image(1)})
    made.pins(store).replace({"docker.io/library/a:1": made.image(1).entry})
    client = application(store, pki=None).test_client()
    client.get("/p2p/v1/ping")
    read = readings(monkeypatch)
    opened = [client.get("/p2p/v1/generation", buffered=False) for _ in range(8)]
    for _ in range(8):
        assert client.get("/p2p/v1/ping").status_code == 200
    assert read == ["index.json"]
    assert {json.loads(answer.data)["raw"] for answer in opened} == {generation.raw.decode()}
    following = made.publish(store, {"docker.io/library/a:2": made.image(2)})
    assert json.loads(client.get("/p2p/v1/generation").data)["raw"] == following.raw.decode()


def test_a_signature_made_anew_is_given(store: BlobStore) -> None:
    generation = made.publish(store, {"docker.io/library/a:1": made.image(1)})
    client = application(store, pki=None).test_client()
    held = client.get("/p2p/v1/generation", buffered=False)
    signature = Signature("a", "c", "s")
    write_atomically(made.generations(store)._file(generation, ".sig"), signature.to_json())
    assert json.loads(client.get("/p2p/v1/generation").data)["signature"] == signature.to_dict()
    assert json.loads(held.data)["signature"] is None


def test_the_head_and_the_bytes_of_each_index_are_given(client: FlaskClient, store: BlobStore) -> None:
    for name in ("generation", "pushes", "pins"):
        assert client.get(f"/p2p/v1/{name}/head").status_code == 404
    entry = made.image(1).entry
    indexes: dict[str, NameIndex] = {
        "generation": made.publish(store, {"docker.io/library/a:1": made.image(1)}),
        "pushes": made.push(store, {"docker.io/library/b:1": made.image(1)}),
        "pins": made.pins(store).replace({"docker.io/library/a:1": entry}),
    }
    for name, index in indexes.items():
        head = {"kind": name, "number": 1, "digest": index.digest, "size": len(index.raw), "signature": None}
        answer = client.get(f"/p2p/v1/{name}/head")
        assert (answer.status_code, json.loads(answer.data)) == (200, head)
        raw = client.get(f"/p2p/v1/{name}/raw/{index.digest}")
        assert (raw.status_code, raw.data) == (200, index.raw)
        assert client.head(f"/p2p/v1/{name}/raw/{index.digest}").headers["Content-Length"] == str(len(index.raw))
    for other in (indexes["pins"].digest, made.sha(b"x"), "x", "sha256:.."):
        assert client.get(f"/p2p/v1/generation/raw/{other}").status_code == 404


def test_only_the_current_bytes_are_given(client: FlaskClient, store: BlobStore) -> None:
    first = made.publish(store, {"docker.io/library/a:1": made.image(1)})
    path = f"/p2p/v1/generation/raw/{first.digest}"
    assert client.get(path).data == first.raw
    second = made.publish(store, {"docker.io/library/a:1": made.image(2)})
    assert client.get(path).status_code == 404
    assert json.loads(client.get("/p2p/v1/generation/head").data)["number"] == 2
    assert client.get(f"/p2p/v1/generation/raw/{second.digest}").data == second.raw


def test_bytes_cost_no_reading(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index is parsed once for each state, however often its head and bytes are asked for."""
    generation = made.publish(store, {"docker.io/library/a:1": made.image(1)})
    client = application(store, pki=None).test_client()
    read = readings(monkeypatch)
    for _ in range(8):
        assert client.get("/p2p/v1/generation/head").status_code == 200
        assert client.get(f"/p2p/v1/generation/raw/{generation.digest}").data == generation.raw
    assert read == ["index.json"]


def test_a_head_that_nobody_signed_is_not_given(store: BlobStore, tmp_path: Path) -> None:
    """The peer asks for the whole index then, as from an older release."""
    site_keys(tmp_path, "a")
    index = Generations(store, Trust(tmp_path / "a", "a", ["a"]))
    entry = made.image(1).entry
    generation = make(None, {"docker.io/library/a:1": entry}, {}, cause="seeding", created=made.CREATED, sources=[])
    index.publish(generation)
    served, signature = Served(index), index.signature(generation)
    assert signature is not None
    told = served.head()
    assert told is not None and told["signature"] == signature.to_dict() and signature.head is not None
    assert len(json.dumps(told)) < 4096
    for sig in (signature.without_head().to_json(), b"rot", None):
        path = index._file(generation, ".sig")
        path.unlink()
        if sig is not None:
            write_atomically(path, sig)
        assert served.head() is None
    assert served.summary() == {"number": 1, "digest": generation.digest}
