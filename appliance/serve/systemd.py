"""What a unit tells systemd, and what systemd kept for it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence

_FIRST_DESCRIPTOR = 3
"""Of those that systemd hands over (sd_listen_fds(3))."""
_NAME = "listener"


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


def keep_listener(descriptor: int) -> None:
    """Have systemd hold a listening socket while the service restarts: whoever connects meanwhile waits for the next
    process, and is not refused.
    """
    notify(f"FDSTORE=1\nFDNAME={_NAME}", [descriptor])


def drop_listener() -> None:
    """Have systemd close it: a service that cannot start is to be down, and not to let its clients wait."""
    notify(f"FDSTOREREMOVE=1\nFDNAME={_NAME}")


def kept_listener(host: str, port: int) -> int | None:
    """The listening socket that was kept for this address, or that a socket unit made; None where there is none.

    One of another address, from before the configuration changed, is closed.
    """
    given, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "0")
    os.environ.pop("LISTEN_FDNAMES", None)
    if given != str(os.getpid()) or not count.isdecimal():
        return None
    found: int | None = None
    for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count)):
        if found is None and _address(descriptor) == (host, port):
            os.set_inheritable(descriptor, False)
            found = descriptor
            continue
        os.close(descriptor)
    if found is None and count != "0":
        drop_listener()
    return found


def _address(descriptor: int) -> tuple[str, int] | None:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return None
            name = sock.getsockname()
    except OSError:
        return None
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
