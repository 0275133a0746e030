"""Generations: what the site serves, as an OCI image index that is hashed, signed and replaced by one rename.

``index.json`` of the store is the current generation, byte for byte. The same bytes and their signature lie under
``generations/``, with the ones before.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from appliance.errors import ApplianceError, fail
from appliance.oci import mediatypes
from appliance.oci.digests import digest_of
from appliance.oci.manifests import Descriptor
from appliance.store.blobs import BlobStore, write_atomically
from appliance.store.signed import CREATED, PREFIX, Entry, SignedIndex, list_names, read_names, reading
from appliance.trust import Signature, Trust

NUMBER = PREFIX + "generation"
PARENT = PREFIX + "parent"
CAUSE = PREFIX + "cause"
SOURCES = PREFIX + "sources"


@dataclass(frozen=True)
class Generation:
    """One state of the site.

    :param number: counts up by one from the first, 1.
    :param parent: digest of the generation before, None for the first.
    :param cause: ``seeding``, ``bundle`` or ``rollback``.
    :param created: the publisher's time, ISO 8601 in UTC; says what a clock said, orders nothing.
    :param sources: the sources it was made from, as the operator named them.
    :param names: full reference (``docker.io/library/nginx:1.27``) to :class:`Entry`.
    :param piece_maps: digest of a big blob to the descriptor of its piece map.
    :param raw: its bytes.
    :param digest: digest of its bytes: what it is signed, compared and kept by.
    """

    number: int
    parent: str | None
    cause: str
    created: str
    sources: tuple[str, ...]
    names: Mapping[str, Entry]
    piece_maps: Mapping[str, Descriptor]
    raw: bytes = field(default=b"", repr=False)
    digest: str = ""


def make(
    parent: Generation | None,
    names: Mapping[str, Entry],
    piece_maps: Mapping[str, Descriptor],
    *,
    cause: str,
    created: str,
    sources: Iterable[str],
) -> Generation:
    """The generation that follows ``parent`` and serves exactly ``names``; its bytes depend on nothing else."""
    generation = Generation(
        number=parent.number + 1 if parent else 1,
        parent=parent.digest if parent else None,
        cause=cause,
        created=created,
        sources=tuple(sources),
        names=dict(sorted(names.items())),
        piece_maps=dict(sorted(piece_maps.items())),
    )
    raw = _serialise(generation)
    return replace(generation, raw=raw, digest=digest_of(raw))


def _serialise(generation: Generation) -> bytes:
    annotations = {
        NUMBER: str(generation.number),
        CAUSE: generation.cause,
        CREATED: generation.created,
        SOURCES: json.dumps(list(generation.sources)),
    }
    if generation.parent:
        annotations[PARENT] = generation.parent
    index = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": list_names(generation.names, generation.piece_maps),
        "annotations": annotations,
    }
    return json.dumps(index, separators=(",", ":")).encode()


def parse(raw: bytes, where: str) -> Generation | None:
    """Read a generation; None for the empty index of a fresh store.

    :raises ApplianceError: APL-0305 when the bytes are no generation.
    """
    with reading(raw, lambda why: _damaged(where, why)) as index:
        annotations = index.get("annotations") or {}
        if NUMBER not in annotations and index["manifests"] == []:
            return None
        names, piece_maps = read_names(index["manifests"])
        sources = json.loads(annotations[SOURCES])
        if int(annotations[NUMBER]) < 1 or not all(isinstance(source, str) for source in sources):
            raise ValueError("its number or its sources are of a wrong kind")
        return Generation(
            number=int(annotations[NUMBER]),
            parent=annotations.get(PARENT),
            cause=annotations[CAUSE],
            created=annotations[CREATED],
            sources=tuple(sources),
            names=names,
            piece_maps=piece_maps,
            raw=raw,
            digest=digest_of(raw),
        )


def _damaged(where: str, why: str) -> NoReturn:
    fail(
        "APL-0305",
        "not a generation",
        where=where,
        why=why,
        fix="Run 'appliance fsck'; generations that a node kept lie in the store's generations directory",
    )


class Generations(SignedIndex[Generation]):
    """The generations of one store: the current one, the kept ones, and the way to replace it."""

    def __init__(self, blobs: BlobStore, trust: Trust) -> None:
        super().__init__(blobs.root / "index.json", blobs.root / "generations", trust, parse, "generation")

    def kept(self) -> list[Generation]:
        """Every generation whose bytes are kept, oldest first; a damaged one is left to ``appliance fsck``."""
        found = []
        for path in self._directory.glob("*.json"):
            with contextlib.suppress(ApplianceError, FileNotFoundError):
                generation = parse(path.read_bytes(), str(path))
                if generation is not None:
                    found.append(generation)
        return sorted(found, key=lambda generation: generation.number)

    def prune(self, keep: int) -> list[Generation]:
        """Forget the bytes of all but the last ``keep`` generations; returns those forgotten."""
        forgotten = self.kept()[:-keep] if keep > 0 else []
        for generation in forgotten:
            for suffix in (".json", ".sig"):
                self._file(generation, suffix).unlink(missing_ok=True)
        return forgotten

    def remove_stray_signatures(self) -> None:
        """Remove signatures without their generation; only where nobody publishes or follows meanwhile."""
        for path in self._directory.glob("*.sig"):
            if not path.with_suffix(".json").exists():
                path.unlink(missing_ok=True)

    def _replace(self, item: Generation, signature: Signature | None) -> None:
        # The copy first: whoever sees the new index.json finds it.
        write_atomically(self._file(item, ".json"), item.raw)
        super()._replace(item, signature)


def lock(root: Path) -> int:
    """Take the store's one lock for changing names (APL-0307 when another run holds it); returns the descriptor."""
    import fcntl

    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        handle = os.open(root / "lock", flags)
    except FileNotFoundError:
        handle = os.open(root / "lock", flags | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        fail(
            "APL-0307",
            "another seeding or update is running on this store",
            where=str(root),
            fix="Wait for it to end, then run the same again",
        )
    return handle
