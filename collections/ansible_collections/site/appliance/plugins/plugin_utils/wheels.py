# SPDX-License-Identifier: Apache-2.0
"""Wheels of a wheelhouse against what a host's Python takes, by file names and hashes. Runs on the controller."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging import tags, utils

OWN = "k3s-airgap-appliance"
_LINE = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?P<hashes>(?: --hash=sha256:[0-9a-f]+)+)$", re.MULTILINE
)
_NEWEST_GLIBC = (2, 28)
"""Version of glibc for a host that does not say its own: that of EL 8 and Debian 10."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of host: Python version, machine name and version of glibc."""

    python: tuple[int, int]
    machine: str
    glibc: tuple[int, int] = _NEWEST_GLIBC

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Target:
        """Make one from what a host says: ``version`` (a list), ``machine`` and ``glibc`` (a list, or empty)."""
        major, minor = (int(part) for part in found["version"][:2])
        glibc = [int(part) for part in found.get("glibc") or _NEWEST_GLIBC]
        return cls((major, minor), str(found["machine"]), (glibc[0], glibc[1]))

    def __str__(self) -> str:
        return f"Python {self.python[0]}.{self.python[1]} on {self.machine}"

    def supported(self) -> set[tags.Tag]:
        """Return the tags that such a host installs."""
        levels = [f"manylinux_2_{minor}_{self.machine}" for minor in range(self.glibc[1], 4, -1)]
        older = [
            f"manylinux{name}_{self.machine}"
            for name, minor in (("2014", 17), ("2010", 12), ("1", 5))
            if minor <= self.glibc[1]
        ]
        platforms = [*levels, *older, f"linux_{self.machine}"]
        interpreter = f"cp{self.python[0]}{self.python[1]}"
        return {
            *tags.cpython_tags(self.python, platforms=platforms),
            *tags.compatible_tags(self.python, interpreter, platforms),
        }


def fitting(names: Iterable[str], target: Target) -> list[str]:
    """Return the names of the wheels that a host takes."""
    supported = target.supported()
    return [name for name in names if not supported.isdisjoint(_wheel_tags(name))]


def missing(requirements: Mapping[str, str], names: Iterable[str], target: Target) -> list[str]:
    """Return the required packages that have no wheel for a host.

    :param requirements: name to version, as :func:`required` gives them.
    :param names: file names of the wheels.
    """
    present = {(str(wheel[0]), str(wheel[1])) for wheel in map(_parsed, fitting(names, target)) if wheel}
    return [name for name, version in requirements.items() if (name, _plain_version(version)) not in present]


def build_command(targets: Iterable[Target]) -> str:
    """Return the command that builds a wheelhouse for these hosts."""
    found = sorted(set(targets), key=lambda target: (target.machine, target.python))
    pythons = sorted({target.python for target in found})
    options = [f"--python {major}.{minor}" for major, minor in pythons]
    options += [f"--arch {machine}" for machine in sorted({target.machine for target in found})]
    return " ".join(["python3 -m appliance.release.wheelhouse build/wheelhouse", *options])


def required(text: str) -> dict[str, str]:
    """Return name to version of the lines of a requirements file with hashes."""
    return {str(utils.canonicalize_name(line["name"])): line["version"] for line in _LINE.finditer(text)}


def damaged(wheelhouse: Path, text: str) -> list[str]:
    """Return the names of the wheels whose content no hash of the requirements file stands for. pip has no line there."""
    listed = set(re.findall(r"--hash=sha256:([0-9a-f]+)", text))
    wheels = sorted((wheelhouse / "wheelhouse").glob("*.whl"))
    return [wheel.name for wheel in wheels if not wheel.name.startswith("pip-") and _sha256(wheel) not in listed]


def _parsed(name: str) -> tuple[Any, ...] | None:
    try:
        return utils.parse_wheel_filename(name)
    except (utils.InvalidWheelFilename, ValueError):
        return None


def _wheel_tags(name: str) -> frozenset[tags.Tag]:
    wheel = _parsed(name)
    return wheel[3] if wheel else frozenset()


def _plain_version(version: str) -> str:
    return str(utils.canonicalize_version(version, strip_trailing_zero=False))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
