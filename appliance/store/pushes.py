"""What operators pushed: a second index of the same form as a generation, outside the count of kept generations.

A manifest that was pushed is listed under ``repository@digest``, and once more under each tag that names it; so a
manifest without a tag (a child of an index, a signature, what a tag pointed to before) is served until it is deleted.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn

from appliance.errors import fail
from appliance.oci import mediatypes
from appliance.oci.digests import digest_of
from appliance.oci.manifests import Descriptor
from appliance.store.blobs import BlobStore
from appliance.store.signed import CREATED, PREFIX, Entry, SignedIndex, list_names, read_names, reading
from appliance.trust import Signature, Trust

NUMBER = PREFIX + "pushes"
_SIGNATURES = 16
"""Signatures kept: whoever read the index a moment ago still finds the one that belongs to it."""


@dataclass(frozen=True)
class Pushed:
    """One state of what was pushed.

    :param number: counts up by one with every push and deletion.
    :param created: the publisher's time, ISO 8601 in UTC; says what a clock said, orders nothing.
    :param names: ``repository:tag`` and ``repository@digest`` to :class:`Entry`.
    :param piece_maps: digest of a big blob to the descriptor of its piece map.
    :param raw: its bytes.
    :param digest: digest of its bytes: what it is signed and compared by.
    """

    number: int
    created: str
    names: Mapping[str, Entry]
    piece_maps: Mapping[str, Descriptor]
    raw: bytes = field(default=b"", repr=False)
    digest: str = ""


def make(
    before: Pushed | None, names: Mapping[str, Entry], piece_maps: Mapping[str, Descriptor], created: str
) -> Pushed:
    """The state that follows ``before`` and serves exactly ``names``; its bytes depend on nothing else."""
    made = Pushed(
        number=before.number + 1 if before else 1,
        created=created,
        names=dict(sorted(names.items())),
        piece_maps=dict(sorted(piece_maps.items())),
    )
    index = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": list_names(made.names, made.piece_maps),
        "annotations": {NUMBER: str(made.number), CREATED: created},
    }
    raw = json.dumps(index, separators=(",", ":")).encode()
    return replace(made, raw=raw, digest=digest_of(raw))


def parse(raw: bytes, where: str) -> Pushed | None:
    """Read an index of pushes.

    :raises ApplianceError: APL-0314 when the bytes are none.
    """
    with reading(raw, lambda why: _damaged(where, why)) as index:
        annotations = index["annotations"]
        number, created = int(annotations[NUMBER]), annotations[CREATED]
        if number < 1 or not isinstance(created, str):
            raise ValueError("its number or its time is of a wrong kind")
        names, piece_maps = read_names(index["manifests"])
        return Pushed(number, created, names, piece_maps, raw, digest_of(raw))


def _damaged(where: str, why: str) -> NoReturn:
    fail(
        "APL-0314",
        "not an index of pushes",
        where=where,
        why=why,
        fix="Put pushes.json and pushes/ back from a node that has them sound; see the runbook",
    )


class Pushes(SignedIndex[Pushed]):
    """The index of pushes of one store, ``pushes.json``, and the one way to change it."""

    def __init__(self, blobs: BlobStore, trust: Trust) -> None:
        super().__init__(blobs.root / "pushes.json", blobs.root / "pushes", trust, parse, "index of pushes")
        self._lock = blobs.root / "pushes.lock"

    def current(self) -> Pushed | None:
        """What is pushed now; None where nothing ever was."""
        try:
            return super().current()
        except FileNotFoundError:
            return None

    def state(self) -> tuple[int, int, int] | None:
        """Changes whenever the index is replaced; None where nothing was ever pushed."""
        try:
            return super().state()
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock of the index, over all processes of the node; blocks the calling thread until it is free.

        Not the lock of seedings, which is held for as long as a medium is read.
        """
        handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _replace(self, item: Pushed, signature: Signature | None) -> None:
        # Of a process that was killed; one at a time writes here. Each is as large as the index.
        for leftover in self.index.parent.glob(f".{self.index.name}.*"):
            leftover.unlink(missing_ok=True)
        super()._replace(item, signature)

    def replace(self, names: Mapping[str, Entry], piece_maps: Mapping[str, Descriptor]) -> Pushed:
        """Sign and publish the state that serves exactly ``names``; only under :meth:`changing`."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        following = make(self.current(), names, piece_maps, now)
        self.publish(following)
        self._forget(_SIGNATURES)
        return following
