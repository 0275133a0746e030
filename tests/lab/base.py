"""What every part of the lab shares: where things lie, how a program is run, how a process is recognised."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# Program on the controller -> Debian package that brings it.
TOOLS: Mapping[str, str] = {
    "blkid": "util-linux",
    "ip": "iproute2",
    "losetup": "mount",
    "mkfs.exfat": "exfatprogs",
    "mkfs.ext4": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "mount.exfat-fuse": "exfat-fuse",
    "nft": "nftables",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "skopeo": "skopeo",
    "ssh": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
    "zstd": "zstd",
}


class LabError(RuntimeError):
    """The lab could not do what it was asked; the message says what and where to look."""


def cache_dir() -> Path:
    """Where built roots and images are kept between runs (environment: ``LAB_CACHE``)."""
    return Path(os.environ.get("LAB_CACHE", "/var/cache/k3s-airgap-appliance/lab"))


def state_dir(site_id: str) -> Path:
    """Where one site keeps its hosts' disks, keys and logs.

    :param site_id: name of the site. ``LAB_STATE``, when set, is the parent of all sites instead of /var/tmp.
    """
    return Path(os.environ.get("LAB_STATE", "/var/tmp")) / f"k3s-airgap-lab-{site_id}"


def check_controller() -> None:
    """Say at once everything this machine lacks for a lab.

    :raises LabError: not root, or programs missing; names the Debian packages.
    """
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces and mounts: run it as root")
    missing = sorted(
        {package for tool, package in TOOLS.items() if shutil.which(tool, path=_search_path(os.environ)) is None}
    )
    if missing:
        raise LabError(f"missing on this machine: apt-get install {' '.join(missing)}")


def _search_path(env: Mapping[str, str]) -> str:
    return env.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


def run(
    argv: Sequence[str | Path],
    *,
    check: bool = True,
    timeout: float | None = 300,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, output captured as text.

    :param timeout: seconds until it is killed.
    :raises LabError: with the program's own words, when ``check`` and it failed; or when it ran out of time.
    """
    words = [str(word) for word in argv]
    environment = os.environ if env is None else env
    try:
        done = subprocess.run(
            words,
            check=False,
            text=True,
            errors="replace",
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            env={**environment, "PATH": _search_path(environment)},
            cwd=cwd,
        )
    except subprocess.TimeoutExpired as slow:
        # Whatever it had said by then comes as bytes, though text was asked for.
        said = " ".join(repr(part) for part in (slow.stdout, slow.stderr) if part)
        raise LabError(f"no end after {timeout} s: {' '.join(words)}\n{said}") from slow
    if check and done.returncode != 0:
        said = (done.stdout[-4000:] + done.stderr[-4000:]).strip()
        raise LabError(f"exit {done.returncode}: {' '.join(words)}\n{said}")
    return done


def wait_for(what: str, ready: Callable[[], bool], timeout: float, interval: float = 0.05) -> None:
    """Poll until ``ready`` says so.

    :param timeout: seconds.
    :raises LabError: naming ``what``, when time is up.
    """
    end = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > end:
            raise LabError(f"waited {timeout} s in vain for {what}")
        # Between two looks at a host, which has no way to call back.
        time.sleep(interval)


def children_of(pid: int) -> list[int]:
    """Ids of a process's children, whichever namespace they are in; none when it is gone."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split()]
        except OSError:
            continue
    return found


@dataclass(frozen=True)
class Process:
    """A process that is recognised again later: ids are reused, ids with their start time are not.

    :param pid: its id in the controller's process namespace.
    :param started: clock ticks after boot, field 22 of ``/proc/PID/stat`` (proc(5)).
    """

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this id now.

        :raises LabError: when there is none.
        """
        fields = _stat(pid)
        if fields is None:
            raise LabError(f"process {pid} is gone")
        return cls(pid, int(fields[19]))

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] not in ("Z", "X")

    def parent(self) -> int:
        """Id of its parent.

        :raises LabError: when it is gone.
        """
        fields = _stat(self.pid)
        if fields is None:
            raise LabError(f"process {self.pid} is gone")
        return int(fields[1])

    def children(self) -> list[int]:
        """Ids of its children, whichever namespace they are in."""
        return children_of(self.pid)

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when the process is gone already."""
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


def _stat(pid: int) -> list[str] | None:
    """The fields of ``/proc/PID/stat`` after the name, which may itself hold spaces and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
