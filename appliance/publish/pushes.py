"""Changes of pushed names, with the rules between manifests, blobs and names, under the lock of the index.

Everything here blocks; the event loop calls it on a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from appliance.config import Config
from appliance.errors import fail
from appliance.oci import mediatypes
from appliance.oci.manifests import Descriptor, Manifest
from appliance.oci.pieces import BIG_BLOB
from appliance.store import auditlog, readiness
from appliance.store.catalog import Catalog, LiveCatalog
from appliance.store.index import Entry
from appliance.store.reachability import reach, reader
from appliance.store.store import Store

_LOG = logging.getLogger("appliance.push")


def check_publisher(config: Config, store: Path) -> None:
    """Refuse what changes names on a node that does not publish (APL-0501), or does not know yet that it may (APL-0341)."""
    if not config.is_publisher:
        publisher = next((f"{peer.id}, {peer.url}" for peer in config.peers if peer.id == config.publisher), None)
        fail(
            "APL-0501",
            "only the publisher of this site accepts pushes and deletions",
            where=config.node,
            why=f"the publisher is {publisher or config.publisher}",
            fix="Do the same there; this node follows within a second",
        )
    readiness.require(store, config)


class Publishing:
    """The publisher's index of pushes, and what may become of it.

    :param store: its blobs, its index of pushes, and its uploads.
    :param catalog: what is served now.
    """

    def __init__(self, store: Store, catalog: LiveCatalog) -> None:
        self._blobs, self._pushes, self._uploads = store.blobs, store.pushes, store.uploads
        self._catalog = catalog

    def put(
        self,
        repository: str,
        descriptor: Descriptor,
        manifest: Manifest,
        content: bytes,
        tags: Sequence[str],
        operator: str,
    ) -> None:
        """Publish a manifest of a repository, under its digest and under ``tags``.

        :param descriptor: of ``content``, whose digest was checked.
        :raises ApplianceError: APL-0502 where a tag is the generation's, APL-0505 where something it lists is not
            there, APL-0310 where the disk is full, APL-0317 where the index is.
        """
        with self._blobs.gc_lock_shared(), self._pushes.changing():
            catalog = self._catalog.renew()
            own = [tag for tag in tags if not self._is_served_so(catalog, repository, tag, descriptor.digest)]
            entry = Entry(descriptor, self._absent(catalog, repository, descriptor.digest, manifest))
            held = self._blobs.size(descriptor.digest)
            if held == len(content) and self._blobs.read(descriptor.digest, held) != content:
                # These bytes were verified just now, and those have rotted.
                self._blobs.path(descriptor.digest).unlink(missing_ok=True)
            self._blobs.put([content], size=len(content), expect=descriptor.digest)
            before = catalog.pushed.names if catalog.pushed else {}
            changed, parts = self._seeded_children(catalog, repository, manifest, before)
            changed |= {f"{repository}@{descriptor.digest}": entry} | {f"{repository}:{tag}": entry for tag in own}
            if all(before.get(name) == entry for name in changed):
                return
            maps = dict(catalog.pushed.piece_maps) if catalog.pushed else {}
            for part in (*manifest.blobs, *parts):
                known = catalog.piece_map(part.digest) or self._uploads.piece_map(repository, part.digest)
                if part.size > BIG_BLOB and known is not None:
                    maps[part.digest] = known
            self._replace({**before, **changed}, maps)
        self._note("push", operator, descriptor.digest, [f"{repository}:{tag}" for tag in own] or [repository])

    def delete_manifest(self, repository: str, reference: str, operator: str) -> bool:
        """Take away a tag, or a manifest with all its tags; false where there is none.

        :raises ApplianceError: APL-0502 where the generation serves it.
        """
        with self._pushes.changing():
            catalog = self._catalog.renew()
            if catalog.is_seeded(repository, reference):
                _seeded(catalog, f"{repository}{'@' if ':' in reference else ':'}{reference}", "deleted")
            before = catalog.pushed.names if catalog.pushed else {}
            if ":" in reference:
                gone = {f"{repository}@{reference}"} & before.keys()
                tags = catalog.pushed_tags(repository).items() if gone else ()
                gone |= {f"{repository}:{tag}" for tag, descriptor in tags if descriptor.digest == reference}
            else:
                gone = {f"{repository}:{reference}"} & before.keys()
            if not gone:
                return False
            digest = before[next(iter(gone))].descriptor.digest
            left = {name: entry for name, entry in before.items() if name not in gone}
            maps = catalog.pushed.piece_maps if catalog.pushed else {}
            self._replace(left, self._still_needed(left, maps))
        self._note("delete", operator, digest, sorted(gone))
        return True

    def delete_blob(self, repository: str, digest: str) -> bool:
        """Take away what a repository uploaded; false where it has no such blob.

        :raises ApplianceError: APL-0502 and APL-0506 where a name still reaches it.
        """
        with self._pushes.changing():
            catalog = self._catalog.renew()
            if catalog.is_seeded(repository, digest):
                _seeded(catalog, f"{repository}@{digest}", "deleted")
            users = [
                item.descriptor.digest
                for item in catalog.pushed_closure(repository).values()
                if item.manifest is not None
                and (item.descriptor.digest == digest or any(part.digest == digest for part in item.manifest.blobs))
            ]
            if users:
                fail(
                    "APL-0506",
                    "a blob that is in use cannot be deleted",
                    where=f"{repository}@{digest}",
                    why=f"needed by {', '.join(sorted(users)[:5])}",
                    fix="Delete the manifests that need it first",
                )
            return self._uploads.unlink(repository, digest)

    def mount(self, source: str, repository: str, digest: str) -> bool:
        """Let a repository have a blob that another one has; false where that one has no such blob, or it is not here."""
        with self._blobs.gc_lock_shared():
            claimed = self._uploads.is_linked(source, digest)
            if not claimed and (self._catalog.renew().blob(source, digest) is None or not self._blobs.has(digest)):
                return False
            self._uploads.link(repository, digest, self._uploads.piece_map(source, digest) if claimed else None)
            return True

    def _is_served_so(self, catalog: Catalog, repository: str, tag: str, digest: str) -> bool:
        """Return whether the generation has the tag, pointing where the push wants it; refuses to move it elsewhere."""
        if not catalog.is_seeded(repository, tag):
            return False
        served = catalog.manifest(repository, tag)
        if served is None or served.digest != digest:
            _seeded(catalog, f"{repository}:{tag}", "moved")
        return True

    def _seeded_children(
        self, catalog: Catalog, repository: str, manifest: Manifest, before: Mapping[str, Entry]
    ) -> tuple[dict[str, Entry], list[Descriptor]]:
        """Names for what the manifest lists and only the generation has, and their blobs: clients do not push what is
        there, the next generation or a rollback may be without it, and what was pushed stays whole.
        """
        seeded, found, parts = catalog.seeded_closure(repository), dict[str, Entry](), list[Descriptor]()
        pending = list(manifest.manifests)
        while pending:
            child = pending.pop()
            name, item = f"{repository}@{child.digest}", seeded.get(child.digest)
            if name in before or name in found or item is None or item.manifest is None:
                continue
            absent = frozenset(part.digest for part in item.manifest.blobs if part.digest not in seeded)
            found[name] = Entry(Descriptor(child.media_type, child.digest, child.size), absent)
            parts += item.manifest.blobs
            pending += item.manifest.manifests
        return found, parts

    def _absent(self, catalog: Catalog, repository: str, digest: str, manifest: Manifest) -> frozenset[str]:
        """The layers that need not be here; refuses (APL-0505) a manifest that lists anything else that is not."""
        missing: list[str] = []
        absent: set[str] = set()
        for part in manifest.blobs:
            known = catalog.blob(repository, part.digest)
            claimed = self._uploads.is_linked(repository, part.digest)
            size = known.size if known is not None else self._blobs.size(part.digest) if claimed else None
            if size is None and not mediatypes.is_distributable(part.media_type):
                absent.add(part.digest)
            elif size is None:
                missing.append(part.digest)
            elif size != part.size:
                missing.append(f"{part.digest} of {part.size} bytes (it has {size})")
        for child in manifest.manifests:
            listed = catalog.manifest(repository, child.digest)
            if listed is None or (listed.size, listed.media_type) != (child.size, child.media_type):
                missing.append(f"{child.digest} of {child.size} bytes as {child.media_type}")
        if missing:
            fail(
                "APL-0505",
                "a manifest lists blobs or manifests that its repository does not have",
                where=f"{repository}@{digest}",
                why=", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else ""),
                fix="Push the blobs and the listed manifests to this repository first, then the manifest",
            )
        return frozenset(absent)

    def _replace(self, names: Mapping[str, Entry], piece_maps: Mapping[str, Descriptor]) -> None:
        with self._blobs.disk_errors("the index of pushes"):
            self._pushes.replace(names, piece_maps)

    def _still_needed(self, names: Mapping[str, Entry], maps: Mapping[str, Descriptor]) -> Mapping[str, Descriptor]:
        if not maps:
            return maps
        read = reader(self._blobs)
        reached = {item.descriptor.digest for entry in names.values() for item in reach(entry, read)}
        return {digest: piece_map for digest, piece_map in maps.items() if digest in reached}

    def _note(self, action: str, operator: str, digest: str, names: Sequence[str]) -> None:
        line = {"action": action, "by": operator, "digest": digest, "names": list(names)}
        try:
            auditlog.note(self._blobs.root, line)
        except OSError as error:
            # It is published: the client must not be told otherwise.
            _LOG.error("the journal could not be written: %s; the line was %s", error, line)


def _seeded(catalog: Catalog, name: str, what: str) -> NoReturn:
    number = catalog.generation.number if catalog.generation else 0
    fail(
        "APL-0502",
        f"a seeded name is not {what} by a push",
        where=name,
        why=f"generation {number} brings it",
        fix="Push under another tag or repository, or seed a medium that moves the name",
    )
