"""Reading a medium whole, and saying what publishing it would change, before anything does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.archives.contents import ArchiveContents
from appliance.archives.dispatch import read_source
from appliance.archives.docker import DIGESTS_LOST
from appliance.archives.limits import Limits
from appliance.archives.medium import Medium
from appliance.archives.sink import BlobSink
from appliance.bundle.allow import AllowLists
from appliance.bundle.naming import Found, name_images
from appliance.errors import ApplianceError, fail
from appliance.oci.names import parse_reference
from appliance.oci.platforms import Platform, matches
from appliance.store.blobs import BlobStore
from appliance.store.closure import reader, walk
from appliance.store.generations import Generation
from appliance.store.journal import was_published
from appliance.store.pins import Pinned
from appliance.store.pushes import Pushed
from appliance.store.signed import Entry

_SHOWN = 10


@dataclass
class Reading:
    """What the sources hold together.

    :param names: full reference to what it points to.
    :param sizes: full reference to the bytes of everything it needs, each blob once.
    :param blobs: size in bytes of every blob the names need and the medium brought.
    :param sources: for each source as it was named: ``path``, ``state`` (``read`` or ``absent-published``), ``bytes``.
    :param notes: remarks for the operator.
    """

    names: dict[str, Entry] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    blobs: dict[str, int] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def published_sources(self) -> list[str]:
        """The sources that were read, as the operator named them."""
        return [source["path"] for source in self.sources if source["state"] == "read"]


@dataclass(frozen=True)
class Plan:
    """What publishing a reading would change; see :meth:`as_dict`.

    :param pushed: what operators pushed; a name that the reading brings covers a pushed one.
    :param pinned: names that move only by consent.
    """

    current: Generation | None
    reading: Reading
    bytes_to_write: int
    pushed: Pushed | None = None
    pinned: Pinned | None = None

    @property
    def added(self) -> list[str]:
        """Names that are new."""
        old = self.current.names if self.current else {}
        return sorted(name for name in self.reading.names if name not in old)

    @property
    def moved(self) -> list[str]:
        """Names that would point elsewhere."""
        old = self.current.names if self.current else {}
        return sorted(
            name
            for name, entry in self.reading.names.items()
            if name in old and old[name].descriptor.digest != entry.descriptor.digest
        )

    @property
    def moved_pins(self) -> list[str]:
        """Those of the moved names that are pinned; see :func:`check_consent`."""
        pinned = self.pinned.names if self.pinned else {}
        return [name for name in self.moved if name in pinned]

    @property
    def completed(self) -> list[str]:
        """Names of which the medium brings platforms that were left out before."""
        old = self.current.names if self.current else {}
        return sorted(
            name
            for name, entry in self.reading.names.items()
            if name in old
            and old[name].descriptor.digest == entry.descriptor.digest
            and not old[name].absent <= entry.absent
        )

    @property
    def covered(self) -> dict[str, str]:
        """Names that operators pushed and that would point elsewhere, with the digest that is served now."""
        pushed = self.pushed.names if self.pushed else {}
        return {
            name: pushed[name].descriptor.digest
            for name in self.added
            if name in pushed and pushed[name].descriptor.digest != self.reading.names[name].descriptor.digest
        }

    @property
    def is_empty(self) -> bool:
        """Whether publishing would change no name."""
        return not self.added and not self.moved and not self.completed

    @property
    def names_after(self) -> dict[str, Entry]:
        """Every name after publishing: a seeding adds, moves and completes, it takes nothing away."""
        after = dict(self.current.names) if self.current else {}
        for name, entry in self.reading.names.items():
            old = after.get(name)
            same = old is not None and old.descriptor.digest == entry.descriptor.digest
            after[name] = Entry(entry.descriptor, old.absent & entry.absent) if old and same else entry
        return after

    @property
    def id(self) -> str:
        """Stands for exactly this change of exactly this state: what is confirmed is what is published."""
        content = [self.current.digest if self.current else None]
        content += [f"{name}={entry.descriptor.digest}" for name, entry in sorted(self.reading.names.items())]
        content += [f"completed {name}" for name in self.completed]
        content += [f"pushed {name}={digest}" for name, digest in self.covered.items()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """The plan as ``appliance plan --json`` prints it; sizes in bytes."""
        old = self.current.names if self.current else {}
        changed, moved_pins = {*self.added, *self.moved, *self.completed}, set(self.moved_pins)
        return {
            "plan_id": self.id,
            "generation": {"number": self.current.number, "digest": self.current.digest} if self.current else None,
            "added": [
                {"name": name, "digest": entry.descriptor.digest, "size": self.reading.sizes[name]}
                for name, entry in ((name, self.reading.names[name]) for name in self.added)
            ],
            "moved": [
                {
                    "name": name,
                    "old": old[name].descriptor.digest,
                    "new": self.reading.names[name].descriptor.digest,
                    "pinned": name in moved_pins,
                }
                for name in self.moved
            ],
            "completed": self.completed,
            "covers_pushed": [
                {"name": name, "old": digest, "new": self.reading.names[name].descriptor.digest}
                for name, digest in self.covered.items()
            ],
            "unchanged": sorted(set(self.names_after) - changed),
            "bytes_to_write": self.bytes_to_write,
            "sources": self.reading.sources,
            "registries": sorted({name.split("/", 1)[0] for name in self.names_after}),
            "notes": self.reading.notes,
        }


def read_sources(
    sources: Sequence[str],
    sink: BlobSink,
    store: Path,
    current: Generation | None,
    *,
    names: Sequence[str] = (),
    platforms: Iterable[Platform] = (),
    any_platform: bool = False,
    allow: Sequence[str] = (),
    site_addresses: Collection[str] = (),
    deep: bool = False,
    medium: Medium | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """Read every source whole, and hold what they name against each other and against the site.

    :param sources: files and directories as the operator named them.
    :param sink: where blobs go: the store, or a sink that only checks.
    :param store: the store's directory; its journal knows which sources were published before.
    :param names: names for nameless images; see :func:`appliance.bundle.naming.name_images`.
    :param platforms: what the site's nodes run; empty: not checked.
    :param any_platform: take images that none of these can run too, with a remark.
    :param allow: which names the sources may bring; see :class:`appliance.bundle.allow.AllowLists`.
    :param site_addresses: addresses of listed nodes; as the registry of a name they mean none.
    :param deep: unpack compressed layers of OCI layouts too, and hold them against their configs.
    :param medium: opens the sources; None: as this process may.
    :param progress: called with (bytes read, bytes of the file).
    :raises ApplianceError: whatever is wrong with a source, and APL-0123 to APL-0125, APL-0128, APL-0142, APL-0143.
    """
    reading, medium = Reading(), medium or Medium()
    lists = AllowLists(allow)
    found: list[Found] = []
    for source in sources:
        files = _files(source, medium, store, current, reading)
        total = 0
        for file in files:
            contents = read_source(file, sink, Limits(), None, deep=deep, medium=medium, progress=progress)
            total += contents.bytes_read
            found.append(Found(source, file, contents))
        if files:
            reading.sources.append({"path": source, "state": "read", "bytes": total})
    name_images(found, names)
    _check_allowed(found, lists, site_addresses)
    _check_platforms(found, list(platforms), reading, any_platform=any_platform)
    _note(found, reading)
    origin: dict[str, str] = {}
    for item in found:
        _merge(reading, item.contents, item.file, origin, site_addresses)
    for name, entry in reading.names.items():
        reading.sizes[name] = sum(item.descriptor.size for item in walk(entry, reader(sink)))
    return reading


def make_plan(
    reading: Reading,
    current: Generation | None,
    blobs: BlobStore,
    pushed: Pushed | None = None,
    pinned: Pinned | None = None,
) -> Plan:
    """Hold a reading against what is served now."""
    missing = sum(size for digest, size in reading.blobs.items() if blobs.size(digest) != size)
    return Plan(current, reading, missing, pushed, pinned)


def check_consent(plan: Plan, consent: Iterable[str]) -> None:
    """Refuse a plan that moves pinned names, but for those that the operator agreed to move.

    :param consent: names; ``NAME@sha256:...`` agrees to a move to that digest alone.
    :raises ApplianceError: APL-0141 with every name that is refused, and where it would move; APL-0202 and APL-0201
        for what is no name.
    """
    check_moves(plan.as_dict()["moved"], consent)


def check_moves(moved: Iterable[Mapping[str, Any]], consent: Iterable[str]) -> None:
    """:func:`check_consent` for the ``moved`` of a plan as it is shown."""
    agreed = {(item.key, item.digest) for item in (parse_reference(text, where="--move-pinned") for text in consent)}
    refused = []
    for item in moved:
        if item["pinned"] and not agreed & {(item["name"], None), (item["name"], item["new"])}:
            refused.append(f"{item['name']} from {item['old']} to {item['new']}")
    if refused:
        fail(
            "APL-0141",
            "the sources would move pinned names",
            why="; ".join(refused),
            fix="Nothing was published. Agree to each move with --move-pinned NAME, or bring a medium without them",
        )


def _files(source: str, medium: Medium, store: Path, current: Generation | None, reading: Reading) -> list[Path]:
    try:
        return medium.expand(Path(source))
    except ApplianceError as error:
        # Not there, or nothing in it: a stick that was pulled out after it had been published is no error.
        if error.code in ("APL-0101", "APL-0122") and was_published(store, current, source):
            reading.sources.append({"path": source, "state": "absent-published", "bytes": 0})
            return []
        raise


def _merge(
    reading: Reading,
    contents: ArchiveContents,
    file: Path,
    origin: dict[str, str],
    site_addresses: Collection[str],
) -> None:
    reading.blobs.update(contents.blobs)
    absent = frozenset(contents.missing)
    for image in contents.images:
        if image.reference is None:
            continue
        name = image.reference.at_site(site_addresses).key
        other = reading.names.get(name)
        if other is not None and other.descriptor.digest != image.descriptor.digest:
            fail(
                "APL-0125",
                f"two sources bring different images under one name, {name}",
                where=f"{origin[name]} and {file}",
                why=f"{other.descriptor.digest} and {image.descriptor.digest}",
                fix="Take the wrong one off the medium",
            )
        # Of two sources with the same index, each may bring what the other leaves out.
        reading.names[name] = Entry(image.descriptor, absent & other.absent if other else absent)
        origin[name] = str(file)


def _check_allowed(found: Sequence[Found], lists: AllowLists, site_addresses: Collection[str]) -> None:
    """Refuse names that a source may not bring, all at once."""
    refused: dict[str, list[str]] = {}
    for item in found:
        for image in item.contents.images:
            if image.reference is None:
                continue
            reference = image.reference.at_site(site_addresses)
            if not lists.allows(item.source, reference, any_tag=image.is_referrer):
                refused.setdefault(item.source, []).append(reference.key)
    if refused:
        fail(
            "APL-0142",
            "names that their source may not bring",
            why="; ".join(
                f"{source}: {', '.join(sorted(set(names)))} (allowed: {lists.shown(source)})"
                for source, names in refused.items()
            ),
            fix="Take them off the medium, or add them to the source's allow-list (--allow, seed_allow)",
        )


def _check_platforms(
    found: Sequence[Found], wanted: Sequence[Platform], reading: Reading, *, any_platform: bool
) -> None:
    """Refuse images that no node can run, all at once; note those that only some of the nodes can."""
    foreign, partial = set(), []
    for image in (image for item in found for image in item.contents.images):
        if not wanted or not image.platforms:
            continue
        lacking = [want for want in wanted if not any(matches(have, want) for have in image.platforms)]
        if len(lacking) == len(wanted):
            foreign.add(f"{image.reference} ({', '.join(map(str, image.platforms))})")
        elif lacking:
            partial.append(f"{image.reference} (not {', '.join(map(str, lacking))})")
    nodes = ", ".join(map(str, wanted))
    if foreign and not any_platform:
        fail(
            "APL-0128",
            "images that no node of this site can run",
            why=f"{'; '.join(sorted(foreign))}; the nodes run {nodes}",
            fix="Bring the images for the nodes' architecture; nothing was changed. To take them all the same: "
            "--any-platform (seed_any_platform)",
        )
    if foreign:
        reading.notes.append(f"No node can run these ({nodes}), and they are taken as asked: {_some(foreign)}.")
    if partial:
        reading.notes.append(f"Some nodes cannot run these: {_some(partial)}.")


def _note(found: Sequence[Found], reading: Reading) -> None:
    """Remarks by file; what holds for several files is said once."""
    lost = [item.file.name for item in found if DIGESTS_LOST in item.contents.notes]
    if lost:
        reading.notes.append(f"{_some(lost)}: {DIGESTS_LOST}")
    for item in found:
        reading.notes += [f"{item.file.name}: {note}" for note in item.contents.notes if note != DIGESTS_LOST]


def _some(words: Iterable[str]) -> str:
    listed = sorted(set(words))
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
