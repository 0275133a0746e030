"""Impact of a lost blob: the images that it breaks, and the medium that brought it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from appliance.store.generations import Generation
from appliance.store.index import Entry
from appliance.store.marking import Marker, Root
from appliance.store.reachability import reader
from appliance.store.store import Store

_SHOWN = 5


@dataclass(frozen=True)
class Lost:
    """A blob that cannot be had any more.

    :param images: names that need it: those that are served, else those of the newest generation that has any.
    :param medium: what brought it, in words.
    """

    digest: str
    images: tuple[str, ...]
    medium: str

    def as_dict(self) -> dict[str, Any]:
        """As ``appliance status --json`` prints it."""
        return {"digest": self.digest, "images": list(self.images), "medium": self.medium}

    def words(self) -> str:
        """Return the broken images and the medium in one line."""
        some = ", ".join(self.images[:_SHOWN]) or "no name that is known here"
        more = f" and {len(self.images) - _SHOWN} more" if len(self.images) > _SHOWN else ""
        return f"it breaks {some}{more}; it came from {self.medium}"


def blame(digests: Iterable[str], store: Store) -> dict[str, Lost]:
    """For each of some digests what it breaks, and its medium.

    :raises ApplianceError: APL-0305 or APL-0314 for a damaged index.
    """
    marker, kept, pushed = Marker(reader(store.blobs)), store.generations.kept(), store.pushes.current()
    wanted = set(digests)
    named = [(generation, _needing(dict(generation.entries), wanted, marker, shallow=False)) for generation in kept]
    operators = _needing(pushed.names if pushed else {}, wanted, marker, shallow=True)
    found = {}
    for digest in sorted(wanted):
        users = [(generation, names[digest]) for generation, names in named if digest in names]
        images = {*(users[-1][1] if users else ()), *operators.get(digest, ())}
        first = users[0][0] if users else None
        tagged = tuple(sorted(name for name in images if "@" not in name) or sorted(images))
        found[digest] = Lost(digest, tagged, _medium(first, kept, pushed=digest in operators))
    return found


def _needing(names: dict[str, Entry] | Any, wanted: set[str], marker: Marker, *, shallow: bool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, entry in names.items():
        for digest in wanted.intersection(marker.reaches(Root("", name, entry, shallow=shallow))):
            found.setdefault(digest, []).append(name)
    return found


def _medium(first: Generation | None, kept: list[Generation], *, pushed: bool) -> str:
    if first is None:
        return "a push of an operator" if pushed else "a medium that is not known here"
    sources = "; ".join(first.origin) or "no source that was noted"
    # What the oldest one that is kept needs may have come with any before it.
    before = " or before" if first.digest == kept[0].digest and first.number > 1 else ""
    return f"{sources} (generation {first.number} of {first.created}{before})"
