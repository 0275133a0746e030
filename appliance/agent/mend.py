"""Healer of the store: it inspects every file but the blobs, heals what it can, and reports the rest."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gevent.lock import BoundedSemaphore

from appliance.agent.indexes import IndexReader
from appliance.agent.troubles import Troubles
from appliance.config import Peer
from appliance.errors import ApplianceError, make_error
from appliance.peers.transport import PeerError, PeerTransport
from appliance.store.healing import heal, signers, take_copy, take_signature
from appliance.store.inspection import Fault, Inspector
from appliance.store.store import Store
from appliance.trust import Signature

_LOG = logging.getLogger("appliance.mend")
_ANEW_SECONDS = 3600.0
"""Everything is read again so often: 256 MiB of generations at the most. What was written in between is seen at once."""
_SHOWN_SECONDS = 24 * 3600.0
_SHOWN = 50
_NOT = "not healed: "
_KEPT = "kept files"
"""Name of the trouble with a peer that was asked for a file and gave what is none."""


@dataclass
class Damage:
    """A file that was found damaged.

    :param since: when it was noticed, seconds since 1970.
    :param healed: when it was healed; None: it is damaged still.
    :param how: from what it was healed, or why it could not be.
    :param told: whether the log has it, and in which state.
    """

    fault: Fault
    since: float
    healed: float | None = None
    how: str = ""
    told: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The form of ``appliance status --json``."""
        lost = {} if self.healed is not None else {"lost": self.fault.lost, "fix": self.fault.about.fix}
        return {
            "kind": self.fault.kind,
            "path": self.fault.path,
            "why": self.fault.why,
            "since": _iso(self.since),
            "healed": None if self.healed is None else _iso(self.healed),
            "how": self.how,
            **lost,
        }


