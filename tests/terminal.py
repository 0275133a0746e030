"""A program at a terminal of 120 by 40, as an operator runs one."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROWS, COLUMNS = 40, 120


def give_size(handle: int) -> None:
    """Make a terminal 120 by 40."""
    fcntl.ioctl(handle, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))


def reads_keys(pid: int) -> bool:
    """Return whether Ansible waits for a key: it throws away what was typed before, then reads without blocking.

    :param pid: a process with the same terminal as its standard input; they share the flag.
    """
    flags = Path(f"/proc/{pid}/fdinfo/0").read_text().partition("flags:")[2].split()[0]
    return bool(int(flags, 8) & os.O_NONBLOCK)


@dataclass
class Terminal:
    """The running program, and all that it has shown.

    :param pid: its process.
    :param handle: the operator's side of the terminal.
    """

    pid: int
    handle: int
    shown: str = ""

    @classmethod
    def run(cls, words: Sequence[str], directory: Path, environment: Mapping[str, str]) -> Terminal:
        """Start a program; its first word is a path."""
        pid, handle = pty.fork()
        if pid == 0:
            os.chdir(directory)
            os.execve(words[0], list(words), {**environment, "TERM": "xterm"})
        give_size(handle)
        return cls(pid, handle)

    def read(self, until: Callable[[str], bool]) -> str:
        """Read until what was shown is as it should be, or the program ends; return all that was shown."""
        while not until(self.shown) and self._read_more():
            pass
        return self.shown

    def _read_more(self) -> bool:
        ready, _, _ = select.select([self.handle], [], [], 0.2)
        if not ready:
            return True
        try:
            raw = os.read(self.handle, 65536)
        except OSError:
            return False
        self.shown += raw.decode(errors="replace")
        return bool(raw)

    def type(self, keys: str) -> None:
        """Press keys; ``\\x03`` is Ctrl-C."""
        os.write(self.handle, keys.encode())

    def reads_keys(self) -> bool:
        """Return whether Ansible waits for a key."""
        return reads_keys(self.pid)

    def end(self) -> int:
        """Read to the end and return how the program ended."""
        self.read(lambda _: False)
        os.close(self.handle)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
