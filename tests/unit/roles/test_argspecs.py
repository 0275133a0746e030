"""Every role's inputs are declared once: argument specification, defaults and README agree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/tasks/main.yml"))
_TEMPLATED = re.compile(r"\{[{%]")


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _options(role: Path) -> dict[str, dict[str, Any]]:
    specs = _load(role / "meta/argument_specs.yml")["argument_specs"]
    return {name: option for entry in specs.values() for name, option in (entry.get("options") or {}).items()}


def _defaults(role: Path) -> dict[str, Any]:
    path = role / "defaults/main.yml"
    return (_load(path) or {}) if path.exists() else {}


def test_there_are_roles() -> None:
    assert {"preflight", "host", "firewall"} <= {role.name for role in ROLES}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_specification_and_defaults_have_the_same_names(role: Path) -> None:
    options = _options(role)
    required = {name for name, option in options.items() if option.get("required")}
    assert set(options) - required <= set(_defaults(role)) <= set(options)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_specification_and_defaults_have_the_same_values(role: Path) -> None:
    options = _options(role)
    for name, value in _defaults(role).items():
        # A default that is computed, or that stands for "nothing", may be left to the description's words.
        may_be_left_out = bool(_TEMPLATED.search(str(value))) or value in (None, "", [], {})
        assert options[name].get("default", value if may_be_left_out else None) == value, name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_names_carry_the_role_and_have_a_description(role: Path) -> None:
    for name, option in _options(role).items():
        assert name.startswith(f"{role.name}_"), name
        assert option.get("description"), f"{name} has no description"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_readme_names_every_variable(role: Path) -> None:
    readme = (role / "README.md").read_text(encoding="utf-8")
    missing = [name for name in _options(role) if f"`{name}`" not in readme]
    assert not missing


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_internal_names_are_marked(role: Path) -> None:
    """What a role registers or sets leaks to later roles, so it carries the role's name behind two underscores."""
    for path in [*role.glob("tasks/*.yml"), *role.glob("vars/*.yml")]:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"^\s*register: (\S+)", text, re.MULTILINE):
            assert name.startswith(f"__{role.name}_"), f"{path.name}: {name}"
        if path.parent.name == "vars":
            assert all(name.startswith(f"__{role.name}_") for name in (_load(path) or {})), path.name
