"""Catalog in memory of what the site serves: it answers a tag, a repository or a miss at once.

Two layers lie over each other: the names of the current generation, and below them what operators pushed. Where both
have a name, the generation's is served.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from gevent.lock import BoundedSemaphore

from appliance.errors import ApplianceError
from appliance.oci.manifests import Descriptor, Manifest
from appliance.store.blobs import BlobStore
from appliance.store.generations import Generation, Generations
from appliance.store.index import Entry, Referrer, SignedIndex
from appliance.store.pushes import Pushed, Pushes
from appliance.store.reachability import Needed, reach, reader, walk
from appliance.threads import run_in_thread

_LOG = logging.getLogger("appliance.catalog")
T = TypeVar("T", Generation, Pushed)
_UNREAD = object()
_COSIGN = (".sig", ".att", ".sbom")


@dataclass(slots=True)
class Repository:
    """The tags of one repository, and lazily all that they reach.

    :param tags: tag to descriptor.
    :param entries: every name of the repository, those by digest included.
    """

    tags: dict[str, Descriptor] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    closure: Mapping[str, Needed] | None = None


class NameTable:
    """The names of one index, laid out for looking up; it never changes.

    In ASCII order the names of a repository lie side by side: after it comes ``:`` or ``@``, and no character that could
    go on with another repository's name sorts between those two. So a search finds them, and only what is asked for takes
    more memory than its name: every web worker holds all names of the site.

    :param names: the index's names.
    :param blobs: where the manifests are read from when a repository is first asked for.
    :param referrers: manifests without a name; each is served in every repository that serves what it refers to.
    """

    def __init__(
        self, names: Mapping[str, Entry], blobs: BlobStore, referrers: Mapping[str, Referrer] | None = None
    ) -> None:
        self._blobs = blobs
        self._names = names
        self._subjects = {digest: referrer.subject for digest, referrer in (referrers or {}).items()}
        self._by_subject: dict[str, list[Entry]] = {}
        for referrer in (referrers or {}).values():
            self._by_subject.setdefault(referrer.subject, []).append(referrer.entry)
        self._order = sorted(names)
        self._asked: dict[str, Repository] = {}

    def repositories(self) -> Iterator[str]:
        """Full names of all repositories, each once, in the order of their names with tags."""
        last = None
        for name in self._order:
            repository = _repository(name)
            if repository != last:
                yield repository
                last = repository

    def find(self, repository: str) -> Repository | None:
        """One repository; None where it has no name here."""
        found = self._asked.get(repository)
        if found is None:
            begin, end = (bisect_left(self._order, repository + after) for after in (":", "A"))
            if begin == end:
                return None
            found = Repository()
            for name in self._order[begin:end]:
                entry = self._names[name]
                found.entries.append(entry)
                if name[len(repository)] == ":":
                    found.tags[name[len(repository) + 1 :].partition("@")[0]] = entry.descriptor
            self._asked[repository] = found
        return found

    def tags(self, repository: str) -> dict[str, Descriptor]:
        """Tag to descriptor; empty for a repository it does not know."""
        found = self.find(repository)
        return {} if found is None else found.tags

    def closure(self, repository: str) -> Mapping[str, Needed]:
        """Everything the repository's names reach, by digest."""
        found = self.find(repository)
        if found is None:
            return {}
        if found.closure is None:
            closure: dict[str, Needed] = {}
            whole = True
            for item in self._reached(repository, found.entries):
                known = closure.get(item.descriptor.digest)
                if known is None or (item.is_manifest and not known.is_manifest):
                    closure[item.descriptor.digest] = item
                whole = whole and not item.is_lost
            if not whole:
                # A manifest that is lost here may be back before the next request.
                return closure
            found.closure = closure
        return found.closure

    def unreadable(self, repository: str) -> list[Descriptor]:
        """Manifests that the repository's names reach and that cannot be read here now."""
        closure = self.closure(repository)
        found = self.find(repository)
        if found is None or found.closure is not None:
            return []
        return [item.descriptor for item in closure.values() if item.is_lost]

    def subject(self, digest: str) -> str | None:
        """Return the digest that a referrer without a name refers to; None for every other manifest."""
        return self._subjects.get(digest)

    def _reached(self, repository: str, entries: Iterable[Entry]) -> Iterator[Needed]:
        read = reader(self._blobs)
        pending, seen = list(entries), set[str]()
        while pending:
            for item in walk(pending.pop(), read):
                yield item
                # A signature may be signed in its turn.
                if item.is_manifest and item.descriptor.digest not in seen:
                    seen.add(item.descriptor.digest)
                    pending += self._by_subject.get(item.descriptor.digest, ())


