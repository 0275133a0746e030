"""Pushing with real clients and real processes: credentials, workers, followers, and what kill -9 leaves."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import APPLIANCE, Node, Process, Site, free_port, request, run, wait_for, workers_of
from tests.integration.test_containerd import Containerd
from tests.integration.test_units import Tls
from tests.unit.store import made

PASSWORD = "correct horse battery"
BASIC = {"Authorization": "Basic " + base64.b64encode(f"ops:{PASSWORD}".encode()).decode()}
ONE, TWO = made.image(1, size=5000), made.image(2, size=3 << 20, arch="arm64")
BOTH = made.index({"amd64": ONE, "arm64": TWO})


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One operator, whose line the command made."""
    path = tmp_path_factory.mktemp("push") / "users"
    path.write_text(run(*APPLIANCE, "hash-password", "ops", "--password-stdin", input=PASSWORD).stdout)
    return path


class Registry(Node):
    """An ``appliance serve`` that takes pushes, with two workers."""

    def __init__(self, store: Path, port: int, peers: list[int], users: Path, *, publisher: bool) -> None:
        self._push = ["--push-users", str(users), "--workers", "2"]
        super().__init__(store, port, peers, publisher=publisher)

    def start(self) -> None:
        self.process = Process([*self._words, *self._push], self.store.with_suffix(".log"))

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any, bytes]:
        """One request with credentials, on a connection of its own: whichever worker takes it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
        with contextlib.closing(connection):
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, {**BASIC, "Content-Length": str(len(body)), **sent})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def upload(self, repository: str, raw: bytes) -> None:
        status, _, said = self.call("POST", f"/v2/{repository}/blobs/uploads/?digest={made.sha(raw)}", raw)
        assert status == 201, said

    def push(self, repository: str, tag: str, item: made.Image) -> None:
        for digest, raw in item.blobs.items():
            if digest != item.digest:
                self.upload(repository, raw)
        kind = item.descriptor["mediaType"]
        status, _, said = self.call("PUT", f"/v2/{repository}/manifests/{tag}", item.raw, Content_Type=kind)
        assert status == 201, said


@pytest.fixture
def registry(site: Site, users: Path) -> Iterator[Registry]:
    """The publisher of a site that takes pushes."""
    node = Registry(site.root / "a", free_port(), [], users, publisher=True)
    site.nodes.append(node)
    node.ready()
    yield node


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A multi-arch image as an OCI layout."""
    return made.write_layout(tmp_path / "layout", {"both": BOTH})


def test_skopeo_pushes_lists_pulls_and_deletes(registry: Registry, layout: Path, tmp_path: Path) -> None:
    name = f"docker://127.0.0.1:{registry.port}/team/app"
    creds = f"ops:{PASSWORD}"
    refused = run("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", "--dest-creds=ops:wrong password",
                  f"oci:{layout}:both", f"{name}:1", check=False)  # fmt: skip
    assert refused.returncode != 0
    run("skopeo", "--insecure-policy", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false",
        f"--dest-creds={creds}", f"oci:{layout}:both", f"{name}:1")  # fmt: skip
    listed = run("skopeo", "list-tags", "--tls-verify=false", f"--creds={creds}", name)
    assert json.loads(listed.stdout)["Tags"] == ["1"]
    raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"--creds={creds}", f"{name}:1").stdout
    assert raw.encode() == BOTH.raw
    out = tmp_path / "out"
    run("skopeo", "--insecure-policy", "copy", "--all", "--preserve-digests", "--src-tls-verify=false",
        f"--src-creds={creds}", f"{name}:1", f"oci:{out}:both")  # fmt: skip
    for digest, content in BOTH.blobs.items():
        assert (out / "blobs" / digest.replace(":", "/")).read_bytes() == content
    run("skopeo", "delete", "--tls-verify=false", f"--creds={creds}", f"{name}:1")
    assert registry.call("GET", "/v2/team/app/manifests/1")[0] == 404


