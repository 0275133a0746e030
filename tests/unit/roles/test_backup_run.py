"""Playbook backup.yml as it is, with a store behind the publisher and a node that is off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from appliance import pki
from appliance.backup import container, site
from tests.unit.store import made

ROOT = Path(__file__).resolve().parents[3]
ANSIBLE = Path(sys.executable).parent
_LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "node_ip": "192.0.2.1"}
_OFF = {
    "ansible_host": "127.0.0.1",
    "ansible_port": 1,
    "ansible_ssh_common_args": "-o ConnectTimeout=1 -o ControlMaster=no -o ControlPath=none",
    "node_ip": "192.0.2.2",
}


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """The publisher, which is the first server too, and an agent that is off."""
    directory = tmp_path / "inventory"
    directory.mkdir()
    pki.init_ca(directory / "pki", "north")
    blobs = made.open_store(tmp_path / "store")
    made.publish(blobs, {"docker.io/library/a:1": made.image(1)})
    command = tmp_path / "appliance"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m appliance "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    (tmp_path / "token").write_text("a token\n", encoding="utf-8")
    (tmp_path / "agent-token").write_text("a token of agents\n", encoding="utf-8")
    (tmp_path / "password").write_text("a password\n", encoding="utf-8")
    variables = {
        "ansible_become": False,
        "backup_scratch": str(tmp_path),
        "backup_token_file": str(tmp_path / "token"),
        "backup_agent_token_file": str(tmp_path / "agent-token"),
        "__backup_command": str(command),
        "__backup_store": str(tmp_path / "store"),
        "__backup_jobs": str(tmp_path),
        "__backup_password_file": str(tmp_path / "password"),
    }
    (tmp_path / "given.yml").write_text(yaml.safe_dump(variables), encoding="utf-8")
    groups = {"k3s_servers": {"hosts": {"a": _LOCAL}}, "k3s_agents": {"hosts": {"b": _OFF}}}
    tree = {"all": {"children": {"k3s_cluster": {"children": groups}}}}
    (directory / "hosts.yml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return directory


def _backup(inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    given = inventory.parent / "given.yml"
    return subprocess.run(
        [
            str(ANSIBLE / "ansible-playbook"),
            "-i",
            str(inventory),
            "playbooks/backup.yml",
            "-e",
            f"@{given}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )


def test_a_node_that_is_off_does_not_keep_the_site_from_its_backup(inventory: Path) -> None:
    """It is when a node is off that somebody thinks of backups."""
    done = _backup(inventory)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = (inventory / "backup").iterdir()
    with container.open_backup(archive) as file:
        backup, authority = site.check(file, archive.name, site="north", ca=inventory / "pki")
    assert authority == "same"
    assert {"store.tar", "k3s/token", "k3s/agent-token", "k3s/nodes/a"} <= set(backup.files)
    assert "k3s/nodes/b" not in backup.files
    assert "a password" not in done.stdout
    assert "a token" not in done.stdout
    # What was collected on the way is gone.
    left = {path.name for path in inventory.parent.iterdir()}
    assert left == {"agent-token", "appliance", "given.yml", "inventory", "password", "store", "token"}


def test_without_the_publisher_there_is_no_backup_and_no_success(inventory: Path) -> None:
    hosts = inventory / "hosts.yml"
    tree = yaml.safe_load(hosts.read_text(encoding="utf-8"))
    tree["all"]["children"]["mirror_seeds"] = {"hosts": {"b": {}}}
    hosts.write_text(yaml.safe_dump(tree), encoding="utf-8")
    done = _backup(inventory)
    assert done.returncode != 0
    assert not list((inventory / "backup").glob("*.tar"))
