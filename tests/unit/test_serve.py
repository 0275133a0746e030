"""When systemd hears that the workers live."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from appliance.serve.server import BEAT_TIMEOUT, BOOT_TIMEOUT, WORKER_TIMEOUT, _is_alive
from appliance.serve.systemd import notify


class Worker:
    """A gunicorn worker whose file says when it last gave a sign."""

    def __init__(self, last_update: float | Exception) -> None:
        self.tmp = self
        self._last = last_update

    def last_update(self) -> float:
        if isinstance(self._last, Exception):
            raise self._last
        return self._last


@pytest.mark.parametrize(
    ("silence", "age", "alive"),
    [(0.0, 100.0, True), (BEAT_TIMEOUT - 1, 100.0, True), (BEAT_TIMEOUT + 1, 100.0, False), (10**6, 1.0, False)],
)
def test_a_worker_lives_while_it_gives_signs(silence: float, age: float, alive: bool) -> None:
    assert _is_alive(Worker(time.monotonic() - silence), age) is alive


@pytest.mark.parametrize(("age", "alive"), [(0.0, True), (BOOT_TIMEOUT - 1, True), (BOOT_TIMEOUT + 1, False)])
def test_a_worker_that_never_gave_a_sign_is_not_waited_for_for_ever(age: float, alive: bool) -> None:
    assert _is_alive(Worker(time.time() + 10**9), age) is alive


def test_a_worker_whose_file_is_gone_is_dead() -> None:
    for error in (OSError("closed"), ValueError("closed")):
        assert not _is_alive(Worker(error), 1.0)


def test_a_hung_worker_is_ended_before_systemd_loses_patience() -> None:
    watchdog = 10
    assert BEAT_TIMEOUT < WORKER_TIMEOUT < watchdog


@pytest.mark.parametrize("abstract", [False, True])
def test_notify_reaches_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"apl-{tmp_path.name}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}" if abstract else str(tmp_path / "n"))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else str(tmp_path / "n"))
        notify("WATCHDOG=1")
        assert listener.recv(100) == b"WATCHDOG=1"


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("WATCHDOG=1")


def test_a_word_that_systemd_does_not_take_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("WATCHDOG=1")
    assert "systemd did not hear WATCHDOG=1" in caplog.text