def storage_of(root: Path) -> list[str]:
    """Where podman and buildah keep their images; a short path, as they want it."""
    return ["--root", str(root / "s"), "--runroot", str(root / "r"), "--storage-driver", "vfs"]


def test_podman_pushes_and_pulls(registry: Registry, root: Path, tmp_path: Path) -> None:
    archive = made.write_docker_archive(tmp_path / "a.tar", "localhost/app:1", ONE)
    storage = storage_of(root)
    name = f"127.0.0.1:{registry.port}/team/podman:1"
    creds = [f"--creds=ops:{PASSWORD}", "--tls-verify=false"]
    run("podman", *storage, "load", "-i", archive)
    run("podman", *storage, "push", *creds, "localhost/app:1", name)
    run("podman", *storage, "rmi", "localhost/app:1")
    run("podman", *storage, "pull", *creds, name)
    assert name in run("podman", *storage, "images", "--format", "{{.Repository}}:{{.Tag}}").stdout


def test_buildah_pushes_what_it_made(registry: Registry, root: Path, tmp_path: Path) -> None:
    storage = storage_of(root)
    container = run("buildah", *storage, "from", "scratch").stdout.strip()
    (tmp_path / "file").write_bytes(made.noise(9, 200_000))
    run("buildah", *storage, "copy", container, tmp_path / "file", "/file")
    run("buildah", *storage, "commit", container, "localhost/made:1")
    run("buildah", *storage, "push", f"--creds=ops:{PASSWORD}", "--tls-verify=false", "localhost/made:1",
        f"docker://127.0.0.1:{registry.port}/team/made:1")  # fmt: skip
    status, _, raw = registry.call("GET", "/v2/team/made/manifests/1")
    assert status == 200
    for part in [json.loads(raw)["config"], *json.loads(raw)["layers"]]:
        body = registry.call("GET", f"/v2/team/made/blobs/{part['digest']}")[2]
        assert made.sha(body) == part["digest"]


def test_every_node_serves_what_was_pushed_to_the_publisher(site: Site, users: Path) -> None:
    ports = [free_port(), free_port()]
    a = Registry(site.root / "a", ports[0], [ports[1]], users, publisher=True)
    b = Registry(site.root / "b", ports[1], [ports[0]], users, publisher=False)
    site.nodes += [a, b]
    for node in (a, b):
        node.ready()
    a.push("team/app", "1", TWO)

    def served(expected: bytes | None) -> bool:
        status, _, body = b.call("GET", f"/v2/team/app/manifests/1?ns=127.0.0.1:{a.port}")
        return status == 404 if expected is None else body == expected

    wait_for("the follower to serve it", lambda: served(TWO.raw), 5)
    for digest, raw in TWO.blobs.items():
        assert b.call("GET", f"/v2/team/app/blobs/{digest}")[2] == raw
    status, _, said = b.call("PUT", "/v2/team/app/manifests/1", ONE.raw, Content_Type=ONE.descriptor["mediaType"])
    assert status == 403
    assert f"127.0.0.1:{a.port}".encode() in said
    seeded = a.seed(made.write_oci_archive(site.root / "m.tar", {"docker.io/team/app:1": ONE}))
    assert [item["name"] for item in seeded["covers_pushed"]] == ["docker.io/team/app:1"]
    wait_for("the generation to win", lambda: served(ONE.raw), 5)
    assert a.call("DELETE", "/v2/team/app/manifests/1")[0] == 403
    a.push("team/other", "1", ONE)
    b.process.kill()
    assert a.call("DELETE", "/v2/team/other/manifests/1")[0] == 202
    b.start()
    b.ready()
    wait_for("the deletion", lambda: b.call("GET", "/v2/team/other/manifests/1")[0] == 404, 10)


