"""Search for archives and image layouts in the sources, with a list of every file that is left out.

Decision 46.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from appliance.archives import filenames
from appliance.archives.checksums import checksum_files, is_checksum_file, is_checksum_list
from appliance.archives.left_out import LeftOut, Reason
from appliance.archives.sniff import Kind, holds_no_archive, is_text, kind_of, read_head
from appliance.archives.split import find_sets, parts_of
from appliance.errors import ApplianceError, fail, make_error

DEPTH = 16
"""Levels of folders that are searched."""
ENTRIES = 100_000
"""Files and folders of one source after which no further folder is searched."""
LABEL_FILE = "medium.yaml"
"""Name of the file in which a medium describes itself."""
_LISTED = 10
_LAYOUT_FILES = frozenset({"oci-layout", "index.json", "blobs", "manifest.json", "repositories", "ingest"})
_DIR_FILES = frozenset({"version", "manifest.json"})
_HEX = frozenset("0123456789abcdef")


@dataclass
class SourceList:
    """The content of one source: every file of it is here, once.

    :param sources: files and layout folders to read, in order; of an archive in parts the first part.
    :param parts: for each of those that is a file, all of its parts.
    :param by_content: sources whose names do not say that they are archives; their first bytes do.
    :param left_out: files and folders that are not read.
    :param passed_over: checksums and signatures of what is read, ``medium.yaml``, and leftovers of operating systems.
    :param broken: copies of archives that have not ended, and whether they are empty.
    :param containers: containers and volumes that have to be unpacked first.
    :param refused: what else is wrong with files that look like archives.
    :param names: the names in each folder that was searched.
    :param sizes: bytes of the files in ``parts``.
    :param is_there: whether the source exists.
    """

    sources: list[Path] = field(default_factory=list)
    parts: dict[Path, list[Path]] = field(default_factory=dict)
    by_content: set[Path] = field(default_factory=set)
    left_out: list[LeftOut] = field(default_factory=list)
    passed_over: list[Path] = field(default_factory=list)
    broken: dict[Path, bool] = field(default_factory=dict)
    containers: list[Path] = field(default_factory=list)
    refused: list[ApplianceError] = field(default_factory=list)
    names: dict[Path, frozenset[str]] = field(default_factory=dict)
    sizes: dict[Path, int] = field(default_factory=dict)
    is_there: bool = True

    @property
    def lists(self) -> list[Path]:
        """Lists of checksums that lie beside archives."""
        return [path for path in self.passed_over if is_checksum_list(path.name)]

    @property
    def is_absent(self) -> bool:
        """True where the source is not there: no such path, or an empty mount point."""
        is_empty = all(filenames.is_litter(name) for names in self.names.values() for name in names)
        return not self.is_there or (not self.sources and is_empty)

    def without_images(self, path: Path, detail: str) -> list[LeftOut]:
        """Return what is left out where a source turns out to hold no images."""
        return [
            LeftOut.at(part, Reason.NO_IMAGES, self.sizes.get(part, 0), detail) for part in self.parts.get(path, [path])
        ]

    def check(self, source: Path) -> None:
        """Refuse a source that is not there or holds nothing to read.

        :raises ApplianceError: APL-0101, APL-0122.
        """
        if not self.is_there:
            fail("APL-0101", "source is not there", where=str(source), fix="Is the stick plugged in and mounted?")
        if not self.sources:
            refuse_empty(source, self.left_out)


def refuse_empty(source: Path, left_out: Sequence[LeftOut]) -> NoReturn:
    """Refuse a directory in which nothing is read.

    :raises ApplianceError: APL-0122.
    """
    others = "; ".join(f"{item.path.rpartition('/')[2]} ({item.why})" for item in left_out[:5])
    more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
    fail(
        "APL-0122",
        "no image archive in this directory",
        where=str(source),
        why=f"there are only: {others}{more}" if others else "it is empty",
        fix="Is this the right stick, and is it mounted? Archives end in .tar, .tar.gz, .tar.zst or alike",
    )


def find_sources(path: Path) -> SourceList:
    """Find the archives and layouts in one source.

    A file is taken whatever its name. A directory is one source if it is an OCI layout or a skopeo ``dir:``. In every
    directory and its folders the archives are found, by name or by their first bytes; no symbolic link is followed.

    :raises ApplianceError: APL-0101 and APL-0116 for a source that cannot be opened, APL-0110, APL-0144, APL-0155, APL-0156 for files
        that look like an archive and cannot be read as one.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return SourceList(is_there=False)
        fail("APL-0101", "source cannot be opened", where=str(path), why=str(error.strerror))
    if not stat.S_ISDIR(mode):
        parts = parts_of(path)
        return SourceList([parts[0]], dict.fromkeys(parts, parts))
    search = _Search(path)
    search.folder(path, 0)
    _refuse_broken(path, search.found.broken)
    _refuse_containers(path, search.found.containers)
    for refused in search.found.refused:
        raise refused
    return search.found


