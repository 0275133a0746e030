"""RE2 patterns and replacements: the same answers as Go gave, and no crash on anything else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.site.appliance.plugins.plugin_utils import re2
from hypothesis import given
from hypothesis import strategies as st

FACTS: dict[str, Any] = json.loads((Path(__file__).parent / "golden/re2.json").read_text(encoding="utf-8"))
EXPAND = FACTS["expand"]


def _names(pattern: str) -> list[str] | None:
    try:
        return re2.group_names(pattern)
    except re2.PatternError as error:
        assert str(error), pattern
        return None


def test_patterns_are_taken_and_refused_as_go_does() -> None:
    answers = {pattern: _names(pattern) for pattern in FACTS["patterns"]}
    assert answers == FACTS["patterns"]
    assert sum(names is None for names in answers.values()) > 100


def test_replacements_are_read_as_go_does() -> None:
    names = re2.group_names(EXPAND["pattern"])
    match = re.fullmatch(EXPAND["pattern"].replace("(?<", "(?P<"), EXPAND["text"])
    assert match is not None
    groups = [match[0], *match.groups()]

    def expand(replacement: str) -> str:
        text = ""
        for part in re2.template(replacement):
            if isinstance(part, str):
                text += part
            elif part.resolves(names):
                text += groups[part.number if part.number is not None else names.index(part.name)]
        return text

    assert {replacement: expand(replacement) for replacement in EXPAND["results"]} == EXPAND["results"]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("^(?!library/)(.*)$", "no lookahead"),
        ("(?<=a)b", "no lookbehind"),
        (r"(a)\1", "no backreferences"),
        (r"(?<n>a)\k<n>", "no backreferences"),
        ("a++", "no possessive quantifiers"),
        ("(?>a)", "no atomic groups"),
        ("(?(1)a|b)", "no conditionals"),
        ("a{1001}", "1000 times at most"),
        ("(a{100}){11}", "more than 1000"),
        (r"a\Z", r"\z"),
        ("(a", "closing )"),
        ("[a", "closing ]"),
        (r"\p{Letter}", "Unicode class"),
    ],
)
def test_a_refusal_says_why(pattern: str, words: str) -> None:
    with pytest.raises(re2.PatternError, match=re.escape(words)):
        re2.group_names(pattern)


PIECES = st.sampled_from(
    ["a", "é", "(", ")", "(?", "(?:", "(?P<n>", "[", "]", "^", "-", "[:", ":]", "\\", "\\Q", "\\E", "\\p", "{", "}", "2", ",", "*", "|"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30))
def test_any_text_is_taken_or_refused(pattern: str) -> None:
    names = _names(pattern)
    assert names is None or len(names) <= pattern.count("(") + 1


@given(st.text(max_size=30))
def test_quoted_text_is_always_a_pattern(text: str) -> None:
    escaped = "".join(f"\\{char}" if char.isascii() and not char.isalnum() else char for char in text)
    assert re2.group_names(escaped) == [""]


@given(st.text(alphabet="$\\{}01né_-/", max_size=20).filter(lambda text: "$$" not in text))
def test_a_replacement_is_split_without_loss(replacement: str) -> None:
    parts = re2.template(replacement)
    assert "".join(part if isinstance(part, str) else part.source for part in parts) == replacement
