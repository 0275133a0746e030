"""What the site serves, in memory: a tag, a repository or a miss is answered without asking anybody."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from appliance.oci.manifests import Descriptor, Manifest
from appliance.oci.names import parse_reference
from appliance.store.blobs import BlobStore
from appliance.store.closure import Needed, reader, walk
from appliance.store.generations import Entry, Generation, Generations


@dataclass(slots=True)
class Repository:
    """The tags of one repository, and lazily all that they reach.

    :param tags: tag to descriptor.
    :param entries: every name of the repository, those by digest included.
    """

    tags: dict[str, Descriptor] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    closure: Mapping[str, Needed] | None = None


class Catalog:
    """One generation, laid out for looking up; it never changes.

    :param generation: the generation served, None for an empty store.
    :param blobs: where the manifests are read from when a repository is first asked for.
    """

    def __init__(self, generation: Generation | None, blobs: BlobStore) -> None:
        self.generation = generation
        self._blobs = blobs
        self._repositories: dict[str, Repository] = {}
        for name, entry in generation.names.items() if generation else ():
            reference = parse_reference(name)
            repository = self._repositories.setdefault(reference.name, Repository())
            repository.entries.append(entry)
            if reference.tag is not None:
                repository.tags[reference.tag] = entry.descriptor
        self._sorted = sorted(self._repositories)

    def repositories(self) -> list[str]:
        """Full names (``docker.io/library/nginx``) in ASCII order; not to be changed."""
        return self._sorted

    def registries(self) -> list[str]:
        """The registries that names of this generation carry, sorted."""
        return sorted({name.split("/", 1)[0] for name in self._repositories})

    def tags(self, repository: str) -> dict[str, Descriptor] | None:
        """Tag to descriptor, None for a repository the site does not know."""
        found = self._repositories.get(repository)
        return None if found is None else found.tags

    def closure(self, repository: str) -> Mapping[str, Needed]:
        """Everything the repository's names reach, by digest; what is not in it is not served under its name."""
        found = self._repositories.get(repository)
        if found is None:
            return {}
        if found.closure is None:
            closure: dict[str, Needed] = {}
            whole = True
            read = reader(self._blobs)
            for entry in found.entries:
                for item in walk(entry, read):
                    closure.setdefault(item.descriptor.digest, item)
                    whole = whole and (item.manifest is not None or not item.is_manifest)
            if not whole:
                # A manifest that is lost here may be back before the next request.
                return closure
            found.closure = closure
        return found.closure

    def manifest(self, repository: str, reference: str) -> Descriptor | None:
        """The descriptor of a manifest by tag or digest, None when the site does not have it."""
        found = self._repositories.get(repository)
        if found is None:
            return None
        if ":" not in reference:
            return found.tags.get(reference)
        item = self.closure(repository).get(reference)
        return item.descriptor if item is not None and item.is_manifest else None

    def blob(self, repository: str, digest: str) -> Descriptor | None:
        """The descriptor of a config or layer, or of a manifest asked for as a blob; None when not served there."""
        item = self.closure(repository).get(digest)
        return None if item is None else item.descriptor

    def referrers(self, repository: str, digest: str) -> Iterator[tuple[Descriptor, Manifest]]:
        """The manifests of the repository whose subject is ``digest``, in ASCII order of their digests."""
        for _, item in sorted(self.closure(repository).items()):
            manifest = item.manifest
            if manifest is not None and manifest.subject is not None and manifest.subject.digest == digest:
                yield item.descriptor, manifest


class CurrentCatalog:
    """The catalog of the store's current generation, renewed when ``index.json`` is replaced.

    One ``stat`` a request tells: a rename gives the file another inode and time, so no signal between processes is
    needed and nothing can be missed.
    """

    def __init__(self, blobs: BlobStore, generations: Generations) -> None:
        self._blobs = blobs
        self._generations = generations
        self._index = str(generations.index)
        self._seen: tuple[int, int, int] | None = None
        self._catalog = Catalog(None, blobs)

    def get(self) -> Catalog:
        """The catalog of what is current now.

        :raises ApplianceError: APL-0305 when ``index.json`` is damaged.
        """
        status = os.stat(self._index)
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            self._catalog = Catalog(self._generations.current(), self._blobs)
            self._seen = seen
        return self._catalog
