"""What clients of this node's listeners did that they should not: counted by the web workers, kept here for ``appliance status``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from appliance.times import now
from appliance.words import one_line

_KINDS, _ADDRESSES, _SHOWN_ADDRESSES = 32, 64, 5
_LENGTH = 240
SHOWN_SECONDS = 24 * 3600.0
"""How long a kind is shown after it last happened."""


@dataclass
class _Kept:
    since: str
    last: str
    changed: float
    count: int = 0
    addresses: dict[str, int] = field(default_factory=dict)
    detail: str = ""


class ClientEvents:
    """Kinds of events with their counts, since this agent started; memory is bounded.

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
            what, count, details = str(report["what"]), int(report["count"]), list(report["details"])
            addresses = {str(address): int(number) for address, number in report["addresses"].items()}
        except (KeyError, TypeError, AttributeError) as problem:
            raise ValueError(f"no report of events: {type(problem).__name__}: {problem}") from problem
        self._forget()
        key = (one_line(service, _LENGTH), one_line(what, _LENGTH))
        if key not in self._kept and len(self._kept) >= _KINDS:
            del self._kept[min(self._kept, key=lambda item: self._kept[item].changed)]
        kept = self._kept.setdefault(key, _Kept(now(), now(), self._clock()))
        kept.last, kept.changed = now(), self._clock()
        kept.count += count
        for address, number in addresses.items():
            if address in kept.addresses or len(kept.addresses) < _ADDRESSES:
                kept.addresses[address] = kept.addresses.get(address, 0) + number
        if details:
            kept.detail = one_line(str(details[-1]), _LENGTH)

    def all(self) -> list[dict[str, Any]]:
        """The form of ``appliance status --json``, the newest first: ``service``, ``what``, ``count``, ``since``, ``last``,
        ``addresses`` (those that come most often, with their counts) and ``detail`` (the newest reason or word; may be empty).
        """
        self._forget()
        return [
            {
                "service": service,
                "what": what,
                "count": kept.count,
                "since": kept.since,
                "last": kept.last,
                "addresses": dict(sorted(kept.addresses.items(), key=lambda item: -item[1])[:_SHOWN_ADDRESSES]),
                "detail": kept.detail,
            }
            for (service, what), kept in sorted(self._kept.items(), key=lambda item: -item[1].changed)
        ]

    def _forget(self) -> None:
        moment = self._clock()
        self._kept = {key: kept for key, kept in self._kept.items() if moment - kept.changed < SHOWN_SECONDS}
