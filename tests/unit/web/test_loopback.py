"""Names by which the local listener is asked: loopback's own, and none that a browser on the node could be led by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import create_environ, run_wsgi_app

from appliance.agent.client import AgentClient
from appliance.config import Config, LiveConfig
from appliance.registry.repeats import Repeats
from appliance.server import wiring
from appliance.web.loopback import LoopbackNames


@pytest.fixture
def mirror(tmp_path: Path) -> Flask:
    """The local listener of a node, as its unit puts it together."""
    return wiring.mirror(LiveConfig(Config(node="a", store=tmp_path / "store", free_percent=0)), Repeats())


def asked(mirror: Flask, host: str | None, version: str = "HTTP/1.1", path: str = "/v2/") -> tuple[int, str]:
    environ = create_environ(path)
    del environ["HTTP_HOST"]
    environ |= {"SERVER_PROTOCOL": version} | ({} if host is None else {"HTTP_HOST": host})
    body, status, _ = run_wsgi_app(mirror.wsgi_app, environ)
    return int(status.split()[0]), b"".join(body).decode()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:5000", "127.0.0.1", "localhost:5000", "localhost", "LocalHost", "[::1]:5000", "[::1]", "localhost:1"],
)
def test_what_this_host_calls_itself_is_answered(mirror: Flask, host: str) -> None:
    assert asked(mirror, host)[0] == 200
    assert asked(mirror, host, path="/v2/?ns=evil.example")[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:5000",
        "127.0.0.1.evil.example",
        "localhost.evil.example:5000",
        "evil.example#localhost",
        "",
        ":5000",
        "127.0.0.1:5000:1",
        "127.0.0.1:x",
        "[::1",
        "::1",
        "127.0.0.1 ",
        "user@127.0.0.1",
        "127.0.0.1:\uff15",
    ],
)
def test_another_name_is_refused_with_those_that_are_answered(mirror: Flask, host: str) -> None:
    for path in ("/v2/", "/healthz", "/v2/library/a/manifests/1", "/nowhere"):
        status, body = asked(mirror, host, path=path)
        assert status == 421
        (problem,) = json.loads(body)["errors"]
        assert problem["code"] == "DENIED"
        assert "answers to localhost, 127.0.0.1, [::1] and not to" in problem["message"]


def test_only_http_1_0_may_have_no_host(mirror: Flask) -> None:
    assert asked(mirror, None)[0] == 400
    assert asked(mirror, None, "HTTP/1.0")[0] == 200
    assert asked(mirror, "evil.example", "HTTP/1.0")[0] == 421


@given(st.text(max_size=30))
def test_no_other_text_gets_through(host: str) -> None:
    def reached(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        name, colon, port = host.rpartition(":")
        assert host.lower() in ("localhost", "127.0.0.1", "[::1]", "10.0.0.1") or (
            colon and name.lower() in ("localhost", "127.0.0.1", "[::1]", "10.0.0.1") and port.isascii()
        )
        return []

    LoopbackNames(reached, "10.0.0.1:5000", lambda *_: None)(
        {"HTTP_HOST": host, "REQUEST_METHOD": "GET"}, lambda *_: None
    )


def test_a_refused_name_is_counted_for_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(
        AgentClient, "report", lambda self, service, events: told.append({"service": service, **events})
    )
    mirror = wiring.mirror(LiveConfig(Config(node="a", store=tmp_path / "store", free_percent=0)), Repeats())
    assert asked(mirror, "evil.example")[0] == 421
    assert asked(mirror, "127.0.0.1:5000")[0] == 200
    (event,) = told
    assert (event["service"], event["count"], event["details"]) == ("mirror", 1, ["evil.example"])
    assert event["what"] == "requests with a Host that is not this host's own"
