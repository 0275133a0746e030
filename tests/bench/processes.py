"""Servers as child processes: started, measured from ``/proc``, and stopped whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

_NANO = 1e-9


class Failed(Exception):
    """A server or client did not do what is measured; the text has what it said."""


class Child:
    """A server and all processes that it starts.

    It gets SIGTERM from the kernel when this process dies, even by SIGKILL.

    :param words: its command line.
    :param log: where its output goes.
    """

    def __init__(self, words: Sequence[object], log: Path, env: Mapping[str, str] | None = None) -> None:
        self._log = log
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env=None if env is None else {**os.environ, **env},
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait(20)

    def require_alive(self) -> None:
        """Raise :class:`Failed`, with its last words, when it has ended."""
        if self._popen.poll() is not None:
            raise Failed(f"a server ended with {self._popen.returncode}: {self.log[-2000:]}")

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text(errors="replace")

    def pids(self) -> list[int]:
        """It and its descendants."""
        found, pending = [], [self._popen.pid]
        while pending:
            pid = pending.pop()
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    pending += map(int, children.read_text().split())
                found.append(pid)
        return found

    def cpu_seconds(self) -> float:
        """Seconds on a processor of all its threads, in user and kernel mode, to the nanosecond."""
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    total += int(task.read_text().split()[0])
        return total * _NANO

    def pss(self) -> int:
        """Proportional set size of all its processes, in bytes: what the machine would get back without it."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) << 10
        return total


@contextlib.contextmanager
def peak_pss(child: Child, every: float = 0.05) -> Iterator[list[int]]:
    """The largest :meth:`Child.pss` while the block runs, in bytes, as the one item of a list; costs the server time."""
    peak, done = [child.pss()], threading.Event()

    def look() -> None:
        while not done.wait(every):
            peak[0] = max(peak[0], child.pss())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(child: Child, port: int, connect: Callable[[], socket.socket] | None = None, seconds: float = 30) -> None:
    """Return once something listens on the port.

    :param connect: how to connect there, where a bare connection is not what the server expects.
    """
    if connect is None:

        def connect() -> socket.socket:
            return socket.create_connection(("127.0.0.1", port), timeout=1)

    end = time.monotonic() + seconds
    while True:
        child.require_alive()
        with contextlib.suppress(OSError), connect():
            return
        if time.monotonic() > end:
            raise Failed(f"nothing listens on port {port}: {child.log[-2000:]}")
        # Somebody else's server tells nobody that it listens.
        time.sleep(0.01)
