"""Reading a medium whole: what its sources hold together, held against each other and against the site."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.archives.dispatch import read_source
from appliance.archives.docker import DIGESTS_LOST
from appliance.archives.label import Label, check_site, read_label
from appliance.archives.limits import Limits
from appliance.archives.medium import Medium
from appliance.archives.sink import BlobSink
from appliance.bundle.allow import AllowLists
from appliance.bundle.naming import Found, name_images
from appliance.errors import ApplianceError, fail
from appliance.oci.platforms import Platform, matches
from appliance.store.closure import reader, walk
from appliance.store.generations import Generation
from appliance.store.journal import was_published
from appliance.store.signed import Entry

_SHOWN = 10


@dataclass
class Reading:
    """What the sources hold together.

    :param names: full reference to what it points to.
    :param sizes: full reference to the bytes of everything it needs, each blob once.
    :param blobs: size in bytes of every blob the names need and the medium brought.
    :param origins: full reference to the source that brings it, as it was named.
    :param labels: source to what the medium says of itself, where it does.
    :param sources: for each source as it was named: ``path``, ``state`` (``read`` or ``absent-published``), ``bytes``.
    :param notes: remarks for the operator.
    :param foreign: images that no node can run and that are taken as asked, for the audit log.
    :param other_sites: sources that were made for another site and are taken as asked, with that site.
    """

    names: dict[str, Entry] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    blobs: dict[str, int] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    labels: dict[str, Label] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    other_sites: dict[str, str] = field(default_factory=dict)

    @property
    def published_sources(self) -> list[str]:
        """The sources that were read, as the operator named them."""
        return [source["path"] for source in self.sources if source["state"] == "read"]

    @property
    def media(self) -> dict[str, dict[str, str]]:
        """The labels as plain JSON."""
        return {source: label.as_dict() for source, label in self.labels.items()}


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
    site: str | None = None,
    other_site: bool = False,
    deep: bool = False,
    medium: Medium | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """Read every source whole, and hold what they name against each other and against the site.

    :param sources: files and directories as the operator named them.
    :param sink: where blobs go: the store, or a sink that only checks.
    :param store: the store's directory; its audit log knows which sources were published before.
    :param names: names for nameless images; see :func:`appliance.bundle.naming.name_images`.
    :param platforms: what the site's nodes run; empty: not checked.
    :param any_platform: take images that none of these can run too, with a remark.
    :param allow: which names the sources may bring; see :class:`appliance.bundle.allow.AllowLists`.
    :param site_addresses: addresses of listed nodes; as the registry of a name they mean none.
    :param site: the name of this site; a medium that says it is for another one is refused. None: it has none.
    :param other_site: take such a medium all the same.
    :param deep: unpack compressed layers of OCI layouts too, and hold them against their configs.
    :param medium: opens the sources; None: as this process may.
    :param progress: called with (bytes read, bytes of the file).
    :raises ApplianceError: whatever is wrong with a source, and APL-0123 to APL-0125, APL-0128, APL-0142, APL-0143,
        APL-0150, APL-0151.
    """
    reading, medium = Reading(), medium or Medium()
    lists = AllowLists(allow)
    found: list[Found] = []
    expanded = [(source, _files(source, medium, store, current)) for source in sources]
    # Before anything of a stick is read that may be the wrong one.
    for source, _ in expanded:
        _read_label(source, medium, reading, site, other_site=other_site)
    for source, files in expanded:
        total = 0
        for file in files:
            contents = read_source(file, sink, Limits(), None, deep=deep, medium=medium, progress=progress)
            total += contents.bytes_read
            found.append(Found(source, file, contents))
        state = "read" if files else "absent-published"
        reading.sources.append({"path": source, "state": state, "bytes": total})
    name_images(found, names)
    _check_allowed(found, lists, site_addresses)
    _check_platforms(found, list(platforms), reading, any_platform=any_platform)
    _note(found, reading)
    origin: dict[str, Path] = {}
    for item in found:
        _merge(reading, item, origin, site_addresses)
    for name, entry in reading.names.items():
        reading.sizes[name] = sum(item.descriptor.size for item in walk(entry, reader(sink)))
    return reading


def _files(source: str, medium: Medium, store: Path, current: Generation | None) -> list[Path]:
    """The archives of a source; none of one that is gone and was published before."""
    try:
        return medium.expand(Path(source))
    except ApplianceError as error:
        # Not there, or nothing in it: a stick that was pulled out after it had been published is no error.
        if error.code in ("APL-0101", "APL-0122") and was_published(store, current, source):
            return []
        raise


def _read_label(source: str, medium: Medium, reading: Reading, site: str | None, *, other_site: bool) -> None:
    label = read_label(Path(source), medium)
    if label is None:
        return
    reading.labels[source] = label
    if site is None:
        reading.notes.append(f"{source} says that it is for {label.site}; this site has no name (mirror_site).")
    elif other_site and label.site != site:
        reading.other_sites[source] = label.site
        reading.notes.append(f"{source} says that it is for {label.site}, and is taken as asked.")
    else:
        check_site(label, site, source)


def _merge(reading: Reading, found: Found, origin: dict[str, Path], site_addresses: Collection[str]) -> None:
    contents = found.contents
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
                where=f"{origin[name]} and {found.file}",
                why=f"{other.descriptor.digest} and {image.descriptor.digest}",
                fix="Take the wrong one off the medium",
            )
        # Of two sources with the same index, each may bring what the other leaves out.
        reading.names[name] = Entry(image.descriptor, absent & other.absent if other else absent)
        origin[name] = found.file
        reading.origins[name] = found.source


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
        reading.foreign = sorted(foreign)
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
