"""Seeding: a medium's images into the store, and then, in one switch, into what the site serves."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from appliance.archives.medium import Medium
from appliance.bundle.plan import Plan, Reading, check_consent, make_plan, read_sources
from appliance.config import Config
from appliance.errors import fail
from appliance.oci.manifests import Descriptor
from appliance.oci.mediatypes import PIECE_MAP
from appliance.oci.platforms import Platform
from appliance.store import form
from appliance.store.blobs import BlobStore
from appliance.store.closure import maps_needed, needed
from appliance.store.generations import Generation, Generations, lock, make
from appliance.store.journal import catch_up, record
from appliance.store.pins import Pins
from appliance.store.pushes import Pushes


@dataclass(frozen=True)
class Result:
    """What a seeding did.

    :param plan: what it was to change.
    :param generation: what is served now.
    :param published: whether that is new.
    :param bytes_written: bytes of the blobs that were not in the store; also where no name changes, such as after a
        restore, which brings names alone.
    """

    plan: Plan
    generation: Generation | None
    published: bool
    bytes_written: int = 0


def seed(
    config: Config,
    blobs: BlobStore,
    generations: Generations,
    pushes: Pushes,
    sources: Sequence[str],
    *,
    names: Sequence[str] = (),
    platforms: Iterable[Platform] = (),
    any_platform: bool = False,
    allow: Sequence[str] = (),
    expect: str | None = None,
    pins: Pins | None = None,
    move_pinned: Sequence[str] = (),
    deep: bool = False,
    medium: Medium | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Import every source and publish, or leave the current generation as it is.

    Blobs are written first, hashed and durable; names change last, by one rename. Whatever ends this in between
    (a signal, the power, a full disk, a bad source) leaves what was served; running it again writes only what is
    still missing.

    :param expect: id of the plan that was shown and confirmed; another outcome is refused (APL-0126).
    :param pins: names that move only by consent; each pin follows its name then.
    :param move_pinned: the consent; see :func:`appliance.bundle.plan.check_consent`.
    :param deep: unpack compressed layers of OCI layouts too, and hold them against their configs.
    :param medium: opens the sources; None: as this process may.
    :raises ApplianceError: as :func:`appliance.bundle.plan.read_sources`, and APL-0141, APL-0307, APL-0310, APL-0312.
    """
    if not config.is_publisher:
        fail(
            "APL-0312",
            "only the publisher makes generations",
            where=config.node,
            why=f"the publisher of this site is {config.publisher}",
            fix=f"Plug the medium into {config.publisher} and seed there",
        )
    with blobs.writing("a new store"):
        form.prepare(blobs)
        handle = lock(blobs.root)
    try:
        blobs.clear_incoming()
        current = generations.current()
        if current is not None:
            with blobs.writing("the journal"):
                catch_up(blobs.root, current)
                if pins is not None:
                    pins.follow(current.names)  # where the run before was ended between its switch and this
            blobs.mapped = {blob for blob, item in current.piece_maps.items() if blobs.has(item.digest)}
        reading = read_sources(
            sources,
            blobs,
            blobs.root,
            current,
            names=names,
            platforms=platforms,
            any_platform=any_platform,
            allow=allow,
            site_addresses=config.site_addresses,
            deep=deep,
            medium=medium,
            progress=progress,
        )
        plan = make_plan(reading, current, blobs, pushes.current(), pins.current() if pins else None)
        if expect is not None and plan.id != expect:
            fail(
                "APL-0126",
                "the medium or the store is not what the plan was made from",
                why=f"confirmed was plan {expect}, this would be plan {plan.id}",
                fix="Nothing was published. Make the plan again and look at it",
            )
        check_consent(plan, move_pinned)
        maps = dict(current.piece_maps) if current else {}
        for digest, piece_map in blobs.piece_maps.items():
            # Of a blob that was here already, and is named by nobody but the generation, only a map that was lost.
            if digest in reading.blobs and (not plan.is_empty or digest in maps):
                stored = blobs.put_bytes(piece_map.to_bytes())
                maps[digest] = Descriptor(PIECE_MAP, stored.digest, stored.size)
        if plan.is_empty:
            return Result(plan, current, False, blobs.bytes_written)
        following = make(
            current,
            plan.names_after,
            maps_needed(plan.names_after, maps, blobs),
            cause="seeding",
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            sources=reading.published_sources,
        )
        _prove(following, reading, blobs)
        with blobs.writing("the generation"):
            generations.publish(following)
        try:
            if pins is not None:
                pins.follow(following.names)
            record(blobs.root, following)
        except OSError as error:
            # It is published; the next seeding catches up on both.
            reading.notes.append(f"The pins or the journal could not be written: {error.strerror}.")
        generations.prune(config.keep_generations)
        return Result(plan, following, True, blobs.bytes_written)
    finally:
        os.close(handle)


def _prove(generation: Generation, reading: Reading, blobs: BlobStore) -> None:
    """Published means complete: every blob brought for a name is here, of its size, before the name becomes visible.

    Names that were published before are not looked at: on a seed that follows a lost publisher, some of their layers
    may lie on other nodes.
    """
    brought = replace(generation, names={name: generation.names[name] for name in reading.names})
    missing = [digest for digest, item in needed(brought, blobs).items() if blobs.size(digest) != item.descriptor.size]
    if missing:
        fail(
            "APL-0313",
            "not everything that the names need is in the store",
            where=str(blobs.root),
            why=", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else ""),
            fix="Nothing was published. Bring a medium that holds them, or run 'appliance fsck'",
        )
