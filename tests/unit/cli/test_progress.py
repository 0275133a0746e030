"""Progress: bytes, rate and what is left, in three forms."""

from __future__ import annotations

import json

import pytest

from appliance.cli.progress import Form, Progress, describe, duration

GIB = 1 << 30


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("bar", "\r  [######..................]  25 %  1.0 GiB of 4.0 GiB read, 256.0 MiB/s, 12 s left\x1b[K"),
        ("lines", "  25 %: 1.0 GiB of 4.0 GiB read, 256.0 MiB/s, 12 s left"),
    ],
)
def test_for_people(form: Form, text: str) -> None:
    assert describe(form, GIB, 4 * GIB, 256 << 20, 84) == text


@pytest.mark.parametrize("columns", [10, 50, 62, 80, 84, 200])
def test_a_bar_fits_on_its_line(columns: int) -> None:
    """One character less than there is room for: behind the last, terminals go on on the next line."""
    for done in (GIB, 39 * GIB):
        text = describe("bar", done, 40 * GIB, 300 << 20, columns)
        shown = text.removeprefix("\r").removesuffix("\x1b[K")
        assert len(shown) < columns
        assert ("[" in shown) == (columns > 62)


def test_a_bar_ends_full() -> None:
    said: list[str] = []
    now = [0.0]
    progress = Progress("bar", said.append, 200, lambda: now[0], lambda: 80)
    for moment, done in ((1.0, 50), (1.1, 100), (1.2, 20), (1.25, 100)):
        now[0] = moment
        progress(done, 100)
    assert ["100 %" in text for text in said] == [False, True]


def test_for_programs() -> None:
    assert json.loads(describe("json", GIB, 4 * GIB, 256 << 20)) == {
        "message_type": "progress",
        "phase": "reading",
        "bytes": GIB,
        "total": 4 * GIB,
        "bytes_per_second": 256 << 20,
        "seconds_left": 12,
    }
    assert json.loads(describe("json", 0, GIB, 0))["seconds_left"] is None


def test_units() -> None:
    assert [duration(seconds) for seconds in (0.4, 61, 3720)] == ["0 s", "1 min 01 s", "1 h 02 min"]


def test_sources_are_added_up_and_nothing_is_said_too_often() -> None:
    said: list[str] = []
    now = [0.0]
    progress = Progress("json", said.append, 400, lambda: now[0])
    for moment, done, total in ((0.1, 50, 200), (1.0, 100, 200), (1.5, 200, 200), (1.6, 10, 200), (2.0, 100, 200)):
        now[0] = moment
        progress(done, total)
    progress.close()
    documents = [json.loads(text) for text in said]
    assert [(item["bytes"], item["total"], item["bytes_per_second"]) for item in documents] == [
        (100, 400, 100),
        (300, 400, 150),
    ]


def test_a_bar_that_was_shown_ends_its_line() -> None:
    said: list[str] = []
    now = [0.0]
    progress = Progress("bar", said.append, 100, lambda: now[0])
    progress.close()
    assert said == []
    now[0] = 1.0
    progress(50, 100)
    progress.close()
    assert said[0].startswith("\r")
    assert said[1:] == ["\n"]


def test_a_total_that_nobody_knows_beforehand() -> None:
    assert "100 %" in describe("bar", 0, 0, 0.0)
