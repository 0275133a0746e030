"""What lies in quarantine, what the whole site has lost, and how much room is left: what a node says of its store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from appliance.errors import ApplianceError
from appliance.sizes import size_words
from appliance.store.blame import Lost
from appliance.store.room import NEAR, Room

_LOG = logging.getLogger("appliance.health")

_NAMED_SECONDS = 600.0
"""How long it is believed what takes most room: it takes a second to find out for 10,000 names."""
_ASKED = 200
"""Missing blobs of which the other nodes are asked at a time whether they hold them."""

Holders = Callable[[str], Mapping[str, "bool | None"]]
"""Says of each other node whether it holds a blob; None where it cannot be asked now."""


class LostBlobs:
    """The blobs that no node of the site has any more.

    :param holders: asks the other nodes.
    :param blame: says what blobs break and where they came from.
    """

    def __init__(self, holders: Holders, blame: Callable[[Collection[str]], Mapping[str, Lost]]) -> None:
        self._holders = holders
        self._blame = blame
        self._known: dict[str, Lost] = {}

    def judge(self, missing: Sequence[str]) -> list[Lost]:
        """Take note of what is missing here and could not be had; each that is lost is told of once in the log.

        Lost is what every other node was asked for and does not hold. Where one cannot be asked, nothing new is lost.
        """
        self._found(set(self._known) - set(missing))
        new: list[str] = []
        # Those that nobody was asked for come first, so that thousands are all asked for in time.
        unknown = [digest for digest in missing if digest not in self._known]
        known = [digest for digest in missing if digest in self._known]
        for digest in [*unknown[:_ASKED], *known[:_ASKED]]:
            held = set(self._holders(digest).values())
            if None in held:
                break
            if True in held:
                self._found({digest} & set(self._known))
            elif digest not in self._known:
                new.append(digest)
        if new:
            for lost in self._blame(new).values():
                self._known[lost.digest] = lost
                _LOG.error("%s", lost_error(lost))
        return self.all()

    def _found(self, digests: Collection[str]) -> None:
        for digest in digests:
            _LOG.warning("%s is not lost any more", digest)
            del self._known[digest]

    def all(self) -> list[Lost]:
        """What is lost, by digest."""
        return [self._known[digest] for digest in sorted(self._known)]


def lost_error(lost: Lost) -> ApplianceError:
    """The words for a blob that is lost."""
    return ApplianceError(
        "APL-0421",
        "a blob is lost: no node of the site has it any more",
        where=lost.digest,
        why=lost.words(),
        fix="Bring that medium again: playbooks/update.yml puts back what is missing",
    )


class RoomWatch:
    """Looks at the room of a store, and says once when it comes near its limit, and once when it is away from it again.

    :param largest: names what going without would free most, as (name, bytes); asked only near the limit, and not often.
    :param clock: seconds, only ever forward.
    """

    def __init__(
        self, room: Room, largest: Callable[[], list[tuple[str, int]]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._room = room
        self._largest = largest
        self._clock = clock
        self._named: tuple[float, list[tuple[str, int]]] | None = None
        self._near = False

    def look(self) -> dict[str, Any]:
        """Its state as ``appliance status --json`` prints it; sizes in bytes."""
        # Whoever asks for the state right after a collection, in another process, sees what it freed.
        self._room.recount()
        used, most = self._room.used(), self._room.most()
        near = used >= NEAR * most
        if not near or (self._named and not 0 <= self._clock() - self._named[0] < _NAMED_SECONDS):
            self._named = None
        largest = self._names() if near else []
        if near and not self._near:
            _LOG.warning("%s", _near_error(used, most, largest))
        elif self._near and not near:
            _LOG.info("the store is not near its limit any more: %s of %s", size_words(used), size_words(most))
        self._near = near
        return {
            "limit_bytes": most,
            "used_bytes": used,
            "free_bytes": self._room.left(),
            "near": near,
            "largest": [{"name": name, "bytes": size} for name, size in largest],
        }

    def _names(self) -> list[tuple[str, int]]:
        if self._named is None:
            largest: list[tuple[str, int]] = []
            try:
                largest = self._largest()
            except (ApplianceError, OSError) as error:
                _LOG.info("what takes most room cannot be said: %s", error)
            self._named = self._clock(), largest
        return self._named[1]


def _near_error(used: int, most: int, largest: list[tuple[str, int]]) -> ApplianceError:
    names = "; ".join(f"{name} {size_words(size)}" for name, size in largest)
    return ApplianceError(
        "APL-0326",
        "the store is near its limit; imports and fetches stop at it",
        why=f"{size_words(used)} of {size_words(most)} are used"
        + (f". What alone takes most: {names}" if names else ""),
        fix="Run playbooks/gc.yml; if that is not enough, take names away or raise mirror_store_limit",
    )
