"""Connection of a request, as a server hands it to the applications in keys of the WSGI environment.

The applications know no server. One that sets none of the keys (Flask's test client) serves too, by WSGI alone.
"""

from __future__ import annotations

from typing import Final

SOCKET: Final = "appliance.socket"
"""Socket of the connection. A plain one takes ``sendfile``; one under TLS has ``getpeercert()``."""
BODY: Final = "appliance.body"
"""Function without arguments that returns the pieces of the request's body as they arrive, an iterator of
:class:`memoryview`, each overwritten when the one after the next is asked for; or None: read ``wsgi.input``."""
TRUST: Final = "appliance.trust"
"""Function without arguments. An application calls it when the client has proved who it is: a
server without room closes other connections first."""

STEP: Final = 1 << 20
"""Bytes of a body that are handed over at a time: smaller steps cost several times the processor time."""


class BrokenBody(Exception):
    """The body stopped before its end: the client went away, stalled, or sent what is no body."""
