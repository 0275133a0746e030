"""Split archives: the files that belong together, and their order.

Three forms. A suffix behind the name of an archive: ``haul.tar.zst.000`` (Hauler), ``app.tar.aa``, ``app.tar.zst-00``,
``app.tar.part1``, as ``split`` and copy programs write them. The same suffix behind any other name (``xaa``, ``app00``), where the first
file begins as an archive and no other one does. And, on the same condition, a number or letters within the name: Hauler's older
``haul_0.tar.zst``, ``xaa.tar.zst`` (``split --additional-suffix``), ``app.tar.zst.001.bin``, ``app.tar (1 of 3).zst``.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from appliance.archives.filenames import ARCHIVE_NAME, is_archive_name
from appliance.archives.sniff import Kind, kind_of, read_head
from appliance.errors import fail

_LONGER = r"(?:volume|segment|fragment)(?=[._ -]?\d)"
_MARK = rf"[._ -]?(?:{_LONGER}|part|vol|chunk|piece|seg|split|slice|frag|teil|disk)[._ -]?"
_SUFFIXED = re.compile(
    rf"(?P<base>{ARCHIVE_NAME.pattern})(?P<mark>{_MARK}|[._-])(?P<suffix>\d{{1,9}}|[a-z]{{1,8}}|[0-9a-f]{{2,8}})",
    re.IGNORECASE | re.DOTALL,
)
_FIRST = re.compile(rf"(?P<base>.+?)(?:{_MARK}|[._-])?(?:a{{2,4}}|0{{0,8}}[01])", re.IGNORECASE | re.DOTALL)
_ENDING = r"\.(?:tar(?:\.\w+)?|tgz|tzst|txz|tbz2?)"
_OF = r"[._ -]?of[._ -]?(?P<count>\d{1,9})"
_INNER = [
    re.compile(form, re.IGNORECASE | re.DOTALL)
    for form in (
        rf"(?P<base>.*?(?:{_MARK}|[._ (-])?)(?P<suffix>\d{{1,9}})(?:{_OF})?(?P<end>\)?{_ENDING})",
        *(rf"(?P<base>.*)(?P<suffix>[a-z]{{{width}}})(?P<end>{_ENDING})" for width in (4, 3, 2)),
        rf"(?P<base>.+{_ENDING}?(?:{_MARK}|[._ (-]+))(?P<suffix>\d{{1,9}}){_OF}(?P<end>\)?(?:\.\w{{1,4}})?)",
        rf"(?P<base>{ARCHIVE_NAME.pattern}(?:{_MARK}|[._-]))(?P<suffix>\d{{1,9}}|[a-z]{{2,4}})(?P<end>\.\w{{1,4}})",
    )
]
"""Forms of names with the number of a part within them."""
_FIRST_OF_ANY = re.compile(rf"(?:.*{_MARK}[01]|.*?(?:aa|0[01]))", re.IGNORECASE | re.DOTALL)
_DIGITS, _HEX, _LETTERS = "0123456789", "0123456789abcdef", "abcdefghijklmnopqrstuvwxyz"
_ARCHIVE_SUFFIXES = (("gy", "gz"), ("xy", "xz"), ("zss", "zst"))
"""Suffixes of parts that make the name of an archive of a part of ``app.tar``, with the one before."""
_LISTED = 10
_FAR = 26
"""Names that come this far behind the others are no parts, where nothing but their order says that they are."""

KindOf = Callable[[str], Kind]


@dataclass(frozen=True)
class PartSet:
    """The parts of one archive.

    :param names: the files that are there, in order.
    :param last: number or letters of the last one.
    :param missing: numbers or letters of those that are not there, the first few.
    :param is_named: whether the names say that it is an archive.
    """

    names: tuple[str, ...]
    last: str
    missing: tuple[str, ...]
    is_named: bool

    def check(self, directory: Path) -> None:
        """Refuse a set with a hole.

        :raises ApplianceError: APL-0144.
        """
        if self.missing:
            fail(
                "APL-0144",
                "parts of an archive are missing",
                where=str(directory / self.names[0]),
                why=f"there are parts up to {self.last}, but not {', '.join(self.missing)}",
                fix="Bring all parts, in one directory",
            )


def whole_name(first: str) -> str | None:
    """Return the name of the archive whose first part is called ``first``; None where it has no suffix."""
    match = None if is_archive_name(first) else _SUFFIXED.fullmatch(first) or _FIRST.fullmatch(first)
    return match["base"] if match else None


def looks_like_part(name: str) -> bool:
    """Return whether a name alone says that its file is a part of an archive."""
    return not is_archive_name(name) and _SUFFIXED.fullmatch(name) is not None


def parts_of(path: Path) -> list[Path]:
    """Return all parts of the archive that ``path`` is a part of, in order; ``[path]`` for an archive in one piece.

    :raises ApplianceError: APL-0144 where a part between the first and the last, or the first, is not there.
    """
    try:
        with os.scandir(path.parent) as entries:
            names = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    except OSError:
        return [path]  # only the file itself may be read here

    def kind(name: str) -> Kind:
        try:
            return kind_of(read_head(path.with_name(name)))
        except OSError:
            return Kind.OTHER  # reading it says what is wrong

    for found in find_sets(names | {path.name}, kind):
        if path.name in found.names:
            found.check(path.parent)
            return [path.with_name(name) for name in found.names]
    return [path]


def find_sets(names: Collection[str], kind: KindOf) -> Iterator[PartSet]:
    """Find the archives in parts among the files of one directory.

    :param names: the names of its files.
    :param kind: says by the first bytes of a file what it is.
    """
    rest = set(names)
    for form in (_suffixed_sets, _inner_sets, _content_sets):
        for found in form(frozenset(rest), kind):
            rest.difference_update(found.names)
            yield found


def _suffixed_sets(names: Collection[str], kind: KindOf) -> Iterator[PartSet]:
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for name in sorted(names):
        match = None if is_archive_name(name) else _SUFFIXED.fullmatch(name)
        if match:
            groups.setdefault((match["base"], match["mark"].lower()), {}).setdefault(match["suffix"].lower(), name)
    for (base, mark), group in _without_case(groups).items():
        for before, suffix in _ARCHIVE_SUFFIXES:
            name = f"{base}{mark}{suffix}"
            if before in group and name in names and not kind(name).is_archive:
                group[suffix] = name
        for numbering in _numberings(group):
            members = numbering.of(group)
            if len(mark) == 1 and not numbering.is_likely(members):
                continue
            kinds = [kind(name) for name in members.values()]
            # Logs are rotated like this, and whole archives numbered: each begins as one.
            if numbering.is_padded and len(mark) == 1 and len(members) > 1:
                are_whole = all(item is Kind.COMPRESSED for item in kinds)
            else:
                are_whole = all(item.is_archive for item in kinds) and (
                    len(members) > 1 or numbering.begins_late(members)
                )
            if not are_whole:
                yield numbering.ordered(members, is_named=True)


def _without_case(groups: Mapping[tuple[str, str], dict[str, str]]) -> dict[tuple[str, str], dict[str, str]]:
    """Join the groups whose names differ in case alone, where no number comes twice."""
    joined: dict[tuple[str, str], dict[str, str]] = {}
    keys: dict[tuple[str, str], tuple[str, str]] = {}
    for (base, mark), group in groups.items():
        key = keys.setdefault((base.casefold(), mark), (base, mark))
        if joined.get(key, {}).keys() & group.keys():
            key = (base, mark)
        joined.setdefault(key, {}).update(group)
    return joined


def _inner_sets(names: Iterable[str], kind: KindOf) -> Iterator[PartSet]:
    """Sets with the number within the name: the first begins as an archive, and no other does."""
    taken: set[str] = set()
    for form in _INNER:
        groups: dict[tuple[str, str, int, int], dict[str, str]] = {}
        for name in sorted(names):
            if name not in taken and (match := form.fullmatch(name)):
                suffix = match["suffix"].lower()
                count = int(match.groupdict().get("count") or 0)
                letters = len(suffix) if suffix.isalpha() else 0
                key = (match["base"].casefold(), match["end"].casefold(), count, letters)
                groups.setdefault(key, {}).setdefault(suffix if letters else str(int(suffix)), name)
        for (_, _, count, letters), group in groups.items():
            numbering = _Numbering(_LETTERS, letters, is_exact=True) if letters else _Numbering(_DIGITS, 0)
            ordered = numbering.ordered(group, is_named=True, count=count)
            if numbering.begins_late(group) or len(group) < 2 or (letters and "a" * letters not in group):
                continue
            begins = [kind(name).is_archive for name in ordered.names]
            if begins[0] and not any(begins[1:]):
                taken.update(ordered.names)
                yield ordered


def _content_sets(names: Collection[str], kind: KindOf) -> Iterator[PartSet]:
    """Sets whose names say nothing of an archive: the first begins as one, and no other does."""
    ordered = sorted(name for name in names if not is_archive_name(name))
    rest = set(ordered)
    for first in filter(_FIRST_OF_ANY.fullmatch, ordered):
        if first not in rest or not kind(first).is_archive:
            continue
        found = max(_candidates(first, ordered, rest), key=lambda item: len(item.names), default=None)
        if found and len(found.names) > 1 and not any(kind(name).is_archive for name in found.names[1:]):
            rest.difference_update(found.names)
            yield found


def _candidates(first: str, ordered: Sequence[str], rest: Collection[str]) -> Iterator[PartSet]:
    """Give the sets that a file may be the first part of, one for each width that its suffix may have.

    :param ordered: the names in order, so that those with one beginning are found without a look at all others.
    :param rest: those of them that are in no set yet.
    """
    for width in range(1, 9):
        prefix, suffix = first[:-width], first[-width:].lower()
        is_marked = re.fullmatch(rf".*{_MARK}", prefix, re.IGNORECASE | re.DOTALL) is not None
        if suffix == "a" * width and 2 <= width <= 4:
            form = re.compile(r"[a-z]+")
        elif suffix[:-1] == "0" * (width - 1) and suffix[-1] in "01" and (width > 1 or is_marked):
            form = re.compile(r"\d+")
        else:
            continue
        ends = {name[len(prefix) :].lower(): name for name in _beginning_with(prefix, ordered) if name in rest}
        group = {end: name for end, name in ends.items() if form.fullmatch(end) and width <= len(end) < 10}
        for numbering in _numberings(group):
            members = numbering.of(group)
            if suffix in members:
                yield numbering.ordered(numbering.near(members), is_named=is_archive_name(prefix))


def _beginning_with(prefix: str, ordered: Sequence[str]) -> Iterator[str]:
    for place in range(bisect_left(ordered, prefix), len(ordered)):
        if not ordered[place].startswith(prefix):
            break
        yield ordered[place]


def _numberings(group: Collection[str]) -> Iterator[_Numbering]:
    """Give the ways in which suffixes count, one for each set among them."""
    digits = {suffix for suffix in group if suffix.isdigit()}
    letters = {suffix for suffix in group if suffix.isalpha()}
    mixed = set(group) - digits - letters
    if mixed:
        for width in sorted({len(suffix) for suffix in mixed}):
            yield _Numbering(_HEX, width, is_exact=True)
        return
    pads = sorted({len(suffix) for suffix in digits if len(suffix) > 1 and suffix[0] == "0"})
    for low, high in zip([0, *pads], [*pads, 99], strict=True):
        own = {suffix for suffix in digits if low <= len(suffix) < high}
        if own:
            yield _Numbering(_DIGITS, low, most=high, is_extended=_is_extended(own, low, "9"))
    widths = sorted({len(suffix) for suffix in letters})
    while widths:
        width = widths.pop(0)
        own = {suffix for suffix in letters if len(suffix) >= width and (len(suffix) - width) % 2 == 0}
        if _is_extended(own, width, "z"):
            yield _Numbering(_LETTERS, width, is_extended=True)
            widths = [other for other in widths if (other - width) % 2]
        else:
            yield _Numbering(_LETTERS, width, is_exact=True)


def _is_extended(suffixes: Collection[str], width: int, last: str) -> bool:
    """Return whether suffixes grow as ``split``'s do: ``yz`` is followed by ``zaaa``, ``89`` by ``9000``."""
    lengths = {len(suffix) for suffix in suffixes}
    return (
        width > 0
        and len(lengths) > 1
        and all((length - width) % 2 == 0 for length in lengths)
        and all(
            suffix.startswith(last * steps) and suffix[steps] != last
            for suffix in suffixes
            for steps in ((len(suffix) - width) // 2,)
        )
    )


@dataclass(frozen=True)
class _Numbering:
    """One way to count.

    :param alphabet: digits or letters in order.
    :param width: shortest suffix; 0 for numbers that no zeros fill up.
    :param most: longest suffix, and one more.
    :param is_extended: whether suffixes grow as ``split``'s do.
    :param is_exact: whether all have the same width.
    """

    alphabet: str
    width: int
    most: int = 99
    is_extended: bool = False
    is_exact: bool = False

    @property
    def is_lettered(self) -> bool:
        """True where it counts with letters."""
        return self.alphabet == _LETTERS

    @property
    def is_padded(self) -> bool:
        """True where the suffixes are filled up to one width."""
        return self.width > 0

    def of(self, group: Mapping[str, str]) -> dict[str, str]:
        """Return the suffixes that count like this, with their files."""
        return {
            suffix: name
            for suffix, name in group.items()
            if set(suffix) <= set(self.alphabet)
            and (len(suffix) == self.width if self.is_exact else self.width <= len(suffix) < self.most)
        }

    def is_likely(self, members: Iterable[str]) -> bool:
        """Return whether suffixes are numbers, or ``split``'s letters and not extensions such as ``bak`` and ``b2``."""
        if self.alphabet == _HEX:
            return any(self._number(suffix) < 2 for suffix in members)
        return not self.is_lettered or any(
            suffix[:-1] == "a" * (len(suffix) - 1) and suffix[0] == "a" for suffix in members
        )

    def begins_late(self, members: Iterable[str]) -> bool:
        """Return whether neither number 0 nor 1 is among them."""
        return min(map(self._number, members)) > 1

    def near(self, members: Mapping[str, str]) -> dict[str, str]:
        """Return the members from the first on, up to a wide gap."""
        found: dict[str, str] = {}
        before = 0
        for suffix in sorted(members, key=self._number):
            if self._number(suffix) - before > _FAR:
                break
            before = self._number(suffix)
            found[suffix] = members[suffix]
        return found

    def ordered(self, members: Mapping[str, str], *, is_named: bool, count: int = 0) -> PartSet:
        """Put the members in order and find what is missing.

        :param count: how many there are, as the names say; 0 where they do not.
        """
        numbers = {self._number(suffix): suffix for suffix in members}
        last = max(numbers)
        start = 0 if self.is_lettered else min(*numbers, 1)
        end = max(last, start + count - 1)
        missing = islice((number for number in range(start, end + 1) if number not in numbers), _LISTED)
        return PartSet(
            tuple(members[numbers[number]] for number in sorted(numbers)),
            numbers[last] if self.is_lettered else f"number {numbers[last]}",
            tuple(map(self._shown, missing)),
            is_named,
        )

    def _number(self, suffix: str) -> int:
        size = len(self.alphabet)
        steps = (len(suffix) - self.width) // 2 if self.is_extended else 0
        rest = 0
        for letter in suffix[steps:]:
            rest = rest * size + self.alphabet.index(letter)
        return rest + sum(map(self._numbers_of_step, range(steps)))

    def _numbers_of_step(self, step: int) -> int:
        """Return how many suffixes there are of one length, where they grow."""
        size = len(self.alphabet)
        return (size - 1) * int(size ** (self.width - 1 + step))

    def _shown(self, number: int) -> str:
        """Return a number as people count it, or the letters that stand for it."""
        if not self.is_lettered:
            return str(number)
        size, steps = len(self.alphabet), 0
        while self.is_extended and number >= self._numbers_of_step(steps):
            number -= self._numbers_of_step(steps)
            steps += 1
        letters = ""
        for _ in range(self.width + steps):
            number, letter = divmod(number, size)
            letters = self.alphabet[letter] + letters
        return self.alphabet[-1] * steps + letters
