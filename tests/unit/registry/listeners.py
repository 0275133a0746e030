"""The peer listener as a test client: with operators or without, the publisher or another node."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from appliance.config import Config, LiveConfig, Peer
from appliance.peers.routes import PeerRoutes
from appliance.publish.pushes import Publishing, check_publisher
from appliance.registry.push import Pushing
from appliance.registry.read import Registry
from appliance.store import readiness
from appliance.store.blobs import BlobStore
from appliance.store.catalog import LiveCatalog
from appliance.store.store import Store
from appliance.trust import Trust
from appliance.web.auth import Operators, PasswordHash
from appliance.web.blob_provider import NoFetcher
from appliance.web.peer_listener import create_app
from tests.unit.store import made

PASSWORD = "correct horse battery"
PEERS = (
    Peer("a", "https://10.0.0.1:5443", "10.0.0.1", seed=True),
    Peer("b", "https://10.0.0.2:5443", "10.0.0.2"),
)
_SALT = b"salt of the tests"
# Cheap on purpose; made once, since every test needs it.
HASH = PasswordHash(14, 1, 1, _SALT, hashlib.scrypt(PASSWORD.encode(), salt=_SALT, n=1 << 14, r=1, p=1))


def users_file(store: BlobStore) -> Path:
    path = store.root.parent / f"{store.root.name}-users"
    path.write_text(f"# operators\nops:{HASH}\n", encoding="utf-8")
    return path


def authorization(name: str = "ops", password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


class Listener:
    """A node's 5443.

    :param node: its id; ``a`` is the publisher.
    :param push: whether pushing is on.
    :param pki: whether callers have to prove what they are.
    """

    def __init__(self, store: BlobStore, *, node: str = "a", push: bool = True, pki: bool = False) -> None:
        self.store = store
        config = Config(node=node, store=store.root, peers=PEERS, seeds=("a",), pki=Path("/pki") if pki else None)
        readiness.mark_ready(store.root, node)
        opened = Store.over(store, Trust(None, node, ()), lambda: config)
        catalog = LiveCatalog(store, opened.generations, opened.pushes)
        self.uploads = opened.uploads
        registry = Registry(store, catalog, NoFetcher(), config.site_addresses, self.uploads if push else None)
        handlers, operators = registry.handlers(), None
        if push:
            operators = Operators(users_file(store))
            publishing = Publishing(opened, catalog)
            handlers = Pushing(
                lambda: check_publisher(config, store.root), self.uploads, publishing, config.site_addresses
            ).handlers(handlers)
        routes = PeerRoutes(config, opened, catalog, lambda: None, lambda digest: None)
        self.app = create_app(LiveConfig(config), handlers | routes.handlers(), operators)
        self.client: FlaskClient = self.app.test_client()

    def __call__(self, method: str, path: str, data: bytes = b"", *, auth: bool = True, **headers: str) -> TestResponse:
        """One request, with an operator's credentials; underscores in header names become hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.open(path, method=method, data=data, headers=sent | (authorization() if auth else {}))

    def blob(self, repository: str, raw: bytes, algorithm: str = "sha256") -> str:
        """Upload a blob in one request."""
        digest = made.sha(raw, algorithm)
        answer = self("POST", f"/v2/{repository}/blobs/uploads/?{urlencode({'digest': digest})}", raw)
        assert answer.status_code == 201, answer.data
        return digest

    def manifest(self, repository: str, reference: str, item: made.Image | dict[str, Any]) -> TestResponse:
        """Push a manifest alone."""
        raw = item.raw if isinstance(item, made.Image) else made.compact(item)
        kind = item.descriptor["mediaType"] if isinstance(item, made.Image) else item["mediaType"]
        return self("PUT", f"/v2/{repository}/manifests/{reference}", raw, Content_Type=kind)

    def image(self, repository: str, tag: str, item: made.Image) -> None:
        """Push an image as clients do: blobs, children, then the name."""
        children = {entry["digest"] for entry in item.document.get("manifests", [])}
        for digest, raw in item.blobs.items():
            if digest not in children | {item.digest}:
                self.blob(repository, raw)
        for entry in item.document.get("manifests", []):
            raw = item.blobs[entry["digest"]]
            answer = self("PUT", f"/v2/{repository}/manifests/{entry['digest']}", raw, Content_Type=entry["mediaType"])
            assert answer.status_code == 201, answer.data
        answer = self.manifest(repository, tag, item)
        assert answer.status_code == 201, answer.data

    def upload(self, repository: str) -> str:
        """Open an upload; its location."""
        answer = self("POST", f"/v2/{repository}/blobs/uploads/")
        assert answer.status_code == 202
        return str(answer.headers["Location"])


def code(answer: TestResponse) -> str:
    """The one error that an answer carries."""
    (item,) = json.loads(answer.data)["errors"]
    return str(item["code"])
