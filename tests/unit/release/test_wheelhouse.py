"""Builds of the wheelhouse: from a fresh checkout and a local index, what keeps one, and the locks it is made from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from appliance.errors import ApplianceError
from appliance.release import wheelhouse

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


def test_a_package_with_a_wheel_for_each_python_is_one_line() -> None:
    entries = [("cffi", "2.1", "bb"), ("cffi", "2.1", "aa"), ("Brotli", "1", "cc")]
    assert wheelhouse.requirements_text(entries) == (
        "Brotli==1 --hash=sha256:cc\ncffi==2.1 --hash=sha256:aa --hash=sha256:bb\n"
    )


def _made(directory: Path, inputs: dict[str, str]) -> None:
    _wheel(directory / "wheelhouse", "x", "1")
    (directory / "requirements.txt").touch()
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
    _made(tmp_path / "made", wheelhouse._inputs(wheelhouse.PYTHONS, ["x86_64"]))
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


def _installable(directory: Path, name: str, version: str, files: dict[str, str]) -> str:
    """Make a wheel that pip takes, and return its line for a lock."""
    info = f"{name}-{version}.dist-info"
    texts = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in texts.items():
            archive.writestr(member, text)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


SETUPTOOLS = """
import pathlib, sys, zipfile

def build_wheel(directory):
    assert pathlib.Path("pyproject.toml").is_file(), "not in the source"
    name = "k3s_airgap_appliance-9.9-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory) / name, "w") as archive:
        archive.writestr("k3s_airgap_appliance-9.9.dist-info/METADATA", "Name: k3s-airgap-appliance\\nVersion: 9.9\\n\\n")
    return name
"""
COMMAND = ["-m", "appliance.release.wheelhouse", "build/wheelhouse"]


class Checkout:
    """A fresh copy of what the command needs, with locks of three small wheels that lie in a directory."""

    def __init__(self, root: Path, setuptools: str = SETUPTOOLS) -> None:
        self.root = root / "checkout"
        self.index = root / "index"
        self.index.mkdir(parents=True)
        (self.root / "requirements").mkdir(parents=True)
        shutil.copytree(ROOT / "appliance", self.root / "appliance", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy2(ROOT / name, self.root)
        runtime = _installable(self.index, "held", "1.0", {"held.py": ""})
        build = _installable(self.index, "pip", "26.3", {"pip/__init__.py": ""})
        build += _installable(
            self.index, "setuptools", "80.0", {"setuptools/__init__.py": "", "setuptools/build_meta.py": setuptools}
        )
        (self.root / "requirements/runtime.txt").write_text(runtime)
        (self.root / "requirements/build.txt").write_text(build)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command of the README in the checkout, for one Python unless the arguments are given."""
        environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index), **variables}
        environment.pop("PYTHONPATH", None)
        argv = [sys.executable, *(arguments or (*COMMAND, "--python", "3.11"))]
        return subprocess.run(argv, cwd=self.root, env=environment, capture_output=True, text=True, check=False)

    def wheels(self) -> list[str]:
        """Return the names of the wheels that were made."""
        return sorted(path.name for path in (self.root / "build/wheelhouse/wheelhouse").iterdir())


WHEELS = ["held-1.0-py3-none-any.whl", "k3s_airgap_appliance-9.9-py3-none-any.whl", "pip-26.3-py3-none-any.whl"]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_command_of_the_readme_works_in_a_fresh_checkout(checkout: Checkout) -> None:
    done = checkout.run(*COMMAND)
    assert (done.returncode, done.stdout) == (
        0,
        "The wheelhouse is in build/wheelhouse: Python 3.10, 3.11, 3.12, 3.13\n",
    ), done.stderr
    assert checkout.wheels() == WHEELS
    lines = (checkout.root / "build/wheelhouse/requirements.txt").read_text().splitlines()
    assert [line.split("==")[0] for line in lines] == ["held", "k3s-airgap-appliance"]
    assert [path.name for path in (checkout.root / "build").iterdir()] == ["wheelhouse"]
    # What is there is enough for the next build, with another target and without any index.
    shutil.rmtree(checkout.index)
    again = checkout.run(*COMMAND, "--python", "3.13.1", "--python", "3.11", "--arch", "aarch64")
    assert (again.returncode, again.stdout.split(": ")[1]) == (0, "Python 3.11, 3.13\n"), again.stderr
    assert checkout.wheels() == WHEELS


