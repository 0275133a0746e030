"""Seeding: the images of a medium go into the store, and then their names are published together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from appliance.archives.left_out import MOST_LOGGED
from appliance.archives.medium import Medium
from appliance.archives.sink import BlobSink, HashingSink
from appliance.errors import ApplianceError
from appliance.lease import Lease
from appliance.oci.manifests import Descriptor
from appliance.oci.platforms import Platform
from appliance.publish.approval import Consent
from appliance.publish.downgrades import History
from appliance.publish.plan import Plan, make_plan
from appliance.publish.publisher import Publisher, Result, check_expected
from appliance.publish.read_media import read_sources
from appliance.publish.reading import Reading
from appliance.publish.removal import names_to_remove
from appliance.publish.staging import Staging
from appliance.store.generations import Generation
from appliance.store.store import Store
from appliance.times import utc_text


@dataclass(frozen=True)
class Request:
    """Request of an operator.

    :param sources: files and directories as the operator named them.
    :param names: names for nameless images.
    :param platforms: what the nodes run.
    :param any_platform: take images that no node can run too.
    :param allow: which names the sources may bring.
    :param other_site: take a medium that was made for another site.
    :param deep: unpack compressed layers of OCI layouts too, and hold them against their configs.
    :param remove: names that leave; see :func:`appliance.publish.removal.names_to_remove`.
    """

    sources: Sequence[str]
    names: Sequence[str] = ()
    platforms: Sequence[Platform] = ()
    any_platform: bool = False
    allow: Sequence[str] = ()
    other_site: bool = False
    deep: bool = False
    remove: Sequence[str] = ()

    def as_plain(self) -> dict[str, Any]:
        """Return the request as plain JSON."""
        return dict(msgspec.to_builtins(asdict(self)))


@dataclass(frozen=True)
class StagedPlan:
    """A plan whose blobs are in the store and that waits for an answer.

    :param until: end of the time for which the verified state is kept, in seconds since 1970; None where nothing is.
    """

    plan: Plan
    until: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as ``appliance plan --stage --json`` prints it."""
        until = None if self.until is None else utc_text(self.until)
        return {**self.plan.as_dict(), "staged_until": until}


