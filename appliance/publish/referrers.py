"""Signatures and attestations, which are served where their subject is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from appliance.oci.blob import BlobReader
from appliance.store.generations import Generation
from appliance.store.index import Entry, Referrer
from appliance.store.reachability import reader, walk

Allows = Callable[[str, str], bool]
"""Tells whether a source may bring something for a name."""


@dataclass(frozen=True)
class Brought:
    """A referrer that a source brings.

    :param manifests: digests of its own manifest and of those below it; each may be referred to in its turn.
    :param file: the archive that it is in.
    :param source: what the operator named: the file, or a directory above it.
    :param kind: its ``artifactType``, as the list of referrers has it; empty where it has none.
    :param blobs: size in bytes of every blob that it needs and the source brought, its manifest included.
    """

    referrer: Referrer
    manifests: frozenset[str]
    file: str = ""
    source: str = ""
    kind: str = ""
    blobs: Mapping[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of its manifest."""
        return self.referrer.entry.descriptor.digest


@dataclass(frozen=True)
class LeftOut:
    """A referrer that is on a medium and is not served."""

    file: str
    digest: str
    subject: str
    kind: str
    why: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """One sentence for the operator."""
        kind = f" ({self.kind[:100]})" if self.kind else ""
        return f"{self.file}: left out: {self.digest}{kind}, which refers to {self.subject}: {self.why}."


@dataclass(frozen=True)
class Reach:
    """The manifests that a generation's names and referrers reach.

    :param names: name to the digests of its manifest and of those below it.
    :param referrers: digest of a referrer to the same of its own.
    :param is_whole: whether all of them could be read; what others reach is not known otherwise.
    """

    names: Mapping[str, frozenset[str]] = field(default_factory=dict)
    referrers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    is_whole: bool = True


def reach_of(generation: Generation | None, blobs: BlobReader) -> Reach:
    """Read what a generation's names and referrers reach; each entry once, however many names it has."""
    if generation is None:
        return Reach()
    known: dict[tuple[str, frozenset[str]], tuple[frozenset[str], bool]] = {}

    def follow(entry: Entry) -> frozenset[str]:
        key = (entry.descriptor.digest, entry.absent)
        if key not in known:
            items = [item for item in walk(entry, reader(blobs)) if item.is_manifest]
            digests = frozenset(item.descriptor.digest for item in items)
            known[key] = digests, not any(item.is_lost for item in items)
        return known[key][0]

    names = {name: follow(entry) for name, entry in generation.names.items()}
    referrers = {digest: follow(item.entry) for digest, item in generation.referrers.items()}
    return Reach(names, referrers, all(is_whole for _, is_whole in known.values()))


@dataclass(frozen=True)
class Attached:
    """Selection of the referrers that are served.

    :param referrers: those that are, by digest.
    :param names: digest of a referrer to the names that serve what it refers to.
    :param left_out: those of the medium that are not.
    """

    referrers: Mapping[str, Referrer]
    names: Mapping[str, tuple[str, ...]]
    left_out: tuple[LeftOut, ...]


def attach(
    reached: Mapping[str, frozenset[str]],
    held: Mapping[str, Brought],
    brought: Mapping[str, Brought],
    *,
    allows: Allows,
    pushed: frozenset[str] = frozenset(),
    keep_all: bool = False,
) -> Attached:
    """Find the referrers whose subject is reached by a name, or by another referrer that is.

    :param reached: name to the digests of the manifests that it reaches.
    :param held: what is served now.
    :param brought: what the sources bring.
    :param allows: tells what a source may bring.
    :param pushed: digests of the manifests that operators pushed, for the reason of what is left out.
    :param keep_all: keep what is served now, since it is not known what its names reach.
    """
    candidates = {**brought, **held}
    by_subject: dict[str, list[Brought]] = {}
    for item in candidates.values():
        by_subject.setdefault(item.referrer.subject, []).append(item)
    owners: dict[str, list[str]] = {}
    for name, digests in sorted(reached.items()):
        for digest in digests:
            owners.setdefault(digest, []).append(name)
    found: dict[str, Referrer] = {}
    names: dict[str, tuple[str, ...]] = {}
    refused: set[str] = set()
    pending = list(owners)
    while pending:
        subject = pending.pop()
        for item in by_subject.get(subject, ()):
            if item.digest in found:
                continue
            if item.digest not in held and not any(allows(item.source, name) for name in owners[subject]):
                refused.add(item.digest)
                continue
            found[item.digest] = item.referrer
            names[item.digest] = tuple(owners[subject])
            for digest in item.manifests - owners.keys():
                owners[digest] = owners[subject]
                pending.append(digest)
    if keep_all:
        found |= {digest: item.referrer for digest, item in held.items()}
    left_out = [
        LeftOut(item.file, digest, item.referrer.subject, item.kind, _why(item, refused, pushed))
        for digest, item in sorted(brought.items())
        if digest not in found
    ]
    return Attached(found, names, tuple(left_out))


def _why(item: Brought, refused: set[str], pushed: frozenset[str]) -> str:
    if item.digest in refused:
        return "its source may bring nothing for that image (--allow, seed_allow)"
    if item.referrer.subject in pushed:
        return "an operator pushed that image; push its signatures to the same repository"
    return "that image is neither on the site nor among what is taken from the medium; bring both, or the image first"
