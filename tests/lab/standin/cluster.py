"""Making a cluster, joining one, and staying in touch with it."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import os
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import pki
from .members import Member, Members

HEARTBEAT = 2.0
_CLOCK_SKEW = 3.0
_SERVER_SECRETS = ("server-ca.crt", "server-ca.key", "client-ca.crt", "client-ca.key")
_BUILT_IN_NAMES = (
    "127.0.0.1",
    "::1",
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "10.43.0.1",
)

_log = logging.getLogger("k3s")


class JoinError(RuntimeError):
    """The node cannot be part of this cluster; the real K3s would exit with these words."""


@dataclass(frozen=True)
class Paths:
    """Files of the cluster's identity under the data directory."""

    data: Path

    @property
    def tls(self) -> Path:
        """A server's certificates."""
        return self.data / "server" / "tls"

    @property
    def agent(self) -> Path:
        """Every node's certificates."""
        return self.data / "agent"

    @property
    def passwords(self) -> Path:
        """Names and passwords by which servers and agents are known."""
        return self.data / "server" / "cred" / "passwd"

    @property
    def token(self) -> Path:
        """The token under which nodes join."""
        return self.data / "server" / "token"


def password(token: str) -> tuple[str, str]:
    """Password and CA fingerprint of a token, in the short form or as ``K10<fingerprint>::<user>:<password>``."""
    if token.startswith("K10") and "::" in token:
        mark, _, rest = token.removeprefix("K10").partition("::")
        return rest.partition(":")[2] or rest, mark
    return token, ""


def found(paths: Paths, token: str, agent_token: str, *, etcd: bool = False) -> None:
    """Make or keep the first server's authorities and tokens.

    :raises JoinError: where the cluster on disk has another token, or its passwords are younger than the stored ones.
    """
    wanted = password(token)[0]
    if paths.token.is_file():
        kept = password(paths.token.read_text("utf-8").strip())[0]
        if wanted and wanted != kept:
            raise JoinError("bootstrap data already found and encrypted with different token")
        wanted = kept
    for name in ("server-ca", "client-ca"):
        pki.authority(paths.tls, name)
    server = wanted or secrets.token_hex(16)
    _keep_passwords(paths, f"{agent_token or server},node\n{server},server\n", etcd=etcd)
    _write_tokens(paths, server, agent_token)


def _keep_passwords(paths: Paths, passwords: str, *, etcd: bool) -> None:
    """Write the file of passwords as the real K3s does: SQLite stores it once, and what differs on disk may not be younger."""
    file, stored = paths.passwords, paths.data / "server" / "db" / "passwords.json"
    if file.is_file() and stored.is_file():
        known = json.loads(stored.read_text("utf-8"))
        if file.read_text("utf-8") != known["content"]:
            if file.stat().st_mtime - known["time"] >= _CLOCK_SKEW:
                raise JoinError(
                    f"{file} newer than datastore and could cause a cluster outage. "
                    "Remove the file(s) from disk and restart to be recreated from datastore."
                )
            pki.put(file, known["content"], 0o600)
    if not file.is_file() or file.read_text("utf-8") != passwords:
        pki.put(file, passwords, 0o600)
    if etcd or not stored.is_file():
        pki.put(stored, json.dumps({"content": passwords, "time": time.time()}), 0o600)


def issue_server(paths: Paths, names: Iterable[str]) -> None:
    """A server's own certificates."""
    everything = [*_BUILT_IN_NAMES, *names]
    pki.leaf(
        paths.tls,
        "server-ca",
        "serving-kube-apiserver",
        subject="/CN=kube-apiserver",
        names=everything,
        usage="serverAuth",
    )
    if not (paths.tls / "client-admin.crt").is_file():
        pki.leaf(paths.tls, "client-ca", "client-admin", subject="/O=system:masters/CN=system:admin")


def issue_node(paths: Paths, names: Iterable[str], into: Path) -> None:
    """The certificates that every node has in its agent directory."""
    for name in ("server-ca.crt", "client-ca.crt"):
        pki.put(into / name, (paths.tls / name).read_text("utf-8"), 0o644)
    pki.leaf(paths.tls, "client-ca", "client-k3s-controller", subject="/CN=system:k3s-controller", into=into)
    pki.leaf(
        paths.tls,
        "server-ca",
        "serving-kubelet",
        subject="/CN=kubelet",
        names=["127.0.0.1", "::1", "localhost", *names],
        usage="serverAuth",
        into=into,
    )


def answer_join(paths: Paths, document: dict[str, Any], scratch: Path, embedded: bool) -> dict[str, Any]:
    """What a server gives to a node that showed the token: certificates, and for a server the authorities' keys."""
    issue_node(paths, [str(name) for name in document["names"]], scratch)
    files = {f"agent/{item.name}": item.read_text("utf-8") for item in sorted(scratch.iterdir())}
    if document["role"] == "server":
        files.update({f"server/tls/{name}": (paths.tls / name).read_text("utf-8") for name in _SERVER_SECRETS})
    return {"files": files, "embedded_registry": embedded}


