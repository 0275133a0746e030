"""A mirror that answers wrongly is found, whichever way it is wrong; one that answers rightly is not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import yaml
from click.testing import CliRunner

from appliance.cli.main import main
from appliance.config import Config, LiveConfig
from appliance.errors import ApplianceError
from appliance.registry.repeats import Repeats
from appliance.registry.selfcheck import Wrong, prove, prove_sample
from appliance.server.wiring import mirror
from appliance.store.blobs import BlobStore
from tests.unit.store import made

NAMES = ("docker.io/library/a:1", "quay.io/team/tool:2.0", "registry.example.org:5000/deep/er/app:x")


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _serving(server: HTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _mirror(store: BlobStore) -> Iterator[str]:
    app = mirror(LiveConfig(Config(node="a", store=store.root)), Repeats())
    with _serving(make_server("127.0.0.1", 0, app, handler_class=_Quiet)) as address:
        yield address


def test_every_name_is_answered(store: BlobStore) -> None:
    images = {name: made.image(number) for number, name in enumerate(NAMES)}
    images["quay.io/team/many:1"] = made.index({"linux/amd64": made.image(7), "linux/arm64": made.image(8)})
    generation = made.publish(store, images)
    pushed = made.push(store, {"docker.io/ops/own:1": made.image(9)})
    with _mirror(store) as address:
        assert prove({**generation.names, **pushed.names}, address) == []


def test_wrong_and_missing_names_are_told_and_no_others(store: BlobStore, tmp_path: Path) -> None:
    served = {NAMES[0]: made.image(1), NAMES[1]: made.image(2)}
    made.publish(store, served)
    wanted = {NAMES[0]: made.image(1), NAMES[1]: made.image(3), NAMES[2]: made.image(4)}
    listed = made.publish(made.open_store(tmp_path / "other"), wanted)
    with _mirror(store) as address:
        moved, missing = prove(listed.names, address)
    assert moved == Wrong(NAMES[1], wanted[NAMES[1]].digest, served[NAMES[1]].digest)
    assert (missing.name, missing.expected) == (NAMES[2], wanted[NAMES[2]].digest)
    assert missing.answered == "404 registry.example.org:5000/deep/er/app is not among the repositories of generation 1"


class _Liar(BaseHTTPRequestHandler):
    """Sends other bytes than the digest that it names, and closes each connection without a word."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"{}"
        self.send_response(200)
        self.send_header("Docker-Content-Digest", made.image(1).digest)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_what_a_header_says_is_no_proof_and_a_closed_connection_is_no_failure(store: BlobStore) -> None:
    listed = made.publish(store, {name: made.image(1) for name in NAMES})
    with _serving(HTTPServer(("127.0.0.1", 0), _Liar)) as address:
        assert {item.answered for item in prove(listed.names, address)} == {made.sha(b"{}")}


def test_nobody_there(store: BlobStore) -> None:
    listed = made.publish(store, {NAMES[0]: made.image(1)})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(ApplianceError, match="APL-0404"):
            prove(listed.names, f"127.0.0.1:{free.getsockname()[1]}")


def test_the_command(store: BlobStore, tmp_path: Path) -> None:
    made.publish(store, {NAMES[0]: made.image(1)})
    with _mirror(store) as address:
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump({"node": "a", "store": str(store.root), "mirror_listen": address}))
        good = CliRunner().invoke(main, ["prove", "--config", str(config), "--json"])
        elsewhere = made.open_store(tmp_path / "elsewhere")
        made.publish(elsewhere, {NAMES[1]: made.image(2)})
        config.write_text(yaml.safe_dump({"node": "a", "store": str(elsewhere.root), "mirror_listen": address}))
        bad = CliRunner().invoke(main, ["prove", "--config", str(config)])
    assert good.exit_code == 0 and json.loads(good.stdout)["wrong"] == []
    assert json.loads(good.stdout)["generation"]["number"] == 1
    assert bad.exit_code == 1 and f"{NAMES[1]}: 404 " in bad.stdout


def test_a_sample_pulls_layers_and_hashes_them(store: BlobStore) -> None:
    images = {name: made.image(number) for number, name in enumerate(NAMES)}
    images["quay.io/team/many:1"] = made.index({"amd64": made.image(7), "arm64": made.image(8)})
    names = made.publish(store, images).names
    with _mirror(store) as address:
        whole = prove_sample(names, address, 1 << 20, "seed")
        # Of each image its config and its layer.
        assert (whole.wrong, sorted(whole.names), whole.blobs) == ([], sorted(names), 5 * 2)
        assert whole.pull == whole.names[0]
        # The layers of one image are enough; which one, the seed says.
        small = [prove_sample(names, address, 1, str(number)) for number in range(20)]
    assert {sample.bytes for sample in small} == {0} and {sample.pull for sample in small} == {""}
    assert {sample.names[0] for sample in small} == set(names)


def test_a_layer_that_rots_where_it_lies_is_found(store: BlobStore) -> None:
    image = made.image(1)
    names = made.publish(store, {NAMES[0]: image}).names
    layer = max(image.blobs, key=lambda digest: len(image.blobs[digest]))
    with _mirror(store) as address:
        path = store.path(layer)
        path.chmod(0o644)
        path.write_bytes(bytes(len(image.blobs[layer])))
        sample = prove_sample(names, address, 1 << 20, "")
    assert [(wrong.name, wrong.expected) for wrong in sample.wrong] == [(NAMES[0], layer)]
    assert sample.pull == ""
