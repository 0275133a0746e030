"""Lease of a run: proof that the controller that started a command on this node is still there.

Ansible leaves a command running on the node when the operator presses Ctrl-C, when the connection breaks or when the
laptop is closed. So the controller touches a file once a second, and the command watches that file: when the file stays
the same for :data:`SECONDS`, or is removed, the command stops. A clock that is set back or forward changes nothing: the
file is only compared with itself, and the time between two changes is taken from the monotonic clock.

Decision 65.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from appliance.errors import ApplianceError, fail

VARIABLE = "APPLIANCE_LEASE"
"""Environment variable with the path of the file; without it a command has no lease and runs to its end."""
SECONDS = 4.0
"""Seconds without a sign of life after which the command stops. The controller gives one each second."""
EXIT_CODE = 75
"""Exit code of a command that stopped for this reason: EX_TEMPFAIL of sysexits.h, "try again"."""
_POLL_SECONDS = 0.2


class Lease:
    """The file that the controller touches while it waits for a command.

    :param path: the file. It is opened at once: a process that gives up its rights afterwards can still watch it.
    :param clock: monotonic time in seconds.
    :param sleep: waits for a number of seconds.
    :raises ApplianceError: APL-0345 when the file is not there.
    :raises OSError: when this process may not open it.
    """

    def __init__(
        self,
        path: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            refuse()
        self._clock = clock
        self._sleep = sleep
        self._state = self._look()
        self._changed = clock()

    @classmethod
    def of_this_process(cls) -> Lease | None:
        """Return the lease that the environment names; None for a command that nobody watches over."""
        path = os.environ.get(VARIABLE)
        return cls(path) if path else None

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def is_over(self) -> bool:
        """Return whether the controller gave no sign of life for :data:`SECONDS`, or removed the file."""
        state, now = self._look(), self._clock()
        if state != self._state:
            self._state, self._changed = state, now
        return state is None or now - self._changed >= SECONDS

    def await_sign(self) -> None:
        """Wait for the next sign of life, so that what follows happens while the controller is there.

        :raises ApplianceError: APL-0345 when none comes within :data:`SECONDS`.
        """
        before, began = self._look(), self._clock()
        while before is not None and self._look() == before:
            if self._clock() - began >= SECONDS:
                refuse()
            self._sleep(_POLL_SECONDS)
        if self._look() is None:
            refuse()

    @contextlib.contextmanager
    def watched(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call ``stop`` from a thread, once, when the lease is over before the block ends."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_POLL_SECONDS):
                if self.is_over():
                    stop()
                    return

        thread = threading.Thread(target=watch, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _look(self) -> tuple[int, int] | None:
        """Return what every touch changes; None once the file is removed."""
        file = os.fstat(self._handle)
        return (file.st_mtime_ns, file.st_size) if file.st_nlink else None


@contextlib.contextmanager
def under_lease() -> Iterator[Lease | None]:
    """End this process at once when its controller is gone; give its lease, None for a process that nobody watches over.

    For work that may be ended at any moment, as a power loss would end it.
    """
    try:
        lease = Lease.of_this_process()
    except ApplianceError:
        _leave()
    with lease.watched(_leave) if lease is not None else contextlib.nullcontext():
        yield lease


def _leave() -> NoReturn:
    """End this process, and with it a child that reads: nobody waits for them any more."""
    try:
        refuse()
    except ApplianceError as error:
        with contextlib.suppress(OSError):
            os.write(2, f"{error}\n".encode())
    os._exit(EXIT_CODE)


def refuse() -> NoReturn:
    """Raise APL-0345."""
    fail(
        "APL-0345",
        "stopped because the run that started this command is gone",
        why=f"the controller gave no sign of life for {SECONDS:g} s: the run was stopped, or the connection broke",
        fix="The site serves what it served before, and the verified blobs are kept. Run the playbook again",
    )
