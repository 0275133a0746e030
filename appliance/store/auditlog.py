"""Audit log: what was changed, when, by whom and from which medium. Lines of JSON are only appended.

Each line has a number, ``seq``, and in ``prev`` the SHA-256 of the line before it, its newline included
(``sed -n 7p journal.jsonl | sha256sum``): nothing before the last line can be changed, taken out or put in without a
line that does not fit any more. ``gap`` counts the bytes between the two lines that are no chained line, and ``prev`` covers
them too: what a power loss left of a line, and what a release wrote that did not chain them.
:func:`appliance.store.auditcheck.audit` follows the chain.

Decision 25.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from appliance.actor import actor
from appliance.files import sync_directory
from appliance.store.diff import Changes
from appliance.store.generations import Generation, Generations
from appliance.store.locks import Rank, holding
from appliance.times import now

FILE = "journal.jsonl"
"""Its name in the store."""
_TAIL = 64 << 10


def note(store: Path, line: Mapping[str, Any]) -> None:
    """Append one line.

    :param line: ``action`` and what belongs to it; ``time`` and ``by`` are added where they are not given.
    """
    with _locked(store / FILE) as handle:
        size = os.fstat(handle).st_size
        seq, last = _last(handle, size)
        cut = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        begun = last + (b"\n" if cut else b"")
        gap = len(begun) - (begun.index(b"\n") + 1 if seq else 0)
        chain = {"seq": seq + 1, "prev": hashlib.sha256(begun).hexdigest(), **({"gap": gap} if gap else {})}
        text = json.dumps({**chain, "time": now(), "by": actor(), **line}, separators=(",", ":"))
        _append(handle, size, (b"\n" if cut else b"") + text.encode() + b"\n")
        if size == 0:
            sync_directory(store)


def set_aside(store: Path) -> str:
    """Move a log without any line that can be read out of the way, as evidence; returns its new name."""
    path = store / FILE
    name = f"journal-damaged-{time.time_ns()}.jsonl"
    with _locked(path):
        os.rename(path, path.with_name(name))
        sync_directory(store)
    return name


def record(store: Path, generation: Generation, changes: Changes, **more: Any) -> None:
    """Append the line of a generation that was just published.

    :param changes: what it changed.
    :param more: what else an auditor wants to know, such as what the operator consented to.
    """
    line = {
        "action": "publish",
        "by": generation.by or actor(),
        "number": generation.number,
        "digest": generation.digest,
        "cause": generation.cause,
        "created": generation.created,
        "sources": list(generation.sources),
        "media": {source: dict(label) for source, label in generation.media.items()},
        **changes.as_dict(),
    }
    note(store, {**line, **more})


def is_recorded(store: Path, generation: Generation) -> bool:
    """Return whether a generation has its line; not where its publisher was ended before it could write it."""
    return any(line["digest"] == generation.digest for line in publications(store))


def catch_up(store: Path, generations: Generations, item: Generation) -> None:
    """Append the line of a generation that has none; only under the store's lock."""
    parent = generations.find(item.number - 1)
    known = parent is not None or item.number == 1
    record(store, item, Changes.of(parent, item) if known else Changes.of(None, None), caught_up=True)


def was_published(store: Path, current: Generation | None, source: str) -> bool:
    """Return whether a source, as the operator names it, is in what was published here before."""
    if current is not None and source in current.sources:
        return True
    return any(source in line["sources"] for line in publications(store))


def publications(store: Path) -> Iterator[dict[str, Any]]:
    """The lines of generations, oldest first; of an older release they say less."""
    for raw in read_lines(store):
        line = parse_line(raw)
        if line and _is_publication(line):
            yield line


def _is_publication(line: Mapping[str, Any]) -> bool:
    """Return whether a line is one that :func:`record` writes, as far as it goes: anything may stand in a file that was edited."""
    media, moved = line.get("media") or {}, line.get("moved") or {}
    kinds = ("added", "removed", "referrers_added", "referrers_removed")
    others = [line.get(kind) or {} for kind in kinds]
    return (
        isinstance(line.get("digest"), str)
        and _are_words(line.get("sources"))
        and _are_words(line.get("completed") or [])
        and all(isinstance(item, dict) for item in (media, moved, *others))
        and all(isinstance(label, dict) and "id" in label and _are_words([*label.values()]) for label in media.values())
        and all(_are_words(digests) and len(digests) == 2 for digests in moved.values())
        and all(_are_words([*names.values()]) for names in others)
    )


def _are_words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def read_lines(store: Path) -> Iterator[bytes]:
    """The lines as they stand there, with their newlines."""
    with contextlib.suppress(FileNotFoundError), (store / FILE).open("rb") as file:
        yield from file


def parse_line(raw: bytes) -> dict[str, Any] | None:
    """Return the fields of a line; None for an incomplete one."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def is_chained(line: Mapping[str, Any] | None) -> bool:
    """Return whether a line is one of the chain."""
    return line is not None and type(line.get("seq")) is int and isinstance(line.get("prev"), str)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Open the log alone: a worker that takes a push and a seeding write at the same time, and only one follows the last line."""
    while True:
        with _open(path) as handle, holding(handle, path, Rank.LOG):
            # It may have been set aside while this waited.
            if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):
                yield handle
                return


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        yield handle
    finally:
        os.close(handle)


def _last(handle: int, size: int) -> tuple[int, bytes]:
    """The number of the last chained line, and everything from its beginning to the end of the file.

    Zero and the whole file where no line is chained yet. Only as much as that takes is read.
    """
    length = _TAIL
    while True:
        begin = max(0, size - length)
        tail = _read(handle, begin, size)
        # What lies before the first newline may be the end of a longer line.
        start = tail.find(b"\n") + 1 if begin else 0
        stop = len(tail)
        while stop > start and (begin == 0 or start > 0):
            line = tail.rfind(b"\n", start, stop - 1) + 1 or start
            parsed = parse_line(tail[line:stop])
            if parsed is not None and is_chained(parsed):
                return parsed["seq"], tail[line:]
            stop = line
        if begin == 0:
            return 0, tail
        length *= 4


def _read(handle: int, begin: int, end: int) -> bytes:
    parts = []
    while begin < end and (part := os.pread(handle, end - begin, begin)):
        parts.append(part)
        begin += len(part)
    return b"".join(parts)


def _append(handle: int, size: int, raw: bytes) -> None:
    try:
        view = memoryview(raw)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    except OSError:
        # A full disk leaves no half line, where the file lets itself be cut (chattr +a does not).
        with contextlib.suppress(OSError):
            os.ftruncate(handle, size)
        raise
