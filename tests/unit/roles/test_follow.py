"""Waiting for a node, and carrying files to it, by the plugins as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.site.appliance.plugins.filter import seed

ROOT = Path(__file__).resolve().parents[3]
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
GENERATION = {"number": 2, "digest": "sha256:" + "2" * 64}
# Serves the first generation when it is asked for the first time, then the second one.
AGENT = """#!/bin/sh
echo x >>"$0.asked"
number=$(wc -l <"$0.asked")
test "$number" -ge LAST && number=2 || number=1
echo '{"generation": {"number": '$number', "digest": "sha256:'$number$number'"}, "wanted_missing": 0}'
"""


def run(root: Path, tasks: list[dict[str, Any]]) -> str:
    (root / "play.yml").write_text(yaml.safe_dump([{"hosts": "a", "gather_facts": False, "tasks": tasks}]))
    (root / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"a": LOCAL}}}))
    program = Path(sys.executable).parent / "ansible-playbook"
    done = subprocess.run(
        [program, "-i", str(root / "hosts.yml"), str(root / "play.yml")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "TMPDIR": str(root)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def agent(root: Path, last: int) -> str:
    command = root / "appliance"
    command.write_text(AGENT.replace("LAST", str(last)))
    command.chmod(0o755)
    return str(command)


@pytest.mark.parametrize(("last", "timeout", "number"), [(3, 3600, 2), (9999, 0, 1)], ids=["follows", "does not"])
def test_a_node_is_asked_until_it_follows_or_the_time_is_over(
    tmp_path: Path, last: int, timeout: int, number: int
) -> None:
    follow = {
        "command": agent(tmp_path, last),
        "generation": {"number": 2, "digest": "sha256:22"},
        "timeout": timeout,
        "delay": 0,
    }
    judge = {"that": ["(status.stdout | from_json).generation.number == number", "status.rc == 0"]}
    tasks = [
        {"name": "Wait", "site.appliance.follow": follow, "register": "status"},
        {"name": "Judge", "ansible.builtin.assert": judge, "vars": {"number": number}},
    ]
    assert "changed=0" in run(tmp_path, tasks)
    assert len((tmp_path / "appliance.asked").read_text().splitlines()) == (last if timeout else 1)


def test_a_site_without_images_waits_for_nothing(tmp_path: Path) -> None:
    follow = {"command": agent(tmp_path, 99), "generation": "{{ none }}", "delay": 0}
    run(tmp_path, [{"name": "Wait", "site.appliance.follow": follow}])
    assert (tmp_path / "appliance.asked").read_text() == "x\n"


def test_what_a_node_lacks_is_said_with_its_rate_and_the_time_left() -> None:
    status = {"generation": GENERATION, "wanted_missing": 41, "wanted_missing_bytes": 1_288_490_189}
    result = {"rc": 0, "stdout": json.dumps(status)}
    text = seed.seed_behind_text(result, GENERATION, 88 * 1024**2)
    assert text == "following: 41 blobs (1.2 GiB) to fetch, 88 MiB/s, 14 s left"
    assert seed.seed_behind_text(result, GENERATION, 0) == "following: 41 blobs (1.2 GiB) to fetch"
    assert "its agent does not answer" in seed.seed_behind_text({"rc": 1}, GENERATION, 0)
    assert seed.seed_missing_bytes(result) == 1_288_490_189
    assert seed.seed_missing_bytes({"rc": 1}) == 0, "an agent of an older release does not say"


PROOF = {"stdout": json.dumps({"generation": GENERATION, "names": 1, "wrong": []})}


def test_what_is_served_at_the_end_is_a_sentence() -> None:
    assert seed.seed_served(PROOF, ["a", "b"], ["a", "b"]) == "Every node serves generation 2 with 1 name."
    assert (
        seed.seed_served(PROOF, ["a", "b"], ["a", "b", "c"])
        == "Every node of this run serves generation 2 with 1 name."
    )
    assert seed.seed_served(PROOF, ["a"], ["a"]) == "a serves generation 2 with 1 name."
    nothing = {"stdout": json.dumps({"generation": None, "names": 0})}
    assert seed.seed_served(nothing, ["a"], ["a"]) == "No images are served yet."
    assert seed.seed_served(None, ["a"], ["a"]) == "", "nothing was proved in check mode"


def test_the_end_of_a_run_claims_no_more_than_was_proved() -> None:
    assert seed.seed_ended(PROOF, ["a", "b"], ["a", "b"], True) == (
        "Every node serves generation 2 with 1 name. Every node pulls. Next: take the medium out, and back up what cannot be "
        "made again with ansible-playbook playbooks/backup.yml"
    )
    assert seed.seed_ended(PROOF, ["a", "b"], ["a", "b", "c"], True) == (
        "Every node of this run serves generation 2 with 1 name. Every node of this run pulls. Not in this run: c. "
        "Next: run it again without --limit"
    )
    assert seed.seed_ended(None, ["a"], ["a"], False) == (
        "The chosen tags left the proof out. Next: ansible-playbook playbooks/verify.yml"
    )


def test_a_file_is_carried_as_copy_does_it(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from/a.tar").write_bytes(b"x" * 1000)
    carry = {"src": str(tmp_path / "from/a.tar"), "dest": f"{tmp_path}/to.tar", "mode": "0600"}
    task = {"name": "Carry", "site.appliance.carry": carry}
    assert "changed=1" in run(tmp_path, [task])
    assert (tmp_path / "to.tar").read_bytes() == b"x" * 1000
    assert (tmp_path / "to.tar").stat().st_mode & 0o777 == 0o600
    assert "changed=0" in run(tmp_path, [task])
