"""Role preflight as a whole: it lists what it finds on a real host, reads only, and cannot be skipped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
READ_ONLY = {"site.appliance.host_report", "ansible.builtin.debug", "ansible.builtin.fail"}
KEYWORDS = {
    "name", "vars", "register", "when", "run_once", "tags", "ignore_unreachable", "ignore_errors", "check_mode",
}  # fmt: skip


def test_the_role_has_no_task_that_could_change_a_host() -> None:
    for path in (ROOT / "roles/preflight/tasks").glob("*.yml"):
        for task in yaml.safe_load(path.read_text(encoding="utf-8")):
            assert set(task) - KEYWORDS <= READ_ONLY, task["name"]
            assert "always" in task["tags"], task["name"]


def _run(tmp_path: Path, *arguments: str) -> str:
    (tmp_path / "hosts.ini").write_text(
        "[k3s_servers]\na ansible_connection=local node_ip=192.0.2.11 ansible_become=false"
        f" ansible_python_interpreter={sys.executable}\n[k3s_cluster:children]\nk3s_servers\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            Path(sys.executable).parent / "ansible-playbook",
            "-i",
            tmp_path / "hosts.ini",
            "playbooks/preflight.yml",
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )
    text = done.stdout + done.stderr
    assert done.returncode == 2, text
    assert "changed=1" not in text
    return text


def test_a_taken_port_and_a_small_disk_of_a_real_host_are_in_one_list(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        values = (
            f'{{"preflight_ports": [{{"port": {port}, "address": "loopback", "use": "the mirror"}}],'
            ' "preflight_minimum_free": {"/": 1000000000000000}}'
        )
        # Neither check mode nor a choice of tags keeps it from looking.
        text = _run(tmp_path, "-e", values, "--check", "--diff", "--tags", "nothing")
    assert f"APL-0728 port {port}/tcp is taken on 127.0.0.1" in text
    assert "APL-0727 the file system at / is too small: 909.5 TiB needed" in text
    assert "Nothing was changed on any host." in text


def test_bad_input_of_the_role_itself_is_refused(tmp_path: Path) -> None:
    assert "preflight_max_clock_skew" in _run(tmp_path, "-e", "preflight_max_clock_skew=long")
