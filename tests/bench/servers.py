"""The servers that are compared, each on loopback ports of its own, over the same files."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from appliance import pki, trust
from appliance.store import readiness
from appliance.web.auth import line_for
from tests.bench.processes import Child, Failed, free_port, wait_for
from tests.bench.sinks import Address
from tests.keys import certify

DOCKER_REGISTRY = "docker-registry"
PUBLISHER, CLIENT = "a", "b"
_OPERATOR, _PASSWORD = "ops", "only for this run"
_APPLIANCE = (sys.executable, "-m", "appliance")


@dataclass(frozen=True)
class Server:
    """One that runs.

    :param name: as the table calls it.
    """

    name: str
    child: Child
    port: int


class Site:
    """Two nodes' certificates, and the configuration of the first one over a store.

    :param root: an empty directory with a short path: the agent's socket lies in it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = root / "store"
        self.mirror_port, self.peer_port = free_port(), free_port()
        self.config = root / "config.yaml"
        root.mkdir()
        pki.init_ca(root / "ca")
        for node in (PUBLISHER, CLIENT):
            certify(root / "ca", self.pki(node), node, "127.0.0.1")
        document = {
            "node": PUBLISHER,
            "store": str(self.store),
            "pki": str(self.pki(PUBLISHER)),
            "seeds": [PUBLISHER],
            "peers": [
                {"id": PUBLISHER, "address": "127.0.0.1", "url": f"https://127.0.0.1:{self.peer_port}", "seed": True},
                # Nobody listens there: a peer that is off.
                {"id": CLIENT, "address": "127.0.0.1", "url": f"https://127.0.0.1:{free_port()}"},
            ],
            "mirror_listen": f"127.0.0.1:{self.mirror_port}",
            "peer_listen": f"127.0.0.1:{self.peer_port}",
            "agent_socket": str(root / "agent.sock"),
            "free_percent": 0,
            "scrub_rate": 0,
            "push_users": str(root / "users"),
        }
        self.config.write_text(yaml.safe_dump(document))
        (root / "users").write_text(line_for(_OPERATOR, _PASSWORD) + "\n")
        # A publisher asks every listed node before it publishes, and the other one here is off. It never had anything, so
        # the mark that `appliance take-over --without b` would leave is true.
        self.store.mkdir()
        readiness.mark_ready(self.store, PUBLISHER)

    @property
    def authorization(self) -> str:
        """The header with which its operator pushes."""
        return "Basic " + base64.b64encode(f"{_OPERATOR}:{_PASSWORD}".encode()).decode()

    def pki(self, node: str) -> Path:
        """Directory of a node's key and certificate."""
        return self.root / f"pki-{node}"

    def client_tls(self) -> tuple[ssl.SSLContext, str]:
        """How the other node connects to the peer listener, and whom it expects there."""
        return trust.client_context(self.pki(CLIENT)), PUBLISHER

    def seed(self, *sources: Path) -> None:
        """Import with the project's own command."""
        words = [*_APPLIANCE, "seed", "--store", str(self.store), "--config", str(self.config), "--json"]
        done = subprocess.run([*words, *map(str, sources)], capture_output=True, text=True, check=False)
        if done.returncode != 0 or not json.loads(done.stdout)["published"]:
            raise Failed(f"seeding failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def unit(self, name: Literal["mirror", "peer", "agent"]) -> Child:
        """Start one of the node's units."""
        return Child([*_APPLIANCE, "unit", name, "--config", self.config], self.root / f"{name}.log")

    def serve(self, name: Literal["mirror", "peer"], stack: ExitStack) -> Server:
        """One of its listeners, once it listens."""
        child = stack.enter_context(self.unit(name))
        port = self.mirror_port if name == "mirror" else self.peer_port
        tls = self.client_tls() if name == "peer" else None
        wait_for(child, port, Address(port, "/v2/", tls).connect)
        return Server("appliance", child, port)


def development(root: Path, site: Site, workers: int, stack: ExitStack) -> Server:
    """``appliance serve`` over a store of its own: pushes without TLS, for the site's operator."""
    port = free_port()
    words = [*_APPLIANCE, "serve", "--store", root, "--listen", f"127.0.0.1:{port}", "--publisher"]
    users = ["--push-users", site.root / "users", "--workers", workers]
    child = stack.enter_context(Child([*words, *users], site.root / "development.log"))
    wait_for(child, port)
    return Server("appliance", child, port)


_NGINX = """\
daemon off;
user root;
worker_processes 2;
pid {root}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  keepalive_requests 100000000;
  default_type application/octet-stream;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  server {{
    listen 127.0.0.1:{plain};
    root {files};
  }}
  server {{
    listen 127.0.0.1:{tls} ssl;
    root {files};
    ssl_certificate {pki}/node.crt;
    ssl_certificate_key {pki}/node.key;
    ssl_client_certificate {pki}/ca.crt;
    ssl_verify_client on;
  }}
}}
"""


def nginx(root: Path, site: Site, stack: ExitStack) -> tuple[Server, Server]:
    """nginx over the site's store, with sendfile: its plain listener, and the same process's with mutual TLS."""
    root.mkdir()
    plain, tls = free_port(), free_port()
    text = _NGINX.format(root=root, plain=plain, tls=tls, files=site.store, pki=site.pki(PUBLISHER))
    (root / "nginx.conf").write_text(text)
    words = ["nginx", "-e", "stderr", "-p", root, "-c", root / "nginx.conf"]
    child = stack.enter_context(Child(words, root / "log"))
    wait_for(child, plain)
    return Server("nginx", child, plain), Server("nginx", child, tls)


def docker_registry_command(
    root: Path, port: int, *, passwords: Path | None = None, read_only: bool = False, pki: Path | None = None
) -> list[object]:
    """The command line of docker-registry over ``root/storage``, set up as Debian does it.

    :param passwords: an ``htpasswd`` file (Debian's has nobody in it); None lets everybody in.
    :param read_only: whether it refuses every change.
    :param pki: the directory of the certificate that it serves TLS with.
    """
    document: dict[str, Any] = {
        "version": "0.1",
        "log": {"fields": {"service": "registry"}},
        "storage": {
            "cache": {"blobdescriptor": "inmemory"},
            "filesystem": {"rootdirectory": str(root / "storage")},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{port}", "headers": {"X-Content-Type-Options": ["nosniff"]}},
        "health": {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}},
    }
    if pki is not None:
        document["http"]["tls"] = {"certificate": str(pki / "node.crt"), "key": str(pki / "node.key")}
    if passwords is not None:
        document["auth"] = {"htpasswd": {"realm": "docker-registry", "path": str(passwords)}}
    if read_only:
        document["storage"]["maintenance"] = {"readonly": {"enabled": True}}
    file = root / f"config-{port}.yml"
    file.write_text(yaml.safe_dump(document))
    return ["docker-registry", "serve", file]


def docker_registry(root: Path, stack: ExitStack, pki: Path | None = None) -> Server:
    """docker-registry over ``root/storage``; with the certificate of ``pki`` over TLS."""
    port = free_port()
    child = stack.enter_context(Child(docker_registry_command(root, port, pki=pki), root / f"log-{port}"))
    wait_for(child, port)
    return Server(DOCKER_REGISTRY, child, port)
