# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Progress of long work: what a command reports, as text, and when a line of it is due."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ansible_collections.site.appliance.plugins.plugin_utils.quantities import duration_text, part_text, rate_text

QUIET_SECONDS = 5.0
"""Work that takes less time than this shows nothing."""
_LINE_SECONDS = 5.0
_LATER_LINE_SECONDS = 10.0
_LATER = 60.0
_RATE_WINDOW = 30.0


class Progress(NamedTuple):
    """State of the work.

    :param phase: what it does, such as ``reading``.
    :param seconds_left: None where nobody can tell.
    :param file: what it works on; may be empty.
    """

    phase: str
    done: int
    total: int
    rate: float
    seconds_left: float | None
    file: str = ""


def parse(line: str) -> Progress | None:
    """Return the progress that a line of a command's standard error reports; None for any other line."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    if not isinstance(message, dict) or message.get("message_type") != "progress":
        return None
    left = message.get("seconds_left")
    return Progress(
        str(message.get("phase") or ""),
        _number(message.get("bytes")),
        _number(message.get("total")),
        float(_number(message.get("bytes_per_second"))),
        None if left is None else float(_number(left)),
        str(message.get("file") or ""),
    )


def without_progress(text: str) -> str:
    """Return what a command wrote to standard error besides its progress."""
    return "".join(line for line in text.splitlines(keepends=True) if parse(line) is None)


def progress_text(host: str, about: str, progress: Progress | None, elapsed: float) -> str:
    """Return one line for people, such as ``a: reading /media/stick: 12.3 of 64.0 GiB, 31 MiB/s, 28 min left``.

    :param about: what the work is about, for the case that the command reports a phase or nothing yet.
    :param elapsed: seconds since it began.
    """
    if progress is None:
        return f"{host}: {about}: {duration_text(elapsed)} so far"
    what = f"{progress.phase} {about}" if progress.phase else about
    parts = [part_text(progress.done, max(progress.done, progress.total))]
    if progress.rate > 0:
        parts.append(rate_text(progress.rate))
    if progress.seconds_left is not None:
        parts.append(f"{duration_text(progress.seconds_left)} left")
    return f"{host}: {what}: {', '.join(parts)}"


class Cadence:
    """When a line of progress is due: nothing before :data:`QUIET_SECONDS`, then a line every few seconds.

    :param clock: monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._last: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the work began."""
        return self._clock() - self._began

    def is_loud(self) -> bool:
        """Return whether the work takes long enough to be shown."""
        return self.elapsed >= QUIET_SECONDS

    def is_due(self) -> bool:
        """Return whether a line for a log is due; the next one is then counted from now."""
        if not self.is_loud():
            return False
        pause = _LINE_SECONDS if self.elapsed < _LATER else _LATER_LINE_SECONDS
        now = self._clock()
        if self._last is not None and now - self._last < pause:
            return False
        self._last = now
        return True


class Rate:
    """The rate at which a number falls, over the last half-minute.

    :param clock: monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: list[tuple[float, int]] = []

    def falls_to(self, number: int) -> float:
        """Note a number and return by how much it falls in a second; 0 where it does not fall."""
        now = self._clock()
        self._seen = [(at, seen) for at, seen in self._seen if now - at <= _RATE_WINDOW] + [(now, number)]
        first_at, first = self._seen[0]
        return max(0.0, (first - number) / (now - first_at)) if now > first_at else 0.0


def _number(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0
