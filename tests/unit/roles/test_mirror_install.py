"""An installation of a release into a real virtual environment, on a host with settings of its own for pip and Python."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from ansible_collections.site.appliance.plugins.action import release as action
from ansible_collections.site.appliance.plugins.module_utils import releases

VERSION = "1.0"


def _wheel(directory: Path) -> str:
    """Make a wheel of one module and return its line for requirements.txt."""
    info = "held-1.0.dist-info"
    files = {
        "held.py": "VALUE = 1\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: held\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    path = directory / "held-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return f"held==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack a wheelhouse of one small wheel and of the pip that runs these tests, as a wheel."""
    house = tmp_path_factory.mktemp("house")
    wheels = house / "wheelhouse"
    wheels.mkdir()
    (house / "requirements.txt").write_text(_wheel(wheels), encoding="utf-8")
    packages = Path(sysconfig.get_paths()["purelib"])
    with zipfile.ZipFile(wheels / "pip-1-py3-none-any.whl", "w") as pip:
        for path in sorted((packages / "pip").rglob("*.py")) + sorted((packages / "pip").rglob("*.pem")):
            pip.write(path, path.relative_to(packages).as_posix())
    action.pack(house, house / "wheelhouse.tar")
    return house / "wheelhouse.tar"


SETTINGS = {
    "user": "user = true",
    "places": "target = /nonexistent/target\nprefix = /nonexistent/prefix\nroot = /nonexistent/root\nrequire-virtualenv = true",
    "sources": "no-binary = :all:\nindex-url = http://127.0.0.1:9/simple\nextra-index-url = http://127.0.0.1:9/more\n"
    "platform = win32\nconstraint = /nonexistent/constraints.txt\ndry-run = true\nbreak-system-packages = false",
    "unreadable": "user: maybe = [",
}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS.keys())
def test_no_setting_of_the_host_reaches_the_installation(
    setting: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"[global]\n{setting}\n"
    # A file that pip reads like /etc/pip.conf, which only root can write: it appears in the environment as this is made.
    (tmp_path / "pip.conf").write_text(text, encoding="utf-8")
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n{sys.executable} "$@" && for last; do :; done && cp {tmp_path}/pip.conf "$last/pip.conf"\n',
        encoding="utf-8",
    )
    python.chmod(0o755)
    for place in (".config/pip/pip.conf", ".pip/pip.conf", "pip/pip.conf"):
        (tmp_path / "home" / place).parent.mkdir(parents=True)
        (tmp_path / "home" / place).write_text(text, encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    for line in setting.splitlines():
        name, _, value = line.partition(" = ")
        monkeypatch.setenv("PIP_" + name.upper().replace("-", "_"), value)
    _install(archive, tmp_path, str(python))


PYTHON = {
    "PYTHONPATH": "home",
    "PYTHONHOME": "/nonexistent",
    "PYTHONUSERBASE": "home",
    "PYTHONPLATLIBDIR": "odd",
    "PYTHONSTARTUP": "home/pip.py",
    "VIRTUAL_ENV": "/nonexistent",
    "PIP_USER": "1",
}


def test_no_variable_of_the_caller_reaches_the_installation(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    for module in ("pip", "venv", "held", "sitecustomize"):
        (tmp_path / "home" / f"{module}.py").write_text("raise SystemExit('the wrong module')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "home")
    for name, value in PYTHON.items():
        monkeypatch.setenv(name, value)
    _install(archive, tmp_path, sys.executable)


def _install(archive: Path, tmp_path: Path, python: str) -> None:
    """Install, and import what was installed."""
    root, work = tmp_path / "root", tmp_path / "work"
    work.mkdir()
    releases.install(root, VERSION, {"digest": "0" * 64, "python": python, "minor": "3"}, archive, work)
    held = root / "releases" / VERSION / "venv/bin/python"
    done = subprocess.run(
        [held, "-I", "-c", "import held; print(held.__file__)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(root)), done.stdout
