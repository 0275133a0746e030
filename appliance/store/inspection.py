"""Inspection of every file of a store but the blobs, for damage. :mod:`appliance.store.kinds` lists the kinds of files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.errors import ApplianceError
from appliance.oci.digests import digest_of
from appliance.store import readiness, schema
from appliance.store.auditcheck import Survey, survey
from appliance.store.auditlog import FILE as JOURNAL
from appliance.store.index import SignedIndex, beginning
from appliance.store.kinds import Kind, kind_named
from appliance.store.staged import StagedReadings
from appliance.store.store import Store
from appliance.trust import Signature

_SHOWN = 5


@dataclass(frozen=True)
class Fault:
    """One file that is damaged or gone.

    :param kind: name of its kind.
    :param path: relative to the state directory.
    :param why: what is wrong with it.
    :param item: number and beginning of the digest, for a file of an index.
    :param code: id of the error that it is elsewhere, where there is one.
    :param fleeting: whether it may be what a process is writing at this moment, or what an interrupted one left: the next
        command completes it, and so does the agent that sees it twice.
    """

    kind: str
    path: str
    why: str
    item: tuple[int, str] | None = None
    code: str = ""
    fleeting: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Return the identity of the fault, which stays the same when its words change."""
        return self.kind, self.path

    @property
    def about(self) -> Kind:
        """Its kind."""
        return kind_named(self.kind)

    def words(self, root: Path) -> str:
        """Say what is wrong, in one line."""
        return f"{self.code}{': ' * bool(self.code)}{root / self.path}: {self.why}"

    @property
    def lost(self) -> str:
        """Return what is lost where nothing heals it."""
        if self.kind == "generation-copy" and self.item is not None:
            return f"generation {self.item[0]} can no longer be rolled back to"
        return f"lost: {self.about.lost}"


@dataclass(frozen=True)
class Head:
    """Number and digest of an index that was read."""

    number: int
    digest: str

    @property
    def item(self) -> tuple[int, str]:
        """Return number and beginning of the digest, as the names of its files have them."""
        return self.number, beginning(self.digest)


