"""The process that answers: gunicorn's gevent worker, fair to every connection, forked from a parent that has already
taken in what all workers need.
"""

from __future__ import annotations

import gc
import importlib
import warnings
from typing import Any

from gevent import monkey

monkey.patch_all(os=False, queue=False, select=False, signal=False, subprocess=False, time=False)
# ruff: noqa: E402 - what follows binds sockets, locks and ssl by name, and has to find gevent's
import gevent
from gunicorn.workers.ggevent import GeventWorker

from appliance.registry.body import BrokenOff

_SHARED = ("queue", "select", "selectors", "signal", "subprocess", "time")


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn carries no types
    """Takes connections in turns."""

    def patch(self) -> None:
        """Complete what was begun in the parent, which itself waits, forks and takes signals without gevent."""
        with warnings.catch_warnings():
            # "Patching more than once will result in the union": that is what is meant.
            warnings.simplefilter("ignore", monkey.MonkeyPatchWarning)
            super().patch()

    def handle_request(self, listener_name: Any, request: Any, sock: Any, address: Any) -> Any:
        """Let the others go first: a connection whose next request is already here never waits, and would be served
        again and again while they do.
        """
        gevent.sleep(0)
        try:
            return super().handle_request(listener_name, request, sock, address)
        except BrokenOff as problem:
            self.log.warning("%s %s: %s", request.method, request.path, problem)
            # The connection ends by FIN, before the announced length: what containerd resumes after.
            raise StopIteration from None


def preload() -> None:
    """Take in the applications' modules before the first worker is forked.

    Their memory is then there once, and not once in each worker; frozen, the collector does not write to it.
    """
    importlib.import_module("appliance.serve.units")
    for name in _SHARED:
        importlib.import_module(f"gevent.{name}")
    gc.collect()
    gc.freeze()
