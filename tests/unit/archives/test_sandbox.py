"""The process that reads archives: its result, its errors, and its end by a limit or a signal."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.archives import sandbox as module
from appliance.archives.medium import Medium
from appliance.archives.sandbox import MEMORY, Report, confined
from appliance.errors import ApplianceError, fail


def call(tmp_path: Path, work: Callable[[Report], dict[str, Any]], report: Report | None = None) -> dict[str, Any]:
    return confined(tmp_path, Medium([tmp_path / "nothing"]), work, report)


def test_what_it_returns_and_how_far_it_was(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def work(report: Report) -> dict[str, Any]:
        report(5, 10)
        report(10, 10)
        return {"process": os.getpid(), "names": ["ä"]}

    done = call(tmp_path, work, lambda *values: seen.append(values))
    assert done["names"] == ["ä"]
    assert done["process"] != os.getpid()
    assert seen == [(5, 10), (10, 10)]


def test_an_error_passes_through(tmp_path: Path) -> None:
    def work(_: Report) -> dict[str, Any]:
        fail("APL-0102", "archive is truncated", where="x.tar", why="w", fix="f")

    with pytest.raises(ApplianceError) as caught:
        call(tmp_path, work)
    expected = {"code": "APL-0102", "what": "archive is truncated", "where": "x.tar", "why": "w", "fix": "f"}
    assert caught.value.as_dict() == expected


def test_an_error_of_the_operating_system_has_an_id(tmp_path: Path) -> None:
    def work(_: Report) -> dict[str, Any]:
        raise PermissionError(13, "Permission denied", "/somewhere")

    with pytest.raises(ApplianceError, match=r"APL-0311.*/somewhere.*Permission denied"):
        call(tmp_path, work)


def test_memory_is_limited(tmp_path: Path) -> None:
    def work(_: Report) -> dict[str, Any]:
        return {"size": len(bytearray(MEMORY + (64 << 20)))}

    with pytest.raises(ApplianceError, match=r"APL-0140.*memory"):
        call(tmp_path, work)


def test_an_endless_loop_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(_: Report) -> dict[str, Any]:
        while True:
            pass

    monkeypatch.setattr(module, "CPU_SECONDS", 1)
    with pytest.raises(ApplianceError, match=r"APL-0140.*on a processor"):
        call(tmp_path, work)


def test_one_that_is_killed_is_one_error(tmp_path: Path) -> None:
    def work(_: Report) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    with pytest.raises(ApplianceError, match=r"APL-0140.*SIGKILL"):
        call(tmp_path, work)


def test_more_time_for_more_bytes(tmp_path: Path) -> None:
    (tmp_path / "big").touch()
    os.truncate(tmp_path / "big", 100 << 20)

    def work(_: Report) -> dict[str, Any]:
        return {"cpu": resource.getrlimit(resource.RLIMIT_CPU)[0], "core": resource.getrlimit(resource.RLIMIT_CORE)[0]}

    assert confined(tmp_path, Medium([tmp_path / "big"]), work) == {"cpu": module.CPU_SECONDS + 100, "core": 0}
    assert confined(tmp_path, Medium([tmp_path]), work)["cpu"] == module.CPU_SECONDS + 100


def test_it_can_gain_no_rights(tmp_path: Path) -> None:
    def work(_: Report) -> dict[str, Any]:
        text = Path("/proc/self/status").read_text()
        return {"set": [line.split()[1] for line in text.splitlines() if line.startswith("NoNewPrivs:")]}

    assert call(tmp_path, work) == {"set": ["1"]}


def test_nothing_of_it_stays(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    call(tmp_path, lambda _: {})
    with pytest.raises(ApplianceError):
        call(tmp_path, lambda _: fail("APL-0102", "x"))
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_mistake_of_ours_is_shown_and_is_one_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def work(_: Report) -> dict[str, Any]:
        raise ZeroDivisionError("a mistake")

    with pytest.raises(ApplianceError, match=r"APL-0140.*ended with 1"):
        call(tmp_path, work)
    assert "ZeroDivisionError: a mistake" in capfd.readouterr().err


def test_whoever_reads_for_root_keeps_nothing_of_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Groups first: after ``setuid`` none of them could be given up any more."""
    given_up = list[tuple[str, object]]()
    monkeypatch.setattr(module, "_owner", lambda store: (7, 8))
    for name in ("setgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, name, lambda value, name=name: given_up.append((name, value)))
    module.drop_privileges(tmp_path)
    assert given_up == [("setgroups", []), ("setgid", 8), ("setuid", 7)]
    given_up.clear()
    monkeypatch.setattr(module, "_owner", lambda store: None)
    module.drop_privileges(tmp_path)
    assert given_up == []