def test_settings_of_this_machine_do_not_reach_the_build(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "setuptools.py").write_text("raise SystemExit('the wrong setuptools')")
    (tmp_path / "pip.conf").write_text("[global]\nuser = true\ntarget = /nonexistent\nrequire-virtualenv = true\n")
    done = checkout.run(
        PIP_CONFIG_FILE=str(tmp_path / "pip.conf"), PYTHONUSERBASE=str(tmp_path), PYTHONWARNINGS="error"
    )
    assert done.returncode == 0, done.stderr
    assert checkout.wheels() == WHEELS


def test_a_build_without_the_appliances_own_wheel_fails(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, setuptools="def build_wheel(directory):\n    return 'elsewhere'\n")
    done = checkout.run()
    assert done.returncode == 1
    assert (
        "APL-0791: cannot make the wheelhouse: the appliance's own wheel: setuptools ended well and left none"
        in done.stderr
    )
    assert not (checkout.root / "build/wheelhouse").exists()


def test_a_failure_of_the_build_itself_does_not_blame_the_connection(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, setuptools="raise SystemExit('no such file')\n")
    done = checkout.run()
    assert (done.returncode, "no such file" in done.stderr, "internet" in done.stderr) == (1, True, False), done.stderr


def test_a_python_without_pip_makes_itself_one(checkout: Checkout) -> None:
    done = checkout.run("-S", *COMMAND, "--python", "3.11")
    assert done.returncode == 0, done.stderr
    assert checkout.wheels() == WHEELS


def test_a_missing_pip_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ApplianceError) as caught:
        wheelhouse.build_wheelhouse(tmp_path / "made")
    assert str(caught.value).startswith("APL-0753: pip is missing [/bin/false]: it fetches the wheels")


def test_a_destination_with_something_else_in_it_is_refused(checkout: Checkout) -> None:
    (checkout.root / "build/wheelhouse").mkdir(parents=True)
    for name in ("build", "appliance", "pyproject.toml"):
        done = checkout.run("-m", "appliance.release.wheelhouse", name)
        assert (done.returncode, done.stderr[:8]) == (1, "APL-0754"), name
    assert checkout.run().returncode == 0


def test_a_place_that_cannot_be_written_is_named(checkout: Checkout) -> None:
    done = checkout.run("-m", "appliance.release.wheelhouse", "pyproject.toml/wheelhouse")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "APL-0791" in done.stderr and "pyproject.toml" in done.stderr and "Not a directory" in done.stderr


@pytest.mark.parametrize("version", ["3", "311", "3.9", "newest"])
def test_a_python_version_that_is_none_is_refused(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        wheelhouse.main(["build/wheelhouse", "--python", version])
    assert version in capsys.readouterr().err


def test_a_killed_build_is_finished_by_the_next_one(checkout: Checkout) -> None:
    assert checkout.run().returncode == 0
    build = checkout.root / "build"
    # As a power loss between the two renames leaves it.
    (build / ".wheelhouse.new/made").mkdir(parents=True)
    (build / "wheelhouse").rename(build / ".wheelhouse.new/old")
    shutil.rmtree(checkout.index)
    assert checkout.run().returncode == 0
    assert checkout.wheels() == WHEELS
    assert [path.name for path in build.iterdir()] == ["wheelhouse"]


def test_two_builds_at_once_do_not_disturb_each_other(checkout: Checkout) -> None:
    with wheelhouse._work_directory(checkout.root / "build/wheelhouse"):
        done = checkout.run()
    assert (done.returncode, "another build of this wheelhouse is running" in done.stderr) == (1, True), done.stderr
    assert checkout.run().returncode == 0


def test_an_interrupted_build_says_so_and_leaves_what_was_there(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, "import os, signal\nos.kill(os.getppid(), signal.SIGINT)\nsignal.pause()\n")
    _made(checkout.root / "build/wheelhouse", {"of": "another time"})
    done = checkout.run()
    assert (done.returncode, done.stderr) == (130, "Interrupted. build/wheelhouse is what it was before.\n")
    assert checkout.wheels() == ["x-1-py3-none-any.whl"]
    assert [path.name for path in (checkout.root / "build").iterdir()] == ["wheelhouse"]


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
