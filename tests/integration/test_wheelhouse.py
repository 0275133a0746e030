"""The wheelhouse, built by the words of README and tutorial with the distribution's Python, from the real index."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_COMMAND = re.compile(r"^(python3 -m appliance\.release\.wheelhouse .*?)(?:\s+#.*)?$", re.MULTILINE)


def _commands() -> list[str]:
    pages = (ROOT / "README.md", ROOT / "docs/tutorial/first-site.md")
    return sorted({command for page in pages for command in _COMMAND.findall(page.read_text(encoding="utf-8"))})


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what is in the repository, and nothing that was built."""
    copy = tmp_path_factory.mktemp("fresh") / "checkout"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        if name.startswith(("appliance/", "requirements/", "pyproject", "README", "LICENSE")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.mark.parametrize("command", _commands())
def test_a_command_of_the_manual_builds_a_whole_wheelhouse(command: str, checkout: Path) -> None:
    argv = ["/usr/bin/python3", *shlex.split(command)[1:]]
    done = subprocess.run(argv, cwd=checkout, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    wheels = {path.name for path in (checkout / "build/wheelhouse/wheelhouse").iterdir()}
    # Debian 12 and 13 run Python 3.11 and 3.13.
    for tag in ("py3-none", "cp311-cp311", "cp313-cp313"):
        assert any(tag in name for name in wheels), tag
    assert any(name.startswith("k3s_airgap_appliance-") for name in wheels)


def test_the_manual_has_the_command() -> None:
    assert _commands()
