"""Language of docstrings and pages: the faults that a simple checker can find.

A docstring begins with a noun phrase or an imperative. No sentence begins with a participle ("Kept is …"), or with a relative
clause in place of a noun ("What is not here …") in a docstring's first line. Rules: CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODULES = sorted((ROOT / "appliance").rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

NO_SUBJECT = re.compile(
    r"(What|Who|Whom|Whose|Whoever|Whatever|Whether|Where|How|Which|Why|Kept|Asked|Counted|Made|Taken|Told|Said|Given|Shown|Called)\b"
)
PARTICIPLE_FIRST = re.compile(
    r"(?:^|[.!?:] )(Kept|Asked|Counted|Shown|Told|Taken|Listed|Named|Served|Refused|Removed|Looked|Wanted|Read)"
    r" (?:is|are|was|were)\b",
    re.MULTILINE,
)
COINAGES = re.compile(r"\b(?:taken anew|take anew|takes anew|taken in again)\b")


def first_lines(path: Path) -> list[tuple[str, str]]:
    """Name and first line of every docstring of a module."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    return [(getattr(node, "name", path.stem), (ast.get_docstring(node) or "").partition("\n")[0]) for node in nodes]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_docstring_begins_with_its_subject(path: Path) -> None:
    assert [f"{name}: {line}" for name, line in first_lines(path) if NO_SUBJECT.match(line)] == []


@pytest.mark.parametrize("path", [*MODULES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_sentence_begins_with_a_participle(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [match[0] for rule in (PARTICIPLE_FIRST, COINAGES) for match in rule.finditer(text)] == []


@pytest.mark.parametrize(
    "sentence", ["Kept is what is needed.", "It runs. Asked are all peers.", "The file is taken anew."]
)
def test_the_checker_finds_them(sentence: str) -> None:
    assert PARTICIPLE_FIRST.search(sentence) or COINAGES.search(sentence)
    assert NO_SUBJECT.match("What a node does by itself.")
    assert not NO_SUBJECT.match("Whole blobs.")


def test_a_decision_that_code_cites_is_there() -> None:
    text = (ROOT / "docs" / "explanation" / "decisions.md").read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    for path in MODULES:
        for cited in re.findall(r"\bDecisions? ([\d, and]+)\.", path.read_text(encoding="utf-8")):
            assert {int(number) for number in re.findall(r"\d+", cited)} <= set(numbers), path
