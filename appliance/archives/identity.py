"""Identity of the medium of a source: its ``medium.yaml``, the file system that it lies on, and the archives in it.

Only what the kernel and udev say is asked, ``/proc/self/mountinfo`` (proc(5)) and ``/dev/disk``: nothing is read from the
device, and nothing is written. A source on the root file system has no file system of its own to be named by.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.archives.label import Label
from appliance.archives.medium import Medium
from appliance.errors import ApplianceError
from appliance.media import MediumIdentity
from appliance.words import one_line

MOUNTS = Path("/proc/self/mountinfo")
DISKS = Path("/dev/disk")
_NAMED = 3
_LONGEST = 80
_OCTAL = re.compile(r"\\([0-7]{3})")
_HEX = re.compile(r"\\x([0-9a-fA-F]{2})")


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo.

    :param device: ``major:minor`` of the file system.
    :param point: where it is mounted.
    :param source: what is mounted, a device where there is one.
    """

    device: str
    point: str
    source: str


def identify(
    source: str,
    medium: Medium,
    archives: Sequence[Path],
    label: Label | None,
    *,
    mounts: Path = MOUNTS,
    disks: Path = DISKS,
) -> MediumIdentity:
    """Return which medium a source is.

    :param archives: the archives and layouts in it.
    :param label: what it says of itself.
    """
    mount = mount_of(os.path.realpath(source), parse_mounts(_read(mounts)))
    rooted = mount is None or mount.point == "/"
    return MediumIdentity(
        site=label.site if label else "",
        id=label.id if label else "",
        created=label.created if label else "",
        note=label.note if label else "",
        label="" if rooted else _named(disks / "by-label", mount),
        uuid="" if rooted else _named(disks / "by-uuid", mount),
        contents=_contents(medium, archives),
    )


def parse_mounts(text: str) -> list[Mount]:
    """Read mountinfo; lines of another form are passed over."""
    found = []
    for line in text.splitlines():
        fields, separator, rest = line.partition(" - ")
        words, more = fields.split(" "), rest.split(" ")
        if separator and len(words) >= 5 and len(more) >= 2:
            found.append(Mount(words[2], _unescaped(words[4]), _unescaped(more[1])))
    return found


def mount_of(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """Return the mount that a path lies on: the longest mount point above it, of several there the last."""
    above = [mount for mount in mounts if path == mount.point or path.startswith(mount.point.rstrip("/") + "/")]
    return max(enumerate(above), key=lambda item: (len(item[1].point), item[0]))[1] if above else None


def _named(directory: Path, mount: Mount | None) -> str:
    """Return the name by which a directory of ``/dev/disk`` has the device of a mount; empty where it has none."""
    wanted = set(_numbers(mount)) if mount else set()
    with contextlib.suppress(OSError):
        for link in sorted(directory.iterdir()):
            with contextlib.suppress(OSError):
                number = link.stat().st_rdev
                if f"{os.major(number)}:{os.minor(number)}" in wanted:
                    return one_line(_HEX.sub(lambda found: chr(int(found[1], 16)), link.name))[:_LONGEST]
    return ""


def _numbers(mount: Mount) -> Iterator[str]:
    """Yield the numbers that may be the device's: a file system in user space has none of its own, but names its device."""
    yield mount.device
    if mount.source.startswith("/dev/"):
        with contextlib.suppress(OSError):
            number = os.stat(mount.source).st_rdev
            yield f"{os.major(number)}:{os.minor(number)}"


def _contents(medium: Medium, archives: Sequence[Path]) -> str:
    """Say how many archives there are, the first of them by name, and the day of the newest."""
    if not archives:
        return ""
    names = [one_line(path.name)[:_LONGEST] for path in archives[:_NAMED]]
    more = f" and {len(archives) - _NAMED} more" if len(archives) > _NAMED else ""
    times = [time for path in archives if (time := _modified(path, medium)) is not None]
    newest = f", newest of {_day(max(times))}" if times else ""
    return f"{len(archives)} archive{'' if len(archives) == 1 else 's'}: {', '.join(names)}{more}{newest}"


def _modified(path: Path, medium: Medium) -> float | None:
    with contextlib.suppress(ApplianceError, OSError):
        handle = medium.open_directory(path) if medium.is_directory(path) else medium.open(path)
        try:
            return os.fstat(handle).st_mtime
        finally:
            os.close(handle)
    return None


def _day(seconds: float) -> str:
    with contextlib.suppress(OverflowError, ValueError, OSError):
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).date().isoformat()
    return "no known day"


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return ""
