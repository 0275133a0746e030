"""Shell lines that run a job on a node, run by the shell that hosts have."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.site.appliance.plugins.plugin_utils import remote_job
from hypothesis import given
from hypothesis import strategies as st


def sh(script: str) -> str:
    done = subprocess.run(["/bin/sh"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(
    tmp_path: Path,
    *argv: str,
    environment: str = "",
    stdin: str = "",
    watch: str = "",
    cleanup: tuple[str, ...] = (),
) -> str:
    directory = remote_job.new_directory(str(tmp_path))
    script = remote_job.start_script(
        directory, argv, environment=environment, stdin=stdin, watch=watch, cleanup=cleanup
    )
    remote_job.check_started(sh(script))
    return directory


def until_ended(job: str) -> remote_job.State:
    while True:
        state = remote_job.state(sh(remote_job.poll_script(job)))
        if state.word != "running":
            return state


def alive(group: int) -> bool:
    """Return whether a process of the group runs; one that ended and is not reaped yet does not."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            return True
    return False


@pytest.mark.parametrize("text", ["", "{\"running\": ['%s {job} \\n']}\n", "x" * 300_000], ids=["none", "odd", "long"])
def test_a_job_reads_what_it_is_given(tmp_path: Path, text: str) -> None:
    job = start(tmp_path, "cat", stdin=text)
    assert until_ended(job) == remote_job.State("ended", 0, "")
    assert sh(remote_job.read_script(job, "stdout")) == text


def test_a_job_leaves_what_a_command_leaves(tmp_path: Path) -> None:
    said = 'echo "$GREETING $1"; printf "\\377{job} %s" "$APPLIANCE_LEASE" >&2; exit 3'
    job = start(tmp_path, "sh", "-c", said, "sh", "a 'quoted' {watch} word", environment="GREETING='hello there'")
    assert until_ended(job) == remote_job.State("ended", 3, "")
    assert sh(remote_job.read_script(job, "stdout")) == "hello there a 'quoted' {watch} word\n"
    stderr = (Path(job) / "stderr").read_bytes()
    assert stderr == b"\xff{job} " + f"{job}/lease".encode()
    assert Path(job).stat().st_mode & 0o777 == 0o700
    sh(remote_job.remove_script(job))
    assert list(tmp_path.iterdir()) == []


def test_it_runs_in_a_session_of_its_own_and_reports_its_newest_progress(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    line = '{"message_type": "progress", "bytes": 2}'
    job = start(tmp_path, "sh", "-c", f"echo '{line}' >&2; echo other >&2; read go <{gate}")
    while True:
        state = remote_job.state(sh(remote_job.poll_script(job)))
        if state.line:
            break
    assert state == remote_job.State("running", -1, line)
    leader = int((Path(job) / "pid").read_text())
    assert os.getsid(leader) == leader
    gate.write_text("go\n")
    assert until_ended(job).code == 0


def test_each_look_renews_the_lease(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    job = start(tmp_path, "sh", "-c", f"read go <{gate}")
    lease = Path(job) / "lease"
    os.utime(lease, (0, 0))
    sh(remote_job.poll_script(job))
    assert lease.stat().st_mtime > 0
    gate.write_text("go\n")
    until_ended(job)


def test_a_job_that_is_stopped_leaves_no_process_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of this one does not look at its lease, so it is killed, with its children."""
    monkeypatch.setattr(remote_job, "STOP_TRIES", 1)
    (scratch := tmp_path / "scratch copy").mkdir()
    job = start(tmp_path, "sh", "-c", "trap '' TERM; tail -f /dev/null & wait", cleanup=(str(scratch),))
    # It is there before its number is in it.
    while not (Path(job) / "pid").is_file() or not (Path(job) / "pid").read_text():
        pass
    group = int((Path(job) / "pid").read_text())
    said = sh(remote_job.stop_script(job, cleanup=(str(scratch),)))
    while alive(group):
        pass
    assert remote_job.stopped(said) is False
    assert list(tmp_path.iterdir()) == []


def test_a_job_ends_by_itself_when_its_lease_is_taken_away(tmp_path: Path) -> None:
    """And what it did before is told from the file that is watched."""
    watched = tmp_path / "index.json"
    watched.write_text("before")
    work = f'echo after >{watched}; while [ -e "$APPLIANCE_LEASE" ]; do :; done; exit 75'
    job = start(tmp_path, "sh", "-c", work, watch=str(watched))
    while watched.read_text() != "after\n":
        pass
    assert remote_job.stopped(sh(remote_job.stop_script(job, watch=str(watched)))) is True


def test_a_job_that_is_stopped_before_it_was_started_never_runs(tmp_path: Path) -> None:
    """The node that has no such job cannot say more; the one that has just made its directory has changed nothing."""
    directory = remote_job.new_directory(str(tmp_path))
    assert remote_job.stopped(sh(remote_job.stop_script(directory))) is None
    late = remote_job.start_script(directory, ["touch", str(tmp_path / "ran")])
    done = subprocess.run(["/bin/sh"], input=late, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and not (tmp_path / "ran").exists()
    assert remote_job.stopped(sh(remote_job.stop_script(directory))) is False
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_was_left_alone_takes_away_what_nobody_else_would(tmp_path: Path) -> None:
    (scratch := tmp_path / "it's scratch").mkdir()
    job = start(tmp_path, "sh", "-c", "exit 75", cleanup=(str(scratch),))
    assert until_ended(job).code == remote_job.LEASE_OVER
    assert not scratch.exists()
    (kept := tmp_path / "kept").mkdir()
    assert until_ended(start(tmp_path, "true", cleanup=(str(kept),))).code == 0
    assert kept.exists(), "the controller is there, and removes it"


def test_a_job_that_was_killed_is_lost_and_one_that_was_removed_is_gone(tmp_path: Path) -> None:
    job = start(tmp_path, "sh", "-c", "kill -KILL $PPID")
    assert until_ended(job).word == "lost"
    sh(remote_job.remove_script(job))
    assert remote_job.state(sh(remote_job.poll_script(job))).word == "gone"


def test_jobs_of_a_controller_that_never_came_back_are_swept(tmp_path: Path) -> None:
    for name, age in (("old", 0), ("new", None)):
        (left := tmp_path / f"appliance-job.{name}").mkdir()
        if age is not None:
            os.utime(left, (age, age))
    until_ended(start(tmp_path, "true"))
    assert not (tmp_path / "appliance-job.old").exists()
    assert (tmp_path / "appliance-job.new").exists()


def test_a_node_that_cannot_start_it_says_so() -> None:
    with pytest.raises(ValueError, match="no output"):
        remote_job.check_started("")


@given(st.text())
def test_no_answer_of_a_node_breaks_the_reader(output: str) -> None:
    remote_job.state(output)
    remote_job.stopped(output)
