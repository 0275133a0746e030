# SPDX-License-Identifier: Apache-2.0
"""Syntax checker for RE2 patterns and for the replacements that go with them, as Go's package regexp takes both.

K3s is written in Go. Python's ``re`` takes other patterns: it knows lookahead and backreferences, and it does not know
``\\pL``, ``\\Q...\\E`` or a flag in the middle. Nothing is matched here. The rules are those of
https://github.com/google/re2/wiki/Syntax, of ``regexp/syntax`` and of ``Regexp.Expand``; a table of answers that Go gave
stands beside the tests.
"""

from __future__ import annotations

import dataclasses
import re

_MAX_REPEAT = 1000
_MAX_DEPTH = 1000
_MAX_RUNE = 0x10FFFF
_UNSUPPORTED = {
    "(?=": "RE2 has no lookahead",
    "(?!": "RE2 has no lookahead",
    "(?<=": "RE2 has no lookbehind",
    "(?<!": "RE2 has no lookbehind",
    "(?>": "RE2 has no atomic groups",
    "(?(": "RE2 has no conditionals",
    "(?P=": "RE2 has no backreferences",
    "(?P>": "RE2 has no recursion",
    "(?R": "RE2 has no recursion",
    "(?&": "RE2 has no recursion",
    "(?|": "RE2 has no branch reset",
    "(?#": "RE2 has no comments",
}
_POSIX = frozenset(
    "alnum alpha ascii blank cntrl digit graph lower print punct space upper word xdigit".split()  # noqa: SIM905
)
_CATEGORIES = "C Cc Cf Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs"
# Unicode 15, which Go has had since 1.21. Go 1.25 takes further names (Letter, ASCII); an older K3s does not.
_SCRIPTS = """
Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali Bhaiksuki Bopomofo Brahmi
Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee Chorasmian Common Coptic Cuneiform
Cypriot Cypro_Minoan Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs Elbasan Elymaic Ethiopic
Georgian Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi Gurmukhi Han Hangul Hanifi_Rohingya Hanunoo Hatran Hebrew
Hiragana Imperial_Aramaic Inherited Inscriptional_Pahlavi Inscriptional_Parthian Javanese Kaithi Kannada Katakana Kawi
Kayah_Li Kharoshthi Khitan_Small_Script Khmer Khojki Khudawadi Lao Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian
Mahajani Makasar Malayalam Mandaic Manichaean Marchen Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui Meroitic_Cursive
Meroitic_Hieroglyphs Miao Modi Mongolian Mro Multani Myanmar Nabataean Nag_Mundari Nandinagari New_Tai_Lue Newa Nko Nushu
Nyiakeng_Puachue_Hmong Ogham Ol_Chiki Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_Sogdian
Old_South_Arabian Old_Turkic Old_Uyghur Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician
Psalter_Pahlavi Rejang Runic Samaritan Saurashtra Sharada Shavian Siddham SignWriting Sinhala Sogdian Sora_Sompeng Soyombo
Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan
Tifinagh Tirhuta Toto Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi Zanabazar_Square
"""
_UNICODE = frozenset(["Any", *_CATEGORIES.split(), *_SCRIPTS.split()])
# Go disallows leading zeros, and then takes the brace for a literal one.
_REPEAT = re.compile(r"\{(?P<min>0|[1-9][0-9]*)(?P<comma>,(?P<max>0|[1-9][0-9]*)?)?\}", re.ASCII)
_GROUP_NAME = re.compile(r"\(\?P?<(?P<name>[A-Za-z0-9_]+)>")
_FLAGS = re.compile(r"\(\?(?P<set>[imsU]*)(?P<cleared>-[imsU]+)?(?P<end>[:)])")


class PatternError(ValueError):
    """Error of a pattern that RE2 does not take; the message says where and why."""


@dataclasses.dataclass
class _Group:
    """An open group: whether something in it can be repeated now, and how often its parts are repeated at most."""

    can_repeat: bool = False
    repeated: int = 1
    last: int = 1


