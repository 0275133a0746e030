# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""What a K3s leaves on a host when its unit has been stopped, and how that goes.

Its unit kills the main process alone, so that pods outlive a restart: containers, their mounts, network namespaces, interfaces,
routes and packet-filter rules stay. The order here is that of dependence: processes hold mounts and namespaces, namespaces hold
interfaces, rules name sets.

Nothing is taken that is not recognised as K3s's: mounts that ``/etc/fstab`` names, other interfaces and other rules stay.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping

DATA = "/var/lib/rancher/k3s"
#: Programs that K3s brings for itself; asked where the host has none of its own.
TOOLS = f"{DATA}/data/current/bin/aux"
BINARY = "/usr/local/bin/k3s"
SOCKET = "/run/k3s/containerd/containerd.sock"
UNITS = ("k3s.service", "k3s-agent.service")
#: Beginnings of mount points that containerd, the kubelet and the pod network make.
MOUNTS = (
    "/run/k3s/",
    "/var/lib/kubelet/pods/",
    "/var/lib/kubelet/plugins/",
    f"{DATA}/agent/containerd/tmpmounts/",
    "/run/netns/cni-",
)
LINKS = ("cni0", "flannel.1", "flannel-v6.1", "flannel-wg", "flannel-wg-v6", "kube-ipvs0", "kube-bridge")
#: Chains and comments of kube-proxy, kube-router, flannel and the CNI plug-ins (the words that k3s-killall.sh goes by).
_RULE = re.compile(r"\b(KUBE|CNI|FLANNEL)-|flannel")
_CHAIN = re.compile(r":((?:KUBE|CNI|FLANNEL)-\S+) ")
#: With the kubelet's cgroupfs driver and with systemd's.
_GROUPS = ("kubepods", "*/kubepods", "kubepods.slice", "*/kubepods.slice")
_SET = re.compile(r"(inet6:)?KUBE-|kube-router")

#: Runs a command with text on its standard input; returns exit code and standard output, 127 for a missing program.
Run = Callable[[list[str], str], tuple[int, str]]


class RemainsError(Exception):
    """Something that K3s left could not be taken away."""


@dataclass(frozen=True)
class Process:
    """A process: id, parent, program, arguments and control groups as the kernel shows them."""

    pid: int
    parent: int
    program: str
    arguments: str
    groups: str

    @property
    def is_shim(self) -> bool:
        """Whether it is the parent of a container of K3s's containerd."""
        return "containerd-shim" in self.arguments.split(" ", 1)[0] and SOCKET in self.arguments

    @property
    def is_k3s(self) -> bool:
        """Whether it is a program of K3s, or was started by its unit."""
        program = self.program.replace(" (deleted)", "")
        of_unit = any(f"/{unit}" in self.groups for unit in UNITS)
        return self.is_shim or of_unit or program == BINARY or program.startswith(f"{DATA}/data/")


@dataclass
class Remains:
    """What is there. ``rules`` is by command that takes them, to the text that it gets; ``count`` says how many they are."""

    containers: list[int] = field(default_factory=list)
    programs: list[int] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    routes: list[list[str]] = field(default_factory=list)
    rules: dict[str, str] = field(default_factory=dict)
    tables: list[list[str]] = field(default_factory=list)
    count: int = 0
    sets: list[str] = field(default_factory=list)
    groups: list[Path] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(
            (
                self.containers,
                self.programs,
                self.mounts,
                self.links,
                self.routes,
                self.rules,
                self.tables,
                self.sets,
                self.groups,
            )
        )

    def lines(self) -> list[str]:
        """What is there, for people."""
        found = {
            "processes of containers": len(self.containers),
            "programs of K3s": len(self.programs),
            "mounts": len(self.mounts),
            "network interfaces": len(self.links),
            "routes": len(self.routes),
            "packet-filter rules and chains": self.count,
            "address sets": len(self.sets),
            "control groups": len(self.groups),
        }
        return [f"{number} {what}" for what, number in found.items() if number]


# --- reading ---------------------------------------------------------------------------------------------------------


