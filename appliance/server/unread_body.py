"""Rest of a request body that no route read: a short one is discarded, a long one ends the connection.

gunicorn drops it before it reads the next request, without a bound of bytes or seconds, and copies what it received again for
each KiB. One client that announced 2^50 bytes and sent them as fast as it could kept a worker from everything else for
its 8 s of patience, after which the worker was killed.
"""

from __future__ import annotations

import contextlib
from typing import Any

import gevent
from gevent.socket import SHUT_WR
from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import ParseException

from appliance import limits

_STEP = 64 << 10


def drop(body: Any, sock: Any) -> bool:
    """Drop what is left of a body whose request is answered.

    :param body: gunicorn's, of the request.
    :param sock: the connection, as requests are read from it.
    :returns: whether another request may follow on the connection.
    """
    if not body.failed and _is_read(body.reader):
        return True
    with gevent.Timeout(limits.UNREAD_SECONDS, False), contextlib.suppress(OSError, ParseException):
        if not body.failed:
            body.read(limits.UNREAD_BYTES)
            if _is_read(body.reader):
                return True
        _linger(sock)
    return False


def _is_read(reader: Any) -> bool:
    return reader.parser is None if isinstance(reader, ChunkedReader) else not reader.length


def _linger(sock: Any) -> None:
    """End our side and drop some of what still comes: a close with unread bytes is a reset, which may overtake the answer."""
    plain = getattr(sock, "plain", sock)
    plain.shutdown(SHUT_WR)
    left = limits.LINGER_BYTES
    while left > 0 and (count := len(plain.recv(min(left, _STEP)))):
        left -= count
        # Bytes that are here already make nobody wait, so without this nobody else would have a turn.
        gevent.sleep(0)
