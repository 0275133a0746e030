"""Other releases of the appliance than this checkout, each as a tree with its own playbooks and its own wheelhouse."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.lab.base import REPOSITORY, LabError, cache_dir, run

_COMMIT = re.compile(r"^## \[0\.1\.0\].*?commit `([0-9a-f]{7,40})`", re.MULTILINE | re.DOTALL | re.IGNORECASE)


def first_release(tree: Path) -> Path:
    """Release 0.1.0: the commit that the changelog names, taken out of git.

    :raises LabError: where this clone does not have it.
    """
    found = _COMMIT.search((REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"))
    if found is None:
        raise LabError("CHANGELOG.md names no commit for 0.1.0")
    commit = found[1]
    if run(["git", "-C", REPOSITORY, "cat-file", "-e", f"{commit}^{{commit}}"], check=False).returncode != 0:
        raise LabError(f"this clone does not hold commit {commit}, release 0.1.0: git fetch --unshallow")
    tree.mkdir(parents=True)
    packed = tree.with_suffix(".tar")
    run(["git", "-C", REPOSITORY, "archive", "--output", packed, commit])
    run(["tar", "-xf", packed, "-C", tree])
    packed.unlink()
    return tree


def this_release(tree: Path, version: str, *, broken: bool = False) -> Path:
    """This checkout under another version.

    :param broken: its services end as soon as they are started.
    """
    listed = run(["git", "-C", REPOSITORY, "ls-files", "-z", "appliance", "roles", "collections", "playbooks", "requirements",
                  "site.yml", "ansible.cfg", "pyproject.toml", "README.md", "LICENSE"]).stdout  # fmt: skip
    for name in listed.split("\0")[:-1]:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, tree / name)
    own = tree / "appliance/__init__.py"
    own.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', own.read_text()))
    if broken:
        start = tree / "appliance/server/start.py"
        start.write_text(start.read_text() + '\n\nraise SystemExit("broken on purpose")\n')
    return tree


def wheelhouse(tree: Path) -> Path:
    """Build a tree's wheelhouse by its own means; what this checkout's holds already is not fetched again."""
    target = tree / "build/wheelhouse"
    shutil.copytree(cache_dir() / "wheelhouse", target)
    done = subprocess.run(
        [sys.executable, "-m", "appliance.release.wheelhouse", str(target)],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"the wheelhouse of {tree.name} cannot be built:\n{done.stdout}{done.stderr}")
    return target
