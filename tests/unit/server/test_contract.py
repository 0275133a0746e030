"""Names of gunicorn and urllib3 that are used and that neither promises to keep.

A release that lacks one of them fails here, and not at a site. The pins in ``pyproject.toml`` are exact for gunicorn, whose
insides the server leans on (decision 89), and open upwards for urllib3.
"""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import urllib3
from gunicorn import sock, util
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http import body, errors, message, unreader
from gunicorn.http.wsgi import default_environ
from gunicorn.workers.base import Worker as BaseWorker
from gunicorn.workers.ggevent import GeventWorker
from gunicorn.workers.workertmp import WorkerTmp
from urllib3.connection import HTTPConnection, HTTPSConnection

from appliance.server.gunicorn_server import Server

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (BaseApplication, ("load_config", "load", "run")),
        (Arbiter, ("start", "murder_workers", "run")),
        (Logger, ("setup", "error_fmt", "datefmt")),
        (
            GeventWorker,
            (
                *("patch", "run", "notify", "load_wsgi", "timeout_ctx", "handle"),
                *("handle_request", "handle_error", "handle_exit", "handle_quit"),
            ),
        ),
        (WorkerTmp, ("last_update", "notify")),
        (body.Body, ("read",)),
        (unreader.Unreader, ("take_buffered", "unread", "chunk")),
        (body.ChunkedReader, ("parse_chunked",)),
        (util, ("write_error",)),
        (sock, ("ssl_context",)),
        (
            errors,
            (
                *("ParseException", "LimitRequestLine", "LimitRequestHeaders", "UnsupportedTransferCoding"),
                *("ExpectationFailed", "InvalidResponseHeader", "InvalidResponseHeaderName"),
            ),
        ),
        (HTTPConnection, ("response_class", "getresponse")),
        (HTTPSConnection, ("connect",)),
        (urllib3.PoolManager, ("pool_classes_by_scheme", "connection_from_url", "urlopen"))
        if hasattr(urllib3.PoolManager, "pool_classes_by_scheme")
        else (urllib3.PoolManager, ("connection_from_url", "urlopen")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_name_is_there(owner: Any, names: tuple[str, ...]) -> None:
    assert [name for name in names if not hasattr(owner, name)] == []


@pytest.mark.parametrize(
    ("owner", "attributes"),
    [
        (body.Body, ("reader", "buf", "failed")),
        (body.LengthReader, ("length", "unreader")),
        (body.ChunkedReader, ("parser", "req")),
        (message.Message, ("unreader",)),
        (BaseWorker, ("tmp", "aborted", "sockets", "app", "cfg", "alive")),
        (Arbiter, ("LISTENERS", "WORKERS", "timeout", "app")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_attribute_is_set(owner: type, attributes: tuple[str, ...]) -> None:
    """Attributes come to be in a constructor or a method: the source of the class, or of a class below it, sets them."""
    source = "".join(inspect.getsource(kind) for kind in owner.__mro__ if kind is not object)
    missing = [name for name in attributes if not re.search(rf"\b(self\.)?{name}\b[^=\n]*=", source)]
    assert missing == []


def test_a_request_carries_its_socket_and_the_chunked_reader_parses_nothing_before_it_is_read() -> None:
    assert '"gunicorn.socket"' in inspect.getsource(default_environ)
    assert inspect.isgeneratorfunction(body.ChunkedReader.parse_chunked)


def test_a_setting_that_the_release_does_not_know_fails_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server("127.0.0.1:0", lambda: None, workers=1)
    assert server.cfg.limit_request_fields, "it was set"

    class Older(Config):  # type: ignore[misc]  # gunicorn carries no types
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            del self.settings["limit_request_field_size"]

    monkeypatch.setattr("gunicorn.app.base.Config", Older)
    with pytest.raises(SystemExit):
        Server("127.0.0.1:0", lambda: None, workers=1)
    assert "has no setting limit_request_field_size" in capsys.readouterr().err


def test_the_pin_is_exact() -> None:
    pin = f"gunicorn=={version('gunicorn')}"
    assert f'"{pin}",' in (ROOT / "pyproject.toml").read_text()
    assert f"{pin}\n" in (ROOT / "requirements" / "runtime.in").read_text()
