# SPDX-License-Identifier: Apache-2.0
"""Checks of what the operator brought: K3s's files and the wheelhouse on the controller, and the media on their node."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.site.appliance.plugins.modules import k3s_artifacts_info as artifacts
from ansible_collections.site.appliance.plugins.plugin_utils import wheels
from ansible_collections.site.appliance.plugins.plugin_utils.findings import (
    CONTROLLER,
    Problem,
    from_line,
    named,
    problem,
)

_NOT_SET = "Set it in the inventory to the path on the controller: docs/tutorial/first-site.md says which files a K3s release has."
_BY_HAND = "Correct the path in the inventory, or bring the file: docs/tutorial/first-site.md says which ones a K3s release has."
#: The first bytes of what an ending promises; a tar begins with a name, and its own mark stands later.
_MAGIC = {
    (".gz", ".tgz"): (0, (b"\x1f\x8b",)),
    (".zst", ".tzst"): (0, (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + low]) + b"\x2a\x4d\x18" for low in range(16)))),
    (".bz2", ".tbz"): (0, (b"BZh",)),
    (".lz4",): (0, (b"\x04\x22\x4d\x18",)),
    (".tar",): (257, (b"ustar",)),
}


@dataclasses.dataclass(frozen=True)
class K3sFiles:
    """The files that K3s is installed from on one host, as the inventory names them.

    :param architecture: the host's machine name; empty where the host did not say it.
    """

    binary: str
    checksums: tuple[str, ...]
    images: tuple[str, ...]
    architecture: str

    @classmethod
    def of(cls, variables: Mapping[str, Any], architecture: str) -> K3sFiles:
        """Make one from a host's variables."""
        return cls(
            str(variables.get("k3s_binary") or ""),
            _listed(variables.get("k3s_checksums")),
            _listed(variables.get("k3s_airgap_images")),
            architecture,
        )


