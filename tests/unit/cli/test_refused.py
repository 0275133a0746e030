"""A store that takes no change: each command that writes says so in one error and ends with 1."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gevent.pywsgi import LoggingLogAdapter

from appliance.store.blobs import BlobStore
from appliance.web.listener import bare_app
from tests.unit.store import made

NAME = "docker.io/library/a:1"


@pytest.fixture
def seeded(store: BlobStore) -> BlobStore:
    for number in (1, 2):
        made.publish(store, {NAME: made.image(number)})
    made.fill(store, [made.image(9)])
    return store


def refuse(monkeypatch: pytest.MonkeyPatch, root: Path, number: int) -> None:
    """Let the system refuse each change below a directory, as one that is mounted read-only, or is full, does."""

    def refusing(name: str, is_change: Callable[..., bool]) -> None:
        real = getattr(os, name)

        def call(path: Any, *arguments: Any, **more: Any) -> Any:
            if not isinstance(path, int) and Path(path).is_relative_to(root) and is_change(*arguments, **more):
                raise OSError(number, os.strerror(number), str(path))
            return real(path, *arguments, **more)

        monkeypatch.setattr(os, name, call)

    refusing("open", lambda flags, *_, **__: bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))
    for name in ("unlink", "mkdir", "rename") if number == errno.EROFS else ():
        refusing(name, lambda *_, **__: True)


@pytest.mark.parametrize(("number", "code"), [(errno.EROFS, "APL-0311"), (errno.ENOSPC, "APL-0310")])
@pytest.mark.parametrize("words", [("gc", "--grace", 0), ("pin", NAME), ("rollback", "--to", 1), ("seed",), ("fsck",)])
def test_one_error_says_it(
    run: Any,
    seeded: BlobStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[Any, ...],
    number: int,
    code: str,
) -> None:
    archive = made.write_oci_archive(tmp_path / "m.tar", {"docker.io/library/c:1": made.image(3)})
    more: dict[str, list[object]] = {"seed": [archive], "fsck": ["--repair"]}
    before = made.tree(seeded.root)
    refuse(monkeypatch, seeded.root, number)
    done = run(words[0], "--store", seeded.root, *words[1:], *more.get(words[0], []))
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith(f"{code}: ")
    assert os.strerror(number) in line or "the file system is full" in line
    assert made.tree(seeded.root) == before


def test_an_error_of_the_agents_application_is_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server takes for its log must not come back to the application's logger: 3,900 lines, and the end."""
    # As in the process of the agent: nothing else handles what is logged.
    for logger in (logging.root, logging.getLogger("appliance"), logging.getLogger("appliance.agent")):
        monkeypatch.setattr(logger, "handlers", [])
    said: list[str] = []
    server = logging.getLogger("appliance.agent")

    class Noting(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            said.append(record.getMessage())
            return True

    monkeypatch.setattr(server, "filters", [Noting()])
    app = bare_app()
    monkeypatch.setattr(app.logger, "handlers", [*app.logger.handlers])

    def broken() -> str:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    app.add_url_rule("/broken", view_func=broken)
    stream = LoggingLogAdapter(server, logging.ERROR)
    answer = app.test_client().get("/broken", errors_stream=stream)
    assert answer.status_code == 503
    assert b"Read-only file system" in answer.data
    (line,) = (line for line in said if "Read-only" in line)
    assert "Traceback" not in line
