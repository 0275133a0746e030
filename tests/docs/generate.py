"""Write the pages of ``docs/reference`` that follow from the code: variables, command line, errors, differences.

``python -m tests.docs.generate`` writes them; with ``--check`` it writes nothing and exits with 1 where one differs
from what it should be.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from appliance.errors import ERRORS
from tests.layers import LAYERS

ROOT = Path(__file__).resolve().parents[2]
PAGE_ID = re.compile(r"APL-\d{4}")
SECTIONS = ("Meaning", "Impact", "Diagnosis", "Mitigation")
_NOTE = "<!-- Made by `python -m tests.docs.generate`. Do not edit: change what it is made from. -->"
_HELP_COLUMNS = 100
_RANGES = (
    ("01", "Archives and media"),
    ("02", "Names, digests and manifests"),
    ("03", "Store and generations"),
    ("04", "Peers and agent"),
    ("05", "Registry"),
    ("06", "Configuration and certificates"),
    ("07", "Preflight, host and firewall"),
    ("08", "Registries and K3s"),
    ("09", "Verify"),
)


# ------------------------------------------------------------------------------------------- variables


def role_options(role: Path) -> dict[str, dict[str, Any]]:
    """Every option of a role, over all of its entry points, in the order of its argument specification.

    A default that the specification leaves out is taken from ``defaults/main.yml``.
    """
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    file = role / "defaults" / "main.yml"
    defaults = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}) if file.exists() else {}
    found: dict[str, dict[str, Any]] = {}
    for spec in specs.values():
        for name, option in (spec.get("options") or {}).items():
            known = dict(option)
            if "default" not in known and defaults.get(name) is not None:
                known["default"] = defaults[name]
            found.setdefault(name, known)
    return found


def roles(root: Path) -> list[Path]:
    """The roles that have an argument specification, by name."""
    return sorted(file.parent.parent for file in root.glob("roles/*/meta/argument_specs.yml"))


def variables(root: Path = ROOT) -> str:
    """``docs/reference/variables.md``."""
    lines = [
        "# Variables",
        "",
        _NOTE,
        "",
        "Set them in the inventory (`group_vars`, `host_vars`) or with `-e`. A name that no role knows is refused",
        "before anything is touched ([APL-0708](../runbooks/APL-0708.md)).",
        "",
        "Beside these: `ansible_host` (how Ansible reaches the host) and `node_ip` (the address by which other nodes",
        "reach it; `ansible_host` where it is not set). With `-e` alone, since Ansible reads them before it looks at any",
        "host: `confirm=yes`, which agrees to the plan beforehand, and `agents_at_once` (how many agents `site.yml` takes",
        "at a time, a number or a share; `20%`).",
        "",
    ]
    for role in roles(root):
        spec = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
        lines += [f"## {role.name}", "", _sentence(spec["main"]["short_description"]), ""]
        options = role_options(role)
        if not options:
            lines += ["No variables.", ""]
            continue
        lines += ["| name | type | default | meaning |", "|---|---|---|---|"]
        for name, option in options.items():
            lines.append(_row(name, option))
            lines += [_row(f"{name}[].{key}", part) for key, part in (option.get("options") or {}).items()]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _row(name: str, option: dict[str, Any]) -> str:
    return f"| `{name}` | {_type(option)} | {_default(option)} | {_text(option.get('description', ''))} |"


def _type(option: dict[str, Any]) -> str:
    kind = str(option.get("type", "str"))
    if option.get("elements"):
        kind += f" of {option['elements']}"
    if option.get("choices"):
        kind += ": " + ", ".join(f"`{choice}`" for choice in option["choices"])
    return kind


def _default(option: dict[str, Any]) -> str:
    if option.get("required"):
        return "required"
    if "default" not in option:
        return ""
    value = option["default"]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{_cell(text)}`" if text else '`""`'


def _text(description: str | list[str]) -> str:
    text = " ".join(description) if isinstance(description, list) else description
    # Ansible's own markup: C(code), V(value), O(option).
    return _cell(re.sub(r"\b[CVO]\(([^)]*)\)", r"`\1`", text))


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# ---------------------------------------------------------------------------------------- command line


def commands(command: click.Command, parent: click.Context | None = None) -> Iterator[click.Context]:
    """A context for each command of a tree, a group before what is in it; what its ``--help`` is made of."""
    name = "appliance" if parent is None else command.name
    context = click.Context(command, info_name=name, parent=parent, terminal_width=_HELP_COLUMNS, **_settings(command))
    yield context
    if isinstance(command, click.Group):
        for key in command.list_commands(context):
            found = command.get_command(context, key)
            if found is not None and not found.hidden:
                yield from commands(found, context)


def _settings(command: click.Command) -> dict[str, Any]:
    return {key: value for key, value in command.context_settings.items() if key == "help_option_names"}


def command_line(root: Path = ROOT) -> str:
    """``docs/reference/cli.md``."""
    from appliance.cli.main import main

    lines = [
        "# Command line",
        "",
        _NOTE,
        "",
        "On a node the command is `/opt/appliance/current/venv/bin/appliance`. Results go to standard output, errors",
        "to standard error as one line with an id ([errors](errors.md)). With `--json` the result is one document, and",
        "an error is followed by a second line:",
        '`{"message_type": "exit_error", "code", "what", "where", "why", "fix"}`.',
        "See also [exit codes](exit-codes.md). `status`, and what reads a key, needs root or the user `appliance`.",
        "",
    ]
    for context in commands(main):
        lines += [f"## {context.command_path}", "", "```text", context.get_help().rstrip(), "```", ""]
    return "\n".join(line.rstrip() for line in "\n".join(lines).rstrip().splitlines()) + "\n"


# ---------------------------------------------------------------------------------------------- errors


def runbooks(root: Path = ROOT) -> dict[str, str]:
    """Id to title of every runbook page; the title is the page's first line without ``# APL-0000:``."""
    found = {}
    for page in sorted((root / "docs" / "runbooks").glob("APL-*.md")):
        first = page.read_text(encoding="utf-8").splitlines()[0]
        found[page.stem] = first.removeprefix(f"# {page.stem}:").strip()
    return found


