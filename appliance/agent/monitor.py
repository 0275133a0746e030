"""State of the store for ``appliance status``: quarantined blobs, blobs that the site has lost, and room."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from appliance.errors import ApplianceError, make_error
from appliance.sizes import size_words
from appliance.store.impact import Lost
from appliance.store.quota import NEAR, Quota

_LOG = logging.getLogger("appliance.health")

_NAMED_SECONDS = 600.0
"""How long it is believed what takes most room: it takes a second to find out for 10,000 names."""
_ASKED = 200
"""Missing blobs of which the other nodes are asked at a time whether they hold them."""
_LOG_APART = 60.0
"""Seconds between two lines about what is lost."""
_NAMED_AT_ONCE = 50
"""Digests in one line of the log; those beyond have the next one."""

Holders = Callable[[str], Mapping[str, "bool | None"]]
"""Says of each other node whether it holds a blob; None where it cannot be asked now."""


class LostBlobs:
    """The blobs that no node of the site has any more.

    :param holders: asks the other nodes.
    :param blame: says what blobs break and where they came from.
    :param is_here: returns whether a blob lies on this node.
    :param clock: seconds, only ever forward.
    """

    def __init__(
        self,
        holders: Holders,
        blame: Callable[[Collection[str]], Mapping[str, Lost]],
        is_here: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._holders = holders
        self._blame = blame
        self._is_here = is_here
        self._clock = clock
        self._known: dict[str, Lost] = {}
        self._claimed: set[str] = set()
        """Lost blobs that a node says it holds; whether it does shows once one of them lies here."""
        self._told: set[str] = set()
        self._back: set[str] = set()
        """Blobs that are here again, and of which the log has no line yet."""
        self._logged = -_LOG_APART

    def judge(self, missing: Sequence[str], running: Collection[str] = ()) -> list[Lost]:
        """Take note of what is missing here and could not be had; each that is lost is named once in the log.

        Lost is what every other node was asked for and does not hold. Where one cannot be asked, nothing new is lost.

        :param running: blobs that are missing and being fetched; whether they can be had will show.
        """
        self._forget(set(self._known) - set(missing))
        new: list[str] = []
        # Those that nobody was asked for come first, so that thousands are all asked for in time.
        unknown = [digest for digest in missing if digest not in self._known and digest not in running]
        known = [digest for digest in missing if digest in self._known and digest not in running]
        for digest in [*unknown[:_ASKED], *known[:_ASKED]]:
            held = set(self._holders(digest).values())
            if None in held:
                break
            if True in held:
                # Not more than a word: a node that said yes and no by turns filled the log.
                self._claimed |= {digest} & self._known.keys()
                continue
            self._claimed.discard(digest)
            if digest not in self._known:
                new.append(digest)
        if new:
            self._known |= {lost.digest: lost for lost in self._blame(new).values()}
        self._tell()
        return self.all()

    def _forget(self, digests: Collection[str]) -> None:
        for digest in digests:
            self._known.pop(digest, None)
            self._claimed.discard(digest)
            if digest in self._told and self._is_here(digest):
                self._back.add(digest)
            self._told.discard(digest)

    def _tell(self) -> None:
        """Name what is lost, and what is here again, with a line each a minute."""
        now = self._clock()
        if now - self._logged < _LOG_APART:
            return
        untold = [lost.digest for lost in self.all() if lost.digest not in self._told]
        if untold:
            named = untold[:_NAMED_AT_ONCE]
            others = f"; {len(untold) - 1} more are lost: {_list(named[1:], len(untold) - 1)}" if untold[1:] else ""
            _LOG.error("%s%s", lost_error(self._known[untold[0]]), others)
            self._told |= set(named)
        back, self._back = sorted(self._back), set()
        if back:
            verb = "is" if len(back) == 1 else "are"
            _LOG.warning("%s %s not lost any more", _list(back[:_NAMED_AT_ONCE], len(back)), verb)
        if untold or back:
            self._logged = now

    def all(self) -> list[Lost]:
        """Return the lost blobs by digest."""
        return [self._known[digest] for digest in sorted(self._known.keys() - self._claimed)]


def _list(digests: Sequence[str], count: int) -> str:
    """Return these digests in words, where there are ``count`` of them in all."""
    more = f" and {count - len(digests)} more" if count > len(digests) else ""
    return f"{', '.join(digests)}{more}"


def lost_error(lost: Lost) -> ApplianceError:
    """The words for a blob that is lost."""
    return make_error(
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
        self, room: Quota, largest: Callable[[], list[tuple[str, int]]], clock: Callable[[], float] = time.monotonic
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
    return make_error(
        "APL-0326",
        "the store is near its limit; imports and fetches stop at it",
        why=f"{size_words(used)} of {size_words(most)} are used"
        + (f". What alone takes most: {names}" if names else ""),
        fix="Run playbooks/gc.yml; if that is not enough, take names away or raise mirror_store_limit",
    )
