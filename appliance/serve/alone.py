"""One process behind a unix socket, with no parent: what the agent is.

A parent would keep a second interpreter in memory to watch a single worker. systemd does that as well: the beats come
from the loop that does the work, so one that hangs is silent.
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
from gevent.pywsgi import WSGIServer

from appliance.serve.systemd import notify

_BEAT_SECONDS = 1.0
_GRACE_SECONDS = 2.0
"""Whoever waits for a blob hears of a stop as of a crash: by a closed connection, and asks again."""


def serve(path: Path, make: Callable[[], Any]) -> None:
    """Serve one application until a signal ends it.

    :param path: the socket, for this user alone; one that a killed process left there is replaced.
    :param make: builds the application, after gevent has patched this process.
    """
    ended = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, ended.set)
    os.umask(0o077)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        # Before the application is there: who asks while it starts waits for it, and is not refused.
        listener.listen(128)
        server = WSGIServer(listener, make(), log=None, error_log=logging.getLogger("appliance.agent"))
        server.start()
        notify("READY=1")
        while not ended.wait(_BEAT_SECONDS):
            notify("WATCHDOG=1")
        path.unlink(missing_ok=True)
        server.stop(timeout=_GRACE_SECONDS)
