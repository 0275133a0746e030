"""Seeding: a medium's images into the store, and then, in one switch, into what the site serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from appliance.archives.medium import Medium
from appliance.bundle.consent import Consent
from appliance.bundle.plan import make_plan
from appliance.bundle.publish import Publisher, Result, check_expected
from appliance.bundle.reading import Reading, read_sources
from appliance.bundle.removal import names_to_remove
from appliance.config import Config
from appliance.oci.manifests import Descriptor
from appliance.oci.mediatypes import PIECE_MAP
from appliance.oci.platforms import Platform
from appliance.store.blobs import BlobStore
from appliance.store.generations import Generation, Generations
from appliance.store.pins import Pins
from appliance.store.pushes import Pushes


def seed(
    config: Config,
    blobs: BlobStore,
    generations: Generations,
    pushes: Pushes,
    sources: Sequence[str],
    *,
    names: Sequence[str] = (),
    platforms: Iterable[Platform] = (),
    allow: Sequence[str] = (),
    remove: Sequence[str] = (),
    expect: str | None = None,
    pins: Pins | None = None,
    consent: Consent | None = None,
    deep: bool = False,
    medium: Medium | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Import every source and publish, or leave the current generation as it is.

    Blobs are written first, hashed and durable; names change last, by one rename. Whatever ends this in between
    (a signal, the power, a full disk, a bad source) leaves what was served; running it again writes only what is
    still missing.

    :param remove: names that leave; see :func:`appliance.bundle.removal.names_to_remove`.
    :param expect: id of the plan that was shown and confirmed; another outcome is refused (APL-0126).
    :param pins: names that move only by consent; each pin follows its name then.
    :param consent: what the operator agreed to.
    :param deep: unpack compressed layers of OCI layouts too, and hold them against their configs.
    :param medium: opens the sources; None: as this process may.
    :raises ApplianceError: as :func:`appliance.bundle.reading.read_sources`, :meth:`Consent.check` and
        :class:`Publisher`, and APL-0153.
    """
    agreed = consent or Consent()
    publisher = Publisher(config, blobs, generations, pins)
    with publisher.changing() as current:
        if current is not None:
            blobs.mapped = {blob for blob, item in current.piece_maps.items() if blobs.has(item.digest)}
        reading = read_sources(
            sources,
            blobs,
            blobs.root,
            current,
            names=names,
            platforms=platforms,
            any_platform=agreed.any_platform,
            allow=allow,
            site_addresses=config.site_addresses,
            site=config.site,
            other_site=agreed.other_site,
            deep=deep,
            medium=medium,
            progress=progress,
        )
        history = generations.newest_first
        removed = names_to_remove(remove, reading, current, history, blobs.root, config.site_addresses)
        plan = make_plan(
            reading,
            current,
            blobs,
            pushes.current(),
            pins.current() if pins else None,
            removed=removed,
            history=history,
        )
        check_expected(plan, expect)
        shown = plan.as_dict()
        agreed.check(shown)
        maps = _piece_maps(blobs, reading, current, also_new=not plan.is_empty)
        if plan.is_empty:
            return Result(plan, current, False, blobs.bytes_written)
        return publisher.publish(
            plan,
            maps,
            cause="seeding",
            sources=reading.published_sources,
            media=reading.media,
            consent=agreed.used(shown),
        )


def _piece_maps(
    blobs: BlobStore, reading: Reading, current: Generation | None, *, also_new: bool
) -> dict[str, Descriptor]:
    """Those of the current generation, with the ones that a lost store lacked, and of the big layers that came.

    :param also_new: whether there will be a generation that can list those.
    """
    maps = dict(current.piece_maps) if current else {}
    for digest, piece_map in blobs.piece_maps.items():
        if digest in reading.blobs and (also_new or digest in maps):
            stored = blobs.put_bytes(piece_map.to_bytes())
            maps[digest] = Descriptor(PIECE_MAP, stored.digest, stored.size)
    return maps
