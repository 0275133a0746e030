# SPDX-License-Identifier: Apache-2.0
"""Read what a host is, from /proc, /sys and a few commands. Nothing here writes.

Every reader takes the root of the tree it reads, so that tests hand in a directory of their own.
Runs on the targets' Python 3.9.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Iterator

#: Where the addresses of a default route of ours live; see role ``host``.
OWN_INTERFACE = "appliance0"

#: What in /proc shows that a kernel feature is there although its module cannot be seen (built in, or a container).
#: Paths after K3s's own list of modules (k3s-io/k3s, pkg/agent/syssetup).
FEATURE_SIGNS: dict[str, tuple[str, ...]] = {
    "br_netfilter": ("proc/sys/net/bridge/bridge-nf-call-iptables",),
    "nf_conntrack": ("proc/sys/net/netfilter/nf_conntrack_max", "proc/net/stat/nf_conntrack"),
    "iptable_filter": ("proc/net/ip_tables_names",),
    "iptable_nat": ("proc/net/ip_tables_names",),
}

_SS_LINE = re.compile(r"^LISTEN\s+\d+\s+\d+\s+(?P<local>\S+)\s+\S+\s*(?P<users>.*)$")
_SS_USER = re.compile(r'\("(?P<name>[^"]*)",pid=(?P<pid>\d+)')


def read_text(path: Path) -> str:
    """Return the file's text, or an empty string where it is missing or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def module_state(name: str, release: str, root: Path = Path("/")) -> str:
    """Say how the kernel offers a module.

    :param name: module name, ``br_netfilter``.
    :param release: kernel release, as ``uname -r`` prints it.
    :param root: the tree to read; ``/`` on a host.
    :return: ``builtin``, ``loaded``, ``loadable`` (on disk, not loaded), ``present`` (the feature shows although no
        module does: a container, or a kernel without a module list) or ``missing``.
    """
    tree = root / "lib/modules" / release
    plain = name.replace("-", "_")
    builtin = {
        Path(line.strip()).name.split(".")[0].replace("-", "_")
        for line in read_text(tree / "modules.builtin").splitlines()
    }
    if plain in builtin:
        return "builtin"
    if (root / "sys/module" / plain).exists():
        return "loaded"
    if is_on_disk(name, release, root):
        return "loadable"
    filesystems = {line.split("\t")[-1] for line in read_text(root / "proc/filesystems").splitlines()}
    if plain in filesystems or any((root / sign).exists() for sign in FEATURE_SIGNS.get(plain, ())):
        return "present"
    return "missing"


def is_on_disk(name: str, release: str, root: Path = Path("/")) -> bool:
    """Say whether the kernel's module list names a file for this module, so that modprobe finds it."""
    return name.replace("-", "_") in {
        Path(line.split(":", 1)[0]).name.split(".")[0].replace("-", "_")
        for line in read_text(root / "lib/modules" / release / "modules.dep").splitlines()
        if ":" in line
    }


def default_routes(root: Path = Path("/")) -> list[dict[str, Any]]:
    """Return the IPv4 default routes in the kernel's main table: device, metric, and whether the route is ours."""
    routes = []
    for line in read_text(root / "proc/net/route").splitlines()[1:]:
        field = line.split()
        # Flags bit 0 is RTF_UP; a default route has destination and mask zero.
        if len(field) >= 8 and field[1] == "00000000" and field[7] == "00000000" and int(field[3], 16) & 1:
            routes.append({"device": field[0], "metric": int(field[6]), "ours": field[0] == OWN_INTERFACE})
    return routes