class _Parser:
    """One pass over a pattern, in the order of Go's ``regexp/syntax`` parser."""

    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.at = 0
        self.names: list[str] = [""]
        self.open = [_Group()]
        self.was_repeat = False

    def parse(self) -> list[str]:
        """Return the name of every group, empty where it has none; the first is the whole match."""
        while self.at < len(self.text):
            repeat_before, self.was_repeat = self.was_repeat, False
            self._next(repeat_before)
        if len(self.open) > 1:
            raise PatternError("a closing ) is missing")
        return self.names

    def _starts(self, prefix: str) -> bool:
        return self.text.startswith(prefix, self.at)

    def _atom(self, length: int) -> None:
        """Step over something that a repetition may follow."""
        group = self.open[-1]
        group.can_repeat, group.last = True, 1
        self.at += length

    def _next(self, repeat_before: bool) -> None:
        char = self.text[self.at]
        if char == "(":
            self._open_group()
        elif char == ")":
            self._close_group()
        elif char == "|":
            self.open[-1].can_repeat = False
            self.at += 1
        elif char == "[":
            self._atom(self._class_end() - self.at)
        elif char in "*+?":
            self._repeat(char, 1, repeat_before)
        elif char == "{" and (match := _REPEAT.match(self.text, self.at)):
            self._repeat(match[0], self._times(match), repeat_before)
        elif char == "\\":
            self._escape()
        else:
            self._atom(1)

    def _open_group(self) -> None:
        if self._starts("(?"):
            flags = _FLAGS.match(self.text, self.at)
            name = _GROUP_NAME.match(self.text, self.at)
            if flags and flags["end"] == ")":
                self.at = flags.end()
                return
            if name:
                self.names.append(name["name"])
            elif not flags:
                self._refuse_group()
            self.at = (flags or name or self._refuse_group()).end()
        else:
            self.names.append("")
            self.at += 1
        self.open.append(_Group())
        if len(self.open) > _MAX_DEPTH:
            raise PatternError("the groups nest too deeply")

    def _refuse_group(self) -> re.Match[str]:
        rest = self.text[self.at :]
        for start, why in sorted(_UNSUPPORTED.items(), key=lambda item: -len(item[0])):
            if rest.startswith(start):
                raise PatternError(f"{why} [{start}]")
        raise PatternError(f"RE2 does not know this kind of group [{rest[:8]}]")

    def _close_group(self) -> None:
        if len(self.open) == 1:
            raise PatternError("a ) closes nothing")
        closed = self.open.pop()
        self._atom(1)
        self.open[-1].last = closed.repeated
        self.open[-1].repeated = max(self.open[-1].repeated, closed.repeated)

    def _times(self, match: re.Match[str]) -> int:
        low = int(match["min"])
        high = low if match["comma"] is None else int(match["max"]) if match["max"] else -1
        if low > _MAX_REPEAT or high > _MAX_REPEAT or 0 <= high < low:
            raise PatternError(f"RE2 repeats {_MAX_REPEAT} times at most, the smaller number first [{match[0]}]")
        return low if high < 0 else high

    def _repeat(self, operator: str, times: int, repeat_before: bool) -> None:
        group = self.open[-1]
        start = self.at
        self.at += len(operator)
        if self._starts("?"):
            self.at += 1
        if repeat_before:
            both = self.text[start : self.at]
            raise PatternError(f"one repetition follows another, and RE2 has no possessive quantifiers [{both}]")
        if not group.can_repeat:
            raise PatternError(f"there is nothing before the repetition [{operator}]")
        if operator.startswith("{"):
            # A part that is repeated zero times does not count in Go either.
            group.last = group.last * times if times else 1
            if times >= 2 and group.last > _MAX_REPEAT:
                raise PatternError(f"repetitions within repetitions make more than {_MAX_REPEAT} [{operator}]")
            group.repeated = max(group.repeated, group.last)
        self.was_repeat = True

    def _escape(self) -> None:
        if self._starts("\\Q"):
            end = self.text.find("\\E", self.at + 2)
            stop = len(self.text) if end < 0 else end
            if stop > self.at + 2:
                self._atom(0)
            self.at = stop + 2
        elif self.text[self.at + 1 : self.at + 2] in set("AbBz"):
            self._atom(2)
        else:
            self._atom(self._group_escape_end(self.at) - self.at or self._char_end(self.at) - self.at)

    def _group_escape_end(self, at: int) -> int:
        r"""Return where ``\d``, ``\pL`` or ``\p{Greek}`` ends, or the same place where there is none."""
        letter = self.text[at + 1 : at + 2] if self.text[at] == "\\" else ""
        if letter and letter in "dDsSwW":
            return at + 2
        if not letter or letter not in "pP":
            return at
        if self.text[at + 2 : at + 3] == "{":
            end = self.text.find("}", at)
            name = self.text[at + 3 : end]
        else:
            end, name = at + 2, self.text[at + 2 : at + 3]
        if end < 0 or name.removeprefix("^") not in _UNICODE:
            raise PatternError(f"RE2 does not know this Unicode class [{self.text[at : at + 12]}]")
        return end + 1

    def _char_end(self, at: int) -> int:
        """Return where one character ends, written as itself or as an escape."""
        return at + len(self._char(at))

    def _char(self, at: int) -> str:
        """Return the source of the one character at a place."""
        text = self.text
        if text[at] != "\\":
            return text[at]
        if at + 1 == len(text):
            raise PatternError("it ends in a backslash")
        char = text[at + 1]
        found = re.compile(r"\\(?:[1-7][0-7]{1,2}|0[0-7]{0,2}|x[0-9A-Fa-f]{2}|x\{[0-9A-Fa-f]+\}|[afnrtv])").match(
            text, at
        )
        if found:
            if _value(found[0]) > _MAX_RUNE:
                raise PatternError(f"there is no such character [{found[0]}]")
            return found[0]
        if char.isascii() and not char.isalnum():
            return text[at : at + 2]
        if char in "123456789":
            raise PatternError(f"RE2 has no backreferences [\\{char}]")
        if char == "k":
            raise PatternError("RE2 has no backreferences [\\k]")
        hint = "; the end of the text is \\z" if char == "Z" else ""
        raise PatternError(f"RE2 does not know this escape [{text[at : at + 2]}]{hint}")

    def _class_end(self) -> int:
        """Return where the class in brackets ends."""
        text, at = self.text, self.at + 1
        if text.startswith("^", at):
            at += 1
        first = True
        while first or not text.startswith("]", at):
            first = False
            if at >= len(text):
                raise PatternError("a closing ] is missing")
            end = self._posix_end(at) or self._group_escape_end(at)
            at = end if end > at else self._range_end(at)
        return at + 1

    def _posix_end(self, at: int) -> int:
        if not self.text.startswith("[:", at) or (end := self.text.find(":]", at + 2)) < 0:
            return 0
        if self.text[at + 2 : end].removeprefix("^") not in _POSIX:
            raise PatternError(f"RE2 does not know this class [{self.text[at : end + 2]}]")
        return end + 2

    def _range_end(self, at: int) -> int:
        low = self._char(at)
        at += len(low)
        if not self.text.startswith("-", at) or self.text[at + 1 : at + 2] in ("]", ""):
            return at
        high = self._char(at + 1)
        if _value(high) < _value(low):
            raise PatternError(f"a range runs backwards [{low}-{high}]")
        return at + 1 + len(high)


