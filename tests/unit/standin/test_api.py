"""The embedded registry's route between two nodes, over TLS on loopback: nothing but this machine is asked."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.standin import api, cluster, pki
from tests.lab.standin.members import Member, Members
from tests.unit.standin.test_ctr import World

NS = "?ns=r.site"


@dataclass
class Pair:
    """A server that holds an image, and an agent beside it."""

    world: World
    paths: cluster.Paths
    port: int
    mode: Path
    agent: Member
    server: Member

    def ask(
        self,
        member: Member,
        path: str,
        method: str = "GET",
        *,
        certificate: bool = True,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes, dict[str, str]]:
        context = cluster.client_context(self.paths)
        if not certificate:
            context = ssl.create_default_context(cafile=str(self.paths.agent / "server-ca.crt"))
        connection = http.client.HTTPSConnection(member.address, self.port, timeout=10, context=context)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read(), dict(response.headers)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    paths = cluster.Paths(tmp_path / "data")
    cluster.found(paths, "secret", "")
    cluster.issue_node(paths, ["127.0.0.2", "127.0.0.3"], paths.agent)
    pki.leaf(paths.tls, "server-ca", "serving", subject="/CN=s", names=["127.0.0.2", "127.0.0.3"], usage="serverAuth")
    world = World(tmp_path / "world")
    world.ctr.names = [world.by_tag, world.by_digest]
    server = Member("s", "127.0.0.2", "server", "v1", ready=True)
    agent = Member("g", "127.0.0.3", "agent", "v1", ready=True)
    started: list[api.Server] = []
    port = 0
    mode = tmp_path / "mode"
    for member in (server, agent):
        members = Members()
        members.heard(server)
        members.heard(agent)
        held = world if member is server else World(tmp_path / "empty")
        node = api.Node(
            me=member,
            members=members,
            store=held.store,
            client=lambda: cluster.client_context(paths),
            embedded=True,
            shared=frozenset({"r.site"}),
            passwords={"server": "secret", "node": "agents"},
            cacert=(paths.tls / "server-ca.crt").read_text(),
            join=lambda document: {"let in": document["name"]},
            port=port,
            mode_file=mode,
        )
        begun = api.start(
            node,
            paths.tls / "serving.crt",
            paths.tls / "serving.key",
            paths.agent / "client-ca.crt",
            address=member.address,
            port=port,
        )
        port = begun.server_address[1]
        node.port = port
        started.append(begun)
    try:
        yield Pair(world, paths, port, mode, agent, server)
    finally:
        for item in started:
            item.shutdown()
            item.server_close()


def test_another_nodes_image_comes_through(pair: Pair) -> None:
    status, _, headers = pair.ask(pair.agent, f"/v2/a/b/manifests/1{NS}", "HEAD")
    assert (status, headers["Docker-Content-Digest"]) == (200, pair.world.manifest)
    assert headers["Content-Type"] == "application/vnd.oci.image.manifest.v1+json"
    assert int(headers["Content-Length"]) == pair.world.store.blob(pair.world.manifest).stat().st_size
    assert pair.ask(pair.agent, f"/v2/a/b/blobs/{pair.world.layer}{NS}")[1] == b"layer"
    status, body, headers = pair.ask(pair.agent, f"/v2/a/b/blobs/{pair.world.layer}{NS}", headers={"Range": "bytes=2-"})
    assert (status, body, headers["Content-Range"]) == (206, b"yer", "bytes 2-4/5")


def test_hand_imported_image_resolves_and_then_fails(pair: Pair) -> None:
    pair.world.ctr.names = [pair.world.by_tag]
    assert pair.ask(pair.agent, f"/v2/a/b/manifests/1{NS}", "HEAD")[0] == 200
    assert pair.ask(pair.agent, f"/v2/a/b/manifests/{pair.world.manifest}{NS}")[0] == 404


def test_a_node_does_not_serve_itself_and_asked_nodes_ask_no_further(pair: Pair) -> None:
    assert pair.ask(pair.server, f"/v2/a/b/manifests/1{NS}")[0] == 404
    assert pair.ask(pair.agent, f"/v2/a/b/manifests/1{NS}", headers={api.HOP: "1"})[0] == 404


@pytest.mark.parametrize(
    "path", ["/v2/a/b/manifests/1", "/v2/a/b/manifests/1?ns=x.site", f"/v2/a/b/manifests/latest{NS}"]
)
def test_what_is_not_shared_is_not_found(pair: Pair, path: str) -> None:
    assert pair.ask(pair.agent, path)[0] == 404


def test_certificate_is_needed(pair: Pair) -> None:
    assert pair.ask(pair.agent, f"/v2/a/b/manifests/1{NS}", certificate=False)[0] == 401
    assert pair.ask(pair.agent, "/v2/")[0] == 200
    assert pair.ask(pair.server, "/readyz", certificate=False)[0] == 401
    assert pair.ask(pair.server, "/readyz")[:2] == (200, b"ok")
    assert pair.ask(pair.agent, "/readyz")[0] == 404
    assert pair.ask(pair.server, "/ping", certificate=False)[1] == b"pong"


def test_mode_404(pair: Pair) -> None:
    pair.mode.write_text("404\n")
    assert pair.ask(pair.agent, f"/v2/a/b/manifests/1{NS}", "HEAD")[0] == 404
    pair.mode.write_text("a word it does not know\n")
    assert pair.ask(pair.agent, f"/v2/a/b/manifests/1{NS}", "HEAD")[0] == 200


def test_mode_head_then_404(pair: Pair) -> None:
    pair.mode.write_text("head-then-404")
    assert pair.ask(pair.agent, f"/v2/a/b/manifests/1{NS}", "HEAD")[0] == 200
    assert pair.ask(pair.agent, f"/v2/a/b/blobs/{pair.world.layer}{NS}")[0] == 404


def test_mode_stall_gives_half_and_then_nothing(pair: Pair) -> None:
    pair.mode.write_text("stall")
    connection = http.client.HTTPSConnection(
        pair.agent.address, pair.port, timeout=0.5, context=cluster.client_context(pair.paths)
    )
    with contextlib.closing(connection):
        connection.request("GET", f"/v2/a/b/blobs/{pair.world.layer}{NS}")
        response = connection.getresponse()
        assert response.headers["Content-Length"] == "5"
        assert response.read(2) == b"la"
        with pytest.raises(TimeoutError):
            response.read(1)


def test_nodes_as_kubernetes_shows_them(pair: Pair) -> None:
    nodes = json.loads(pair.ask(pair.server, "/api/v1/nodes")[1])["items"]
    assert [node["metadata"]["name"] for node in nodes] == ["g", "s"]
    assert json.loads(pair.ask(pair.server, "/api/v1/nodes/g")[1])["metadata"]["name"] == "g"
    assert pair.ask(pair.server, "/api/v1/nodes/x")[0] == 404


@pytest.mark.parametrize(
    ("role", "token", "error"),
    [
        ("agent", "agents", ""),
        ("server", "secret", ""),
        ("agent", "wrong", "token is not valid"),
        # As with the real one, where agents have a token of their own (genUsers in pkg/daemons/control/deps).
        ("agent", "secret", "token is not valid"),
        ("server", "agents", "token is not valid"),
        ("agent", "K10" + "0" * 64 + "::node:agents", "CA hash does not match"),
    ],
)
def test_joining_needs_the_right_token(pair: Pair, tmp_path: Path, role: str, token: str, error: str) -> None:
    url = f"https://{pair.server.address}:{pair.port}"
    secret, mark = cluster.password(token)
    if not error:
        assert cluster._ask(url, secret, mark, {"role": role, "name": "n"}, tmp_path) == {"let in": "n"}
        return
    with pytest.raises(cluster.JoinError, match=error):
        cluster._ask(url, secret, mark, {"role": role, "name": "n"}, tmp_path)


def test_a_node_of_the_cluster_is_an_agent_again_without_a_token_and_no_server(pair: Pair) -> None:
    url = f"https://{pair.server.address}:{pair.port}"
    assert cluster._ask(url, "old", "", {"role": "agent", "name": "n"}, pair.paths.agent) == {"let in": "n"}
    with pytest.raises(cluster.JoinError, match="token is not valid"):
        cluster._ask(url, "old", "", {"role": "server", "name": "n"}, pair.paths.agent)
