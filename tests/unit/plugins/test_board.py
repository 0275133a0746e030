"""Progress of several hosts on one screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.site.appliance.plugins.plugin_utils.board import Board
from ansible_collections.site.appliance.plugins.plugin_utils.progress import Cadence
from ansible_collections.site.appliance.plugins.plugin_utils.run import VARIABLE, Run


class Screen:
    """Display that keeps the text it is given."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.live: list[str] = []

    def display(self, text: str, newline: bool = True, screen_only: bool = False) -> None:
        (self.lines if newline else self.live).append(text)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.delenv(VARIABLE, raising=False)
    run = Run.begin(0)
    yield run
    run.end()


def board(screen: Screen, clock: Clock, host: str, run: Run | None) -> Board:
    return Board(screen, host, run, cadence=lambda: Cadence(clock))


def test_one_worker_prints_for_all_the_slowest_first(run: Run) -> None:
    screen, clock = Screen(), Clock()
    first, second = board(screen, clock, "b", run), board(screen, clock, "c", run)
    clock.now = 6.0
    first.show("b: 1 to fetch", 1)
    second.show("c: 9 to fetch", 9)
    assert screen.lines == ["b: 1 to fetch"]
    clock.now = 12.0
    first.show("b: 1 to fetch", 1)
    assert screen.lines[1:] == ["c: 9 to fetch", "b: 1 to fetch"]
    first.close()


def test_another_worker_goes_on_when_the_one_that_prints_ends(run: Run) -> None:
    screen, clock = Screen(), Clock()
    first, second = board(screen, clock, "b", run), board(screen, clock, "c", run)
    clock.now = 6.0
    first.show("b", 1)
    first.close("b: followed")
    second.show("c", 9)
    second.close()
    assert screen.lines == ["b", "b: followed", "c"]


def test_short_work_shows_nothing_at_all(run: Run) -> None:
    screen, clock = Screen(), Clock()
    only = board(screen, clock, "a", run)
    clock.now = 4.9
    only.show("a", 1)
    only.close("a: done")
    assert screen.lines == [] and screen.live == []


def test_a_terminal_has_one_line_that_fits(run: Run) -> None:
    screen, clock = Screen(), Clock()
    only = board(screen, clock, "a", Run(run.directory, 20))
    clock.now = 6.0
    only.show("a: reading /media/stick: 12 of 64 GiB", 1)
    only.close()
    assert screen.live == ["\r\x1b[Ka: reading /medi...\r", "\r\x1b[K\r"]
    assert screen.lines == []


def test_without_the_callback_each_worker_prints_its_own() -> None:
    screen, clock = Screen(), Clock()
    only = board(screen, clock, "a", None)
    clock.now = 6.0
    only.show("a", 1)
    assert screen.lines == ["a"]


def test_the_processes_of_a_run_find_each_other(run: Run) -> None:
    same = Run.current()
    assert same is not None and same.directory == run.directory
    same.note_end("node/1", {"changed": False})
    assert run.ends() == [{"host": "node/1", "changed": False}]
    run.end()
    assert Run.current() is None and not run.directory.exists()
    same.note_end("late", {})


@pytest.mark.parametrize("value", ["", "{}", "[]", '{"directory": 1, "columns": "x"}', "null"])
def test_what_somebody_else_put_into_the_environment_is_ignored(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    found: Any = Run.current()
    assert found is None


def test_transfers_count_what_the_children_read(tmp_path: Path) -> None:
    from ansible_collections.site.appliance.plugins.plugin_utils.transfers import Transfers, size_of

    for child, number in (("8", 70), ("9", 30)):
        (tmp_path / "7/task/7").mkdir(parents=True, exist_ok=True)
        (tmp_path / child / "task" / child).mkdir(parents=True)
        (tmp_path / child / "io").write_text(f"rchar: {number}\nwchar: 1\n")
    (tmp_path / "7/task/7/children").write_text("8 9 ")
    transfers = Transfers(tmp_path, 7)
    assert transfers.bytes_read() == 100
    (tmp_path / "7/task/7/children").write_text("9 ")
    (tmp_path / "9/io").write_text("rchar: 50\n")
    assert transfers.bytes_read() == 120, "what ended is counted"
    assert size_of(tmp_path) == size_of(tmp_path / "8") + size_of(tmp_path / "9") + size_of(tmp_path / "7")
