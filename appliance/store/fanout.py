"""Several uses of one stream of bytes at once: hashing, hashing of pieces and writing, each on its own thread.

All three release the interpreter's lock for what is long, so they overlap on as many cores as there are.

Decision 48.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

SMALL = 128 << 10
"""Chunks below so many bytes are used by the calling thread: handing one over costs as much as hashing it."""
DEPTH = 4
"""Chunks that may wait for one lane."""

Use = Callable[[Any], object]
"""Takes the next chunk; what it raises ends the stream."""


class Lanes:
    """Hands every chunk to each of some functions; each gets all of them, in order.

    A chunk of immutable bytes may still be in use when :meth:`take` returns; one whose memory may change is not.
    What a function raises is raised again by one of the next calls, and every function stops taking chunks.

    :param uses: the functions.
    """

    def __init__(self, uses: Sequence[Use]) -> None:
        self._uses = uses
        self._lanes: list[_Lane] = []

    def __enter__(self) -> Lanes:
        """Use as a context manager, so that no thread stays."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the threads; what waits is not used any more."""
        for lane in self._lanes:
            lane.stop()

    def take(self, chunk: bytes | memoryview) -> None:
        """Hand on the next chunk."""
        view = memoryview(chunk)
        if len(view) < SMALL:
            self.wait()
            for use in self._uses:
                use(view)
            return
        if not self._lanes:
            self._lanes = [_Lane(use) for use in self._uses]
        for lane in self._lanes:
            lane.put(view)
        if type(view.obj) is not bytes:
            self.wait()

    def wait(self) -> None:
        """Return when every chunk has been used by all."""
        for lane in self._lanes:
            lane.wait()


class _Lane:
    """One function and its thread."""

    def __init__(self, use: Use) -> None:
        self._use = use
        self._chunks: queue.Queue[memoryview | None] = queue.Queue(DEPTH)
        self._error: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="lane", daemon=True)
        self._thread.start()

    def put(self, chunk: memoryview) -> None:
        self._chunks.put(chunk)
        self._raise()

    def wait(self) -> None:
        self._chunks.join()
        self._raise()

    def stop(self) -> None:
        self._stopped = True
        self._chunks.put(None)
        self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            if self._error is None and not self._stopped:
                try:
                    self._use(chunk)
                except BaseException as error:  # raised again in the thread that reads
                    self._error = error
            self._chunks.task_done()
