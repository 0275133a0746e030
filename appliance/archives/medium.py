"""Access to the files of a medium: they are opened when they are read, or before the process gives up its rights.

A medium is often readable for root alone. Root opens it, and reads of its files only the first bytes, to compare them with constants
(:mod:`appliance.archives.sniff`). The store's owner reads the archives, through the descriptors that are kept here. A file that could not
be opened is tried again where it is read, which then says what is wrong.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from appliance.archives.checksums import Checksums, checksum_files
from appliance.archives.discovery import LABEL_FILE, SourceList, find_sources
from appliance.archives.split import parts_of
from appliance.errors import ApplianceError, fail
from appliance.oci.digests import ALGORITHMS

_MOST = 20_000
"""Descriptors kept open, at most; the limit of the process is raised as far as it may be."""
_FOR_OTHERS = 200
"""Descriptors that are left for everything else."""
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Errors of the system for a file that is not there; one whose name would be too long cannot be."""


class Medium:
    """The sources of one import.

    :param sources: files and directories as the operator named them.
    """

    def __init__(self, sources: Sequence[Path] = ()) -> None:
        self._sources = tuple(sources)
        self._most = 0
        self._opened = 0
        self._kept: dict[Path, int | None] = {}
        """Descriptors of what was opened beforehand; None for what is known not to be there."""
        self._folders: dict[Path, frozenset[str]] = {}
        """What is in the folders of layouts that were opened beforehand."""
        self._parts: dict[Path, list[Path]] = {}
        self._found: dict[Path, SourceList | ApplianceError] = {}
        self.checksum_lists: dict[Path, Checksums | None] = {}
        """Content of the lists that were looked for; None for one that is not there."""

    def open_beforehand(self) -> None:
        """Find the archives and layouts in the sources, and open each: all of its parts, and the checksums beside them.

        And what a source says of itself; see :mod:`appliance.archives.label`.
        """
        self._most = min(_MOST, _raise_limit() - _FOR_OTHERS)
        for source in self._sources:
            with contextlib.suppress(OSError):
                self._keep(source / LABEL_FILE, follow=False)
            try:
                found = self.find(source)
            except ApplianceError:
                continue  # raised again where the source is read
            for path in found.sources:
                with contextlib.suppress(OSError):  # it was pulled out meanwhile, which reading it will say
                    if path in found.parts:
                        self._open_archive(found.parts[path], source)
                    else:
                        self._open_layout(path)

    def close(self) -> None:
        """Let go of what was opened beforehand."""
        for handle in self._kept.values():
            if handle is not None:
                os.close(handle)
        self._kept.clear()

    @cached_property
    def weight(self) -> int:
        """Bytes of all archives and layouts in the sources, as far as it can be seen; what an import may cost follows from
        it.
        """
        return sum(
            _bytes_of(path) for path in dict.fromkeys(path for source in self._sources for path in self._all(source))
        )

    def _all(self, source: Path) -> list[Path]:
        """The files and layouts of a source, all parts; itself where that cannot be said."""
        try:
            return [part for path in self.find(source).sources for part in self.parts(path)] or [source]
        except (ApplianceError, OSError):
            return [source]

    def find(self, source: Path) -> SourceList:
        """Return the archives and layouts in a source; see :func:`find_sources`. It is searched once.

        :raises ApplianceError: see :func:`find_sources`.
        """
        if source not in self._found:
            try:
                found = find_sources(source)
                self._found[source] = found
                self._parts |= found.parts
            except ApplianceError as error:
                self._found[source] = error
        known = self._found[source]
        if isinstance(known, ApplianceError):
            raise known
        return known

    def parts(self, path: Path) -> list[Path]:
        """Return the parts of an archive; see :func:`parts_of`."""
        known = self._parts.get(path)
        return parts_of(path) if known is None else known

    def has(self, path: Path) -> bool:
        """Return whether a file is there.

        :raises ApplianceError: APL-0101 where that cannot be seen.
        """
        if path in self._kept:
            return self._kept[path] is not None
        try:
            os.stat(path)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return False
            _unopened(path, error)
        return True

    def is_directory(self, path: Path) -> bool:
        """Return whether a source is a directory."""
        handle = self._kept.get(path)
        return path.is_dir() if handle is None else stat.S_ISDIR(os.fstat(handle).st_mode)

    def size(self, path: Path) -> int:
        """Bytes of a file.

        :raises ApplianceError: APL-0101.
        """
        handle = self._kept.get(path)
        try:
            return (path.stat() if handle is None else os.fstat(handle)).st_size
        except OSError as error:
            _unopened(path, error)

    def files(self, directory: Path) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the regular files of a layout as (path below it, status), by name; links are not followed.

        :raises OSError: where the directory cannot be looked at.
        """
        if directory in self._folders:
            opened = {path: handle for path, handle in self._kept.items() if handle is not None}
            found = {
                str(path.relative_to(directory)): os.fstat(handle)
                for path, handle in opened.items()
                if path != directory and path.is_relative_to(directory)
            }
        else:
            found = {}
            for folder, _, names, handle in os.fwalk(directory, onerror=_raise):
                for name in names:
                    path = str(Path(folder, name).relative_to(directory))
                    found[path] = os.stat(name, dir_fd=handle, follow_symlinks=False)
        yield from sorted((name, file) for name, file in found.items() if stat.S_ISREG(file.st_mode))

    def open(self, path: Path, *, follow: bool = True) -> int:
        """A descriptor of a file, at its beginning, for the caller to close.

        :param follow: whether a symbolic link may lead elsewhere.
        :raises ApplianceError: APL-0101.
        """
        try:
            kept = self.again(path)
        except OSError as error:
            _unopened(path, error)
        return open_readonly(path, follow=follow) if kept is None else _regular(kept, path)

    def open_directory(self, path: Path) -> int:
        """A descriptor of a directory, for the caller to close.

        :raises ApplianceError: APL-0101.
        """
        try:
            kept = self.again(path)
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if kept is None else kept
        except OSError as error:
            _unopened(path, error)

    def again(self, path: Path) -> int | None:
        """A descriptor of a file that was opened beforehand, at its beginning, for the caller to close; None where it was
        not.

        :raises FileNotFoundError: where it was looked for and not there.
        """
        if path not in self._kept and not self._is_absent(path):
            return None
        handle = self._kept.get(path)
        if handle is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
        handle = os.dup(handle)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            os.lseek(handle, 0, os.SEEK_SET)
        return handle

    def _open_archive(self, parts: list[Path], source: Path) -> None:
        for file in (*parts, *checksum_files(parts)):
            # A file that the operator named may be a link; in a directory none is followed.
            with contextlib.suppress(ApplianceError, OSError):
                self._keep(file, follow=source in parts)

    def _open_layout(self, path: Path) -> None:
        """Open a layout's files: its documents, and every blob, since which of them are needed stands in those."""
        with contextlib.suppress(OSError):
            self._keep(path, follow=True)
        top = self._kept.get(path)
        if top is None:
            return
        for folder, folders, files, handle in os.fwalk(".", dir_fd=top):  # it follows no link
            here, depth = path / folder, len(Path(folder).parts)
            self._folders[here] = frozenset((*folders, *files))
            folders[:] = [name for name in folders if name in (("blobs",), ALGORITHMS, ())[depth]]
            for name in files:
                with contextlib.suppress(OSError):
                    # Opening a device may do something.
                    if stat.S_ISREG(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):
                        self._keep(here / name, follow=False, within=handle)

    def _is_absent(self, path: Path) -> bool:
        """Return whether a file, or the folder that it should be in, is known not to be in a layout."""
        return any(
            step.parent in self._folders and step.name not in self._folders[step.parent]
            for step in (path, *path.parents)
        )

    def _keep(self, path: Path, *, follow: bool, within: int | None = None) -> None:
        if path in self._kept or self._opened >= self._most:
            return
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
        try:
            self._kept[path] = _open_unseen(path if within is None else path.name, flags, within)
            self._opened += 1
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            self._kept[path] = None


