"""Check of the ``Host`` header on the local listener.

A page in a browser on the node can have its own name resolve to 127.0.0.1 (DNS rebinding) and would then read every
image of the site. What it cannot choose is the ``Host`` that the browser sends. containerd sends the address of its
``hosts.toml``, ``127.0.0.1:5000``, also where ``?ns=`` names a registry.

Decision 82.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from appliance.web.responses import error_response

_NAMES = ("localhost", "127.0.0.1", "[::1]")

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class LoopbackNames:
    """WSGI middleware that answers requests to loopback's own names, with any port, and refuses the others.

    The port is not compared: a client behind a forwarded port asks for ``localhost:5001``.

    :param listen: ``host:port`` of the listener; its host counts too.
    :param refused: takes the address of a client and the name that it asked for, which a stranger chose.
    """

    def __init__(self, application: Application, listen: str, refused: Callable[[str, str], None]) -> None:
        self._application = application
        self._refused = refused
        names = "|".join(map(re.escape, dict.fromkeys((*_NAMES, listen.rpartition(":")[0].lower()))))
        self._allowed = re.compile(rf"(?:{names})(?::[0-9]{{0,5}})?", re.ASCII)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer, or say which names are answered."""
        host = environ.get("HTTP_HOST")
        if host is None:
            # Browsers always send one, and HTTP/1.0 has none; RFC 9112 asks for it in 1.1.
            if environ.get("SERVER_PROTOCOL") != "HTTP/1.0":
                return error_response(400, "UNSUPPORTED", "the request has no Host header")(environ, start_response)
        elif not self._allowed.fullmatch(host.lower()):
            self._refused(environ.get("REMOTE_ADDR", ""), host)
            why = f"this listener answers to {', '.join(_NAMES)} and not to {host[:100]!r}"
            return error_response(421, "DENIED", why)(environ, start_response)
        return self._application(environ, start_response)
