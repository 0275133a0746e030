"""Record of failures of peers and of this node's store: logged at their start and end, counted meanwhile."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from appliance.times import now
from appliance.words import one_line

_LOG = logging.getLogger("appliance.troubles")
_PAUSE_FIRST = 2.0
_PAUSE_MOST = 60.0
_QUIET = 60.0
"""Seconds between two lines about the same: a peer that fails and answers by turns fills no log."""
_SHOWN = 3600.0
"""Seconds for which one that has ended is shown."""


def in_store(what: str) -> str:
    """Name a trouble with this node's own store.

    :param what: what could not be read or written there.
    """
    return f"{what} in the store"


@dataclass(frozen=True)
class Trouble:
    """One thing that fails.

    :param peer: id of the peer; empty for this node.
    :param about: ``ping``, an index, ``blob lookup`` (whether it holds a blob), ``blobs``, ``slow blobs``, ``kept files``, or
        what :func:`in_store` says.
    :param reason: why it failed when it last did.
    :param keeps_back: what is not had because of it; empty where nothing is known to be.
    :param since: time of the first failure.
    :param times: failures since then.
    :param ended: time of the end; None while it goes on.
    """

    peer: str
    about: str
    reason: str
    keeps_back: str
    since: str
    times: int = 1
    ended: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The form of ``appliance status --json``."""
        return dataclasses.asdict(self)


@dataclass
class _Kept:
    trouble: Trouble
    changed: float
    logged: float
    is_told: bool = False
    retry: float = 0.0


class Troubles:
    """All troubles of a node.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, str], _Kept] = {}

    def failed(self, peer: str, about: str, reason: str, keeps_back: str = "", *, pause: bool = False) -> bool:
        """Note a failure; true when a line was logged of it.

        :param pause: leave it alone for a while: 2 s, twice as long after each further failure, 60 s at the most.
        """
        moment, reason = self._clock(), one_line(reason, 1000)
        kept = self._kept.get((peer, about))
        if kept is None or kept.trouble.ended is not None:
            last = kept.logged if kept is not None else -_QUIET
            kept = _Kept(Trouble(peer, about, reason, keeps_back, now()), moment, last)
            self._kept[peer, about] = kept
        else:
            times = kept.trouble.times + 1
            kept.trouble = dataclasses.replace(kept.trouble, reason=reason, keeps_back=keeps_back, times=times)
        kept.changed = moment
        if pause:
            kept.retry = moment + min(_PAUSE_MOST, _PAUSE_FIRST * 2.0 ** min(kept.trouble.times - 1, 16))
        if kept.trouble.times == 1 and moment - kept.logged >= _QUIET:
            kept.logged, kept.is_told = moment, True
            _LOG.warning("%s: %s; 'appliance status' counts how often", _subject(kept.trouble), reason)
            return True
        return False

    def ended(self, peer: str, about: str) -> None:
        """Note that it went well; nothing where there was no trouble."""
        kept = self._kept.get((peer, about))
        if kept is None or kept.trouble.ended is not None:
            return
        kept.trouble = dataclasses.replace(kept.trouble, ended=now())
        kept.changed = self._clock()
        # Of one whose beginning is not in the log, the end is not either: a peer could fail and answer in every second.
        if kept.is_told and kept.trouble.times > 1:
            _LOG.info("%s: well again, after %d times", _subject(kept.trouble), kept.trouble.times)

    def times(self, peer: str, about: str) -> int:
        """Return the number of failures in a row."""
        kept = self._kept.get((peer, about))
        return kept.trouble.times if kept is not None and kept.trouble.ended is None else 0

    def is_paused(self, peer: str, about: str) -> bool:
        """Return whether it is to be left alone now."""
        kept = self._kept.get((peer, about))
        return kept is not None and kept.trouble.ended is None and kept.retry > self._clock()

    def retry_in(self) -> float | None:
        """Seconds until the first of those that are left alone may be tried again; None where there is none."""
        retries = [kept.retry for kept in self._kept.values() if kept.retry and kept.trouble.ended is None]
        return max(0.0, min(retries) - self._clock()) if retries else None

    def forget(self, listed: Collection[str]) -> None:
        """Forget peers that are listed no more, and what ended some time ago."""
        moment = self._clock()
        self._kept = {
            key: kept
            for key, kept in self._kept.items()
            if (not key[0] or key[0] in listed) and (kept.trouble.ended is None or moment - kept.changed < _SHOWN)
        }

    def all(self) -> list[Trouble]:
        """Those that go on, then those that ended within the hour, by peer."""
        found = [kept.trouble for kept in self._kept.values()]
        return sorted(found, key=lambda item: (item.ended is not None, item.peer, item.about))


def _subject(trouble: Trouble) -> str:
    return f"{trouble.peer} ({trouble.about})" if trouble.peer else f"this node ({trouble.about})"
