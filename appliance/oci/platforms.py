"""Platforms: the images that a node can run.

Spelling and defaults follow containerd's ``platforms`` package: ``x86_64`` is ``amd64``, ``arm64`` means
``v8``, ``arm`` means ``v7``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from appliance.errors import fail

_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_DEFAULT_VARIANT = {"amd64": "v1", "arm64": "v8", "arm": "v7"}


@dataclass(frozen=True)
class Platform:
    """Platform that a manifest's code runs on.

    :param os: for instance ``linux``.
    :param architecture: for instance ``amd64``.
    :param variant: for instance ``v7``; empty for the architecture's default.
    :param os_version: Windows only; empty elsewhere.
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    def __str__(self) -> str:
        """``os/architecture`` or ``os/architecture/variant``."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def runnable(self) -> bool:
        """False for the ``unknown/unknown`` of attestations."""
        return self.os not in ("", "unknown") and self.architecture not in ("", "unknown")

    def normalised(self) -> Platform:
        """The same platform in containerd's spelling, the default variant left out."""
        architecture, variant = self.architecture.lower(), self.variant.lower()
        if architecture in _ARCHITECTURES:
            architecture, implied = _ARCHITECTURES[architecture]
            variant = variant or implied
        if variant.isdigit():
            variant = f"v{variant}"
        if _DEFAULT_VARIANT.get(architecture) == variant:
            variant = ""
        return Platform(self.os.lower(), architecture, variant, self.os_version)

    def to_dict(self) -> dict[str, str]:
        """The ``platform`` object of an index entry."""
        result = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            result["os.version"] = self.os_version
        if self.variant:
            result["variant"] = self.variant
        return result

    @classmethod
    def from_dict(cls, value: Any, where: str = "") -> Platform:
        """Read a ``platform`` object, or the same keys of an image config.

        Extra keys are ignored; a missing one is empty.

        :raises ApplianceError: APL-0205.
        """
        if not isinstance(value, dict):
            fail("APL-0205", "platform is not an object", where=where)
        words = []
        for key in ("os", "architecture", "variant", "os.version"):
            word = value.get(key) or ""
            if not isinstance(word, str) or (word and not _WORD.fullmatch(word)):
                fail("APL-0205", f"platform with a bad {key}: {str(word)[:80]!r}", where=where)
            words.append(word)
        return cls(*words)


def parse_platform(text: str) -> Platform:
    """Parse ``os/architecture[/variant]``, or a bare architecture for Linux.

    :raises ApplianceError: APL-0205.
    """
    parts = text.split("/")
    if len(parts) == 1:
        parts = ["linux", *parts]
    if len(parts) > 3 or not all(_WORD.fullmatch(part) for part in parts):
        fail("APL-0205", f"not a platform: {text[:80]!r}", fix="Write it like linux/amd64 or linux/arm/v7")
    return Platform(*parts).normalised()


def matches(platform: Platform, wanted: Platform) -> bool:
    """Return whether code for ``platform`` runs on a node that is ``wanted``.

    Within one architecture a node runs its own variant and the lower ones. 32-bit code on a 64-bit node does
    not count: some arm64 processors cannot run it at all.
    """
    have, want = platform.normalised(), wanted.normalised()
    if (have.os, have.architecture) != (want.os, want.architecture):
        return False
    if have.variant == want.variant:
        return True
    default = _DEFAULT_VARIANT.get(have.architecture, "")
    have_level, want_level = _level(have.variant or default), _level(want.variant or default)
    return have_level is not None and want_level is not None and have_level <= want_level


def _level(variant: str) -> int | None:
    found = re.fullmatch(r"v(\d{1,3})", variant)
    return int(found.group(1)) if found else None
