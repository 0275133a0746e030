"""Server of one process on a unix socket; the agent runs in it.

A parent would keep a second interpreter in memory to watch a single worker. systemd does that as well: the beats come
from the loop that does the work, so one that hangs is silent.

Decision 37.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gevent import monkey

monkey.patch_all()
# ruff: noqa: E402 - what follows binds sockets, locks and ssl by name, and has to find gevent's
import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

from appliance.errors import fail
from appliance.server.gevent_close import close_at_once
from appliance.server.sdnotify import notify

_BEAT_SECONDS = 1.0
_CONNECTIONS = 2048
"""Two mirrors with two workers of 1000 connections wait here for what is coming; more of them wait in the queue."""
_LOG = logging.getLogger("appliance.agent")
_GRACE_SECONDS = 2.0
"""Whoever waits for a blob hears of a stop as of a crash: by a closed connection, and asks again."""


def serve(path: Path, make: Callable[[], Any]) -> None:
    """Serve one application until a signal ends it, or until its socket was taken from it.

    :param path: the socket, for this user alone; one that a killed process left there is replaced.
    :param make: builds the application, after gevent has patched this process.
    :raises ApplianceError: APL-0403 when a living process answers there.
    """
    close_at_once()
    ended = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, ended.set)
    os.umask(0o077)
    _clear(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        # Before the application is there: who asks while it starts waits for it, and is not refused.
        listener.listen(128)
        mine = _inode(path)
        pool = Pool(_CONNECTIONS)
        server = WSGIServer(listener, make(), spawn=pool, log=None, error_log=_LOG)
        server.start()
        notify("READY=1")
        while not ended.wait(_BEAT_SECONDS):
            if _inode(path) != mine:
                # Nobody can reach this process any more; the one that systemd starts next can be.
                _LOG.error("the socket %s was removed or replaced; this process ends", path)
                break
            notify("WATCHDOG=1")
        if _inode(path) == mine:
            path.unlink(missing_ok=True)
        server.stop(timeout=_GRACE_SECONDS)


def _clear(path: Path) -> None:
    """Take away a socket that nobody listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_BEAT_SECONDS)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as problem:
            why = problem.strerror or str(problem)
        else:
            why = "a process answers there"
    fail(
        "APL-0403",
        "another agent holds the socket of this one",
        where=str(path),
        why=why,
        fix="Only systemd starts the agent: systemctl status appliance-agent",
    )


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
