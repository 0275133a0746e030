"""Plan: the changes that publishing a reading would make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from appliance.oci.reference import parse_reference
from appliance.publish.allowlist import AllowLists
from appliance.publish.downgrades import History, OlderMedium, StepBack, find_older_media, find_steps_back
from appliance.publish.reading import Reading
from appliance.publish.referrers import Attached, Brought, Reach, attach, reach_of
from appliance.store.blobs import BlobStore
from appliance.store.diff import Changes
from appliance.store.generations import Generation
from appliance.store.index import Entry, Referrer
from appliance.store.pins import Pinned
from appliance.store.pushes import Pushed


@dataclass(frozen=True)
class Plan:
    """Changes that publishing a reading would make; see :meth:`as_dict`.

    :param current: what is served now.
    :param reading: what comes; names that it does not have stay as they are.
    :param bytes_to_write: bytes that the plan brings and the store did not have before the medium was read.
    :param bytes_staged: those of them that are in the store by now.
    :param pushed: what operators pushed; a name that the reading brings covers a pushed one.
    :param pinned: names that move only by consent.
    :param removed: names that leave.
    :param steps_back: names that would go back to what they were.
    :param older_media: sources that bring something, and were made before a medium that was published.
    :param reach: the manifests that what is served now reaches; only where there are signatures and attestations.
    """

    current: Generation | None
    reading: Reading
    bytes_to_write: int
    pushed: Pushed | None = None
    pinned: Pinned | None = None
    removed: Sequence[str] = ()
    steps_back: Sequence[StepBack] = ()
    older_media: Mapping[str, OlderMedium] = field(default_factory=dict)
    bytes_staged: int = 0
    reach: Reach = field(default_factory=Reach)

    @cached_property
    def names_after(self) -> dict[str, Entry]:
        """Every name after publishing. A reading adds, moves and completes; names leave only where that was asked for."""
        after = dict(self.current.names) if self.current else {}
        for name, entry in self.reading.names.items():
            old = after.get(name)
            same = old is not None and old.descriptor.digest == entry.descriptor.digest
            after[name] = Entry(entry.descriptor, old.absent & entry.absent) if old and same else entry
        for name in self.removed:
            after.pop(name, None)
        return after

    @cached_property
    def attached(self) -> Attached:
        """The signatures and attestations that are served after publishing: each stays and leaves with what it refers to."""
        before, after = self.current.names if self.current else {}, self.names_after
        reached = {name: self.reading.manifests.get(name, frozenset[str]()) for name in after}
        for name, digests in self.reach.names.items():
            if name in after and after[name].descriptor.digest == before[name].descriptor.digest:
                reached[name] |= digests
        held = self.current.referrers if self.current else {}
        lists = AllowLists(self.reading.allow)
        return attach(
            reached,
            {digest: Brought(item, self.reach.referrers[digest]) for digest, item in held.items()},
            self.reading.referrers,
            allows=lambda source, name: lists.allows(source, parse_reference(name, default_tag=None), any_tag=True),
            pushed=frozenset(entry.descriptor.digest for entry in self.pushed.names.values())
            if self.pushed
            else frozenset(),
            keep_all=not self.reach.is_whole,
        )

    @property
    def blobs(self) -> dict[str, int]:
        """Size in bytes of every blob that came for a name or for what is attached to one."""
        found = dict(self.reading.blobs)
        for digest, item in self.reading.referrers.items():
            if digest in self.attached.referrers:
                found |= item.blobs
        return found

    @property
    def referrers_after(self) -> Mapping[str, Referrer]:
        """Every signature and attestation without a name after publishing, by digest."""
        return self.attached.referrers

    @cached_property
    def changes(self) -> Changes:
        """The differences between what is served now and after."""
        current = self.current
        return Changes.between(
            current.names if current else {},
            self.names_after,
            current.referrers if current else {},
            self.referrers_after,
        )

    @property
    def covered(self) -> dict[str, str]:
        """Names that operators pushed and that would point elsewhere, with the digest that is served now."""
        pushed = self.pushed.names if self.pushed else {}
        return {
            name: pushed[name].descriptor.digest
            for name, digest in self.changes.added.items()
            if name in pushed and pushed[name].descriptor.digest != digest
        }

    @property
    def uncovered(self) -> dict[str, str]:
        """Names that would leave and that an operator pushed as well, with what is served under them then."""
        pushed = self.pushed.names if self.pushed else {}
        return {name: pushed[name].descriptor.digest for name in self.changes.removed if name in pushed}

    @property
    def is_empty(self) -> bool:
        """True where publishing would change no name and no referrer."""
        return not self.changes

    @property
    def id(self) -> str:
        """Stands for exactly this change of exactly this state: what is confirmed is what is published."""
        content = [self.current.digest if self.current else None]
        content += [f"{name}={entry.descriptor.digest}" for name, entry in sorted(self.reading.names.items())]
        content += [f"completed {name}" for name in self.changes.completed]
        content += [f"removed {name}" for name in self.changes.removed]
        content += [f"pushed {name}={digest}" for name, digest in self.covered.items()]
        content += [f"uncovered {name}={digest}" for name, digest in self.uncovered.items()]
        content += [f"referrer {digest} of {subject}" for digest, subject in self.changes.referrers_added.items()]
        content += [f"removed referrer {digest}" for digest in self.changes.referrers_removed]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """The plan as ``appliance plan --json`` prints it; sizes in bytes."""
        changes, pinned = self.changes, self.pinned.names if self.pinned else {}
        changed = {*changes.added, *changes.moved, *changes.completed}
        return {
            "plan_id": self.id,
            "generation": {"number": self.current.number, "digest": self.current.digest} if self.current else None,
            "added": [
                {"name": name, "digest": digest, "size": self.reading.sizes[name]}
                for name, digest in changes.added.items()
            ],
            "moved": [
                {"name": name, "old": old, "new": new, "pinned": name in pinned}
                for name, (old, new) in changes.moved.items()
            ],
            "completed": list(changes.completed),
            "removed": [
                {"name": name, "digest": digest, "pinned": name in pinned} for name, digest in changes.removed.items()
            ],
            "referrers": self._referrers(),
            "referrers_left_out": [item.as_dict() for item in self.attached.left_out],
            "steps_back": [asdict(step) for step in self.steps_back],
            "covers_pushed": [
                {"name": name, "old": digest, "new": changes.added[name]} for name, digest in self.covered.items()
            ],
            "uncovers_pushed": [
                {"name": name, "old": changes.removed[name], "new": digest} for name, digest in self.uncovered.items()
            ],
            "unchanged": sorted(set(self.names_after) - changed),
            "bytes_to_write": self.bytes_to_write,
            "bytes_staged": self.bytes_staged,
            "sources": self.reading.sources,
            "medium": {source: label.as_dict() for source, label in self.reading.labels.items()},
            "older_media": {source: medium.as_dict() for source, medium in self.older_media.items()},
            "other_site": self.reading.other_sites,
            "foreign": self.reading.foreign,
            "registries": sorted({name.split("/", 1)[0] for name in self.names_after}),
            "notes": [*self.reading.notes, *map(str, self.attached.left_out)],
            **self.reading.left_out.as_dict(),
        }

    def _referrers(self) -> list[dict[str, Any]]:
        """Return the signatures and attestations that come, summed up by what they belong to."""
        found: dict[tuple[str, ...], list[str]] = {}
        for digest in self.changes.referrers_added:
            found.setdefault(self.attached.names.get(digest, ()), []).append(digest)
        return [
            {"name": names[0] if names else "", "other_names": len(names[1:]), "digests": digests}
            for names, digests in sorted(found.items())
        ]


def make_plan(
    reading: Reading,
    current: Generation | None,
    blobs: BlobStore,
    pushed: Pushed | None = None,
    pinned: Pinned | None = None,
    *,
    removed: Sequence[str] = (),
    history: History = tuple,
    stored: Mapping[str, int] | None = None,
) -> Plan:
    """Hold a reading against what is served now.

    :param stored: digest to size in bytes of the blobs that are in the store only since this medium was read.
    :param removed: names that leave; see :func:`appliance.publish.removal.names_to_remove`.
    :param history: what was served before; what would be a step back is found there.
    """
    # Every manifest of the site is read for that; where there are no signatures it costs nothing.
    is_asked = bool(reading.referrers or (current and current.referrers))
    reach = reach_of(current, blobs) if is_asked else Reach()
    plan = Plan(current, reading, 0, pushed, pinned, removed, reach=reach)
    came = plan.blobs
    missing = sum(size for digest, size in came.items() if blobs.size(digest) != size)
    staged = sum(size for digest, size in (stored or {}).items() if digest in came and blobs.has(digest))
    return replace(
        plan,
        bytes_to_write=missing + staged,
        bytes_staged=staged,
        steps_back=find_steps_back(plan.changes.moved, history),
        older_media=find_older_media(reading, plan.changes, history),
    )
