"""Reading a medium whole, and saying what publishing it would change, before anything does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.archives.contents import ArchiveContents, NamedImage
from appliance.archives.dispatch import read_source
from appliance.archives.limits import Limits
from appliance.archives.medium import expand
from appliance.archives.sink import BlobSink
from appliance.errors import ApplianceError, fail
from appliance.oci.platforms import Platform, matches
from appliance.store.blobs import BlobStore
from appliance.store.closure import reader, walk
from appliance.store.generations import Generation
from appliance.store.journal import was_published
from appliance.store.pushes import Pushed
from appliance.store.signed import Entry


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
    """

    current: Generation | None
    reading: Reading
    bytes_to_write: int
    pushed: Pushed | None = None

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
        changed = {*self.added, *self.moved, *self.completed}
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
    site_addresses: Collection[str] = (),
    deep: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """Read every source whole, and hold what they name against each other and against the site.

    :param sources: files and directories as the operator named them.
    :param sink: where blobs go: the store, or a sink that only checks.
    :param store: the store's directory; its journal knows which sources were published before.
    :param names: names for nameless images, for a single source.
    :param platforms: what the site's nodes run; empty: not checked.
    :param site_addresses: addresses of listed nodes; as the registry of a name they mean none.
    :param deep: unpack compressed layers of OCI layouts too, and hold them against their configs.
    :param progress: called with (bytes read, bytes of the file).
    :raises ApplianceError: whatever is wrong with a source, and APL-0124, APL-0125, APL-0128.
    """
    reading = Reading()
    wanted = list(platforms)
    foreign: list[str] = []
    origin: dict[str, str] = {}
    for source in sources:
        files = _files(source, store, current, reading)
        total = 0
        for file in files:
            contents = read_source(file, sink, Limits(), names, deep=deep, progress=progress)
            total += contents.bytes_read
            _merge(reading, contents, file, origin, site_addresses)
            foreign += [f"{image.reference} ({_platform_names(image)})" for image in _foreign(contents, wanted)]
        if files:
            reading.sources.append({"path": source, "state": "read", "bytes": total})
    for name, entry in reading.names.items():
        reading.sizes[name] = sum(item.descriptor.size for item in walk(entry, reader(sink)))
    if foreign:
        fail(
            "APL-0128",
            "images that no node of this site can run",
            why=f"{'; '.join(sorted(foreign))}; the nodes run {', '.join(map(str, wanted))}",
            fix="Bring the images for the nodes' architecture; nothing was changed",
        )
    return reading


def make_plan(reading: Reading, current: Generation | None, blobs: BlobStore, pushed: Pushed | None = None) -> Plan:
    """Hold a reading against what is served now."""
    missing = sum(size for digest, size in reading.blobs.items() if blobs.size(digest) != size)
    return Plan(current, reading, missing, pushed)


def _files(source: str, store: Path, current: Generation | None, reading: Reading) -> list[Path]:
    try:
        return expand(Path(source))
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
    reading.notes += [f"{file.name}: {note}" for note in contents.notes]
    nameless = [image.descriptor.digest for image in contents.nameless]
    if nameless:
        fail(
            "APL-0124",
            "images without a name",
            where=str(file),
            why=", ".join(nameless),
            fix="Nobody could pull them: give the name with --name, one source at a time",
        )
    absent = frozenset(contents.missing)
    for image in contents.images:
        if image.reference is None:
            continue
        # A tag is a key by itself: with a digest behind it, a moved tag would stand beside its old self.
        name = image.reference.tagged if image.reference.tag else str(image.reference)
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


def _foreign(contents: ArchiveContents, wanted: Sequence[Platform]) -> list[NamedImage]:
    return [
        image
        for image in contents.images
        if wanted and image.platforms and not any(matches(have, want) for have in image.platforms for want in wanted)
    ]


def _platform_names(image: NamedImage) -> str:
    return ", ".join(map(str, image.platforms))
