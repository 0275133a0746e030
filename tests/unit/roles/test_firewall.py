"""Role firewall: the program it installs is the module's own logic, and its unit comes back with the host's rules."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PLUGINS = ROOT / "collections/ansible_collections/site/appliance/plugins"
PROGRAM = PLUGINS / "module_utils/firewall_rules.py"


def test_the_installed_program_is_the_modules_logic() -> None:
    source = yaml.safe_load((ROOT / "roles/firewall/vars/main.yml").read_text(encoding="utf-8"))["__firewall_program"]
    assert "lookup('ansible.builtin.file', __firewall_program, rstrip=false)" in (
        ROOT / "roles/firewall/tasks/unit.yml"
    ).read_text(encoding="utf-8")
    assert Path(source.replace("{{ role_path }}", str(ROOT / "roles/firewall"))).resolve() == PROGRAM
    assert PROGRAM.read_text(encoding="utf-8").startswith("#!/usr/bin/python3\n")


def test_the_program_runs_without_ansible(tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-S", str(PROGRAM)]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, cwd=tmp_path, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode == 2
    assert "Usage as a command" in done.stderr


def test_the_unit_follows_what_loads_the_hosts_rules() -> None:
    unit = (ROOT / "roles/firewall/templates/appliance-firewall.service.j2").read_text(encoding="utf-8")
    lines = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    for directive in ("After", "PartOf", "ReloadPropagatedFrom", "WantedBy"):
        assert "nftables.service" in lines[directive].split(), directive
        assert "netfilter-persistent.service" in lines[directive].split(), directive
    assert "k3s.service" in lines["Before"].split()
    assert lines["ExecStart"] == lines["ExecReload"] == "/usr/local/lib/appliance/firewall apply"


@pytest.mark.parametrize("path", sorted(PLUGINS.glob("module*/*.py")), ids=lambda path: path.name)
def test_what_runs_on_nodes_is_python_3_9(path: Path) -> None:
    """Own modules run on the targets' Python; `match` and the like would fail there only."""
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
