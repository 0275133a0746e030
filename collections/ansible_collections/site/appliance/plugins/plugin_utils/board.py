# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Progress on the screen: one live line on a terminal, a line every few seconds in a log."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

from ansible_collections.site.appliance.plugins.plugin_utils.progress import Cadence
from ansible_collections.site.appliance.plugins.plugin_utils.run import Run
from ansible_collections.site.appliance.plugins.plugin_utils.words import one_line

CLEAR = "\x1b[K"


class Board:
    """The progress of one host's work, shown together with that of the other hosts.

    The workers of a run agree on one of them that prints for all; where another callback shows the run, each prints
    lines of its own.

    :param display: Ansible's display.
    :param host: the host's name in the inventory.
    :param run: what the processes of the run share; None where there is nothing.
    """

    def __init__(self, display: Any, host: str, run: Run | None, *, cadence: Callable[[], Cadence] = Cadence) -> None:
        self._display = display
        self._host = host
        self._run = run
        self._cadence = cadence()
        self._speaker: IO[bytes] | None = None
        self._is_live = False

    @property
    def elapsed(self) -> float:
        """Seconds since the work began."""
        return self._cadence.elapsed

    def is_loud(self) -> bool:
        """Return whether the work takes long enough to be shown."""
        return self._cadence.is_loud()

    def show(self, text: str, left: float = 0.0) -> None:
        """Show the newest line of this host, where it is due.

        :param left: what is left to do; the host with the most is shown first.
        """
        text = one_line(text)
        if self._run is None:
            if self._cadence.is_due():
                self._display.display(text)
            return
        self._run.show(self._host, left, text)
        if not self._speaks():
            return
        lines = self._run.shown()
        if self._run.columns and self._cadence.is_loud():
            self._live("   ".join(lines))
        elif self._cadence.is_due():
            for line in lines:
                self._display.display(line)

    def close(self, text: str = "") -> None:
        """End the live line, and leave a last line where the work was shown."""
        if self._is_live:
            self._display.display(f"\r{CLEAR}\r", newline=False, screen_only=True)
        if text and self._cadence.is_loud():
            self._display.display(one_line(text))
        if self._run is not None:
            self._run.hide(self._host)
        if self._speaker is not None:
            self._speaker.close()

    def _speaks(self) -> bool:
        if self._speaker is None and self._run is not None:
            try:
                self._speaker = self._run.speaker()
            except OSError:
                return False
        return self._speaker is not None

    def _live(self, text: str) -> None:
        # The cursor goes back to the first column, so that whatever is printed next does not stand behind this line.
        columns = self._run.columns if self._run is not None else 0
        shown = text if len(text) < columns else text[: max(0, columns - 4)] + "..."
        self._display.display(f"\r{CLEAR}{shown}\r", newline=False, screen_only=True)
        self._is_live = True
