"""A snapshot of etcd that waits on the first server is restored before the first start: the tasks themselves, with a stand-in for K3s."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
TASKS: list[dict[str, Any]] = yaml.safe_load((ROOT / "roles/k3s/tasks/start.yml").read_text(encoding="utf-8"))


class Server:
    """The first server, with a directory of K3s."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "db/etcd").mkdir(parents=True)
        (root / "db/reset-flag").write_text("of a reset that was interrupted")
        self.snapshot = root / "appliance-restore"
        self.snapshot.write_text("snapshot")
        self.token = root / "to ken"
        self.token.write_text("a secret\n")

    def start(self, script: str, *, first: bool = True) -> tuple[int, str]:
        k3s = self.root / "k3s"
        k3s.write_text(f'#!/bin/sh\necho "$@" "($K3S_TOKEN)" >> {self.root}/calls\n{script}\n')
        k3s.chmod(0o755)
        variables = {
            "__k3s_is_first": first,
            "__k3s_restore": str(self.snapshot),
            "__k3s_etcd": str(self.root / "db/etcd"),
            "__k3s_path": str(k3s),
            "k3s_token_file": str(self.token),
            "ansible_python_interpreter": sys.executable,
        }
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": variables,
            "tasks": TASKS[:2],
        }
        (self.root / "play.yml").write_text(yaml.safe_dump([play]))
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", "-i", "localhost,", str(self.root / "play.yml")],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        )
        return done.returncode, done.stdout + done.stderr

    @property
    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_it_is_restored_once_and_taken_away(server: Server) -> None:
    code, said = server.start(f"test ! -e {server.root}/db/reset-flag")
    assert code == 0, said
    # On a fresh host a real K3s refuses without the token: "please pass --token to complete the restoration".
    assert server.calls == [f"server --cluster-reset --cluster-reset-restore-path={server.snapshot} (a secret)"]
    assert "a secret" not in said
    assert not server.snapshot.exists()
    code, said = server.start("exit 1")
    assert (code, len(server.calls)) == (0, 1) and "changed=0" in said


def test_where_k3s_does_not_take_it_the_run_stops_and_it_stays(server: Server) -> None:
    code, said = server.start("echo bad token >&2; exit 1")
    assert code == 2 and "APL-0878" in said and "bad token" in said
    assert server.snapshot.exists()
    assert server.start("true")[0] == 0
    assert len(server.calls) == 2


def test_only_the_first_server_begins_from_it(server: Server) -> None:
    assert server.start("exit 1", first=False)[0] == 0
    assert server.calls == []


def test_it_comes_before_the_start() -> None:
    names = [task["name"] for task in TASKS]
    assert names[:3] == [
        "start | See whether a snapshot of etcd waits to be restored",
        "start | Restore etcd from the snapshot",
        "start | Start K3s",
    ]