def _refuse_broken(source: Path, broken: Mapping[Path, bool]) -> None:
    if broken:
        empty = [path for path, is_empty in broken.items() if is_empty]
        begun = [path for path, is_empty in broken.items() if not is_empty]
        why = [f"named like copies that have not ended: {_listed(source, begun)}"] if begun else []
        why += [f"empty: {_listed(source, empty)}"] if empty else []
        fail(
            "APL-0155",
            "archives are incomplete copies",
            where=str(source),
            why="; ".join(why),
            fix="Copy them again, and wait for the end of the copy before you unplug the medium; or take these files off, or name the "
            "whole archives one by one",
        )


def _refuse_containers(source: Path, containers: Sequence[Path]) -> None:
    if containers:
        fail(
            "APL-0156",
            "containers that have to be unpacked first",
            where=str(source),
            why=_listed(source, containers),
            fix="Unpack them (unzip, 7z x, unrar x) and bring the archives inside; split cuts an archive that is too large for one file. Or take these "
            "files off, or name the archives one by one",
        )


def _listed(source: Path, paths: Sequence[Path]) -> str:
    shown = ", ".join(str(path.relative_to(source)) for path in paths[:_LISTED])
    return shown + (f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else "")


class _Search:
    """The search of one directory and its folders."""

    def __init__(self, top: Path) -> None:
        self.found = SourceList()
        self._top = top
        self._entries = 0

    def folder(self, directory: Path, depth: int) -> None:
        """Search one folder."""
        try:
            with os.scandir(directory) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            fail("APL-0116", "source cannot be read", where=str(directory), why=str(error.strerror))
        self._entries += len(entries)
        names = self.found.names[directory] = frozenset(entry.name for entry in entries)
        own = _names_of_layout(names)
        if own:
            self.found.sources.append(directory)
        files: dict[str, int] = {}
        folders: list[Path] = []
        for entry in entries:
            if entry.name not in own:
                self._sort(entry, files, folders)
        _Folder(directory, files, self.found, is_top=directory == self._top).judge()
        for path in folders:
            if depth >= DEPTH:
                self._leave(path, Reason.DEEP)
            elif self._entries >= ENTRIES:
                self._leave(path, Reason.CROWDED)
            else:
                self.folder(path, depth + 1)

    def _sort(self, entry: os.DirEntry[str], files: dict[str, int], folders: list[Path]) -> None:
        path = Path(entry.path)
        if filenames.is_litter(entry.name):
            self.found.passed_over.append(path)
        elif entry.is_symlink():
            self._leave(path, Reason.LINK)
        elif entry.is_dir(follow_symlinks=False):
            if filenames.is_broken_copy_folder(entry.name):
                self.found.broken[path] = False
            elif filenames.is_hidden(entry.name):
                self._leave(path, Reason.HIDDEN)
            else:
                folders.append(path)
        elif entry.is_file(follow_symlinks=False):
            try:
                files[entry.name] = entry.stat(follow_symlinks=False).st_size
            except OSError as error:
                self.found.left_out.append(LeftOut.at(path, Reason.UNREADABLE, 0, str(error.strerror)))
        else:
            self._leave(path, Reason.SPECIAL)

    def _leave(self, path: Path, reason: Reason) -> None:
        self.found.left_out.append(LeftOut.at(path, reason))


def _names_of_layout(names: frozenset[str]) -> frozenset[str]:
    """Return the names in a folder that belong to an OCI layout or a skopeo ``dir:``; none where it is neither."""
    if "oci-layout" in names or {"index.json", "blobs"} <= names:
        return names & _LAYOUT_FILES
    if names >= _DIR_FILES:
        return frozenset(name for name in names if name in _DIR_FILES or _is_of_dir(name))
    return frozenset()


def _is_of_dir(name: str) -> bool:
    """Return whether a name is that of a blob, a further manifest or a signature in a skopeo ``dir:``."""
    digest, _, rest = name.partition(".")
    return (set(digest) <= _HEX and len(digest) in (64, 128) and rest in ("", "manifest.json")) or (
        name.startswith("signature-") and name[10:].isdigit()
    )


