"""Errors: what, where, why and what to do, in one line and as a document."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from appliance.errors import (
    ERRORS,
    ApplianceError,
    ContentError,
    DiskFull,
    NotAnImageArchive,
    error_from_dict,
    fail,
    http_of,
    make_error,
)

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "appliance").rglob("*.py"))


def test_an_error_says_everything_in_one_line() -> None:
    error = ApplianceError("APL-0107", "blob is wrong", where="a.tar", why="bits", fix="Copy it again")
    assert str(error) == "APL-0107: blob is wrong [a.tar]: bits. Copy it again"
    assert error.as_dict() == {
        "code": "APL-0107",
        "what": "blob is wrong",
        "where": "a.tar",
        "why": "bits",
        "fix": "Copy it again",
    }


def test_what_is_not_known_is_left_out() -> None:
    assert str(ApplianceError("APL-0107", "blob is wrong")) == "APL-0107: blob is wrong"


def test_fail_raises_it() -> None:
    with pytest.raises(ApplianceError) as caught:
        fail("APL-0201", "x", where="w", why="y", fix="f")
    assert caught.value.as_dict() == {"code": "APL-0201", "what": "x", "where": "w", "why": "y", "fix": "f"}


def test_what_an_archive_or_a_request_calls_itself_moves_no_cursor_and_begins_no_line() -> None:
    error = ApplianceError("APL-0105", "member is refused", where="a.tar: x\x1b[2J\n\u202egnp.\udcff\x9b")
    assert str(error) == "APL-0105: member is refused [a.tar: x\\x1b[2J\\n\\u202egnp.\\udcff\\x9b]"
    assert error.where == "a.tar: x\x1b[2J\n\u202egnp.\udcff\x9b"


def test_the_table_has_every_id_of_the_code_and_no_other() -> None:
    texts = (path.read_text() for path in SOURCES if path.name != "errors.py" or path.parent.name != "appliance")
    raised = {code for text in texts for code in re.findall(r"APL-\d{4}", text)}
    made_there = {"APL-0310", "APL-0311"}
    assert raised | made_there == set(ERRORS)


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_the_runbook_page_has_the_title_of_the_table(code: str) -> None:
    page = ROOT / "docs" / "runbooks" / f"{code}.md"
    assert page.read_text().splitlines()[0] == f"# {code}: {ERRORS[code].title}"


def test_an_error_has_the_family_of_its_id_also_from_another_process() -> None:
    with pytest.raises(DiskFull) as caught:
        fail("APL-0310", "full", where="/var")
    assert type(error_from_dict(caught.value.as_dict())) is DiskFull
    assert type(caught.value.within("n1")) is DiskFull
    assert type(error_from_dict({"code": "APL-9999", "what": "of a newer release"})) is ApplianceError


def test_an_error_says_how_a_push_is_answered() -> None:
    assert http_of(make_error("APL-0310", "full")) == (507, "DENIED")
    assert http_of(make_error("APL-0203", "no manifest")) == (400, "MANIFEST_INVALID")
    assert http_of(make_error("APL-0314", "damaged")) == (503, "UNKNOWN")
    assert not isinstance(make_error("APL-0111", "no archive"), NotAnImageArchive | ContentError)


def _compares_ids(node: ast.AST) -> bool:
    if isinstance(node, ast.Compare):
        parts = [node.left, *node.comparators]
        return any(isinstance(part, ast.Constant) and str(part.value).startswith("APL-") for part in parts)
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "startswith"
        and "APL" in ast.dump(node)
    )


def test_nobody_compares_ids() -> None:
    """Callers catch types: an id that is compared somewhere else would change what happens when it is given to more errors."""
    found = [
        f"{path}: {ast.unparse(node)}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if _compares_ids(node)
    ]
    assert found == []