class PushedNames(NameTable):
    """Pushed names. Each manifest has a name of its own, so a deleted one is gone although an index lists it.

    :param before: the layer that this one follows; manifests that it has parsed are not read again.
    """

    def __init__(self, names: Mapping[str, Entry], blobs: BlobStore, before: PushedNames | None = None) -> None:
        super().__init__(names, blobs)
        self._parsed: dict[str, Mapping[str, Needed]] = {}
        # A copy: the event loop looks up repositories there while a thread makes this one.
        for repository, found in list(before._asked.items()) if before else ():
            if found.closure is not None:
                self._parsed[repository] = found.closure

    def _reached(self, repository: str, entries: Iterable[Entry]) -> Iterator[Needed]:
        read = reader(self._blobs)
        old = self._parsed.pop(repository, {})
        parsed = {digest: item.manifest for digest, item in old.items() if item.manifest is not None}
        # Under its digest and under each of its tags, a manifest is the same.
        for entry in {entry.descriptor.digest: entry for entry in entries}.values():
            yield from reach(entry, read, parsed)


class Catalog:
    """One generation and one state of the pushes, laid out for looking up; it never changes.

    :param generation: the generation served, None for an empty store.
    :param blobs: where the manifests are read from when a repository is first asked for.
    :param pushed: what operators pushed, None where nothing ever was.
    :param before: the catalog that this one follows; what did not change is taken from it.
    """

    def __init__(
        self,
        generation: Generation | None,
        blobs: BlobStore,
        pushed: Pushed | None = None,
        before: Catalog | None = None,
    ) -> None:
        self.generation = generation
        self.pushed = pushed
        self._seeded: NameTable
        self._pushed: PushedNames
        if before is not None and before.generation is generation:
            self._seeded = before._seeded
        else:
            self._seeded = (
                NameTable(generation.names, blobs, generation.referrers) if generation else NameTable({}, blobs)
            )
        if before is not None and before.pushed is pushed:
            self._pushed = before._pushed
        else:
            self._pushed = PushedNames(pushed.names if pushed else {}, blobs, before._pushed if before else None)
        self._repositories: list[str] | None = None

    def repositories(self) -> list[str]:
        """Full names (``docker.io/library/nginx``) in ASCII order; not to be changed."""
        if self._repositories is None:
            self._repositories = sorted({*self._seeded.repositories(), *self._pushed.repositories()})
        return self._repositories

    def registries(self) -> list[str]:
        """The registries that names of this site carry, sorted."""
        return sorted({name.split("/", 1)[0] for name in self.repositories()})

    def tags(self, repository: str) -> Mapping[str, Descriptor] | None:
        """Tag to descriptor, None for a repository the site does not know."""
        if self._seeded.find(repository) is None and self._pushed.find(repository) is None:
            return None
        return self._pushed.tags(repository) | self._seeded.tags(repository)

    def closure(self, repository: str) -> Mapping[str, Needed]:
        """Everything the repository's names reach, by digest; what is not in it is not served under its name."""
        seeded, pushed = self._seeded.closure(repository), self._pushed.closure(repository)
        return ChainMap(dict(seeded), dict(pushed)) if seeded and pushed else seeded or pushed

    def manifest(self, repository: str, reference: str) -> Descriptor | None:
        """The descriptor of a manifest by tag or digest, None when the site does not have it."""
        for layer in (self._seeded, self._pushed):
            if ":" not in reference:
                descriptor = layer.tags(repository).get(reference)
            else:
                item = layer.closure(repository).get(reference)
                descriptor = item.descriptor if item is not None and item.is_manifest else None
            if descriptor is not None:
                return descriptor
        return None

    def blob(self, repository: str, digest: str) -> Descriptor | None:
        """The descriptor of a config or layer, or of a manifest asked for as a blob; None when not served there."""
        for layer in (self._seeded, self._pushed):
            item = layer.closure(repository).get(digest)
            if item is not None:
                return item.descriptor
        return None

    def unreadable(self, repository: str) -> list[Descriptor]:
        """Manifests of the repository that cannot be read here now: what they list is not known until they are back."""
        return [*self._seeded.unreadable(repository), *self._pushed.unreadable(repository)]

    def is_seeded(self, repository: str, reference: str) -> bool:
        """Return whether a tag is a name of the generation, or a digest is reached by one."""
        if ":" not in reference:
            return reference in self._seeded.tags(repository)
        return reference in self._seeded.closure(repository)

    def pushed_tags(self, repository: str) -> Mapping[str, Descriptor]:
        """The tags that were pushed, those that the generation covers included."""
        return self._pushed.tags(repository)

    def seeded_closure(self, repository: str) -> Mapping[str, Needed]:
        """Everything that the repository's names of the generation reach, by digest."""
        return self._seeded.closure(repository)

    def is_laid_out(self, repository: str) -> bool:
        """Return whether what the repository reaches is known, and need not be read first."""
        found = (layer.find(repository) for layer in (self._seeded, self._pushed))
        return all(item is None or item.closure is not None for item in found)

    def pushed_closure(self, repository: str) -> Mapping[str, Needed]:
        """Everything that the repository's pushed names reach, by digest."""
        return self._pushed.closure(repository)

    def piece_map(self, digest: str) -> Descriptor | None:
        """The descriptor of a blob's piece map, where a signed index lists one."""
        for index in (self.generation, self.pushed):
            found = index.piece_maps.get(digest) if index else None
            if found is not None:
                return found
        return None

    def referrers(self, repository: str, digest: str) -> Iterator[tuple[Descriptor, Manifest]]:
        """The manifests of the repository that refer to ``digest``, in ASCII order of their digests.

        By their ``subject``, whether they have a name or not, and by the tags that clients use where a registry has no
        referrers: ``sha256-<hex>``, an index of them, and cosign's.
        """
        closure = self.closure(repository)
        by_tag = self._referrers_by_tag(repository, digest, closure)
        for key, item in sorted(closure.items()):
            manifest = item.manifest
            if manifest is None:
                continue
            # A manifest that says nothing itself may have come with a packer's note of what it belongs to.
            subject = manifest.subject.digest if manifest.subject is not None else self._seeded.subject(key)
            if subject == digest or (subject is None and key in by_tag):
                yield item.descriptor, manifest

    def _referrers_by_tag(self, repository: str, digest: str, closure: Mapping[str, Needed]) -> set[str]:
        tags = self.tags(repository) or {}
        algorithm, _, encoded = digest.partition(":")
        base = f"{algorithm[:32]}-{encoded[:64]}"
        found = {tags[f"{base}{ending}"].digest for ending in _COSIGN if f"{base}{ending}" in tags}
        index = closure.get(tags[base].digest) if base in tags else None
        if index is not None and index.manifest is not None and index.manifest.kind == "index":
            found |= {child.digest for child in index.manifest.manifests}
        return found