def _bytes_of(path: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):
        total += os.stat(path).st_size
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def open_readonly(path: Path | str, dir_fd: int | None = None, *, follow: bool = True) -> int:
    """Open a regular file for reading; returns the descriptor.

    :param dir_fd: directory that ``path`` is relative to.
    :param follow: whether a symbolic link may lead elsewhere.
    :raises ApplianceError: APL-0101.
    """
    # O_NONBLOCK: opening a pipe must not wait for a writer.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = _open_unseen(path, flags, dir_fd)
    except OSError as error:
        _unopened(path, error)
    return _regular(descriptor, path)


def _raise_limit() -> int:
    """Let this process, and those it starts, open as many files as they may; returns how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST + _FOR_OTHERS if hard == resource.RLIM_INFINITY else min(hard, _MOST + _FOR_OTHERS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft if soft != resource.RLIM_INFINITY else wanted


def _open_unseen(path: Path | str, flags: int, dir_fd: int | None = None) -> int:
    """Open without leaving a time of access on the medium, where that is allowed (to the owner and to root)."""
    try:
        return os.open(path, flags | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError:
        return os.open(path, flags, dir_fd=dir_fd)


def _regular(descriptor: int, path: Path | str) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        fail(
            "APL-0101",
            "source is not a regular file",
            where=str(path),
            fix="Name files and directories; a device is mounted first",
        )
    return descriptor


def _raise(error: OSError) -> NoReturn:
    raise error


def _unopened(path: Path | str, error: OSError) -> NoReturn:
    fail("APL-0101", "source cannot be opened", where=str(path), why=str(error.strerror))
