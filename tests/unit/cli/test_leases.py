"""Commands that a playbook runs: each ends with its controller, and changes nothing without it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.archives import sandbox
from appliance.lease import EXIT_CODE, VARIABLE, Lease, refuse
from tests.unit.store import made

A = "docker.io/library/a:1"
Run = Callable[..., Any]


@pytest.fixture
def store(run: Run, tmp_path: Path) -> Path:
    """A store with an older generation, and something that nothing needs."""
    blobs = made.open_store(tmp_path / "store")
    for number in (1, 2, 3):
        made.publish(blobs, {A: made.image(number)})
    assert run("backup", "store", "--store", tmp_path / "store", tmp_path / "backup.tar").code == 0
    made.forget(blobs, 1)
    return tmp_path / "store"


COMMANDS = {
    "gc": ("gc", "--grace", "0"),
    "gc plan": ("gc", "--grace", "0", "--plan"),
    "rollback": ("rollback", "--to", "2"),
    "rollback plan": ("rollback", "--to", "2", "--plan"),
    "backup": ("backup", "store", "out.tar"),
    "restore": ("backup", "restore", "--over", "backup.tar"),
}
CHANGING = ("gc", "rollback", "restore")


@pytest.mark.parametrize("name", COMMANDS)
def test_without_its_controller_a_command_ends_before_it_begins(store: Path, name: str) -> None:
    before = made.tree(store)
    done = subprocess.run(
        [sys.executable, "-m", "appliance", *COMMANDS[name], "--store", str(store)],
        cwd=store.parent,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
            VARIABLE: str(store.parent / "gone"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.partition(":")[0]) == (EXIT_CODE, "APL-0345"), done.stderr
    assert made.tree(store) == before and not (store.parent / "out.tar").exists()


@pytest.mark.parametrize("name", CHANGING)
def test_nothing_changes_before_the_next_sign_of_life(
    run: Run, store: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (store.parent / "lease").touch()
    monkeypatch.setenv(VARIABLE, str(store.parent / "lease"))
    monkeypatch.chdir(store.parent)
    monkeypatch.setattr(Lease, "await_sign", lambda _: refuse())
    names, blobs = (store / "index.json").read_bytes(), made.tree(store / "blobs")
    done = run(*COMMANDS[name], "--store", store)
    assert (done.code, done.err.partition(":")[0]) == (1, "APL-0345"), done.err
    assert (store / "index.json").read_bytes() == names and made.tree(store / "blobs") == blobs


@pytest.mark.parametrize("name", COMMANDS)
def test_a_lease_is_opened_before_the_rights_to_open_it_are_given_up(
    run: Run, store: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It lies in a directory of root's: a rollback that looked for it as the store's owner ended with APL-0345."""
    lease = store.parent / "lease"
    lease.touch()
    monkeypatch.setenv(VARIABLE, str(lease))
    monkeypatch.chdir(store.parent)
    monkeypatch.setattr(Lease, "await_sign", lambda _: None)
    # Whoever has opened it does not notice the new name.
    monkeypatch.setattr(sandbox, "drop_privileges", lambda _: lease.exists() and lease.rename(store.parent / "hidden"))
    done = run(*COMMANDS[name], "--store", store)
    assert done.code == 0, done.err
