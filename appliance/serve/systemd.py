"""What a unit tells systemd."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Tell systemd something (sd_notify(3)); nothing happens where systemd did not start this process."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect(address)
        channel.sendall(state.encode())
