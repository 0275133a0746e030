"""Patch of gevent: closing a descriptor closes it at once."""

from __future__ import annotations

import os

from gevent import monkey


def close_at_once() -> None:
    """Take gevent's ``os.close`` back, after it has patched.

    Since 25.8.1 it closes what is no regular file at the next turn of the calling thread's loop. A thread of gevent's
    pool has a loop as soon as anything in it waits, and its loop has no next turn: directories stayed open for good,
    and with them the locks that go with a descriptor. Sockets are closed by their own means, and nothing here watches
    another descriptor by gevent.
    """
    os.close = monkey.get_original("os", "close")
