"""Pinned names: a medium moves one only with the operator's consent, and their images are always kept.

They are a third index of the form of a generation, ``pins.json``, signed by the publisher and followed by every node: each
keeps what is pinned, and a seed that follows a lost publisher knows what may not move. Each name is listed with what it
pointed to when it was pinned or last moved by consent, so that what is kept is known even where the name itself has left.

Decision 43.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from appliance.errors import fail
from appliance.oci.reference import parse_reference
from appliance.store.auditlog import note
from appliance.store.blobs import BlobStore
from appliance.store.counted import Counted, CountedIndex
from appliance.store.generations import Generations
from appliance.store.index import Entry
from appliance.store.locks import names_locked
from appliance.times import now
from appliance.trust import Trust

_SIGNATURES = 4


class Pinned(Counted):
    """One state of the pins; each name with what is kept for it. Piece maps of the generation serve."""

    KIND = "pins"


def parse(raw: bytes, where: str) -> Pinned:
    """Read an index of pins.

    :raises ApplianceError: APL-0331 when the bytes are none.
    """
    return Pinned.read(raw, lambda why: _damaged(where, why))


def _damaged(where: str, why: str) -> NoReturn:
    fail(
        "APL-0331",
        "this is not a valid index of pins",
        where=where,
        why=why,
        fix="The agent puts it back within half a minute, from another node; see the runbook where it does not",
    )


class Pins(CountedIndex[Pinned]):
    """The pins of one store, ``pins.json``, and the one way to change them; only under the store's lock."""

    def __init__(self, blobs: BlobStore, trust: Trust) -> None:
        super().__init__(blobs, trust, Pinned, parse, _damaged, keep=_SIGNATURES)

    def follow(self, served: Mapping[str, Entry]) -> None:
        """Let every pin keep what its name points to now: names move only by consent, and the pin moves along.

        The journal says which did.
        """
        current = self.current()
        if current is None:
            return
        following = {name: served.get(name, entry) for name, entry in current.names.items()}
        if following != current.names:
            moved = {
                name: entry.descriptor.digest
                for name, entry in following.items()
                if entry.descriptor.digest != current.names[name].descriptor.digest
            }
            # The line first, as in _change.
            if moved:
                line = {"action": "move-pinned", "time": now(), "names": list(moved), "digests": moved}
                note(self.index.parent, line)
            self.replace(following)


def pin(blobs: BlobStore, generations: Generations, pins: Pins, texts: Sequence[str]) -> list[str]:
    """Pin names of the current generation; returns those that were not pinned before, written out in full.

    :raises ApplianceError: APL-0332 for a name that the generation does not have, or not with that digest, APL-0202 for no name at all,
        APL-0307 while a seeding runs.
    """
    with _changing(blobs):
        current = generations.current()
        served = current.names if current else {}
        asked = [parse_reference(text, where="the command line") for text in texts]
        wanted = [reference.key for reference in asked]
        # "web:5@sha256:..." means that image and no other: what moved meanwhile is not pinned in its place.
        unknown = sorted(
            {
                str(reference)
                for reference in asked
                if reference.key not in served
                or reference.digest not in (None, served[reference.key].descriptor.digest)
            }
        )
        if unknown:
            fail(
                "APL-0332",
                "only names of the generation that is served can be pinned",
                where=str(blobs.root),
                why=f"not there: {', '.join(unknown)}",
                fix="'appliance images' lists them; what operators pushed is kept until they delete it",
            )
        before = _names(pins)
        return _change(blobs, pins, before, {**before, **{name: served[name] for name in wanted}}, "pin")


def unpin(blobs: BlobStore, pins: Pins, texts: Sequence[str]) -> list[str]:
    """Take pins away; returns their names, written out in full.

    :raises ApplianceError: APL-0333 for a name that is not pinned, APL-0202 for no name at all, APL-0307 while a
        seeding runs.
    """
    with _changing(blobs):
        before = _names(pins)
        wanted = [_key(text) for text in texts]
        unknown = sorted({name for name in wanted if name not in before})
        if unknown:
            fail(
                "APL-0333",
                "these names are not pinned",
                where=str(blobs.root),
                why=f"{', '.join(unknown)}; pinned: {', '.join(before) or 'nothing'}",
                fix="'appliance images' marks what is pinned; nothing was changed",
            )
        after = {name: entry for name, entry in before.items() if name not in wanted}
        return _change(blobs, pins, before, after, "unpin")


def _names(pins: Pins) -> dict[str, Entry]:
    current = pins.current()
    return dict(current.names) if current else {}


def _change(
    blobs: BlobStore, pins: Pins, before: Mapping[str, Entry], after: Mapping[str, Entry], action: str
) -> list[str]:
    changed = sorted(set(before) ^ set(after))
    if before != after:
        # The line first: ended between the two, doing it again does it and says so again; after it, nothing would be left to do.
        note(blobs.root, {"action": action, "time": now(), "names": changed})
        pins.replace(after)
    return changed


def _key(text: str) -> str:
    return parse_reference(text, where="the command line").key


@contextlib.contextmanager
def _changing(blobs: BlobStore) -> Iterator[None]:
    """Hold the store's lock: pins change neither beside each other nor under a seeding."""
    with names_locked(blobs.root), blobs.disk_errors("the pins"):
        yield
