"""The two pairs of listeners that are compared, each pair over one store of its own, and a client for them.

============  ==============================================  ======================================
pair          Debian's docker-registry                        ours
============  ==============================================  ======================================
``write``     deletion on, ``htpasswd``                       the unit ``peer``: TLS, operators
``local``     the same files, ``maintenance: readonly``       the unit ``mirror``: plain, for pulls
============  ==============================================  ======================================
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from appliance.config import load
from appliance.oci import mediatypes
from appliance.web.auth import line_for
from tests.bench.servers import docker_registry_command
from tests.integration.conftest import APPLIANCE, Process, free_port, wait_for
from tests.integration.differential import content
from tests.integration.test_units import Tls
from tests.unit.store import made

Headers = Sequence[tuple[str, str | None]]
"""Header lines; a name may come more than once. None: not even what is sent otherwise."""
ACCEPT = ", ".join(sorted(mediatypes.MANIFEST_TYPES | mediatypes.INDEX_TYPES))
"""What a request for a manifest carries, as those of all clients do."""
PASSWORD = "correct horse battery"
AUTHORIZATION = "Basic " + base64.b64encode(f"ops:{PASSWORD}".encode()).decode()
# bcrypt of the same at the least cost: docker-registry takes no other hash, and checks it with every request.
_HTPASSWD = "ops:$2b$04$PwG9cB7jX0FYKMuwI1x3JuaslOt3I16cXoVYtmQAqxos8/KSBwIJu\n"


@dataclass(frozen=True)
class Answer:
    """One answer as it came.

    :param is_whole: false where fewer bytes came than its Content-Length says.
    """

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    is_whole: bool = True


@dataclass(frozen=True)
class Server:
    """A listener on loopback.

    :param tls: how to connect; None for plain HTTP.
    :param authorization: sent with a request that has no ``Authorization`` of its own; "" for none.
    """

    name: str
    port: int
    tls: ssl.SSLContext | None = None
    authorization: str = ""

    @property
    def base(self) -> str:
        """What its absolute URLs begin with."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, headers: Headers = (), body: bytes = b"", *, chunked: bool = False) -> Answer:
        """One request on a connection of its own; ``path`` goes out as it is, byte for byte."""
        if path.startswith(("http:", "https:")):
            parts = urlsplit(path)
            path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection = (
            http.client.HTTPSConnection("127.0.0.1", self.port, timeout=40, context=self.tls)
            if self.tls
            else http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
        )
        own = {name.lower() for name, _ in headers}
        usual = {"Authorization": self.authorization, "Accept": ACCEPT if "/manifests/" in path else ""}
        sent = [*headers, *((name, value) for name, value in usual.items() if value and name.lower() not in own)]
        with contextlib.closing(connection):
            connection.connect()
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in sent:
                if value is not None:
                    connection.putheader(name, value)
            if chunked:
                connection.putheader("Transfer-Encoding", "chunked")
            elif (body or method in ("POST", "PUT", "PATCH")) and "content-length" not in own:
                connection.putheader("Content-Length", str(len(body)))
            # A server that refuses a body before it has read it may close; its answer is there all the same.
            with contextlib.suppress(ConnectionError):
                connection.endheaders(_cut(body) if chunked else body or None, encode_chunked=chunked)
            answer = connection.getresponse()
            try:
                return Answer(answer.status, answer.headers, answer.read())
            except http.client.IncompleteRead as short:
                return Answer(answer.status, answer.headers, short.partial, is_whole=False)


def _cut(body: bytes) -> Iterator[bytes]:
    yield from (body[start : start + 1000] for start in range(0, len(body), 1000))


@dataclass(frozen=True)
class Pair:
    """Two listeners that ought to answer alike."""

    name: str
    theirs: Server
    ours: Server


@contextlib.contextmanager
def running(root: Path) -> Iterator[dict[str, Pair]]:
    """Both pairs, filled with :data:`content.NAMES`, by name; their processes end with the block."""
    with contextlib.ExitStack() as stack:

        def start(log: str, *words: object) -> None:
            stack.callback(Process([str(word) for word in words], root / f"{log}.log").kill)

        passwords = root / "htpasswd"
        passwords.write_text(_HTPASSWD)
        theirs = Server("docker-registry", free_port(), authorization=AUTHORIZATION)
        start("theirs", *docker_registry_command(root, theirs.port, passwords=passwords))
        theirs_local = Server("docker-registry, read-only", free_port())
        start("theirs-local", *docker_registry_command(root, theirs_local.port, read_only=True))

        users = root / "users"
        users.write_text(line_for("ops", PASSWORD) + "\n")
        site = Tls(root)
        config = site.config("a")
        config.write_text(config.read_text() + f"push_users: {users}\n")
        trusting = ssl.create_default_context(cafile=str(root / "ca" / "ca.crt"))
        ours = Server("peer", site.port, trusting, AUTHORIZATION)
        start("ours", *APPLIANCE, "unit", "peer", "--config", config)
        ours_local = Server("mirror", int(load(config).mirror_listen.rpartition(":")[2]))
        start("ours-local", *APPLIANCE, "unit", "mirror", "--config", config)

        for server in (theirs, theirs_local, ours, ours_local):
            wait_for(server.name, lambda server=server: server.ask("GET", "/v2/").status == 200)  # type: ignore[misc]  # bound at once
        for server in (theirs, ours):
            fill(server)
        yield {"write": Pair("write", theirs, ours), "local": Pair("local", theirs_local, ours_local)}


def fill(server: Server) -> None:
    """Push :data:`content.NAMES`, as clients do: blobs, listed manifests, then the name."""
    for (repository, reference), item in content.NAMES.items():
        children = {entry["digest"]: entry["mediaType"] for entry in item.document.get("manifests", [])}
        for digest, raw in item.blobs.items():
            if digest != item.digest and digest not in children:
                upload(server, repository, raw)
        for digest, kind in children.items():
            _push(server, repository, digest, item.blobs[digest], kind)
        _push(server, repository, reference, item.raw, item.descriptor["mediaType"])


def upload(server: Server, repository: str, raw: bytes) -> None:
    """A blob by POST and PUT."""
    opened = server.ask("POST", f"/v2/{repository}/blobs/uploads/")
    assert opened.status == 202, opened.body
    where = opened.headers["Location"]
    path = f"{where}{'&' if '?' in where else '?'}digest={made.sha(raw)}"
    done = server.ask("PUT", path, [("Content-Type", "application/octet-stream")], raw)
    assert done.status == 201, done.body


def _push(server: Server, repository: str, reference: str, raw: bytes, kind: str) -> None:
    done = server.ask("PUT", f"/v2/{repository}/manifests/{reference}", [("Content-Type", kind)], raw)
    assert done.status == 201, done.body
