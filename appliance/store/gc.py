"""Garbage collector for the blob store. It works while the store is served, pushed to and followed.

It keeps the blobs that the last generations, pushed names, pins and running images need, uploads that have no name yet, and
every blob that is younger than a grace period. It removes the others in batches, each under
:meth:`~appliance.store.blobs.BlobStore.gc_lock_exclusive` and after a check that the roots are still the same. Each removal
is one unlink of a blob that nothing refers to: a kill at any point leaves a sound store, and no room is needed.

Decisions 52 and 53.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from appliance.errors import ApplianceError, fail
from appliance.files import sync_directory
from appliance.oci.digests import digest_of, is_digest
from appliance.oci.manifests import MANIFEST_LIMIT, Descriptor, Manifest, parse_manifest
from appliance.store.auditlog import note
from appliance.store.blobs import BlobStore
from appliance.store.generations import Generation, Generations, parse
from appliance.store.index import Entry
from appliance.store.locks import names_locked
from appliance.store.marking import Marker, Marks, Root, exclusive
from appliance.store.pins import Pins
from appliance.store.pushes import Pushes
from appliance.store.reachability import reader
from appliance.store.staged import StagedReadings
from appliance.store.uploads import Uploads

GRACE_SECONDS = 3600.0
"""Age below which nothing is collected."""
_BATCH_SECONDS = 0.2
"""How long pushes and a new generation may wait for one batch."""
_RECENT = "recent"


@dataclass(frozen=True)
class Image:
    """An image that a node is running.

    :param name: as its containerd calls it.
    :param digest: of its manifest or index, or of its config; None where containerd does not know it any more.
    """

    name: str
    digest: str | None


@dataclass(frozen=True)
class Freed:
    """A name that is not served any more and loses blobs.

    :param generation: number of the last generation that had it and whose bytes are still here.
    :param size: bytes of the blobs that go.
    """

    name: str
    digest: str
    generation: int
    size: int


@dataclass(frozen=True)
class Plan:
    """Blobs that a collection would remove, and the reason for each that stays.

    :param id: stands for everything that is kept; another one after something was published, pushed, pinned or started.
    :param doomed: what goes: digest to its file.
    :param leftovers: files beside the blobs that go too, with their bytes: what lies in quarantine of a blob that is back
        or that nothing needs, and what was fetched of one that nothing needs.
    :param kept_for: reason to (blobs, bytes) that lie here and stay for it; one blob may stay for several.
    :param kept: bytes of all blobs that stay, each once.
    :param names: whose blobs they were, as far as known.
    :param generations: numbers of the generations that stay complete.
    :param notes: remarks for the operator.
    """

    id: str
    doomed: dict[str, os.stat_result]
    leftovers: dict[Path, int]
    kept_for: dict[str, tuple[int, int]]
    kept: int
    names: list[Freed]
    generations: list[int]
    notes: list[str]

    @property
    def size(self) -> int:
        """Bytes that would be freed."""
        return sum(file.st_size for file in self.doomed.values()) + sum(self.leftovers.values())

    def as_dict(self) -> dict[str, Any]:
        """The plan as ``appliance gc --plan --json`` prints it; sizes in bytes."""
        return {
            "plan_id": self.id,
            "generations": self.generations,
            "blobs": len(self.doomed),
            "bytes": self.size,
            "leftovers": len(self.leftovers),
            "kept_bytes": self.kept,
            "kept_for": {reason: {"blobs": blobs, "bytes": size} for reason, (blobs, size) in self.kept_for.items()},
            "names": [
                {"name": item.name, "digest": item.digest, "generation": item.generation, "bytes": item.size}
                for item in self.names
            ],
            "notes": self.notes,
        }


@dataclass
class SweepResult:
    """Number of removed blobs, and their bytes together with those of removed leftovers."""

    blobs: int = 0
    size: int = 0


@dataclass(frozen=True)
class GarbageCollector:
    """Collects the garbage of one store.

    :param keep: how many generations stay complete.
    :param running: what the site's nodes run.
    :param grace: seconds; what was placed since then stays.
    :param lost: digests of manifests that no node has any more; that nothing is kept for them was agreed to.
    :param keep_staged: whether a verified medium that waits for an answer keeps its blobs.
    :param clock: the time, in seconds since 1970.
    """

    blobs: BlobStore
    generations: Generations
    pushes: Pushes
    pins: Pins
    uploads: Uploads
    keep: int
    running: Sequence[Image] = ()
    grace: float = GRACE_SECONDS
    lost: Collection[str] = ()
    keep_staged: bool = True
    clock: Callable[[], float] = time.time

    @functools.cached_property
    def _marker(self) -> Marker:
        return Marker(reader(self.blobs))

    def plan(self) -> Plan:
        """Look at everything; changes nothing.

        :raises ApplianceError: APL-0321 where it cannot be known what has to stay, APL-0305, APL-0314 and APL-0331 for
            a damaged index.
        """
        complete, notes = self._complete(), list[str]()
        roots = [*self._roots(complete, notes)]
        marks = self._mark(roots)
        oldest = self.clock() - self.grace
        doomed: dict[str, os.stat_result] = {}
        reached = {**marks.reached, _RECENT: set[str]()}
        sizes: dict[str, int] = {}
        for digest, file in self.blobs.files():
            sizes[digest] = file.st_size
            if digest in marks:
                continue
            # The later of the two: a rename to its place is a change, and a clock that was set back makes it young.
            if max(file.st_mtime, file.st_ctime) > oldest:
                reached[_RECENT].add(digest)
            else:
                doomed[digest] = file
        return Plan(
            id=self._id(complete),
            doomed=doomed,
            leftovers=dict(self._leftovers(marks, set(sizes) - set(doomed), oldest)),
            kept_for={kind: _sum(digests, sizes) for kind, digests in reached.items()},
            kept=sum(size for digest, size in sizes.items() if digest not in doomed),
            names=self._names(complete, doomed),
            generations=[generation.number for generation in complete],
            notes=notes,
        )

    def sweep(self, plan: Plan, swept: SweepResult) -> None:
        """Remove what the plan says and nothing needs since; only for whoever holds the store's lock.

        :param swept: counts what went, also where this ends with an error.
        :raises ApplianceError: APL-0311 where the disk takes no change, APL-0321 as :meth:`plan`.
        """
        self._remove(plan.doomed, swept)
        with self.blobs.gc_lock_exclusive():
            for path, size in plan.leftovers.items():
                with self.blobs.disk_errors(path.name), contextlib.suppress(FileNotFoundError):
                    path.unlink()
                    swept.size += size
            self.generations.remove_stray_signatures()

    def remove_unneeded(self, digests: Collection[str]) -> SweepResult:
        """Remove those of some blobs that nothing needs, whatever their age; only for whoever holds the store's lock.

        :raises ApplianceError: as :meth:`sweep`.
        """
        swept, found = SweepResult(), dict[str, os.stat_result]()
        for digest in digests:
            with contextlib.suppress(FileNotFoundError):
                found[digest] = self.blobs.path(digest).lstat()
        self._remove(found, swept)
        return swept

    def _remove(self, doomed: Mapping[str, os.stat_result], swept: SweepResult) -> None:
        waiting = list(doomed.items())
        directories: set[Path] = set()
        marks, state = Marks(), None
        try:
            while waiting:
                # Before the lock, so that nobody waits for it; and under it, where something came in between.
                marks, state = self._renewed(marks, state)
                with self.blobs.gc_lock_exclusive():
                    marks, state = self._renewed(marks, state)
                    end = time.monotonic() + _BATCH_SECONDS
                    while waiting:
                        digest, file = waiting.pop()
                        if digest not in marks and self.blobs.remove(digest, file):
                            directories.add(self.blobs.path(digest).parent)
                            swept.blobs += 1
                            swept.size += file.st_size
                        if time.monotonic() >= end:
                            break
        finally:
            with self.blobs.disk_errors("a removal"):
                for directory in directories:
                    sync_directory(directory)

    def largest(self, count: int = 5) -> list[tuple[str, int]]:
        """Return names and the bytes that each alone needs, the largest first.

        Names that are served stand by themselves, an older generation for all that it alone keeps, and ``garbage`` for
        what nothing needs.

        :raises ApplianceError: as :meth:`plan`.
        """
        complete = self._complete()
        current = complete[-1] if complete else None
        reached: dict[str, set[str]] = {}
        for generation in complete:
            for name, entry in generation.entries:
                label = name if generation is current else f"generation {generation.number}"
                reached.setdefault(label, set()).update(self._marker.reaches(Root("", name, entry)))
        pushed, pinned = self.pushes.current(), self.pins.current()
        for name, entry in _as_pushed(pushed.names if pushed else {}):
            reached.setdefault(f"{name} (pushed)", set()).update(self._marker.reaches(Root("", name, entry)))
        for name, entry in pinned.names.items() if pinned else ():
            reached.setdefault(f"{name} (pinned)", set()).update(self._marker.reaches(Root("", name, entry)))
        plan = self.plan()
        reached["garbage"] = set(plan.doomed)
        found = exclusive(reached, dict(self.blobs.digests()))
        return sorted(((name, size) for name, size in found.items() if size), key=lambda row: (-row[1], row[0]))[:count]

    def _renewed(self, marks: Marks, known: object) -> tuple[Marks, object]:
        """Marks with the state of the roots that they are of: the same ones where it is still that state."""
        state = self._state()
        return (marks, known) if state == known else (self._mark(self._roots(self._complete(), [])), state)

    # ------------------------------------------------------------------------------------------- roots

    def _complete(self) -> list[Generation]:
        """The generations that stay complete, the current one last; without a current one, what is about to be it.

        By their numbers: a follower that was off and skipped some keeps no older ones for that.
        """
        current = self.generations.current()
        paths = sorted((self.blobs.root / "generations").glob("[0-9]*-*.json"))
        if current is None:
            return _read_kept(paths[-self.keep :])
        complete = [current]
        for number in range(current.number - 1, max(0, current.number - self.keep), -1):
            later = [generation for generation in complete if generation.number == number + 1]
            parents = [generation.parent for generation in later]
            # One whose publisher was ended before the switch lies there too. It was never served, and what it alone needed
            # may have been collected before its number was given again.
            served = [
                path
                for path in paths
                if int(path.name.partition("-")[0]) == number
                and (not later or any(digest is None or _is_named(path, digest) for digest in parents))
            ]
            complete = [*_read_kept(served), *complete]
        return complete

    def _roots(self, complete: Iterable[Generation], notes: list[str]) -> Iterator[Root]:
        for generation in complete:
            label = f"generation {generation.number}"
            for name, entry in generation.entries:
                yield Root("generations", f"{name} of {label}", entry)
            for blob, descriptor in generation.piece_maps.items():
                yield Root("generations", f"the piece map of {blob}", Entry(descriptor), leaf=True)
        pushed = self.pushes.current()
        if pushed is not None:
            for name, entry in pushed.names.items():
                yield Root("pushes", f"{name}, which was pushed", entry, shallow=True)
            for blob, descriptor in pushed.piece_maps.items():
                yield Root("pushes", f"the piece map of {blob}", Entry(descriptor), leaf=True)
        pinned = self.pins.current()
        if pinned is not None:
            for name, entry in pinned.names.items():
                # A pin outlives its name; where the manifest never came here there is nothing of it to keep.
                if self.blobs.has(entry.descriptor.digest):
                    yield Root("pins", f"{name}, which is pinned", entry)
        yield from self._running(notes)
        for digest, piece_map in self.uploads.claims():
            for descriptor in (_bare(digest), *([piece_map] if piece_map else ())):
                yield Root("uploads", f"{digest}, which was uploaded", Entry(descriptor), leaf=True)

        for digest in self._staged():
            yield Root("staged", f"{digest}, which waits for an answer", Entry(_bare(digest)), leaf=True)

    def _staged(self) -> Iterator[str]:
        if self.keep_staged:
            readings = StagedReadings(self.blobs.root, self.clock)
            yield from (digest for digest, _ in readings.claims() if self.blobs.has(digest))

    def _running(self, notes: list[str]) -> Iterator[Root]:
        """Return the running images that have blobs in this store; others did not come from the mirror."""
        configs: dict[str, str] = {}
        for image in self.running:
            label = f"{image.name}, which runs"
            if image.digest is None:
                notes.append(
                    f"{image.name} runs, and its containerd does not say which image that is: it stays by its name, "
                    "where a generation that is kept has it."
                )
            elif self.blobs.has(image.digest):
                # A damaged one is none of these: what it lists is not known, and the marking says so.
                is_config = self._is_sound(image.digest) and self._manifest(image.digest) is None
                if is_config:
                    configs[image.digest] = label
                yield Root("running", label, self._as_here(image.digest), leaf=is_config)
        for digest, config in self._images_of(configs):
            yield Root("running", configs[config], self._as_here(digest))

    def _as_here(self, digest: str) -> Entry:
        """An image with what lies here of it: a child that never came is nothing to keep."""
        absent, pending = set[str](), [digest]
        while pending:
            manifest = self._manifest(pending.pop())
            for child in manifest.manifests if manifest else ():
                if self.blobs.has(child.digest):
                    pending.append(child.digest)
                else:
                    absent.add(child.digest)
        return Entry(_bare(digest), frozenset(absent))

    def _is_sound(self, digest: str) -> bool:
        return (self.blobs.size(digest) or 0) > MANIFEST_LIMIT or reader(self.blobs)(_bare(digest)) is not None

    def _manifest(self, digest: str) -> Manifest | None:
        if (self.blobs.size(digest) or 0) > MANIFEST_LIMIT:
            return None
        content = reader(self.blobs)(_bare(digest))
        try:
            return None if content is None else parse_manifest(content)
        except ApplianceError:
            return None

    def _images_of(self, configs: Collection[str]) -> Iterator[tuple[str, str]]:
        """Manifests that lie here and have one of these configs, as (digest, config)."""
        if not configs:
            return
        for digest, size in self.blobs.digests():
            manifest = self._manifest(digest) if size <= MANIFEST_LIMIT else None
            if manifest is not None and manifest.config is not None and manifest.config.digest in configs:
                yield digest, manifest.config.digest

    def _mark(self, roots: Iterable[Root]) -> Marks:
        marks = self._marker.mark(roots)
        unknown = {digest: root for digest, root in marks.lost.items() if digest not in self.lost}
        if unknown:
            said = [f"{digest} of {root.label}" for digest, root in sorted(unknown.items())]
            fail(
                "APL-0321",
                "no collection: the blobs that must stay are unknown",
                where=str(self.blobs.root),
                why=f"manifests are missing or damaged: {'; '.join(said[:5])}"
                + (f" and {len(said) - 5} more" if len(said) > 5 else ""),
                fix="Run 'appliance fsck --repair', which fetches them from another node. Where no node has one any more, "
                "agree with --lost DIGEST that nothing is kept for what it listed",
            )
        return marks

    # ------------------------------------------------------------------------------------------- helpers

    def _id(self, complete: Iterable[Generation]) -> str:
        pushed, pinned = self.pushes.current(), self.pins.current()
        content: list[Any] = [generation.digest for generation in complete]
        content += [pushed.digest if pushed else None, pinned.digest if pinned else None]
        content += [sorted({image.digest or image.name for image in self.running}), sorted(self.lost)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def _leftovers(self, marks: Marks, staying: Collection[str], oldest: float) -> Iterator[tuple[Path, int]]:
        """Files of blobs that are back, or that nothing needs: nobody would look at them again."""
        lying = self.blobs.quarantined()
        gone = [path for digest, paths in lying.items() if digest in staying or digest not in marks for path in paths]
        for path in (self.blobs.root / "partial").glob("*.data"):
            digest = path.stem.replace("-", ":", 1)
            if is_digest(digest) and digest not in marks:
                gone.append(path)
        for path in gone:
            with contextlib.suppress(FileNotFoundError):
                file = path.stat()
                # One that is back is evidence of nothing any more; what is not needed may be needed in a moment.
                if max(file.st_mtime, file.st_ctime) <= oldest or path.parent.name == "quarantine":
                    yield path, file.st_size

    def _state(self) -> tuple[object, ...]:
        """Changes with every root that may change while the store's lock is held."""
        uploads = frozenset(digest for digest, _ in self.uploads.claims())
        staged = StagedReadings(self.blobs.root).state() if self.keep_staged else None
        return self.generations.state(), self.pushes.state(), uploads, staged

    def _names(self, complete: Iterable[Generation], doomed: dict[str, os.stat_result]) -> list[Freed]:
        """Return the names whose blobs are removed: those of generations that are no longer kept complete."""
        numbers = {generation.number for generation in complete}
        found: dict[tuple[str, str], Freed] = {}
        # One at a time: all of them at once are a hundred times the names.
        for generation in self.generations.newest_first() if doomed else ():
            if generation.number in numbers:
                continue
            for name, entry in generation.entries:
                with contextlib.suppress(ApplianceError):
                    reached = self._marker.reaches(Root("", "", entry))
                    size = sum(doomed[digest].st_size for digest in set(reached) if digest in doomed)
                    if size:
                        digest = entry.descriptor.digest
                        found.setdefault((name, digest), Freed(name, digest, generation.number, size))
        return sorted(found.values(), key=lambda item: (-item.size, item.name, item.digest))


