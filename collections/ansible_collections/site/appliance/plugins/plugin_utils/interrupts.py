# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in a worker of Ansible: time to tidy up on the node before the worker ends."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

SECONDS = 6.0
"""Time to tidy up after the signal; the worker is then ended whatever it does."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The run is being stopped. No ``except Exception`` on the way catches this."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise :class:`Interrupted` once for the signal that stops the run, then end this worker as Ansible would have done.

    ansible-core ends a worker from its signal handler, so that no ``finally`` of a plugin is run, and sends SIGTERM at once
    after SIGINT. Both are ignored from the first one on; what tidies up has :data:`SECONDS` for it.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    received: list[int] = []

    def stop(signum: int, _frame: FrameType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        received.append(signum)
        # The default action of SIGALRM ends this process, whatever it waits for.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        raise Interrupted

    for number in _SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    except Interrupted:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for signum in received:
            os.kill(os.getpid(), signum)
    if received:
        raise Interrupted
