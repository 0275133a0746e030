"""A first server that is new starts no cluster beside the one that the others are in: the tasks themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
TASKS: list[dict[str, Any]] = yaml.safe_load((ROOT / "roles/k3s/tasks/validate.yml").read_text(encoding="utf-8"))
NAMES = ("validate | Look whether the other servers have a cluster already", "validate | List everything that is wrong")
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
# Nothing listens there, so it is answered at once.
DOWN = {"ansible_host": "127.0.0.1", "ansible_port": 1}


def judge(root: Path, *, here: bool, others: dict[str, dict[str, Any]]) -> tuple[int, str]:
    """Run them on a first server; the others look at the same place, being this machine.

    :param here: whether the first server is known to have a cluster.
    """
    variables = {
        "__k3s_is_first": True,
        "__k3s_servers": ["first", *others],
        "__k3s_etcd": str(root / "etcd"),
        "__k3s_now": {"present": [str(root / "etcd")] if here else []},
        "__k3s_artifacts": {"problems": []},
        "__k3s_rendered": {"problems": []},
        "__k3s_role": "server",
        "__k3s_other_unit": "k3s-agent",
        "k3s_server_group": "k3s_servers",
    }
    tasks = [task for task in TASKS if task["name"] in NAMES]
    assert len(tasks) == 2
    (root / "play.yml").write_text(
        yaml.safe_dump([{"hosts": "first", "gather_facts": False, "vars": variables, "tasks": tasks}])
    )
    (root / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"first": LOCAL, **others}}}))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", str(root / "hosts.yml"), str(root / "play.yml")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_the_very_first_server_begins(tmp_path: Path) -> None:
    code, said = judge(tmp_path, here=False, others={"second": LOCAL})
    assert code == 0, said


def test_where_another_one_has_a_cluster_it_stops(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    code, said = judge(tmp_path, here=False, others={"second": LOCAL})
    assert code == 2 and "APL-0827" in said and "but second has one [first]" in said


@pytest.mark.parametrize("others", [{"second": DOWN}, {"second": LOCAL, "third": DOWN}])
def test_one_that_does_not_answer_may_have_one(tmp_path: Path, others: dict[str, dict[str, Any]]) -> None:
    code, said = judge(tmp_path, here=False, others=others)
    assert code == 2 and "APL-0827" in said and f"{list(others)[-1]} cannot be asked for one [first]" in said


def test_a_first_server_that_has_the_cluster_asks_nobody(tmp_path: Path) -> None:
    code, said = judge(tmp_path, here=True, others={"second": DOWN})
    assert code == 0, said
