"""History of what was served: the kept generations, and the audit log for older ones.

Decision 26.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

from appliance.errors import fail
from appliance.store.auditlog import publications
from appliance.store.blobs import BlobStore
from appliance.store.diff import Changes
from appliance.store.generations import Generation, Generations
from appliance.store.index import Entry
from appliance.store.reachability import reader, walk
from appliance.times import parse_time

_LISTED = 20
_UNTOLD = dict.fromkeys(
    ("added", "moved", "completed", "removed", "referrers_added", "referrers_removed"),
)


class Held:
    """Names whose blobs are in a store. Each entry is checked once, however many generations have it."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._known: dict[tuple[str, frozenset[str]], tuple[str, ...]] = {}

    def missing(self, names: Mapping[str, Entry]) -> dict[str, tuple[str, ...]]:
        """The names of which something is not here, with its digests."""
        return {name: lost for name, entry in names.items() if (lost := self._missing(entry))}

    def _missing(self, entry: Entry) -> tuple[str, ...]:
        key = entry.descriptor.digest, entry.absent
        if key not in self._known:
            needed = walk(entry, reader(self._blobs))
            # A manifest that is damaged is there and lost all the same: what it lists is not known.
            self._known[key] = tuple(
                item.descriptor.digest
                for item in needed
                if item.is_lost or self._blobs.size(item.descriptor.digest) != item.descriptor.size
            )
        return self._known[key]


def history(generations: Generations, blobs: BlobStore, keep: int) -> list[dict[str, Any]]:
    """Every generation that is known, oldest first, as ``appliance history --json`` prints them.

    ``state`` is ``current``, ``complete`` (its blobs are kept), ``kept`` (its bytes are) or ``forgotten`` (the audit log alone
    knows it). ``missing`` are the blobs that are not here; None where that is not known. What a generation changed is None
    where nothing tells any more.

    :param keep: how many generations stay complete.
    """
    rows = {line["number"]: _forgotten(line) for line in publications(blobs.root) if type(line.get("number")) is int}
    held = Held(blobs)
    newest: Generation | None = None
    later: Generation | None = None
    for generation in generations.newest_first():
        newest = newest or generation
        if later is not None and later.parent == generation.digest:
            rows[later.number] |= Changes.of(generation, later).as_dict()
        told = {key: rows.get(generation.number, _UNTOLD)[key] for key in _UNTOLD}
        lost = held.missing(dict(generation.entries)).values()
        rows[generation.number] = {
            **generation.summary,
            "cause": generation.cause,
            "by": generation.by or rows.get(generation.number, {}).get("by"),
            "state": _state(generation, newest, keep),
            "missing": sorted({digest for digests in lost for digest in digests}),
            **told,
        }
        later = generation
    if later is not None and later.parent is None:
        rows[later.number] |= Changes.of(None, later).as_dict()
    return [rows[number] for number in sorted(rows)]


def _state(generation: Generation, newest: Generation, keep: int) -> str:
    """By numbers, as :meth:`Generations.complete` counts: a follower that skipped some keeps no older ones for that."""
    if generation is newest:
        return "current"
    return "complete" if generation.number > newest.number - keep else "kept"


def _forgotten(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "number": line["number"],
        "digest": line["digest"],
        "created": line.get("created"),
        "sources": line["sources"],
        "medium": line.get("media") or {},
        "cause": line.get("cause"),
        "by": line.get("by"),
        "state": "forgotten",
        "missing": None,
        **{key: line.get(key) for key in _UNTOLD},
    }


def find(
    generations: Generations, *, to: int | None = None, at: str | None = None, medium: str | None = None
) -> Generation:
    """The generation that somebody means; exactly one of the three is given.

    :param to: its number.
    :param at: a time of ISO 8601: what was served then, as the publisher's clock had it.
    :param medium: a source, or the id, label or UUID of a medium: the last one made from it.
    :raises ApplianceError: APL-0352 where there is none, with those that there are; APL-0353 for what is no time.
    """
    wanted: Callable[[Generation], bool]
    if at is not None:
        moment = _moment(at)
        wanted, asked = lambda item: _is_served_before(item, moment), f"none was served at {at}"
    elif medium is not None:
        wanted, asked = lambda item: item.comes_from(medium), f"none was made from {medium}"
    else:
        wanted, asked = lambda item: item.number == to, f"none has the number {to}"
    found = next(filter(wanted, generations.newest_first()), None)
    if found is None:
        _not_there(generations, asked)
    return found


def _not_there(generations: Generations, asked: str) -> NoReturn:
    there = [
        f"{generation.number} of {generation.created} from {'; '.join(generation.origin) or 'nothing'}"
        for generation in generations.newest_first()
    ]
    more = f"; and {len(there) - _LISTED} more" if len(there) > _LISTED else ""
    fail(
        "APL-0352",
        "the generation does not exist",
        where=str(generations.index.parent),
        why=f"{asked}; there are: {' | '.join(there[:_LISTED]) or 'none'}{more}",
        fix="Nothing was changed. 'appliance history' shows them all, and what each of them changed",
    )


def _moment(text: str) -> datetime:
    try:
        return parse_time(text)
    except ValueError:
        fail(
            "APL-0353",
            "invalid time",
            where=text[:50],
            fix="Write it as 2026-04-01T08:00, in UTC, or with an offset as 2026-04-01T10:00+02:00",
        )


def _is_served_before(generation: Generation, moment: datetime) -> bool:
    with contextlib.suppress(ValueError):
        return parse_time(generation.created) <= moment
    return False
