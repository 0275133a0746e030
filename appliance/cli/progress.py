"""Progress of an import: a bar on a terminal, a line every few seconds in a log, JSON lines for programs."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from appliance.sizes import size_words

Form = Literal["bar", "lines", "json"]
_EVERY: dict[Form, float] = {"bar": 0.2, "lines": 5.0, "json": 1.0}
_WINDOW = 15.0
_BAR = 24
_COLUMNS = 80


class Progress:
    """Adds up the sources, and says where it is when it is time to.

    :param form: how it says it.
    :param say: takes the text; of a bar, without a new line.
    :param total: bytes of all sources, as far as that is known beforehand.
    :param clock: seconds.
    :param columns: how wide the terminal is now; None: asked of standard error's.
    """

    def __init__(
        self,
        form: Form,
        say: Callable[[str], object],
        total: int,
        clock: Callable[[], float] = time.monotonic,
        columns: Callable[[], int] | None = None,
    ) -> None:
        self._form = form
        self._say = say
        self._total = total
        self._clock = clock
        self._columns = columns or terminal_columns
        self._before = 0
        self._done = 0
        self._said = clock()
        self._spoke = False
        self._seen: deque[tuple[float, int]] = deque([(self._said, 0)])

    def __call__(self, done: int, total: int) -> None:
        """Take how far the present source is, in bytes."""
        if done < self._done:
            self._before += self._done  # the next source
        self._done = done
        now, here = self._clock(), self._before + done
        # Who was shown a bar sees it full.
        ends = self._spoke and here >= self._total and done == total
        if now - self._said < _EVERY[self._form] and not ends:
            return
        self._said, self._spoke = now, True
        self._seen.append((now, here))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()
        begun, start = self._seen[0]
        rate = (here - start) / (now - begun) if now > begun else 0.0
        columns = self._columns() if self._form == "bar" else _COLUMNS
        self._say(describe(self._form, here, max(self._total, self._before + total), rate, columns))

    def close(self) -> None:
        """End the line of a bar."""
        if self._form == "bar" and self._spoke:
            self._say("\n")


def describe(form: Form, done: int, total: int, rate: float, columns: int = _COLUMNS) -> str:
    """One saying.

    :param done: bytes read.
    :param total: bytes in all.
    :param rate: bytes a second.
    :param columns: what a bar may take: on a line that breaks, the next would not begin where this one did.
    """
    left = (total - done) / rate if rate > 0 else None
    if form == "json":
        document = {
            "message_type": "progress",
            "phase": "reading",
            "bytes": done,
            "total": total,
            "bytes_per_second": round(rate),
            "seconds_left": None if left is None else round(left),
        }
        return json.dumps(document)
    percent = 100 * done // total if total else 100
    ending = "" if left is None else f", {duration(left)} left"
    text = f"{size_words(done)} of {size_words(total)} read, {size_words(round(rate))}/s{ending}"
    if form == "lines":
        return f"  {percent} %: {text}"
    text = f"{percent:3} %  {text}"
    width = min(_BAR, columns - len(text) - len("  [] ") - 1)
    if width < 4:
        return f"\r  {text.strip()}"[:columns] + "\x1b[K"
    filled = width * done // total if total else width
    return f"\r  [{'#' * filled}{'.' * (width - filled)}] {text}\x1b[K"


def terminal_columns() -> int:
    """Return the columns of the terminal on standard error, which may change meanwhile."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
    except (OSError, ValueError):
        return _COLUMNS


def duration(seconds: float) -> str:
    """Seconds for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
