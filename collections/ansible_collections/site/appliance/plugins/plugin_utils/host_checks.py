# SPDX-License-Identifier: Apache-2.0
"""Checks of the hosts by their reports, alone and together, and of what was brought for them."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.site.appliance.plugins.plugin_utils import brought, wheels
from ansible_collections.site.appliance.plugins.plugin_utils.findings import (
    CONTROLLER,
    INVENTORY,
    Problem,
    named,
    problem,
)
from ansible_collections.site.appliance.plugins.plugin_utils.inventory_checks import node_address
from ansible_collections.site.appliance.plugins.plugin_utils.sizes import size_words

_TARGET_PYTHON = (3, 9)
_SERVICE_PYTHON = (3, 10)
_MACHINES = ("x86_64", "aarch64")
_CGROUP2_NEEDED = ("cpu", "cpuset", "memory")
_OWN_UNITS = (
    "appliance-mirror.service",
    "appliance-mirror.socket",
    "appliance-peer.service",
    "appliance-agent.service",
    "k3s.service",
    "k3s-agent.service",
)
_WILDCARDS = ("0.0.0.0", "*", "::")


@dataclasses.dataclass(frozen=True)
class Host:
    """A host that was examined: its name, variables and report, and the settings of the role."""

    name: str
    variables: Mapping[str, Any]
    report: Mapping[str, Any]
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Site:
    """All hosts that were examined, the settings of the role, and the variables of the hosts that gave no report."""

    hosts: Mapping[str, Host]
    settings: Mapping[str, Any]
    silent: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


def _python_problems(host: Host) -> list[Problem]:
    """Check the Python that the modules run with."""
    if tuple(host.report["python"]) >= _TARGET_PYTHON:
        return []
    what = f"Python on the host is {_version(host.report['python'])}; the modules need 3.9"
    fix = "Install a newer Python from the distribution and set ansible_python_interpreter to it."
    return [problem("APL-0723", host.name, what, fix)]


def _service_python_problems(host: Host) -> list[Problem]:
    """Check the Python that the services run with."""
    found = host.report["service_python"]
    needs = "the appliance's services need Python 3.10 or newer"
    if found["version"] is None:
        what = f"{found['path']} does not run: {found['error']}; {needs}"
    elif tuple(found["version"]) < _SERVICE_PYTHON:
        what = f"{found['path']} is {_version(found['version'])}; {needs}"
    elif found["missing"]:
        what = (
            f"{found['path']} lacks parts of Python's own library that the services need: {', '.join(found['missing'])}"
        )
    elif found["machine"] not in _MACHINES and host.report["machine"] in _MACHINES:
        what = f"{found['path']} is a 32-bit Python on a 64-bit host; there are no wheels for it"
    else:
        return []
    fix = "Install one from the distribution's medium and set mirror_python to its path."
    return [problem("APL-0724", host.name, what, fix)]


def _version(parts: Iterable[int]) -> str:
    return ".".join(str(part) for part in parts)


def _machine_problems(host: Host) -> list[Problem]:
    """Check the architecture."""
    machine = host.report["machine"]
    if machine in _MACHINES:
        return []
    fix = f"Use a host of one of: {', '.join(_MACHINES)}."
    return [problem("APL-0725", host.name, f"architecture {machine} is not supported", fix)]


def _rights_problems(host: Host) -> list[Problem]:
    """Check that the modules run as root."""
    if host.report["uid"] == 0:
        return []
    return [
        problem("APL-0732", host.name, "Ansible is not root on the host", "Set ansible_become: true in the inventory.")
    ]


def _init_problems(host: Host) -> list[Problem]:
    """Check that the host runs systemd."""
    init = host.report["init"]
    if init == "systemd":
        return []
    fix = "The appliance and K3s run as systemd units: boot the host with systemd."
    return [problem("APL-0726", host.name, f"process 1 is {init or 'unknown'}, not systemd", fix)]


def _cgroup_problems(host: Host) -> list[Problem]:
    """Check that the controllers are there that the kubelet needs."""
    cgroup = host.report["cgroup"]
    needed = _CGROUP2_NEEDED if cgroup["version"] == 2 else ("memory",)
    missing = [name for name in needed if name not in cgroup["controllers"]]
    if not missing:
        return []
    what = f"cgroup v{cgroup['version']} without the controller(s) {', '.join(missing)}, which K3s needs"
    fix = "Add cgroup_enable=cpuset cgroup_enable=memory cgroup_memory=1 to the kernel command line and reboot."
    return [problem("APL-0730", host.name, what, fix)]


def _foreign_k3s_problems(host: Host) -> list[Problem]:
    """Check for a K3s of somebody else."""
    k3s = host.report["k3s"]
    if not k3s["found"] or k3s["managed"]:
        return []
    what = f"a K3s that the appliance did not install is here: {named(k3s['found'])}"
    fix = (
        "Remove it (k3s-uninstall.sh; save its snapshots and token first), or hand it over by creating"
        " /etc/appliance/managed."
    )
    return [problem("APL-0731", host.name, what, fix)]


def _port_problems(host: Host) -> list[Problem]:
    """Check that nobody else listens where the appliance and K3s will.

    A port of the settings has ``port`` and ``address``: ``loopback`` or ``node`` (any address of the host counts then).
    """
    if host.report["listeners"] is None:
        what = "ss is not installed, so open ports cannot be seen"
        return [problem("APL-0722", host.name, what, "Install iproute2.")]
    problems = []
    for wanted in host.settings.get("ports", []):
        for listener in host.report["listeners"]:
            if listener["port"] != int(wanted["port"]) or set(listener["units"]) & set(_OWN_UNITS):
                continue
            at = listener["address"]
            is_loopback = at == "::1" or at.startswith("127.")
            clash = at in _WILDCARDS or (is_loopback if wanted["address"] == "loopback" else True)
            if not clash:
                continue
            owner = named(listener["units"] or listener["processes"]) or "an unknown process"
            needs = "127.0.0.1" if wanted["address"] == "loopback" else node_address(host.name, host.variables)
            what = f"port {wanted['port']}/tcp is taken on {at} by {owner}; {wanted['use']} needs it on {needs}"
            fix = "Stop that service or move it to another port, then run again."
            problems.append(problem("APL-0728", host.name, what, fix))
            break
    return problems


def _disk_problems(host: Host) -> list[Problem]:
    """Check free space, adding up directories that share a file system."""
    filesystems = host.report["filesystems"]
    needed = {path: size for path, size in _bytes_needed(host).items() if size > 0}
    by_device: dict[Any, list[str]] = {}
    for path in needed:
        by_device.setdefault(filesystems[path]["device"], []).append(path)
    problems = []
    for paths in by_device.values():
        disk = filesystems[paths[0]]
        total = sum(needed[path] for path in paths)
        if total > disk["available"]:
            what = (
                f"the file system at {disk['mount']} is too small: {size_words(total)} needed ({total} bytes, for"
                f" {', '.join(paths)}), {size_words(disk['available'])} available ({disk['available']} bytes)"
            )
            fix = "Free space there, or mount a larger file system at one of these directories."
            problems.append(problem("APL-0727", host.name, what, fix))
    return problems


def _bytes_needed(host: Host) -> dict[str, int]:
    settings = host.settings
    copies = settings.get("copies", 2)
    holds_all = host.name in settings.get("seeds", []) or copies == "all"
    share = 1.0 if holds_all else min(1.0, int(copies) / max(1, int(settings.get("nodes", 1))))
    given, minimum = settings.get("bytes", {}), settings.get("minimum", {})
    return bytes_needed(host.report, given, minimum, settings.get("source_bytes", 0), share)


def _mount_problems(host: Host) -> list[Problem]:
    """Check that the run may execute from, and write to, the directories that it does so in."""
    filesystems = host.report["filesystems"]
    runs_from, writes_to = host.settings.get("runs_from", []), host.settings.get("writes_to", [])
    found: dict[tuple[str, str], list[str]] = {}
    for option, paths in (("noexec", runs_from), ("readonly", [*writes_to, *runs_from])):
        for path in dict.fromkeys(str(path) for path in paths):
            if path in filesystems and filesystems[path].get(option):
                found.setdefault((option, filesystems[path]["mount"]), []).append(path)
    problems = []
    for (option, mount), paths in found.items():
        if option == "noexec":
            what = f"{mount} is mounted noexec, and programs have to run from {named(paths)}"
            fix = f"mount -o remount,exec {mount}, and take noexec out of its line in /etc/fstab; or mount another file system there."
        else:
            what = f"{mount} is mounted read-only, and the installation writes to {named(paths)}"
            fix = (
                f"mount -o remount,rw {mount}, and take ro out of its line in /etc/fstab; where the kernel made it read-only,"
                " dmesg says why."
            )
        problems.append(problem("APL-0714", host.name, what, fix))
    return problems


HOST_CHECKS: tuple[Callable[[Host], list[Problem]], ...] = (
    _python_problems,
    _service_python_problems,
    _machine_problems,
    _rights_problems,
    _init_problems,
    _cgroup_problems,
    _foreign_k3s_problems,
    _port_problems,
    _mount_problems,
    _disk_problems,
)


# --- what concerns the hosts together ---------------------------------------------------------------------------------


def _k3s_file_problems(site: Site) -> list[Problem]:
    """Check the files that K3s is installed from, for each host's architecture where the host said it."""
    base = site.settings.get("base")
    wanted: dict[brought.K3sFiles, list[str]] = {}
    for host in site.hosts.values() if base else ():
        wanted.setdefault(brought.K3sFiles.of(host.variables, host.report["machine"]), []).append(host.name)
    known = [dataclasses.replace(files, architecture="") for files in wanted]
    for name, variables in site.silent.items() if base else ():
        files = brought.K3sFiles.of(variables, "")
        if files not in known:
            wanted.setdefault(files, []).append(name)
    return brought.k3s_problems(wanted, Path(str(base)))


