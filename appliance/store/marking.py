"""Marks of the garbage collector: what each root reaches. Pure; the roots and a reader are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from appliance.oci.manifests import Descriptor
from appliance.store.index import Entry
from appliance.store.reachability import Needed, reach, walk

Read = Callable[[Descriptor], "bytes | None"]


@dataclass(frozen=True, slots=True)
class Root:
    """One reason why blobs stay.

    :param kind: ``generations``, ``pushes``, ``pins``, ``running`` or ``uploads``: what the reasons are summed up by.
    :param label: what it is called in an error, such as ``docker.io/library/a:1 of generation 4``.
    :param entry: what it points to.
    :param leaf: a single blob that lists nothing, such as a piece map.
    :param shallow: one manifest and its blobs; what it lists was pushed, and is named, by itself.
    """

    kind: str
    label: str
    entry: Entry
    leaf: bool = False
    shallow: bool = False


@dataclass
class Marks:
    """Blobs that the roots reach, and why.

    :param reached: digests by kind of the roots that reach them.
    :param lost: manifests that could not be read, each with a root that needs it: what they list is not known.
    """

    reached: dict[str, set[str]] = field(default_factory=dict)
    lost: dict[str, Root] = field(default_factory=dict)

    def __contains__(self, digest: object) -> bool:
        """Return whether any root reaches the blob."""
        return any(digest in digests for digests in self.reached.values())


class Marker:
    """Follows roots to what they reach, and remembers it: a second marking reads only what is new.

    :param read: gives the bytes of a manifest that were held against its digest, None where there are none.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._known: dict[tuple[str, frozenset[str], bool], tuple[str, ...]] = {}

    def mark(self, roots: Iterable[Root]) -> Marks:
        """Everything that the roots reach."""
        marks = Marks()
        done: set[tuple[str, str, frozenset[str], bool]] = set()
        for root in roots:
            entry = root.entry
            reached = marks.reached.setdefault(root.kind, set())
            if root.leaf:
                reached.add(entry.descriptor.digest)
                continue
            # The names of three generations point mostly to the same.
            key = (root.kind, entry.descriptor.digest, entry.absent, root.shallow)
            if key in done:
                continue
            done.add(key)
            found, lost = self._reach(root)
            reached.update(found)
            for digest in lost:
                marks.lost.setdefault(digest, root)
        return marks

    def reaches(self, root: Root) -> Collection[str]:
        """The digests that one root reaches, as far as its manifests can be read."""
        return self._reach(root)[0]

    def _reach(self, root: Root) -> tuple[tuple[str, ...], list[str]]:
        entry = root.entry
        key = (entry.descriptor.digest, entry.absent, root.shallow)
        known = self._known.get(key)
        if known is not None:
            return known, []
        items: list[Needed] = list(reach(entry, self._read) if root.shallow else walk(entry, self._read))
        found = tuple(item.descriptor.digest for item in items)
        lost = [item.descriptor.digest for item in items if item.is_lost]
        if not lost:
            self._known[key] = found
        return found, lost


def exclusive(reached: Mapping[str, Collection[str]], sizes: Mapping[str, int]) -> dict[str, int]:
    """Bytes that each of some labels alone reaches: what going without it would free.

    :param reached: label to the digests that it reaches; a label that stands for several names has them together.
    :param sizes: bytes of what lies here, by digest.
    """
    owners = Counter(digest for digests in reached.values() for digest in set(digests))
    return {
        label: sum(sizes.get(digest, 0) for digest in set(digests) if owners[digest] == 1)
        for label, digests in reached.items()
    }
