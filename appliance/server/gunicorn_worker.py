"""gunicorn's gevent worker: fair to every connection, and forked from a parent that has imported what all workers need.

Decisions 35 and 36.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import signal
import ssl
import warnings
from typing import Any

from gevent import monkey

monkey.patch_all(os=False, queue=False, select=False, signal=False, subprocess=False, time=False)
# ruff: noqa: E402 - what follows binds sockets, locks and ssl by name, and has to find gevent's
import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http.errors import (
    ExpectationFailed,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker

from appliance import limits
from appliance.countedlog import CountedLog, origin
from appliance.server.connections import Client, Clients
from appliance.server.gevent_close import close_at_once
from appliance.server.gunicorn_body import body
from appliance.server.unread_body import drop
from appliance.tls import TlsSocket, WithoutData
from appliance.trust import common_name
from appliance.web.connection import BODY, SOCKET, TRUST
from appliance.web.streaming import BrokenOff

_SHARED = ("queue", "select", "selectors", "signal", "subprocess", "time")
_BEAT_SECONDS = 1.0
_SOON = ("GET", "HEAD", None)
"""Methods of downloads; None is a client from which no request has come."""

_DATALESS = "connections closed that sent TLS records without data"

_STATUS = {
    LimitRequestLine: (414, "URI Too Long"),
    LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    UnsupportedTransferCoding: (501, "Not Implemented"),
    ExpectationFailed: (417, "Expectation Failed"),
}
"""Answers to requests that are none; 400 to the others."""


class _Listener:
    """Listener as gunicorn sees it for each connection. It answers also after the stop, for a connection that came just before."""

    def __init__(self, name: Any) -> None:
        self._name = name

    def getsockname(self) -> Any:
        """The address that is listened on."""
        return self._name


class _Server(StreamServer):  # type: ignore[misc]  # gevent's is untyped here
    """gevent's accept loop, which asks for each connection whether it is taken, before a greenlet is made for it."""

    refused = 64
    """Connections that are closed in one turn of the loop, at most: others are to be served meanwhile."""

    def __init__(self, clients: Clients, *arguments: Any, **more: Any) -> None:
        self._clients = clients
        super().__init__(*arguments, **more)

    def do_read(self) -> Any:
        """The next connection that is taken, with its client."""
        for _ in range(self.refused):
            came = super().do_read()
            if came is None:
                return None
            sock, address = came
            client = self._clients.enter(sock, address)
            if client is not None:
                return sock, address, client
            sock.close()
        return None


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn carries no types
    """Takes connections in turns, waits for none of them for ever, and stops without cutting what can be finished.

    gunicorn's own loop makes the TLS handshake without an end, tells no client from another, and waits at a stop for
    every idle connection.
    """

    _is_hurried = False
    wsgi: Any

    def patch(self) -> None:
        """Complete what was begun in the parent, which itself waits, forks and takes signals without gevent."""
        with warnings.catch_warnings():
            # "Patching more than once will result in the union": that is what is meant.
            warnings.simplefilter("ignore", monkey.MonkeyPatchWarning)
            super().patch()
        close_at_once()

    def run(self) -> None:
        """Serve until a signal ends it."""
        self._log = CountedLog(self.log.warning, report=self.app.report)
        listed = self.app.listed
        context = ssl_context(self.cfg) if self.cfg.is_ssl else None
        self._clients = Clients(self.worker_connections, self._log, listed, believed=context is None)
        self._by_socket: dict[Any, Client] = {}
        self._stopping = Event()
        servers = []
        for listener in self.sockets:
            listener.setblocking(1)
            handle = functools.partial(self._take, context, _Listener(listener.getsockname()))
            # Where strangers are told from nodes there is a bound already; a full pool would let nodes wait behind strangers.
            pool = Pool(self.worker_connections if listed is None else None)
            server = _Server(self._clients, listener, handle=handle, spawn=pool)
            if self.cfg.workers > 1:
                # The other workers listen too: whoever is free takes the next one.
                server.max_accept = 1
            server.start()
            servers.append(server)
        sweeper = gevent.spawn(self._sweep)
        while self.alive:
            self.notify()
            self._stopping.wait(_BEAT_SECONDS)
        for server in servers:
            server.close()
        self._finish([server.pool for server in servers])
        sweeper.kill()
        self._log.flush()
        # Python gives a signal its default action back before it ends, and the parent logs whoever died of one.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """SIGTERM: stop, and do not sleep until the next beat before."""
        super().handle_exit(sig, frame)
        stopping = getattr(self, "_stopping", None)
        if stopping is not None:
            stopping.set()

    def handle_quit(self, sig: Any, frame: Any) -> None:
        """SIGINT and SIGQUIT: stop, and wait for no answer.

        gunicorn raises SystemExit in a greenlet here. A terminal sends SIGINT to the parent as well, which sends SIGQUIT: the
        second SystemExit met the end of the interpreter, and gevent printed a traceback.
        """
        self._is_hurried = True
        self.handle_exit(sig, frame)

    def _finish(self, pools: list[Pool]) -> None:
        """Let answers end: connections at rest at once, downloads soon, the rest later. All end by FIN."""
        begun = self._clients.now()
        # The pools too: a connection that was just accepted is in one before it is among the clients.
        while any(len(pool) for pool in pools) and not self._is_hurried:
            spent = self._clients.now() - begun
            if spent >= limits.PUSH_GRACE_SECONDS + _BEAT_SECONDS:
                break
            self._clients.cut_all(functools.partial(_is_over, spent))
            self.notify()
            gevent.sleep(0.05)

    def _sweep(self) -> None:
        while True:
            gevent.sleep(limits.SWEEP_SECONDS)
            try:
                self._clients.sweep()
            except Exception:
                self.log.exception("looking at the connections failed; it goes on")

    def _take(
        self, context: ssl.SSLContext | None, listener: _Listener, sock: Any, address: Any, client: Client
    ) -> None:
        """Answer one connection from its handshake to its end."""
        try:
            if context is not None:
                sock = client.sock = TlsSocket(sock, context)
                late = TimeoutError(f"not within {limits.FIRST_HEAD_SECONDS:g} s")
                client.shaking = True
                with gevent.Timeout(limits.FIRST_HEAD_SECONDS, late):
                    sock.do_handshake()
                client.meet(proven=common_name(sock.getpeercert()) is not None)
        except (OSError, ValueError) as problem:
            # Port scans, other authorities' clients, and those who left: nothing that a line each would help with.
            kind = _DATALESS if isinstance(problem, WithoutData) else "TLS handshakes that were not finished"
            self._log.count(kind, client.address, _why(problem))
            sock.close()
            self._clients.leave(client)
            return
        except BaseException:
            self._clients.leave(client)
            raise
        self._by_socket[sock] = client
        try:
            self.handle(listener, sock, address)
        finally:
            del self._by_socket[sock]
            self._clients.leave(client)

    def load_wsgi(self) -> None:
        """Load the application, and hand it each request with its connection."""
        super().load_wsgi()
        answer = self.wsgi

        def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
            sock = environ["gunicorn.socket"]
            environ[SOCKET] = sock
            environ[BODY] = functools.partial(body, environ)
            environ[TRUST] = self._by_socket[sock].trust
            return answer(environ, start_response)

        self.wsgi = wsgi

    def timeout_ctx(self) -> Any:
        """Return the time-out for a request's head, from the first wait to the last header."""
        return gevent.Timeout(limits.HEAD_SECONDS, False)

    def handle_request(self, listener_name: Any, request: Any, sock: Any, address: Any) -> Any:
        """Let the others go first: a connection whose next request is already here never waits, and would be served
        again and again while they do.
        """
        client = self._by_socket[sock]
        client.serving(request.method, request.unreader, self._clients.now())
        try:
            gevent.sleep(0)
            answered = super().handle_request(listener_name, request, sock, address)
            if drop(request.body, sock):
                return answered
            if not request.body.failed:
                self._log.count("connections closed after a request with a body that nobody reads", client.address)
            # The next request's beginning is not known.
            raise StopIteration
        except BrokenOff as problem:
            # Counted, as clients choose how often they ask for what cannot be read.
            self._log.count("answers that broke off", client.address, f"{problem} ({request.method} {request.path})")
            # The connection ends by FIN, before the announced length: what containerd resumes after.
            raise StopIteration from None
        finally:
            self._clients.served(client)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer and count what is no request; gunicorn's own way is a line for each."""
        if isinstance(exc, (InvalidResponseHeader, InvalidResponseHeaderName)) or not isinstance(
            exc, (ParseException, ssl.SSLError)
        ):
            super().handle_error(req, client, addr, exc)
            return
        kind = _DATALESS if isinstance(exc, WithoutData) else "malformed requests"
        self._log.count(kind, origin(str(addr[0])), _why(exc))
        if isinstance(exc, ParseException):
            status, reason = _STATUS.get(type(exc), (400, "Bad Request"))
            with contextlib.suppress(OSError):
                util.write_error(client, status, reason, "")


def _is_over(spent: float, client: Client) -> bool:
    """Return whether a client is waited for no more, so many seconds after the stop began."""
    if spent >= limits.PUSH_GRACE_SECONDS:
        return True
    return client.is_idle() or (spent >= limits.DOWNLOAD_GRACE_SECONDS and client.method in _SOON)


def _why(problem: BaseException) -> str:
    return getattr(problem, "reason", None) or str(problem) or type(problem).__name__


def preload() -> None:
    """Take in the applications' modules before the first worker is forked.

    Their memory is then there once, and not once in each worker; frozen, the collector does not write to it.
    """
    importlib.import_module("appliance.server.wiring")
    for name in _SHARED:
        importlib.import_module(f"gevent.{name}")
    gc.collect()
    gc.freeze()
