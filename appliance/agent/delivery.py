"""Measurement of how fast a source delivers a blob, and the limit below which it is replaced.

Progress is judged, not silence: a source that sends a byte now and then is never silent, and would hold a blob for
everybody. Only the time spent waiting for its bytes counts. What this node's disk, its processor or a slow reader takes is
not the source's fault; the kernel takes bytes in meanwhile, and the next read does not wait.

Decision 74.
"""

from __future__ import annotations

from enum import Enum

GOOD_BYTES = 1 << 20
"""A source that gives less in :data:`GOOD_SECONDS` of waiting is replaced, where somebody else holds the blob. At this rate
the largest piece (8 MiB) comes in 8 s; a client waits 20 s for its first. Links of 1 Gbit/s give a hundred times more, and
still this much when a hundred nodes pull from one."""
GOOD_SECONDS = 1.0
"""As long as a silent peer takes to be noticed (0.9 s): a slow one costs about the same."""
LEAST_BYTES = 16 << 10
"""A source that gives less in :data:`LEAST_SECONDS` of waiting is given up, also where nobody else holds the blob: 4.4
kbit/s, half of what each of eight transfers gets from a link of 64 kbit/s."""
LEAST_SECONDS = 30.0
"""Long enough for TLS, which shows nothing of a record of 16 KiB before its last byte."""
RECONNECT_SECONDS = 0.5
"""Least seconds of waiting that each new connection to the same source counts as: one that breaks after every few bytes is slow too."""
FASTER = 2.0
"""A slow source is replaced by another slow one that was so many times faster; less is noise."""
REMEMBER_SECONDS = 60.0
"""How long a slow source comes last in other fetches, and how soon one fetch asks all peers again while it has nothing
better. A fetch doubles this each time: a site whose links are all slow is not kept busy with it."""
GRACE_SECONDS = 0.3
"""How long the answers of other peers are waited for before a source that is known to be slow is used: a peer that is well
answers within milliseconds."""


_ROUNDING = 1e-6
"""Seconds by which a sum of many waits may be off."""


class Verdict(Enum):
    """Judgement of a source by its last bytes."""

    WELL = "well"
    SLOW = "slow"
    STUCK = "stuck"


class _Window:
    """A span of waiting in which so many bytes have to come; it begins anew when they have, or when it is over."""

    def __init__(self, seconds: float, least: int) -> None:
        self._seconds = seconds
        self._least = least
        self._waited = 0.0
        self._came = 0
        self.rate = 0.0
        """Bytes a second in the last span with too few."""

    @property
    def left(self) -> float:
        """Seconds of waiting until this span is over."""
        return max(0.0, self._seconds - self._waited)

    def note(self, seconds: float, count: int) -> bool:
        """Count some waiting and the bytes that came of it; return whether a span has ended with too few."""
        self._waited += seconds
        self._came += count
        is_enough = self._came >= self._least
        if not is_enough and self.left > _ROUNDING:
            return False
        if not is_enough:
            self.rate = self._came / self._waited
        self._waited, self._came = 0.0, 0
        return not is_enough


class Delivery:
    """Rate at which one source delivers in one fetch, over all connections to it."""

    def __init__(self) -> None:
        self._good = _Window(GOOD_SECONDS, GOOD_BYTES)
        self._least = _Window(LEAST_SECONDS, LEAST_BYTES)
        self._is_first = True
        self._expected = 0.0
        self._took = 0.0
        self.slow_spans = 0
        """Number of spans of :data:`GOOD_SECONDS` in which too little came."""

    @property
    def rate(self) -> float:
        """Bytes a second, as the last verdict but :attr:`Verdict.WELL` found it."""
        return self._good.rate

    def connecting(self) -> Verdict:
        """Count a connection that is to be opened, as long as the one before took, and return what that says of the source.

        The first is free: a handshake over a long line takes more than :data:`GOOD_SECONDS`. Any other counts before it is there:
        a source that takes long for each answer and breaks off early costs the time of the first answer alone.
        """
        if self._is_first:
            return Verdict.WELL
        self._expected = max(RECONNECT_SECONDS, self._took)
        return self.note(self._expected, 0)

    def connected(self, took: float) -> Verdict:
        """Count what a connection took longer than was expected.

        :param took: seconds until the head of the answer was there.
        """
        self._took = took
        if self._is_first:
            self._is_first = False
            return Verdict.WELL
        return self.note(took - self._expected, 0) if took > self._expected else Verdict.WELL

    def note(self, waited: float, count: int) -> Verdict:
        """Count bytes and the seconds that were spent waiting for them; return what that says of the source."""
        is_slow = self._good.note(waited, count)
        self.slow_spans += is_slow
        if self._least.note(waited, count):
            return Verdict.STUCK
        return Verdict.SLOW if is_slow else Verdict.WELL

    def patience(self, *, can_be_replaced: bool) -> float:
        """Return how many seconds the next read may take before there is a verdict, whether bytes have come or not."""
        return min(self._good.left, self._least.left) if can_be_replaced else self._least.left