class _Folder:
    """The files of one folder: what becomes of each.

    :param sizes: names and sizes.
    :param is_top: whether it is the source itself.
    """

    def __init__(self, directory: Path, sizes: Mapping[str, int], found: SourceList, *, is_top: bool) -> None:
        self._directory = directory
        self._sizes = sizes
        self._found = found
        self._is_top = is_top
        self._heads: dict[str, bytes | OSError] = {}
        self._read: list[list[Path]] = []

    def judge(self) -> None:
        """Sort each file into its kind."""
        rest = [name for name in self._sizes if not self._is_label(name)]
        # A dict and not a list: a medium may hold a checksum for each of thousands of files.
        companions = dict.fromkeys(name for name in rest if filenames.companion_of(name) or is_checksum_file(name))
        rest = [name for name in rest if name not in companions and not self._is_settled(name)]
        in_sets = self._take_sets(rest)
        for name in rest:
            if name not in in_sets:
                self._take(name)
        self._settle_companions(companions)

    def _is_label(self, name: str) -> bool:
        is_label = self._is_top and name == LABEL_FILE
        if is_label:
            self._found.passed_over.append(self._directory / name)
        return is_label

    def _is_settled(self, name: str) -> bool:
        """Deal with broken-off copies, containers and hidden files, none of which is read."""
        path, kind = self._directory / name, self._kind(name)
        if filenames.is_broken_copy(name, is_archive=kind.is_archive):
            self._found.broken[path] = kind is Kind.EMPTY
        elif filenames.is_hidden(name) and self._is_unknown_copy(name):
            self._found.broken[path] = False
        elif filenames.is_hidden(name):
            self._leave(name, Reason.HIDDEN)
        elif filenames.is_volume(name) or filenames.container_of_archive(name):
            self._found.containers.append(path)
        elif kind.is_container and not filenames.is_package(name):
            if kind is Kind.ZIP and not filenames.is_archive_name(name) and holds_no_archive(self._head(name)):
                self._leave(name, Reason.CONTAINER)
            else:
                self._found.containers.append(path)
        else:
            return False
        return True

    def _take_sets(self, names: Sequence[str]) -> set[str]:
        taken: set[str] = set()
        for found in find_sets(names, self._kind):
            taken.update(found.names)
            paths = [self._directory / name for name in found.names]
            self._found.broken |= {path: True for path in paths if not self._sizes[path.name]}
            try:
                found.check(self._directory)
            except ApplianceError as error:
                self._found.refused.append(error)
            self._add(paths, is_named=found.is_named)
        return taken

    def _take(self, name: str) -> None:
        kind = self._kind(name)
        compression = filenames.unread_compression(name)
        if filenames.is_archive_name(name):
            if self._sizes[name]:
                self._add([self._directory / name], is_named=True)
            else:
                self._found.broken[self._directory / name] = True
        elif compression and not kind.is_archive:
            self._found.refused.append(
                make_error(
                    "APL-0110",
                    f"{compression} compression is not read here",
                    where=str(self._directory / name),
                    fix="Unpack it, and compress it with zstd or gzip",
                )
            )
        elif filenames.is_old_copy(name) and kind.is_archive:
            self._leave(name, Reason.OLD_COPY)
        elif kind.is_archive and not filenames.is_package(name):
            self._add([self._directory / name], is_named=False)
        elif isinstance(error := self._heads.get(name), OSError):
            self._leave(name, Reason.UNREADABLE, str(error.strerror))
        elif self._is_unknown_copy(name):
            self._found.broken[self._directory / name] = False
        else:
            self._leave(name, Reason.EMPTY if kind is Kind.EMPTY else Reason.OTHER)

    def _is_unknown_copy(self, name: str) -> bool:
        """Return whether a file is named like an archive with something behind it, and is neither empty nor text."""
        return filenames.is_unknown_copy(name) and self._sizes[name] > 0 and not is_text(self._head(name))

    def _settle_companions(self, names: Iterable[str]) -> None:
        """Tell checksums and signatures of what is read here from those of nothing."""
        consulted = {file.name for parts in self._read for file in checksum_files(parts)}
        known = {part.name for parts in self._read for part in parts} | (consulted & set(self._sizes))
        known |= {name.removesuffix(".sha256") for name in consulted if name.endswith(".sha256")}
        for name in names:
            if name in consulted or filenames.companion_of(name) in known:
                self._found.passed_over.append(self._directory / name)
            elif self._kind(name).is_archive:
                self._take(name)
            else:
                is_proof = filenames.is_proof(name) or is_checksum_file(name)
                self._leave(name, Reason.CHECKSUM if is_proof else Reason.OTHER)

    def _add(self, parts: list[Path], *, is_named: bool) -> None:
        self._read.append(parts)
        self._found.sources.append(parts[0])
        self._found.parts |= dict.fromkeys(parts, parts)
        self._found.sizes |= {part: self._sizes[part.name] for part in parts}
        if not is_named:
            self._found.by_content.add(parts[0])

    def _leave(self, name: str, reason: Reason, detail: str = "") -> None:
        self._found.left_out.append(LeftOut.at(self._directory / name, reason, self._sizes[name], detail))

    def _kind(self, name: str) -> Kind:
        return kind_of(self._head(name)) if self._sizes[name] else Kind.EMPTY

    def _head(self, name: str) -> bytes:
        if name not in self._heads:
            try:
                self._heads[name] = read_head(self._directory / name)
            except OSError as error:
                self._heads[name] = error
        head = self._heads[name]
        return b"\0" if isinstance(head, OSError) else head
