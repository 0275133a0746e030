"""A limit on the TLS handshake.

Neither gunicorn nor gevent has one: a stranger who connects and says nothing holds one of a worker's places for as
long as it likes, before anything can be asked of it (zot #3984: time-outs on every phase).
"""

from __future__ import annotations

import ssl
from typing import Any

HANDSHAKE_SECONDS = 10.0
"""How long a handshake may take, from the connection on."""


def bounded(context: ssl.SSLContext) -> ssl.SSLContext:
    """Let a context's server side give up a handshake after :data:`HANDSHAKE_SECONDS`; for gevent's contexts.

    ``SSLContext.sslsocket_class`` is what Python offers for this.
    """
    kind: Any = context.sslsocket_class

    class Impatient(kind):  # type: ignore[misc]  # the class depends on whether gevent has patched ssl
        def do_handshake(self, *arguments: Any) -> None:
            from gevent import GreenletExit, Timeout

            late = Timeout(HANDSHAKE_SECONDS)
            try:
                with late:
                    super().do_handshake(*arguments)
            except Timeout as caught:
                if caught is not late:
                    raise
                self.close()
                # Ends the connection's greenlet without a traceback in the journal for each scan of the port.
                raise GreenletExit from None

    context.sslsocket_class = Impatient
    return context