def processes(root: Path) -> list[Process]:
    """Return the processes that run; one that ends meanwhile is left out, and so is a zombie."""
    found = []
    for entry in (root / "proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name in parentheses may hold anything, so fields count from its end: state, parent.
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state in "ZX":
                continue
            arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            groups = (entry / "cgroup").read_text(errors="replace")
            try:
                program = os.readlink(entry / "exe")
            except OSError:
                program = ""
            found.append(Process(int(entry.name), int(parent), program, arguments, groups))
        except OSError:
            continue
    return found


def sort_out(running: Iterable[Process], own: int) -> tuple[list[int], list[int]]:
    """Return the processes within containers, and K3s's own programs.

    :param own: a process that is in neither, with all its ancestors: whoever asks.
    """
    by_id = {process.pid: process for process in running}
    spared = {own}
    while own in by_id:
        own = by_id[own].parent
        spared.add(own)
    of_k3s = {pid for pid, process in by_id.items() if process.is_k3s}
    shims = {pid for pid in of_k3s if by_id[pid].is_shim}
    below: dict[int, list[int]] = {}
    for process in by_id.values():
        below.setdefault(process.parent, []).append(process.pid)

    def descendants(roots: Iterable[int]) -> set[int]:
        found: set[int] = set()
        waiting = list(roots)
        while waiting:
            children = [pid for pid in below.get(waiting.pop(), []) if pid not in found]
            found.update(children)
            waiting += children
        return found

    contained = descendants(shims) - shims
    programs = (of_k3s | descendants(of_k3s)) - contained
    return sorted(contained - spared), sorted(programs - spared)


def mount_points(mountinfo: str) -> list[str]:
    """Return the mount points of ``/proc/self/mountinfo`` in the order in which they were mounted."""
    return [_unescaped(line.split(" ")[4]) for line in mountinfo.splitlines() if line.count(" ") > 4]


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), text)


def k3s_mounts(mountinfo: str, fstab: str) -> list[str]:
    """Return K3s's mount points, the last one first; what ``/etc/fstab`` names is the host's."""
    lines = [line.split() for line in fstab.splitlines() if not line.lstrip().startswith("#")]
    named = {_unescaped(words[1]) for words in lines if len(words) > 1}
    return [point for point in reversed(mount_points(mountinfo)) if point.startswith(MOUNTS) and point not in named]


def k3s_links(shown: str) -> list[str]:
    """Return K3s's network interfaces, those in its bridge first.

    :param shown: what ``ip -json link show`` printed.
    """
    links = json.loads(shown or "[]")
    names = [str(link["ifname"]) for link in links if link.get("master") == "cni0"]
    return names + [str(link["ifname"]) for link in links if link.get("ifname") in LINKS]


def k3s_routes(shown: str, family: str, subnets: str) -> list[list[str]]:
    """Return the words that delete the routes to other nodes' pods, which flannel's host-gw adds to a real interface.

    :param shown: what ``ip -json route show`` printed.
    :param family: ``-4`` or ``-6``.
    :param subnets: flannel's ``/run/flannel/subnet.env``.
    """
    networks = [
        ipaddress.ip_network(word.strip("\"'"))
        for name, _, words in (line.partition("=") for line in subnets.splitlines())
        if name in ("FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK")
        for word in words.split(",")
        if word
    ]
    found = []
    for route in json.loads(shown or "[]"):
        if route.get("protocol") == "kernel" or "gateway" not in route or route.get("dst") == "default":
            continue
        destination = ipaddress.ip_network(route["dst"])
        if any(destination.version == network.version and destination.subnet_of(network) for network in networks):  # type: ignore[arg-type]
            found.append(["ip", family, "route", "del", route["dst"], "via", route["gateway"], "dev", route["dev"]])
    return found


def without_k3s(saved: str) -> tuple[str, list[str], int]:
    """Return what takes K3s's rules out of the tables that ``iptables-save`` printed.

    :returns: text for ``iptables-restore --noflush`` (empty where there is nothing to do), names of tables that hold nothing but
        K3s's and empty chains, and the number of rules and chains that go.
    """
    script: list[str] = []
    empty: list[str] = []
    count = 0
    for block in re.split(r"(?m)^\*", saved)[1:]:
        table, *lines = block.splitlines()
        chains = [match[1] for match in map(_CHAIN.match, lines) if match]
        rules = [line for line in lines if line.startswith("-A ")]
        ours = [line for line in rules if _RULE.search(line)]
        count += len(ours) + len(chains)
        closed = any(re.match(r":\S+ DROP ", line) for line in lines)
        others = [line for line in lines if re.match(r":\S+ - ", line) and not _CHAIN.match(line)]
        if (chains or ours) and len(ours) == len(rules) and not closed and not others:
            empty.append(table)
        deleted = [f"-D {line[3:]}" for line in ours if line.split()[1] not in chains]
        if deleted or chains:
            script += [
                f"*{table}",
                *deleted,
                *[f"-F {name}" for name in chains],
                *[f"-X {name}" for name in chains],
                "COMMIT",
            ]
    return ("\n".join(script) + "\n" if script else ""), empty, count


def k3s_sets(listed: str) -> list[str]:
    """Return kube-router's address sets out of what ``ipset list -n`` printed."""
    return [name for name in listed.splitlines() if _SET.match(name)]


