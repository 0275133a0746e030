"""Files of a medium that are not read, each with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from appliance.words import one_line

MOST = 1000
"""Files that a plan lists; how many there are beyond is counted."""
MOST_LOGGED = 100
"""Files that one line of the audit log lists."""


class Reason(Enum):
    """Reasons why a file or folder is not read."""

    LINK = "symbolic link; links are not followed: name the file that it points to"
    SPECIAL = "neither a file nor a folder"
    DEEP = "folder too far down, not searched: name it as a source"
    CROWDED = "folder not searched, too many files come before it: name it as a source"
    HIDDEN = "hidden; rename it, or name it as a source, to have it read"
    EMPTY = "empty file"
    UNREADABLE = "cannot be read"
    CONTAINER = "zip container, apparently without image archives; if it holds one, unpack it and bring that"
    OLD_COPY = "backup copy by its name; rename it, or name it as a source, to have it read"
    CHECKSUM = "checksum or signature of nothing that is read beside it"
    NO_IMAGES = "begins like an archive and holds no images"
    OTHER = "not an image archive, by its name and its first bytes"


@dataclass(frozen=True)
class LeftOut:
    """One file or folder that is not read.

    :param path: its path, control characters escaped.
    :param reason: why.
    :param size: bytes; 0 for what is no regular file.
    :param detail: what more is known.
    """

    path: str
    reason: Reason
    size: int = 0
    detail: str = ""

    @classmethod
    def at(cls, path: Path, reason: Reason, size: int = 0, detail: str = "") -> LeftOut:
        """Return the same for a path as the file system has it."""
        return cls(one_line(str(path)), reason, size, one_line(detail))

    @property
    def why(self) -> str:
        """The reason, with what more is known."""
        return f"{self.reason.value} ({self.detail})" if self.detail else self.reason.value

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain JSON."""
        kind = self.reason.name.lower().replace("_", "-")
        return {"path": self.path, "kind": kind, "reason": self.why, "size": self.size}


@dataclass
class LeftOutList:
    """Files that are not read: the first :data:`MOST`, and how many there are beyond.

    :param passed_over: how many checksum files, signatures and leftovers of systems there are.
    """

    items: list[LeftOut] = field(default_factory=list)
    more: int = 0
    passed_over: int = 0

    def add(self, items: Sequence[LeftOut], passed_over: int) -> None:
        """Add the files of one source."""
        room = MOST - len(self.items)
        self.items += items[:room]
        self.more += max(0, len(items) - room)
        self.passed_over += passed_over

    def as_dict(self, most: int = MOST) -> dict[str, Any]:
        """Return the same as plain JSON, as a plan and the audit log have it.

        :param most: how many files are listed; ``left_out_more`` counts those beyond.
        """
        return {
            "left_out": [item.as_dict() for item in self.items[:most]],
            "left_out_more": self.more + max(0, len(self.items) - most),
            "passed_over": self.passed_over,
        }


def as_lines(shown: Mapping[str, Any], first: int = 5) -> Iterator[str]:
    """Give lines for people of what :meth:`LeftOutList.as_dict` returned; of many files for one reason the first few by name."""
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for item in shown["left_out"]:
        by_kind.setdefault(item["kind"], []).append(item)
    for items in by_kind.values():
        for item in items[:first]:
            yield f"left out: {item['path']} ({item['size']} bytes): {item['reason']}"
        if len(items) > first:
            yield f"left out: {len(items) - first} more like the last one"
    if shown["left_out_more"]:
        yield f"left out: {shown['left_out_more']} more, which are not listed"
    if shown["passed_over"]:
        yield f"passed over: checksums, signatures and leftovers of operating systems ({shown['passed_over']})"