def test_an_upload_goes_on_after_kill_9(registry: Registry) -> None:
    raw = made.noise(4, 5 << 20)
    cut = 3 << 20
    where = registry.call("POST", "/v2/team/app/blobs/uploads/")[1]["Location"]
    assert registry.call("PATCH", where, raw[:cut], Content_Range=f"0-{cut - 1}")[0] == 202
    registry.process.kill()
    registry.start()
    registry.ready()
    status, headers, _ = registry.call("GET", where)
    assert (status, headers["Range"]) == (204, f"0-{cut - 1}")
    rest = registry.call("PATCH", where, raw[cut:], Content_Range=f"{cut}-{len(raw) - 1}")
    assert rest[0] == 202
    assert registry.call("PUT", f"{where}?digest={made.sha(raw)}")[0] == 201
    assert registry.call("GET", f"/v2/team/app/blobs/{made.sha(raw)}")[2] == raw


def test_a_chunked_body_without_a_length(registry: Registry) -> None:
    raw = made.noise(5, (2 << 20) + 17)
    where = registry.call("POST", "/v2/team/app/blobs/uploads/")[1]["Location"]
    connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=40)
    with contextlib.closing(connection):
        pieces = [raw[start : start + 100_000] for start in range(0, len(raw), 100_000)]
        connection.request("PATCH", where, iter(pieces), {**BASIC, "Transfer-Encoding": "chunked"}, encode_chunked=True)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{len(raw) - 1}")
        answer.read()
    assert registry.call("PUT", f"{where}?digest={made.sha(raw)}")[0] == 201


def test_kill_9_in_mid_push_leaves_whole_names_only(registry: Registry) -> None:
    """Push tag after tag and kill all processes in between: each name that is there after the restart is whole."""
    pushed: list[int] = []

    def pushing() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            for number in range(1, 200):
                registry.push("team/app", str(number), made.image(number))
                pushed.append(number)

    for round_ in range(3):
        before = len(pushed)
        client = threading.Thread(target=pushing, daemon=True)
        client.start()
        wait_for("some pushes", lambda before=before, extra=3 + round_: len(pushed) >= before + extra)  # type: ignore[misc]  # bound at once
        os.killpg(registry.process.popen.pid, signal.SIGKILL)
        client.join(40)
        registry.process.popen.wait(20)
        registry.start()
        registry.ready()
        status, _, body = registry.call("GET", "/v2/team/app/tags/list")
        tags = set(json.loads(body)["tags"])
        assert status == 200
        assert {str(number) for number in pushed} <= tags, "what was answered 201 is there"
        for tag in tags:
            assert registry.call("GET", f"/v2/team/app/manifests/{tag}")[2] == made.image(int(tag)).raw
    problems = json.loads(run(*APPLIANCE, "fsck", "--store", registry.store, "--json").stdout)["problems"]
    assert problems == []


def test_over_tls_without_a_client_certificate_and_signed_for_the_others(root: Path, users: Path, layout: Path) -> None:
    """As at a site: operators have a password and the site's CA, nodes a certificate; what is pushed is signed."""
    tls = Tls(root)
    configs = {node: tls.config(node) for node in "ab"}
    for config in configs.values():
        config.write_text(config.read_text() + f"push_users: {users}\n")
    processes = [
        Process([*APPLIANCE, "unit", unit, "--config", str(configs[node])], root / f"{unit}-{node}.log")
        for unit, node in (("peer", "a"), ("agent", "a"), ("agent", "b"))
    ]
    try:
        wait_for("the listener", lambda: tls.ask("/healthz", None)[0] == 200)
        assert tls.ask("/v2/", None)[0] == 401
        name = f"docker://127.0.0.1:{tls.port}/team/app:1"
        certs = root / "certs"
        certs.mkdir()
        (certs / "ca.crt").write_bytes((root / "ca" / "ca.crt").read_bytes())
        run("skopeo", "--insecure-policy", "copy", "--all", "--preserve-digests", f"--dest-cert-dir={certs}",
            f"--dest-creds=ops:{PASSWORD}", f"oci:{layout}:both", name)  # fmt: skip
        assert run("skopeo", "inspect", "--raw", f"--cert-dir={certs}", f"--creds=ops:{PASSWORD}", name).stdout
        anonymous = run("skopeo", "inspect", "--raw", f"--cert-dir={certs}", name, check=False)
        assert "unauthorized" in anonymous.stderr.lower()
        assert tls.ask("/v2/team/app/manifests/1", tls.pki("b")) == (200, BOTH.raw)
        assert tls.ask("/v2/team/app/manifests/1", tls.pki("b"), method="DELETE")[0] == 401

        def followed() -> bool:
            said = json.loads(run(*APPLIANCE, "status", "--config", configs["b"], "--json").stdout)
            return bool(said["pushed_names"] == 1 and said["wanted_missing"] == 0)

        wait_for("the other node", followed, 40)
        signatures = sorted((root / "store-b" / "pushes").glob("*.sig"))
        assert {json.loads(path.read_bytes())["signer"] for path in signatures} == {"a"}
        assert json.loads(run(*APPLIANCE, "fsck", "--store", root / "store-b", "--json").stdout)["problems"] == []
    finally:
        for process in processes:
            process.kill()


