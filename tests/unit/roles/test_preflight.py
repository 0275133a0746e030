"""Role preflight as a whole: it lists what it finds on a real host, reads only, and cannot be skipped."""

from __future__ import annotations

import json
import os
import shlex
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
    return _play(tmp_path, *arguments)


def _play(tmp_path: Path, *arguments: str, **variables: str) -> str:
    """Run the playbook, which has to end with its list, and return what it printed."""
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
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **variables},
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


def test_what_the_run_will_need_is_looked_for_before_the_medium_is_read(tmp_path: Path) -> None:
    """Wrong paths of all kinds are in one list, each with its variable, and no file is read whole."""
    values = {
        "k3s_binary": "/nonexistent/k3s",
        "k3s_checksums": "/nonexistent/sha256sum-amd64.txt",
        "k3s_airgap_images": ["/nonexistent/images.tar.zst"],
        "mirror_wheelhouse": str(tmp_path / "absent"),
        "seed_sources": ["/nonexistent/stick", str(tmp_path)],
    }
    text = _run(tmp_path, "-e", json.dumps(values))
    for line in (
        "APL-0822 k3s_binary: there is no such file [/nonexistent/k3s]",
        "APL-0822 k3s_checksums: there is no such file [/nonexistent/sha256sum-amd64.txt]",
        "APL-0822 k3s_airgap_images: there is no such file [/nonexistent/images.tar.zst]",
        f"APL-0760 mirror_wheelhouse: there is no wheelhouse [{tmp_path}/absent]",
        "APL-0101 seed_sources: the medium is not there, and was never published [/nonexistent/stick]",
        "--python {}.{} --arch {}".format(*sys.version_info[:2], os.uname().machine),
    ):
        assert line in text, line
    assert "nothing is wrong" not in text
    # On the controller the media are looked for there; for a restore they are not needed.
    text = _run(tmp_path, "-e", json.dumps({**values, "seed_from": "controller"}))
    assert "APL-0101 seed_sources" in text.partition("controller:")[2].partition("a:")[0]
    assert "APL-0101" not in _run(tmp_path, "-e", json.dumps({**values, "preflight_media": False}))


SUDO = {
    "tty": ("sudo: sorry, you must have a tty to run sudo", "Take requiretty away"),
    "password": ("sudo: a password is required", "Give the password with --ask-become-pass"),
    "stranger": ("jane is not in the sudoers file.", "by visudo"),
}


def test_the_words_of_sudo_are_shown_for_each_host(tmp_path: Path) -> None:
    lines = []
    for name, (words, _) in SUDO.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho {shlex.quote(words)} >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
        lines.append(f"{name} ansible_become_exe={tmp_path}/{name} ansible_connection=local")
    lines.append(f"absent ansible_become_exe={tmp_path}/none/sudo ansible_connection=local")
    lines.append("python ansible_become=false ansible_python_interpreter=/usr/bin/python9 ansible_connection=local")
    (tmp_path / "hosts.ini").write_text(
        "[k3s_servers]\n" + "\n".join(lines) + "\n[k3s_cluster:children]\nk3s_servers\n"
    )
    text = " ".join(_play(tmp_path, ANSIBLE_BECOME_ALLOW_SAME_USER="1").split())
    for words, advice in SUDO.values():
        line = f"APL-0732 the user that Ansible connects as does not become root: {words.rstrip('.')}. "
        assert line in text, words
        assert advice in text.partition(line)[2][:120], words
    assert f"{tmp_path}/none/sudo: not found. Install sudo" in text
    assert "APL-0723 /usr/bin/python9 is not there" in text
    assert "start of json" not in text


def test_bad_input_of_the_role_itself_is_refused(tmp_path: Path) -> None:
    assert "preflight_max_clock_skew" in _run(tmp_path, "-e", "preflight_max_clock_skew=long")