def _value(char: str) -> int:
    """Return the code point of a character as :meth:`_Parser._char` gives its source."""
    if not char.startswith("\\"):
        return ord(char)
    if char[1] == "x":
        return int(char[2:].strip("{}"), 16)
    if char[1] in "01234567":
        return int(char[1:], 8)
    return ord({"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}.get(char[1], char[1]))


def group_names(pattern: str) -> list[str]:
    """Return the names of a pattern's groups, empty for one without; the first stands for the whole match.

    :raises PatternError: where Go does not compile the pattern.
    """
    return _Parser(pattern).parse()


@dataclasses.dataclass(frozen=True)
class Reference:
    """A reference to a group in a replacement: its source (``${1}``), and the name or the number in it."""

    source: str
    name: str

    @property
    def number(self) -> int | None:
        """The group's number, or None for a name; a number with a leading zero is a name to Go."""
        is_number = self.name.isascii() and self.name.isdigit() and (self.name == "0" or self.name[0] != "0")
        return int(self.name) if is_number and int(self.name) < 10**9 else None

    def resolves(self, names: list[str]) -> bool:
        """Return whether a pattern with these groups has the group that is meant; Go puts nothing in its place if not."""
        number = self.number
        return number < len(names) if number is not None else self.name in names


def template(replacement: str) -> list[str | Reference]:
    """Split a replacement into literal text and references, as Go's ``Regexp.Expand`` does.

    A ``$`` that is no reference stays as it is, and so does every backslash.
    """
    parts: list[str | Reference] = []
    literal, at = "", 0
    while at < len(replacement):
        if replacement[at] != "$":
            literal, at = literal + replacement[at], at + 1
            continue
        if replacement.startswith("$$", at):
            literal, at = literal + "$", at + 2
            continue
        source = _reference_at(replacement, at)
        if not source:
            literal, at = literal + "$", at + 1
            continue
        parts += [literal] if literal else []
        parts.append(Reference(source, source.strip("${}")))
        literal, at = "", at + len(source)
    return parts + ([literal] if literal else [])


def _reference_at(text: str, at: int) -> str:
    """Return the source of the reference that begins at a place, or nothing."""
    is_braced = text.startswith("{", at + 1)
    start = end = at + 1 + is_braced
    # Go asks for letters and decimal digits of any script.
    while end < len(text) and (text[end].isalpha() or text[end].isdecimal() or text[end] == "_"):
        end += 1
    if end == start or (is_braced and not text.startswith("}", end)):
        return ""
    return text[at : end + is_braced]
