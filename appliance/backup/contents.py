"""Contents of a store's backup: names, signatures, the audit log, and what operators pushed.

Layers come back from media and peers and are left out. Manifests are small and go along: with them every node knows
every name again, and what is still missing can be told.

Decisions 58, 59 and 60.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Literal

from appliance.backup.container import Backup, Content, read
from appliance.errors import ApplianceError, fail
from appliance.files import write_atomically
from appliance.media import media_words
from appliance.oci.digests import hasher
from appliance.store import readiness
from appliance.store.auditlog import FILE as JOURNAL
from appliance.store.auditlog import note
from appliance.store.blobs import BlobStore
from appliance.store.generations import Generation
from appliance.store.generations import parse as parse_generation
from appliance.store.index import NameIndex, SignedIndex
from appliance.store.locks import names_locked
from appliance.store.pins import parse as parse_pins
from appliance.store.pushes import parse as parse_pushes
from appliance.store.reachability import Needed, needed, needed_by_pins, needed_by_pushes
from appliance.store.store import Store
from appliance.times import now

KIND = "store"
_TRIES = 20
_STEP = 1 << 20
_COPY = re.compile(r"(?:generations|pushes|pins)/[0-9]{8}-[0-9a-f]{16}\.(?:json|sig)", re.ASCII)
_BLOB = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]{64}|[0-9a-f]{128})", re.ASCII)
_KEYS = {"index.json": "generation", "pushes.json": "pushes", "pins.json": "pins"}
"""File of each index to what it is called in ``backup.json``."""
_PARSERS: Mapping[str, Callable[[bytes, str], NameIndex | None]] = {
    "index.json": parse_generation,
    "pushes.json": parse_pushes,
    "pins.json": parse_pins,
}
_DIRECTORIES = {"index.json": "generations", "pushes.json": "pushes", "pins.json": "pins"}
"""File of each index to where its signatures and copies lie."""

State = Literal["same", "forward", "other"]


def _indexes(store: Store) -> Iterator[tuple[str, SignedIndex[Any]]]:
    """Yield each index with the name of its file, in the order in which they are written."""
    return ((index.index.name, index) for index in store.indexes.values())


def collect(store: Store, *, pushed_blobs: bool) -> tuple[dict[str, Content], dict[str, Any]]:
    """The files of a store's backup, and what ``backup.json`` says about them.

    Works while the store serves and while names change: no lock is taken, because a seeding holds its own for as long
    as it reads a medium. What is read between two changes belongs together, and is read again where there was one.

    :param pushed_blobs: whether the layers of what was pushed go along too.
    :raises ApplianceError: APL-0879 where names change faster than they can be read.
    """
    for _ in range(_TRIES):
        before = store.states()
        names, current = _read_names(store)
        if store.states() == before:
            break
    else:
        fail(
            "APL-0879",
            "the names of the store change faster than they can be read",
            where=str(store.blobs.root),
            fix="Run it again when fewer images are pushed; nothing was written",
        )
    wanted = _wanted(store, current, pushed_blobs=pushed_blobs)
    # One that has rotted would make the whole of the backup one that cannot be restored.
    sound = [digest for digest in wanted if _is_sound(store.blobs, digest)]
    blobs: dict[str, Content] = {f"blobs/{digest.replace(':', '/')}": store.blobs.path(digest) for digest in sound}
    generation = current["index.json"]
    history = _history(store, names.get(JOURNAL, b""))
    about = {
        "generation": _said(generation),
        "pushes": _said(current["pushes.json"]),
        "pins": _said(current["pins.json"]),
        "names": len(generation.names) if generation else 0,
        "media": history.media,
        "history": history.digests,
        "pushed_blobs": pushed_blobs,
        "missing": sorted(set(wanted).difference(sound)),
    }
    return {**names, **blobs}, about


def compare(store: Store, about: Mapping[str, Any]) -> dict[str, State]:
    """Compare each index of a store with a backup.

    ``same``; ``forward``: the store has nothing, or what came before the backup; ``other``: it has what the backup does
    not know, and would lose it.
    """
    states: dict[str, State] = {}
    for file, index in _indexes(store):
        # What a damaged one listed nobody knows: whether it may be replaced is the operator's word.
        try:
            states[file] = _compare(index.current(), about, file)
        except ApplianceError:
            states[file] = "other"
    return states


def restore(store: Store, file: BinaryIO, where: str, *, over: bool) -> dict[str, Any]:
    """Bring the names of a backup back into a store; its manifests and pushed layers too.

    Whatever ends this in between leaves what was served; running it again finishes it. What is replaced is kept beside,
    in ``replaced-<time>/``.

    :param file: the backup, opened.
    :param over: replace also what the backup does not know.
    :returns: ``changed``, ``states`` (see :func:`compare`), ``blobs`` written.
    :raises ApplianceError: APL-0870 for no whole backup, APL-0873 without ``over``, APL-0307 while a seeding runs,
        APL-0310 where the disk is full.
    """
    indexes: dict[str, bytes] = {}

    def take(name: str, chunks: Iterator[memoryview]) -> None:
        if name in _KEYS:
            indexes[name] = b"".join(map(bytes, chunks))

    backup = read(file, KIND, where, take)
    _check_names(backup, where)
    _check_indexes(backup, indexes, where)
    with store.blobs.disk_errors("a new store"):
        store.blobs.create()
    with names_locked(store.blobs.root):
        refuse_other(compare(store, backup.about), store, backup.about, over=over)
        names, written = _take_in(store.blobs, file, where, backup)
        with store.pushes.changing():
            # Again: an operator may have pushed meanwhile.
            states = compare(store, backup.about)
            refuse_other(states, store, backup.about, over=over)
            changing = [name for name, state in states.items() if state != "same"]
            if changing:
                # What it made sure of was said about other names: it asks the other nodes again before it publishes.
                readiness.clear(store.blobs.root)
                # The agent of a node that runs all the same waits: what it finds in between is neither of the two.
                with store.blobs.disk_errors("the names"), store.generations.commit_lock():
                    _put_names(store, names, changing, _line(backup, states))
            _remove_others(store, names)
        return {"changed": bool(changing or written), "states": states, "blobs": written}


def refuse_other(states: Mapping[str, State], store: Store, about: Mapping[str, Any], *, over: bool) -> None:
    """Refuse (APL-0873) to replace what the backup does not know."""
    others = [name for name, state in states.items() if state == "other"]
    if others and not over:
        key, index = _KEYS[others[-1]], dict(_indexes(store))[others[-1]]
        fail(
            "APL-0873",
            "the store serves names that the backup does not contain",
            where=str(store.blobs.root),
            why=f"{key} {_served(index)}; in the backup: {_shown(about.get(key))}",
            fix="Nothing was changed. Keep what is served, or replace it all the same with --over (restore_over)",
        )


def _served(index: SignedIndex[Any]) -> str:
    try:
        return _shown(_said(index.current()))
    except ApplianceError as error:
        return f"that is damaged ({error.why})"


def _read_names(store: Store) -> tuple[dict[str, Content], dict[str, Any]]:
    """Index and copies by file name, and what is current; each index before its signature, which was written first."""
    root, found = store.blobs.root, dict[str, Content]()
    current: dict[str, Any] = {}
    for name, index in _indexes(store):
        item = current[name] = index.current()
        if item is not None:
            found[name] = item.raw
            directory = root / _DIRECTORIES[name]
            for path in sorted(directory.glob("*")):
                if _COPY.fullmatch(f"{directory.name}/{path.name}"):
                    with contextlib.suppress(FileNotFoundError):  # pruned meanwhile
                        found[f"{directory.name}/{path.name}"] = path.read_bytes()
    with contextlib.suppress(FileNotFoundError):
        journal = (root / JOURNAL).read_bytes()
        # A line that is being written, or was cut short by a power loss, says nothing yet.
        found[JOURNAL] = journal[: journal.rfind(b"\n") + 1]
    return found, current


def _wanted(store: Store, current: Mapping[str, Any], *, pushed_blobs: bool) -> list[str]:
    """Digests of the blobs that go along."""
    found: dict[str, Needed] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    for generation in store.generations.newest_first():
        # A hundred generations are mostly the same: each entry is followed once.
        new = {}
        for name, entry in generation.names.items():
            if (key := (entry.descriptor.digest, entry.absent)) not in seen:
                seen.add(key)
                new[name] = entry
        attached = {digest: item for digest, item in generation.referrers.items() if digest not in found}
        found |= _manifests(needed(replace(generation, names=new, referrers=attached), store.blobs))
    if current["pins.json"] is not None:
        found |= _manifests(needed_by_pins(current["pins.json"], store.blobs))
    if current["pushes.json"] is not None:
        pushed = needed_by_pushes(current["pushes.json"], store.blobs)
        found |= pushed if pushed_blobs else _manifests(pushed)
    return sorted(found)


def _is_sound(blobs: BlobStore, digest: str) -> bool:
    """Return whether a blob is here, can be read, and is what its digest says."""
    try:
        with blobs.path(digest).open("rb") as file:
            digester = hasher(digest.partition(":")[0])
            while chunk := file.read(_STEP):
                digester.update(chunk)
    except OSError:
        return False
    return f"{digester.name}:{digester.hexdigest()}" == digest


def _manifests(items: Mapping[str, Needed]) -> dict[str, Needed]:
    return {digest: item for digest, item in items.items() if item.is_manifest}


@dataclass(frozen=True)
class _History:
    digests: list[str]
    media: list[str]


def _history(store: Store, journal: Content) -> _History:
    """Digests of all generations that came before, as far as they are known, and the media that brought them."""
    digests: dict[str, None] = {}
    media: dict[str, None] = {}
    for line in (journal if isinstance(journal, bytes) else b"").splitlines():
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            said = json.loads(line)
            if isinstance(said.get("sources"), list):
                media |= dict.fromkeys(_media(said))
            if isinstance(said.get("digest"), str) and "number" in said:
                digests[said["digest"]] = None
    # One at a time, since all of them at once are a hundred times the names; the media in the order in which they came.
    known = [(item.parent, item.digest, item.origin) for item in store.generations.newest_first()]
    for parent, digest, origin in reversed(known):
        digests |= dict.fromkeys(filter(None, (parent, digest)))
        media |= dict.fromkeys(origin)
    return _History(list(digests), list(media))


def _media(line: Mapping[str, Any]) -> list[str]:
    """The media of a line of the journal, in words; by their sources alone where the line says no more that is understood."""
    sources, media = [str(source) for source in line["sources"]], line.get("media")
    try:
        return media_words(sources, media if isinstance(media, dict) else {})
    except (AttributeError, TypeError):
        return sources


def _compare(current: NameIndex | None, about: Mapping[str, Any], file: str) -> State:
    key = _KEYS[file]
    wanted = about.get(key)
    if current is None:
        return "same" if wanted is None else "forward"
    if wanted is not None and current.digest == wanted["digest"]:
        return "same"
    if wanted is None or current.number >= wanted["number"]:
        return "other"
    if isinstance(current, Generation):
        return "forward" if current.digest in about.get("history", []) else "other"
    return "forward"


def _check_names(backup: Backup, where: str) -> None:
    for name in backup.files:
        if name not in (*_KEYS, JOURNAL) and not _COPY.fullmatch(name) and not _BLOB.fullmatch(name):
            fail("APL-0870", "the backup is incomplete or corrupt", where=where, why=f"no store has a file {name}")


def _check_indexes(backup: Backup, indexes: Mapping[str, bytes], where: str) -> None:
    """Hold what the backup says of its indexes, by which it is decided what may be replaced, against those themselves."""
    for name, key in _KEYS.items():
        said = None
        if name in indexes:
            with contextlib.suppress(ApplianceError):
                said = _said(_PARSERS[name](indexes[name], name))
        if key not in backup.about or backup.about[key] != said or (name in indexes) != (said is not None):
            fail(
                "APL-0870",
                "the backup is incomplete or corrupt",
                where=where,
                why=f"its {name} is not what it says of it",
            )
    history = backup.about.get("history")
    if not isinstance(history, list):
        fail("APL-0870", "the backup is incomplete or corrupt", where=where, why="it says nothing of what came before")


def _line(backup: Backup, states: Mapping[str, State]) -> dict[str, Any]:
    """Return the line for the audit log."""
    return {
        "action": "restore",
        "time": now(),
        "backup": backup.created,
        "generation": backup.about["generation"],
        "over": "other" in states.values(),
    }


def _take_in(blobs: BlobStore, file: BinaryIO, where: str, backup: Backup) -> tuple[dict[str, bytes], int]:
    """Put the blobs into the store; the other files, and the number of blobs that were written."""
    names: dict[str, bytes] = {}
    written = 0

    def take(name: str, chunks: Iterator[memoryview]) -> None:
        nonlocal written
        blob = _BLOB.fullmatch(name)
        if blob is None:
            names[name] = b"".join(map(bytes, chunks))
            return
        digest = f"{blob[1]}:{blob[2]}"
        if blobs.has(digest):
            return
        # The reader uses its memory again; the store's threads do not wait for that.
        blobs.put(map(bytes, chunks), size=backup.files[name][0], expect=digest, where=where)
        written += 1

    blobs.clear_incoming()
    read(file, KIND, where, take)
    return names, written


def _put_names(store: Store, names: Mapping[str, bytes], changing: Sequence[str], line: Mapping[str, Any]) -> None:
    """Copies and signatures first, then the journal, the indexes last: what is seen is whole at any moment.

    :param line: what the journal says about it. Before the indexes: ended after them, the next run would find nothing to do.
    """
    root = store.blobs.root
    _keep_aside(store)
    for name, content in names.items():
        if _COPY.fullmatch(name):
            (root / name).parent.mkdir(exist_ok=True)
            write_atomically(root / name, content)
    if JOURNAL in names:
        write_atomically(root / JOURNAL, names[JOURNAL], 0o640)
    note(root, line)
    for name in changing:
        if name in names:
            write_atomically(root / name, names[name])
        elif name != "index.json":
            (root / name).unlink(missing_ok=True)


def _remove_others(store: Store, names: Mapping[str, bytes]) -> None:
    """Remove files of another series of numbers, which an interrupted restore leaves: they would count as kept."""
    for name in _KEYS:
        for path in store.blobs.root.glob(f"{_DIRECTORIES[name]}/*") if name in names else ():
            if f"{_DIRECTORIES[name]}/{path.name}" not in names:
                path.unlink(missing_ok=True)


def _keep_aside(store: Store) -> None:
    """Keep what is about to be replaced, in a directory of its own."""
    root = store.blobs.root
    if not (root / JOURNAL).exists() and not any((root / "generations").glob("*")):
        return
    aside = root / f"replaced-{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%SZ}"
    names = [*_KEYS, JOURNAL, *(f"{directory}/*" for directory in _DIRECTORIES.values())]
    for path in (found for name in names for found in root.glob(name)):
        target = aside / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _said(item: NameIndex | None) -> dict[str, Any] | None:
    return None if item is None else {"number": item.number, "digest": item.digest, "created": item.created}


def _shown(said: Mapping[str, Any] | None) -> str:
    return "none" if said is None else f"{said['number']} {said['digest']} of {said['created']}"
