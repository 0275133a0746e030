"""Names and forms of checksum files that lie beside archives. Pure; :mod:`checksum_reader` reads the files.

``<file>.sha256`` and the like are read, lists for a directory (``SHA256SUMS``, ``checksums.txt``), and ``sha256sum-<arch>.txt``, which K3s and
RKE2 bring beside the ``<file>-<arch>.tar.zst`` of a release. The forms are those of ``sha256sum``, ``sha256sum --tag``, ``openssl dgst``,
``certutil -hashfile`` and PowerShell's ``Get-FileHash``, in UTF-8 or UTF-16, or a bare digest.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from appliance.archives.filenames import archive_stem
from appliance.archives.split import whole_name

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
        return _grouped((last_step(path), digest) for path, digest in self.entries)

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
    files = [*parts] if len(parts) == 1 else [*parts, *whole_files(parts)]
    own = [candidate for file in files for candidate in own_files(file)]
    releases = [release for file in files if (release := release_file(file))]
    lists = [candidate for file in files for candidate in list_files(file)]
    return list(dict.fromkeys([*own, *releases, *lists]))


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
        return last_step(path)
    while path.startswith("./"):
        path = path[2:]
    return path


def _grouped(entries: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Return the digests of each name."""
    found: dict[str, set[str]] = {}
    for name, digest in entries:
        found.setdefault(name, set()).add(digest)
    return found


def last_step(path: str) -> str:
    """Return the name at the end of a path."""
    return path.rpartition("/")[2]


def whole_files(parts: Sequence[Path]) -> list[Path]:
    """Return where the joined file of some parts would lie: one path, or none."""
    name = whole_name(parts[0].name)
    return [parts[0].with_name(name)] if name else []


def own_files(path: Path) -> list[Path]:
    """Return where a checksum file for this file alone may lie."""
    return [path.with_name(path.name + ending) for ending in OWN]


def list_files(path: Path) -> list[Path]:
    """Return where a list that names this file may lie."""
    stem = archive_stem(path.name)
    own = [f"{stem}{ending}" for ending in OWN] if stem else []
    return [path.with_name(name) for name in (*own, *LISTS, *_RELEASE_LISTS)]


def release_file(path: Path) -> Path | None:
    """Return where the list of K3s's or RKE2's release for this file's architecture would lie."""
    found = _OF_RELEASE.fullmatch(path.name)
    return path.with_name(f"sha256sum-{found[1]}.txt") if found else None
