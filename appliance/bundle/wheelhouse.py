"""Everything Python that a node needs, in one directory: wheels, and a requirements file that holds their hashes.

A node installs from it with no network and no compiler: ``pip install --no-index --require-hashes``. The result is

    wheelhouse/*.whl    the locked packages, the appliance itself, and pip (which runs straight from its wheel)
    requirements.txt    one line a package: name, version, the SHA-256 of the one wheel that is here

Run it on a connected machine from a checkout: ``python -m appliance.bundle.wheelhouse DEST``.
"""

from __future__ import annotations

import argparse
import contextlib
import email.parser
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from appliance.errors import ApplianceError, fail

ROOT = Path(__file__).resolve().parents[2]
"""The checkout that this module belongs to."""

MANIFEST = "wheelhouse.json"
"""What the wheelhouse was made from and what it holds; it decides whether one that is there can be kept."""

_EPOCH = "1577836800"
"""Time stamp in our own wheel (2020-01-01 UTC), so that one source gives one wheel, wherever it is built."""

_GLIBC = ("2_28", "2_26", "2_24", "2_17")
"""glibc levels that a wheel may ask for: the newest is that of EL 8 and Debian 10 (PEP 600)."""


def build_wheelhouse(destination: Path, python: str = "3.11", arch: str = "x86_64") -> None:
    """Make the wheelhouse, or leave it alone where nothing that it was made from has changed.

    It is built beside the destination and put in its place by rename, so a failure leaves what was there.

    :param destination: directory to hold ``wheelhouse/`` and ``requirements.txt``.
    :param python: Python version of the nodes, ``3.10`` to ``3.13``.
    :param arch: machine name of the nodes, ``x86_64`` or ``aarch64``.
    :raises ApplianceError: APL-0790 where there is no checkout to build from, APL-0791 where a wheel could not be
        fetched or built.
    """
    inputs = _inputs(python, arch)
    if is_current(destination, inputs):
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}-") as name:
        work = Path(name)
        made = work / "made"
        wheels = made / "wheelhouse"
        wheels.mkdir(parents=True)
        old = destination / "wheelhouse"
        runtime, build = ROOT / "requirements/runtime.txt", ROOT / "requirements/build.txt"
        _download(runtime, wheels, old, [*_target(python, arch), "--only-binary=:all:"])
        _download(build, work / "build", old, ["--only-binary=:all:"])
        for wheel in (work / "build").glob("pip-*.whl"):
            shutil.copy2(wheel, wheels)
        _build_own(wheels, work)
        entries = [wheel_entry(wheel) for wheel in sorted(wheels.glob("*.whl"))]
        (made / "requirements.txt").write_text(requirements_text(entries), encoding="utf-8")
        # setuptools is kept for the next build; nodes never see it.
        shutil.copytree(work / "build", made / "build")
        manifest = {"inputs": inputs, "files": file_digests(made)}
        (made / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        made.chmod(0o755)
        _swap(made, destination, work / "old")


def is_current(destination: Path, inputs: dict[str, str]) -> bool:
    """Whether a wheelhouse was made from these inputs and its files are still what they were."""
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
    """A requirements file with hashes for (name, version, SHA-256) of each wheel; pip is left out: it runs from its wheel."""
    lines = [
        f"{name}=={version} --hash=sha256:{digest}"
        for name, version, digest in sorted(entries, key=lambda entry: entry[0].lower())
        if name != "pip"
    ]
    return "".join(f"{line}\n" for line in lines)


def _inputs(python: str, arch: str) -> dict[str, str]:
    """SHA-256 of every file the wheelhouse is made from, by path, and the target."""
    files = [ROOT / name for name in ("requirements/runtime.txt", "requirements/build.txt", *_OWN_FILES)]
    missing = [str(path) for path in files[:3] if not path.is_file()]
    if missing:
        fail(
            "APL-0790",
            "there is nothing to build a wheelhouse from",
            where=str(ROOT),
            why=f"missing: {', '.join(missing)}",
            fix="Run this from a checkout of the appliance, not from an installed one",
        )
    found = {path.relative_to(ROOT).as_posix(): _sha256(path) for path in (*files, *_sources()) if path.is_file()}
    return {"python": python, "arch": arch, **found}


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


def _download(lock: Path, into: Path, old: Path, options: Sequence[str]) -> None:
    """Fetch what a lock names; from the wheelhouse of last time alone where that has everything."""
    argv = ["download", "--no-deps", "--require-hashes", "-r", str(lock), "-d", str(into), *options]
    kept = [f"--find-links={path}" for path in (old, old.parent / "build") if path.is_dir()]
    if kept:
        with contextlib.suppress(ApplianceError):
            _pip([*argv, "--no-index", *kept], lock)
            return
    _pip(argv, lock)


def _build_own(wheels: Path, work: Path) -> None:
    """Build the appliance's wheel with the locked setuptools, from a copy, so that the checkout stays clean."""
    tools, source = work / "tools", work / "source"
    lock = ROOT / "requirements/build.txt"
    own = ["install", "--no-deps", "--no-index", f"--find-links={work / 'build'}", "--require-hashes"]
    _pip([*own, "--no-compile", "--target", str(tools), "-r", str(lock)], lock)
    shutil.copytree(ROOT / "appliance", source / "appliance", ignore=shutil.ignore_patterns("__pycache__"))
    for name in _OWN_FILES:
        if (ROOT / name).is_file():
            shutil.copy2(ROOT / name, source)
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": str(tools), "SOURCE_DATE_EPOCH": _EPOCH}
    _run([sys.executable, "-c", code, str(wheels)], source, environment, "the appliance's own wheel")


def _pip(arguments: Sequence[str], lock: Path) -> None:
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q", *arguments]
    _run(argv, ROOT, dict(os.environ), lock.name)


def _run(argv: Sequence[str], directory: Path, environment: dict[str, str], what: str) -> None:
    done = subprocess.run(argv, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        fail(
            "APL-0791",
            f"cannot make the wheelhouse: {what}",
            why=" / ".join(line.strip() for line in said[-4:]) or f"exit code {done.returncode}",
            fix="It needs a connected machine and pip; nothing was changed",
        )


def _swap(made: Path, destination: Path, aside: Path) -> None:
    """Put a new directory in the place of an old one; the old one comes back if that fails."""
    if destination.exists():
        destination.rename(aside)
    try:
        made.rename(destination)
    except OSError:
        if aside.exists():
            aside.rename(destination)
        raise


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, build, and say where it is; 1 after an error."""
    parser = argparse.ArgumentParser(prog="python -m appliance.bundle.wheelhouse", description=__doc__.splitlines()[0])
    parser.add_argument("destination", type=Path, metavar="DEST")
    parser.add_argument("--python", default="3.11", help="Python version of the nodes (default: %(default)s)")
    parser.add_argument("--arch", default="x86_64", choices=("x86_64", "aarch64"), help="machine of the nodes")
    options = parser.parse_args(argv)
    try:
        build_wheelhouse(options.destination, options.python, options.arch)
    except ApplianceError as error:
        print(error, file=sys.stderr)
        return 1
    print(options.destination)
    return 0


if __name__ == "__main__":
    sys.exit(main())
