"""Listening sockets of this host, as the kernel lists them, to find a process that took an address of the node.

systemd binds 127.0.0.1:5000 for the mirror, and where it does not, any user may. The kernel gives each socket's owner; root can also find
the processes that hold it, and with them the unit. Neither can be forged without root: systemd itself holds the mirror's socket, which root
in a container cannot make it do, and a process of the mirror's user in a container is in another control group.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTENING = "0A"
_ROOT, _SYSTEMD = 0, 1
PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup/system.slice")


@dataclass(frozen=True)
class Listener:
    """One listening TCP socket.

    :param uid: the user who made it.
    :param inode: by which the descriptors of processes name it.
    """

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int
    uid: int
    inode: str


@dataclass(frozen=True)
class Foreign:
    """A listener on the mirror's address that is not the mirror's.

    :param processes: number and name of those that hold it; none where this user may not see them.
    """

    address: str
    uid: int
    processes: tuple[str, ...]

    def words(self) -> str:
        """Say who it is in one clause."""
        by = f", {', '.join(self.processes)}" if self.processes else ""
        return f"{self.address} (user {self.uid}{by})"


def parse(text: str) -> Iterator[Listener]:
    """Read a table of the kernel (``/proc/net/tcp`` or ``tcp6``); lines of other forms are left out."""
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 10 or words[3] != _LISTENING:
            continue
        try:
            host, port = words[1].split(":")
            yield Listener(_address(host), int(port, 16), int(words[7]), words[9])
        except ValueError:
            continue


def foreign(listen: str, owner: int, unit: str, *, proc: Path = PROC, cgroup: Path = CGROUP) -> list[Foreign]:
    """Return the listeners that may answer on an address in place of a unit.

    :param listen: ``host:port`` of the unit.
    :param owner: the user whom the unit runs as.
    :return: of root's listeners only what root sees to be none of systemd's; other users do not see what systemd holds.
    """
    host, _, port = listen.rpartition(":")
    wanted = ipaddress.ip_address(host.strip("[]"))
    tables = [proc / "self/net" / name for name in ("tcp", "tcp6")]
    found = [listener for table in tables if table.exists() for listener in parse(table.read_text("ascii"))]
    listeners = [item for item in found if item.port == int(port) and _covers(item.address, wanted)]
    held = _holders(proc, {item.inode for item in listeners}) if listeners else {}
    # Without that group the unit does not run, or does not run under systemd; the owner has to do then.
    grouped = (cgroup / unit).exists()
    sees_systemd = os.access(proc / str(_SYSTEMD) / "fd", os.R_OK)
    result = []
    for item in listeners:
        pids = held.get(item.inode, [])
        of_systemd = _SYSTEMD in pids or not sees_systemd
        is_owned = item.uid == owner or (item.uid == _ROOT and of_systemd)
        strange = any(not _is_systemd(proc, pid) and not _is_of(proc / str(pid), unit) for pid in pids)
        if not is_owned or (strange and (grouped or item.uid != owner)):
            processes = tuple(f"process {pid} {_name(proc / str(pid))}" for pid in pids)
            result.append(Foreign(f"{item.address}:{item.port}", item.uid, processes))
    return result


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Read an address as the kernel prints it: words of 32 bits, each in the order of the host."""
    words = [text[start : start + 8] for start in range(0, len(text), 8)]
    raw = b"".join(bytes.fromhex(word)[::-1] for word in words)
    address = ipaddress.ip_address(raw)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _covers(
    bound: ipaddress.IPv4Address | ipaddress.IPv6Address, wanted: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> bool:
    """Return whether a socket that is bound there may get what is sent to the wanted address: ``::`` is IPv4 too."""
    if bound.is_unspecified or wanted.is_unspecified:
        return bound.version == wanted.version or (bound if bound.is_unspecified else wanted).version == 6
    return bound == wanted


def _holders(proc: Path, inodes: set[str]) -> dict[str, list[int]]:
    """Return the processes that hold each of the sockets, as far as this user may see them."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, list[int]] = {}
    for process in sorted((path for path in proc.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name)):
        try:
            held = {os.readlink(descriptor) for descriptor in (process / "fd").iterdir()}
        except OSError:
            continue  # another user's, or over by now
        for link in held & links.keys():
            found.setdefault(links[link], []).append(int(process.name))
    return found


def _is_systemd(proc: Path, pid: int) -> bool:
    """Return whether a process is systemd, or a child of it that has not become a service yet and still holds all that it holds."""
    if pid == _SYSTEMD:
        return True
    try:
        return os.readlink(proc / str(pid) / "exe") == os.readlink(proc / str(_SYSTEMD) / "exe")
    except OSError:
        return False


def _is_of(process: Path, unit: str) -> bool:
    """Return whether a process belongs to a unit, by its control group; one that is over does."""
    try:
        lines = (process / "cgroup").read_text("utf-8").splitlines()
    except OSError:
        return True
    # In a container of systemd's own (nspawn) the group may have one above it.
    return any(line.endswith(f"/system.slice/{unit}") for line in lines)


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text("utf-8", "replace").strip()
    except OSError:
        return "(over)"
