"""A seeded node with both listeners, in this process, that can be put back to how it began."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import Flask

from appliance.oci.reference import parse_reference
from appliance.registry.read import Registry, create_app
from appliance.store.catalog import LiveCatalog
from appliance.web.blob_provider import NoFetcher
from tests.unit.registry.listeners import Listener, authorization
from tests.unit.store import made

ONE = made.image(1, layers=1, size=40)
TWO = made.image(2, layers=1, size=600, arch="arm64", docker=True)
BOTH = made.index({"amd64": ONE, "arm64": TWO})
SIGNATURE = made.image(3, layers=1, size=10, subject=ONE, artifact_type="application/x.signature")
LOST = made.image(4, layers=1, size=30)
LOST_LAYER = LOST.layers[0]
"""A layer that the generation names and that nobody can be asked for: 503."""
SEEDED = {
    "docker.io/library/nginx:1": ONE,
    "docker.io/library/nginx:1.27-alpine": TWO,
    f"docker.io/library/nginx@{SIGNATURE.digest}": SIGNATURE,
    "quay.io/team/app:latest": BOTH,
    "registry.site:5000/blobs/manifests:tags": LOST,
}
SITE = ("10.0.0.1", "10.0.0.1:5443")
OPERATOR = authorization()["Authorization"]
_HEADER_LINE = re.compile(r"[\x20-\x7e\x80-\xff\t]*")


@dataclass(frozen=True)
class Answer:
    """What a listener said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class World:
    """The store, 5000 as ``local`` and 5443 as ``peer``.

    :param root: an empty directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = made.open_store(root / "store")
        made.publish(self.store, SEEDED, leave_out=[LOST_LAYER])
        self._directories = ("blobs/sha256", "blobs/sha512", "uploads", "claims", "pushes", "incoming", "partial")
        (self.store.root / "blobs/sha512").mkdir(exist_ok=True)
        self.listener = Listener(self.store)
        self._catalog = LiveCatalog(self.store, made.generations(self.store), made.pushes(self.store))
        registry = Registry(self.store, self._catalog, NoFetcher(), frozenset(SITE), self.listener.uploads)
        self.local = create_app(registry)
        self._kept = frozenset(self.files())
        # The first check of a password costs what it has to; later ones are remembered.
        assert self.call(self.peer, "GET", "/v2/", headers={"Authorization": OPERATOR}).status == 200

    @property
    def peer(self) -> Flask:
        """The application of 5443, on the publisher, with pushing on."""
        return self.listener.app

    def files(self) -> Iterator[str]:
        """Every file of the store, relative; it is flat enough to be listed for each input."""
        pending = [self.store.root]
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
                    else:
                        yield entry.path

    def changed(self) -> set[str]:
        """Files that came since the beginning, and those that went."""
        return set(self.files()) ^ self._kept

    def reset(self) -> None:
        """Forget everything that was pushed."""
        changed = self.changed()
        assert not changed & self._kept, "a seeded file is gone"
        for path in changed:
            os.unlink(path)
        # Seen without, before there can be new ones: a new file may have the inode and the time of an old one.
        self._catalog.get()
        self.call(self.peer, "GET", "/v2/_catalog")

    def call(  # one request is as many things as the protocol has parts
        self,
        app: Flask,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        length: int | None = -1,
    ) -> Answer:
        """One request as gunicorn hands it on: the path percent-decoded into latin-1, the query as it came.

        :param length: Content-Length, -1 for what the body has, None for chunked transfer encoding.
        """
        path, _, query = target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "RAW_URI": target,
            "QUERY_STRING": query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "5000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body if length is None or length < 0 else body[:length]),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "HTTP_HOST": "127.0.0.1:5000",
        }
        if length is not None:
            environ["CONTENT_LENGTH"] = str(len(body) if length < 0 else length)
        for name, value in (headers or {}).items():
            key = name.upper().replace("-", "_")
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        return _answer(app, environ)


def _answer(app: Flask, environ: dict[str, Any]) -> Answer:
    said: list[tuple[str, list[tuple[str, str]]]] = []
    parts: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info is not None:
            raise exc_info[1]
        said.append((status, headers))
        return parts.append

    iterable = app.wsgi_app(environ, start_response)
    try:
        for part in iterable:
            parts.append(part)
    finally:
        with contextlib.suppress(AttributeError):
            iterable.close()  # type: ignore[attr-defined]  # where it has one
    ((status, headers),) = said
    found: dict[str, str] = {}
    for name, value in headers:
        # gunicorn refuses to send anything else, after the handler did its work.
        assert _HEADER_LINE.fullmatch(value), (name, value)
        assert name.lower() not in found or name.lower() == "oci-tag", f"two headers {name}"
        found[name.lower()] = value
    return Answer(int(status.split(" ", 1)[0]), found, b"".join(parts))


@lru_cache(maxsize=1)
def world() -> World:
    """The one world of this process."""
    root = Path(tempfile.mkdtemp(prefix="apl-fuzz-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return World(root)


def reached() -> dict[str, dict[str, bytes | None]]:
    """Repository to everything that its seeded names reach, with the bytes; None for the layer that is lost."""
    found: dict[str, dict[str, bytes | None]] = {}
    for name, image in SEEDED.items():
        for digest, raw in image.blobs.items():
            found.setdefault(parse_reference(name).name, {})[digest] = None if digest == LOST_LAYER else raw
    return found
