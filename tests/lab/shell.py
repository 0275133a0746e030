"""A person at a shell: types a line, answers what is asked, and reads what comes."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.lab.base import LabError
from tests.terminal import give_size, reads_keys

ANSIBLE_ASKS = r"\[y/n\]: "
"""Pattern of the question that a playbook asks."""
_MARK = re.compile(r"@@ended (\d+)@@")


class Shell:
    """A login shell on a terminal of 120 by 40.

    :param words: what comes before the shell on the command line: namespaces, above all.
    :param binds: directory to what is mounted over it, for this shell alone. ``/root`` among them makes a fresh home.
    :param cwd: the directory that it starts in, as the shell sees it.
    :param env: all that its environment has, beside a home and a path.
    """

    def __init__(
        self, words: Sequence[str], binds: Mapping[str, Path], cwd: str, env: Mapping[str, str] | None = None
    ) -> None:
        mounts = "".join(f"mount --bind '{source}' '{target}'\n" for target, source in binds.items())
        # Of a session of its own, whose end takes with it what it started.
        shell = "exec setsid --ctty bash --noprofile --norc --noediting -i"
        master, slave = pty.openpty()
        give_size(slave)
        mode = termios.tcgetattr(slave)
        mode[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, mode)
        self._process = subprocess.Popen(
            [*words, "unshare", "--mount", "--propagation", "private", "sh", "-euc", f"{mounts}cd '{cwd}'\n{shell}"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={
                "HOME": "/root",
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG": "C.UTF-8",
                "TERM": "xterm",
                "PS1": "",
                "VIRTUAL_ENV_DISABLE_PROMPT": "1",
                **(env or {}),
            },
        )
        os.close(slave)
        self._master = master
        self.typed: list[str] = []

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        os.close(self._master)
        self._process.wait(30)

    def type(
        self, line: str, answers: Mapping[str, str] | None = None, *, expect: int | None = 0, seconds: float = 300
    ) -> str:
        """Type a line, and return all that came on the screen until it ended.

        :param answers: pattern of a question to what is typed when it comes, each once, in this order.
        :param expect: what it is to end with; None: whatever.
        :raises LabError: where it ended otherwise, or did not end in time, with what was seen.
        """
        self.typed.append(line)
        # One compound command: the shell has read all of it before it starts, and leaves the terminal to what it starts.
        os.write(self._master, f"{{ {line}\n}}; printf '\\n@@ended %s@@\\n' $?\n".encode())
        seen, start, end = "", 0, time.monotonic() + seconds
        asked = list((answers or {}).items())
        while (ended := _MARK.search(seen)) is None:
            if time.monotonic() > end:
                raise LabError(f"no end after {seconds} s: {line}\n{seen[-8000:]}")
            if not select.select([self._master], [], [], 1.0)[0]:
                continue
            try:
                seen += os.read(self._master, 65536).decode(errors="replace").replace("\r\n", "\n")
            except OSError as error:
                raise LabError(f"the shell ended: {line}\n{seen[-8000:]}") from error
            if asked and (question := re.search(asked[0][0], seen[start:])):
                while asked[0][0] == ANSIBLE_ASKS and not reads_keys(self._process.pid) and time.monotonic() < end:
                    time.sleep(0.05)
                start += question.end()
                os.write(self._master, f"{asked.pop(0)[1]}\r".encode())
        said = seen[: ended.start()]
        if expect is not None and int(ended[1]) != expect:
            raise LabError(f"exit {ended[1]}: {line}\n{said[-12000:]}")
        if asked:
            raise LabError(f"nobody asked {asked[0][0]!r}: {line}\n{said[-8000:]}")
        return said
