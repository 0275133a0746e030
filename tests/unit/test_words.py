"""Words of strangers: each character is seen as itself or as an escape, and a field is one line."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from pathlib import Path

import pytest
from ansible_collections.site.appliance.plugins.plugin_utils import words as collection
from hypothesis import given
from hypothesis import strategies as st

import appliance.cli
from appliance.words import LONGEST, each, json_text, one_line, quoted, several_lines
from tests.hostile import HOSTILE, UNWRITABLE, acting

TEXTS = st.text(st.characters(codec=None, exclude_categories=())) | st.text("a\n\x1b\u202e\udcff")
DATA = st.recursive(TEXTS | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner))


def test_every_character_that_acts_is_an_escape_and_letters_of_all_scripts_stay() -> None:
    wrong = []
    for number in range(sys.maxunicode + 1):
        char = chr(number)
        category = unicodedata.category(char)
        acts = category in ("Cc", "Cf", "Cs", "Zl", "Zp")
        drawn = category[0] in "LNPS" and number not in (0x115F, 0x1160, 0x3164, 0xFFA0)
        if (acts and one_line(char) == char) or (drawn and one_line(char) != char):
            wrong.append(f"{number:04x}")
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nginx:1.27", "nginx:1.27"),
        ("Zürich, 東京, حيفا", "Zürich, 東京, حيفا"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[2J\x9b\x7f", "\\x1b[2J\\x9b\\x7f"),
        ("\u202egnp.exe\u2028", "\\u202egnp.exe\\u2028"),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_acts_is_shown_as_python_writes_it(text: str, shown: str) -> None:
    assert one_line(text) == shown


@given(TEXTS)
def test_one_line_is_one_line_that_any_terminal_takes_and_stays_what_it_is(text: str) -> None:
    shown = one_line(text)
    assert acting(shown) == [] and "\n" not in shown
    shown.encode()
    assert one_line(shown) == shown == collection.one_line(text)


def test_a_long_field_says_how_much_of_it_is_left_out() -> None:
    shown = one_line("x" * 10**6)
    assert len(shown) == LONGEST and shown.endswith("... (1000000 characters)")
    assert one_line(shown) == shown
    assert one_line("x" * LONGEST) == "x" * LONGEST


@given(TEXTS)
def test_several_lines_keep_the_program_s_own_line_breaks(text: str) -> None:
    shown = several_lines(text)
    assert acting(shown) == [] and shown.count("\n") == text.count("\n")
    assert several_lines(shown) == shown == collection.several_lines(text)


@given(DATA)
def test_each_string_of_data_is_one_line(value: object) -> None:
    shown = each(value)
    written = json.dumps(shown, ensure_ascii=False)
    # json itself writes a line break as an escape; what is data keeps none that it could write.
    assert acting(written) == [] and "\\n" not in written.replace("\\\\", "")
    assert shown == collection.each(value)


@given(DATA)
def test_json_is_exact_and_harmless_to_cat(value: object) -> None:
    text = json_text(value)
    assert text.isascii() and text.isprintable()
    assert json.loads(text) == value
    assert acting(json_text(value, indent=2)) == []


def test_the_collection_reads_documents_and_nothing_else() -> None:
    assert collection.read_document(json.dumps({"note": HOSTILE})) == {"note": one_line(HOSTILE)}
    for text in ("", "[1]", "no", None, "[" * 100_000):
        assert collection.read_document(text) is None


def test_both_know_the_same_characters() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    assert collection.one_line(everything, sys.maxsize) == one_line(everything, sys.maxsize)
    assert collection.one_line(UNWRITABLE) == one_line(UNWRITABLE)


@pytest.mark.parametrize("file", sorted(Path(appliance.cli.__file__).parent.glob("*.py")), ids=lambda file: file.stem)
def test_commands_make_their_text_of_the_cleaned_result(file: Path) -> None:
    """A command gives ``show`` a function of the result, and not of something that did not pass there."""
    assert "lambda _:" not in file.read_text(encoding="utf-8")


@given(st.text(alphabet=st.sampled_from('a\\"), \n')) | st.text())
def test_nothing_ends_the_quotes_that_a_text_is_in(text: str) -> None:
    shown = quoted(text)
    assert re.fullmatch(r'"(?:[^"\\]|\\.)*"', shown)
    assert shown == one_line(shown)


def test_quoted_texts_are_read_as_they_were() -> None:
    assert quoted("ops") == '"ops"'
    assert quoted('a "b" \\') == r'"a \"b\" \\"'
    assert quoted("a\nb") == r'"a\nb"'
    assert quoted('\\"') == r'"\\\""'