def collect(collector: GarbageCollector, *, expect: str | None = None) -> tuple[Plan, SweepResult]:
    """Make the plan and carry it out; under the store's lock, so that no seeding counts on what goes.

    :param expect: id of the plan that was shown and confirmed.
    :raises ApplianceError: as :meth:`GarbageCollector.plan`, APL-0307 while a seeding runs, APL-0325 where something else would
        be kept than what the plan showed.
    """
    root = collector.blobs.root
    with names_locked(root):
        plan, swept = collector.plan(), SweepResult()
        if expect is not None and plan.id != expect:
            fail(
                "APL-0325",
                "the blobs that must stay changed after the plan",
                where=str(root),
                why=f"confirmed was plan {expect}, this would be plan {plan.id}",
                fix="Nothing was removed. Make the plan again and look at it",
            )
        if not collector.keep_staged:
            StagedReadings(root).drop_all_but()
        try:
            collector.sweep(plan, swept)
        finally:
            if swept.size:
                _note(root, plan, swept)
        return plan, swept


def _note(root: Path, plan: Plan, swept: SweepResult) -> None:
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    line = {"action": "gc", "time": now, "plan": plan.id, "generations": plan.generations}
    try:
        note(root, {**line, "blobs": swept.blobs, "bytes": swept.size})
    except OSError as error:
        # On a full disk that is to be expected; what was removed is no name, and is in nobody's history.
        plan.notes.append(f"The journal could not be written: {error.strerror}.")


