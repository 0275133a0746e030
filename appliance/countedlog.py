"""Log of events that strangers cause: the first of a kind at once, then one line a minute with addresses and counts.

A line for each event would let anybody who reaches a port fill the journal, and hide in it what else happens.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from appliance.words import one_line, quoted

MINUTE = 60.0
_ADDRESSES, _NAMED = 64, 5
_DETAILS, _DETAIL_LENGTH = 5, 240

Later = Callable[[float, Callable[[], None]], object]
Report = Callable[[dict[str, Any]], None]
"""Takes what a line says: ``what``, ``count``, ``addresses`` (the most frequent, with their counts), ``details``."""


def origin(address: str) -> str:
    """Return what an address is accounted as: itself, or the /64 network of an IPv6 address, which one host may own."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))


class Tally:
    """Counts by address in bounded memory: where it is full, the smallest gives way (space-saving, Metwally 2005).

    An address that comes often enough is in it whatever came before, so nobody hides behind others that came first. Each
    count is at most the true one: what an address took over from another is not its own.
    """

    def __init__(self) -> None:
        self._weights: dict[str, int] = {}
        self._taken_over: dict[str, int] = {}

    def add(self, address: str, count: int = 1) -> None:
        """Count events of an address."""
        if address not in self._weights:
            inherited = 0
            if len(self._weights) >= _ADDRESSES:
                smallest = min(self._weights, key=self._weights.__getitem__)
                inherited = self._weights.pop(smallest)
                del self._taken_over[smallest]
            self._weights[address] = self._taken_over[address] = inherited
        self._weights[address] += count

    def most(self) -> dict[str, int]:
        """Return the addresses that come most often, with their counts."""
        own = {address: weight - self._taken_over[address] for address, weight in self._weights.items()}
        return dict(sorted(own.items(), key=lambda item: -item[1])[:_NAMED])


@dataclass
class _Events:
    """Events of one kind since the last line."""

    count: int = 0
    addresses: Tally = field(default_factory=Tally)
    details: dict[str, None] = field(default_factory=dict)

    def add(self, address: str, detail: str) -> None:
        self.count += 1
        self.addresses.add(address)
        if detail and len(self.details) <= _DETAILS:
            self.details[one_line(detail, _DETAIL_LENGTH)] = None

    def most(self) -> dict[str, int]:
        """Return the addresses that come most often."""
        return self.addresses.most()

    def __str__(self) -> str:
        most = self.most()
        text = ", ".join(f"{count} from {address}" for address, count in most.items())
        if rest := self.count - sum(most.values()):
            text += f", {rest} from other addresses"
        if details := list(self.details):
            more = ["..."] if len(details) > _DETAILS else []
            text += f" ({'; '.join([*map(quoted, details[:_DETAILS]), *more])})"
        return text


class CountedLog:
    """Lines about strangers, few whatever they do; memory and length of a line are bounded.

    :param write: takes a line.
    :param later: calls a function after some seconds; gevent's, where none is given.
    :param report: takes the same as data, for ``appliance status``.
    """

    def __init__(self, write: Callable[[str], None], later: Later | None = None, report: Report | None = None) -> None:
        self._write = write
        self._later = later or _spawn_later
        self._report = report
        self._open: dict[str, _Events] = {}

    def count(self, what: str, address: str, detail: str = "") -> None:
        """Count one event.

        :param what: its kind, in the plural; one of a few, and never a stranger's words.
        :param detail: the stranger's words, or the reason; some different ones are in the line, escaped, cut and quoted.
        """
        events = self._open.get(what)
        if events is not None:
            events.add(address, detail)
            return
        self._open[what] = _Events()
        self._later(MINUTE, lambda: self._end_minute(what))
        first = _Events()
        first.add(address, detail)
        self._put(what, first)

    def flush(self) -> None:
        """Write what was counted and not written yet; for the end of a process."""
        for what, events in self._open.items():
            if events.count:
                self._put(what, events)
        self._open = {what: _Events() for what in self._open}

    def _put(self, what: str, events: _Events, when: str = "") -> None:
        self._write(f"{what}{when}: {events}")
        if self._report is not None:
            details = list(events.details)[:_DETAILS]
            self._report({"what": what, "count": events.count, "addresses": events.most(), "details": details})

    def _end_minute(self, what: str) -> None:
        events = self._open.pop(what)
        if events.count:
            self._put(what, events, " in the last minute")
            self._open[what] = _Events()
            self._later(MINUTE, lambda: self._end_minute(what))


def _spawn_later(seconds: float, function: Callable[[], None]) -> object:
    # Here, since gevent is to be taken in by a process that it has patched.
    import gevent

    return gevent.spawn_later(seconds, function)
