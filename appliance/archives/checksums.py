"""Checksums that lie beside archives: the files they are in, and what those say.

``<file>.sha256`` and the like are read, lists for a directory (``SHA256SUMS``, ``checksums.txt``), and ``sha256sum-<arch>.txt``, which K3s and
RKE2 bring beside the ``<file>-<arch>.tar.zst`` of a release. The forms are those of ``sha256sum``, ``sha256sum --tag``, ``openssl dgst``,
``certutil -hashfile`` and PowerShell's ``Get-FileHash``, in UTF-8 or UTF-16, or a bare digest.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.archives.filenames import archive_stem, is_archive_name
from appliance.archives.split import looks_like_part, whole_name
from appliance.errors import fail

if TYPE_CHECKING:
    from appliance.archives.discovery import SourceList
    from appliance.archives.medium import Medium

_CASES: tuple[Callable[[str], str], ...] = (str.lower, str.upper, str.capitalize)
"""Ways in which people and programs write a name; most file systems of nodes tell them apart."""
OWN = tuple(f".{case(ending)}" for ending in ("sha256", "sha256sum", "sha256sums", "sha256.txt") for case in _CASES)
"""Endings of a checksum file for one file."""
LISTS = (
    *("SHA256SUMS.txt", "SHA256SUM.txt"),
    *(case(name) for name in ("sha256sums", "sha256sums.txt", "sha256sum", "sha256sum.txt") for case in _CASES),
)
"""Names of lists for a directory, which name all archives in it."""
_RELEASE_LISTS = (
    *("CHECKSUMS.txt", "CHECKSUM.txt", "SHA256.txt"),
    *(
        case(name)
        for name in ("checksums", "checksum", "checksums.txt", "checksum.txt", "checksums.sha256", "sha256.txt")
        for case in _CASES
    ),
)
"""Names of lists that name the files of a release, of which a medium may hold a few."""
_LIMIT = 1024 * 1024
_DIGEST = r"[0-9a-fA-F]{64}"
_PLAIN_LINE = re.compile(rf"(\\?)(?:sha256:)?({_DIGEST})(?:[ \t]+[ *]?(.+))?")
_BSD_LINE = re.compile(rf"(\\?)SHA(?:2-)?256 ?\((.+)\) ?= ?({_DIGEST})")
_SPACED_DIGEST = re.compile(r"(?:[0-9a-fA-F]{2} ){31}[0-9a-fA-F]{2}")
_CERTUTIL_HEAD = re.compile(r"(?:\S+ )?SHA256(?:[- ]hash)? (?:of file|of|von|de|di|van) (.+?) ?:", re.IGNORECASE)
_TABLE_ROW = re.compile(rf'"?SHA256"?[\s,]+"?({_DIGEST})"?(?:[\s,]+(.+))?')
_LIST_ITEM = re.compile(r"(Algorithm|Hash|Path) *: ?(.*)")
_WINDOWS_PATH = re.compile(r"(?:[A-Za-z]:)?[\\/].*")
_OF_RELEASE = re.compile(r".+-(\w+)\.(?:tar(?:\.\w+)?|tgz|tzst|txz|tbz2?)", re.IGNORECASE)
_RELEASE = re.compile(r"sha256sum-\w+\.txt")
_MISSING_LISTED = 10


@dataclass(frozen=True)
class Checksums:
    """The content of one checksum file.

    :param entries: path and digest of each line; the path of a bare digest is empty.
    """

    entries: tuple[tuple[str, str], ...]

    def of(self, name: str) -> str | None:
        """Return the digest of a file; None where no line is for it, or several lines differ."""
        for known in (self._by_path, self._by_name):
            if digests := known.get(name):
                return next(iter(digests)) if len(digests) == 1 else None
        return None

    @cached_property
    def _by_path(self) -> Mapping[str, Collection[str]]:
        return _grouped(self.entries)

    @cached_property
    def _by_name(self) -> Mapping[str, Collection[str]]:
        return _grouped((_last_step(path), digest) for path, digest in self.entries)

    @property
    def only(self) -> str | None:
        """The one digest of a file with one line."""
        return self.entries[0][1] if len(self.entries) == 1 else None


def is_checksum_list(name: str) -> bool:
    """Return whether a name is that of a list of checksums for a directory."""
    return name in LISTS


def is_checksum_file(name: str) -> bool:
    """Return whether a name is that of a list of checksums for a directory or a release."""
    return is_checksum_list(name) or name in _RELEASE_LISTS or _RELEASE.fullmatch(name) is not None


def checksum_files(parts: Sequence[Path]) -> list[Path]:
    """Return where the checksums of an archive may lie, for each part and for all of it."""
    files = [*parts] if len(parts) == 1 else [*parts, *_whole(parts)]
    own = [candidate for file in files for candidate in _own(file)]
    releases = [release for file in files if (release := _of_release(file))]
    lists = [candidate for file in files for candidate in _lists(file)]
    return list(dict.fromkeys([*own, *releases, *lists]))


def read_checksums(parts: Sequence[Path], medium: Medium) -> dict[str | None, str]:
    """Return what is known of the parts of an archive: SHA-256 by the part's name, under None that of them joined.

    A checksum file lies beside each part, or one for the whole (``haul.tar.zst.sha256`` beside ``haul.tar.zst.000``),
    which may list the parts. A list counts for the files that it names.

    :raises ApplianceError: APL-0115 if a ``.sha256`` has nothing for its file.
    """
    if len(parts) == 1:
        only = _digest(parts[0], medium)
        return {None: only} if only else {}
    expected: dict[str | None, str] = {}
    for whole in _whole(parts):
        own = _read_own(whole, medium)
        if own is not None:
            expected |= {part.name: digest for part in parts if (digest := own.of(part.name))}
        if own is None or own.of(whole.name) or not expected:
            joined = _digest(whole, medium)
            expected |= {None: joined} if joined else {}
    return expected | {part.name: digest for part in parts if (digest := _digest(part, medium))}


def check_lists(found: SourceList, medium: Medium) -> None:
    """Refuse a medium that lacks an archive which a list beside its archives names.

    :raises ApplianceError: APL-0157.
    """
    names = {folder: frozenset(name.casefold() for name in present) for folder, present in found.names.items()}
    for file in found.lists:
        listed = _read(file, medium) or Checksums(())
        missing = [path for path, _ in listed.entries if _is_missing(path, file.parent, names)]
        if missing:
            more = f" and {len(missing) - _MISSING_LISTED} more" if len(missing) > _MISSING_LISTED else ""
            fail(
                "APL-0157",
                "archives that a list of checksums names are not on the medium",
                where=str(file),
                why=", ".join(sorted(missing)[:_MISSING_LISTED]) + more,
                fix="Bring them; or take their lines, or the list, off the medium, or name the archives one by one",
            )


def _is_missing(listed: str, folder: Path, names: Mapping[Path, frozenset[str]]) -> bool:
    name = _last_step(listed)
    if not is_archive_name(name) and not looks_like_part(name):
        return False
    return not any(name.casefold() in names.get(place, ()) for place in (folder, (folder / listed).parent))


def parse_checksums(raw: bytes) -> Checksums:
    """Read a checksum file of any form."""
    return Checksums(tuple(dict.fromkeys((_cleaned(path), digest.lower()) for path, digest in _lines(_text(raw)))))


def _text(raw: bytes) -> str:
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if raw.startswith(mark):
            return raw.decode(encoding, "replace")
    for place, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if raw[place : place + 1] == b"\0":
            return raw.decode(encoding, "replace")
    return raw.decode("utf-8", "replace")


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Give path and digest of each line; paths from Windows with its separators as ``/``."""
    head = ""
    item: dict[str, str] = {}
    key = ""
    for raw in re.split(r"\r\n|\n|\r", text):
        line = raw.strip()
        if part := _LIST_ITEM.fullmatch(line):
            key = part[1]
            if key in item:
                yield from _of_item(item)
                item = {}
            item[key] = part[2].strip()
            continue
        if item and raw[:1] == " " and line:
            item[key] += line  # PowerShell breaks long values
            continue
        yield from _of_item(item)
        item = {}
        if plain := _PLAIN_LINE.fullmatch(line):
            name = plain[3] or head
            yield (_unescaped(name) if plain[1] else name.replace("\\", "/")), plain[2]
        elif bsd := _BSD_LINE.fullmatch(line):
            yield (_unescaped(bsd[2]) if bsd[1] else bsd[2].replace("\\", "/")), bsd[3]
        elif _SPACED_DIGEST.fullmatch(line):
            yield head.replace("\\", "/"), line.replace(" ", "")
        elif row := _TABLE_ROW.fullmatch(line):
            yield _windows_path(row[2] or ""), row[1]
        match = _CERTUTIL_HEAD.fullmatch(line)
        head = match[1] if match else ""
    yield from _of_item(item)