class Mender:
    """Finds and heals damage of the files of one store.

    :param offload: runs a function that blocks off the event loop.
    :param troubles: where peers are counted that give no file, or a wrong one.
    :param clock: the time, seconds since 1970.
    :param steady: seconds, only ever forward.
    """

    def __init__(
        self,
        store: Store,
        peers: PeerTransport,
        offload: Callable[..., Any],
        troubles: Troubles | None = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._peers = peers
        self._offload = offload
        self._reader = IndexReader(peers, offload)
        self._troubles = troubles or Troubles()
        self._failed: set[str] = set()
        """Ids of the peers that failed in this look; they are asked for nothing more in it."""
        self._clock = clock
        self._steady = steady
        self._inspector = Inspector(store)
        self._read: float | None = None
        self._fleeting: set[tuple[str, str]] = set()
        self._known: dict[tuple[str, str], Damage] = {}
        self._looking = BoundedSemaphore(1)

    def look(self, *, anew: bool = False) -> None:
        """Look at the files, and heal what can be healed.

        :param anew: read everything again, and believe at once what may be a file that is being written.
        """
        with self._looking:
            now = self._steady()
            if self._read is None or not 0 <= now - self._read < _ANEW_SECONDS or anew:
                whole, self._read = True, now
            else:
                whole = False
            self._failed.clear()
            faults = self._inspect(whole)
            seen = {fault.key for fault in faults if fault.fleeting}
            faults = [fault for fault in faults if anew or not fault.fleeting or fault.key in self._fleeting]
            self._fleeting = seen
            for fault in faults:
                damage = self._known.get(fault.key)
                if damage is None or damage.healed is not None:
                    damage = self._known[fault.key] = Damage(fault, self._clock())
                damage.fault = fault
                damage.how = self._heal(fault)
            left = {fault.key for fault in self._inspect(False)} if faults else set()
            for key, damage in self._known.items():
                if damage.healed is None and key not in left:
                    damage.healed = self._clock()
                    if not damage.how or damage.how.startswith(_NOT):
                        damage.how = "it is back"
                self._tell(damage)
            if all(damage.healed is not None for damage in self._known.values()):
                # What another one gave is kept back by nobody; it is shown for an hour all the same.
                for peer in self._peers.others:
                    self._troubles.ended(peer.id, _KEPT)
            self._forget()

    def all(self) -> list[dict[str, Any]]:
        """Damage that is still there, and what was healed in the last day, the newest first."""
        shown = sorted(self._known.values(), key=lambda item: (item.healed is not None, -item.since, item.fault.path))
        return [damage.as_dict() for damage in shown[:_SHOWN]]

    def _inspect(self, whole: bool) -> list[Fault]:
        look = self._inspector.look
        return list(self._offload(lambda: look(anew=whole)))

    def _heal(self, fault: Fault) -> str:
        """Heal one file; returns from what, or why not."""
        others = self._peers.others
        try:
            how = self._offload(lambda: heal(self._inspector.store, fault, is_alone=not others))
            return how if how is not None else self._from_peers(fault)
        except (ApplianceError, OSError) as error:
            return f"{_NOT}{error}"

    def _from_peers(self, fault: Fault) -> str:
        if fault.kind != "generation-copy" and not fault.kind.endswith("-signature"):
            return ""
        besides = self._offload(signers, self._inspector.store)
        reasons = []
        # Peers that failed come last: one that drips costs some seconds of each look, and should not cost them before the file is here.
        peers = sorted(self._peers.available(), key=lambda peer: self._troubles.times(peer.id, _KEPT))
        for peer in peers:
            if peer.id in self._failed:
                reasons.append(f"{peer.id} failed with another file")
                continue
            # What one peer answers concerns that peer alone.
            try:
                taken = self._take_from(peer, fault, besides)
            except (PeerError, ApplianceError) as error:
                reason = str(error) if isinstance(error, PeerError) else f"{peer.id}: {error}"
                self._failed.add(peer.id)
                self._troubles.failed(peer.id, _KEPT, f"{fault.path}: {reason}", fault.path)
                reasons.append(reason)
                continue
            self._troubles.ended(peer.id, _KEPT)
            if taken:
                return f"from {peer.id}"
            reasons.append(f"{peer.id} does not have it")
        return f"{_NOT}{'; '.join(reasons) or 'no other node answers'}"

    def _take_from(self, peer: Peer, fault: Fault, besides: frozenset[str]) -> bool:
        """Heal a file with what a peer keeps; false where the peer does not have it.

        :raises PeerError: when it cannot be had, or is another one.
        :raises ApplianceError: for a signature that is none.
        """
        store = self._inspector.store
        if fault.kind.endswith("-signature"):
            offered = self._reader.kept_signature(peer, fault.path)
            if offered is None:
                return False
            self._offload(take_signature, store, fault, offered, besides)
            return True
        # The short one first: who cannot give it is not asked for the long one.
        signature = None
        if store.generations.signs:
            signature = self._reader.kept_signature(peer, fault.path.replace(".json", ".sig"))
            if signature is None:
                return False
            Signature.from_json(signature)
        raw = self._reader.kept(peer, fault.path, self._offload(self._largest))
        if raw is None:
            return False
        if not self._offload(take_copy, store, fault, raw, signature, besides):
            raise PeerError(f"{peer.id} sent {len(raw)} bytes that are another file")
        return True

    def _largest(self) -> int:
        """Return the bytes of the largest generation here, damaged or not: those of a site are of about the same size."""
        files = self._inspector.store.blobs.root.glob("generations/*.json")
        return max((file.stat().st_size for file in files), default=0)

    def _tell(self, damage: Damage) -> None:
        """Say once that it is damaged, and once that it is healed."""
        if not damage.told:
            _LOG.error("%s", damage_error(damage))
        if damage.healed is not None and damage.told != "healed":
            _LOG.warning("%s is healed: %s", damage.fault.path, damage.how)
        damage.told = "damaged" if damage.healed is None else "healed"

    def _forget(self) -> None:
        now = self._clock()
        self._known = {
            key: damage
            for key, damage in self._known.items()
            if damage.healed is None or 0 <= now - damage.healed < _SHOWN_SECONDS
        }


def damage_error(damage: Damage) -> ApplianceError:
    """The words for a file that is damaged."""
    fault = damage.fault
    is_way_back = fault.kind == "generation-copy"
    why = fault.why
    if damage.healed is None:
        why += f"; {fault.lost}" + (f"; {damage.how}" if damage.how else "")
    return make_error(
        "APL-0356" if is_way_back else "APL-0355",
        "a generation that was kept is damaged" if is_way_back else "a file of the store is damaged",
        where=fault.path,
        why=why,
        fix="It is healed; look at the disk: dmesg, smartctl" if damage.healed is not None else fault.about.fix,
    )


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat("T", "seconds")
