"""The layout: which package may import which, and by which modules.

Docs: docs/explanation/architecture.md, "Which file?".
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.layers import LAYERS

ROOT = Path(__file__).parents[2]
APPLIANCE = ROOT / "appliance"

SERVER = {"gunicorn": {"server"}, "urllib3": {"peers"}, "flask": {"web", "registry", "peers", "agent", "server"}}
"""Libraries that only these packages may import."""


def modules() -> dict[str, Path]:
    """Every module of the appliance, by its dotted name."""
    found = {}
    for path in sorted(APPLIANCE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def part(module: str) -> str:
    """Package or top module that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(module: str) -> Iterator[str]:
    """Modules that a module imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module} line {node.lineno}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def edges() -> list[tuple[str, str]]:
    """Pairs of modules, the one that imports and the one that is imported, of different parts."""
    return [
        (module, other)
        for module in MODULES
        for other in imports(module)
        if other.startswith("appliance.") and part(other) != part(module)
    ]


def test_every_part_has_a_layer() -> None:
    listed = [name for layer in LAYERS for name in layer]
    assert sorted(listed) == sorted({part(module) for module in MODULES} - {"__init__"})


def test_no_import_goes_up_or_sideways() -> None:
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    wrong = [f"{module} -> {other}" for module, other in edges() if level[part(other)] >= level[part(module)]]
    assert wrong == []


def test_a_package_is_entered_by_its_door() -> None:
    wrong = []
    for module, other in edges():
        names = other.split(".")
        if len(names) == 3 and names[2] not in importlib.import_module(".".join(names[:2])).__all__:
            wrong.append(f"{module} -> {other}")
    assert wrong == []


@pytest.mark.parametrize(
    "package", sorted({name for name in MODULES if MODULES[name].name == "__init__.py"} - {"appliance"})
)
def test_a_door_is_as_narrow_as_it_can_be(package: str) -> None:
    outside = (
        {"__main__"}
        if package == "appliance.release"
        else {other.split(".")[-1] for _, other in edges() if other.startswith(f"{package}.")}
    )
    door = importlib.import_module(package).__all__
    assert door == sorted(door)
    if package != "appliance.release":  # A command of its own: python3 -m appliance.release.wheelhouse.
        assert set(door) == outside


def test_no_module_is_in_a_circle() -> None:
    """Within a package too."""
    graph = {module: {other for other in imports(module) if other in MODULES and other != module} for module in MODULES}
    while free := {module for module, others in graph.items() if not others & graph.keys()}:
        graph = {module: others for module, others in graph.items() if module not in free}
    assert graph == {}


@pytest.mark.parametrize("library", sorted(SERVER))
def test_a_library_is_known_to_few_packages(library: str) -> None:
    known = {
        part(module)
        for module in MODULES
        for other in imports(module)
        if other == library or other.startswith(f"{library}.")
    }
    assert known <= SERVER[library]
