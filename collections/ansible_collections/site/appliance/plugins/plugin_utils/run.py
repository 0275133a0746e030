# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Facts that the processes of one run of ``ansible-playbook`` share.

Ansible runs each task of each host in a process of its own and connects none of them to the terminal. The callback
``site.appliance.screen`` makes this before the first of them starts and names it in the environment, which they inherit.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

VARIABLE = "SITE_APPLIANCE_RUN"
_ENDED = "ended-"
_SHOWN = "shown-"


class Run:
    """A directory that the processes of one run share.

    :param directory: the directory; only its owner may look into it.
    :param columns: width of the terminal that shows the run; 0 where it goes to a file or a pipe.
    """

    def __init__(self, directory: Path, columns: int) -> None:
        self.directory = directory
        self.columns = columns

    @classmethod
    def begin(cls, columns: int) -> Run:
        """Make the directory and name it to every process that is started from now on."""
        run = cls(Path(tempfile.mkdtemp(prefix="appliance-run-")), columns)
        os.environ[VARIABLE] = json.dumps({"directory": str(run.directory), "columns": columns})
        return run

    @classmethod
    def current(cls) -> Run | None:
        """Return the run that this process belongs to; None where another callback shows it."""
        try:
            named = json.loads(os.environ.get(VARIABLE, ""))
            return cls(Path(named["directory"]), int(named["columns"]))
        except (ValueError, KeyError, TypeError):
            return None

    def end(self) -> None:
        """Remove the directory."""
        os.environ.pop(VARIABLE, None)
        for path in self.directory.glob("*"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.directory.rmdir()

    def note_end(self, host: str, facts: dict[str, Any]) -> None:
        """Note the state of a host whose job did not come to its end, for the sentence at the end of the run."""
        self._write(_ENDED + _plain(host), {"host": host, **facts})

    def ends(self) -> list[dict[str, Any]]:
        """Return the notes of :meth:`note_end`."""
        return self._read(_ENDED)

    def show(self, host: str, left: float, text: str) -> None:
        """Leave a host's newest line of progress.

        :param left: what is left to do; the host with the most is shown first.
        """
        self._write(_SHOWN + _plain(host), {"left": left, "text": text})

    def hide(self, host: str) -> None:
        """Take back a host's line of progress."""
        (self.directory / (_SHOWN + _plain(host))).unlink(missing_ok=True)

    def shown(self) -> list[str]:
        """Return the newest line of each host, the slowest host first."""
        return [str(line["text"]) for line in sorted(self._read(_SHOWN), key=lambda line: -float(line["left"]))]

    def speaker(self) -> IO[bytes] | None:
        """Return a lock that one process at a time holds, the one that prints for all hosts; None where another has it."""
        handle = (self.directory / "speaker").open("ab")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            return None
        return handle

    def _write(self, name: str, content: dict[str, Any]) -> None:
        # A run that is over has no directory any more, and nobody who reads.
        with contextlib.suppress(OSError):
            temporary = self.directory / f".{name}"
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.rename(self.directory / name)

    def _read(self, prefix: str) -> list[dict[str, Any]]:
        return list(self._each(prefix))

    def _each(self, prefix: str) -> Iterator[dict[str, Any]]:
        for path in sorted(self.directory.glob(f"{prefix}*")):
            with contextlib.suppress(OSError, ValueError):
                yield json.loads(path.read_text(encoding="utf-8"))


def _plain(host: str) -> str:
    """Return a host's name as a part of a file name."""
    return "".join(character if character.isalnum() or character in "-._" else "_" for character in host)