def test_containerd_pushes_and_another_node_gives_it_back_under_the_same_name(site: Site, users: Path) -> None:
    ports = [free_port(), free_port()]
    a = Registry(site.root / "a", ports[0], [ports[1]], users, publisher=True)
    site.nodes.append(a)
    b = site.add("b", [ports[0]], port=ports[1])
    for node in (a, b):
        node.ready()
    containerd = Containerd(site.root)
    try:
        name = f"127.0.0.1:{a.port}/team/app:1"
        archive = made.write_oci_archive(site.root / "m.tar", {name: TWO})
        containerd.ctr("images", "import", "--no-unpack", "--all-platforms", archive)
        containerd.ctr("images", "push", "--plain-http", "--user", f"ops:{PASSWORD}", name)
        containerd.ctr("images", "rm", "--sync", name)
        wait_for("the other node", lambda: request(b.port, "/v2/team/app/manifests/1")[0] == 200)
        # As the role registries writes it: the seed's own address is a registry that the node's mirror is asked for.
        containerd.trust(b.port, registries=[f"127.0.0.1:{a.port}"])
        containerd.pull(name, "--platform", "linux/arm64")
        assert TWO.digest in containerd.ctr("images", "list")
        for digest, raw in TWO.blobs.items():
            assert containerd.blob(digest) == raw
    finally:
        containerd.process.stop()


def test_a_large_manifest_leaves_nothing_open_and_no_lock(registry: Registry) -> None:
    """Its hashing waits on a thread of gevent's pool, where gevent's ``os.close`` of a directory never came to an end."""
    registry.push("team/large", "1", ONE)
    for number in range(4):
        document = {**ONE.document, "annotations": {"n": str(number), "x": "y" * (1 << 20)}}
        raw = json.dumps(document).encode()
        kind = ONE.descriptor["mediaType"]
        status, _, said = registry.call("PUT", f"/v2/team/large/manifests/{number}", raw, Content_Type=kind)
        assert status == 201, said
    for pid in workers_of(registry.process.popen.pid):
        opened = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()]
        assert [path for path in opened if path.startswith(f"{registry.store}/") or path == str(registry.store)] == []


def test_many_clients_at_once_lose_nothing(registry: Registry) -> None:
    """Two workers, eight clients, one repository: every push that was answered 201 is a tag, and the index is one."""
    problems: list[BaseException] = []

    def client(number: int) -> None:
        try:
            for step in range(5):
                registry.push("team/app", f"{number}-{step}", made.image(number * 10 + step))
        except BaseException as problem:
            problems.append(problem)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(100)
    assert problems == []
    tags = json.loads(registry.call("GET", "/v2/team/app/tags/list")[2])["tags"]
    assert tags == sorted(f"{number}-{step}" for number in range(8) for step in range(5))
    ping = json.loads(registry.call("GET", "/p2p/v1/ping")[2])
    assert ping["pushes"]["number"] == 40
