"""What was published when, from where or by whom: one JSON line for each change of names, only ever appended to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from appliance.store.generations import Generation

FILE = "journal.jsonl"
"""Its name in the store."""


def record(store: Path, generation: Generation) -> None:
    """Append a line for a generation that was just published: ``number``, ``digest``, ``cause``, ``created``,
    ``sources``.
    """
    line = {
        "number": generation.number,
        "digest": generation.digest,
        "cause": generation.cause,
        "created": generation.created,
        "sources": list(generation.sources),
    }
    note(store, line)


def note(store: Path, line: Mapping[str, Any]) -> None:
    """Append one line about a change of names: ``record`` for generations, pushes and deletions have an ``action``."""
    handle = os.open(store / FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    with os.fdopen(handle, "wb") as file:
        size = os.fstat(handle).st_size
        # A line that a power loss cut short must not swallow this one.
        cut = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        file.write((b"\n" if cut else b"") + json.dumps(line, separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def catch_up(store: Path, current: Generation) -> None:
    """Append the line of the current generation where its publisher was ended before it could."""
    if not any(line.get("digest") == current.digest for line in _lines(store)):
        record(store, current)


def was_published(store: Path, current: Generation | None, source: str) -> bool:
    """Whether a source, as the operator names it, is in what was published here before."""
    if current is not None and source in current.sources:
        return True
    return any(source in line["sources"] for line in _lines(store))


def _lines(store: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = (store / FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            parsed = json.loads(line)
        except ValueError:
            # A line cut short by a power loss says nothing; the generation itself is what counts.
            continue
        if isinstance(parsed, dict) and isinstance(parsed.get("sources"), list):
            yield parsed
