# SPDX-License-Identifier: Apache-2.0
"""Releases of the appliance on a host: which are there, which one is current, and how one is put in place.

Everything works on a root directory that is given (``/opt/appliance``), so that tests use one of their own::

    releases/<version>/venv             a virtual environment, made at its final path: its scripts name that path
    releases/<version>/complete.json    written last; without it the release does not count
    current -> releases/<version>       replaced by one rename
    fallback.json                       the release and the files with which the services last ran well
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

MARKER = "complete.json"
FALLBACK = "fallback.json"


class ReleaseError(Exception):
    """A release could not be installed; the message says what, why and what to do."""


def marker(release: Path) -> Optional[Dict[str, Any]]:
    """Return what a complete release says of itself, None where it is missing, unfinished or without its interpreter.

    An interpreter goes away when the host's Python is upgraded: the environment is of no use then.
    """
    try:
        found = json.loads((release / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or not os.access(str(release / "venv" / "bin" / "python"), os.X_OK):
        return None
    return found


def current(root: Path) -> Optional[str]:
    """Return the name of the release that ``current`` points to, None where there is no such link."""
    try:
        return Path(os.readlink(str(root / "current"))).name
    except OSError:
        return None


def name_for(root: Path, version: str, wanted: Dict[str, Any]) -> str:
    """Return the name under which a release goes: its version, or version and digest beside another of that version.

    Two builds of one version happen in development. The one that runs is never overwritten.
    """
    beside = f"{version}+{wanted['digest'][:8]}"
    if marker(root / "releases" / beside) == wanted:
        return beside
    taken = marker(root / "releases" / version)
    if taken == wanted or (taken is None and current(root) != version):
        return version
    return beside


def installed(root: Path, version: str, wanted: Dict[str, Any]) -> bool:
    """Return whether the wanted release is complete and current."""
    name = name_for(root, version, wanted)
    return current(root) == name and marker(root / "releases" / name) == wanted


def unpack(archive: Path, into: Path) -> None:
    """Unpack the wheelhouse: regular files only, by their own names."""
    with tarfile.open(str(archive), mode="r:") as tar:
        for member in tar:
            source = tar.extractfile(member) if member.isfile() else None
            if source is None or member.name != os.path.basename(member.name):
                raise ReleaseError(f"APL-0762: the wheelhouse's archive holds something odd: {member.name}")
            with source, open(str(into / member.name), "wb") as target:
                shutil.copyfileobj(source, target)


def commands(release: Path, wheels: Path, python: str) -> List[List[str]]:
    """Return the commands that make the environment. pip runs from its own wheel: hosts often lack ensurepip.

    Python runs isolated (``-I``): neither PYTHON* variables nor a user's site-packages reach it. pip's own settings are
    left out by :func:`_environment`; ``--isolated`` does not leave out /etc/pip.conf.
    """
    interpreter = str(release / "venv" / "bin" / "python")
    pip = next((str(path / "pip") for path in sorted(wheels.glob("pip-*.whl"))), "")
    if not pip:
        raise ReleaseError(
            "APL-0762: the wheelhouse holds no pip wheel. Build it again: python3 -m appliance.release.wheelhouse build/wheelhouse"
        )
    install = [interpreter, "-I", pip, "install", "--isolated", "--no-input", "--quiet", "--disable-pip-version-check"]
    install += ["--no-cache-dir", "--no-index", "--find-links", str(wheels), "--require-hashes", "--only-binary=:all:"]
    return [
        [python, "-I", "-m", "venv", "--without-pip", str(release / "venv")],
        [*install, "--no-deps", "-r", str(wheels / "requirements.txt")],
    ]


def install(root: Path, version: str, wanted: Dict[str, Any], archive: Path, work: Path) -> str:
    """Install a release beside the one that runs; return its name.

    After a failure on the way the half-made directory does not count, and is made anew next time.

    :param wanted: ``digest`` of the requirements file and ``python``, the interpreter with its version.
    :param archive: uncompressed tar of the wheels and requirements.txt.
    :param work: scratch directory.
    """
    name = name_for(root, version, wanted)
    release = root / "releases" / name
    if marker(release) != wanted:
        if release.exists():
            shutil.rmtree(str(release))
        release.mkdir(parents=True, mode=0o755)
        unpack(archive, work)
        for argv in commands(release, work, wanted["python"]):
            done = subprocess.run(
                argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, env=_environment()
            )
            if done.returncode != 0:
                said = " / ".join(done.stdout.decode(errors="replace").split("\n")[-6:]).strip(" /")
                raise ReleaseError(
                    f"APL-0763: cannot install the appliance into {release}: {said}. Nothing that runs was changed."
                    " If a hash does not match, the wheelhouse is damaged: copy it again from its medium, or build it again"
                )
        write_durably(release / MARKER, json.dumps(wanted, sort_keys=True) + "\n")
    return name


def flip(root: Path, name: str) -> None:
    """Point ``current`` at a release, by one rename."""
    temporary = root / ".current.new"
    if os.path.lexists(str(temporary)):
        temporary.unlink()
    os.symlink(os.path.join("releases", name), str(temporary))
    os.replace(str(temporary), str(root / "current"))
    _sync(root)


def prune(root: Path, keep: int, also: Sequence[str] = ()) -> List[str]:
    """Remove releases that are neither current nor among the newest; return their names.

    :param keep: how many stay, the current one counted.
    :param also: names of those that stay in any case.
    """
    stay = {current(root), *also}
    others = [path for path in (root / "releases").iterdir() if path.is_dir() and path.name not in stay]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    gone = others[max(0, keep - len(stay - {None})) :]
    for path in gone:
        shutil.rmtree(str(path))
    return sorted(path.name for path in gone)


def snapshot(root: Path, files: Sequence[str]) -> Dict[str, Any]:
    """Return the release that is current, and the files with owner and mode; None for one that is not there."""
    found: Dict[str, Any] = {}
    for name in files:
        try:
            with open(name, "rb") as file:
                status, content = os.fstat(file.fileno()), file.read()
        except FileNotFoundError:
            found[name] = None
            continue
        found[name] = {
            "content": base64.b64encode(content).decode("ascii"),
            "mode": stat.S_IMODE(status.st_mode),
            "uid": status.st_uid,
            "gid": status.st_gid,
        }
    return {"release": current(root), "files": found}


def kept(root: Path) -> Optional[Dict[str, Any]]:
    """Return what :func:`keep` wrote last, None where there is none that could be gone back to."""
    try:
        found = json.loads((root / FALLBACK).read_text(encoding="utf-8"))
        usable = marker(root / "releases" / found["release"]) is not None and isinstance(found["files"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if usable else None


def keep(root: Path, state: Dict[str, Any]) -> None:
    """Keep a snapshot as what can be gone back to. It holds hashed passwords: only root may read it."""
    write_durably(root / FALLBACK, json.dumps(state, sort_keys=True) + "\n", 0o600)


def go_back(root: Path, state: Dict[str, Any]) -> None:
    """Put the files of a snapshot in place, and point ``current`` at its release. Running it again finishes it."""
    for name, wanted in state["files"].items():
        path = Path(name)
        if wanted is None:
            if path.exists():
                path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.back")
        with open(str(temporary), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            os.fchown(file.fileno(), wanted["uid"], wanted["gid"])
            file.write(base64.b64decode(wanted["content"]))
            os.fchmod(file.fileno(), wanted["mode"])
            file.flush()
            os.fsync(file.fileno())
        os.replace(str(temporary), name)
        _sync(path.parent)
    flip(root, state["release"])


def write_durably(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a small file so that it is whole or absent after a power loss."""
    temporary = path.with_name("." + path.name)
    with open(str(temporary), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    # The files of the environment go to the disk before the mark that says they are there.
    os.sync()
    os.replace(str(temporary), str(path))
    _sync(path.parent)


def _sync(directory: Path) -> None:
    handle = os.open(str(directory), os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _environment() -> Dict[str, str]:
    """Return an environment without the settings of the caller and the host for Python and pip.

    Where PIP_CONFIG_FILE is the null device, pip reads no configuration file at all. The module sets the umask.
    """
    return {
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "LC_ALL": "C.UTF-8",
        "HOME": "/nonexistent",
        "PIP_CONFIG_FILE": os.devnull,
    }
