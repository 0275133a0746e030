"""A copy of the checkout in which commands of the manual are typed: nothing that they make stays in the real one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.docs.generate import ROOT


def copy_checkout(target: Path, *, with_venv: bool = False) -> Path:
    """Copy what git knows of the checkout, as it lies there now, with its times; returns the copy.

    :param with_venv: link the checkout's virtual environment there, so that no target of make builds another one.
    """
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split(b"\0")):
        source, copy = ROOT / os.fsdecode(name), target / os.fsdecode(name)
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
    if with_venv:
        (target / ".venv").symlink_to(ROOT / ".venv")
    return target


def typed(command: str, directory: Path, timeout: float = 110) -> str:
    """Run a line as an operator types it into bash there; returns what it printed.

    :raises AssertionError: where it fails, with what it said.
    """
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        # As make gives them to its own make: a target must not take over what the run of the tests was given.
        env={name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))},
    )
    assert done.returncode == 0, f"$ {command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout
