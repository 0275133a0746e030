"""Difference between two states of the site: names added, moved, completed and removed, and referrers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from appliance.store.index import Entry, Referrer


class State(Protocol):
    """Names, and the referrers of what they reach: a generation, or a plan for one."""

    @property
    def names(self) -> Mapping[str, Entry]:
        """Full reference to what it points to."""
        ...

    @property
    def referrers(self) -> Mapping[str, Referrer]:
        """Referrers by digest."""
        ...


@dataclass(frozen=True)
class Changes:
    """The way from one state to another; each by name, in order.

    :param added: names that are new, with their digest.
    :param moved: names that point elsewhere, with the old and the new digest.
    :param completed: names of which platforms are there that were left out before.
    :param removed: names that are gone, with the digest they had.
    :param referrers_added: digests of signatures and attestations that are new, with the digest that each refers to.
    :param referrers_removed: those that are gone, with the digest that each referred to.
    """

    added: Mapping[str, str]
    moved: Mapping[str, tuple[str, str]]
    completed: tuple[str, ...]
    removed: Mapping[str, str]
    referrers_added: Mapping[str, str] = field(default_factory=dict)
    referrers_removed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, before: State | None, after: State | None) -> Changes:
        """Compare two states; None is one without names."""
        return cls.between(
            before.names if before else {},
            after.names if after else {},
            before.referrers if before else {},
            after.referrers if after else {},
        )

    @classmethod
    def between(
        cls,
        before: Mapping[str, Entry],
        after: Mapping[str, Entry],
        referrers_before: Mapping[str, Referrer] | None = None,
        referrers_after: Mapping[str, Referrer] | None = None,
    ) -> Changes:
        """Compare names, and where they are given the referrers too."""
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
        return cls(
            added,
            moved,
            tuple(completed),
            removed,
            _subjects(referrers_after, without=referrers_before),
            _subjects(referrers_before, without=referrers_after),
        )

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return any(self.as_dict().values())

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON, as the audit log has it."""
        return {
            "added": dict(self.added),
            "moved": {name: list(digests) for name, digests in self.moved.items()},
            "completed": list(self.completed),
            "removed": dict(self.removed),
            "referrers_added": dict(self.referrers_added),
            "referrers_removed": dict(self.referrers_removed),
        }


def _subjects(referrers: Mapping[str, Referrer] | None, *, without: Mapping[str, Referrer] | None) -> dict[str, str]:
    return {
        digest: referrer.subject
        for digest, referrer in sorted((referrers or {}).items())
        if digest not in (without or {})
    }
