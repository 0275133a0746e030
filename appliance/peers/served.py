"""Cached answers with an index: made once for each state of its file, however often peers ask."""

from __future__ import annotations

import contextlib
import json
import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from gevent.lock import BoundedSemaphore

from appliance.errors import ApplianceError
from appliance.store.head import IndexHead
from appliance.store.index import NameIndex, SignedIndex
from appliance.threads import run_in_thread
from appliance.trust import Signature

_STEP = 256 << 10


@dataclass(frozen=True)
class Document:
    """The JSON of an index and its signature.

    :param content: its bytes.
    """

    content: bytes

    def pieces(self) -> Iterator[bytes]:
        """Yield it in pieces; all who read it meanwhile share one copy."""
        for start in range(0, len(self.content), _STEP):
            yield self.content[start : start + _STEP]


@dataclass(frozen=True)
class _State:
    """State of the files of an index: it changes when the index or a signature is replaced."""

    index: tuple[int, int, int] | None
    signatures: int | None


class Served:
    """Summary, head, bytes and document of one index, for other nodes.

    :param index: the file of it.
    """

    def __init__(self, index: SignedIndex[Any]) -> None:
        self._index = index
        # One at a time: of those who ask at once, the first prepares it for all.
        self._turn = BoundedSemaphore(1)
        self._state: _State | None = None
        self._head: IndexHead | None = None
        self._signature: Signature | None = None
        self._document: weakref.ref[Document] | None = None

    def summary(self) -> dict[str, Any] | None:
        """Return number and digest; None where there is none yet.

        :raises ApplianceError: for one that is damaged.
        """
        with self._turn:
            self._prepare()
            return None if self._head is None else {"number": self._head.number, "digest": self._head.digest}

    def head(self) -> dict[str, Any] | None:
        """Return the head with the signatures of head and index; None where there is none, or nobody signed it.

        :raises ApplianceError: for an index that is damaged.
        """
        with self._turn:
            self._prepare()
            head, signature = self._head, self._signature
        if head is None or (self._index.signs and (signature is None or signature.head is None)):
            return None
        return {**asdict(head), "signature": signature.to_dict() if signature else None}

    def open(self, digest: str) -> int | None:
        """Open the file of the index; None where it is another one than that of the digest.

        :raises ApplianceError: for one that is damaged.
        """
        with self._turn:
            self._prepare()
            head, state = self._head, self._state
        if head is None or head.digest != digest or state is None or state.index is None:
            return None
        return self._index.open(state.index)

    def document(self) -> Document | None:
        """Return the index with its signature; None where there is none yet.

        :raises ApplianceError: for one that is damaged.
        """
        with self._turn:
            document = self._document() if self._document is not None and self._is_current() else None
            if document is None:
                current = self._read()
                document = run_in_thread(self._told, current) if current is not None else None
                self._document = weakref.ref(document) if document is not None else None
            return document

    def _is_current(self) -> bool:
        # A file that is gone is looked at each time: it may have been lost.
        return self._state is not None and self._state.index is not None and self._state == self._look()

    def _look(self) -> _State:
        return _State(self._index.state(), self._index.signatures_state())

    def _prepare(self) -> None:
        if not self._is_current():
            self._read()

    def _read(self) -> NameIndex | None:
        # Before it is read: what replaces it meanwhile has another state.
        state = self._look()
        current: NameIndex | None = run_in_thread(self._index.current)
        self._signature = None
        if current is not None:
            with contextlib.suppress(ApplianceError, OSError):  # one that is damaged is none; the agent heals it
                self._signature = self._index.signature(current)
        self._head = self._index.head(current) if current is not None else None
        self._state, self._document = state, None
        return current

    def _told(self, current: NameIndex) -> Document:
        told = {"raw": current.raw.decode(), "signature": self._signature.to_dict() if self._signature else None}
        return Document(json.dumps(told).encode())
