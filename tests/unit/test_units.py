"""The systemd units: no key that systemd does not know, and a sandbox that systemd itself calls tight."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.site.appliance.plugins.filter.mirror import mirror_memory_max
from jinja2 import Environment, FileSystemLoader

from appliance import limits
from appliance.config import Config
from appliance.server.sdnotify import DOWN_SECONDS

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "roles/mirror/templates"
UNITS = ("agent", "mirror", "peer")
WATCHDOG_SECONDS = 7
#: Ten times what ``systemd-analyze security`` may say at most.
EXPOSURE = 15


def _render(name: str) -> str:
    # As Ansible's template lookup renders: the line end after a tag is dropped, the one at the end of the file is kept.
    environment = Environment(loader=FileSystemLoader(TEMPLATES), trim_blocks=True, keep_trailing_newline=True)
    file = name if "." in name else f"{name}.service"
    memory = {"mirror_memory_high": "2G", "mirror_memory_max": mirror_memory_max("2G")}
    return environment.get_template(f"appliance-{file}.j2").render(memory)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with the units and the program that they start."""
    directory = tmp_path / "etc/systemd/system"
    directory.mkdir(parents=True)
    for unit in UNITS:
        (directory / f"appliance-{unit}.service").write_text(_render(unit))
    (directory / "appliance-mirror.socket").write_text(_render("mirror.socket"))
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


@pytest.mark.parametrize("unit", [*(f"{unit}.service" for unit in UNITS), "mirror.socket"])
def test_systemd_knows_every_key(root: Path, unit: str) -> None:
    file = root / f"etc/systemd/system/appliance-{unit}"
    for service in file.parent.glob("*.service"):
        # The program stands elsewhere on this machine, and units of the host itself do not matter here.
        service.write_text(service.read_text().replace("/opt/appliance/current/venv/bin/appliance", sys.executable))
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
        assert ("FileDescriptorStoreMax=1" in lines) == (unit == "peer"), "the mirror's is its socket unit's"
        (patience,) = (int(line.partition("=")[2]) for line in lines if line.startswith("TimeoutStopSec="))
        # What gunicorn's parent gives its workers, and what it takes itself.
        assert patience > limits.PUSH_GRACE_SECONDS + 5 + 2
        assert "KillMode=" not in "".join(lines), "every process is told at once"


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_comes_back_for_ever_and_needs_nothing(unit: str) -> None:
    lines = _render(unit).splitlines()
    for wanted in (
        "Restart=always",
        "RestartSec=1",
        "StartLimitIntervalSec=0",
        f"WatchdogSec={WATCHDOG_SECONDS}",
        "Type=notify",
        "User=appliance",
        "StateDirectory=appliance",
        "Before=k3s.service k3s-agent.service",
        f"ExecStart=/opt/appliance/current/venv/bin/appliance unit {unit}{' --socket-unit' * (unit == 'mirror')}",
    ):
        assert wanted in lines, wanted
    wants = [line for line in lines if line.startswith(("Requires=", "Wants=", "BindsTo=", "Requisite="))]
    assert wants == (["Wants=appliance-mirror.socket"] if unit == "mirror" else [])
    assert not [line for line in lines if line.startswith("After=") and "network-online" in line]


def test_systemd_holds_the_mirrors_address_from_early_boot_and_never_gives_it_up() -> None:
    lines = _render("mirror.socket").splitlines()
    address = Config.__dataclass_fields__["mirror_listen"].default
    for wanted in (
        f"ListenStream={address}",
        "WantedBy=sockets.target",
        "Before=k3s.service k3s-agent.service",
        "TriggerLimitIntervalSec=0",
        "FlushPending=true",
    ):
        assert wanted in lines, wanted
    # What K3s, users and containers run comes after sockets.target: the default dependencies of both sides.
    assert not [line for line in lines if line.startswith("DefaultDependencies=")]
    service = _render("mirror").splitlines()
    assert "PartOf=appliance-mirror.socket" in service, "who stops the socket stops the service"
    (after,) = (line for line in service if line.startswith("After="))
    assert "appliance-mirror.socket" in after.split()


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_that_takes_too_much_memory_loses_a_process_and_goes_on(unit: str) -> None:
    settings = dict(line.split("=", 1) for line in _render(unit).splitlines() if line[:1].isalpha())
    assert settings["MemoryHigh"] == "2G"
    assert 2 << 30 < int(settings["MemoryMax"]) <= 3 << 30
    assert settings["OOMPolicy"] == "continue"


@pytest.mark.parametrize(
    ("high", "most"),
    [("2G", "2684354560"), ("1000", "1250"), ("40%", "50%"), ("90%", "100%"), ("infinity", "infinity")],
)
def test_the_limit_of_memory_is_above_where_it_is_slowed_down(high: str, most: str) -> None:
    assert mirror_memory_max(high) == most


def test_a_mirror_that_cannot_start_ends_before_the_watchdog_ends_it() -> None:
    assert DOWN_SECONDS < WATCHDOG_SECONDS
