"""What answers on 6443: the API as far as roles ask it, joining, and the embedded registry's route."""

from __future__ import annotations

import base64
import contextlib
import hmac
import http.client
import json
import logging
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, unquote, urlsplit

from .ctr import Found, Store
from .members import Member, Members, node_object
from .pods import Pods, of_kinds

MODE_FILE = Path("/run/k3s/standin-registry-mode")
MODES = ("share", "404", "slow404", "head-then-404", "stall")
HOP = "X-K3s-Standin-Hop"
LOOKUP = 3.0
"""Seconds after which a lookup among the other nodes gives up; the real one's time for a HEAD or a manifest."""

_ROUTE = re.compile(r"^/v2/(?P<repository>.+)/(?P<kind>manifests|blobs)/(?P<reference>[^/]+)$")
_RANGE = re.compile(r"^bytes=(\d+)-(\d*)$")
_COPIED = ("Content-Type", "Content-Length", "Content-Range", "Docker-Content-Digest", "Accept-Ranges")

_log = logging.getLogger("k3s")


@dataclass
class Node:
    """What the handlers need to know of this node."""

    me: Member
    members: Members
    store: Store
    client: Callable[[], ssl.SSLContext]
    embedded: bool = False
    shared: frozenset[str] = frozenset()
    passwords: Mapping[str, str] = field(default_factory=dict)
    cacert: str = ""
    join: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    port: int = 6443
    mode_file: Path = MODE_FILE
    pods: Pods | None = None

    def mode(self) -> str:
        """How the embedded registry behaves now; a word it does not know counts as ``share``."""
        try:
            word = self.mode_file.read_text("utf-8").strip()
        except OSError:
            return "share"
        return word if word in MODES else "share"

    def serves(self, registry: str) -> bool:
        """Whether this node takes part for a registry: it has to be a key under ``mirrors:`` here."""
        return self.embedded and (registry in self.shared or "*" in self.shared)


def lookup(node: Node, path: str) -> Member | None:
    """The first other node that has this; all are asked at once."""
    answers: queue.Queue[Member | None] = queue.Queue()
    others = node.members.others(node.me.name)
    deadline = time.monotonic() + LOOKUP

    def ask(member: Member) -> None:
        has = False
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection, response = fetch(node, member, "HEAD", path, timeout=LOOKUP)
            has = response.status == 200
            connection.close()
        answers.put(member if has else None)

    for member in others:
        threading.Thread(target=ask, args=(member,), daemon=True).start()
    for _ in others:
        try:
            found = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return None
        if found is not None:
            return found
    return None


