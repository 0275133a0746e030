"""What was published when, from where: one JSON line for each generation, only ever appended to."""

from __future__ import annotations

import json
import os
from pathlib import Path

from appliance.store.generations import Generation

_FILE = "journal.jsonl"


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
    handle = os.open(store / _FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    with os.fdopen(handle, "wb") as file:
        file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def was_published(store: Path, current: Generation | None, source: str) -> bool:
    """Whether a source, as the operator names it, is in what was published here before."""
    if current is not None and source in current.sources:
        return True
    try:
        lines = (store / _FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return False
    for line in lines:
        try:
            if source in json.loads(line)["sources"]:
                return True
        except (ValueError, KeyError, TypeError):
            # A line cut short by a power loss says nothing; the generation itself is what counts.
            continue
    return False
