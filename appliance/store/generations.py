"""Generations: what the site serves, as an OCI image index that is hashed, signed and replaced by one rename.

``index.json`` of the store is the current generation, byte for byte. The same bytes and their signature lie under
``generations/``, with the ones before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from appliance.errors import ApplianceError, fail
from appliance.oci import mediatypes
from appliance.oci.manifests import IMAGE_NAME, REF_NAME, Descriptor
from appliance.oci.names import parse_reference
from appliance.store.blobs import BlobStore, write_atomically
from appliance.trust import Signature, Trust

PREFIX = "vnd.k3s-airgap-appliance."
NUMBER = PREFIX + "generation"
PARENT = PREFIX + "parent"
CAUSE = PREFIX + "cause"
CREATED = PREFIX + "created"
SOURCES = PREFIX + "sources"
ABSENT = PREFIX + "absent"
PIECES_OF = PREFIX + "pieces-of"
SIZE_LIMIT = 256 << 20
"""Largest generation that is read, in bytes: about half a million names."""


# Each web worker holds the whole generation: what most names share is there once.
_NONE: frozenset[str] = frozenset()
_NO_NOTES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Entry:
    """What one name points to.

    :param descriptor: media type, digest and size of its manifest or index.
    :param absent: digests of children of an index that the medium did not bring (a sparse index).
    """

    descriptor: Descriptor
    absent: frozenset[str] = _NONE


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
    """

    number: int
    parent: str | None
    cause: str
    created: str
    sources: tuple[str, ...]
    names: Mapping[str, Entry]
    piece_maps: Mapping[str, Descriptor]
    raw: bytes = b""

    @property
    def digest(self) -> str:
        """Digest of its bytes: what it is signed, compared and kept by."""
        return "sha256:" + hashlib.sha256(self.raw).hexdigest()


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
    return replace(generation, raw=_serialise(generation))


def _serialise(generation: Generation) -> bytes:
    manifests: list[dict[str, Any]] = []
    for name, entry in generation.names.items():
        annotations = {IMAGE_NAME: name, REF_NAME: name}
        if entry.absent:
            annotations[ABSENT] = " ".join(sorted(entry.absent))
        manifests.append(replace(entry.descriptor, annotations=annotations).to_dict())
    for blob, descriptor in generation.piece_maps.items():
        manifests.append(replace(descriptor, annotations={PIECES_OF: blob}).to_dict())
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
        "manifests": manifests,
        "annotations": annotations,
    }
    return json.dumps(index, separators=(",", ":")).encode()


def parse(raw: bytes, where: str) -> Generation | None:
    """Read a generation; None for the empty index of a fresh store.

    :raises ApplianceError: APL-0305 when the bytes are no generation.
    """
    if len(raw) > SIZE_LIMIT:
        _damaged(where, f"{len(raw)} bytes, {SIZE_LIMIT} are the limit")
    try:
        index = json.loads(raw)
        annotations = index.get("annotations") or {}
        if NUMBER not in annotations and index["manifests"] == []:
            return None
        names: dict[str, Entry] = {}
        piece_maps: dict[str, Descriptor] = {}
        for item in index["manifests"]:
            descriptor = Descriptor.from_dict(item)
            notes = descriptor.annotations
            bare = replace(descriptor, annotations=_NO_NOTES, media_type=sys.intern(descriptor.media_type))
            if descriptor.media_type == mediatypes.PIECE_MAP:
                piece_maps[notes[PIECES_OF]] = bare
            elif REF_NAME in notes:
                # A name that nobody can parse must stop here, not in every mirror that follows.
                parse_reference(notes[REF_NAME])
                names[notes[REF_NAME]] = Entry(bare, frozenset(notes[ABSENT].split()) if ABSENT in notes else _NONE)
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
        )
    except ApplianceError as error:
        _damaged(where, str(error))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _damaged(where, f"{type(error).__name__}: {error}")


def _damaged(where: str, why: str) -> NoReturn:
    fail(
        "APL-0305",
        "not a generation",
        where=where,
        why=why,
        fix="Run 'appliance fsck'; generations that a node kept lie in the store's generations directory",
    )