def inspect(
    store: Store,
    request: Request,
    *,
    medium: Medium | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """Read and verify every source, and say what publishing would change. Nothing is written.

    :raises ApplianceError: as :func:`stage`, but for those of the store's lock.
    """
    exists = (store.blobs.root / "oci-layout").exists()
    current = store.generations.current() if exists else None
    with HashingSink(store.blobs) as sink:
        reading = _read(store, request, current, sink, None, medium or Medium(), progress)
    plan = _make_plan(store, request, current, reading, {})
    store.blobs.check_room(plan.bytes_to_write)
    return plan


def stage(
    store: Store,
    request: Request,
    *,
    medium: Medium | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> StagedPlan:
    """Read and verify every source, leave its blobs in the store, and say what publishing would change.

    No name changes. :func:`seed` publishes the plan without reading the medium again, and a later call of this function
    reads only what changed on it.

    :param medium: opens the sources; None: as this process may.
    :param progress: called with bytes read and bytes of the file.
    :raises ApplianceError: as :func:`appliance.publish.read_media.read_sources`; APL-0310 where there is no room; APL-0307
        and APL-0153.
    """
    medium = medium or Medium()
    publisher = Publisher(store)
    with publisher.staging() as current, _staging(store, request, medium, current) as staging:
        reading = _read(store, request, current, staging.sink, staging, medium, progress)
        raw, blobs = msgspec.json.encode(reading), reading.all_blobs
        plan = _make_plan(store, request, current, reading, staging.stored)
        staging.check_complete(plan.bytes_to_write - plan.bytes_staged)
        if plan.is_empty and not plan.bytes_to_write:
            staging.finish()
            return StagedPlan(plan, None)
        until = staging.keep_plan(plan.id, request.as_plain(), raw, blobs)
        staging.tidy()
        return StagedPlan(plan, until)


def seed(
    store: Store,
    request: Request,
    *,
    expect: str | None = None,
    consent: Consent | None = None,
    medium: Medium | None = None,
    progress: Callable[[int, int], None] | None = None,
    lease: Lease | None = None,
) -> Result:
    """Import every source and publish, or leave the current generation as it is.

    Blobs are written first, hashed and durable; names change last, by one rename. Whatever ends this in between
    (a signal, the power, a full disk, a bad source) leaves what was served; running it again writes only what is
    still missing.

    :param expect: id of the plan that was shown and confirmed; another outcome is refused (APL-0126). What
        :func:`stage` left of it in the store is published without reading the medium.
    :param consent: what the operator agreed to.
    :param medium: opens the sources; None: as this process may.
    :param progress: called with bytes read and bytes of the file.
    :param lease: the run that this is a step of; see :class:`appliance.publish.publisher.Publisher`.
    :raises ApplianceError: as :func:`appliance.publish.read_media.read_sources`, :meth:`Consent.check` and
        :class:`Publisher`, and APL-0153.
    """
    agreed, medium = consent or Consent(), medium or Medium()
    publisher = Publisher(store, lease)
    with publisher.changing() as current, _staging(store, request, medium, current) as staging:
        reading = staging.find_plan(expect, request.as_plain()) if expect is not None else None
        if reading is None:
            reading = _read(store, request, current, staging.sink, staging, medium, progress)
        plan = _make_plan(store, request, current, reading, staging.stored)
        staging.check_complete(plan.bytes_to_write - plan.bytes_staged)
        check_expected(plan, expect)
        shown = plan.as_dict()
        agreed.check(shown)
        maps = _piece_maps(staging.piece_maps, plan.blobs, current, also_new=not plan.is_empty)
        if plan.is_empty:
            result = Result(plan, current, False, plan.bytes_to_write)
        else:
            result = publisher.publish(
                plan,
                maps,
                cause="seeding",
                sources=reading.published_sources,
                media=reading.media,
                consent=agreed.used(shown),
                **reading.left_out.as_dict(MOST_LOGGED),
                **_referrers_left_out(plan),
            )
        staging.finish()
        return result


@contextmanager
def _staging(store: Store, request: Request, medium: Medium, current: Generation | None) -> Iterator[Staging]:
    blobs = store.blobs
    if current is not None:
        blobs.mapped = {blob for blob, item in current.piece_maps.items() if blobs.has(item.digest)}
    staging = Staging(blobs, medium, deep=request.deep, collector=store.collector())
    try:
        yield staging
    except ApplianceError:
        # The files that were read to their end are kept; what a refused file left is not.
        staging.tidy()
        raise
    finally:
        staging.sink.close()


def _read(
    store: Store,
    request: Request,
    current: Generation | None,
    sink: BlobSink,
    staging: Staging | None,
    medium: Medium,
    progress: Callable[[int, int], None] | None,
) -> Reading:
    return read_sources(
        request.sources,
        sink,
        store.blobs.root,
        current,
        names=request.names,
        platforms=request.platforms,
        any_platform=request.any_platform,
        allow=request.allow,
        site_addresses=store.config.site_addresses,
        site=store.config.site,
        other_site=request.other_site,
        deep=request.deep,
        medium=medium,
        staging=staging,
        progress=progress,
    )


def _make_plan(
    store: Store, request: Request, current: Generation | None, reading: Reading, stored: Mapping[str, int]
) -> Plan:
    history: History = store.generations.newest_first if current else tuple
    root, addresses = store.blobs.root, store.config.site_addresses
    return make_plan(
        reading,
        current,
        store.blobs,
        store.pushes.current(),
        store.pins.current(),
        removed=names_to_remove(request.remove, reading, current, history, root, addresses),
        history=history,
        stored=stored,
    )


def _referrers_left_out(plan: Plan) -> dict[str, Any]:
    """Return the signatures and attestations that are not taken, as the audit log has them."""
    items = plan.attached.left_out
    return {
        "referrers_left_out": [item.as_dict() for item in items[:MOST_LOGGED]],
        "referrers_left_out_more": max(0, len(items) - MOST_LOGGED),
    }


def _piece_maps(
    new: Mapping[str, Descriptor], brought: Collection[str], current: Generation | None, *, also_new: bool
) -> dict[str, Descriptor]:
    """Return the piece maps of the current generation, and those of the big layers that came.

    :param also_new: whether there will be a generation that can list the new ones.
    """
    maps = dict(current.piece_maps) if current else {}
    return maps | {blob: item for blob, item in new.items() if blob in brought and (also_new or blob in maps)}