class Inspector:
    """Looks at one store again and again; what did not change since it was found sound is not read again.

    :param store: what is looked at.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._root = store.blobs.root
        self._sound: dict[Path, tuple[int, ...]] = {}
        self._heads: dict[str, tuple[object, Head | None]] = {}
        self._log: tuple[tuple[int, ...] | None, Survey] | None = None
        self._log_faults: list[Fault] = []

    def look(self, *, anew: bool = False) -> list[Fault]:
        """Return what is damaged.

        :param anew: read everything again: a disk that rots does not change the time of a file.
        """
        if anew:
            self._sound, self._heads, self._log = {}, {}, None
        store = self.store
        log, is_fresh, faults = self._survey()
        if not is_fresh and not readiness.is_sound(self._root, store.node, log.given_up):
            # The log may have grown by what was given up now.
            self._log = None
            log, is_fresh, faults = self._survey()
        faults += _layout(self._root)
        faults += _form(self._root)
        head, found = self._current("generation", "index.json", store.generations)
        faults += [*found, *self._generations(head, log)]
        for name, index in (("pushes", store.pushes), ("pins", store.pins)):
            if index is not None:
                counted, found = self._current(name, f"{name}.json", index)
                faults += [*found, *self._signatures(name, index, counted)]
        if not readiness.is_sound(self._root, store.node, log.given_up):
            faults.append(Fault("standing", readiness.FILE, "it is not the mark of this node"))
        if is_fresh:
            faults += self._judge_log(head, log)
        faults += [
            Fault("staged", str(path.relative_to(self._root)), "it cannot be read")
            for path in StagedReadings(self._root).damaged()
        ]
        return [*faults, *_scrub(self._root)]

    def _current(self, kind: str, path: str, index: SignedIndex[Any]) -> tuple[Head | None, list[Fault]]:
        """Return what an index says now; None where it is damaged, or where there is none yet."""
        if index.is_gone():
            return None, [Fault(kind, path, "it is not there any more")]
        state = index.state()
        known = self._heads.get(kind)
        if known is not None and known[0] == state:
            return known[1], []
        try:
            item = index.current()
        except ApplianceError as error:
            return None, [Fault(kind, path, error.why, code=error.code)]
        head = Head(item.number, item.digest) if item is not None else None
        self._heads[kind] = state, head
        return head, []

    def _generations(self, head: Head | None, log: Survey) -> Iterator[Fault]:
        index = self.store.generations
        last = head.item if head else next(iter(index.newest()[-1:]), None)
        if last is None:
            return
        published = {(number, beginning(digest)) for number, digest in log.published if self.store.config.is_publisher}
        lost = {*index.lost(last[0], published), *([] if index.file(*last, ".json").exists() else [last])}
        for item in sorted({*index.known(), *lost}):
            # A higher number, and another one of this, was written by a publisher that was ended before it switched.
            if item[0] > last[0] or (item[0] == last[0] and item != last):
                continue
            copy = index.file(*item, ".json")
            path = f"generations/{copy.name}"
            if item in lost:
                yield Fault("generation-copy", path, "it is not there any more", item)
                if index.signs and index.file(*item, ".sig").exists():
                    yield from self._signature("generation-signature", index, item, None)
                continue
            if self._is_known(copy) and (not index.signs or self._is_known(index.file(*item, ".sig"))):
                continue
            raw = None
            key = _key(copy)
            try:
                raw = copy.read_bytes()
            except FileNotFoundError:
                continue  # forgotten between the two looks
            except OSError as error:
                yield Fault("generation-copy", path, f"it cannot be read: {_words(error)}", item)
            if raw is not None and beginning(digest_of(raw)) != item[1]:
                yield Fault("generation-copy", path, "it is damaged: its SHA-256 is another one", item)
                raw = None
            if raw is not None:
                self._note(copy, key)
            if index.signs:
                yield from self._signature("generation-signature", index, item, raw)

    def _signatures(self, kind: str, index: SignedIndex[Any], head: Head | None) -> Iterator[Fault]:
        if not index.signs:
            return
        here = head.item if head else None
        for item in sorted({*index.known(), *([here] if here else [])}):
            if item != here:
                yield from self._signature(f"{kind}-signature", index, item, None)
            elif not self._is_known(index.file(*item, ".sig")):
                with contextlib.suppress(FileNotFoundError):
                    raw = index.index.read_bytes()
                    if beginning(digest_of(raw)) == item[1]:  # else it was replaced this moment
                        yield from self._signature(f"{kind}-signature", index, item, raw)

    def _signature(
        self, kind: str, index: SignedIndex[Any], item: tuple[int, str], raw: bytes | None
    ) -> Iterator[Fault]:
        path = index.file(*item, ".sig")
        key, why = _key(path), None
        try:
            why = index.why_unsound(item[0], raw, path.read_bytes())
        except FileNotFoundError:
            # One that signs nothing which lies here was removed between the two looks.
            why = None if raw is None else "it is not there any more"
        except OSError as error:
            why = f"it cannot be read: {_words(error)}"
        if why is not None:
            yield Fault(kind, f"{path.parent.name}/{path.name}", why, item)
        elif raw is not None:
            self._note(path, key)

    def _survey(self) -> tuple[Survey, bool, list[Fault]]:
        """Return what the log says, and whether it was read now: one that only grew is not, for it may be long."""
        key = _key(self._root / JOURNAL)
        if self._log is not None:
            before, log = self._log
            if key == before or (key and before and key[0] == before[0] and key[2] > before[2]):
                self._log = key, log
                return log, False, list(self._log_faults)
        try:
            log = survey(self._root)
        except OSError as error:
            return Survey(size=1), False, [Fault("journal", JOURNAL, f"it cannot be read: {_words(error)}")]
        self._log = key, log
        self._log_faults = []
        return log, True, []

    def _judge_log(self, head: Head | None, log: Survey) -> list[Fault]:
        is_ours = head is not None and self._is_ours(head.item)
        faults = list(_log_faults(log, head, is_ours=is_ours, had_lines=is_ours and self._had_lines(head)))
        # What is fleeting is looked at again.
        if any(fault.fleeting for fault in faults):
            self._log = None
        self._log_faults = faults
        return faults

    def _had_lines(self, head: Head | None) -> bool:
        """Return whether the log must have had lines: the next generation waits for the line of the one before it."""
        return any(self._is_ours(item) for item in self.store.generations.known() if head is None or item != head.item)

    def _is_ours(self, item: tuple[int, str]) -> bool:
        """Return whether this node is the publisher and signed a generation."""
        index = self.store.generations
        if not self.store.config.is_publisher or not index.signs:
            return False
        try:
            return Signature.from_json(index.file(*item, ".sig").read_bytes()).signer == self.store.node
        except (OSError, ApplianceError):
            return False

    def _is_known(self, path: Path) -> bool:
        key = _key(path)
        return key is not None and self._sound.get(path) == key

    def _note(self, path: Path, key: tuple[int, ...] | None) -> None:
        if key is not None:
            self._sound[path] = key


def _key(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is written or replaced."""
    try:
        file = path.stat()
    except OSError:
        return None
    return file.st_ino, file.st_mtime_ns, file.st_size, file.st_ctime_ns


