"""A control group for each host, in every hierarchy of this machine: version 1, version 2 or both."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from tests.lab.base import LabError


def hierarchies() -> list[Path]:
    """Mount points of all cgroup hierarchies, as ``/proc/self/mountinfo`` lists them (proc(5))."""
    found: list[Path] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] in ("cgroup", "cgroup2"):
            found.append(Path(before.split()[4]))
    return found


def make(name: str) -> list[Path]:
    """Make the group in every hierarchy and give it what its parent has.

    :returns: the directories; whoever joins them all is accounted, and isolated by a cgroup namespace, everywhere.
    """
    groups: list[Path] = []
    for top in hierarchies():
        group = top / name
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            # Version 1 starts a cpuset empty, and nobody can join an empty one.
            if (group / "cgroup.clone_children").exists() and (group / setting).exists():
                (group / setting).write_text((top / setting).read_text())
        if (top / "cgroup.controllers").exists():
            for controller in (top / "cgroup.controllers").read_text().split():
                with contextlib.suppress(OSError):
                    (top / "cgroup.subtree_control").write_text(f"+{controller}")
        groups.append(group)
    return groups


def any_with(prefix: str) -> bool:
    """Whether some hierarchy has a group whose name begins so."""
    return any(next(top.glob(f"{prefix}*"), None) for top in hierarchies())


def remove(name: str, timeout: float = 20) -> None:
    """Remove the group and everything beneath it from every hierarchy.

    :param timeout: seconds the kernel may take to let go of processes that have ended.
    :raises LabError: when something still lives in one of them.
    """
    end = time.monotonic() + timeout
    for top in hierarchies():
        while (top / name).exists():
            _remove_tree(top / name)
            if not (top / name).exists():
                break
            if time.monotonic() > end:
                raise LabError(f"{top / name} cannot be removed: processes are left in it")
            # cgroup v1 has no notification of a group that is empty.
            time.sleep(0.05)


def _remove_tree(group: Path) -> None:
    """Deepest first; only directories can be removed, the files in them go along."""
    with contextlib.suppress(OSError):
        for child in group.iterdir():
            if child.is_dir() and not child.is_symlink():
                _remove_tree(child)
    with contextlib.suppress(OSError):
        group.rmdir()
