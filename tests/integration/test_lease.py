"""A command that a playbook started ends when the playbook is gone, and lets go of the medium."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.lease import EXIT_CODE, SECONDS, VARIABLE

SIZE = 200 << 30
"""Bytes of the one member: reading it takes minutes, and on the disk it takes nothing."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    member = tarfile.TarInfo("layer.tar")
    member.size = SIZE - (1 << 30)
    path = tmp_path / "endless.tar"
    with path.open("wb") as file:
        file.write(member.tobuf())
        file.truncate(SIZE)
    return path


@pytest.fixture
def lease(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "lease"
    path.touch()
    yield path


def start(tmp_path: Path, source: Path, lease: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "appliance", "plan", "--json", "--store", str(tmp_path / "store"), str(source)]
    return subprocess.Popen(words, env={**os.environ, VARIABLE: str(lease)}, stderr=subprocess.PIPE, text=True)


def users_of(path: Path) -> list[str]:
    """The processes that have a file open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == path:
                found.append(link.parts[2])
        except OSError:
            continue
    return found


@pytest.mark.parametrize("how", ["silence", "removed"])
def test_it_ends_and_nobody_reads_on(tmp_path: Path, source: Path, lease: Path, how: str) -> None:
    process = start(tmp_path, source, lease)
    assert process.stderr is not None
    touched, stop = 0, threading.Event()
    while not stop.wait(0.2):
        touched += 1
        os.utime(lease)
        # Beyond the time of a lease that nobody renews.
        if touched * 0.2 > SECONDS + 1 and users_of(source):
            break
        assert process.poll() is None, process.stderr.read()
    if how == "removed":
        lease.unlink()
    assert process.wait(timeout=SECONDS + 5) == EXIT_CODE
    assert "APL-0345" in process.stderr.read()
    process.stderr.close()
    assert users_of(source) == []


def test_a_lease_that_is_gone_before_it_starts(tmp_path: Path, source: Path) -> None:
    process = start(tmp_path, source, tmp_path / "gone")
    assert process.stderr is not None
    assert process.wait(timeout=60) == EXIT_CODE
    assert "APL-0345" in process.stderr.read()
    process.stderr.close()
