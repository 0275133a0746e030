"""Counters of what clients of the listeners did wrong: web workers report it here, and ``appliance status`` shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from appliance.countedlog import Tally
from appliance.times import now
from appliance.words import one_line

_KINDS = 32
_LENGTH, _ADDRESS_LENGTH = 240, 80
_MOST_EVENTS = 1 << 53
"""More than any worker counts in a minute; up to here every reader of JSON has exact integers."""
SHOWN_SECONDS = 24 * 3600.0
"""How long a kind is shown after it last happened, and how long it is counted before it begins anew."""


@dataclass
class _Kept:
    since: str
    last: str
    begun: float
    changed: float
    count: int = 0
    addresses: Tally = field(default_factory=Tally)
    detail: str = ""


class ClientEvents:
    """Kinds of events with their counts, of a day at most and since this agent started; memory is bounded.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, str], _Kept] = {}

    def add(self, service: str, report: Any) -> None:
        """Take what a web worker counted, see :data:`appliance.countedlog.Report`.

        :param service: the listener, ``mirror`` or ``peer``.
        :raises ValueError: it has another form.
        """
        try:
            what, count, details = str(report["what"]), _number(report["count"]), list(report["details"])
            addresses = {
                one_line(address, _ADDRESS_LENGTH): _number(number) for address, number in report["addresses"].items()
            }
        except (KeyError, TypeError, AttributeError, OverflowError) as problem:
            raise ValueError(f"no report of events: {type(problem).__name__}: {problem}") from problem
        self._forget()
        key = (one_line(service, _LENGTH), one_line(what, _LENGTH))
        if key not in self._kept and len(self._kept) >= _KINDS:
            del self._kept[min(self._kept, key=lambda item: self._kept[item].changed)]
        kept = self._kept.get(key)
        if kept is None or self._clock() - kept.begun >= SHOWN_SECONDS:
            # What never stops would stand there with the addresses of its first days.
            kept = self._kept[key] = _Kept(now(), now(), self._clock(), self._clock())
        kept.last, kept.changed = now(), self._clock()
        kept.count += count
        for address, number in addresses.items():
            kept.addresses.add(address, number)
        if details:
            kept.detail = one_line(str(details[-1]), _LENGTH)

    def all(self) -> list[dict[str, Any]]:
        """The form of ``appliance status --json``, the newest first: ``service``, ``what``, ``count``, ``since``, ``last``,
        ``addresses`` (those that come most often, with their counts), ``others`` (how many of the events are of no address
        there) and ``detail`` (the newest reason or word; may be empty).
        """
        self._forget()
        return [
            {
                "service": service,
                "what": what,
                "count": kept.count,
                "since": kept.since,
                "last": kept.last,
                "addresses": kept.addresses.most(),
                "others": max(0, kept.count - sum(kept.addresses.most().values())),
                "detail": kept.detail,
            }
            for (service, what), kept in sorted(self._kept.items(), key=lambda item: -item[1].changed)
        ]

    def _forget(self) -> None:
        moment = self._clock()
        self._kept = {key: kept for key, kept in self._kept.items() if moment - kept.changed < SHOWN_SECONDS}


def _number(value: Any) -> int:
    number = int(value)
    if not 0 <= number < _MOST_EVENTS:
        raise OverflowError("a count is out of range")
    return number
