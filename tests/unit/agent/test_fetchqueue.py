"""Queue of fetches: none runs twice, none waits for ever behind slow ones."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import pytest
from gevent.event import Event

from appliance.agent import fetchqueue
from appliance.agent.fetchqueue import AT_ONCE, FIRST_SECONDS, FetchQueue
from appliance.oci.manifests import Descriptor
from tests.unit.store import made


def blob(number: int) -> Descriptor:
    return Descriptor("application/octet-stream", made.sha(b"%d" % number), 1)


class Fetches:
    """Fetches that end when a test says so.

    :param at_once: numbers of the blobs that come at once.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.quick: set[str] = set()
        self.running: dict[str, Event] = {}
        self.begun: list[str] = []
        self.queue = FetchQueue(self._bring, self._give_way, lambda: self.now)

    def _bring(self, item: Descriptor) -> str:
        assert item.digest not in self.running, "a blob is fetched once at a time"
        self.begun.append(item.digest)
        if item.digest in self.quick:
            return ""
        self.running[item.digest] = Event()
        self.running[item.digest].wait()
        del self.running[item.digest]
        return "slow"

    def _give_way(self, digest: str) -> None:
        self.running[digest].set()

    def turn(self, seconds: float = 0.0) -> None:
        """Let so much time go by and the queue look once."""
        self.now += seconds
        self.queue._relieve()
        for _ in range(4):
            gevent.sleep(0)

    def end(self) -> None:
        for event in self.running.values():
            event.set()
        for _ in range(4):
            gevent.sleep(0)


@pytest.fixture
def fetches() -> Fetches:
    return Fetches()


def waits(call: Callable[[], object]) -> bool:
    """Return whether a call does not end for now."""
    greenlet = gevent.spawn(call)
    for _ in range(4):
        gevent.sleep(0)
    ended = greenlet.ready()
    greenlet.kill()
    return not ended


def test_some_run_at_a_time_in_the_order_given(fetches: Fetches) -> None:
    blobs = [blob(number) for number in range(9)]
    fetches.queue.want(blobs)
    fetches.turn()
    assert fetches.begun == [item.digest for item in blobs[:AT_ONCE]]
    fetches.queue.want(blobs)
    fetches.turn()
    assert len(fetches.begun) == AT_ONCE, "what runs is not begun again"
    fetches.end()
    fetches.end()
    fetches.end()
    assert fetches.begun == [item.digest for item in blobs]


def test_what_is_wanted_later_is_not_kept_back_by_one_slow_fetch(fetches: Fetches) -> None:
    """The round before had to end first: one layer that dripped kept all images back that were published after it."""
    fetches.queue.want([blob(1)])
    fetches.turn()
    fetches.now = FIRST_SECONDS
    assert not waits(lambda: fetches.queue.join(Event())), "a fetch that takes long is not waited for"
    fetches.quick.add(blob(2).digest)
    fetches.queue.want([blob(1), blob(2)])
    fetches.turn()
    assert fetches.begun == [blob(1).digest, blob(2).digest]
    assert fetches.queue.is_running(blob(1).digest)


def test_a_call_ends_the_wait(fetches: Fetches) -> None:
    fetches.queue.want([blob(1)])
    called = Event()
    assert waits(lambda: fetches.queue.join(called))
    called.set()
    assert not waits(lambda: fetches.queue.join(called))


def test_slow_fetches_give_their_places_to_what_was_not_tried_yet(fetches: Fetches) -> None:
    slow = [blob(number) for number in range(AT_ONCE)]
    fetches.queue.want(slow)
    fetches.turn(1000)
    assert len(fetches.running) == AT_ONCE, "nothing waits, so they go on"
    fetches.queue.want([*slow, blob(9)])
    assert blob(9).digest not in fetches.begun
    fetches.turn()
    assert fetches.begun[AT_ONCE:] == [blob(9).digest]


def test_every_blob_has_its_turn_and_more_time_at_each(fetches: Fetches) -> None:
    """Over slow links a fetch that never had time for a whole piece would begin again for ever."""
    slow = [blob(number) for number in range(3 * AT_ONCE)]
    last = dict.fromkeys((item.digest for item in slow), 0.0)
    longest = dict(last)
    for _ in range(600):
        fetches.queue.want(slow)
        before = dict.fromkeys(fetches.running)
        fetches.turn(1)
        for digest in fetches.running:
            last[digest] = last[digest] + 1 if digest in before else 0.0
            longest[digest] = max(longest[digest], last[digest])
    assert min(fetches.begun.count(item.digest) for item in slow) >= 3
    assert min(longest.values()) >= 2 * FIRST_SECONDS
    fetches.quick.add(blob(99).digest)
    fetches.queue.want([*slow, blob(99)])
    for _ in range(int(FIRST_SECONDS) + 1):
        fetches.turn(1)
    assert blob(99).digest in fetches.begun, "what is new has a place within the first span"


def test_what_is_not_wanted_any_more_is_forgotten(fetches: Fetches) -> None:
    fetches.quick |= {blob(1).digest, blob(2).digest}
    fetches.queue.want([blob(1)])
    fetches.turn()
    fetches.queue.want([])
    assert fetches.queue._tries == {}
    assert not waits(lambda: fetches.queue.join(Event()))


def test_a_fetch_that_raises_leaves_its_place(fetches: Fetches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gevent.get_hub(), "print_exception", lambda *_: None)

    def fail(item: Descriptor) -> None:
        raise RuntimeError(item.digest)

    queue = fetchqueue.FetchQueue(fail, lambda _: None)
    queue.want([blob(number) for number in range(9)])
    for _ in range(9):
        gevent.sleep(0)
    assert not queue.is_running(blob(8).digest)
    assert not waits(lambda: queue.join(Event()))
