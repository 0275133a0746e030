"""Rollback: the content of an older generation, published as a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from appliance.errors import fail
from appliance.oci.manifests import Descriptor
from appliance.publish.approval import Consent
from appliance.publish.merge import some
from appliance.publish.plan import Plan
from appliance.publish.publisher import Publisher, Result, check_expected
from appliance.publish.reading import Reading
from appliance.publish.referrers import Brought, Reach, reach_of
from appliance.store.blobs import BlobStore
from appliance.store.diff import Changes
from appliance.store.generations import Generation
from appliance.store.history import Held
from appliance.store.index import Entry
from appliance.store.pins import Pinned
from appliance.store.pushes import Pushed
from appliance.store.reachability import reader, walk


@dataclass(frozen=True)
class Rollback:
    """Changes that a rollback would make, and the names that it cannot restore.

    :param target: the generation whose content is published anew.
    :param plan: the change, as that of a seeding.
    :param missing: names that it would bring back and of which blobs are not here any more, with those.
    """

    target: Generation
    plan: Plan
    missing: Mapping[str, tuple[str, ...]]

    def as_dict(self) -> dict[str, Any]:
        """As ``appliance rollback --json`` prints it."""
        return {
            **self.plan.as_dict(),
            "target": self.target.summary,
            "missing": [{"name": name, "blobs": list(blobs)} for name, blobs in self.missing.items()],
        }

    def check(self, blobs: BlobStore) -> None:
        """Refuse (APL-0354) what cannot be brought back whole."""
        if self.missing:
            fail(
                "APL-0354",
                f"generation {self.target.number} cannot be brought back: blobs of it are not here any more",
                where=str(blobs.root),
                why="; ".join(f"{name} lacks {', '.join(lost)}" for name, lost in self.missing.items()),
                fix="Nothing was changed. Seed the medium that brought them "
                f"({', '.join(self.target.sources) or 'not known'}), or go back to a generation that 'appliance history' "
                "shows as complete",
            )


def make_rollback(
    target: Generation,
    current: Generation,
    blobs: BlobStore,
    pushed: Pushed | None = None,
    pinned: Pinned | None = None,
) -> Rollback:
    """Hold an older generation against what is served now."""
    changes = Changes.between(current.names, target.names)
    back = {name: target.names[name] for name in (*changes.added, *changes.moved, *changes.completed)}
    reading = Reading(names=back, sizes={name: _size(entry, blobs) for name, entry in back.items()})
    # What stays as it is may have layers that other nodes hold and this one does not.
    held = Held(blobs)
    missing = held.missing(back)
    if target.referrers or current.referrers:
        _add_referrers(reading, target, held, blobs)
    reach = reach_of(current, blobs) if target.referrers or current.referrers else Reach()
    return Rollback(target, Plan(current, reading, 0, pushed, pinned, tuple(changes.removed), reach=reach), missing)


def _add_referrers(reading: Reading, target: Generation, held: Held, blobs: BlobStore) -> None:
    """Bring back the signatures that an older generation had, as far as they are here; the ones of today stay as well."""
    reach = reach_of(target, blobs)
    reading.manifests |= {name: reach.names[name] for name in reading.names}
    gone = held.missing({digest: item.entry for digest, item in target.referrers.items()})
    reading.referrers = {
        digest: Brought(item, reach.referrers[digest])
        for digest, item in target.referrers.items()
        if digest not in gone
    }
    if gone:
        reading.notes.append(f"Signatures and attestations whose blobs are not here any more stay away: {some(gone)}.")


def roll_back(
    publisher: Publisher,
    choose: Callable[[], Generation],
    *,
    expect: str | None = None,
    consent: Consent | None = None,
) -> tuple[Rollback, Result]:
    """Publish the content of an older generation as a new one, or nothing where it is served already.

    :param choose: gives the older generation; see :func:`appliance.store.history.find`.
    :param expect: id of the plan that was shown and confirmed; another outcome is refused (APL-0126).
    :param consent: which pinned names may move.
    :raises ApplianceError: what ``choose`` raises, APL-0354 for what cannot be brought back, APL-0141 and APL-0154 for pinned names; and as
        :class:`Publisher`.
    """
    store, agreed = publisher.store, consent or Consent()
    with publisher.changing() as current:
        target = choose()
        assert current is not None  # there is an older one
        found = make_rollback(target, current, store.blobs, store.pushes.current(), store.pins.current())
        check_expected(found.plan, expect)
        found.check(store.blobs)
        shown = found.plan.as_dict()
        agreed.check(shown)
        if found.plan.is_empty:
            return found, Result(found.plan, current, False)
        result = publisher.publish(
            found.plan,
            _piece_maps(target, current, store.blobs),
            cause="rollback",
            sources=target.sources,
            media=target.media,
            target={"number": target.number, "digest": target.digest},
            consent=agreed.used(shown),
        )
        return found, result


def _piece_maps(target: Generation, current: Generation, blobs: BlobStore) -> dict[str, Descriptor]:
    """Those of both that are here: what a blob is served without, where its map was collected, is only speed."""
    maps = {**target.piece_maps, **current.piece_maps}
    return {blob: item for blob, item in maps.items() if blobs.size(item.digest) == item.size}


def _size(entry: Entry, blobs: BlobStore) -> int:
    return sum(item.descriptor.size for item in walk(entry, reader(blobs)))
