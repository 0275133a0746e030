"""Parts that an answer of a bad peer is made of: steps on a connection, and functions that choose them for a request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol


@dataclass(frozen=True)
class Send:
    """Bytes that are written.

    :param times: how often; None: without end.
    :param step: most bytes of one write; 0: all at once.
    :param pause: seconds between two writes.
    """

    data: bytes
    times: int | None = 1
    step: int = 0
    pause: float = 0.0


class Then(Enum):
    """End of what is sent: nothing more on an open connection, a FIN, or a reset."""

    SILENCE = "silence"
    END = "end"
    RESET = "reset"


Step = Send | Then


@dataclass(frozen=True)
class Reply:
    """Answer of a node that is well."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Asked(Protocol):
    """One request, and what a listed node knows when it comes."""

    @property
    def method(self) -> str:
        """``GET``, ``HEAD`` or ``POST``."""
        ...

    @property
    def path(self) -> str:
        """Path of the URL."""
        ...

    def at(self, path: str) -> Asked:
        """Return the same request for another path."""
        ...

    def honest(self) -> Reply:
        """Return the answer of a node that is well and holds everything."""
        ...

    def blob(self) -> bytes:
        """Return the bytes that are asked for: the blob, from the start of the range on."""
        ...

    def sign(self, content: bytes) -> dict[str, str]:
        """Sign with the bad node's own key, which the site's authority certified."""
        ...


Answer = Callable[[Asked], Iterable[Step]]


def head(status: int, length: int | None, more: Mapping[str, str] | None = None) -> bytes:
    """Return the head of an HTTP answer.

    :param length: ``Content-Length``; None: without.
    """
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in (more or {}).items())]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def says(body: bytes, status: int = 200, more: Mapping[str, str] | None = None) -> Answer:
    """Give an answer of good form with this body."""
    return lambda asked: (Send(head(status, len(body), more) + (b"" if asked.method == "HEAD" else body)),)


def wire(*steps: Step) -> Answer:
    """Write exactly this, whatever was asked."""
    return lambda asked: steps


def repeated(piece: bytes, times: int | None, *, before: bytes = b"", after: bytes = b"") -> Answer:
    """Give an answer of good form with a long body, or one without an end, that is never in memory as a whole."""
    chunk = max(1, (64 << 10) // len(piece))
    whole, rest = (None, 0) if times is None else divmod(times, chunk)
    length = None if times is None else len(before) + len(piece) * times + len(after)
    sent = (Send(head(200, length) + before), Send(piece * chunk, whole), Send(piece * rest + after))
    return wire(*sent, Then.END)


def changed(change: Callable[[dict[str, Any]], object]) -> Answer:
    """Give the honest answer with its JSON changed.

    :param change: changes the object, or returns what is sent instead: a value, or bytes as they are.
    """

    def answer(asked: Asked) -> Iterable[Step]:
        reply = asked.honest()
        document = json.loads(reply.body)
        found = change(document)
        body = found if isinstance(found, bytes) else json.dumps(document if found is None else found).encode()
        return says(body, reply.status)(asked)

    return answer


def honest(asked: Asked) -> Iterable[Step]:
    """Give the answer of a node that is well."""
    reply = asked.honest()
    length = int(reply.headers.get("Content-Length", len(reply.body)))
    more = {name: reply.headers[name] for name in ("Content-Range", "Content-Type") if name in reply.headers}
    yield Send(head(reply.status, None if reply.status == 204 else length, more) + reply.body)


def sent(steps: Iterable[Step]) -> bytes:
    """Return what the steps write, each once."""
    return b"".join(step.data for step in steps if isinstance(step, Send))