def _listed(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    return (str(value),) if isinstance(value, (str, Path)) else tuple(str(item) for item in value if item)


def resolve(name: str, base: Path) -> Path:
    """Return the path on the controller that a variable means: ``~`` and ``$HOME`` are expanded.

    :param base: directory of ``site.yml``, which a relative path starts from.
    """
    return base / os.path.expandvars(Path(name).expanduser())


def k3s_problems(wanted: Mapping[K3sFiles, Sequence[str]], base: Path) -> list[Problem]:
    """Return what is wrong with the files that K3s is installed from.

    :param wanted: the files, and the hosts that they are for.
    :param base: directory of ``site.yml``.
    """
    problems: list[Problem] = []
    for files, hosts in wanted.items():
        found = [*_binary_problems(files, base), *_image_problems(files.images, base)]
        whose = f" (for {named(hosts)})" if len(wanted) > 1 else ""
        for code, what, fix in found:
            entry = problem(code, CONTROLLER, what + whose, fix)
            if entry not in problems:
                problems.append(entry)
    return problems


_Finding = tuple[str, str, str]


def _binary_problems(files: K3sFiles, base: Path) -> list[_Finding]:
    """Check the binary against its file of checksums and the architecture."""
    found: list[_Finding] = []
    sums: dict[str, str] = {}
    if not files.binary:
        found.append(("APL-0822", "k3s_binary is not set: K3s is installed from that file", _NOT_SET))
    if not files.checksums:
        found.append(("APL-0822", "k3s_checksums is not set: the K3s binary is checked against that file", _NOT_SET))
    for name in files.checksums:
        path = resolve(name, base)
        if reason := _unreadable(path):
            found.append(("APL-0822", f"k3s_checksums: {reason} [{path}]", _BY_HAND))
        else:
            sums.update(artifacts.parse_checksums(path.read_text(encoding="utf-8", errors="replace")))
    if not files.binary:
        return found
    path = resolve(files.binary, base)
    if reason := _unreadable(path):
        return [*found, ("APL-0822", f"k3s_binary: {reason} [{path}]", _BY_HAND)]
    with path.open("rb") as file:
        head = file.read(4)
    # The lab's stand-in for K3s is a script.
    if head != b"\x7fELF" and head[:2] != b"#!":
        found.append(
            (
                "APL-0823",
                f"k3s_binary: the file is no program [{path}]",
                "Bring the file named k3s or k3s-arm64 of the release.",
            )
        )
    if sums and files.architecture:
        lines = artifacts.check_binary(path, sums, ", ".join(files.checksums), files.architecture)["problems"]
        for entry in (from_line(line, CONTROLLER) for line in lines):
            found.append((entry["id"], f"k3s_binary: {entry['what']}", entry["fix"] or _BY_HAND))
    return found


def _image_problems(images: Iterable[str], base: Path) -> list[_Finding]:
    """Check the image archives by name and first bytes; their checksums are read later, with the plan."""
    found: list[_Finding] = []
    for name in images:
        path = resolve(name, base)
        where = f"k3s_airgap_images: {{}} [{path}]"
        if reason := _unreadable(path):
            found.append(("APL-0822", where.format(reason), _BY_HAND))
        elif not path.name.endswith(artifacts.SUFFIXES) or path.name.startswith("."):
            found.append(
                (
                    "APL-0824",
                    where.format("K3s would not import this file"),
                    f"It imports {', '.join(artifacts.SUFFIXES)} only.",
                )
            )
        elif not _has_magic(path):
            found.append(
                (
                    "APL-0824",
                    where.format("the content is not what the ending says"),
                    "Bring the archive again, or give it its right name.",
                )
            )
    return found


def _unreadable(path: Path) -> str:
    """Say why a file cannot be used, or return nothing."""
    try:
        if path.is_dir():
            return "a directory, not a file"
        if not path.exists():
            return "there is no such file"
        if not path.is_file():
            return "not a regular file"
        with path.open("rb") as file:
            return "" if file.read(1) else "the file is empty"
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"


def _has_magic(path: Path) -> bool:
    for endings, (offset, starts) in _MAGIC.items():
        if path.name.endswith(endings):
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(8).startswith(starts)
    return True


# ------------------------------------------------------------------------------------------ the wheelhouse


def wheelhouse_problems(wanted: Mapping[Path, Mapping[wheels.Target, Sequence[str]]]) -> list[Problem]:
    """Return what is wrong with the wheelhouses, and which hosts they hold no wheels for.

    :param wanted: wheelhouse to the kinds of hosts that install from it, with their names.
    """
    problems = []
    for wheelhouse, targets in wanted.items():
        command = f"On a connected machine: {wheels.build_command(targets)}"
        problems += _wheelhouse_problems(wheelhouse, targets, command)
    return problems


def _wheelhouse_problems(
    wheelhouse: Path, targets: Mapping[wheels.Target, Sequence[str]], command: str
) -> list[Problem]:
    file = wheelhouse / "requirements.txt"
    try:
        text = file.read_text(encoding="utf-8")
        files = [path.name for path in (wheelhouse / "wheelhouse").iterdir() if path.name.endswith(".whl")]
        spoiled = wheels.damaged(wheelhouse, text)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        what = f"mirror_wheelhouse: there is no wheelhouse [{wheelhouse}]: {why}"
        return [problem("APL-0760", CONTROLLER, what, f"{command}. Bring it here, and set mirror_wheelhouse to it.")]
    required = wheels.required(text)
    if wheels.OWN not in required:
        what = f"mirror_wheelhouse: the wheelhouse does not hold the appliance [{file}]"
        return [problem("APL-0760", CONTROLLER, what, f"{command}.")]
    problems = []
    if not any(name.startswith("pip-") for name in files):
        what = f"mirror_wheelhouse: the wheelhouse holds no pip [{wheelhouse}]"
        problems.append(problem("APL-0762", CONTROLLER, what, f"{command}."))
    if spoiled:
        what = f"mirror_wheelhouse: not as they were built: {named(spoiled)} [{wheelhouse}/wheelhouse]"
        problems.append(
            problem("APL-0762", CONTROLLER, what, "Copy the wheelhouse again from its medium, or build it again.")
        )
    for target, hosts in targets.items():
        absent = wheels.missing(required, files, target)
        if absent:
            what = (
                f"mirror_wheelhouse: no wheels for {target} of {named(hosts)} [{wheelhouse}]: {named(absent)} missing"
            )
            fix = f"{command}. Or set mirror_python of these hosts to a Python that it has wheels for."
            problems.append(problem("APL-0713", CONTROLLER, what, fix))
    return problems


# ---------------------------------------------------------------------------------------------- the media


def media_problems(where: str, states: Mapping[str, Mapping[str, Any]], published: Iterable[str]) -> list[Problem]:
    """Return which media are not there, cannot be read, or hold nothing that could be an archive.

    :param where: the host that has them, or ``controller``.
    :param states: path to what ``host_state.source`` says of it.
    :param published: paths that were published before: a medium that is absent then is passed over.
    """
    known = set(published)
    problems = []
    for path, state in states.items():
        absent = not state["kind"] or (state["kind"] == "directory" and not state["files"])
        if absent and not state["error"] and path in known:
            continue
        finding = _media_finding(path, state)
        if finding:
            problems.append(problem(finding[0], where, f"seed_sources: {finding[1]} [{path}]", finding[2]))
    return problems


def _media_finding(path: str, state: Mapping[str, Any]) -> _Finding | None:
    plug = "Plug it in and mount it there, or take it out of seed_sources."
    if state["error"]:
        return (
            "APL-0101",
            f"the medium cannot be read: {state['error']}",
            "Look at it on that host (ls, dmesg), or mount it again.",
        )
    if not state["kind"]:
        return "APL-0101", "the medium is not there, and was never published", plug
    if state["kind"] == "other":
        return "APL-0101", "neither a file nor a directory", "Name the mount point of a device, not the device."
    if state["kind"] == "file":
        return None if state["bytes"] else ("APL-0122", "the file is empty", "Bring it again.")
    if not state["files"]:
        return "APL-0122", "the directory holds no files, and was never published: is the stick mounted?", plug
    if not state["candidates"]:
        examples = named(state["examples"], 3)
        return (
            "APL-0122",
            f"it holds {state['files']} file(s), none of which can be an archive: {examples}",
            "Is it the right stick?",
        )
    return None


def absent_media(states: Mapping[str, Mapping[str, Any]], published: Iterable[str]) -> list[str]:
    """Return the media that are not there and were published before."""
    known = set(published)
    return [
        path
        for path, state in states.items()
        if path in known
        and not state["error"]
        and (not state["kind"] or (state["kind"] == "directory" and not state["files"]))
    ]


def total_bytes(states: Iterable[Mapping[str, Mapping[str, Any]]]) -> int:
    """Return the bytes of all media, each counted once, where it is largest."""
    sizes: dict[str, int] = {}
    for group in states:
        for path, state in group.items():
            sizes[path] = max(sizes.get(path, 0), int(state["bytes"]))
    return sum(sizes.values())
