"""Downgrades: changes that take the site back to something older. The operator is asked for each.

Decision 27.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from appliance.archives.label import Label
from appliance.publish.reading import Reading
from appliance.store.diff import Changes
from appliance.store.generations import Generation
from appliance.times import parse_time


@dataclass(frozen=True)
class StepBack:
    """A name that would move to what it was before it became what it is.

    :param number: the last generation that served it so.
    """

    name: str
    old: str
    new: str
    number: int


@dataclass(frozen=True)
class OlderMedium:
    """A medium that brings something, and was made before another one that was published here.

    :param newest: when that one was made.
    """

    label: Label
    newest: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"id": self.label.id, "created": self.label.created, "newest": self.newest}


History = Callable[[], Iterable[Generation]]
"""Gives the generations that were served, the newest first, one at a time."""


def find_steps_back(moved: Mapping[str, tuple[str, str]], history: History) -> list[StepBack]:
    """Names that move to what an earlier generation served, where what they are now came later.

    What counts is which of the two came first: after a rollback the way forward again is no step back.
    """
    first: dict[tuple[str, str], int] = {}
    last: dict[tuple[str, str], int] = {}
    for generation in history() if moved else ():
        for name in moved:
            entry = generation.names.get(name)
            if entry is not None and entry.descriptor.digest in moved[name]:
                key = (name, entry.descriptor.digest)
                first[key] = generation.number
                last.setdefault(key, generation.number)
    return [
        StepBack(name, old, new, last[name, new])
        for name, (old, new) in moved.items()
        if (name, new) in first and first[name, new] < first.get((name, old), 0)
    ]


def find_older_media(reading: Reading, changes: Changes, history: History) -> dict[str, OlderMedium]:
    """Sources that change a name and were made before the newest medium that was published here."""
    changed = {reading.origins.get(name) for name in (*changes.added, *changes.moved, *changes.completed)}
    bringing = {source: label for source, label in reading.labels.items() if source in changed}
    newest = max(_published(history), key=parse_time, default=None) if bringing else None
    if newest is None:
        return {}
    before = parse_time(newest)
    return {source: OlderMedium(label, newest) for source, label in bringing.items() if label.time < before}


def _published(history: History) -> Iterator[str]:
    """When the media were made that were published here, as far as they say so in a way that is understood."""
    for generation in history():
        for label in generation.media.values():
            with contextlib.suppress(KeyError, ValueError):
                parse_time(label["created"])
                yield label["created"]
