"""Answers given again are the ones the registry gives, and are forgotten with the generation they came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from appliance.config import _View
from appliance.registry.read import Registry, create_app
from appliance.registry.response_cache import Recent
from appliance.store.blobs import BlobStore
from appliance.store.catalog import LiveCatalog
from appliance.web.blob_provider import NoFetcher
from tests.unit.store import made

A, B = made.image(1), made.image(2)
NAME = "docker.io/library/a:1"
PATH = "/v2/library/a/manifests/1"


class Counted(Recent):
    """Counts what the application was asked."""

    def __init__(self, app: Flask, catalog: LiveCatalog) -> None:
        inner = app.wsgi_app
        self.asked = 0

        def ask(environ: dict[str, object], start_response: object) -> object:
            self.asked += 1
            return inner(environ, start_response)  # type: ignore[arg-type]  # as WSGI has it

        super().__init__(ask, catalog)  # type: ignore[arg-type]


def fronted(store: BlobStore) -> tuple[FlaskClient, Counted]:
    catalog = LiveCatalog(store, made.generations(store), made.pushes(store))
    app = create_app(Registry(store, catalog, NoFetcher(), frozenset()))
    recent = Counted(app, catalog)
    app.wsgi_app = recent  # type: ignore[method-assign]
    return app.test_client(), recent


def test_the_second_answer_is_the_first_one(store: BlobStore) -> None:
    made.publish(store, {NAME: A, "quay.io/library/a:1": B})
    client, recent = fronted(store)
    for path in (PATH, f"{PATH}?ns=quay.io", f"{PATH}?ns=docker.io", f"/v2/library/a/manifests/{A.digest}"):
        for method in ("HEAD", "GET"):
            before = recent.asked
            first, second = client.open(path, method=method), client.open(path, method=method)
            assert recent.asked == before + 1
            assert (first.status, first.data, list(first.headers)) == (second.status, second.data, list(second.headers))
            assert first.headers["Content-Length"] == str(len((B if "quay" in path else A).raw))
            assert bool(first.data) is (method == "GET")


def test_another_generation_is_seen_at_once(store: BlobStore) -> None:
    made.publish(store, {NAME: A})
    client, _ = fronted(store)
    assert client.get(PATH).data == client.get(PATH).data == A.raw
    made.publish(store, {NAME: B})
    assert client.get(PATH).data == client.get(PATH).data == B.raw


def test_an_address_that_is_a_nodes_no_more_is_a_registry_again_at_once(store: BlobStore) -> None:
    made.publish(store, {NAME: A})
    catalog = LiveCatalog(store, made.generations(store), made.pushes(store))
    listed = [frozenset({"10.0.0.3"})]
    app = create_app(Registry(store, catalog, NoFetcher(), _View(lambda: listed[0])))
    app.wsgi_app = Recent(app.wsgi_app, catalog, lambda: listed[0])  # type: ignore[method-assign]
    client = app.test_client()
    for _ in range(2):
        assert client.get(f"{PATH}?ns=10.0.0.3").data == A.raw
    listed[0] = frozenset()
    assert client.get(f"{PATH}?ns=10.0.0.3").status_code == 404


def test_what_is_pushed_or_deleted_is_seen_at_once(store: BlobStore) -> None:
    made.publish(store, {NAME: A})
    made.push(store, {"docker.io/team/app:1": A})
    client, _ = fronted(store)
    pushed = "/v2/team/app/manifests/1"
    assert client.get(pushed).data == client.get(pushed).data == A.raw
    made.push(store, {"docker.io/team/app:1": B})
    assert client.get(pushed).data == client.get(pushed).data == B.raw
    made.push(store, {})
    assert client.get(pushed).status_code == 404


def test_a_condition_is_for_the_registry_to_judge(store: BlobStore) -> None:
    made.publish(store, {NAME: A})
    client, recent = fronted(store)
    assert client.get(PATH).status_code == client.get(PATH).status_code == 200
    for header, status in (("If-None-Match", 304), ("If-Match", 200)):
        before = recent.asked
        assert client.get(PATH, headers={header: f'"{A.digest}"'}).status_code == status
        assert recent.asked == before + 1
    assert client.get(PATH, headers={"If-Match": '"other"'}).status_code == 412
    assert client.get(PATH).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/library/a/manifests/none", 404),
        ("GET", f"/v2/library/a/blobs/{A.layers[0]}", 200),
        ("PUT", PATH, 405),
        ("GET", "/v2/library/a/tags/list", 200),
    ],
)
def test_nothing_else_is_kept(store: BlobStore, method: str, path: str, status: int) -> None:
    made.publish(store, {NAME: A})
    client, recent = fronted(store)
    for number in (1, 2):
        assert client.open(path, method=method).status_code == status
        assert recent.asked == number


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"rot"), Path.unlink])
def test_a_damaged_index_stops_nobody_who_has_read_it_before(
    store: BlobStore, damage: Callable[[Path], object]
) -> None:
    made.publish(store, {NAME: A})
    raw = (store.root / "index.json").read_bytes()
    client, _ = fronted(store)
    assert client.get(PATH).status_code == 200
    damage(store.root / "index.json")
    assert client.get(PATH).status_code == 200
    # Who starts now knows nothing, and does not say that there is nothing.
    started, _ = fronted(store)
    assert started.get(PATH).status_code == 503
    (store.root / "index.json").unlink(missing_ok=True)
    (store.root / "index.json").write_bytes(raw)
    assert started.get(PATH).status_code == 200
    made.publish(store, {NAME: made.image(5)})
    assert client.get(PATH).data == started.get(PATH).data != b""


def test_what_is_kept_is_bounded(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.registry.response_cache._MOST_BYTES", 5000)
    made.publish(store, {f"docker.io/library/a:{number}": A for number in range(20)})
    client, recent = fronted(store)
    for number in range(20):
        assert client.get(f"/v2/library/a/manifests/{number}").data == A.raw
    assert len(recent._answers) < 5
    monkeypatch.setattr("appliance.registry.response_cache._LARGEST", 10)
    for asked in (21, 22):
        client.get("/v2/library/a/manifests/0?large")
        assert recent.asked == asked


def test_an_answer_that_took_longer_than_a_generation_is_not_kept_for_the_next(store: BlobStore) -> None:
    """While the application answers one request, another one meets the new generation."""
    made.publish(store, {NAME: A})
    catalog = LiveCatalog(store, made.generations(store), made.pushes(store))
    inner = create_app(Registry(store, catalog, NoFetcher(), frozenset())).wsgi_app
    meanwhile = [lambda: made.publish(store, {NAME: B})]

    def slow(environ: dict[str, object], start_response: object) -> object:
        answer = inner(environ, start_response)  # type: ignore[arg-type]  # as WSGI has it
        if meanwhile:
            meanwhile.pop()()
            assert client.get(PATH).data == B.raw
        return answer

    app = Flask("test")
    app.wsgi_app = Recent(slow, catalog)  # type: ignore[method-assign,arg-type]
    client = app.test_client()
    assert client.get(PATH).data == A.raw
    assert client.get(PATH).data == B.raw
