"""Stand-in for a USB stick: processes whose reads from the disk are as slow as those from a stick.

The kernel limits the rate (cgroup version 1 ``blkio.throttle.read_bps_device``, or version 2 ``io.max``), so that the
measured commands open an ordinary file, as they do on a mounted stick.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import Failed

_CGROUPS = Path("/sys/fs/cgroup")


class Unavailable(Exception):
    """This machine has no way to limit the rate at which a process reads from a disk."""


@dataclass(frozen=True)
class Medium:
    """One limit on the rate of reading, and the processes under it.

    :param bytes_per_second: the rate.
    :param cgroup: directory of the control group.
    """

    bytes_per_second: int
    cgroup: Path

    def run(self, words: Sequence[object]) -> str:
        """Run a command under the limit and return what it printed.

        :raises Failed: the command failed.
        """
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, check=False, preexec_fn=self._enter
        )
        if done.returncode != 0:
            raise Failed(f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def timed(self, path: Path, work: Callable[[], object]) -> float:
        """Return the seconds of ``work``, which reads a file of which nothing is in the page cache."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    def _enter(self) -> None:
        (self.cgroup / "cgroup.procs").write_text(str(os.getpid()))


@contextmanager
def medium(directory: Path, bytes_per_second: int) -> Iterator[Medium]:
    """Limit reads from the disk of a directory.

    :raises Unavailable: no controller for it, or no disk that it knows below the directory.
    """
    device = os.stat(directory).st_dev
    disk = f"{os.major(device)}:{os.minor(device)}"
    cgroup, setting, value = _controller(disk, bytes_per_second)
    try:
        cgroup.mkdir()
        try:
            (cgroup / setting).write_text(value)
            yield Medium(bytes_per_second, cgroup)
        finally:
            with suppress(OSError):
                cgroup.rmdir()
    except OSError as problem:
        raise Unavailable(f"{cgroup / setting}: {problem}") from problem


def _controller(disk: str, bytes_per_second: int) -> tuple[Path, str, str]:
    name = f"appliance-bench-{os.getpid()}"
    if (_CGROUPS / "blkio" / "blkio.throttle.read_bps_device").exists():
        return _CGROUPS / "blkio" / name, "blkio.throttle.read_bps_device", f"{disk} {bytes_per_second}"
    controllers = _CGROUPS / "cgroup.controllers"
    if controllers.exists() and "io" in controllers.read_text().split():
        with suppress(OSError):
            (_CGROUPS / "cgroup.subtree_control").write_text("+io")
        return _CGROUPS / name, "io.max", f"{disk} rbps={bytes_per_second}"
    raise Unavailable(f"no controller of disks in {_CGROUPS}")
