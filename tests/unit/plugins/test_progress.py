"""Progress of long work: what is read from a command's lines, how it reads, and when it is shown."""

from __future__ import annotations

import json

import pytest
from ansible_collections.site.appliance.plugins.plugin_utils import progress
from hypothesis import given
from hypothesis import strategies as st

GIB = 1024**3
MESSAGE = {
    "message_type": "progress",
    "phase": "reading",
    "bytes": int(12.3 * GIB),
    "total": 64 * GIB,
    "bytes_per_second": 31 * 1024**2,
    "seconds_left": 1680,
    "file": "a.tar",
}


class Clock:
    """A clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_says_what_how_much_how_fast_and_how_long() -> None:
    read = progress.parse(json.dumps(MESSAGE))
    line = progress.progress_text("a", "/media/stick", read, 600)
    assert line == "a: reading /media/stick: 12.3 of 64.0 GiB, 31 MiB/s, 28 min left"


def test_what_nobody_can_tell_is_left_out() -> None:
    read = progress.parse(json.dumps({**MESSAGE, "seconds_left": None, "bytes_per_second": 0}))
    assert progress.progress_text("a", "/media/stick", read, 9) == "a: reading /media/stick: 12.3 of 64.0 GiB"
    assert progress.progress_text("a", "/media/stick", None, 9) == "a: /media/stick: 9 s so far"


@given(st.one_of(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_no_line_of_a_command_breaks_the_reader(line: str) -> None:
    assert progress.parse(line) is None


@given(
    st.dictionaries(
        st.sampled_from(sorted(MESSAGE)), st.one_of(st.none(), st.text(), st.integers(), st.lists(st.integers()))
    )
)
def test_no_progress_of_a_strange_form_breaks_the_reader(changed: dict[str, object]) -> None:
    progress.parse(json.dumps({**MESSAGE, **changed}))


def test_standard_error_keeps_everything_but_progress() -> None:
    text = f"warning\n{json.dumps(MESSAGE)}\nAPL-0107: wrong\n"
    assert progress.without_progress(text) == "warning\nAPL-0107: wrong\n"


def test_short_work_shows_nothing_and_long_work_a_line_every_few_seconds() -> None:
    clock = Clock()
    cadence = progress.Cadence(clock)
    due = []
    for second in range(81):
        clock.now = 100.0 + second
        if cadence.is_due():
            due.append(second)
    assert due == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 65, 75]


@pytest.mark.parametrize(("numbers", "rate"), [([100, 80, 60], 10.0), ([100, 100], 0.0), ([50, 60], 0.0), ([7], 0.0)])
def test_the_rate_at_which_something_falls(numbers: list[int], rate: float) -> None:
    clock = Clock()
    falling = progress.Rate(clock)
    rates = []
    for number in numbers:
        rates.append(falling.falls_to(number))
        clock.now += 2
    assert rates[-1] == rate


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    clock = Clock()
    falling = progress.Rate(clock)
    falling.falls_to(1_000_000)
    clock.now += 31
    falling.falls_to(1000)
    clock.now += 10
    assert falling.falls_to(900) == 10.0
