"""Troubles: one line at the start, a count meanwhile, and pauses that have an end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.agent.troubles import Troubles


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_line_at_the_start_and_one_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    clock = Clock()
    troubles = Troubles(clock)
    for number in range(100):
        troubles.failed("b", "ping", f"reason {number}")
        clock.now += 1
    (trouble,) = troubles.all()
    assert (trouble.times, trouble.reason, trouble.ended) == (100, "reason 99", None)
    assert len(caplog.messages) == 1
    troubles.ended("b", "ping")
    troubles.ended("b", "ping")
    assert len(caplog.messages) == 2
    assert "after 100 times" in caplog.messages[1]


def test_what_comes_and_goes_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    clock = Clock()
    troubles = Troubles(clock)
    for _ in range(300):
        troubles.failed("b", "ping", "x")
        troubles.failed("b", "ping", "x")
        troubles.ended("b", "ping")
        clock.now += 1
    assert len(caplog.messages) == 10, "one beginning and one end a minute"


@given(st.integers(1, 200))
def test_every_pause_has_an_end_within_a_minute(failures: int) -> None:
    clock = Clock()
    troubles = Troubles(clock)
    for number in range(failures):
        troubles.failed("b", "generation", "x", pause=True)
        assert troubles.is_paused("b", "generation")
        assert troubles.retry_in() == min(60.0, 2.0 ** (number + 1))
        clock.now += 60
        assert not troubles.is_paused("b", "generation")
    assert not troubles.is_paused("c", "generation")
    troubles.ended("b", "generation")
    assert troubles.retry_in() is None


def test_words_of_others_move_no_cursor(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles(Clock())
    troubles.failed("b", "ping", "a\nb\x1b[31m\u202e" + "x" * 9999)
    (trouble,) = troubles.all()
    assert "\n" not in trouble.reason
    assert "\x1b" not in caplog.text
    assert len(trouble.reason) <= 1000


def test_who_left_the_site_and_what_ended_long_ago_is_forgotten() -> None:
    clock = Clock()
    troubles = Troubles(clock)
    for peer in ("b", "c", ""):
        troubles.failed(peer, "ping", "x")
    troubles.forget({"b"})
    assert [item.peer for item in troubles.all()] == ["", "b"]
    troubles.ended("b", "ping")
    clock.now += 3601
    troubles.forget({"b"})
    assert [item.peer for item in troubles.all()] == [""]
