"""Builder of the wheelhouse: everything Python that a node needs, in one directory, with a requirements file of hashes.

A node installs from it with no network and no compiler: ``pip install --no-index --require-hashes``. The result is

    wheelhouse/*.whl    the locked packages, the appliance itself, and pip (which runs straight from its wheel)
    requirements.txt    one line a package: name, version, the SHA-256 of each of its wheels that are here

Run it on a connected machine from a checkout: ``python3 -m appliance.release.wheelhouse DEST``. It uses nothing but Python's
own library and pip, so that the distribution's Python is enough.
"""

from __future__ import annotations

import argparse
import contextlib
import email.parser
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from appliance.errors import ApplianceError, fail, make_error

ROOT = Path(__file__).resolve().parents[2]
"""The checkout that this module belongs to."""

MANIFEST = "wheelhouse.json"
"""What the wheelhouse was made from and what it holds; it decides whether one that is there can be kept."""

_EPOCH = "1577836800"
"""Time stamp in our own wheel (2020-01-01 UTC), so that one source gives one wheel, wherever it is built."""

_GLIBC = ("2_28", "2_26", "2_24", "2_17")
"""glibc levels that a wheel may ask for: the newest is that of EL 8 and Debian 10 (PEP 600)."""


PYTHONS = ("3.10", "3.11", "3.12", "3.13")
"""Python versions of the nodes that the locks are made for."""

ARCHES = ("x86_64", "aarch64")
"""Machine names of the nodes."""