def _layout(root: Path) -> Iterator[Fault]:
    try:
        said = json.loads((root / "oci-layout").read_bytes())
        if said == {"imageLayoutVersion": "1.0.0"}:
            return
        why = "it is not what an OCI layout has there"
    except FileNotFoundError:
        why = "it is not there any more"
    except (OSError, ValueError, RecursionError) as error:
        why = f"it cannot be read: {_words(error)}"
    yield Fault("layout", "oci-layout", why)


def _form(root: Path) -> Iterator[Fault]:
    try:
        schema.check(root)
    except ApplianceError as error:
        yield Fault("form", schema.FILE, error.why)
    except OSError as error:
        yield Fault("form", schema.FILE, f"it cannot be read: {_words(error)}")


def _scrub(root: Path) -> Iterator[Fault]:
    try:
        if isinstance(json.loads((root / "scrub.json").read_bytes()), dict):
            return
        why = "it is no JSON object"
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError) as error:
        why = f"it cannot be read: {_words(error)}"
    yield Fault("scrub", "scrub.json", why)


def _log_faults(log: Survey, head: Head | None, *, is_ours: bool, had_lines: bool) -> Iterator[Fault]:
    if not log.size:
        # In a store without keys nothing says who published. A line follows the generation, and the file is made before
        # its first line: a command that was killed between the two leaves the first generation without any line.
        if is_ours or log.size == 0:
            why = "it is not there any more" if had_lines else "it has no line yet"
            yield Fault("journal", JOURNAL, why, fleeting=not had_lines)
    elif not log.sound and (had_lines or log.cut != log.size):
        yield Fault("journal", JOURNAL, "no line of it can be read")
    elif log.damaged:
        some = ", ".join(map(str, log.damaged[:_SHOWN]))
        more = f" and {len(log.damaged) - _SHOWN} more" if len(log.damaged) > _SHOWN else ""
        yield Fault("journal", JOURNAL, f"lines that are damaged, at or just before: {some}{more}")
    elif log.cut:
        yield Fault("journal", JOURNAL, f"the last line is cut short: {log.cut} bytes", fleeting=True)
    elif (
        head is not None
        and is_ours
        and log.published
        and (head.number, head.digest) not in log.published
        and head.number > min(log.published)[0]
    ):
        yield Fault("journal", JOURNAL, f"generation {head.number} has no line", fleeting=True)


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
