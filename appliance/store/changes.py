"""What lies between two states of the names: added, moved, completed, removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.store.signed import Entry


@dataclass(frozen=True)
class Changes:
    """The way from one state to another; each by name, in order.

    :param added: names that are new, with their digest.
    :param moved: names that point elsewhere, with the old and the new digest.
    :param completed: names of which platforms are there that were left out before.
    :param removed: names that are gone, with the digest they had.
    """

    added: Mapping[str, str]
    moved: Mapping[str, tuple[str, str]]
    completed: tuple[str, ...]
    removed: Mapping[str, str]

    @classmethod
    def between(cls, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> Changes:
        """Compare two states."""
        added, moved, completed = {}, {}, []
        for name, entry in sorted(after.items()):
            old, digest = before.get(name), entry.descriptor.digest
            if old is None:
                added[name] = digest
            elif old.descriptor.digest != digest:
                moved[name] = (old.descriptor.digest, digest)
            elif not old.absent <= entry.absent:
                completed.append(name)
        removed = {name: entry.descriptor.digest for name, entry in sorted(before.items()) if name not in after}
        return cls(added, moved, tuple(completed), removed)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.added or self.moved or self.completed or self.removed)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON, as the audit log has it."""
        return {
            "added": dict(self.added),
            "moved": {name: list(digests) for name, digests in self.moved.items()},
            "completed": list(self.completed),
            "removed": dict(self.removed),
        }
