"""Throttle for wrong passwords: how long an address waits, and in which order passwords are checked.

A check costs a tenth of a second and 32 MiB on purpose, so there is one at a time. Whoever guesses pays for that himself:

- turns go round by address, and to addresses that gave no wrong password lately before those that did;
- after some wrong passwords for a name, an address has to wait before the next is looked at, twice as long each time.
  Until then it is answered without a check. Other names from there are not held up: behind one router a script with an
  old password does not lock people out. An address that tries many names has one account for all further ones.

So a right password that comes from where somebody guesses that very name has to hit the moment when the wait is over; it is
checked then as any other.

Decision 81.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gevent.event import Event

FREE = 5
"""Wrong passwords for a name before the next one has to wait."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 16.0
FORGET_SECONDS = 900.0
"""An account without another wrong password is forgotten then."""
_ADDRESSES, _NAMES = 1024, 8
_OTHER_NAMES = ""


@dataclass
class _Account:
    """Wrong passwords for one name from one address."""

    wrong: int = 0
    until: float = 0.0


@dataclass
class _Address:
    last: float
    names: dict[str, _Account] = field(default_factory=dict)


class Guesses:
    """Wrong passwords by address and name, in bounded memory: the address that is longest at rest is forgotten first.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._addresses: OrderedDict[str, _Address] = OrderedDict()

    def wait(self, address: str, name: str) -> float:
        """Seconds until a password for that name is looked at; 0.0: now."""
        known = self._known(address)
        account = known.names.get(_key(known, name)) if known is not None else None
        return max(0.0, account.until - self._clock()) if account is not None else 0.0

    def is_clean(self, address: str) -> bool:
        """Return whether no wrong password came from there lately."""
        return self._known(address) is None

    def wrong(self, address: str, name: str) -> None:
        """A wrong password came."""
        now = self._clock()
        known = self._known(address) or _Address(now)
        self._addresses[address] = known
        self._addresses.move_to_end(address)
        while len(self._addresses) > _ADDRESSES:
            self._addresses.popitem(last=False)
        account = known.names.setdefault(_key(known, name), _Account())
        known.last = now
        account.wrong += 1
        if account.wrong >= FREE:
            account.until = now + min(FIRST_WAIT * 2.0 ** min(account.wrong - FREE, 30), LONGEST_WAIT)

    def right(self, address: str, name: str) -> None:
        """A right password came: what was wrong before is forgotten for that name."""
        known = self._known(address)
        if known is not None and known.names.pop(name, None) is not None and not known.names:
            del self._addresses[address]

    def _known(self, address: str) -> _Address | None:
        known = self._addresses.get(address)
        if known is not None and self._clock() - known.last >= FORGET_SECONDS:
            del self._addresses[address]
            return None
        return known


def _key(known: _Address, name: str) -> str:
    # Whether a name is an operator's plays no part: that would be a way to find out.
    return name if name in known.names or len(known.names) < _NAMES else _OTHER_NAMES


class Turns:
    """One turn at a time, round by address.

    :param goes_first: whether an address is to be preferred; asked when a turn is given, since what waits from there may be
        the rest of a salvo whose first shots were wrong.
    """

    def __init__(self, goes_first: Callable[[str], bool]) -> None:
        self._goes_first = goes_first
        self._is_taken = False
        self._waiting: OrderedDict[str, deque[Event]] = OrderedDict()

    @contextmanager
    def turn(self, address: str) -> Iterator[None]:
        """Wait for a turn, and hold it."""
        if self._is_taken:
            mine = Event()
            self._waiting.setdefault(address, deque()).append(mine)
            try:
                mine.wait()
            except BaseException:
                # Ended while it waited: it leaves the queue, or hands on the turn that it was just given.
                if mine.is_set():
                    self._hand_on()
                else:
                    self._take_out(address).remove(mine)
                raise
        self._is_taken = True
        try:
            yield
        finally:
            self._hand_on()

    def _hand_on(self) -> None:
        if not self._waiting:
            self._is_taken = False
            return
        address = next(filter(self._goes_first, self._waiting), next(iter(self._waiting)))
        following = self._take_out(address).popleft()
        following.set()

    def _take_out(self, address: str) -> deque[Event]:
        """Return who waits from an address, which is the last of the round now."""
        waiting = self._waiting.pop(address)
        if len(waiting) > 1:
            self._waiting[address] = waiting
        return waiting
