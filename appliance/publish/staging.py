"""Staging: blobs and the verified reading of a medium stay in the store until the operator has answered.

A medium is read once. While it is read for the plan, its blobs go into the store, where nothing names them; what each
file holds is kept beside them (:mod:`appliance.store.staged`). The publication after a "yes", the next run after a "no"
or after a mistake in an option, and a run after an interruption read no file again that was read to its end.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from appliance.archives.fingerprint import fingerprint
from appliance.archives.medium import Medium
from appliance.archives.model import ArchiveContents
from appliance.archives.sink import HashingSink
from appliance.errors import ApplianceError
from appliance.oci.blob import StoredBlob
from appliance.oci.manifests import Descriptor
from appliance.oci.mediatypes import PIECE_MAP
from appliance.publish.reading import Reading
from appliance.store.blobs import BlobStore
from appliance.store.gc import GarbageCollector
from appliance.store.staged import StagedReadings


class StagingSink:
    """Sink that stores blobs while there is room for them, and only checks the ones that come afterwards.

    So a medium that does not fit is still verified whole, and the refusal has the true sum.

    :param blobs: the store.
    :param readings: keeps the list of what was stored.
    :param make_room: removes what other runs staged; called once, when there is no room.
    """

    def __init__(self, blobs: BlobStore, readings: StagedReadings, make_room: Callable[[], None]) -> None:
        self._blobs = blobs
        self._readings = readings
        self._make_room: Callable[[], None] | None = make_room
        self._rest: HashingSink | None = None

    @property
    def is_full(self) -> bool:
        """Return whether a blob did not fit, so that not everything is in the store."""
        return self._rest is not None

    def put(
        self, chunks: Iterable[bytes | memoryview], *, size: int | None, expect: str | None, where: str
    ) -> StoredBlob:
        """Store or check one blob; see :meth:`appliance.archives.sink.BlobSink.put`."""
        if self._rest is None and not self._fits(size, expect):
            self._rest = HashingSink(self._blobs)
        if self._rest is not None:
            return self._rest.put(chunks, size=size, expect=expect, where=where)
        known = len(self._blobs.placed)
        stored = self._blobs.put(chunks, size=size, expect=expect, where=where)
        if len(self._blobs.placed) > known:
            with contextlib.suppress(OSError):  # the next collection finds the blob without this line
                self._readings.note_placed(stored.digest)
        return stored

    def read(self, digest: str, limit: int) -> bytes:
        """Return the bytes of a document; see :meth:`appliance.oci.blob.BlobReader.read`."""
        return (self._rest or self._blobs).read(digest, limit)

    def has(self, digest: str) -> bool:
        """Return whether the blob passed by or is in the store."""
        return (self._rest or self._blobs).has(digest)

    def size(self, digest: str) -> int | None:
        """Return the size in bytes of a blob that passed by or is in the store, else None."""
        return (self._rest or self._blobs).size(digest)

    def close(self) -> None:
        """Close the temporary file."""
        if self._rest is not None:
            self._rest.close()

    def _fits(self, size: int | None, expect: str | None) -> bool:
        if size is None or (expect is not None and self._blobs.size(expect) == size) or size <= self._blobs.room():
            return True
        if self._make_room is not None:
            make_room, self._make_room = self._make_room, None
            make_room()
            self._blobs.space.recount()
        return size <= self._blobs.room()


class Staging:
    """Reading of a medium by one run, and the blobs that it leaves in the store.

    :param blobs: the store; its lock is held.
    :param medium: opens the sources.
    :param deep: whether compressed layers are unpacked and checked too.
    :param collector: removes blobs that nothing needs; None: they wait for the next collection.

    ``sink`` is where blobs go. ``stored`` has digest and size in bytes of the blobs that this reading brought and that
    the store did not have before, and ``piece_maps`` the piece maps of its big blobs.
    """

    def __init__(
        self, blobs: BlobStore, medium: Medium, *, deep: bool = False, collector: GarbageCollector | None = None
    ) -> None:
        self.stored: dict[str, int] = {}
        self.piece_maps: dict[str, Descriptor] = {}
        self._blobs = blobs
        self._medium = medium
        self._deep = deep
        self._collector = collector
        self._readings = StagedReadings(blobs.root)
        with contextlib.suppress(OSError):
            self._readings.drop_expired()
        self._keys: set[str] = set()
        # One store object may serve several runs.
        self._from_before = frozenset(blobs.placed)
        self.sink = StagingSink(blobs, self._readings, self._make_room)

    def find(self, file: Path) -> ArchiveContents | None:
        """Return what a file of the medium holds, where an earlier run read it and its blobs are in the store."""
        key = fingerprint(self._medium, file, deep=self._deep)
        found: ArchiveContents | None = self._load(key, ArchiveContents) if key is not None else None
        return found

    def keep(self, file: Path, contents: ArchiveContents) -> None:
        """Keep what a file holds that was just read to its end."""
        stored = {
            digest: size
            for digest, size in self._blobs.placed.items()
            if digest in contents.blobs and digest not in self._from_before
        }
        maps = self._store_piece_maps(contents.blobs)
        self.stored |= stored
        self.piece_maps |= maps
        key = fingerprint(self._medium, file, deep=self._deep)
        if key is not None and not self.sink.is_full:
            self._write(key, contents, contents.blobs, stored, maps)

    def find_plan(self, plan_id: str, request: Mapping[str, Any]) -> Reading | None:
        """Return the reading of a plan that was shown, where the same was asked for and its blobs are in the store."""
        reading: Reading | None = self._load(_plan_key(plan_id, request), Reading)
        return reading

    def keep_plan(
        self, plan_id: str, request: Mapping[str, Any], reading: bytes, blobs: Mapping[str, int]
    ) -> float | None:
        """Keep the reading of a plan that waits for an answer.

        :param request: the options that the reading depends on, as plain JSON.
        :param reading: the :class:`Reading` as JSON, as it was before names were taken out of it.
        :param blobs: digest to size in bytes of all that it brought.
        :returns: the end of its time, in seconds since 1970; None where the disk takes no record.
        """
        parts = frozenset(self._keys)
        return self._write(
            _plan_key(plan_id, request), msgspec.Raw(reading), blobs, self.stored, self.piece_maps, parts
        )

    def check_complete(self, missing: int) -> None:
        """Refuse (APL-0310) where not every blob went into the store.

        :param missing: bytes that it lacks.
        """
        if self.sink.is_full:
            self._blobs.space.refuse(missing, min(missing, self._blobs.room()))

    def finish(self) -> None:
        """Forget this run's readings: its plan is published, or there was nothing to publish."""
        with contextlib.suppress(OSError):
            self._readings.drop(self._keys)
        self._keys.clear()
        self.tidy()

    def tidy(self) -> None:
        """Remove the blobs that this run or an interrupted one stored and that nothing needs.

        Where the disk takes no change, or a damaged index does not say what is needed, they wait for the next run or
        collection.
        """
        with contextlib.suppress(ApplianceError, OSError):
            claimed = {digest for digest, _ in self._readings.claims()}
            placed = self._readings.placed()
            unneeded = placed - claimed
            if unneeded and self._collector is not None:
                self._collector.remove_unneeded(unneeded)
            self._readings.forget_placed(placed & claimed)

    def _load(self, key: str, kind: type[Any]) -> Any:
        record = self._readings.find(key)
        if record is None or any(self._blobs.size(digest) != size for digest, size in record.blobs.items()):
            return None
        try:
            content = msgspec.json.decode(record.content, type=kind)
        except msgspec.MsgspecError:
            return None
        self._keys |= {key, *record.parts}
        self.stored |= record.stored
        self.piece_maps |= record.piece_maps
        return content

    def _write(
        self,
        key: str,
        content: Any,
        blobs: Mapping[str, int],
        stored: Mapping[str, int],
        piece_maps: Mapping[str, Descriptor],
        parts: Collection[str] = (),
    ) -> float | None:
        self._keys.add(key)
        needed = {**blobs, **{item.digest: item.size for item in piece_maps.values()}}
        try:
            return self._readings.keep(key, content, blobs=needed, stored=stored, piece_maps=piece_maps, parts=parts)
        except OSError:
            return None  # without a record the medium is read again

    def _store_piece_maps(self, blobs: Collection[str]) -> dict[str, Descriptor]:
        maps = {}
        for digest, piece_map in self._blobs.piece_maps.items():
            if digest in blobs and digest not in self.piece_maps:
                content = piece_map.to_bytes()
                stored = self.sink.put([content], size=len(content), expect=None, where=f"piece map of {digest}")
                maps[digest] = Descriptor(PIECE_MAP, stored.digest, stored.size)
        return maps

    def _make_room(self) -> None:
        """Give up what earlier runs staged and this one does not use."""
        with contextlib.suppress(ApplianceError, OSError):
            self._readings.drop_all_but(self._keys)
            staying = {digest for digest, _ in self._readings.claims()} | (
                self._blobs.placed.keys() - self._from_before
            )
            unneeded = self._readings.placed() - staying
            if unneeded and self._collector is not None:
                self._collector.remove_unneeded(unneeded)


def _plan_key(plan_id: str, request: Mapping[str, Any]) -> str:
    return "plan-" + hashlib.sha256(msgspec.json.encode([plan_id, request], order="deterministic")).hexdigest()
