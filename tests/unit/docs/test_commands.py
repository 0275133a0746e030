"""Commands of the manual: the real parsers take each one, and the table names the test that runs it."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import click
import pytest
import yaml

from appliance.cli.main import main
from tests.docs import generate
from tests.docs.commands import Line, manual, pages
from tests.docs.covered import NODE, REASONS, TESTS, filled_in, is_covered, lines_of, patterns
from tests.docs.page import shown_files, typed_commands

ROOT = generate.ROOT
LINES = manual()
_ON_THE_COMMAND_LINE = {"confirm", "agents_at_once"}
"""Variables that no role has: playbooks read them where Ansible does not look into the inventory."""
_OPTIONS = {"--check": 0, "--diff": 0, "--limit": 1, "--tags": 1, "-e": 1}
"""Options of ansible-playbook that the manual uses, with how many words follow."""


def test_there_is_a_manual() -> None:
    assert len(LINES) > 500
    assert {"README.md", "Makefile", "docs/tutorial/first-site.md"} <= {line.page for line in LINES}


def test_each_line_is_run_by_a_test_or_has_a_reason() -> None:
    assert sorted({f"{line.text}  ({line.page})" for line in LINES if not is_covered(line)}) == []


@pytest.mark.parametrize("pattern", patterns())
def test_each_pattern_of_the_table_fits_a_line(pattern: str) -> None:
    assert lines_of([pattern])


@pytest.mark.parametrize("test", sorted(set(TESTS.values())))
def test_each_test_of_the_table_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_reason_says_something() -> None:
    assert all(len(reason) >= len("named, not typed") for reason in REASONS.values())
    # Where it leads elsewhere, that is there.
    for path in re.findall(r"tests/[\w/]+\.py", " ".join(REASONS.values())):
        assert (ROOT / path).exists(), path


def _once(lines: Iterable[Line]) -> list[Line]:
    """Each text once: as typed, where a page has it so."""
    return list({line.text: line for line in sorted(lines, key=lambda line: line.is_typed)}.values())


@pytest.mark.parametrize("line", _once(line for line in LINES if line.of_the_appliance), ids=lambda line: line.text)
def test_the_command_line_takes_it(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of what stands in a block; in running text an argument may be left out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users").touch()  # what the line before it on the page writes
    for words in line.of_the_appliance:
        if re.fullmatch(r"appliance (enroll|stage)", line.text):
            assert words[0] not in main.commands, "it is there now, and the manual calls it missing"
            continue
        command: click.Command = main
        # A command remembers its options for help from the first context that it is given.
        parent = click.Context(
            main, info_name="appliance", help_option_names=main.context_settings["help_option_names"]
        )
        rest = [filled_in(word) for word in words]
        while isinstance(command, click.Group) and rest != ["--version"]:
            assert rest[0] in command.commands, line.text
            command, rest = command.commands[rest[0]], rest[1:]
        try:
            command.make_context(command.name, rest, parent=parent)
        except click.exceptions.Exit:
            assert words[-1] == "--version"
        except click.MissingParameter:
            assert not line.is_typed, f"{line.page}: {line.text} lacks an argument"


def _known_variables() -> set[str]:
    return _ON_THE_COMMAND_LINE.union(*(generate.role_options(role) for role in generate.roles(ROOT)))


@pytest.mark.parametrize("line", _once(line for line in LINES if line.of_ansible_playbook), ids=lambda line: line.text)
def test_playbooks_take_it(line: Line) -> None:
    for words in line.of_ansible_playbook:
        if words[0].startswith("-"):
            assert not line.is_typed, f"{line.page}: {line.text} lacks a playbook"
            continue
        assert (ROOT / words[0]).is_file()
        rest = words[1:]
        while rest:
            option, *rest = rest
            assert option in _OPTIONS, option
            value, rest = rest[: _OPTIONS[option]], rest[_OPTIONS[option] :]
            assert len(value) == _OPTIONS[option]
            if option == "-e":
                assert set(_variables(value[0])) <= _known_variables(), value[0]


def _variables(text: str) -> list[str]:
    return list(json.loads(text)) if text.startswith("{") else [text.partition("=")[0]]


def test_extra_variables_in_running_text_are_known() -> None:
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for text in re.findall(r"`-e ('[^']+'|[^\s`']+)`", page.read_text(encoding="utf-8")):
            assert set(_variables(shlex.split(text)[0])) <= _known_variables(), f"{page.name}: {text}"


@pytest.mark.parametrize(
    "page", sorted({ROOT / line.page for line in LINES if line.page.startswith("docs/")}), ids=lambda page: page.stem
)
def test_a_page_says_where_the_command_lies_before_it_types_it(page: Path) -> None:
    """``appliance`` is in nobody's path: neither on a node nor in a checkout."""
    ready = False
    for line in typed_commands(page):
        ready = ready or bool(re.fullmatch(r"PATH=/opt/appliance/current/venv/bin:\$PATH|\. \.venv/bin/activate", line))
        assert ready or not line.startswith("appliance "), line


def test_yaml_that_pages_show_is_yaml() -> None:
    for page in pages():
        for text in shown_files(page):
            yaml.safe_load(text)


def test_examples_stand_where_the_reader_fills_in() -> None:
    left = [filled_in(line, FILE="f.tar", hex="0" * 64, version="1") for line in lines_of(NODE)]
    assert [line for line in left if re.search(r"<[a-z]|\{(hex|version)\}|…", line)] == []