def _wheelhouse_problems(site: Site) -> list[Problem]:
    """Check that each host's wheelhouse has wheels for its Python and architecture."""
    base = site.settings.get("base")
    wanted: dict[Path, dict[wheels.Target, list[str]]] = {}
    for host in site.hosts.values() if base else ():
        python = host.report["service_python"]
        if (
            python["version"] is None
            or tuple(python["version"]) < _SERVICE_PYTHON
            or python["machine"] not in _MACHINES
        ):
            continue
        place = _wheelhouse(host.variables, base)
        wanted.setdefault(place, {}).setdefault(wheels.Target.of(python), []).append(host.name)
    for variables in site.silent.values() if base else ():
        wanted.setdefault(_wheelhouse(variables, base), {})
    return brought.wheelhouse_problems(wanted)


def _wheelhouse(variables: Mapping[str, Any], base: Any) -> Path:
    return brought.resolve(str(variables.get("mirror_wheelhouse") or "build/wheelhouse"), Path(str(base)))


def _media_problems(site: Site) -> list[Problem]:
    """Check the media on the node that reads them, or on the controller."""
    seed = site.hosts.get(str(site.settings.get("seed_host", "")))
    if seed is None or not site.settings.get("media", True):
        return []
    states = site.settings.get("controller_sources")
    where = seed.name if states is None else CONTROLLER
    return brought.media_problems(where, seed.report["sources"] if states is None else states, seed.report["published"])


