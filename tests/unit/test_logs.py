"""Logs of all processes: one record is one line, whatever a stranger put into it."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest

from appliance import logs
from appliance.server.gunicorn_server import Server
from tests.hostile import HOSTILE, UNWRITABLE, acting, assert_harmless


def raised(problem: Exception) -> logging.LogRecord:
    try:
        raise problem
    except Exception:
        return logging.LogRecord("x", logging.ERROR, "f", 1, "%s failed", (HOSTILE,), sys.exc_info())


def test_a_record_is_one_line() -> None:
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "%s: %r", (UNWRITABLE, HOSTILE), None)
    text = logs.Formatter("%(levelname)s %(message)s").format(record)
    assert_harmless(text)
    assert "\n" not in text


def test_a_traceback_has_no_line_of_a_stranger() -> None:
    record = raised(ValueError(HOSTILE))
    record.exc_text = f"left by another handler {HOSTILE}"
    text = logs.Formatter().format(record)
    assert_harmless(text)
    assert text.splitlines()[1] == "Traceback (most recent call last):"
    assert text.splitlines()[-1].startswith("ValueError: x\\nNov 30")


def test_gunicorn_logs_in_that_form(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server("127.0.0.1:1", lambda: None, workers=1)
    log = server.cfg.logger_class(server.cfg)
    try:
        for handler in log.error_log.handlers:
            handler.setStream(sys.stderr)
        log.warning("%s %s: %s", "GET", f"/v2/{HOSTILE}", UNWRITABLE)
        said = capsys.readouterr().err
        assert_harmless(said)
        assert said.count("\n") == 1 and said.startswith("[")
    finally:
        log.error_log.handlers.clear()


PROGRAM = """
import logging, sys, threading
from appliance import logs
from tests.hostile import HOSTILE
logs.install(service={service})
logs.install(service={service})
logging.getLogger("appliance.x").error("%s", HOSTILE)
logging.getLogger("some.library").warning("%s", HOSTILE)
{last}
"""


@pytest.mark.parametrize(
    ("service", "last"),
    [
        (False, "raise ValueError(HOSTILE)"),
        (True, "raise ValueError(HOSTILE)"),
        (True, "import gevent; gevent.spawn(lambda: 1 / 0 if not HOSTILE else int(HOSTILE)).join()"),
        (True, "print(repr(HOSTILE), HOSTILE.replace(chr(10), ''), file=sys.stderr)"),
    ],
)
def test_a_process_logs_and_dies_in_harmless_words(service: bool, last: str) -> None:
    program = PROGRAM.format(service=service, last=last)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert_harmless(done.stderr)
    assert done.stderr.count("x\\nNov 30") == 3, done.stderr


def test_standard_error_of_a_service_is_a_stream_as_libraries_use_it() -> None:
    under = io.StringIO()
    stream = logs.HarmlessStream(under)
    assert stream.write(f"{HOSTILE}\n") == len(HOSTILE) + 1
    stream.flush()
    assert acting(under.getvalue()) == [] and not stream.isatty()
