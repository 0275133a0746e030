"""The example inventory is one that the appliance takes, and a broken one is an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.site.appliance.plugins.filter import preflight
from ansible_collections.site.appliance.plugins.plugin_utils import inventory_checks

ROOT = Path(__file__).resolve().parents[3]
ANSIBLE = Path(sys.executable).parent


def _inventory(path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    argv = [str(ANSIBLE / "ansible-inventory"), "-i", str(path), "--list"]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    done = _inventory(ROOT / "inventory/example")
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def _groups(example: dict[str, Any]) -> dict[str, list[str]]:
    groups = {name: list(group.get("hosts", [])) for name, group in example.items() if name != "_meta"}
    for name in example["k3s_cluster"]["children"]:
        groups.setdefault("k3s_cluster", []).extend(groups[name])
    return groups


def test_the_example_has_no_problem(example: dict[str, Any]) -> None:
    options = preflight.role_options(str(ROOT / "roles"))
    # Of roles that are not there nothing is known.
    options = {role: names for role, names in options.items() if names}
    assert preflight.inventory_problems(example["_meta"]["hostvars"], _groups(example), options, "2.19.0") == []


def test_the_example_uses_addresses_for_documentation(example: dict[str, Any]) -> None:
    for values in example["_meta"]["hostvars"].values():
        assert preflight.node_address("", values).startswith("192.0.2.")


def test_every_variable_that_the_example_shows_exists() -> None:
    """The lines that are commented out are checked like the others: they are what people copy."""
    options = preflight.role_options(str(ROOT / "roles"))
    text = (ROOT / "inventory/example/group_vars/all.yml").read_text(encoding="utf-8")
    names = {
        line.lstrip("# ").split(":")[0] for line in text.splitlines() if ":" in line and not line.startswith("#  ")
    }
    shown = {name for name in names if name.startswith(tuple(f"{role}_" for role in options))}
    assert len(shown) > 10
    assert inventory_checks.unknown_variables({name: ["x"] for name in shown}, options) == []


def test_a_broken_inventory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all: {hosts: [", encoding="utf-8")
    assert _inventory(tmp_path / "hosts.yml").returncode != 0
    assert _inventory(tmp_path / "absent.yml").returncode != 0


@pytest.mark.parametrize("beside", ["pki/ca.key", "backup/north-20260102T030405Z.tar"])
def test_what_the_appliance_keeps_beside_the_hosts_is_no_inventory(beside: str, tmp_path: Path) -> None:
    """The directory is the inventory (ansible.cfg), and whatever in it cannot be read as one ends every playbook."""
    (tmp_path / "hosts.yml").write_text("all: {hosts: {a: {}}}", encoding="utf-8")
    kept = tmp_path / beside
    kept.parent.mkdir()
    kept.write_bytes(b"a = b = [\0\xff")
    done = _inventory(tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["ungrouped"]["hosts"]) == ["a"]


def test_an_inventory_of_mistakes_is_listed_whole_before_any_host_is_asked(tmp_path: Path) -> None:
    """The playbook itself, with no host behind the addresses: all of the inventory and both hosts in one message."""
    hosts = {
        "all": {
            "vars": {
                "ansible_connection": "ssh",
                "ansible_port": 1,
                "ansible_ssh_common_args": "-o ConnectTimeout=1",
                "mirror_wheelhouse": str(tmp_path / "no-wheelhouse"),
            },
            "children": {
                "k3s_cluster": {
                    "children": {
                        "k3s_servers": {
                            "hosts": {
                                "a": {"ansible_host": "127.0.0.1", "node_ip": "192.0.2.1", "firewall_servce_ports": []},
                                "b": {"ansible_host": "127.0.0.1", "node_ip": "192.0.2.1"},
                            }
                        }
                    }
                }
            },
        }
    }
    path = tmp_path / "hosts.yml"
    path.write_text(yaml.safe_dump(hosts), encoding="utf-8")
    done = subprocess.run(
        [str(ANSIBLE / "ansible-playbook"), "-i", str(path), "playbooks/preflight.yml"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )
    assert done.returncode == 2
    assert "8 problems found. Nothing was changed on any host." in done.stdout + done.stderr
    for expected in (
        "APL-0702",
        "APL-0705",
        "APL-0708",
        "Did you mean firewall_service_ports?",
        "APL-0720",
        "APL-0760",
        "APL-0822",
    ):
        assert expected in done.stdout + done.stderr
    assert "changed=0" in done.stdout
    assert "changed=1" not in done.stdout


@pytest.mark.parametrize("hosts", ["", "[k3s_agents]\n"])
def test_an_inventory_without_hosts_is_an_error_too(hosts: str, tmp_path: Path) -> None:
    """A play whose group is empty is skipped by Ansible without a word."""
    path = tmp_path / "hosts.ini"
    path.write_text(f"{hosts}[other]\nx\n", encoding="utf-8")
    done = subprocess.run(
        [str(ANSIBLE / "ansible-playbook"), "-i", str(path), "playbooks/preflight.yml"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
    )
    assert done.returncode == 2
    assert "APL-0701" in done.stdout + done.stderr