def pod_groups(root: Path) -> list[Path]:
    """Return the control groups of the kubelet's pods, the innermost first; in version 1 each controller has a tree of its own."""
    top = root / "sys/fs/cgroup"
    found = [
        path for pattern in _GROUPS for path in top.glob(pattern) if path.is_dir() and not path.parent.is_symlink()
    ]
    below = [Path(folder) for group in found for folder, _, _ in os.walk(group)]
    return sorted(below, key=lambda path: len(path.parts), reverse=True)


# --- the host --------------------------------------------------------------------------------------------------------


def run_command(argv: list[str], stdin: str = "") -> tuple[int, str]:
    """Run a command for at most half a minute; one that hangs (a file server that is gone) counts as failed."""
    environment = {"PATH": f"/usr/sbin:/usr/bin:/sbin:/bin:{TOOLS}", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, check=False, env=environment, timeout=30
        )
    except FileNotFoundError:
        return 127, ""
    except subprocess.TimeoutExpired:
        return 124, ""
    return done.returncode, done.stdout


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def look(run: Run = run_command, root: Path = Path("/")) -> Remains:
    """Say what of a K3s is on this host now, running or left."""
    containers, programs = sort_out(processes(root), os.getpid())
    subnets = _read(root / "run/flannel/subnet.env")
    found = Remains(
        containers=containers,
        programs=programs,
        mounts=k3s_mounts(_read(root / "proc/self/mountinfo"), _read(root / "etc/fstab")),
        links=k3s_links(run(["ip", "-json", "link", "show"], "")[1]),
    )
    for family in ("-4", "-6"):
        found.routes += k3s_routes(run(["ip", family, "-json", "route", "show"], "")[1], family, subnets)
    for command, family in (("iptables", "ip"), ("ip6tables", "ip6")):
        # It makes no table where there is none.
        script, empty, count = without_k3s(run([f"{command}-save"], "")[1])
        found.count += count
        if script:
            found.rules[f"{command}-restore"] = script
            found.tables += [["nft", "delete", "table", family, table] for table in empty]
    found.sets = k3s_sets(run(["ipset", "list", "-n"], "")[1])
    found.groups = pod_groups(root)
    return found


def remove(run: Run = run_command, root: Path = Path("/"), grace: float = 10) -> None:
    """Take away what :func:`look` finds; K3s's unit has to be stopped before.

    :param grace: seconds that containers have to end by themselves after SIGTERM.
    :raises RemainsError: what is still there afterwards.
    """
    end_processes(root, grace)
    found = look(run, root)
    for point in found.mounts:
        if run(["umount", point], "")[0] != 0:
            # Something still looks at it: it leaves the tree at once, and goes with its last user.
            run(["umount", "--lazy", point], "")
        if point.startswith("/run/netns/"):
            (root / point.lstrip("/")).unlink(missing_ok=True)
    for name in found.links:
        run(["ip", "link", "delete", name], "")
    for words in found.routes:
        run(words, "")
    for command, script in found.rules.items():
        run([command, "--wait", "5", "--noflush"], script)
    # Tables that K3s made: empty chains that accept. The older iptables keeps its tables in modules, and nft knows none of them.
    for words in found.tables:
        run(words, "")
    for name in found.sets:
        run(["ipset", "destroy", name], "")
    if any(group.name.endswith(".slice") for group in found.groups):
        run(["systemctl", "stop", "kubepods.slice"], "")
    for group in found.groups:
        try:
            group.rmdir()
        except OSError:
            # Gone already, or somebody is in it, which the last look says.
            continue
    left = look(run, root)
    if left:
        groups = [str(group) for group in left.groups]
        raise RemainsError("; ".join([*left.lines(), *left.mounts, *left.links, *left.sets, *groups]))


def end_processes(root: Path, grace: float, kill: Callable[[int, int], None] = os.kill) -> None:
    """End containers, softly first, then everything of K3s."""
    containers, _ = sort_out(processes(root), os.getpid())
    _signal(containers, signal.SIGTERM, kill)
    _until(lambda: not sort_out(processes(root), os.getpid())[0], grace)

    def gone() -> bool:
        # Again and again: what was being started when its parent was killed comes up a moment later.
        left = [pid for group in sort_out(processes(root), os.getpid()) for pid in group]
        _signal(left, signal.SIGKILL, kill)
        return not left

    _until(gone, 10)


def _signal(pids: Iterable[int], number: int, kill: Callable[[int, int], None]) -> None:
    for pid in pids:
        try:
            kill(pid, number)
        except ProcessLookupError:
            continue


def _until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)


def as_result(found: Remains) -> Mapping[str, Any]:
    """What a module returns of it."""
    return {"found": found.lines(), "containers": len(found.containers), "mounts": found.mounts, "links": found.links}