def _read_kept(paths: Iterable[Path]) -> list[Generation]:
    """Generations that have to stay complete, from their files; one that is forgotten in this moment is none.

    :raises ApplianceError: APL-0321 for one that is damaged: nobody knows then what it needs.
    """
    found = []
    for path in paths:
        try:
            raw = path.read_bytes()
            generation = parse(raw, str(path))
        except FileNotFoundError:
            continue
        except (ApplianceError, OSError) as error:
            _unreadable(path, str(error))
        if generation is None or not _is_named(path, digest_of(raw)):
            _unreadable(path, "its bytes are another generation's")
        found.append(generation)
    return found


def _is_named(path: Path, digest: str) -> bool:
    return path.name.endswith(f"-{digest.partition(':')[2][:16]}.json")


def _unreadable(path: Path, why: str) -> NoReturn:
    fail(
        "APL-0321",
        "no collection: the blobs that must stay are unknown",
        where=str(path),
        why=f"a generation that is kept is damaged: {why}",
        fix="Copy the file of that name from another node's store. To give that generation up, and with it the way back to "
        "it, remove the file",
    )


def _as_pushed(names: Mapping[str, Entry]) -> Iterator[tuple[str, Entry]]:
    """Return what an operator can delete: each manifest by one of its tags. One without a tag goes with its index."""
    seen: set[tuple[str, str]] = set()
    for name, entry in names.items():
        key = (name.rpartition(":")[0], entry.descriptor.digest)
        if "@" not in name and key not in seen:
            seen.add(key)
            yield name, entry


def _bare(digest: str) -> Descriptor:
    """A descriptor of which nothing but the digest is known; the document says what it is."""
    return Descriptor("", digest, 0)


def _sum(digests: Iterable[str], sizes: dict[str, int]) -> tuple[int, int]:
    here = [sizes[digest] for digest in digests if digest in sizes]
    return len(here), sum(here)