class Generations:
    """The generations of one store: the current one, the kept ones, and the way to replace it."""

    def __init__(self, blobs: BlobStore, trust: Trust) -> None:
        self._root = blobs.root
        self._trust = trust

    @property
    def index(self) -> Path:
        """The file that is the current generation."""
        return self._root / "index.json"

    def current(self) -> Generation | None:
        """The generation that is served now; None in a fresh store."""
        return parse(self.index.read_bytes(), str(self.index))

    def signature(self, generation: Generation) -> Signature | None:
        """The signature that came with a generation, None where there is none (development)."""
        try:
            return Signature.from_json(self._file(generation, ".sig").read_bytes())
        except FileNotFoundError:
            return None

    def kept(self) -> list[Generation]:
        """Every generation whose bytes are kept, oldest first; a damaged one is left to ``appliance fsck``."""
        found = []
        for path in (self._root / "generations").glob("*.json"):
            with contextlib.suppress(ApplianceError, FileNotFoundError):
                generation = parse(path.read_bytes(), str(path))
                if generation is not None:
                    found.append(generation)
        return sorted(found, key=lambda generation: generation.number)

    def publish(self, generation: Generation) -> None:
        """Sign a generation and make it the current one; only the publisher calls this."""
        self._replace(generation, self._trust.sign(generation.raw))

    def sign_anew(self) -> bool:
        """Sign the current generation where its signer is no seed any more; true when that was so.

        For the seed that follows a lost publisher: nodes that come later take only what a listed seed has signed.
        """
        current = self.current()
        if current is None:
            return False
        try:
            self._trust.check(current.raw, self.signature(current))
        except ApplianceError:
            signature = self._trust.sign(current.raw)
            if signature is not None:
                write_atomically(self._file(current, ".sig"), signature.to_json())
            return True
        return False

    def accept(
        self, raw: bytes, signature: Signature | None, prepare: Callable[[Generation], None]
    ) -> Generation | None:
        """Follow the publisher: make a newer signed generation the current one.

        :param raw: its bytes.
        :param signature: the publisher's signature, None in development.
        :param prepare: called once it is found valid and newer; brings all its manifests or raises.
        :returns: the generation that is followed now, None when the current one is as new.
        :raises ApplianceError: APL-0606 for a wrong signature, APL-0306 for another generation of the same number.
        """
        self._trust.check(raw, signature)
        offered = parse(raw, "a peer's generation")
        current = self.current()
        if offered is None or (current is not None and offered.number < current.number):
            return None
        if current is not None and offered.number == current.number:
            if offered.digest != current.digest:
                fail(
                    "APL-0306",
                    f"two different generations have the number {offered.number}",
                    where=str(self._root),
                    why=f"served here: {current.digest} of {current.created}; offered: {offered.digest} of "
                    f"{offered.created}" + (f", signed by {signature.signer}" if signature else ""),
                    fix="Keep one publisher: take the other one out of mirror_seeds, then publish anew",
                )
            return None
        prepare(offered)
        self._replace(offered, signature)
        return offered

    def prune(self, keep: int) -> list[Generation]:
        """Forget the bytes of all but the last ``keep`` generations; returns those forgotten."""
        forgotten = self.kept()[:-keep] if keep > 0 else []
        for generation in forgotten:
            for suffix in (".json", ".sig"):
                self._file(generation, suffix).unlink(missing_ok=True)
        return forgotten

    def _replace(self, generation: Generation, signature: Signature | None) -> None:
        # The copy and the signature first: whoever sees the new index.json finds both.
        write_atomically(self._file(generation, ".json"), generation.raw)
        if signature is not None:
            write_atomically(self._file(generation, ".sig"), signature.to_json())
        write_atomically(self.index, generation.raw)

    def _file(self, generation: Generation, suffix: str) -> Path:
        encoded = generation.digest.partition(":")[2]
        return self._root / "generations" / f"{generation.number:08d}-{encoded[:16]}{suffix}"


def lock(root: Path) -> int:
    """Take the store's one lock for changing names (APL-0307 when another run holds it); returns the descriptor."""
    import fcntl

    handle = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
