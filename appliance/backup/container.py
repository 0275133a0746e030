"""Container of a backup: a tar whose first member, ``backup.json``, lists all others with size and SHA-256.

Nothing of one is believed before all of it was read and held against that list. It is written under another name,
synced, read back, and only then gets its own, which no other file may have.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import secrets
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from appliance import __version__
from appliance.archives.limits import Limits
from appliance.archives.tar import TarStream
from appliance.errors import ContentError, SourceError, fail
from appliance.files import sync_directory
from appliance.oci.strictjson import load_json

MANIFEST = "backup.json"
_FORM = "k3s-airgap-appliance backup"
_VERSION = 1
_STEP = 1 << 20
_MANIFEST_LIMIT = 32 << 20
_MEMBERS = 200_000
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

Content = bytes | Path
"""What a file of a backup is made from."""
Take = Callable[[str, Iterator[memoryview]], None]
"""Called for each file with its name and its bytes, in chunks whose memory is used again."""


@dataclass(frozen=True)
class Backup:
    """Description of a backup, from its first member.

    :param kind: ``site``, or ``store`` for the part that one store gave.
    :param created: the time it was made, ISO 8601 in UTC, as the clock of its maker said.
    :param release: version of the appliance that made it.
    :param about: more about it, by its kind.
    :param files: name to (size in bytes, sha256 in hexadecimal).
    """

    kind: str
    created: str
    release: str
    about: Mapping[str, Any]
    files: Mapping[str, tuple[int, str]]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for size, _ in self.files.values())

    def as_dict(self) -> dict[str, Any]:
        """As it stands in ``backup.json``."""
        return {
            "form": _FORM,
            "version": _VERSION,
            "kind": self.kind,
            "created": self.created,
            "release": self.release,
            "about": dict(self.about),
            "files": [{"name": name, "size": size, "sha256": sha} for name, (size, sha) in self.files.items()],
        }


def write(path: Path, kind: str, created: str, about: Mapping[str, Any], contents: Mapping[str, Content]) -> Backup:
    """Write a backup, 0600, whole or not at all, and never over a file that is there.

    :param contents: name of each file to what it is made from, in the order in which it is written.
    :raises ApplianceError: APL-0871 where there is a file of that name; APL-0870 where what was written does not read
        back, because a source changed meanwhile or the disk lies.
    """
    files = {name: _measure(content) for name, content in contents.items()}
    backup = Backup(kind, created, __version__, about, files)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "w+b") as file:
            _write(file, backup, contents)
            file.flush()
            os.fsync(handle)
            # From the disk, as far as the kernel can be asked for that.
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            read(file, kind, str(path))
        _give_name(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    return backup


def read(file: BinaryIO, kind: str, where: str, take: Take | None = None) -> Backup:
    """Read a backup whole and hold each file against the list.

    What ``take`` got is good only once this has returned: to act on a backup, read it twice.

    :param kind: the kind it has to be of.
    :param where: what it is called in errors.
    :raises ApplianceError: APL-0870 for anything but a whole and unchanged backup of this kind.
    """
    file.seek(0)
    chunks = iter(lambda: file.read(_STEP), b"")
    stream = TarStream(chunks, Limits(entries=_MEMBERS), where)
    backup: Backup | None = None
    left: dict[str, tuple[int, str]] = {}
    try:
        for entry in stream:
            if entry.kind != "file":
                _refuse(where, f"its member {entry.name} is no file")
            if backup is None:
                backup = _manifest(entry.name, entry.size, entry.data, where)
                if backup.kind != kind:
                    _refuse(where, f"it is a backup of a {backup.kind}, not of a {kind}")
                left = dict(backup.files)
                continue
            if entry.name not in left:
                _refuse(where, f"its member {entry.name} is not in its list, or is there twice")
            _hold(entry.name, entry.size, entry.data, left.pop(entry.name), take, where)
    except (SourceError, ContentError) as error:
        _refuse(where, f"{error.what}: {error.why}" if error.why else error.what)
    if backup is None or left or not stream.whole:
        _refuse(where, f"it ends before {next(iter(left))}" if left else "it does not end as it should")
    return backup


def open_backup(path: Path) -> BinaryIO:
    """Open one for :func:`read`; an ordinary file, so that it can be read twice and stays what it was.

    :raises ApplianceError: APL-0870 where it cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        _refuse(str(path), error.strerror or str(error))
    if not file.seekable():
        file.close()
        _refuse(str(path), "it is no ordinary file")
    return file