def fetch(
    node: Node, member: Member, method: str, path: str, *, timeout: float, headers: Mapping[str, str] | None = None
) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
    """Ask one other node on its own 6443."""
    connection = http.client.HTTPSConnection(member.address, node.port, timeout=timeout, context=node.client())
    connection.request(method, path, headers={HOP: "1", **(headers or {})})
    return connection, connection.getresponse()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "k3s-stand-in"
    node: Node
    timeout = 60.0

    def setup(self) -> None:
        """Shake hands in this connection's own thread: a silent client holds up nobody else."""
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(self.timeout)
            self.request.do_handshake()
        super().setup()

    def do_GET(self) -> None:
        """Route a GET."""
        self._route()

    def do_HEAD(self) -> None:
        """Route a HEAD."""
        self._route()

    def do_POST(self) -> None:
        """Route a POST."""
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        path = urlsplit(self.path).path
        if not isinstance(document, dict) or self.node.me.role != "server":
            self._text(404, "404 page not found\n")
        elif path == "/v1-k3s/standin/join":
            self._join(document)
        elif path == "/v1-k3s/standin/heartbeat":
            self._heartbeat(document)
        else:
            self._text(404, "404 page not found\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are logged only while debugging."""
        _log.debug("%s %s", self.address_string(), format % args)

    def _known_client(self) -> bool:
        request = self.request
        return isinstance(request, ssl.SSLSocket) and bool(request.getpeercert())

    def _route(self) -> None:
        path = urlsplit(self.path).path
        server = self.node.me.role == "server"
        if path == "/ping":
            self._text(200, "pong")
        elif path == "/cacerts" and server:
            self._text(200, self.node.cacert)
        elif path == "/v2" or path.startswith("/v2/"):
            self._registry(path)
        elif not server:
            self._text(404, "404 page not found\n")
        elif not self._known_client():
            self._json(401, {"kind": "Status", "status": "Failure", "message": "Unauthorized", "code": 401})
        elif path in ("/readyz", "/livez", "/healthz"):
            ready = any(entry["name"] == self.node.me.name and entry["ready"] for entry in self.node.members.entries())
            self._text(200 if ready else 500, "ok" if ready else "[-]starting failed: the stand-in is starting")
        elif path == "/version":
            self._json(200, {"major": "1", "minor": "36", "gitVersion": self.node.me.version, "standIn": True})
        elif path == "/api/v1/nodes":
            items = [node_object(entry) for entry in self.node.members.entries()]
            self._json(200, {"apiVersion": "v1", "kind": "NodeList", "metadata": {}, "items": items})
        elif path in ("/api/v1/pods", "/api/v1/events"):
            lists = self.node.pods.lists() if self.node.pods else {}
            self._json(200, of_kinds(lists, "Pod" if path.endswith("pods") else "Event"))
        elif path.startswith("/api/v1/nodes/"):
            self._one_node(path.removeprefix("/api/v1/nodes/"))
        else:
            self._json(404, _status(404, "NotFound", "the stand-in does not have this"))

    def _one_node(self, name: str) -> None:
        for entry in self.node.members.entries():
            if entry["name"] == name:
                self._json(200, node_object(entry))
                return
        self._json(404, _status(404, "NotFound", f'nodes "{name}" not found'))

    def _join(self, document: dict[str, Any]) -> None:
        user, _, password = _credentials(self.headers.get("Authorization", "")).partition(":")
        wanted = self.node.passwords.get(user, "")
        # A node's certificate is as good as its token to a real one: it may be an agent again, and no server.
        known = document.get("role") == "agent" and self._known_client()
        right = bool(wanted) and hmac.compare_digest(wanted.encode(), password.encode())
        if self.node.join is None or not (right or known):
            self._json(401, _status(401, "Unauthorized", "token is not valid"))
        elif document.get("role") == "server" and user != "server":
            self._json(403, _status(403, "Forbidden", "an agent's token does not let a server join"))
        else:
            self._json(200, self.node.join(document))

    def _heartbeat(self, document: dict[str, Any]) -> None:
        if not self._known_client():
            self._json(401, _status(401, "Unauthorized", "a client certificate is needed"))
            return
        self.node.members.merge(document["known"])
        self._json(200, {"known": self.node.members.entries()})

    def _registry(self, path: str) -> None:
        if not self.node.embedded:
            self._text(404, "404 page not found\n")
            return
        if not self._known_client():
            self._text(401, "Unauthorized\n")
            return
        if path.rstrip("/") == "/v2":
            self._json(200, {})
            return
        match = _ROUTE.match(unquote(path))
        registry = (parse_qs(urlsplit(self.path).query).get("ns") or [""])[0]
        mode = "share" if self.headers.get(HOP) else self.node.mode()
        if match is None or mode in ("404", "slow404") or not self.node.serves(registry):
            if mode == "slow404":
                # That is what this mode is: a lookup as slow as those for a node that is gone.
                time.sleep(5.0)
            self._miss(path)
        elif match["reference"] == "latest" or (match["kind"] == "blobs" and mode == "head-then-404"):
            self._miss(path)
        elif self.headers.get(HOP):
            found = self.node.store.find(registry, match["repository"], match["reference"])
            if found is None:
                self._miss(path)
            else:
                self._own(found, match["kind"])
        else:
            self._from_another(match["kind"], stall=mode == "stall")

    def _own(self, found: Found, kind: str) -> None:
        status, start, end = 200, 0, found.size
        wanted = _RANGE.match(self.headers.get("Range", ""))
        if wanted and int(wanted[1]) < found.size:
            start, end = int(wanted[1]), min(found.size, int(wanted[2]) + 1) if wanted[2] else found.size
            status = 206
        self.send_response(status)
        self.send_header("Content-Type", found.media_type if kind == "manifests" else "application/octet-stream")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Docker-Content-Digest", found.digest)
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{found.size}")
        self.end_headers()
        if self.command == "GET":
            with found.path.open("rb") as blob:
                blob.seek(start)
                _copy(blob, self.wfile, end - start)

    def _from_another(self, kind: str, *, stall: bool) -> None:
        member = lookup(self.node, self.path)
        if member is None:
            self._miss(self.path)
            return
        headers = {"Range": self.headers["Range"]} if self.headers.get("Range") else {}
        try:
            connection, response = fetch(self.node, member, self.command, self.path, timeout=30.0, headers=headers)
        except (OSError, http.client.HTTPException):
            self._miss(self.path)
            return
        with contextlib.closing(connection):
            self.send_response(response.status)
            for name in _COPIED:
                if response.headers.get(name):
                    self.send_header(name, response.headers[name])
            self.end_headers()
            if self.command != "GET":
                return
            length = int(response.headers.get("Content-Length") or 0)
            if stall and kind == "blobs":
                _copy(response, self.wfile, length // 2)
                self.wfile.flush()
                self._until_closed()
                return
            copied = _copy(response, self.wfile, length)
            self.close_connection = self.close_connection or copied != length

    def _until_closed(self) -> None:
        """Hold the connection, saying nothing, until the other side ends it."""
        self.request.settimeout(3600.0)
        with contextlib.suppress(OSError):
            self.request.recv(1)
        self.close_connection = True

    def _miss(self, path: str) -> None:
        self._json(404, {"errors": [{"code": "NOT_FOUND", "message": f"no node has {path}"}]})

    def _json(self, status: int, document: dict[str, Any]) -> None:
        self._text(status, json.dumps(document) + "\n", "application/json")

    def _text(self, status: int, text: str, kind: str = "text/plain") -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


class NothingHere(BaseHTTPRequestHandler):
    """The end of every list of hosts: has nothing, says so at once."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """404."""
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


class Server(ThreadingHTTPServer):
    """One thread a connection; a connection that breaks is nobody's error."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections and failed handshakes are the client's business."""
        _log.debug("connection from %s broke", client_address, exc_info=True)


def start(node: Node, certificate: Path, key: Path, client_ca: Path, *, address: str = "", port: int = 6443) -> Server:
    """Serve in the background: 6443 on all addresses unless told otherwise."""
    handler = type("NodeHandler", (Handler,), {"node": node})
    server = Server((address, port), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def start_dead_end(port: int) -> Server:
    """Serve nothing but 404 on loopback in the background."""
    server = Server(("127.0.0.1", port), NothingHere)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def start_listener(address: str, port: int) -> None:
    """Accept and close connections in the background, where the real one would listen."""
    listener = socket.create_server((address, port), backlog=16)

    def accept() -> None:
        while True:
            with contextlib.suppress(OSError):
                listener.accept()[0].close()

    threading.Thread(target=accept, daemon=True).start()


def _copy(source: IO[bytes] | http.client.HTTPResponse, sink: Any, length: int) -> int:
    left = length
    while left > 0:
        data = source.read(min(left, 1 << 18))
        if not data:
            break
        sink.write(data)
        left -= len(data)
    return length - left


def _credentials(header: str) -> str:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(encoded).decode()
    except ValueError:
        return ""


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
