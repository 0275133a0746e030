"""Squatters: processes that try all the time to take the mirror's port, on a host of the lab."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.host import Host
from tests.lab.story import until

_DIRECTORY = "/var/lib/lab-squatter"
# Every address and option by which a listener can come beside or before another one.
_TRY = """
import socket, sys, time

PLACES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]
OPTIONS = [None, socket.SO_REUSEADDR, socket.SO_REUSEPORT]
held, rounds = [], 0
with open(sys.argv[1], "a", buffering=1) as log:
    while True:
        for family, address in PLACES:
            for option in OPTIONS:
                attempt = socket.socket(family, socket.SOCK_STREAM)
                if option is not None:
                    attempt.setsockopt(socket.SOL_SOCKET, option, 1)
                try:
                    attempt.bind((address, 5000))
                    attempt.listen()
                except OSError:
                    attempt.close()
                    continue
                held.append(attempt)
                print("took", address, option, file=log)
        if rounds % 100 == 0:
            print("tried", file=log)
        rounds += 1
        time.sleep(0.001)  # the host's other processes need the processor too
"""
# Before any unit of users and containers can start: those come after basic.target. The first is any user; the second is what a
# container with hostNetwork is, root with namespaces of its own for all but the network.
_UNIT = """\
[Unit]
DefaultDependencies=no
Requires=local-fs.target
After=local-fs.target sockets.target
Before=basic.target

[Service]
{who}
# The first process of a namespace takes no other signal.
KillSignal=SIGKILL
ExecStart={through}/usr/bin/python3 {directory}/try.py {directory}/{name}.log

[Install]
WantedBy=basic.target
"""
_WHO = {
    "user": ("User=nobody", ""),
    "container": (
        "Slice=kubepods.slice",
        "/usr/bin/unshare --mount --uts --ipc --pid --fork --kill-child ",
    ),
}
UNITS = tuple(f"lab-squatter-{name}" for name in _WHO)


@contextmanager
def squatters(host: Host) -> Iterator[None]:
    """Both of them on a host, also after it boots, for as long as the block runs."""
    host.write(f"{_DIRECTORY}/try.py", _TRY)
    host.run(f"touch {_DIRECTORY}/user.log && chown nobody {_DIRECTORY}/user.log")
    for name, (who, through) in _WHO.items():
        unit = _UNIT.format(who=who, through=through, directory=_DIRECTORY, name=name)
        host.write(f"/etc/systemd/system/lab-squatter-{name}.service", unit)
    host.run(f"systemctl daemon-reload && systemctl enable -q --now {' '.join(UNITS)}")
    try:
        yield
    finally:
        if host.is_up():
            host.run(
                f"systemctl disable -q --now {' '.join(UNITS)}; rm -r {_DIRECTORY} /etc/systemd/system/lab-squatter-*; "
                "systemctl daemon-reload"
            )


def took(host: Host) -> list[str]:
    """Return the sockets that the squatters got so far.

    :raises StoryError: where one of them does not try.
    """
    logs = f"{_DIRECTORY}/*.log"
    before = _tries(host, logs)
    until(lambda: all(after > tried for after, tried in zip(_tries(host, logs), before, strict=True)), "a try of each")
    return host.run(f"grep -h took {logs}", check=False).stdout.splitlines()


def _tries(host: Host, logs: str) -> list[int]:
    return [int(line) for line in host.run(f"grep -ch tried {logs}", check=False).stdout.split()]
