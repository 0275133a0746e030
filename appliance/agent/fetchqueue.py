"""Queue of the fetches for replication: a few run at a time, and a slow one gives its place to the next."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import gevent
from gevent import spawn
from gevent.event import Event

from appliance.oci.manifests import Descriptor

AT_ONCE = 4
FIRST_SECONDS = 10.0
"""Seconds for which a fetch keeps its place while others wait. At 1 MiB/s, the least of a good source, most blobs come in less. A
fetch that ended without the blob gets twice as long at each further try: over a link of 64 kbit/s a piece of 1 MiB takes 128 s."""
_MOST_SECONDS = 3600.0
_CHECK_SECONDS = 1.0


class FetchQueue:
    """Fetches of blobs, :data:`AT_ONCE` at a time, each blob once.

    Nobody can tell a source that drips on purpose from a site whose links are slow. So a slow fetch goes on for as long as nothing
    else waits, and gives its place away otherwise: at once to a blob that was tried less often, and else when its time is over.

    :param bring: fetches one blob; returns when that has ended, well or not.
    :param give_way: has the fetch of a digest end where its source is slow.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        bring: Callable[[Descriptor], object],
        give_way: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bring = bring
        self._give_way = give_way
        self._clock = clock
        self._running: dict[str, float] = {}
        """Digest to the time at which its fetch began."""
        self._waiting: deque[Descriptor] = deque()
        self._tries: dict[str, int] = {}
        """Digest of a wanted blob to how many fetches of it began."""
        self._changed = Event()

    def want(self, wanted: Sequence[Descriptor]) -> None:
        """Replace what waits by these blobs, and begin with those that were tried least often, in the order given.

        What runs is neither ended nor started again.
        """
        listed = {item.digest for item in wanted} | self._running.keys()
        self._tries = {digest: tries for digest, tries in self._tries.items() if digest in listed}
        waiting = [item for item in wanted if item.digest not in self._running]
        self._waiting = deque(sorted(waiting, key=lambda item: self._tries.get(item.digest, 0)))
        self._fill()

    def is_running(self, digest: str) -> bool:
        """Return whether a fetch of the blob runs."""
        return digest in self._running

    def join(self, called: Event) -> None:
        """Wait until nothing waits and what still runs takes long, or until ``called`` is set."""
        while not called.is_set():
            self._changed.clear()
            self._relieve()
            now = self._clock()
            if not self._waiting and all(now - begun >= FIRST_SECONDS for begun in self._running.values()):
                return
            gevent.wait([called, self._changed], timeout=_CHECK_SECONDS, count=1)

    def _fill(self) -> None:
        while self._waiting and len(self._running) < AT_ONCE:
            item = self._waiting.popleft()
            self._tries[item.digest] = self._tries.get(item.digest, 0) + 1
            self._running[item.digest] = self._clock()
            spawn(self._run, item)

    def _run(self, item: Descriptor) -> None:
        try:
            self._bring(item)
        finally:
            del self._running[item.digest]
            self._changed.set()
            self._fill()

    def _relieve(self) -> None:
        """Have fetches give way that had their time, where something waits."""
        if not self._waiting:
            return
        least = self._tries.get(self._waiting[0].digest, 0)
        now = self._clock()
        for digest, begun in self._running.items():
            before = self._tries.get(digest, 1) - 1
            patience = FIRST_SECONDS if least < before else min(_MOST_SECONDS, FIRST_SECONDS * 2.0 ** min(before, 16))
            if now - begun >= patience:
                self._give_way(digest)
