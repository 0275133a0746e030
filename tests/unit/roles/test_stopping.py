"""A run that is stopped, as an operator stops it: a terminal, a job on a node, Ctrl-C and kill."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.terminal import Terminal

ROOT = Path(__file__).resolve().parents[3]
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
# It notes that it has begun, and ends when its lease is taken away, as a command of the appliance does. It does nothing for
# the 4 s of its lease: a test that waits for those is one of the lab's.
JOB = """#!/bin/sh
echo '{"message_type": "progress", "phase": "reading", "bytes": 1, "total": 4, "bytes_per_second": 1, "seconds_left": 3}' >&2
echo $$ >"$1"
while [ -e "$APPLIANCE_LEASE" ]; do :; done
echo "APL-0345: stopped" >&2
exit 75
"""


def play(root: Path, tasks: list[dict[str, Any]], *arguments: str) -> list[str]:
    """Write a playbook for one host that is this machine, and return the words that run it."""
    (root / "play.yml").write_text(
        yaml.safe_dump([{"name": "The play", "hosts": "a", "gather_facts": False, "tasks": tasks}])
    )
    (root / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"a": LOCAL}}}))
    program = str(Path(sys.executable).parent / "ansible-playbook")
    return [program, "-i", str(root / "hosts.yml"), str(root / "play.yml"), *arguments]


def environment(root: Path) -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "COLUMNS": "120",
        "TMPDIR": str(root),
    }


def at_a_terminal(root: Path, tasks: list[dict[str, Any]]) -> Terminal:
    return Terminal.run(play(root, tasks), ROOT, environment(root))


def job(root: Path) -> dict[str, Any]:
    command = root / "job"
    command.write_text(JOB)
    command.chmod(0o755)
    (root / "jobs").mkdir()
    return {
        "name": "Read the medium",
        "site.appliance.job": {
            "argv": [str(command), str(root / "begun")],
            "about": "/media/stick",
            "watch": str(root / "index.json"),
            "cleanup": [str(root / "scratch")],
            "runtime_directory": str(root / "jobs"),
        },
    }


def running(pid: int) -> bool:
    """Return whether a process runs; one that ended and is not reaped yet does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def begun(root: Path) -> int:
    """Wait until the job runs, and return its process."""
    file = root / "begun"
    while not (file.exists() and file.read_text().endswith("\n")):
        pass
    return int(file.read_text())


OUTCOME = {
    "name": "State",
    "site.appliance.outcome": {
        "stopped": "Nothing was published.",
        "switched": "It was published.",
        "ends": "All is well.",
    },
}


@pytest.mark.parametrize("published", [False, True])
def test_ctrl_c_ends_the_job_before_the_run_ends_and_says_what_is_true(tmp_path: Path, published: bool) -> None:
    (tmp_path / "scratch").mkdir()
    terminal = at_a_terminal(tmp_path, [OUTCOME, job(tmp_path)])
    pid = begun(tmp_path)
    if published:
        (tmp_path / "index.json").write_text("a new generation")
    terminal.type("\x03")
    assert terminal.end() == 99, terminal.shown
    assert not running(pid)
    said = "It was published." if published else "Nothing was published."
    assert f"Stopped by you. {said}" in " ".join(terminal.shown.split()), terminal.shown
    assert list((tmp_path / "jobs").iterdir()) == [] and not (tmp_path / "scratch").exists()
    assert not list(tmp_path.glob("appliance-run-*")), "what the processes of the run shared is gone"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_controller_that_dies_takes_the_job_with_it(tmp_path: Path, number: signal.Signals) -> None:
    terminal = at_a_terminal(tmp_path, [OUTCOME, job(tmp_path)])
    pid = begun(tmp_path)
    os.kill(terminal.pid, number)
    assert terminal.end() == -number
    while running(pid) or list((tmp_path / "jobs").iterdir()):
        pass


def test_a_job_that_ends_gives_what_a_command_gives(tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]
    (tmp_path / "jobs").mkdir()
    tasks = [
        {
            "name": "Run it",
            "site.appliance.job": {"argv": argv, "about": "it", "runtime_directory": str(tmp_path / "jobs")},
            "register": "done",
            "environment": {"GREETING": "it's me"},
            "failed_when": "done.rc != 3 or done.stdout != 'out\n' or done.stderr != 'err\n'",
        }
    ]
    done = subprocess.run(
        play(tmp_path, tasks), capture_output=True, text=True, check=False, cwd=ROOT, env=environment(tmp_path)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "jobs").iterdir()) == []
    skipped = subprocess.run(
        play(tmp_path, tasks, "--check"),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment(tmp_path),
    )
    assert "skipped=1" in skipped.stdout, skipped.stdout + skipped.stderr


ASK = {"name": "Ask", "site.appliance.confirm": {"question": "Carry this out?", "kept": "It is kept until noon."}}


@pytest.mark.parametrize(
    ("keys", "code", "words"),
    [
        (["Y\r"], 0, "All is well."),
        (["maybe\r", "yes\r"], 0, "'maybe' is neither yes nor no"),
        (["no\r"], 2, "the answer was no. Nothing was changed on any host. It is kept until noon."),
        (["x\r", "\r", "z\r"], 2, "none of 3 answers was yes or no"),
        (["\x03"], 2, "you stopped the run at the question"),
    ],
    ids=["yes", "slip", "no", "slips", "ctrl-c"],
)
def test_the_question(tmp_path: Path, keys: list[str], code: int, words: str) -> None:
    terminal = at_a_terminal(tmp_path, [OUTCOME, ASK])
    for number, answer in enumerate(keys, 1):
        terminal.read(lambda shown, number=number: shown.count("[y/n]: \r\n") >= number)  # type: ignore[misc]
        while not terminal.reads_keys():
            pass
        terminal.type(answer)
    assert terminal.end() == code, terminal.shown
    assert words in " ".join(terminal.shown.split()), terminal.shown
    if code:
        assert "The plan was not carried out. Nothing was published." in " ".join(terminal.shown.split())
        assert terminal.shown.count("APL-0770: ") == 1 and "docs/runbooks/APL-0770.md" in terminal.shown


def test_without_a_terminal_nobody_is_asked(tmp_path: Path) -> None:
    done = subprocess.run(
        play(tmp_path, [ASK]),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert "APL-0770: the plan was not confirmed: there is no terminal to ask at" in done.stdout


COMMAND = re.compile(r"'(plan|seed|gc|backup)'|__rollback_args|^(plan|seed|backup)$")


def _tasks(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in items:
        yield item
        for part in ("block", "rescue", "always"):
            yield from _tasks(item.get(part, []))


def test_what_takes_long_on_a_node_ends_with_the_run() -> None:
    """Each command of the appliance that reads or writes much is a job, which has a lease; those on the controller are its own."""
    jobs = set()
    for path in ROOT.glob("roles/*/tasks/*.yml"):
        for task in _tasks(yaml.safe_load(path.read_text(encoding="utf-8")) or []):
            words = (task.get("ansible.builtin.command") or task.get("site.appliance.job") or {}).get("argv", [])
            named = [words] if isinstance(words, str) else words
            if any(COMMAND.search(str(word)) for word in named) and "controller" not in str(words):
                assert "site.appliance.job" in task, task["name"]
                jobs.add(task["name"])
    assert jobs == {
        "medium | Read and verify the medium whole",
        "publish | Import the sources and publish them as one generation",
        "Make each node's plan",
        "Collect",
        "store | Write down the names of the store",
        "names | Put them into the store",
        "look | Ask what going back would change",
        "publish | Publish what the older generation served as a new one",
    }
