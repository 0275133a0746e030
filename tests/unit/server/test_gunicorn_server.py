"""When systemd hears that the workers live, and which listening sockets are taken from it."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import ApplianceError
from appliance.server import sdnotify
from appliance.server.gunicorn_server import BEAT_TIMEOUT, BOOT_TIMEOUT, WORKER_TIMEOUT, _Arbiter, _is_alive
from appliance.server.sdnotify import Handed, notify


class Worker:
    """A gunicorn worker whose file says when it last gave a sign."""

    def __init__(self, last_update: float | Exception) -> None:
        self.tmp = self
        self.aborted = False
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


def test_the_log_says_once_that_a_worker_is_killed_for_its_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Log:
        def critical(self, text: str, *arguments: object) -> None:
            lines.append(text % arguments)

    lines = list[str]()
    monkeypatch.setattr(_Arbiter, "kill_worker", lambda self, pid, sig: None)
    arbiter = _Arbiter.__new__(_Arbiter)
    arbiter.timeout, arbiter.log, arbiter._born = WORKER_TIMEOUT, Log(), {}
    arbiter.WORKERS = {7: Worker(time.monotonic() - WORKER_TIMEOUT - 1), 8: Worker(time.monotonic())}
    arbiter.murder_workers()
    arbiter.murder_workers()
    assert [line for line in lines if line.startswith("worker 7 gave no sign of life for 8 s and is killed")]
    assert len(lines) == 2, "gunicorn's own line, and ours"


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


UNIT, STORED = "appliance-mirror.socket", "listener"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket of loopback; what takes its descriptor may close it."""
    made = socket.create_server(("127.0.0.1", 0))
    yield made
    with contextlib.suppress(OSError):
        made.close()


def _at(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


Hand = Callable[[str], Handed]


@pytest.fixture
def hand(listener: socket.socket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hand]:
    """Hands the socket over under a name, as systemd does."""

    def over(name: str) -> Handed:
        monkeypatch.setattr(sdnotify, "_FIRST_DESCRIPTOR", listener.fileno())
        for key, value in {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": name}.items():
            monkeypatch.setenv(key, value)
        handed = Handed()
        assert not {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} & os.environ.keys()
        return handed

    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield over


@pytest.fixture
def hears(hand: Hand, tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """Messages that systemd has got."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.setblocking(False)

        def heard() -> list[str]:
            words: list[str] = []
            try:
                while True:
                    words.append(notified.recv(100).decode().splitlines()[0])
            except BlockingIOError:
                return words

        yield heard


def test_a_socket_units_listener_is_taken_and_not_stored_too(
    hand: Hand, listener: socket.socket, hears: Callable[[], list[str]]
) -> None:
    handed = hand(UNIT)
    descriptor = handed.listener(_at(listener), required=True)
    assert descriptor not in (None, listener.fileno()), "gunicorn closes what it is given"
    assert descriptor is not None
    with socket.socket(fileno=descriptor) as taken:
        assert taken.getsockname() == listener.getsockname()
    handed.keep(listener.fileno())
    assert hears() == []


def test_a_stored_listener_is_taken_and_stored_again(
    hand: Hand, listener: socket.socket, hears: Callable[[], list[str]]
) -> None:
    handed = hand(STORED)
    assert handed.listener(_at(listener)) == listener.fileno()
    handed.keep(listener.fileno())
    assert hears() == ["FDSTORE=1"]


@pytest.mark.parametrize(
    ("name", "address", "required"), [(UNIT, "127.0.0.1:1", True), (STORED, None, True), (STORED, "127.0.0.1:1", False)]
)
def test_a_listener_that_does_not_fit_is_closed(
    hand: Hand,
    listener: socket.socket,
    hears: Callable[[], list[str]],
    name: str,
    address: str | None,
    required: bool,
) -> None:
    handed, wanted = hand(name), address or _at(listener)
    if required:
        with pytest.raises(ApplianceError, match="APL-0405"):
            handed.listener(wanted, required=True)
    else:
        assert handed.listener(wanted) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(listener.fileno())
    assert hears() == ["FDSTOREREMOVE=1"]


def test_what_was_handed_to_another_process_is_left_alone(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdnotify, "_FIRST_DESCRIPTOR", listener.fileno())
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert Handed().listener(_at(listener)) is None
    os.fstat(listener.fileno())


@pytest.mark.parametrize(
    ("problem", "name", "closes"),
    [
        (ValueError("no configuration"), UNIT, True),
        (SystemExit(3), UNIT, True),
        (SystemExit(0), UNIT, False),
        (ValueError("no configuration"), STORED, False),
    ],
)
def test_clients_wait_for_no_service_that_cannot_start(
    hand: Hand,
    listener: socket.socket,
    hears: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    problem: BaseException,
    name: str,
    closes: bool,
) -> None:
    at_exit: list[Callable[[], Any]] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    monkeypatch.setattr(sdnotify, "DOWN_SECONDS", 0.05)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    handed = hand(name)
    with pytest.raises(type(problem)), handed.down_on_failure():
        raise problem
    assert hears() == ([] if problem.args == (0,) else ["FDSTOREREMOVE=1"])
    assert len(at_exit) == closes
    with socket.create_connection(listener.getsockname()[:2], 5) as client:
        for close in at_exit:
            close()
        client.setblocking(False)
        if closes:
            assert client.recv(1) == b""
        else:
            with pytest.raises(BlockingIOError):
                client.recv(1)
