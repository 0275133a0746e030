"""Pushed names: an index of the same form as a generation, outside the count of kept generations.

A manifest that was pushed is listed under ``repository@digest``, and once more under each tag that names it; so a
manifest without a tag (a child of an index, a signature, what a tag pointed to before) is served until it is deleted.

Decisions 17 and 18.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NoReturn

from appliance.errors import fail
from appliance.store.blobs import BlobStore
from appliance.store.counted import Counted, CountedIndex
from appliance.store.locks import Rank, locked
from appliance.trust import Trust

_SIGNATURES = 16
"""Signatures kept: whoever read the index a moment ago still finds the one that belongs to it."""


class Pushed(Counted):
    """One state of what was pushed; its names are ``repository:tag`` and ``repository@digest``."""

    KIND = "pushes"


def parse(raw: bytes, where: str) -> Pushed:
    """Read an index of pushes.

    :raises ApplianceError: APL-0314 when the bytes are none.
    """
    return Pushed.read(raw, lambda why: _damaged(where, why))


def _damaged(where: str, why: str) -> NoReturn:
    fail(
        "APL-0314",
        "this is not a valid index of pushes",
        where=where,
        why=why,
        fix="The agent puts it back within half a minute, from another node; see the runbook where it does not",
    )


class Pushes(CountedIndex[Pushed]):
    """The index of pushes of one store, ``pushes.json``, and the one way to change it: :meth:`replace`, only under
    :meth:`changing`.
    """

    def __init__(self, blobs: BlobStore, trust: Trust) -> None:
        super().__init__(blobs, trust, Pushed, parse, _damaged, keep=_SIGNATURES)
        self._lock = blobs.root / "pushes.lock"

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock of the index, over all processes of the node; blocks the calling thread until it is free.

        Not the lock of seedings, which is held for as long as a medium is read.
        """
        with locked(self._lock, Rank.PUSHES):
            yield
