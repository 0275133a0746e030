"""gunicorn for one listener, configured in code.

gunicorn tells systemd READY and nothing else. The arbiter here also beats the watchdog, and only while every worker
has given a sign of life lately: so a worker whose event loop hangs is ended by the arbiter, and an arbiter that hangs,
or whose workers stay dead, is restarted by systemd.

Decisions 41 and 89.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from gunicorn import __version__
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from appliance import limits, logs
from appliance.countedlog import Report
from appliance.server.sdnotify import Handed, notify

if TYPE_CHECKING:
    import ssl

WORKER_TIMEOUT = 8
"""Seconds without a sign of life after which a worker is ended; a mirror that hangs is worse than one that is down."""
BOOT_TIMEOUT = 30
"""Seconds a worker may take until its first sign of life."""
_MEMORY = "/dev/shm"  # noqa: S108 - gunicorn makes an unnamed file there, so that a slow disk is no sign of death
BEAT_TIMEOUT = 4
"""Seconds without a sign of life of any worker after which systemd hears nothing more; they give one every second."""


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn carries no types
    """A gunicorn that serves one application.

    :param bind: ``host:port``.
    :param make: builds the application inside each worker, after gevent has patched it.
    :param workers: how many processes serve.
    :param tls: makes the TLS context; None for plain HTTP.
    :param report: takes what clients did that they should not, as data.
    :param listed: gives the addresses of the listed nodes, for which strangers leave room; None where all clients are
        of this host.
    """

    def __init__(
        self,
        bind: str,
        make: Callable[[], Any],
        *,
        workers: int,
        tls: Callable[[], ssl.SSLContext] | None = None,
        report: Report | None = None,
        listed: Callable[[], Collection[str]] | None = None,
        handed: Handed | None = None,
        handed_only: bool = False,
    ) -> None:
        self.report = report
        self.listed = listed
        self.handed = handed or Handed()
        self._bind = bind
        self._make = make
        self._workers = workers
        self._tls = tls
        self._kept = self.handed.listener(bind, required=handed_only)
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's settings; gunicorn calls it."""
        settings: dict[str, Any] = {
            "bind": [self._bind if self._kept is None else f"fd://{self._kept}"],
            "workers": self._workers,
            # By its name: whoever only reads these settings is not patched by gevent.
            "worker_class": "appliance.server.gunicorn_worker.Worker",
            "worker_connections": limits.CONNECTIONS,
            "timeout": WORKER_TIMEOUT,
            # Longer than the workers take by themselves: this one kills.
            "graceful_timeout": int(limits.PUSH_GRACE_SECONDS) + 5,
            # Not 0, which would close each connection after one answer; how long is for the worker to say.
            "keepalive": max(1, int(limits.HEAD_SECONDS)),
            "limit_request_line": limits.REQUEST_LINE,
            "limit_request_fields": limits.HEADERS,
            "limit_request_field_size": limits.HEADER_BYTES,
            "umask": 0o027,
            "loglevel": "warning",
            "logger_class": _Log,
            "control_socket_disable": True,
            "forwarded_allow_ips": "",
            "proc_name": "appliance",
            "worker_tmp_dir": _MEMORY if os.access(_MEMORY, os.W_OK) else None,
        }
        if self._tls is not None:
            make = self._tls
            settings["ssl_context"] = lambda config, default: make()
            # gunicorn takes TLS to be on when a certificate is named; the context above is what is used.
            settings["certfile"] = settings["keyfile"] = os.devnull
        for name, value in settings.items():
            if name not in self.cfg.settings:
                # Several of them are bounds on what strangers may do: without one, nothing is served.
                raise RuntimeError(f"gunicorn {__version__} has no setting {name}")
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Return the application; gunicorn calls it."""
        return self._make()

    def run(self) -> None:
        """Serve until a signal ends it."""
        from appliance.server.gunicorn_worker import preload

        preload()
        _Arbiter(self).run()


class _Log(Logger):  # type: ignore[misc]  # gunicorn carries no types
    """gunicorn's log, in the appliance's form: clients choose words in it."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(logs.Formatter(self.error_fmt, self.datefmt))


class _Arbiter(Arbiter):  # type: ignore[misc]  # gunicorn carries no types
    """gunicorn's parent process, which also beats systemd's watchdog."""

    def __init__(self, server: Server) -> None:
        self._born: dict[int, float] = {}
        super().__init__(server)

    def start(self) -> None:
        super().start()
        for listener in self.LISTENERS:
            self.app.handed.keep(listener.fileno())

    def murder_workers(self) -> None:
        patient = [(pid, worker) for pid, worker in self.WORKERS.items() if not worker.aborted]
        super().murder_workers()
        for pid, worker in patient:
            if worker.aborted:
                self.log.critical(
                    "worker %s gave no sign of life for %s s and is killed; its connections are cut, and another worker takes its place",
                    pid,
                    self.timeout,
                )
        now = time.monotonic()
        self._born = {pid: self._born.get(pid, now) for pid in self.WORKERS}
        if self.WORKERS and all(_is_alive(worker, now - self._born[pid]) for pid, worker in self.WORKERS.items()):
            notify("WATCHDOG=1")


def _is_alive(worker: Any, age: float) -> bool:
    try:
        silence = time.monotonic() - worker.tmp.last_update()
    except (OSError, ValueError):
        return False
    # Until its first sign a worker's file has the time of day, which lies ahead: gunicorn would wait for it for ever.
    return bool(silence <= BEAT_TIMEOUT if silence >= 0 else age <= BOOT_TIMEOUT)