def headings(root: Path = ROOT) -> dict[Path, str]:
    """Text that each runbook page should have: its own, below the title that the table of errors has for it."""
    found = {}
    for page in sorted((root / "docs" / "runbooks").glob("APL-*.md")):
        code, kind = page.stem, ERRORS.get(page.stem)
        if kind is None:
            continue  # An id of a playbook.
        _, _, rest = page.read_text(encoding="utf-8").partition("\n")
        found[page] = f"# {code}: {kind.title}\n{rest}"
    return found


def errors(root: Path = ROOT) -> str:
    """``docs/reference/errors.md``."""
    lines = [
        "# Errors",
        "",
        _NOTE,
        "",
        "Every error that the appliance raises on purpose is one line: `APL-0107: what [where]: why. What to do.` The",
        "id stays the same over releases. Its page says what it means, what is and is not affected, where to look and",
        "what to do.",
        "",
    ]
    pages = runbooks(root)
    pages |= {code: kind.title for code, kind in ERRORS.items() if code in pages}
    for prefix, title in _RANGES:
        rows = {code: what for code, what in pages.items() if code.startswith(f"APL-{prefix}")}
        if rows:
            lines += [f"## {prefix}xx: {title}", "", "| id | what |", "|---|---|"]
            lines += [f"| [{code}](../runbooks/{code}.md) | {_cell(what)} |" for code, what in rows.items()]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


# --------------------------------------------------------------------------------------------- modules


def modules(root: Path = ROOT) -> str:
    """``docs/reference/modules.md``: every module of the appliance with the first line of its docstring."""
    lines = [
        "# Modules",
        "",
        _NOTE,
        "",
        "Packages from the bottom to the top: each imports only packages above it in this list, and only the modules in **bold**",
        "of another package. `tests/unit/test_layout.py` holds both. [Architecture](../explanation/architecture.md) explains them.",
        "",
    ]
    for layer in LAYERS:
        for name in layer:
            if name == "__main__":
                continue
            package = root / "appliance" / name
            if package.is_dir():
                door = importlib.import_module(f"appliance.{name}").__all__
                lines += [
                    f"## {name}",
                    "",
                    _cell(_first_line(package / "__init__.py")),
                    "",
                    "| module | what it is |",
                    "|---|---|",
                ]
                for path in sorted(package.glob("*.py")):
                    if path.name != "__init__.py":
                        shown = f"**{path.stem}**" if path.stem in door else path.stem
                        lines.append(f"| {shown} | {_cell(_first_line(path))} |")
                lines.append("")
    lines += ["## Modules without a package", "", "| module | what it is |", "|---|---|"]
    lines += [
        f"| **{path.stem}** | {_cell(_first_line(path))} |"
        for path in sorted((root / "appliance").glob("*.py"))
        if not path.stem.startswith("__")
    ]
    return "\n".join(lines) + "\n"


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text.partition("\n")[0]).replace("``", "`")


# ----------------------------------------------------------------------------------------- differences


def differences(root: Path = ROOT) -> str:
    """``docs/reference/differences.md``."""
    from tests.integration.differential.page import render

    return render(_NOTE)


PAGES: dict[str, Callable[[Path], str]] = {
    "docs/reference/variables.md": variables,
    "docs/reference/cli.md": command_line,
    "docs/reference/errors.md": errors,
    "docs/reference/differences.md": differences,
    "docs/reference/modules.md": modules,
}
"""Path of each generated page, from the top of the repository, to what renders it."""


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` only compare; returns the exit code."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m tests.docs.generate [--check]", file=sys.stderr)
        return 2
    differing = 0
    wanted = headings(ROOT)
    wanted |= {ROOT / name: render(ROOT) for name, render in PAGES.items()}
    for path, text in wanted.items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if arguments:
            differing += 1
            print(
                f"{path.relative_to(ROOT)} is not what the code says: run python -m tests.docs.generate",
                file=sys.stderr,
            )
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
