"""The lease of a run: a command stops when its controller is gone, and publishes only while it is there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.errors import ApplianceError
from appliance.lease import SECONDS, VARIABLE, Lease


class Clock:
    """A clock that moves only by what is slept."""

    def __init__(self) -> None:
        self.now = 100.0
        self.on_sleep: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lease"
    path.write_bytes(b"")
    os.utime(path, ns=(0, 0))
    return path


def touch(file: Path) -> None:
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))


def test_it_is_over_when_nobody_touches_the_file(file: Path, clock: Clock) -> None:
    lease = Lease(str(file), clock=clock)
    clock.now += SECONDS - 0.1
    assert not lease.is_over()
    touch(file)
    assert not lease.is_over()
    clock.now += SECONDS - 0.1
    assert not lease.is_over()
    clock.now += 0.1
    assert lease.is_over()


def test_a_clock_of_the_file_that_goes_back_is_a_sign_of_life(file: Path, clock: Clock) -> None:
    lease = Lease(str(file), clock=clock)
    clock.now += SECONDS - 0.1
    os.utime(file, ns=(0, 1))
    assert not lease.is_over()
    os.utime(file, ns=(0, 0))
    clock.now += 1
    assert not lease.is_over()


def test_a_removed_file_ends_it_at_once(file: Path, clock: Clock) -> None:
    lease = Lease(str(file), clock=clock)
    file.unlink()
    assert lease.is_over()


def test_it_waits_for_a_sign_that_comes_after_the_call(file: Path, clock: Clock) -> None:
    lease = Lease(str(file), clock=clock, sleep=clock.sleep)
    touch(file)
    began = clock.now
    clock.on_sleep = lambda: touch(file) if clock.now >= began + 1 else None
    lease.await_sign()
    assert clock.now >= began + 1


@pytest.mark.parametrize("removed", [False, True])
def test_without_a_sign_it_refuses(file: Path, clock: Clock, removed: bool) -> None:
    lease = Lease(str(file), clock=clock, sleep=clock.sleep)
    if removed:
        clock.on_sleep = lambda: file.unlink(missing_ok=True)
    with pytest.raises(ApplianceError) as caught:
        lease.await_sign()
    assert caught.value.code == "APL-0345"


def test_it_can_be_watched_by_a_process_without_rights_to_the_file(file: Path, clock: Clock) -> None:
    lease = Lease(str(file), clock=clock)
    file.rename(file.with_name("moved"))
    assert not lease.is_over()


def test_a_command_that_nobody_watches_over_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Lease.of_this_process() is None


def test_a_lease_that_is_gone_at_the_start_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(ApplianceError) as caught:
        Lease.of_this_process()
    assert caught.value.code == "APL-0345"


def test_the_watch_calls_stop(file: Path) -> None:
    lease = Lease(str(file))
    stopped = threading.Event()
    with lease.watched(stopped.set):
        file.unlink()
        assert stopped.wait(10)


def test_the_watch_ends_with_its_block(file: Path) -> None:
    lease = Lease(str(file))
    stopped = threading.Event()
    with lease.watched(stopped.set):
        pass
    file.unlink()
    assert not stopped.is_set()
    assert "lease" not in [thread.name for thread in threading.enumerate()]
