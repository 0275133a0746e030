"""The systemd units: no key that systemd does not know, and a sandbox that systemd itself calls tight."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader

from appliance import bounds

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "roles/mirror/templates"
UNITS = ("agent", "mirror", "peer")
#: Ten times what ``systemd-analyze security`` may say at most.
EXPOSURE = 15


def _render(name: str) -> str:
    # As Ansible's template lookup renders: the line end after a tag is dropped, the one at the end of the file is kept.
    environment = Environment(loader=FileSystemLoader(TEMPLATES), trim_blocks=True, keep_trailing_newline=True)
    return environment.get_template(f"appliance-{name}.service.j2").render(mirror_memory_high="2G")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with the units and the program that they start."""
    directory = tmp_path / "etc/systemd/system"
    directory.mkdir(parents=True)
    for unit in UNITS:
        (directory / f"appliance-{unit}.service").write_text(_render(unit))
    program = tmp_path / "opt/appliance/current/venv/bin/appliance"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    return tmp_path


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is missing: apt install systemd"
    return subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )


@pytest.mark.parametrize("unit", UNITS)
def test_the_sandbox_is_tight(root: Path, unit: str) -> None:
    file = f"appliance-{unit}.service"
    done = _analyze("security", "--offline=true", f"--root={root}", f"--threshold={EXPOSURE}", "--no-pager", file)
    assert done.returncode == 0, done.stdout.splitlines()[-1:]


def test_the_bound_on_the_sandbox_bites(root: Path) -> None:
    unit = root / "etc/systemd/system/appliance-mirror.service"
    unit.write_text(
        unit.read_text()
        .replace("PrivateUsers=true\n", "")
        .replace("ProtectProc=invisible\n", "")
        .replace("CapabilityBoundingSet=\n", "")
    )
    done = _analyze("security", "--offline=true", f"--root={root}", f"--threshold={EXPOSURE}", "--no-pager", unit.name)
    assert done.returncode != 0


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_knows_every_key(root: Path, unit: str) -> None:
    file = root / f"etc/systemd/system/appliance-{unit}.service"
    # The program stands elsewhere on this machine, and units of the host itself do not matter here.
    file.write_text(file.read_text().replace("/opt/appliance/current/venv/bin/appliance", sys.executable))
    done = _analyze("verify", "--man=no", "--recursive-errors=no", str(file))
    own = [line for line in (done.stdout + done.stderr).splitlines() if file.name in line]
    assert not own


@pytest.mark.parametrize("unit", UNITS)
def test_each_line_holds_one_setting(unit: str) -> None:
    """An include that swallows a line end would join two settings, and systemd would take the second for a value."""
    lines = [line for line in _render(unit).splitlines() if line and not line.startswith(("#", "["))]
    for line in lines:
        key, _, value = line.partition("=")
        assert key.isalpha(), line
        assert key == "Environment" or "=" not in value, line
    settings = dict(line.split("=", 1) for line in lines)
    assert settings["Environment"] == "PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1"


def test_systemd_waits_longer_than_a_service_takes_to_stop_and_keeps_its_listener() -> None:
    for unit in ("mirror", "peer"):
        lines = _render(unit).splitlines()
        assert "FileDescriptorStoreMax=1" in lines
        (patience,) = (int(line.partition("=")[2]) for line in lines if line.startswith("TimeoutStopSec="))
        # What gunicorn's parent gives its workers, and what it takes itself.
        assert patience > bounds.PUSH_GRACE_SECONDS + 5 + 2
        assert "KillMode=" not in "".join(lines), "every process is told at once"


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_comes_back_for_ever_and_needs_nothing(unit: str) -> None:
    lines = _render(unit).splitlines()
    for wanted in (
        "Restart=always",
        "RestartSec=1",
        "StartLimitIntervalSec=0",
        "WatchdogSec=7",
        "Type=notify",
        "User=appliance",
        "StateDirectory=appliance",
        "Before=k3s.service k3s-agent.service",
        f"ExecStart=/opt/appliance/current/venv/bin/appliance unit {unit}",
    ):
        assert wanted in lines, wanted
    assert not [line for line in lines if line.startswith(("Requires=", "Wants=", "BindsTo=", "Requisite="))]
    assert not [line for line in lines if line.startswith("After=") and "network-online" in line]
