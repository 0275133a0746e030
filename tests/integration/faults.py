"""A process that dies, or finds the disk full, at one chosen call of the operating system.

The calls that change a file system are counted while a function runs in a child process, which is forked and so starts
in a few milliseconds: hundreds of points are affordable, and each can be had again by its number.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

CHANGING = ("open", "write", "fsync", "rename", "unlink", "mkdir", "fchmod", "replace")
GROWING = frozenset({"open", "write", "fsync", "rename", "mkdir", "replace"})
"""Calls that a full disk can refuse; fsync is where delayed allocation finds out."""

Mode = Literal["before", "half", "after", "full"]
MODES: tuple[Mode, ...] = ("before", "half", "after")


@dataclass(frozen=True)
class Ended:
    """How the child ended.

    :param killed: whether it was killed at the point.
    :param calls: calls that it made, where it was not killed.
    :param said: what the function returned.
    """

    killed: bool
    calls: int = 0
    said: str = ""


class _Counter:
    def __init__(self, point: int, mode: Mode) -> None:
        self.calls = 0
        self._point, self._mode = point, mode
        self._lock = threading.Lock()

    def wrap(self, name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **more: Any) -> Any:
            if name == "open" and not arguments[1] & os.O_CREAT:
                return real(*arguments, **more)
            if name == "write" and arguments[0] in (1, 2):
                return real(*arguments, **more)
            with self._lock:
                self.calls += 1
                number = self.calls
            if self._mode == "full":
                if number >= self._point and name in GROWING:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(*arguments, **more)
            if number == self._point:
                if self._mode == "half" and name == "write":
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                elif self._mode != "before":
                    real(*arguments, **more)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **more)

        return call


def run(function: Callable[[], str], point: int = 0, mode: Mode = "before") -> Ended:
    """Run a function in a child that is killed at the ``point``-th call (0: never), or finds the disk full from it on."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            counter = _Counter(point or sys.maxsize, mode)
            for name in CHANGING:
                setattr(os, name, counter.wrap(name))
            said = function()
            calls = counter.calls
            counter._mode = "before"
            os.write(sender, f"{calls} {said}".encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        answer = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGKILL:
        return Ended(True)
    assert status == 0, f"the child ended with {status}, its output has why"
    count, _, words = answer.partition(" ")
    return Ended(False, int(count), words)
