"""The manual against the code: what is generated is current, every error has its page, nothing named is missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from appliance.cli.common import Renamed
from appliance.cli.main import main
from tests.docs import generate

ROOT = generate.ROOT
_TEXT = (".py", ".yml", ".yaml", ".j2", ".sh", ".cfg", "")
_CODE = ("appliance", "roles", "collections", "playbooks", "site.yml")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def markdown() -> list[Path]:
    top = [path for path in ROOT.glob("*.md") if path.is_file()]
    return sorted([*top, *(ROOT / "docs").rglob("*.md"), *ROOT.glob("roles/*/README.md")])


def code_files() -> Iterator[Path]:
    for name in _CODE:
        path = ROOT / name
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        yield from (file for file in files if file.suffix in _TEXT and "__pycache__" not in file.parts)


def ids_in_code() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in code_files():
        for code in set(generate.PAGE_ID.findall(file.read_text(encoding="utf-8", errors="replace"))):
            found.setdefault(code, []).append(str(file.relative_to(ROOT)))
    return found


def slug(heading: str) -> str:
    """An anchor as GitHub and most Markdown renderers make it."""
    text = re.sub(r"[`*]", "", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return {slug(line.lstrip("#")) for line in text.splitlines() if line.startswith("#")}


@pytest.mark.parametrize("name", list(generate.PAGES))
def test_generated_page_is_current(name: str) -> None:
    render: Callable[[Path], str] = generate.PAGES[name]
    assert (ROOT / name).read_text(encoding="utf-8") == render(ROOT), "run: python -m tests.docs.generate"


def test_every_id_in_the_code_has_a_page() -> None:
    used = ids_in_code()
    assert len(used) > 50, "the code was not found"
    without = {code: files for code, files in used.items() if code not in generate.runbooks(ROOT)}
    assert not without


def test_every_page_is_of_an_id_in_the_code() -> None:
    assert not sorted(set(generate.runbooks(ROOT)) - set(ids_in_code()))


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "runbooks").glob("*.md")), ids=lambda page: page.stem)
def test_runbook_page_has_its_form(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.match(rf"# {page.stem}: \S", text)
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    assert tuple(parts[1::2]) == generate.SECTIONS
    assert all(len(part.strip()) > 30 for part in parts[2::2]), "a section says nothing"


@pytest.mark.parametrize("context", list(generate.commands(main)), ids=lambda context: context.command_path)
def test_every_option_is_in_the_manual(context: click.Context) -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    section = text.split(f"## {context.command_path}\n", 1)[1].split("\n## ", 1)[0]
    for parameter in context.command.get_params(context):
        if isinstance(parameter, Renamed):
            assert parameter.opts[0] in section
            assert not any(old in section for old in parameter.opts[1:]), "an old name is not shown"
        elif isinstance(parameter, click.Option):
            assert all(option in section for option in parameter.opts)


def test_every_variable_is_in_the_manual() -> None:
    text = (ROOT / "docs" / "reference" / "variables.md").read_text(encoding="utf-8")
    for role in generate.roles(ROOT):
        for name in generate.role_options(role):
            assert f"| `{name}` |" in text


def test_every_role_has_an_argument_specification() -> None:
    assert {role.name for role in generate.roles(ROOT)} == {path.name for path in (ROOT / "roles").iterdir()}


@pytest.mark.parametrize("page", markdown(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", markdown(), ids=lambda page: str(page.relative_to(ROOT)))
def test_ids_that_a_page_names_have_pages(page: Path) -> None:
    assert not set(generate.PAGE_ID.findall(page.read_text(encoding="utf-8"))) - set(generate.runbooks(ROOT))


def test_every_page_can_be_found() -> None:
    """From the README's table, but for the runbooks, which the page of errors lists."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    errors = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    pages = sorted((ROOT / "docs").rglob("*.md"))
    assert len(pages) > 200
    for page in pages:
        name = page.relative_to(ROOT / "docs")
        if name.parts[0] == "runbooks":
            assert f"](../{name})" in errors, f"the page of errors does not lead to {name}"
        else:
            assert f"](docs/{name})" in readme, f"the README does not lead to {name}"


def test_make_targets_that_the_manual_names_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in markdown():
        named = set(re.findall(r"(?:`|^|\$ )make ([a-z][a-z-]*)", page.read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= targets, f"{page.name} names targets that the Makefile does not have"


def test_playbooks_that_the_manual_names_exist() -> None:
    for page in markdown():
        for name in re.findall(r"ansible-playbook (?:-\S+ \S+ )*([\w/-]+\.yml)", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_generator_notices_a_page_that_is_not_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "docs" / "reference" / "variables.md"
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "PAGES", {"docs/reference/variables.md": lambda _: "new\n"})
    assert generate.main(["--check"]) == 1
    assert not page.exists()
    assert generate.main([]) == 0
    assert page.read_text(encoding="utf-8") == "new\n"
    assert generate.main(["--check"]) == 0
    page.write_text("old\n", encoding="utf-8")
    assert generate.main(["--check"]) == 1
    assert generate.main(["--wrong"]) == 2
