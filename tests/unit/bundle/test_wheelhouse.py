"""The wheelhouse: what decides that one is kept, what goes into its requirements, and the locks it is made from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from appliance.bundle import wheelhouse
from appliance.errors import ApplianceError

ROOT = Path(__file__).resolve().parents[3]
LOCKS = sorted(ROOT.glob("requirements/*.txt"))


def _wheel(directory: Path, name: str, version: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            f"{name}-{version}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText: x\n",
        )
    return path


def test_the_requirements_hold_the_hash_of_each_wheel_and_leave_pip_out(tmp_path: Path) -> None:
    wheels = [_wheel(tmp_path, "zope.event", "6.2"), _wheel(tmp_path, "Flask", "3.1"), _wheel(tmp_path, "pip", "26.3")]
    text = wheelhouse.requirements_text(wheelhouse.wheel_entry(wheel) for wheel in wheels)
    digests = [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels]
    assert text == f"Flask==3.1 --hash=sha256:{digests[1]}\nzope.event==6.2 --hash=sha256:{digests[0]}\n"


def _made(directory: Path, inputs: dict[str, str]) -> None:
    _wheel(directory / "wheelhouse", "x", "1")
    manifest = {"inputs": inputs, "files": wheelhouse.file_digests(directory)}
    (directory / wheelhouse.MANIFEST).write_text(json.dumps(manifest))


def test_a_wheelhouse_is_kept_only_if_it_is_whole_and_made_from_the_same(tmp_path: Path) -> None:
    inputs = {"python": "3.11", "requirements/runtime.txt": "00"}
    assert not wheelhouse.is_current(tmp_path, inputs)
    _made(tmp_path, inputs)
    assert wheelhouse.is_current(tmp_path, inputs)
    assert not wheelhouse.is_current(tmp_path, {**inputs, "python": "3.12"})
    wheel = next((tmp_path / "wheelhouse").iterdir())
    content = wheel.read_bytes()
    wheel.write_bytes(content[:-1] + b"?")
    assert not wheelhouse.is_current(tmp_path, inputs)
    wheel.write_bytes(content)
    assert wheelhouse.is_current(tmp_path, inputs)
    wheel.unlink()
    assert not wheelhouse.is_current(tmp_path, inputs)


def test_one_that_is_current_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it ran a program")

    monkeypatch.setattr(wheelhouse, "_run", never)
    _made(tmp_path / "made", wheelhouse._inputs("3.11", "x86_64"))
    wheelhouse.build_wheelhouse(tmp_path / "made")


def test_a_failed_build_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    _made(tmp_path / "made", {"of": "another time"})
    before = wheelhouse.file_digests(tmp_path / "made")
    with pytest.raises(ApplianceError) as caught:
        wheelhouse.build_wheelhouse(tmp_path / "made")
    assert caught.value.code == "APL-0791"
    assert wheelhouse.file_digests(tmp_path / "made") == before
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_an_installed_appliance_says_that_it_cannot_build_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheelhouse, "ROOT", tmp_path)
    with pytest.raises(ApplianceError) as caught:
        wheelhouse.build_wheelhouse(tmp_path / "made")
    assert caught.value.code == "APL-0790"


def test_another_machine_is_described_whole() -> None:
    options = wheelhouse._target("3.12", "aarch64")
    assert options[:4] == ["--python-version", "3.12", "--implementation", "cp"]
    assert "--platform=manylinux_2_28_aarch64" in options
    assert options[-6:] == ["--abi", "cp312", "--abi", "abi3", "--abi", "none"]


def _pins(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)", line)
        if match:
            found[canonicalize_name(match[1])] = match[2]
    return found


def test_there_is_a_lock_for_each_purpose() -> None:
    assert [path.stem for path in LOCKS] == ["build", "controller", "dev", "fuzz", "runtime"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_line_of_a_lock_has_a_hash_and_none_names_a_server(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "//" not in text
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_holds_all_that_its_inputs_ask_for(lock: Path) -> None:
    pins = _pins(lock)
    for line in lock.with_suffix(".in").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "-")):
            asked = Requirement(line)
            assert asked.specifier.contains(pins[canonicalize_name(asked.name)]), line


def test_what_a_node_runs_is_what_the_controller_and_the_tests_run() -> None:
    runtime = _pins(ROOT / "requirements/runtime.txt")
    for name in ("controller", "dev"):
        pins = _pins(ROOT / f"requirements/{name}.txt")
        assert {key: pins.get(key, version) for key, version in runtime.items()} == runtime, name


def test_the_runtime_lock_is_closed_and_covers_the_project() -> None:
    """It is installed with --no-deps, so whatever a package needs has to be named."""
    pins = _pins(ROOT / "requirements/runtime.txt")
    for name in pins:
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in pins, f"{name} needs {text}"