def unit_of(pid: int, root: Path = Path("/")) -> str:
    """Return the systemd unit a process belongs to, or an empty string.

    On a host with both cgroup versions the name is in the ``name=systemd`` or the unified line; both name the unit.
    """
    for line in read_text(root / "proc" / str(pid) / "cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and (parts[1] in ("", "name=systemd")):
            for piece in reversed(parts[2].split("/")):
                if piece.endswith((".service", ".scope", ".socket")):
                    return piece
    return ""


def listeners(ss_output: str, root: Path = Path("/"), sockets: str = "") -> list[dict[str, Any]]:
    """Parse ``ss -ltnpH``: one entry for each listening TCP socket with its address, port and owners.

    :param ss_output: what ss printed; without root the owners are missing from it.
    :param sockets: what ``systemctl list-sockets`` printed: the units whose sockets systemd itself holds.
    """
    found = []
    by_address = {words[0]: words[1] for words in (line.split() for line in sockets.splitlines()) if len(words) > 1}
    for line in ss_output.splitlines():
        match = _SS_LINE.match(line.strip())
        if not match:
            continue
        address, _, port = match["local"].rpartition(":")
        owners = [(user["name"], int(user["pid"])) for user in _SS_USER.finditer(match["users"])]
        activated = {by_address.get(match["local"], "")} if any(pid == 1 for _, pid in owners) else set()
        found.append(
            {
                "address": address.strip("[]").split("%")[0],
                "port": int(port),
                "processes": sorted({name for name, _ in owners}),
                "units": sorted({unit_of(pid, root) for _, pid in owners} | activated - {""}),
            }
        )
    return found


def cgroups(root: Path = Path("/")) -> dict[str, Any]:
    """Say which cgroup version holds the controllers that the kubelet needs.

    :return: ``version`` (2 where the memory controller is in the unified tree, else 1) and ``controllers``, the names
        that are enabled in that version.
    """
    base = root / "sys/fs/cgroup"
    unified = read_text(base / "cgroup.controllers").split()
    if "memory" in unified:
        return {"version": 2, "controllers": sorted(unified)}
    enabled = []
    for line in read_text(root / "proc/cgroups").splitlines():
        field = line.split()
        if len(field) == 4 and not line.startswith("#") and field[3] == "1":
            enabled.append(field[0])
    # A controller that the kernel has but nobody mounted is of no use to the kubelet.
    mounted = {
        option
        for line in read_text(root / "proc/mounts").splitlines()
        if len(line.split()) >= 4 and line.split()[2] == "cgroup"
        for option in line.split()[3].split(",")
    }
    if (base / "cgroup.controllers").exists() and not mounted:
        return {"version": 2, "controllers": sorted(unified)}
    return {"version": 1, "controllers": sorted(set(enabled) & mounted)}


def mount_of(path: Path, root: Path = Path("/")) -> Path:
    """Return the mount point that holds a path, or would hold it once it is made.

    The kernel's list is asked: a directory that is mounted at itself, as hardening guides have it for noexec, has the
    device number of its parent.
    """
    current = existing_parent(path)
    mounts = {
        _unescaped(line.split()[4])
        for line in read_text(root / "proc/self/mountinfo").splitlines()
        if line.count(" ") > 4
    }
    for candidate in (current, *current.parents):
        if str(candidate) in mounts:
            return candidate
    return Path(current.anchor)


def _unescaped(name: str) -> str:
    """Return the path that a line of /proc/self/mountinfo means; spaces and the like are octal in it."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), name)


def existing_parent(path: Path) -> Path:
    """Return the path itself or its nearest parent that exists, links followed, also one that leads to nothing yet."""
    current = Path(os.path.realpath(str(path)))
    while not current.exists() and current != current.parent:
        current = current.parent
    return current


def filesystem(path: Path) -> dict[str, Any]:
    """Return the file system that a path lies on: mount point, device number, bytes available to root and in all.

    ``noexec`` and ``readonly`` are options of the mount, or of the file system below it.
    """
    parent = existing_parent(path)
    stat = os.statvfs(parent)
    return {
        "mount": str(mount_of(path)),
        "device": os.stat(parent).st_dev,
        "available": stat.f_bavail * stat.f_frsize,
        "total": stat.f_blocks * stat.f_frsize,
        "noexec": bool(stat.f_flag & os.ST_NOEXEC),
        "readonly": bool(stat.f_flag & os.ST_RDONLY),
    }


def k3s_traces(root: Path = Path("/")) -> dict[str, Any]:
    """Say whether a K3s is there, and whether the appliance made it.

    The marker ``/etc/appliance/managed`` is written by role ``host`` on a host that had no K3s before.
    """
    places = (
        "etc/systemd/system/k3s.service",
        "etc/systemd/system/k3s-agent.service",
        "usr/local/bin/k3s",
        "usr/bin/k3s",
        "var/lib/rancher/k3s/server/db",
        "var/lib/rancher/k3s/agent/kubelet.kubeconfig",
    )
    found = ["/" + place for place in places if (root / place).exists()]
    return {"managed": (root / "etc/appliance/managed").exists(), "found": found}


def installed(root: Path = Path("/")) -> list[str]:
    """Name the directories below which an installation has been made already, so that it takes no more room there."""
    signs = {
        "/opt": "opt/appliance/current",
        "/var/lib/appliance": "var/lib/appliance/oci-layout",
        "/var/lib/rancher": "var/lib/rancher/k3s/agent/kubelet.kubeconfig",
    }
    return [path for path, sign in signs.items() if (root / sign).exists()]


def swap_bytes(root: Path = Path("/")) -> int:
    """Return the bytes of swap space in use or ready, 0 where there is none."""
    for line in read_text(root / "proc/meminfo").splitlines():
        if line.startswith("SwapTotal:"):
            return int(line.split()[1]) * 1024
    return 0


#: Directories that a desktop, Windows or a file system check leaves on a stick; see also appliance/archives.
_LITTER = ("system volume information", "$recycle.bin", "recycler", "lost+found", "found.000")
#: Endings of files that go with archives and are none.
_NO_ARCHIVE = re.compile(
    r"\.(?:sha(?:1|224|256|384|512)(?:sums?)?|md5|asc|sig|minisig|pem|crt|txt|md|html?|pdf|docx?|ya?ml|log|ini|inf|ico|lnk|url|db|exe)$"
    r"|^(?:sha\d+sums?|md5sums?|readme|license|copying|autorun\.inf|thumbs\.db|desktop\.ini)$",
    re.IGNORECASE,
)


def source(path: Path) -> dict[str, Any]:
    """Say what lies at the place of a medium, by names and sizes alone.

    :return: ``kind`` (``file``, ``directory``, ``other``, or empty where nothing is there), ``bytes``, ``files`` (how many),
        ``candidates`` (how many of them may be archives), ``examples`` (a few other names), and ``error``, the system's words.
    """
    state: dict[str, Any] = {"kind": "", "bytes": 0, "files": 0, "candidates": 0, "examples": [], "error": ""}
    try:
        mode = path.stat()
        state["kind"] = "directory" if path.is_dir() else "file" if path.is_file() else "other"
        if state["kind"] == "directory":
            _count_files(path, state)
        elif state["kind"] == "file":
            with path.open("rb"):
                state.update(bytes=mode.st_size, files=1, candidates=1)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        state["error"] = error.strerror or str(error)
    return state


def _count_files(directory: Path, state: dict[str, Any]) -> None:
    """Add the files below a directory to what is said of a medium."""
    for name, size in _files_below(directory):
        state["bytes"] += size
        state["files"] += 1
        if size and not _NO_ARCHIVE.search(name):
            state["candidates"] += 1
        elif len(state["examples"]) < 3:
            state["examples"].append(name)


def _files_below(directory: Path) -> Iterator[tuple[str, int]]:
    """Go through the regular files below a directory, without litter and hidden ones; no link to a directory is followed."""
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda found: found.name):
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and entry.name.lower() not in _LITTER:
                    yield from _files_below(Path(entry.path))
            elif entry.is_file() and not entry.name.startswith("."):
                yield entry.name, entry.stat().st_size
            elif entry.is_symlink() and entry.is_dir():
                # Whether it is followed is for the reader of media to say; here it counts as something.
                yield entry.name, 1


def published(sources: list[str], root: Path = Path("/")) -> list[str]:
    """Return those of these media that the node's store says were published from it before.

    The audit log has a line for each generation, with the media as the inventory names them, and the current generation
    names its own. Only a line that has one of the names in it is parsed.
    """
    wanted = {json.dumps(name).encode(): name for name in sources}
    found = set()
    if wanted:
        store = root / "var/lib/appliance"
        for raw in _log_lines(store / "journal.jsonl"):
            if any(word in raw for word in wanted):
                found.update(_sources_of(raw))
        found.update(_current_sources(store / "index.json"))
    return [name for name in sources if name in found]


def _log_lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError:
        return


def _sources_of(raw: bytes) -> list[str]:
    """Return the media of a line of the audit log that is about a generation."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return []
    if (
        not isinstance(line, dict)
        or not isinstance(line.get("digest"), str)
        or not isinstance(line.get("sources"), list)
    ):
        return []
    return [str(name) for name in line["sources"]]


def _current_sources(index: Path) -> list[str]:
    """Return the media that the current generation was made from; its line is missing after a power loss."""
    match = re.search(r'"vnd\.k3s-airgap-appliance\.sources"\s*:\s*("(?:[^"\\]|\\.)*")', read_text(index))
    try:
        names = json.loads(json.loads(match[1])) if match else []
    except ValueError:
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def size_of(path: Path) -> int | None:
    """Return the bytes below a file or directory, or None where it is missing."""
    try:
        if path.is_file():
            return path.stat().st_size
        if not path.is_dir():
            return None
        return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file() and not entry.is_symlink())
    except OSError:
        return None