def unpack(file: BinaryIO, kind: str, where: str, directory: Path) -> Backup:
    """Write the files of a backup, 0600, into a directory that is not there yet (0700), once all of it was found good.

    :raises ApplianceError: as :func:`read`.
    """
    backup = read(file, kind, where)
    directory.mkdir(mode=0o700)

    def take(name: str, chunks: Iterator[memoryview]) -> None:
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as out:
            for chunk in chunks:
                out.write(chunk)

    # What changed since it was found good is found now.
    if read(file, kind, where, take) != backup:
        _refuse(where, "it was changed while it was read")
    return backup


def _write(file: BinaryIO, backup: Backup, contents: Mapping[str, Content]) -> None:
    listed = json.dumps(backup.as_dict(), indent=1).encode()
    if len(listed) > _MANIFEST_LIMIT:
        _refuse(MANIFEST, f"its list would have {len(listed)} bytes, {_MANIFEST_LIMIT} are read")
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in {MANIFEST: listed, **contents}.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o600
            info.size = len(listed) if name == MANIFEST else backup.files[name][0]
            with _opened(content) as source:
                archive.addfile(info, source)


def _measure(content: Content) -> tuple[int, str]:
    hasher, size = hashlib.sha256(), 0
    with _opened(content) as source:
        while chunk := source.read(_STEP):
            hasher.update(chunk)
            size += len(chunk)
    return size, hasher.hexdigest()


def _opened(content: Content) -> BinaryIO:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _give_name(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
        return
    except FileExistsError:
        _taken(path)
    except OSError as error:
        # A file system without links (FAT): between the look and the rename is a moment, in which nobody else writes.
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
    if path.exists():
        _taken(path)
    os.rename(temporary, path)


def _taken(path: Path) -> NoReturn:
    fail(
        "APL-0871",
        "a backup of that name exists already",
        where=str(path),
        why="one is never written over another",
        fix="Run it again in a second, or choose another backup_dir; look at the clock if the name is in the future",
    )


def _manifest(name: str, size: int, data: Iterator[memoryview], where: str) -> Backup:
    if name != MANIFEST:
        _refuse(where, f"its first member is {name[:100]}, not {MANIFEST}")
    if size > _MANIFEST_LIMIT:
        _refuse(where, f"its list has {size} bytes, {_MANIFEST_LIMIT} are read")
    try:
        said = load_json(b"".join(map(bytes, data)), limit=_MANIFEST_LIMIT, where=MANIFEST)
        if not isinstance(said, dict) or said.get("form") != _FORM:
            _refuse(where, "it is no backup of this appliance")
        if said["version"] != _VERSION:
            _refuse(where, f"its form is version {said['version']}, and this release reads version {_VERSION}")
        files = {item["name"]: _numbers(item["size"], item["sha256"]) for item in said["files"]}
        _check_names([item["name"] for item in said["files"]], where)
        kind, created, release, about = (said[key] for key in ("kind", "created", "release", "about"))
        if not all(isinstance(text, str) for text in (kind, created, release)) or not isinstance(about, dict):
            raise TypeError("a field of it is of a wrong kind")
        return Backup(kind, created, release, about, files)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        _refuse(where, f"{MANIFEST} is not as it should be: {type(error).__name__}: {error}")


def _check_names(names: list[Any], where: str) -> None:
    """Refuse names that would leave the directory they are unpacked to, or meet there."""
    for name in names:
        if not isinstance(name, str) or len(name) > 255 or not _NAME.fullmatch(name) or name == MANIFEST:
            _refuse(where, f"its list has a name that is refused: {str(name)[:200]!r}")
    directories = {name.rsplit("/", depth)[0] for name in names for depth in range(1, name.count("/") + 1)}
    if len(set(names)) != len(names) or directories & set(names):
        _refuse(where, "its list has a name twice, or as a file and as a directory")


def _numbers(size: object, sha: object) -> tuple[int, str]:
    if type(size) is not int or size < 0 or not isinstance(sha, str) or not _SHA256.fullmatch(sha):
        raise ValueError("a size or a hash of it is none")
    return size, sha


def _hold(
    name: str, size: int, data: Iterator[memoryview], listed: tuple[int, str], take: Take | None, where: str
) -> None:
    if size != listed[0]:
        _refuse(where, f"{name} has {size} bytes, {listed[0]} are listed")
    hasher = hashlib.sha256()

    def hashed() -> Iterator[memoryview]:
        for chunk in data:
            hasher.update(chunk)
            yield chunk

    chunks = hashed()
    if take is not None:
        take(name, chunks)
    for _ in chunks:
        pass  # what was not taken counts too
    if hasher.hexdigest() != listed[1]:
        _refuse(where, f"{name} is not what was written: its sha256 is {hasher.hexdigest()}, {listed[1]} is listed")


def _refuse(where: str, why: str) -> NoReturn:
    fail(
        "APL-0870",
        "the backup is incomplete or corrupt",
        where=where,
        why=why,
        fix="Nothing was changed. Copy it again from where it was kept, or take another one",
    )