def _clock_problems(site: Site) -> list[Problem]:
    """Check the clocks against each other."""
    epochs = {name: float(host.report["epoch"]) for name, host in site.hosts.items()}
    now = float(site.settings.get("now") or time.time())
    return clock_problems(epochs, now, float(site.settings["max_clock_skew"]))


def _hostname_problems(site: Site) -> list[Problem]:
    """Check that hosts do not call themselves the same."""
    names: dict[str, list[str]] = {}
    for host in site.hosts.values():
        names.setdefault(host.report["hostname"].lower(), []).append(host.name)
    fix = "Set each one's own name (hostnamectl set-hostname)."
    return [
        problem("APL-0704", INVENTORY, f"{named(twins)} all call themselves {name}: host names must differ", fix)
        for name, twins in names.items()
        if len(twins) > 1
    ]


SITE_CHECKS: tuple[Callable[[Site], list[Problem]], ...] = (
    _k3s_file_problems,
    _wheelhouse_problems,
    _media_problems,
    _clock_problems,
    _hostname_problems,
)


def clock_problems(epochs: Mapping[str, float], controller: float, limit: float) -> list[Problem]:
    """Name the hosts whose clocks differ from the others by more than a limit.

    The reference is the (lower) median of the hosts and the controller, so that one wrong clock, the controller's
    too, is the one that is named.

    :param epochs: host to seconds since 1970, all read at about the same time.
    :param controller: the controller's seconds since 1970 at that time.
    :param limit: allowed difference in seconds.
    """
    if len(epochs) < 2:
        return []
    reference = statistics.median_low([*epochs.values(), controller])
    problems = []
    for host, epoch in epochs.items():
        off = epoch - reference
        if abs(off) > limit:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(epoch))
            problems.append(
                problem(
                    "APL-0729",
                    host,
                    f"the clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the other hosts"
                    f" ({stamp}); K3s's certificates and etcd allow {limit:.0f} s",
                    "Set it (date -s, then hwclock --systohc), or point chrony or timesyncd at a clock in the site.",
                )
            )
    return problems


def bytes_needed(
    report: Mapping[str, Any],
    given: Mapping[str, Any],
    minimum: Mapping[str, Any],
    source_bytes: float,
    share: float = 1.0,
) -> dict[str, int]:
    """Estimate how many bytes will be written below each directory of a host; role plan knows it exactly, later.

    :param report: the host's report; its file systems name the directories.
    :param given: directory to bytes that the operator stated; it wins.
    :param minimum: directory to bytes that an installation takes at least.
    :param source_bytes: size of all files to import.
    :param share: the part of them that this host will hold, 0 to 1.
    """
    needed = {}
    for path in report["filesystems"]:
        if path in given:
            needed[path] = int(given[path])
            continue
        # What is installed and held already is not written again: a second run has to pass on a disk that is nearly full.
        first = 0 if path in report["installed"] else int(minimum.get(path, 0))
        extra = max(0, int(source_bytes * share) - report["held"]) if path == "/var/lib/appliance" else 0
        needed[path] = first + extra
    return needed