def _lean(index: T | None) -> T | None:
    """Without its bytes, which nobody asks a catalog for: three megabytes for 10,000 names, in every process."""
    return None if index is None else replace(index, raw=b"")


def _repository(name: str) -> str:
    base = name.partition("@")[0]
    colon = base.find(":", base.rfind("/"))
    return base if colon < 0 else base[:colon]


class LiveCatalog:
    """The catalog of the store's current generation and pushes, renewed when either file is replaced.

    Two ``stat`` a request tell: a rename gives a file another inode and time, so no signal between processes is needed
    and nothing can be missed.
    """

    def __init__(self, blobs: BlobStore, generations: Generations, pushes: Pushes) -> None:
        self._blobs = blobs
        self._generations = generations
        self._pushes = pushes
        self._known: tuple[object, object, Catalog] = (_UNREAD, _UNREAD, Catalog(None, blobs))
        self._damaged: set[SignedIndex[Any]] = set()
        self._turn = BoundedSemaphore(1)
        self._laying = BoundedSemaphore(1)

    def get(self, repository: str | None = None) -> Catalog:
        """The catalog of what is current now; for the event loop, which goes on while a new one is read.

        :param repository: one whose digests are asked for next: all of its manifests are read first, beside the loop.
            For 100,000 of them the loop stood still longer than a worker may.
        :raises ApplianceError: APL-0305, APL-0314 when an index is damaged.
        """
        catalog = self._get()
        if repository is not None and not catalog.is_laid_out(repository):
            with self._laying:
                if not catalog.is_laid_out(repository):
                    run_in_thread(catalog.closure, repository)
        return catalog

    def _get(self) -> Catalog:
        if self._is_current():
            return self._known[2]
        # One renewal at a time: who waits here finds it done.
        with self._turn:
            return self._known[2] if self._is_current() else run_in_thread(self.renew)

    def renew(self) -> Catalog:
        """The same, read in the calling thread."""
        seeded, pushed, catalog = self._known
        now = self._generations.state(), self._pushes.state()
        if now != (seeded, pushed):
            catalog = Catalog(
                self._read(self._generations, catalog.generation) if now[0] != seeded else catalog.generation,
                self._blobs,
                self._read(self._pushes, catalog.pushed) if now[1] != pushed else catalog.pushed,
                before=catalog,
            )
            self._known = (*now, catalog)
        return catalog

    def _read(self, index: SignedIndex[T], before: T | None) -> T | None:
        """Return the names of an index; for a damaged one, the names before, until the agent has restored it.

        :raises ApplianceError: where what was read before is not what it listed last.
        """
        try:
            found = _lean(index.current())
        except ApplianceError as error:
            self._damaged.add(index)
            if before is None or not index.is_last(before):
                raise
            _LOG.error("%s; what was served before is served on", error)
            return before
        self._damaged.discard(index)
        return found

    @property
    def is_damaged(self) -> bool:
        """Return whether an index was found damaged when it was last read."""
        return bool(self._damaged)

    def _is_current(self) -> bool:
        return (self._generations.state(), self._pushes.state()) == self._known[:2]
