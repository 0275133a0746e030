"""Selection among the holders of one blob: the source that a fetch uses next."""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent
from gevent.queue import Empty, Queue

from appliance.agent import delivery
from appliance.config import Peer
from appliance.peers.transport import PeerError, PeerTransport
from appliance.sizes import size_words

_LOG = logging.getLogger("appliance.fetch")


class SlowPeers:
    """Peers that delivered slowly a short time ago, in any fetch; others are used before them.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rates: dict[Peer, tuple[float, float]] = {}

    def note(self, peer: Peer, rate: float) -> None:
        """Remember how slow a peer is, and say so in the log when that is news."""
        if self.rate(peer) is None:
            _LOG.warning(
                "%s (%s) delivers %s a second; others are asked before it", peer.id, peer.address, size_words(rate)
            )
        now = self._clock()
        self._rates = {known: noted for known, noted in self._rates.items() if noted[0] > now}
        self._rates[peer] = now + delivery.REMEMBER_SECONDS, rate

    def rate(self, peer: Peer) -> float | None:
        """Return bytes a second of a peer that was slow; None for one that was not."""
        until, rate = self._rates.get(peer, (0.0, 0.0))
        return rate if until > self._clock() else None


class Sources:
    """The holders of one blob, for one fetch.

    :param reasons: takes, by peer id, why a peer is of no use.
    :param asked: called with a peer that was asked whether it holds the blob, what is wrong with its answer (empty where nothing
        is), and whether there was an answer; maybe after the fetch.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        peers: PeerTransport,
        digest: str,
        slow: SlowPeers,
        reasons: dict[str, str],
        asked: Callable[[Peer, str, bool], None],
        clock: Callable[[], float],
    ) -> None:
        self._peers = peers
        self._digest = digest
        self._remembered = slow
        self._reasons = reasons
        self._note = asked
        self._clock = clock
        self._answers: Queue[tuple[Peer, bool, bool]] = Queue()
        self._asked: set[Peer] = set()
        self._untried: list[Peer] = []
        self._slow: dict[Peer, float] = {}
        self._given_up: set[Peer] = set()
        self._current: Peer | None = None
        self._pause = delivery.REMEMBER_SECONDS
        self._again = clock() + self._pause

    def ask(self, *, anew: bool = False) -> None:
        """Ask every peer that can be asked whether it holds the blob, all at once; does not wait for answers.

        :param anew: try those again that were slow before.
        """
        for peer in self._peers.available():
            if peer not in self._asked and peer not in self._untried and peer not in (self._current, *self._given_up):
                self._asked.add(peer)
                gevent.spawn(self._ask, peer, anew)

    def _ask(self, peer: Peer, anew: bool) -> None:
        is_holder, is_answer, wrong = False, False, ""
        try:
            status = self._peers.has(peer, self._digest)
            is_holder, is_answer = status == 200, True
            if not is_holder:
                reason = f"{peer.id} " + ("does not hold it" if status == 404 else f"answered {status}")
                wrong = "" if status == 404 else reason
                self._reasons[peer.id] = reason
        except PeerError as error:
            self._reasons[peer.id] = wrong = str(error)
        finally:
            self._answers.put((peer, is_holder, anew))
        self._note(peer, wrong, is_answer)

    def next(self) -> Peer | None:
        """Return the holder to use now; None where there is none left.

        The first that says yes comes first; a dead peer's time-out is waited for only when nobody else is left. One that is
        known to be slow waits a moment for the others, and among slow ones the fastest is used.
        """
        self._current = None
        self._take_answers()
        while not self._untried and self._asked:
            try:
                self._take(*self._answers.get(timeout=delivery.GRACE_SECONDS if self._slow else None))
            except Empty:
                break
        if self._untried:
            self._current = self._untried.pop(0)
        elif self._slow:
            self._current = max(self._slow, key=lambda peer: self._slow[peer])
            del self._slow[self._current]
        return self._current

    def found_slow(self, peer: Peer, rate: float) -> None:
        """Note that a source delivers so many bytes a second: it is used again when the others are slower."""
        self._slow[peer] = rate
        self._remembered.note(peer, rate)

    def give_up(self, peer: Peer, rate: float) -> None:
        """Note that a source delivers next to nothing: this fetch does not use it again."""
        self._given_up.add(peer)
        self._remembered.note(peer, rate)

    @property
    def may_replace(self) -> bool:
        """True when another holder is there, or may turn out to be."""
        return bool(self._asked or self._untried or any(self._slow.values()))

    def has_better(self, rate: float) -> bool:
        """Return whether another holder is there that is not known to be as slow; does not wait for answers."""
        self._take_answers()
        return bool(self._untried) or any(known > delivery.FASTER * rate for known in self._slow.values())

    def look_again(self) -> None:
        """Ask all peers again, but for the present one, where that was long enough ago: one may hold it by now, or be well."""
        if self._clock() >= self._again:
            self._pause *= 2
            self._again = self._clock() + self._pause
            self.ask(anew=True)

    def _take_answers(self) -> None:
        while not self._answers.empty():
            self._take(*self._answers.get())

    def _take(self, peer: Peer, is_holder: bool, anew: bool) -> None:
        self._asked.discard(peer)
        was_slow = self._slow.pop(peer, None)
        if not is_holder:
            return
        rate = None if anew else self._remembered.rate(peer)
        if rate is None:
            self._untried.append(peer)
        else:
            self._slow[peer] = rate if was_slow is None else was_slow