def _of_item(item: dict[str, str]) -> Iterator[tuple[str, str]]:
    if item.get("Algorithm", "").upper() == "SHA256" and re.fullmatch(_DIGEST, item.get("Hash", "")):
        yield _windows_path(item.get("Path", "")), item["Hash"]


def _windows_path(text: str) -> str:
    """Return a path that PowerShell printed; empty where it was cut to fit the screen."""
    path = text.strip().strip('"')
    return "" if path.endswith(("...", "\u2026")) else path.replace("\\", "/")


def _unescaped(name: str) -> str:
    """Return a name as it is, from ``sha256sum``'s form for names with a backslash or a line break."""
    return re.sub(r"\\([\\nr])", lambda match: {"\\": "\\", "n": "\n", "r": "\r"}[match[1]], name)


def _cleaned(path: str) -> str:
    """Return a path relative to its list; of an absolute one, which is of another machine, the name alone."""
    if _WINDOWS_PATH.fullmatch(path):
        return _last_step(path)
    while path.startswith("./"):
        path = path[2:]
    return path


def _grouped(entries: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Return the digests of each name."""
    found: dict[str, set[str]] = {}
    for name, digest in entries:
        found.setdefault(name, set()).add(digest)
    return found


def _last_step(path: str) -> str:
    return path.rpartition("/")[2]


def _digest(path: Path, medium: Medium) -> str | None:
    """Return what is said of one file; None where nothing is."""
    own = _read_own(path, medium)
    if own is None:
        release = _of_release(path)
        lists = [*([release] if release else []), *_lists(path)]
        said = (found.of(path.name) for file in lists if (found := _read_list(file, medium)))
        return next((digest for digest in said if digest), None)
    # Renamed on the way, or a bare digest: the name of the checksum file says what it is for.
    digest = own.of(path.name) or own.only
    if digest is None:
        fail(
            "APL-0115",
            "checksum file does not name its file",
            where=str(next(file for file in _own(path) if medium.has(file))),
            why=f"no line for {path.name}",
            fix="Bring the checksum that belongs to the file, or remove it",
        )
    return digest


def _whole(parts: Sequence[Path]) -> list[Path]:
    name = whole_name(parts[0].name)
    return [parts[0].with_name(name)] if name else []


def _own(path: Path) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in OWN]


def _lists(path: Path) -> list[Path]:
    stem = archive_stem(path.name)
    own = [f"{stem}{ending}" for ending in OWN] if stem else []
    return [path.with_name(name) for name in (*own, *LISTS, *_RELEASE_LISTS)]


def _of_release(path: Path) -> Path | None:
    found = _OF_RELEASE.fullmatch(path.name)
    return path.with_name(f"sha256sum-{found[1]}.txt") if found else None


def _read_own(path: Path, medium: Medium) -> Checksums | None:
    return next(_present(_read(file, medium) for file in _own(path)), None)


def _present(found: Iterable[Checksums | None]) -> Iterator[Checksums]:
    return (item for item in found if item is not None)


def _read_list(file: Path, medium: Medium) -> Checksums | None:
    """Read a list, which is for many files, once."""
    if file not in medium.checksum_lists:
        medium.checksum_lists[file] = _read(file, medium)
    return medium.checksum_lists[file]


def _read(file: Path, medium: Medium) -> Checksums | None:
    """Read a checksum file; None where it is not there."""
    if not medium.has(file):
        return None
    descriptor = medium.open(file)
    try:
        return parse_checksums(os.read(descriptor, _LIMIT))
    except OSError as error:
        fail("APL-0116", "checksum file cannot be read", where=str(file), why=str(error.strerror))
    finally:
        os.close(descriptor)
