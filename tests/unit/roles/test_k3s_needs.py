"""K3s is not installed where images that it needs are missing: the tasks themselves, on two nodes that are this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.plugins.test_k3s_images import docker, stand_in

ROOT = Path(__file__).resolve().parents[3]
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
NEEDED = "docker.io/rancher/mirrored-pause:9"


def plan(root: Path, *, differing: Any = ("/usr/local/bin/k3s",), **more: Any) -> tuple[int, str]:
    """Run them on two nodes; the binary says in its help that it needs a pause image."""
    (root / "pause.tar").write_bytes(docker(NEEDED))
    variables = {
        "k3s_binary": str(stand_in(root / "k3s")),
        "k3s_airgap_images": [],
        "k3s_images_list": "",
        "k3s_missing_images": "refuse",
        "k3s_served": [],
        "__k3s_differing": list(differing),
        "__k3s_now": {"active": False},
        "__k3s_path": "/usr/local/bin/k3s",
        "__k3s_first": "a",
        "__k3s_role": "{{ 'server' if inventory_hostname == 'a' else 'agent' }}",
    }
    # Variables of an inventory are known of every host; those of a play are not.
    inventory = {**{name: variables.pop(name) for name in list(variables) if name.startswith("k3s_")}, **more}
    (root / "play.yml").write_text(
        yaml.safe_dump(
            [
                {
                    "hosts": "all",
                    "gather_facts": False,
                    "any_errors_fatal": True,
                    "vars": variables,
                    "tasks": [{"ansible.builtin.import_tasks": str(ROOT / "roles/k3s/tasks/needs.yml")}],
                }
            ]
        )
    )
    (root / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"a": LOCAL, "b": LOCAL}, "vars": inventory}}))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", str(root / "hosts.yml"), str(root / "play.yml")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_without_the_images_it_is_refused_with_the_missing_ones_and_their_nodes(tmp_path: Path) -> None:
    code, said = plan(tmp_path)
    assert code == 2 and "APL-0839" in said, said
    assert f"{NEEDED} (for every pod, on a, b)" in said and "Nothing was changed" in said


@pytest.mark.parametrize("where", ["archive", "mirror"])
def test_with_the_images_it_goes_on(tmp_path: Path, where: str) -> None:
    given = {"k3s_airgap_images": [str(tmp_path / "pause.tar")]} if where == "archive" else {"k3s_served": [NEEDED]}
    code, said = plan(tmp_path, **given)
    assert code == 0, said
    assert "Only the pause image could be looked for" in said and "APL-0839" not in said


def test_a_list_of_the_release_is_held_against_them_whole(tmp_path: Path) -> None:
    listed = tmp_path / "k3s-images.txt"
    listed.write_text("rancher/mirrored-pause:9\nrancher/mirrored-coredns-coredns:1\nrancher/klipper-lb:1\n")
    given = {"k3s_images_list": str(listed), "k3s_airgap_images": [str(tmp_path / "pause.tar")]}
    code, said = plan(tmp_path, k3s_server_config={"disable": ["servicelb"]}, **given)
    assert code == 2 and "docker.io/rancher/mirrored-coredns-coredns:1 (for coredns, on a, b)" in said, said
    assert "klipper-lb" not in said and "mirrored-pause" not in said


def test_with_warn_the_missing_images_are_told_and_it_goes_on(tmp_path: Path) -> None:
    code, said = plan(tmp_path, k3s_missing_images="warn")
    assert code == 0 and f"{NEEDED} (for every pod, on a, b)" in said, said


def test_an_archive_that_cannot_be_read_here_is_no_proof_of_anything(tmp_path: Path) -> None:
    archive = tmp_path / "images.tar.lz4"
    archive.write_bytes(b"\x04\x22\x4d\x18....")
    code, said = plan(tmp_path, k3s_airgap_images=[str(archive)])
    assert code == 0 and "are not counted" in said and "images.tar.lz4" in said, said


def test_a_k3s_that_stays_as_it_is_needs_nothing_new(tmp_path: Path) -> None:
    code, said = plan(tmp_path, differing=())
    assert code == 0 and "APL-0839" not in said, said
