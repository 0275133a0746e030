"""Notifications to systemd, and the listening sockets that it hands over.

Decisions 32 and 78.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from appliance.errors import fail

DOWN_SECONDS = 5.0
"""Seconds for which a service that cannot start closes its clients' connections; then systemd starts it again. The watchdog
would end one whose workers fail after it was started."""
_FIRST_DESCRIPTOR = 3
"""Of those that systemd hands over (sd_listen_fds(3))."""
_STORED = "listener"
"""Name of a socket that the service gave systemd to keep; that of a socket unit has the unit's name."""


def notify(state: str, descriptors: Sequence[int] = ()) -> None:
    """Tell systemd something (sd_notify(3)); nothing happens where systemd did not start this process.

    A word that is not taken is only logged: a beat that is missing is what the watchdog is for.

    :param descriptors: sent along, for systemd's store.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(address)
            socket.send_fds(channel, [state.encode()], list(descriptors))
    except OSError as problem:
        logging.getLogger("appliance.serve").error("systemd did not hear %s: %s", state.splitlines()[0], problem)


@dataclass(frozen=True)
class _Given:
    """One descriptor that systemd handed over.

    :param address: host and port; None where it is no listening TCP socket.
    """

    descriptor: int
    name: str
    address: tuple[str, int] | None


class Handed:
    """The listening sockets that systemd handed to this process: from a socket unit, or kept over a restart.

    They leave the environment, so that nothing else takes them.
    """

    def __init__(self) -> None:
        given, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "0")
        names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
        number = int(count) if given == str(os.getpid()) and count.isdecimal() else 0
        self._given = []
        for index, descriptor in enumerate(range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + number)):
            os.set_inheritable(descriptor, False)
            name = names[index] if index < len(names) else ""
            self._given.append(_Given(descriptor, name, _address(descriptor)))

    def listener(self, listen: str, *, required: bool = False) -> int | None:
        """Return the socket that listens on an address; None where there is none.

        The others, such as one of an address from before the configuration changed, are closed.

        :param listen: ``host:port``.
        :param required: whether it has to be a socket unit's.
        :raises ApplianceError: APL-0405 where it is required and not there.
        """
        host, _, port = listen.rpartition(":")
        wanted = (host.strip("[]"), int(port))
        found = [given for given in self._given if given.address == wanted]
        if required:
            found = [given for given in found if given.name != _STORED]
        for given in self._given:
            if given not in found[:1]:
                os.close(given.descriptor)
        if self._given and not found:
            self._drop()
        self._given = found[:1]
        if required and not found:
            fail(
                "APL-0405",
                "systemd gave the mirror no listening socket",
                where=listen,
                fix="See 'systemctl status appliance-mirror.socket'; it is tried again each second",
            )
        if self._of_unit():
            # gunicorn closes the one that it is given; this process needs one until its end.
            return os.dup(found[0].descriptor)
        return found[0].descriptor if found else None

    def keep(self, descriptor: int) -> None:
        """Have systemd hold a listening socket while the service restarts: whoever connects meanwhile waits for the
        next process, and is not refused. A socket unit's is held anyway.
        """
        if not self._of_unit():
            notify(f"FDSTORE=1\nFDNAME={_STORED}", [descriptor])

    @contextlib.contextmanager
    def down_on_failure(self) -> Iterator[None]:
        """Let no client wait for a service that cannot start.

        systemd closes a socket that it only keeps, and who connects is refused. That of a socket unit stays open, so
        that nobody else can take the port; the process closes each connection for a while before it ends.
        """
        parent = os.getpid()
        try:
            yield
        except BaseException as problem:
            is_failure = not isinstance(problem, SystemExit) or bool(problem.code)
            # A worker is no service: its parent starts the next one.
            if is_failure and os.getpid() == parent:
                self._drop()
                for given in self._of_unit()[:1]:
                    # After the error was printed.
                    atexit.register(functools.partial(close_clients, given.descriptor, DOWN_SECONDS))
            raise

    def _of_unit(self) -> list[_Given]:
        return [given for given in self._given if given.name != _STORED and given.address]

    def _drop(self) -> None:
        notify(f"FDSTOREREMOVE=1\nFDNAME={_STORED}")


def close_clients(descriptor: int, seconds: float) -> None:
    """Close each connection as soon as it is there; containerd goes on to its next host then.

    :param descriptor: of the listening socket.
    """
    # gunicorn's own handler only takes a note.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end = time.monotonic() + seconds
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        while (left := end - time.monotonic()) > 0:
            listener.settimeout(left)
            with contextlib.suppress(OSError):
                listener.accept()[0].close()


def _address(descriptor: int) -> tuple[str, int] | None:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return None
            name = sock.getsockname()
    except OSError:
        return None
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