def join(
    paths: Paths,
    urls: Iterable[str],
    token: str,
    document: dict[str, Any],
    agent_token: str = "",
    *,
    stopped: Callable[[float], bool],
) -> dict[str, Any]:
    """Ask the servers, one after another and again and again, until one lets this node in; write what it gave.

    :param agent_token: what this node, as a server, takes from agents; it is of its own configuration, as in K3s.
    :param stopped: waits that many seconds and says whether to give up.
    :raises JoinError: where a server refuses the token or shows another CA than the token names.
    """
    secret, mark = password(token)
    candidates = list(dict.fromkeys(urls))
    told = 0.0
    while True:
        for url in candidates:
            try:
                answer = _ask(url, secret, mark, document, paths.agent)
            except (OSError, http.client.HTTPException, ssl.SSLError) as error:
                if time.monotonic() - told > 10.0 or not told:
                    _log.info("Waiting to retrieve agent configuration; server is not ready: %s: %s", url, error)
                    told = time.monotonic()
                continue
            for name, text in answer["files"].items():
                pki.put(paths.data / name, text, 0o600 if name.endswith(".key") else 0o644)
            if document["role"] == "server":
                _write_tokens(paths, secret, agent_token)
            return answer
        if stopped(1.0):
            raise JoinError("stopped while waiting for a server")


def client_context(paths: Paths) -> ssl.SSLContext:
    """How this node talks to another one."""
    context = ssl.create_default_context(cafile=str(paths.agent / "server-ca.crt"))
    context.load_cert_chain(paths.agent / "client-k3s-controller.crt", paths.agent / "client-k3s-controller.key")
    return context


def heartbeat(
    paths: Paths, members: Members, me: Callable[[], Member], stop: threading.Event, port: int = 6443
) -> None:
    """Until told to stop: tell every other server that this node lives, and hear whom it knows."""
    context = client_context(paths)
    while True:
        members.heard(me())
        talks = [
            threading.Thread(target=_tell, args=(member, members, context, port), daemon=True)
            for member in members.others(me().name)
            if member.role == "server"
        ]
        for talk in talks:
            talk.start()
        if stop.wait(HEARTBEAT):
            return


def _tell(member: Member, members: Members, context: ssl.SSLContext, port: int) -> None:
    connection = http.client.HTTPSConnection(member.address, port, timeout=HEARTBEAT, context=context)
    try:
        connection.request("POST", "/v1-k3s/standin/heartbeat", json.dumps({"known": members.entries()}))
        response = connection.getresponse()
        body = response.read()
        if response.status == 200:
            members.merge(json.loads(body)["known"])
    except (OSError, http.client.HTTPException, ValueError):
        pass  # it is down or on its way: the next beat tries again
    finally:
        connection.close()


def _ask(url: str, secret: str, mark: str, document: dict[str, Any], own: Path) -> dict[str, Any]:
    address = urlsplit(url)
    if address.scheme != "https" or not address.hostname:
        raise JoinError(f"invalid server url: {url}")
    host, port = address.hostname, address.port or 443
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    authority = _talk(host, port, blind, "/cacerts")
    if mark and pki.fingerprint(authority) != mark:
        raise JoinError("token CA hash does not match the Cluster CA certificate hash")
    trusted = ssl.create_default_context(cadata=authority)
    certificate = own / "client-k3s-controller.crt"
    if certificate.is_file() and (own / "server-ca.crt").read_text("utf-8") == authority:
        # As K3s does (pkg/agent/run.go): a node that was of this cluster shows its certificate too.
        trusted.load_cert_chain(certificate, certificate.with_suffix(".key"))
    user = "server" if document["role"] == "server" else "node"
    basic = base64.b64encode(f"{user}:{secret}".encode()).decode()
    body = _talk(host, port, trusted, "/v1-k3s/standin/join", body=json.dumps(document), authorization=f"Basic {basic}")
    answer: dict[str, Any] = json.loads(body)
    return answer


def _talk(
    host: str, port: int, context: ssl.SSLContext, path: str, *, body: str | None = None, authorization: str = ""
) -> str:
    connection = http.client.HTTPSConnection(host, port, timeout=10, context=context)
    headers = {"Authorization": authorization} if authorization else {}
    try:
        connection.request("POST" if body else "GET", path, body, headers)
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    if response.status in (401, 403):
        raise JoinError(f"token is not valid: {host}:{port} answered {response.status}: {text.strip()}")
    if response.status != 200:
        raise OSError(f"{path}: {response.status} {text.strip()[:200]}")
    return text


def _write_tokens(paths: Paths, secret: str, agent_secret: str) -> None:
    mark = pki.fingerprint((paths.tls / "server-ca.crt").read_text("utf-8"))
    pki.put(paths.token, f"K10{mark}::server:{secret}\n", 0o600)
    server = paths.token.parent
    if agent_secret:
        pki.put(server / "agent-token", f"K10{mark}::node:{agent_secret}\n", 0o600)
    for name in ("node-token", *(() if agent_secret else ("agent-token",))):
        link = server / name
        if not link.is_symlink():
            link.unlink(missing_ok=True)
            os.symlink(paths.token, link)
