"""Wrong passwords cost who gives them: the wait grows for one name from one address, and turns go round by address."""

from __future__ import annotations

import contextlib
import logging
import os

import gevent
import pytest
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st

from appliance.store.blobs import BlobStore
from appliance.web import guesses
from appliance.web.auth import PasswordHash
from appliance.web.guesses import FORGET_SECONDS, FREE, LONGEST_WAIT, Guesses, Turns
from tests.unit.registry.listeners import Listener, authorization, code


class Clock:
    """Seconds that a test lets pass."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_wait_begins_after_some_and_doubles_up_to_a_bound() -> None:
    clock = Clock()
    known, waits = Guesses(clock), []
    for _ in range(FREE + 6):
        known.wrong("10.0.0.7", "ops")
        waits.append(known.wait("10.0.0.7", "ops"))
        clock.now += waits[-1]
        assert known.wait("10.0.0.7", "ops") == 0
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 16, 16]
    assert known.wait("10.0.0.8", "ops") == 0, "another address does not wait"


def test_a_right_password_and_a_quarter_of_an_hour_forget() -> None:
    clock = Clock()
    known = Guesses(clock)
    for _ in range(FREE):
        known.wrong("10.0.0.7", "ops")
    known.right("10.0.0.7", "ops")
    assert known.wait("10.0.0.7", "ops") == 0 and known.is_clean("10.0.0.7")
    known.wrong("10.0.0.7", "ops")
    clock.now += FORGET_SECONDS - 1
    assert not known.is_clean("10.0.0.7")
    clock.now += 1
    assert known.is_clean("10.0.0.7")


def test_a_script_with_an_old_password_locks_nobody_out_behind_the_same_router() -> None:
    known = Guesses(Clock())
    for _ in range(50):
        known.wrong("10.0.0.7", "ci")
    assert known.wait("10.0.0.7", "ci") == LONGEST_WAIT
    assert known.wait("10.0.0.7", "ops") == 0
    known.right("10.0.0.7", "ops")
    assert known.wait("10.0.0.7", "ci") == LONGEST_WAIT, "a right password for one name is none for another"


def test_many_names_have_one_account_together() -> None:
    known = Guesses(Clock())
    for number in range(100):
        known.wrong("10.0.0.7", f"name{number}")
    assert known.wait("10.0.0.7", "never tried") == LONGEST_WAIT
    assert len(known._addresses["10.0.0.7"].names) == guesses._NAMES + 1


@given(st.lists(st.tuples(st.integers(0, 5000), st.text(max_size=3)), max_size=50))
def test_memory_is_bounded(events: list[tuple[int, str]]) -> None:
    known = Guesses(Clock())
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(guesses, "_ADDRESSES", 5)
        for address, name in events:
            known.wrong(str(address), name)
        assert len(known._addresses) <= 5


def test_turns_go_round_by_address_and_to_the_clean_first() -> None:
    bad = {"bad", "other"}
    turns, order, all_wait = Turns(lambda address: address not in bad), list[str](), Event()

    def check(address: str) -> None:
        with turns.turn(address):
            order.append(address)
            all_wait.wait()
            if address == "salvo":
                bad.add(address)

    waiting = [gevent.spawn(check, "busy")]
    gevent.sleep(0)
    names = ("bad", "bad", "bad", "other", "other", "salvo", "salvo", "many", "many", "ops")
    waiting += [gevent.spawn(check, name) for name in names]
    gevent.sleep(0)
    all_wait.set()
    gevent.joinall(waiting, timeout=10, raise_error=True)
    assert order == ["busy", "salvo", "many", "ops", "many", "bad", "other", "salvo", "bad", "other", "bad"]


def test_whoever_leaves_the_queue_leaves_no_turn_behind() -> None:
    turns, done = Turns(lambda address: True), list[int]()

    def check(number: int) -> None:
        with turns.turn("10.0.0.7"):
            gevent.sleep(0)
            done.append(number)

    waiting = [gevent.spawn(check, number) for number in range(6)]
    gevent.sleep(0)
    # One that waits, and one that was just given its turn.
    waiting[3].kill(block=False)
    waiting[1].kill(block=False)
    gevent.joinall(waiting, timeout=10)
    with contextlib.ExitStack() as stack:
        stack.enter_context(turns.turn("10.0.0.8"))
    assert done == [0, 2, 4, 5]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Passwords that were hashed."""
    seen: list[bytes] = []
    real = PasswordHash.matches

    def matches(self: PasswordHash, password: bytes) -> bool:
        seen.append(password)
        return real(self, password)

    monkeypatch.setattr(PasswordHash, "matches", matches)
    return seen


def login(listener: Listener, address: str, **given: str) -> tuple[int, str]:
    """Status and error of one request from an address."""
    answer = listener.client.get("/v2/", headers=authorization(**given), environ_overrides={"REMOTE_ADDR": address})
    retry = answer.headers.get("Retry-After", "")
    return answer.status_code, f"{code(answer)} {retry}".strip() if answer.status_code >= 400 else ""


def test_a_guesser_is_answered_without_a_check_and_an_operator_is_let_in(
    store: BlobStore, hashed: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    listener = Listener(store, pki=True)
    answers = [login(listener, "10.9.9.9", password=f"guess {number}") for number in range(50)]
    assert answers == [(401, "UNAUTHORIZED")] * FREE + [(429, "TOOMANYREQUESTS 1")] * (50 - FREE)
    assert len(hashed) == FREE
    assert login(listener, "10.9.9.9")[0] == 429, "a right password waits there too"
    assert login(listener, "10.0.0.7") == (200, "")
    assert login(listener, "10.9.9.9") == (200, ""), "what is remembered is never held up"
    (line,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert line.getMessage() == 'wrong passwords of operators: 1 from 10.9.9.9 ("ops")'


def test_a_right_password_gets_in_from_a_guessers_address_when_its_wait_is_over(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guesses, "FIRST_WAIT", 0.0)
    listener = Listener(store, pki=True)
    for number in range(20):
        assert login(listener, "10.9.9.9", password=f"guess {number}")[0] == 401
    assert login(listener, "10.9.9.9") == (200, "")


def test_names_that_are_tried_make_no_lines_of_their_own(store: BlobStore, caplog: pytest.LogCaptureFixture) -> None:
    listener = Listener(store, pki=True)
    assert login(listener, "10.9.9.9", name="ops\nJan 1 root: all is well\x1b[2J")[0] == 401
    assert all("\n" not in record.getMessage() and "\x1b" not in record.getMessage() for record in caplog.records)
    assert any("ops\\nJan 1 root" in record.getMessage() for record in caplog.records)


def test_what_is_no_basic_authorization_counts_as_no_guess(store: BlobStore, hashed: list[bytes]) -> None:
    listener = Listener(store, pki=True)
    for _ in range(20):
        assert (
            listener.client.get("/v2/", headers={"Authorization": f"Bearer {os.urandom(4).hex()}"}).status_code == 401
        )
    assert login(listener, "127.0.0.1") == (200, "")
    assert len(hashed) == 1
