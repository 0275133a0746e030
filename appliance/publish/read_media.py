"""Reading of all sources of a run, checked against each other and against the site."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from appliance.archives.checksum_reader import check_lists
from appliance.archives.discovery import SourceList, refuse_empty
from appliance.archives.docker import DIGESTS_LOST
from appliance.archives.identity import identify
from appliance.archives.label import check_site, read_label
from appliance.archives.limits import Limits
from appliance.archives.medium import Medium
from appliance.archives.reader import read_source
from appliance.archives.sink import BlobSink
from appliance.errors import NotAnImageArchive, fail
from appliance.media import MediumIdentity
from appliance.oci.platforms import Platform, matches
from appliance.publish.allowlist import AllowLists
from appliance.publish.merge import platform_words, settle_names, some
from appliance.publish.naming import Found, name_images
from appliance.publish.reading import Reading
from appliance.publish.referrers import Brought
from appliance.publish.staging import Staging
from appliance.store.auditlog import was_published
from appliance.store.generations import Generation
from appliance.store.index import Entry, Referrer
from appliance.store.reachability import Needed, reader, walk
from appliance.words import one_line


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
    staging: Staging | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """Read every source whole, and hold what they name against each other and against the site.

    :param sources: files and directories as the operator named them.
    :param sink: where blobs go: the store, or a sink that only checks.
    :param store: the store's directory; its audit log knows which sources were published before.
    :param names: names for nameless images; see :func:`appliance.publish.naming.name_images`.
    :param platforms: what the site's nodes run; empty: not checked.
    :param any_platform: take images that none of these can run too, with a remark.
    :param allow: which names the sources may bring; see :class:`appliance.publish.allowlist.AllowLists`.
    :param site_addresses: addresses of listed nodes; as the registry of a name they mean none.
    :param site: the name of this site; a medium that says it is for another one is refused. None: it has none.
    :param other_site: take such a medium all the same.
    :param deep: unpack compressed layers of OCI layouts too, and hold them against their configs.
    :param medium: opens the sources; None: as this process may.
    :param staging: keeps what each file holds, and knows it of an earlier run; None: every file is read.
    :param progress: called with (bytes read, bytes of the file).
    :raises ApplianceError: whatever is wrong with a source, and APL-0123 to APL-0125, APL-0128, APL-0142, APL-0143,
        APL-0150, APL-0151.
    """
    reading, medium = Reading(allow=list(allow)), medium or Medium()
    lists, wanted = AllowLists(allow), list(platforms)
    found: list[Found] = []
    expanded = [(source, _files(source, medium, store, current)) for source in sources]
    # Before anything of a stick is read that may be the wrong one.
    for source, _ in expanded:
        _read_label(source, medium, reading, site, other_site=other_site)
    for _, files in expanded:
        check_lists(files, medium)
    for source, files in expanded:
        total, known, left_out = 0, 0, list(files.left_out)
        before = len(found)
        for file in files.sources:
            contents = staging.find(file) if staging is not None else None
            if contents is None:
                doubtful = file in files.by_content
                try:
                    contents = read_source(
                        file, sink, Limits(), None, deep=deep, medium=medium, progress=progress, is_doubtful=doubtful
                    )
                except NotAnImageArchive as error:
                    if not doubtful:
                        raise
                    left_out += files.without_images(file, error.what)
                    continue
                if staging is not None:
                    staging.keep(file, contents)
            else:
                known += 1
                if progress is not None:
                    progress(contents.bytes_read, contents.bytes_read)
            total += contents.bytes_read
            found.append(Found(source, file, contents))
        read = len(found) - before
        if files.sources and not read:
            refuse_empty(Path(source), left_out)
        state = "absent-published" if not read else "verified-before" if known == read else "read"
        reading.sources.append({"path": source, "state": state, "bytes": total})
        reading.left_out.add(left_out, len(files.passed_over))
        if read:
            archives = [item.file for item in found[before:]]
            identity = identify(source, medium, archives, reading.labels.get(source))
            reading.identities[source] = identity
            reading.sources[-1]["medium"] = identity.words()
        elif current is not None and source in current.media:
            reading.sources[-1]["medium"] = MediumIdentity.from_dict(current.media[source]).words()
    name_images(found, names)
    _check_allowed(found, lists, site_addresses)
    reading.notes += settle_names(found, wanted, site_addresses)
    _check_platforms(found, wanted, reading, any_platform=any_platform)
    _note(found, reading)
    for item in found:
        _merge(reading, item, site_addresses)
    _follow(reading, found, sink)
    # They name files, whose names may be no UTF-8.
    reading.notes = [one_line(note) for note in reading.notes]
    return reading


def _files(source: str, medium: Medium, store: Path, current: Generation | None) -> SourceList:
    """Return the archives of a source; none of one that is not there and was published before."""
    found = medium.find(Path(source))
    # A stick that was pulled out after it had been published is no error.
    if not (found.is_absent and was_published(store, current, source)):
        found.check(Path(source))
    return found


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


def _merge(reading: Reading, found: Found, site_addresses: Collection[str]) -> None:
    absent = frozenset(found.contents.missing)
    for image in found.contents.images:
        if image.reference is None:
            continue
        name = image.reference.at_site(site_addresses).key
        other = reading.names.get(name)
        # Of two sources with the same index, each may bring what the other leaves out.
        reading.names[name] = Entry(image.descriptor, absent & other.absent if other else absent)
        reading.origins[name] = found.source


def _follow(reading: Reading, found: Sequence[Found], sink: BlobSink) -> None:
    """Read what the names and the referrers reach, and add up the blobs that came for them."""
    came = {digest: size for item in found for digest, size in item.contents.blobs.items()}

    def blobs(items: Iterable[Needed]) -> dict[str, int]:
        digests = {item.descriptor.digest for item in items}
        return {digest: came[digest] for digest in digests if digest in came}

    for name, entry in reading.names.items():
        items = list(walk(entry, reader(sink)))
        reading.sizes[name] = sum(item.descriptor.size for item in items)
        reading.manifests[name] = _manifests(items)
        reading.blobs |= blobs(items)
    for item in found:
        absent = frozenset(item.contents.missing)
        for image in item.contents.referrers:
            assert image.subject is not None
            entry = Entry(image.descriptor, absent)
            items = list(walk(entry, reader(sink)))
            top = items[0].manifest
            reading.referrers[image.descriptor.digest] = Brought(
                Referrer(entry, image.subject),
                _manifests(items),
                one_line(str(item.file)),
                item.source,
                (top.referrer_type if top else None) or "",
                blobs(items),
            )


def _manifests(items: Iterable[Needed]) -> frozenset[str]:
    return frozenset(item.descriptor.digest for item in items if item.is_manifest and not item.is_lost)


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
    foreign, files, partial = set(), list[str](), []
    for file, image in ((item.file, image) for item in found for image in item.contents.images):
        if not wanted or not image.platforms or image.is_referrer:
            continue
        lacking = [want for want in wanted if not any(matches(have, want) for have in image.platforms)]
        if len(lacking) == len(wanted):
            foreign.add(f"{image.reference} ({platform_words(image)})")
            files.append(str(file))
        elif lacking:
            partial.append(f"{image.reference} (not {', '.join(map(str, lacking))})")
    nodes = ", ".join(map(str, wanted))
    if foreign and not any_platform:
        fail(
            "APL-0128",
            "images that no node of this site can run",
            where=some(files),
            why=f"{'; '.join(sorted(foreign))}; the nodes run {nodes}",
            fix="Bring the images for the nodes' architecture; nothing was changed. To take them all the same: "
            "--any-platform (seed_any_platform)",
        )
    if foreign:
        reading.foreign = sorted(foreign)
        reading.notes.append(f"No node can run these ({nodes}), and they are taken as asked: {some(foreign)}.")
    if partial:
        reading.notes.append(f"Some nodes cannot run these: {some(partial)}.")


def _note(found: Sequence[Found], reading: Reading) -> None:
    """Remarks by file; what holds for several files is said once."""
    lost = [item.file.name for item in found if DIGESTS_LOST in item.contents.notes]
    if lost:
        reading.notes.append(f"{some(lost)}: {DIGESTS_LOST}")
    for item in found:
        reading.notes += [f"{item.file.name}: {note}" for note in item.contents.notes if note != DIGESTS_LOST]
