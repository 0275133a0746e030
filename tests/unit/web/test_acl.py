"""Who may call what: every method of every route, by every caller, on every kind of listener."""

from __future__ import annotations

import itertools
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.registry.read import Registry, create_app
from appliance.store.blobs import BlobStore
from appliance.store.catalog import LiveCatalog
from appliance.web.acl import ROUTES, Identity, Principal, decide, find
from appliance.web.blob_provider import NoFetcher
from tests.unit.peers.test_routes import as_caller
from tests.unit.registry.listeners import Listener, authorization
from tests.unit.store import made

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW")
CALLERS: dict[str, tuple[str | None, dict[str, str], frozenset[Principal]]] = {
    "stranger": (None, {}, frozenset()),
    "removed-node": ("z", {}, frozenset()),
    "wrong-password": (None, authorization(password="wrong"), frozenset()),
    "wrong-name": (None, authorization(name="root"), frozenset()),
    "node-with-a-wrong-password": ("b", authorization(password="wrong"), frozenset()),
    "bearer": (None, {"Authorization": "Bearer x"}, frozenset()),
    "node": ("b", {}, frozenset({"node"})),
    "operator": (None, authorization(), frozenset({"operator"})),
    "operator-on-a-node": ("b", authorization(), frozenset({"node", "operator"})),
}
_ADDRESSES = itertools.count(1)
#: What each route says by itself once a caller was let through, with nothing in the store and no body.
REACHED = {200, 202, 204, 400, 404, 416}


def somebody() -> dict[str, str]:
    """Return an address that nobody had before: one with wrong passwords behind it is answered otherwise."""
    return {"REMOTE_ADDR": f"2001:db8:{next(_ADDRESSES):x}::1"}


def test_names_are_given_once_and_examples_match() -> None:
    assert len({route.name for route in ROUTES}) == len(ROUTES)
    for route in ROUTES:
        found = find(route.example)
        assert found is not None and found[0] is route


def test_only_operators_write_and_only_health_is_open() -> None:
    for route in ROUTES:
        for method, callers in route.callers.items():
            if method not in ("GET", "HEAD") and route.name != "wake":
                assert callers == {"operator"}, (route.name, method)
            assert ("anybody" in callers) == (route.name == "health")
            assert route.example.startswith("/p2p/") == (callers == {"node"})


@pytest.fixture(scope="module")
def listeners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Listener]:
    """One with pushing on, one with pushing off; both ask for proof."""
    root = tmp_path_factory.mktemp("access")
    return {name: Listener(made.open_store(root / name), push=name == "on", pki=True) for name in ("on", "off")}


@pytest.mark.parametrize("push", ["on", "off"])
@pytest.mark.parametrize("caller", list(CALLERS))
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_method_by_every_caller(listeners: dict[str, Listener], route: object, caller: str, push: str) -> None:
    assert isinstance(route, type(ROUTES[0]))
    certificate, headers, roles = CALLERS[caller]
    if push == "off":
        roles = roles - {"operator"}
        if caller == "node-with-a-wrong-password":
            roles = frozenset({"node"})
    for method in METHODS:
        answer = listeners[push].client.open(
            route.example, method=method, headers=headers, environ_overrides=as_caller(certificate) | somebody()
        )
        status = answer.status_code
        wanted = route.callers.get(method, frozenset())
        if push == "off":
            wanted = wanted - {"operator"}
        if "anybody" in wanted:
            assert status == 200
        elif not roles:
            assert status == (403 if certificate == "z" else 401), (method, status)
            assert (push == "on" and status == 401) == ("WWW-Authenticate" in answer.headers)
        elif wanted & roles:
            assert status in REACHED, (method, status)
        elif wanted:
            assert status == (401 if "operator" in wanted else 403), (method, status)
        else:
            assert status == 405, (method, status)
            assert method not in answer.headers["Allow"].split(", ")


def test_a_path_that_is_no_route_is_no_way_in(listeners: dict[str, Listener]) -> None:
    for path in ("/", "/nowhere", "/healthz/x", "//healthz", "/v2/a", "/v2/a/blobs/uploads/x/y", "/p2p/v1/blobs/a/b"):
        for method in ("GET", "PUT", "BREW"):
            for caller, (certificate, headers, roles) in CALLERS.items():
                answer = listeners["on"].client.open(
                    path, method=method, headers=headers, environ_overrides=as_caller(certificate) | somebody()
                )
                expected = 404 if roles else 403 if certificate == "z" else 401
                assert answer.status_code == expected, (path, method, caller)


def test_the_local_listener_reads_and_nothing_else(store: BlobStore) -> None:
    catalog = LiveCatalog(store, made.generations(store), made.pushes(store))
    client = create_app(Registry(store, catalog, NoFetcher(), frozenset())).test_client()
    for route in ROUTES:
        for method in METHODS:
            status = client.open(route.example, method=method, headers=authorization()).status_code
            callers = route.callers.get(method, frozenset())
            if callers & {"local", "anybody"}:
                assert status in (200, 404), (route.name, method)
            else:
                assert status == (404 if route.example.startswith("/p2p/") else 405), (route.name, method)


@given(
    st.sampled_from([*ROUTES, None]),
    st.sampled_from(METHODS),
    st.frozensets(st.sampled_from(["local", "node", "operator"])),
    st.frozensets(st.sampled_from(["local", "node", "operator"])),
    st.booleans(),
)
def test_nobody_gets_further_than_the_table_says(
    route: object, method: str, roles: frozenset[Principal], offered: frozenset[Principal], problem: bool
) -> None:
    assert route is None or isinstance(route, type(ROUTES[0]))
    verdict = decide(route, method, Identity(roles, problem="wrong" if problem else ""), offered)
    callers = route.callers.get(method, frozenset()) if route else frozenset()
    if verdict.status == 200:
        assert "anybody" in callers or (callers & roles and not problem)
    if problem and "anybody" not in callers:
        assert verdict.status == 401


components = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=5) | st.sampled_from(
    ["blobs", "manifests", "tags", "uploads", "referrers", "list"]
)


@given(st.lists(components, min_size=1, max_size=6), st.sampled_from(["manifests", "blobs", "referrers"]))
def test_a_name_may_have_any_component_and_the_last_match_counts(name: list[str], kind: str) -> None:
    path = "/".join(name)
    found = find(f"/v2/{path}/{kind}/sha256:x")
    assert found is not None
    assert (found[0].name + "s").startswith(kind.rstrip("s"))
    assert found[1]["name"] == path


@pytest.mark.parametrize("path", ["/v2//a/manifests/1", "/v2/manifests/1", "/v2/a/manifests/", "/v2/a/manifests/1/"])
def test_paths_without_a_name_or_a_reference_are_no_routes(path: str) -> None:
    assert find(path) is None


def test_credentials_that_cannot_be_read_let_nobody_in(store: BlobStore) -> None:
    listener = Listener(store, pki=True)
    Path(f"{store.root}-users").unlink()
    assert listener("GET", "/v2/").status_code == 503
    assert listener("GET", "/v2/", auth=False).status_code == 401
