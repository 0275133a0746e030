# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Progress of the transfer programs that this process started, as the kernel counts it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


def size_of(path: Path) -> int:
    """Return the size of a file, or of all files below a directory."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


class Transfers:
    """Bytes that the children of a process have read, those that ended counted.

    Ansible starts one ``sftp`` a file and waits for it; the kernel counts what it reads from that file. Where there is no
    ``/proc`` (macOS), nothing is known.

    :param proc: the file system with what the kernel counts.
    :param pid: the process whose children are meant.
    """

    def __init__(self, proc: Path, pid: int) -> None:
        self._proc = proc
        self._pid = pid
        self._read: dict[str, int] = {}

    def bytes_read(self) -> int:
        """Look again, and return the sum."""
        for child in self._children(str(self._pid)):
            with contextlib.suppress(OSError, ValueError):
                for line in (self._proc / child / "io").read_text().splitlines():
                    name, _, number = line.partition(":")
                    if name == "rchar":
                        self._read[child] = max(self._read.get(child, 0), int(number))
        return sum(self._read.values())

    def _children(self, pid: str) -> Iterator[str]:
        for file in (self._proc / pid / "task").glob("*/children"):
            with contextlib.suppress(OSError):
                for child in file.read_text().split():
                    yield child
                    yield from self._children(child)
