"""Limits of the kernel that all hosts of all labs share, raised while a lab is up and put back afterwards."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

from tests.lab.base import cache_dir
from tests.lab.root import locked

# Every root of every host is the same user to the kernel. One systemd takes about twenty inotify instances, a kubelet
# as many; the default of 128 ends with the second lab ("Too many open files", and units that never start).
_WANTED = {"fs/inotify/max_user_instances": 8192, "fs/inotify/max_user_watches": 524288}


def raise_limits() -> None:
    """Raise what is too low, remembering what it was."""
    with locked(cache_dir() / "limits.lock"):
        before = _remembered()
        for key, wanted in _WANTED.items():
            path = Path("/proc/sys") / key
            now = int(path.read_text())
            if now < wanted:
                before.setdefault(key, now)
                path.write_text(str(wanted))
        if before:
            _memory().write_text(json.dumps(before))


def restore_limits(still_needed: Callable[[], bool]) -> None:
    """Put the limits back.

    :param still_needed: whether another lab is up; asked with the lock held, then nothing is done.
    """
    with locked(cache_dir() / "limits.lock"):
        if still_needed():
            return
        for key, value in _remembered().items():
            (Path("/proc/sys") / key).write_text(str(value))
        _memory().unlink(missing_ok=True)


def _memory() -> Path:
    return cache_dir() / "limits.before"


def _remembered() -> dict[str, int]:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return {str(key): int(value) for key, value in json.loads(_memory().read_text()).items()}
    return {}
