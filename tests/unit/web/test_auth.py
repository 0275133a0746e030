"""Operators: the file's form, the check, and what it never does."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.web import auth
from appliance.web.auth import Operators, PasswordHash, basic, line_for, parse_lines
from tests.unit.registry.listeners import HASH, PASSWORD


def header(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.fixture
def operators(tmp_path: Path) -> Operators:
    """One operator, ops."""
    (tmp_path / "users").write_text(f"ops:{HASH}\n")
    return Operators(tmp_path / "users")


def test_a_line_that_is_made_is_one_that_is_read() -> None:
    line = line_for("ops@site", "a password of some length")
    parsed = parse_lines(f"# note\n\n{line}\n", "test")
    assert parsed["ops@site"].matches(b"a password of some length")
    assert not parsed["ops@site"].matches(b"a password of some lengt")
    assert "a password" not in line
    assert line != line_for("ops@site", "a password of some length"), "the salt is fresh"


@pytest.mark.parametrize(("name", "password"), [("", "x" * 20), ("a:b", "x" * 20), ("a b", "x" * 20), ("ops", "short")])
def test_bad_names_and_short_passwords_are_refused(name: str, password: str) -> None:
    with pytest.raises(ApplianceError, match="APL-0503"):
        line_for(name, password)


@pytest.mark.parametrize(
    "text",
    [
        "ops",
        "ops:secret",
        "ops:$2y$05$abcdefghijklmnopqrstuv",
        f"ops:{HASH}\nops:{HASH}",
        f":{HASH}",
        f"a b:{HASH}",
        "ops:" + str(HASH).replace("scrypt", "plain"),
        "ops:" + str(HASH).replace("$14$", "$4$"),
        "ops:" + str(HASH).replace("$14$", "$30$"),
        "ops:" + str(HASH).replace("$14$", "$x$"),
        "ops:scrypt$14$8$1$$",
        "ops:scrypt$14$8$1$!!$!!",
    ],
)
def test_lines_that_are_none_are_refused_with_their_number(text: str) -> None:
    with pytest.raises(ApplianceError, match=r"APL-0503.*line \d"):
        parse_lines(text, "test")


@given(st.text(max_size=60))
def test_no_text_crashes_the_reader(text: str) -> None:
    try:
        parse_lines(text, "test")
    except ApplianceError as error:
        assert error.code == "APL-0503"


@given(st.text(max_size=80) | st.binary(max_size=40).map(lambda raw: "Basic " + base64.b64encode(raw).decode()))
def test_no_header_crashes_the_reader(text: str) -> None:
    found = basic(text)
    assert found is None or isinstance(found[1], bytes)


def test_right_and_wrong(operators: Operators) -> None:
    right = header("ops", PASSWORD)
    assert operators.remembered(right) is None
    assert operators.check(right) == "ops"
    assert operators.remembered(right) == "ops"
    for wrong in (header("ops", "x"), header("ops", ""), header("root", PASSWORD), "Bearer x", "", "Basic !!", None):
        assert operators.check(wrong) is None
        assert operators.remembered(wrong) is None


def test_a_name_that_is_not_listed_costs_as_much(operators: Operators, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []
    real = PasswordHash.matches

    def matches(self: PasswordHash, password: bytes) -> bool:
        hashed.append(password)
        return real(self, password)

    monkeypatch.setattr(PasswordHash, "matches", matches)
    operators.check(header("nobody", "guess"))
    operators.check(header("ops", "guess"))
    assert len(hashed) == 2


def test_a_changed_file_counts_at_once(operators: Operators, tmp_path: Path) -> None:
    right = header("ops", PASSWORD)
    assert operators.check(right) == "ops"
    (tmp_path / "new").write_text(f"other:{HASH}\n")
    os.replace(tmp_path / "new", tmp_path / "users")
    assert operators.remembered(right) is None
    assert operators.check(right) is None
    assert operators.check(header("other", PASSWORD)) == "other"
    (tmp_path / "users").unlink()
    with pytest.raises(ApplianceError, match="APL-0503"):
        operators.check(right)


def test_who_was_taken_off_while_a_password_was_hashed_is_not_remembered(
    operators: Operators, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, real = header("ops", PASSWORD), PasswordHash.matches

    def matches(self: PasswordHash, password: bytes) -> bool:
        (tmp_path / "new").write_text(f"other:{HASH}\n")
        os.replace(tmp_path / "new", tmp_path / "users")
        # Another request reads the new file first.
        assert operators.remembered(right) is None
        return real(self, password)

    monkeypatch.setattr(PasswordHash, "matches", matches)
    assert operators.check(right) == "ops"
    assert operators.remembered(right) is None


def test_nor_who_was_taken_off_in_the_moment_of_remembering(
    operators: Operators, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check runs on a thread: the event loop may read a new file between any two of its steps."""
    right, real = header("ops", PASSWORD), Operators._fingerprint

    def fingerprint(self: Operators, name: str, password: bytes) -> bytes:
        monkeypatch.setattr(Operators, "_fingerprint", real)
        (tmp_path / "new").write_text(f"other:{HASH}\n")
        os.replace(tmp_path / "new", tmp_path / "users")
        assert operators.remembered(right) is None
        return real(self, name, password)

    monkeypatch.setattr(Operators, "_fingerprint", fingerprint)
    assert operators.check(right) == "ops"
    assert operators.remembered(right) is None


def test_an_empty_file_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("")
    operators = Operators(tmp_path / "users")
    for name in ("", "admin", "root", "ops"):
        for password in ("", "admin", "password", PASSWORD):
            assert operators.check(header(name, password)) is None


def test_what_is_remembered_is_bounded_and_no_password(operators: Operators, tmp_path: Path) -> None:
    lines = [f"u{number}:{HASH}" for number in range(auth._REMEMBERED + 5)]
    (tmp_path / "users").write_text("\n".join(lines))
    for number in range(len(lines)):
        assert operators.check(header(f"u{number}", PASSWORD)) == f"u{number}"
    right = operators._loaded[2]
    assert len(right) == auth._REMEMBERED
    assert all(PASSWORD.encode() not in key for key in right)
