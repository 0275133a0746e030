"""A bad peer as a process: ``python -m tests.badpeers.server SETTINGS``, where SETTINGS is a file of JSON with :class:`Settings`.

It listens on a free port, which it writes to ``<directory>/port``, and appends a line to ``<directory>/asked`` for each
connection (``connected``) and each request (``<node> <method> <path>``). What an entry says nothing about it answers as a node
does that is well: indexes as the publisher gives them, blobs from the publisher's store.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from appliance.trust import common_name
from tests.badpeers.answers import Reply, Send, Step, Then
from tests.badpeers.entries import ENTRIES, WELL, Entry, Errand

_HEAD_LIMIT = 64 << 10
_BLOB = re.compile(r"/p2p/v1/blobs/(sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Settings:
    """Settings of a bad peer.

    :param entry: name of its entry.
    :param node: id of the listed node that it is.
    :param directory: where it writes.
    :param pki: its key and certificate, and the authority of the site.
    :param other: a key and a certificate of another authority.
    :param publisher: port of the publisher's peer listener.
    :param store: the publisher's.
    :param nodes: id of each other node to the port of its peer listener.
    """

    entry: str
    node: str
    directory: str
    pki: str
    other: str
    publisher: int
    store: str
    nodes: dict[str, int]

    def write(self, path: Path) -> None:
        """Write them for the process to read."""
        path.write_text(json.dumps(asdict(self)))


class Request:
    """One request that came, as :class:`tests.badpeers.answers.Asked` describes it."""

    def __init__(self, settings: Settings, method: str, path: str, start: int | None) -> None:
        self._settings = settings
        self.method = method
        self.path = path
        self._start = start

    @property
    def route(self) -> str:
        """Route as entries name it."""
        rest = self.path.partition("?")[0].removeprefix("/p2p/v1/")
        if rest.startswith("blobs/"):
            return "held" if self.method == "HEAD" else "blob"
        return rest

    def at(self, path: str) -> Request:
        return Request(self._settings, self.method, path, self._start)

    def honest(self) -> Reply:
        return self._honest_blob() if self.route in ("held", "blob") else self._of_publisher()

    def blob(self) -> bytes:
        found = self._file()
        return b"" if found is None else found.read_bytes()[self._start or 0 :]

    def sign(self, content: bytes) -> dict[str, str]:
        # Imported where it is needed: most entries sign nothing, and it takes as long to import as all the rest.
        from appliance.pki import sign_content

        certificate, signature = sign_content(Path(self._settings.pki), content)
        return {"signer": self._settings.node, "certificate": certificate, "signature": signature}

    def _file(self) -> Path | None:
        match = _BLOB.fullmatch(self.path)
        path = Path(self._settings.store, "blobs", match[1].replace(":", "/")) if match else None
        return path if path is not None and path.exists() else None

    def _honest_blob(self) -> Reply:
        found = self._file()
        if found is None:
            return Reply(404, b"{}", {})
        size, content = found.stat().st_size, b"" if self.method == "HEAD" else self.blob()
        if self._start is None:
            return Reply(200, content, {"Content-Length": str(size)})
        return Reply(206, content, {"Content-Range": f"bytes {self._start}-{size - 1}/{size}"})

    def _of_publisher(self) -> Reply:
        if self.method == "POST":
            return Reply(204, b"", {})
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._settings.publisher, context=client_context(self._settings), timeout=5
        )
        try:
            connection.request(self.method, self.path)
            response = connection.getresponse()
            body = response.read()
            if self.route == "ping":
                body = json.dumps(json.loads(body) | {"node": self._settings.node}).encode()
            return Reply(response.status, body, {})
        finally:
            connection.close()


def client_context(settings: Settings) -> ssl.SSLContext:
    """Return TLS of the listed node that this is, for any server of the site."""
    context = ssl.create_default_context(cafile=f"{settings.pki}/ca.crt")
    context.check_hostname = False
    context.load_cert_chain(f"{settings.pki}/node.crt", f"{settings.pki}/node.key")
    return context


class BadPeer:
    """The listener of an entry."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._entry: Entry = ({WELL.name: WELL} | ENTRIES)[settings.entry]
        self._asked = os.open(Path(settings.directory, "asked"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._context = _server_context(settings, self._entry)

    def run(self) -> None:
        """Serve until the process is killed."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        new = Path(self._settings.directory, "port.new")
        new.write_text(str(listener.getsockname()[1]))
        new.rename(new.with_name("port"))
        for errand in self._entry.errands:
            for port in self._settings.nodes.values():
                for _ in range(errand.connections):
                    threading.Thread(target=_run, args=(self._settings, errand, port), daemon=True).start()
        while True:
            client, _ = listener.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._note("connected")
        # Whoever was asked something bad leaves as it likes.
        with contextlib.suppress(OSError), client:
            if self._context is None:
                play(client, [*self._entry.greeting, Then.END])
                return
            with self._context.wrap_socket(client, server_side=True) as secure:
                who = common_name(secure.getpeercert())
                if play(secure, self._entry.greeting):
                    while (request := self._read(secure)) is not None:
                        self._note(f"{who} {request.method} {request.path}")
                        if not play(secure, self._entry.answer(request.route)(request)):
                            return

    def _read(self, secure: ssl.SSLSocket) -> Request | None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = secure.recv(_HEAD_LIMIT)
            if not data or len(head) > _HEAD_LIMIT:
                return None
            head += data
        method, path, _ = head.decode("latin-1").split(" ", 2)
        start = re.search(rb"(?i)\r\nrange: *bytes=(\d+)-", head)
        return Request(self._settings, method, path, int(start[1]) if start else None)

    def _note(self, line: str) -> None:
        os.write(self._asked, f"{line}\n".encode())


def play(sock: socket.socket, steps: Iterable[Step]) -> bool:
    """Write an answer; return whether the connection goes on."""
    for step in steps:
        if isinstance(step, Send):
            _send(sock, step)
        elif step is Then.SILENCE:
            while sock.recv(65536):
                pass
            return False
        else:
            if step is Then.RESET:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            return False
    return True


def _send(sock: socket.socket, send: Send) -> None:
    pause, done = threading.Event(), 0
    while send.times is None or done < send.times:
        for at in range(0, len(send.data), send.step or len(send.data)):
            sock.sendall(send.data[at : at + (send.step or len(send.data))])
            if send.pause:
                pause.wait(send.pause)
        done += 1


def _server_context(settings: Settings, entry: Entry) -> ssl.SSLContext | None:
    if entry.certificate == "none":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own = settings.pki if entry.certificate == "site" else settings.other
    context.load_cert_chain(f"{own}/node.crt", f"{own}/node.key")
    context.load_verify_locations(f"{settings.pki}/ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _run(settings: Settings, errand: Errand, port: int) -> None:
    """Do an errand for as long as the process lives."""
    asked = f"{errand.method} {errand.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
    while True:
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            client_context(settings).wrap_socket(plain) as secure,
        ):
            secure.sendall(asked)
            if not errand.reads:
                threading.Event().wait()
            response = http.client.HTTPResponse(secure, method=errand.method)
            response.begin()
            response.read()


def main(arguments: list[str]) -> None:
    BadPeer(Settings(**json.loads(Path(arguments[0]).read_text()))).run()


if __name__ == "__main__":
    main(sys.argv[1:])