def build_wheelhouse(destination: Path, pythons: Sequence[str] = PYTHONS, arches: Sequence[str] = ARCHES[:1]) -> None:
    """Make the wheelhouse, or leave it alone where nothing that it was made from has changed.

    It is built beside the destination and put in its place by rename, so that a failure leaves what was there. What a
    killed build left is removed by the next one.

    :param destination: directory to hold ``wheelhouse/`` and ``requirements.txt``; absent, empty or a wheelhouse.
    :param pythons: Python versions of the nodes.
    :param arches: machine names of the nodes.
    :raises ApplianceError: APL-0790 where there is no checkout to build from, APL-0791 where a wheel could not be
        fetched or built, APL-0753 where pip is missing, APL-0754 where the destination is something else.
    """
    # pip and the build of our own wheel run in other directories than the caller's.
    destination = destination.resolve()
    inputs = _inputs(pythons, arches)
    _refuse_other_directories(destination)
    with _work_directory(destination) as work:
        if is_current(destination, inputs):
            return
        made = work / "made"
        _fill(made, work, destination / "wheelhouse", [(python, arch) for python in pythons for arch in arches])
        manifest = {"inputs": inputs, "files": file_digests(made)}
        (made / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        _swap(made, destination, work / "old")


def _fill(made: Path, work: Path, old: Path, targets: Sequence[tuple[str, str]]) -> None:
    """Make the content of a wheelhouse, without its manifest.

    :param old: wheels of last time; what is there is not fetched again.
    :param targets: Python version and machine name of each kind of node.
    """
    wheels = made / "wheelhouse"
    wheels.mkdir(parents=True)
    made.chmod(0o755)
    runtime, build = ROOT / "requirements/runtime.txt", ROOT / "requirements/build.txt"
    pip = _pip_command(work)
    for python, arch in targets:
        _download(pip, runtime, wheels, old, [*_target(python, arch), "--only-binary=:all:"])
    # Kept for the next build; nodes never see it.
    _download(pip, build, made / "build", old, ["--only-binary=:all:"])
    for wheel in (made / "build").glob("pip-*.whl"):
        shutil.copy2(wheel, wheels)
    _build_own(wheels, made / "build", work)
    entries = [wheel_entry(wheel) for wheel in sorted(wheels.glob("*.whl"))]
    (made / "requirements.txt").write_text(requirements_text(entries), encoding="utf-8")


def _refuse_other_directories(destination: Path) -> None:
    """Refuse a destination that holds anything but a wheelhouse: it would be removed."""
    if not destination.exists():
        return
    own = {"wheelhouse", "build", "requirements.txt", MANIFEST}
    names = [path.name for path in sorted(destination.iterdir())] if destination.is_dir() else ["a file"]
    strange = names if "requirements.txt" not in names else [name for name in names if name not in own]
    if strange:
        fail(
            "APL-0754",
            "the destination is not a wheelhouse",
            where=str(destination),
            why=f"it holds {', '.join(strange[:3])}, and everything in it would be replaced",
            fix="Name a directory that does not exist yet, such as build/wheelhouse",
        )


@contextlib.contextmanager
def _work_directory(destination: Path) -> Iterator[Path]:
    """Make an empty directory beside the destination, for one build at a time; what a killed build left in it goes."""
    work = destination.parent / f".{destination.name}.new"
    work.mkdir(parents=True, exist_ok=True)
    handle = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fail(
                "APL-0791",
                "another build of this wheelhouse is running",
                where=str(destination),
                fix="Wait for its end",
            )
        try:
            _put_back(work, destination)
            for left in work.iterdir():
                shutil.rmtree(left)
            yield work
        finally:
            _put_back(work, destination)
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(handle)


def _put_back(work: Path, destination: Path) -> None:
    """Put the old wheelhouse back where a build was ended between the two renames."""
    if (work / "old").exists() and not destination.exists():
        (work / "old").rename(destination)


def is_current(destination: Path, inputs: dict[str, str]) -> bool:
    """Return whether a wheelhouse was made from these inputs and its files are still what they were."""
    try:
        manifest = json.loads((destination / MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest["inputs"] == inputs and manifest["files"] == file_digests(destination))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def file_digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below a directory, by path; the manifest itself is left out."""
    return {
        path.relative_to(directory).as_posix(): _sha256(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def wheel_entry(wheel: Path) -> tuple[str, str, str]:
    """Name, version and SHA-256 of a wheel, read from its own metadata (core metadata specification)."""
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        fields = email.parser.BytesParser().parsebytes(archive.read(member), headersonly=True)
    return str(fields["Name"]), str(fields["Version"]), _sha256(wheel)


def requirements_text(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return a requirements file with the hashes of each wheel; pip is left out: it runs from its wheel.

    :param entries: name, version and SHA-256 of each wheel; a package has a wheel for each kind of node.
    """
    digests: dict[tuple[str, str], list[str]] = {}
    for name, version, digest in entries:
        if name != "pip":
            digests.setdefault((name, version), []).append(digest)
    lines = [
        f"{name}=={version}" + "".join(f" --hash=sha256:{digest}" for digest in sorted(found))
        for (name, version), found in sorted(digests.items(), key=lambda item: (item[0][0].lower(), item[0][1]))
    ]
    return "".join(f"{line}\n" for line in lines)


def _inputs(pythons: Sequence[str], arches: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of every file the wheelhouse is made from, by path, and the targets."""
    files = [ROOT / name for name in ("requirements/runtime.txt", "requirements/build.txt", *_OWN_FILES)]
    missing = [str(path) for path in files[:3] if not path.is_file()]
    if missing:
        fail(
            "APL-0790",
            "the sources of the wheelhouse are missing",
            where=str(ROOT),
            why=f"missing: {', '.join(missing)}",
            fix="Run this from a checkout of the appliance, not from an installed one",
        )
    found = {path.relative_to(ROOT).as_posix(): _sha256(path) for path in (*files, *_sources()) if path.is_file()}
    return {"python": " ".join(pythons), "arch": " ".join(arches), **found}


_OWN_FILES = ("pyproject.toml", "README.md", "LICENSE")


def _sources() -> Iterator[Path]:
    for path in sorted((ROOT / "appliance").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _target(python: str, arch: str) -> list[str]:
    """pip's options for a machine other than this one; pip wants all of them once one is given."""
    options = ["--python-version", python, "--implementation", "cp"]
    options += [f"--platform=manylinux_{level}_{arch}" for level in _GLIBC]
    # The older names of the same two levels (PEP 599, PEP 571) are still on some wheels.
    options += [f"--platform=manylinux2014_{arch}", f"--platform=manylinux2010_{arch}", f"--platform=linux_{arch}"]
    return [*options, "--abi", f"cp{python.replace('.', '')}", "--abi", "abi3", "--abi", "none"]


def _download(pip: Sequence[str], lock: Path, into: Path, old: Path, options: Sequence[str]) -> None:
    """Fetch what a lock names; from the wheelhouse of last time alone where that has everything."""
    kept = [f"--find-links={path}" for path in (old, old.parent / "build") if path.is_dir()]
    argv = ["download", "--no-deps", "--require-hashes", "-r", str(lock), "-d", str(into), *options, *kept]
    if kept:
        with contextlib.suppress(ApplianceError):
            _pip(pip, [*argv, "--no-index"], lock)
            return
    _pip(pip, argv, lock)


def _build_own(wheels: Path, build: Path, work: Path) -> None:
    """Build the appliance's wheel with the locked setuptools, from a copy, so that the checkout stays clean.

    Python runs without site-packages, variables and files of this machine: another setuptools in them makes no wheel.

    :param build: the locked wheels of what builds.
    """
    tools, source = work / "tools", work / "source"
    # setuptools is pure Python and brings what it needs: unpacked is installed.
    for wheel in build.glob("setuptools-*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tools)
    shutil.copytree(ROOT / "appliance", source / "appliance", ignore=shutil.ignore_patterns("__pycache__"))
    for name in _OWN_FILES:
        if (ROOT / name).is_file():
            shutil.copy2(ROOT / name, source)
    code = "import sys; sys.path.insert(0, sys.argv[1]); from setuptools import build_meta; build_meta.build_wheel(sys.argv[2])"
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(work), "LC_ALL": "C.UTF-8"}
    argv = [sys.executable, "-I", "-S", "-c", code, str(tools), str(wheels)]
    what = "the appliance's own wheel"
    done = _run(argv, source, {**environment, "SOURCE_DATE_EPOCH": _EPOCH})
    if done.returncode != 0:
        _fail_with(what, _last_words(done), "The checkout may be incomplete: take a fresh one. Nothing was changed")
    if not any(wheels.glob("k3s_airgap_appliance-*.whl")):
        _fail_with(what, f"setuptools ended well and left none in {wheels}", "Nothing was changed")


def _pip_command(work: Path) -> list[str]:
    """Return the command that starts pip: this Python's, else that of a virtual environment made for it.

    Debian's Python has no pip of its own unless python3-pip is installed; with python3-venv it can make one.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    done = _run([sys.executable, "-I", "-m", "venv", str(work / "pip")], None, dict(os.environ))
    if done.returncode != 0:
        fail(
            "APL-0753",
            "pip is missing",
            where=sys.executable,
            why="it fetches the wheels, and there is no python3-venv either to make one",
            fix="Install it (Debian, Ubuntu: apt-get install python3-pip), or use the Python of a virtual environment",
        )
    return [str(work / "pip/bin/python"), "-m", "pip"]


def _pip(command: Sequence[str], arguments: Sequence[str], lock: Path) -> None:
    """Run pip with this machine's settings: they may name an index or a proxy."""
    argv = [*command, "--disable-pip-version-check", "--no-input", "-q", *arguments]
    done = _run(argv, None, {**os.environ, "PIP_REQUIRE_VIRTUALENV": "0"})
    if done.returncode != 0:
        fix = "Nothing was changed; run it again once that is mended"
        if _NO_CONNECTION.search(done.stderr):
            fix = "Nothing was changed. It needs a machine with internet, or an index that pip's configuration names"
        _fail_with(lock.name, _last_words(done), fix)


_NO_CONNECTION = re.compile(
    "Retrying|NewConnectionError|ConnectTimeout|Temporary failure|unreachable|timed out|ProxyError|SSLError|Max retries"
)
"""Words of pip and urllib3 where there is no way to the index."""


def _fail_with(what: str, why: str, fix: str) -> NoReturn:
    fail("APL-0791", f"cannot make the wheelhouse: {what}", why=why, fix=fix)


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return " / ".join(line.strip() for line in lines[-4:]) or f"exit code {done.returncode}"


def _run(argv: Sequence[str], directory: Path | None, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=directory, env=environment, capture_output=True, text=True, check=False)


def _swap(made: Path, destination: Path, aside: Path) -> None:
    """Put a new directory in the place of an old one; :func:`_put_back` undoes the first half."""
    if destination.exists():
        destination.rename(aside)
    made.rename(destination)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _version(text: str) -> str:
    """Read the Python version of nodes from the command line: ``3.11``, and ``3.11.2`` for the same."""
    match = re.fullmatch(r"3\.(\d{1,2})(?:\.\d+)?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a Python version such as 3.11")
    if int(match[1]) < 10:
        raise argparse.ArgumentTypeError(f"the appliance's services need Python 3.10 or newer, not {text}")
    return f"3.{match[1]}"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, build, and print where it is; 1 after an error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python3 -m appliance.release.wheelhouse",
        description="Build the wheelhouse that the nodes' services are installed from. Needs internet or an index, and pip.",
    )
    parser.add_argument("destination", type=Path, metavar="DEST", help="directory for it, such as build/wheelhouse")
    parser.add_argument(
        "--python",
        action="append",
        type=_version,
        help=f"Python version of the nodes; may be given several times (default: {', '.join(PYTHONS)})",
    )
    parser.add_argument(
        "--arch",
        action="append",
        choices=ARCHES,
        help=f"machine of the nodes; may be given several times (default: {ARCHES[0]})",
    )
    options = parser.parse_args(argv)
    pythons = sorted(set(options.python or PYTHONS), key=lambda version: int(version.split(".")[1]))
    try:
        build_wheelhouse(options.destination, pythons, sorted(set(options.arch or ARCHES[:1])))
    except ApplianceError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        where, why = str(error.filename or options.destination), error.strerror or str(error)
        print(make_error("APL-0791", "cannot make the wheelhouse", where=where, why=why), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"Interrupted. {options.destination} is what it was before.", file=sys.stderr)
        return 130
    print(f"The wheelhouse is in {options.destination}: Python {', '.join(pythons)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
