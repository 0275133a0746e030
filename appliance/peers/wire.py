"""Parser of the answers of peers: an answer of another form is an error of that peer.

msgspec builds nothing that the type does not name, so a deep, long or strange document costs its bytes and no more.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from appliance.oci.digests import is_digest
from appliance.peers.transport import PeerError
from appliance.store.head import IndexHead
from appliance.store.index import SIZE_LIMIT

T = TypeVar("T")
INDEXES = ("generation", "pushes", "pins")
"""Indexes that a ping names, and that have routes below ``/p2p/v1/``."""


class NotAnAnswer(PeerError):
    """A peer answered, and what it said is none of what it may say."""


class Named(msgspec.Struct, frozen=True):
    """Number and digest of an index that a peer has."""

    number: Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
    digest: Annotated[str, msgspec.Meta(max_length=135)]

    def __post_init__(self) -> None:
        """Check the digest."""
        if not is_digest(self.digest):
            raise ValueError("not a digest")


class Ping(msgspec.Struct, frozen=True):
    """Name of a peer, and the indexes that it has; an older release knows fewer."""

    node: Annotated[str, msgspec.Meta(max_length=253)]
    generation: Named | None = None
    pushes: Named | None = None
    pins: Named | None = None


class Head(Named, frozen=True):
    """Head of an index with the signatures of both; what is signed is :attr:`signed`."""

    kind: Literal["generation", "pushes", "pins"]
    size: Annotated[int, msgspec.Meta(ge=1, le=SIZE_LIMIT)]
    signature: dict[str, Any] | None

    @property
    def signed(self) -> IndexHead:
        """The head as it is signed."""
        return IndexHead(self.kind, self.number, self.digest, self.size)


class Told(msgspec.Struct, frozen=True):
    """An index with its signature, in one JSON document."""

    raw: str
    signature: dict[str, Any] | None


def read(body: bytes, kind: type[T], peer: str) -> T:
    """Read an answer.

    :param kind: the type that it has to have.
    :param peer: id of the peer that sent it.
    :raises NotAnAnswer: when it has another form; none of its words are repeated.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise NotAnAnswer(f"{peer} sent no {kind.__name__.lower()}: {_form(error)}") from None


def _form(error: Exception) -> str:
    # A path in msgspec's message may name a key of the document; the rest is msgspec's own.
    return repr(str(error).partition(" - at ")[0])[1:-1][:200]
