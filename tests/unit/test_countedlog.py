"""Lines about strangers: the first at once, the rest counted, and nothing of them grows without an end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.countedlog import MINUTE, CountedLog, origin


class Minutes:
    """What is to be done later, until a test lets a minute pass."""

    def __init__(self) -> None:
        self._due: list[Callable[[], None]] = []

    def __call__(self, seconds: float, function: Callable[[], None]) -> None:
        assert seconds == MINUTE
        self._due.append(function)

    def passes(self) -> None:
        due, self._due = self._due, []
        for function in due:
            function()


@pytest.fixture
def minutes() -> Minutes:
    """A clock of minutes."""
    return Minutes()


def test_the_first_is_told_at_once_and_the_rest_once_a_minute(minutes: Minutes) -> None:
    lines = list[str]()
    log = CountedLog(lines.append, minutes)
    for number in range(1000):
        log.count("handshakes", f"10.0.0.{number % 2}", "cut")
    assert lines == ['handshakes: 1 from 10.0.0.0 ("cut")']
    minutes.passes()
    assert lines[1:] == ['handshakes in the last minute: 500 from 10.0.0.1, 499 from 10.0.0.0 ("cut")']
    minutes.passes()
    assert len(lines) == 2, "nothing came"
    log.count("handshakes", "10.0.0.7")
    assert lines[2:] == ["handshakes: 1 from 10.0.0.7"]


def test_a_line_is_reported_as_data_too(minutes: Minutes) -> None:
    reports = list[dict[str, object]]()
    log = CountedLog(lambda line: None, minutes, reports.append)
    for number in range(1000):
        log.count("handshakes", f"10.0.0.{number % 7}", f"reason {number}\n")
    assert reports == [{"what": "handshakes", "count": 1, "addresses": {"10.0.0.0": 1}, "details": ["reason 0\\n"]}]
    minutes.passes()
    (_, report) = reports
    addresses = report["addresses"]
    assert isinstance(addresses, dict) and len(addresses) == 5 and set(addresses.values()) == {143}
    assert report == {"what": "handshakes", "count": 999, "addresses": addresses} | {
        "details": [f"reason {number}\\n" for number in range(1, 6)]
    }


def test_kinds_are_told_apart_and_the_end_of_a_process_loses_nothing(minutes: Minutes) -> None:
    lines = list[str]()
    log = CountedLog(lines.append, minutes)
    for what in ("one", "other", "one"):
        log.count(what, "10.0.0.7")
    log.flush()
    assert lines == ["one: 1 from 10.0.0.7", "other: 1 from 10.0.0.7", "one: 1 from 10.0.0.7"]


def test_words_of_strangers_are_escaped_cut_and_few(minutes: Minutes) -> None:
    lines = list[str]()
    log = CountedLog(lines.append, minutes)
    log.count("names", "10.0.0.7", "ops\nroot logged in\x1b[2J\u202e")
    for number in range(1000):
        log.count("names", f"10.{number // 250}.0.{number % 250}", f"{number} " + "x" * 10_000)
    minutes.passes()
    assert "\n" not in "".join(lines) and "\x1b" not in "".join(lines)
    assert "ops\\nroot logged in" in lines[0]
    assert len(lines) == 2 and len(lines[1]) < 1500
    assert "995 from other addresses" in lines[1] and "; ..." in lines[1]


def test_who_comes_often_is_named_whoever_came_first(minutes: Minutes) -> None:
    lines = list[str]()
    log = CountedLog(lines.append, minutes)
    for number in range(1000):
        log.count("handshakes", f"10.{number // 250}.0.{number % 250}")
    for _ in range(5000):
        log.count("handshakes", "10.9.9.9")
    minutes.passes()
    assert lines[1].startswith("handshakes in the last minute: 5000 from 10.9.9.9, 1 from ")
    assert lines[1].endswith(", 995 from other addresses")


def test_a_name_cannot_pass_for_the_lines_own_words(minutes: Minutes) -> None:
    lines = list[str]()
    CountedLog(lines.append, minutes).count("wrong passwords", "10.0.0.9", "ops), 900 from 10.0.0.7 (admin")
    assert lines == ['wrong passwords: 1 from 10.0.0.9 ("ops), 900 from 10.0.0.7 (admin")']


@given(st.lists(st.tuples(st.text(), st.text()), max_size=30))
def test_no_text_makes_a_second_line(events: list[tuple[str, str]]) -> None:
    lines = list[str]()
    log = CountedLog(lines.append, lambda seconds, function: None)
    for _, detail in events:
        log.count("names", "10.0.0.7", detail)
    log.flush()
    assert len(lines) <= 2 and not any("\n" in line or "\r" in line for line in lines)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a local client", "a local client"),
    ],
)
def test_one_host_is_one_origin(address: str, expected: str) -> None:
    assert origin(address) == expected
