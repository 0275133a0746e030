"""Publisher: changes the names of a store under its lock, after everything is complete, by one rename."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from appliance.actor import actor
from appliance.errors import fail
from appliance.lease import Lease
from appliance.oci.manifests import Descriptor
from appliance.publish.plan import Plan
from appliance.store import schema
from appliance.store.auditlog import catch_up, is_recorded, record
from appliance.store.generations import Generation, make
from appliance.store.locks import names_locked
from appliance.store.reachability import maps_needed, needed
from appliance.store.store import Store
from appliance.times import now


@dataclass(frozen=True)
class Result:
    """Result of a change of names.

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

    def as_dict(self) -> dict[str, Any]:
        """As ``appliance seed --json`` prints it: the plan, and what became of it."""
        served = self.generation
        return {
            **self.plan.as_dict(),
            "published": self.published,
            "bytes_written": self.bytes_written,
            "generation": {"number": served.number, "digest": served.digest} if served else None,
        }


class Publisher:
    """The publisher's store, to be changed.

    :param pins: names that move only by consent; each pin follows its name. None: the store has none.
    :param lease: the run that this is a step of; names change only while its controller gives signs of life. None:
        nobody watches over it.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease | None = None,
    ) -> None:
        self.store = store
        self._lease = lease

    @contextlib.contextmanager
    def changing(self) -> Iterator[Generation | None]:
        """Hold the store's lock and finish what a run before left undone; gives the current generation.

        :raises ApplianceError: APL-0312 on every node but the publisher, APL-0307 while another run changes names.
        """
        if not self.store.config.is_publisher:
            fail(
                "APL-0312",
                "only the publisher makes generations",
                where=self.store.config.node,
                why=f"the publisher of this site is {self.store.config.publisher}",
                fix=f"Run the same on {self.store.config.publisher}; a medium has to be plugged in there",
            )
        with self.staging() as current:
            if current is not None:
                with self.store.blobs.disk_errors("the audit log"):
                    self._catch_up(current)
            yield current

    @contextlib.contextmanager
    def staging(self) -> Iterator[Generation | None]:
        """Hold the store's lock to bring blobs that nothing names yet; gives the current generation.

        A node may do this before it knows that it is the publisher: where a publisher was lost, the plan for the next
        one is made before its configuration is written.

        :raises ApplianceError: APL-0307 while another run changes names.
        """
        with contextlib.ExitStack() as held:
            with self.store.blobs.disk_errors("a new store"):
                schema.prepare(self.store.blobs)
                held.enter_context(names_locked(self.store.blobs.root))
            self.store.blobs.clear_incoming()
            yield self.store.generations.current()

    def publish(
        self,
        plan: Plan,
        piece_maps: Mapping[str, Descriptor],
        *,
        cause: str,
        sources: Sequence[str],
        media: Mapping[str, Mapping[str, str]],
        **more: Any,
    ) -> Result:
        """Make the generation that a plan leads to, prove it, switch to it; only under :meth:`changing`.

        :param piece_maps: those that the names may need, by blob; what no name reaches is left out.
        :param more: what else the audit log says of it.
        :raises ApplianceError: APL-0313 where a blob is not here, APL-0310 and APL-0311 where the disk takes no more,
            APL-0345 where the controller is gone.
        """
        following = make(
            plan.current,
            plan.names_after,
            maps_needed(
                plan.names_after | {digest: item.entry for digest, item in plan.referrers_after.items()},
                piece_maps,
                self.store.blobs,
            ),
            cause=cause,
            created=now(),
            sources=sources,
            media=media,
            by=actor(),
            referrers=plan.referrers_after,
        )
        self._prove(following, plan)
        if self._lease is not None:
            self._lease.await_sign()
        with self.store.blobs.disk_errors("the generation"):
            self.store.generations.publish(following)
        try:
            self.store.pins.follow(following.names)
            record(self.store.blobs.root, following, plan.changes, **more)
        except OSError as error:
            # It is published; the next run catches up on both.
            plan.reading.notes.append(f"The pins or the audit log could not be written: {error.strerror}.")
        self.store.generations.prune(self.store.config.keep_generations)
        return Result(plan, following, True, plan.bytes_to_write)

    def _catch_up(self, current: Generation) -> None:
        """Finish a run that was killed after its commit and before its last steps."""
        if not is_recorded(self.store.blobs.root, current):
            catch_up(self.store.blobs.root, self.store.generations, current)
        self.store.pins.follow(current.names)

    def _prove(self, generation: Generation, plan: Plan) -> None:
        """Published means complete: every blob of a name that changes is here, of its size, before it is visible.

        Names that were published before are not looked at: on a seed that follows a lost publisher, some of their layers
        may lie on other nodes.
        """
        changed = replace(
            generation,
            names={name: entry for name, entry in generation.names.items() if name in plan.reading.names},
            referrers={digest: generation.referrers[digest] for digest in plan.changes.referrers_added},
        )
        found = needed(changed, self.store.blobs)
        missing = [digest for digest, item in found.items() if self.store.blobs.size(digest) != item.descriptor.size]
        if missing:
            fail(
                "APL-0313",
                "blobs that the names need are missing from the store",
                where=str(self.store.blobs.root),
                why=", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else ""),
                fix="Nothing was published. Bring a medium that holds them, or run 'appliance fsck'",
            )


def check_expected(plan: Plan, expect: str | None) -> None:
    """Refuse (APL-0126) a plan that is not the one which was shown and confirmed; None: any is taken."""
    if expect is not None and plan.id != expect:
        fail(
            "APL-0126",
            "the changes are not those that were shown",
            why=f"confirmed was plan {expect}, this would be plan {plan.id}",
            fix="Nothing was published: the medium or the store has changed since. Make the plan again and look at it",
        )
