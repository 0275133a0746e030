"""Errors: what, where, why and what to do, in one line and as a document."""

from __future__ import annotations

import pytest

from appliance.errors import ApplianceError, fail


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
