# SPDX-License-Identifier: Apache-2.0
"""Judge an inventory and the reports of its hosts: pure functions from data to a list of problems.

A problem is a mapping of strings: ``id`` (``APL-07xx``), ``where`` (``inventory`` or a host), ``what``, ``fix``.
They run on the controller. Nothing is raised for a bad site: what is wrong is collected, to be said at once.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

Problem = dict[str, str]

#: A host name as Kubernetes takes one for a node: RFC 1123, lower case.
_HOSTNAME = re.compile(r"^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$")
_CORE_MIN = (2, 19)
_CORE_END = (2, 22)
_TARGET_PYTHON = (3, 9)
_SERVICE_PYTHON = (3, 10)
_MACHINES = ("x86_64", "aarch64")
_CGROUP2_NEEDED = ("cpu", "cpuset", "memory")
_OWN_UNITS = (
    "appliance-mirror.service",
    "appliance-peer.service",
    "appliance-agent.service",
    "k3s.service",
    "k3s-agent.service",
)
_WILDCARDS = ("0.0.0.0", "*", "::")


def problem(code: str, where: str, what: str, fix: str) -> Problem:
    """Make one entry of the list: stable id, place, what is wrong, what to do about it."""
    return {"id": code, "where": where, "what": what, "fix": fix}


def named(hosts: Iterable[str], limit: int = 5) -> str:
    """Join names for a sentence, and count those past the limit."""
    names = list(hosts)
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"


def human(size: float) -> str:
    """Write a number of bytes with one decimal and a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def node_address(host: str, variables: Mapping[str, Any]) -> str:
    """Return the address that the other nodes use for a host: ``node_ip``, else ``ansible_host``, else its name."""
    for key in ("node_ip", "ansible_host"):
        value = variables.get(key)
        if value:
            return str(value)
    return host


def node_addresses(variables: Mapping[str, Mapping[str, Any]], hosts: Iterable[str]) -> dict[str, str]:
    """Return the address of each of these hosts, see :func:`node_address`.

    :param variables: ``hostvars``.
    :param hosts: names from the inventory.
    """
    return {str(host): node_address(str(host), variables[host]) for host in hosts}


def role_options(roles: str) -> dict[str, list[str]]:
    """Read every role's ``argument_specs.yml`` and return the roles' option names, over all their entry points.

    :param roles: directory that holds the roles.
    """
    options: dict[str, list[str]] = {}
    for path in sorted(Path(roles).glob("*/meta/argument_specs.yml")):
        specs = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("argument_specs", {})
        names = {option for entry in specs.values() for option in (entry.get("options") or {})}
        options[path.parent.parent.name] = sorted(names)
    return options


def _near_miss(name: str, known: list[str]) -> str:
    """Return the option that a name without any role's prefix was probably meant to be, or nothing.

    Only the same number of words with a first word that is nearly a role's counts: a site's own variables are its own.
    """
    first = name.split("_", 1)[0]
    for option in difflib.get_close_matches(name, known, n=3, cutoff=0.85):
        role_word = option.split("_", 1)[0]
        same_shape = option.count("_") == name.count("_")
        if same_shape and difflib.SequenceMatcher(None, first, role_word).ratio() >= 0.7:
            return option
    return ""


def unknown_variables(names: Mapping[str, list[str]], options: Mapping[str, list[str]]) -> list[Problem]:
    """Name every variable that looks like a role's and is in no role's argument specification.

    :param names: variable name to the hosts that have it.
    :param options: role to its option names, as :func:`role_options` gives them.
    """
    known = sorted({option for role_known in options.values() for option in role_known})
    prefixes = tuple(f"{role}_" for role in options)
    problems = []
    for name in sorted(names):
        if name in known or name.startswith("__"):
            continue
        if name.startswith(prefixes):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            guess = near[0] if near else ""
        elif name.startswith("ansible_"):
            continue
        else:
            guess = _near_miss(name, known)
            if not guess:
                continue
        fix = f"Did you mean {guess}?" if guess else "Remove it, or see roles/*/README.md for the names there are."
        problems.append(
            problem("APL-0708", "inventory", f"unknown variable {name} (set for {named(names[name])})", fix)
        )
    return problems


def _group_problems(groups: Mapping[str, Any]) -> list[Problem]:
    """Check who is in which group."""
    servers = list(groups.get("k3s_servers", []))
    agents = list(groups.get("k3s_agents", []))
    cluster = list(dict.fromkeys([*servers, *agents, *groups.get("k3s_cluster", [])]))
    seeds = list(groups.get("mirror_seeds", []))
    problems = []
    if not servers:
        problems.append(
            problem(
                "APL-0701",
                "inventory",
                "the group k3s_servers is missing or empty",
                "Put one host, or an odd number of hosts, into k3s_servers; see inventory/example/hosts.yml.",
            )
        )
    elif len(servers) > 1 and len(servers) % 2 == 0:
        problems.append(
            problem(
                "APL-0702",
                "inventory",
                f"k3s_servers has {len(servers)} hosts ({named(servers)}): an even number of etcd members tolerates"
                " no more losses than one fewer, and a split leaves no majority",
                "Move one server to k3s_agents, or add one.",
            )
        )
    both = [host for host in servers if host in agents]
    if both:
        problems.append(
            problem(
                "APL-0703",
                "inventory",
                f"in k3s_servers and in k3s_agents: {named(both)}",
                "Keep each in one.",
            )
        )
    strays = [host for host in cluster if host not in servers and host not in agents]
    if strays:
        problems.append(
            problem(
                "APL-0712",
                "inventory",
                f"in k3s_cluster but neither a server nor an agent: {named(strays)}",
                "Put each into k3s_servers or k3s_agents.",
            )
        )
    apart = [host for host in [*servers, *agents] if host not in groups.get("k3s_cluster", [])]
    if apart:
        problems.append(
            problem(
                "APL-0712",
                "inventory",
                f"not in k3s_cluster: {named(apart)}",
                "Make k3s_servers and k3s_agents children of k3s_cluster; see inventory/example/hosts.yml.",
            )
        )
    outside = [host for host in seeds if host not in cluster]
    if outside:
        problems.append(
            problem(
                "APL-0707",
                "inventory",
                f"in mirror_seeds but not in k3s_cluster: {named(outside)}",
                "Seeds are nodes of the cluster: add each to k3s_servers or k3s_agents, or take it out of there.",
            )
        )
    return problems


def _name_problems(cluster: list[str], addresses: Mapping[str, str]) -> list[Problem]:
    """Check host names and addresses for form and for duplicates."""
    problems = []
    for host in cluster:
        if not _HOSTNAME.match(host):
            problems.append(
                problem(
                    "APL-0706",
                    "inventory",
                    f"{host!r} is not a valid node name",
                    "Use lower-case letters, digits, '-' and '.' (RFC 1123); it becomes the Kubernetes node name.",
                )
            )
    lowered: dict[str, list[str]] = {}
    for host in cluster:
        lowered.setdefault(host.lower(), []).append(host)
    for twins in lowered.values():
        if len(twins) > 1:
            problems.append(
                problem(
                    "APL-0704",
                    "inventory",
                    f"host names that differ only in case: {named(twins)}",
                    "Rename one.",
                )
            )
    by_address: dict[str, list[str]] = {}
    for host in cluster:
        try:
            parsed = ipaddress.ip_address(addresses[host])
        except ValueError:
            problems.append(
                problem(
                    "APL-0711",
                    "inventory",
                    f"the address of {host} is {addresses[host]!r}, which is not an IP address",
                    f"Set node_ip for {host} to the address that the other nodes reach it by.",
                )
            )
            continue
        if parsed.is_loopback or parsed.is_unspecified or parsed.is_link_local or parsed.is_multicast:
            problems.append(
                problem(
                    "APL-0711",
                    "inventory",
                    f"the address of {host} is {parsed}, which other nodes cannot reach",
                    f"Set node_ip for {host} to its address on the site's network.",
                )
            )
        by_address.setdefault(str(parsed), []).append(host)
    for address, twins in by_address.items():
        if len(twins) > 1:
            problems.append(
                problem(
                    "APL-0705",
                    "inventory",
                    f"one address for {len(twins)} hosts: {address} is that of {named(twins)}",
                    "Give each its own node_ip (or ansible_host).",
                )
            )
    return problems


def _copies_problems(cluster: list[str], variables: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """Check ``mirror_copies`` where the inventory sets it."""
    for host in cluster:
        value = variables[host].get("mirror_copies")
        if value is None or value == "all":
            continue
        try:
            copies = int(value)
        except (TypeError, ValueError):
            copies = 0
        if copies < 1:
            what, fix = f"mirror_copies is {value!r}", "Set it to a number of nodes, 1 or more, or to all."
        elif copies > len(cluster):
            what = f"mirror_copies is {copies}, but the site has {len(cluster)} node(s)"
            fix = f"Set it to {len(cluster)} or less, or to all."
        else:
            continue
        return [problem("APL-0709", "inventory", what, fix)]
    return []


def _version_problems(ansible_version: str) -> list[Problem]:
    """Check the controller's ansible-core against the window that is tested."""
    match = re.match(r"(\d+)\.(\d+)", ansible_version)
    found = (int(match[1]), int(match[2])) if match else (0, 0)
    if _CORE_MIN <= found < _CORE_END:
        return []
    window = f"from {_CORE_MIN[0]}.{_CORE_MIN[1]} up to, not including, {_CORE_END[0]}.{_CORE_END[1]}"
    return [
        problem(
            "APL-0710",
            "inventory",
            f"ansible-core on the controller is {ansible_version}; {window} is what this release was tested with",
            "Use the controller environment that comes with the appliance (requirements/controller.txt).",
        )
    ]


def inventory_problems(
    variables: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Any],
    options: Mapping[str, list[str]],
    ansible_version: str,
) -> list[Problem]:
    """Return what is wrong with an inventory, as far as it can be told without asking a host.

    :param variables: ``hostvars``.
    :param groups: ``groups``.
    :param options: role to option names, see :func:`role_options`.
    :param ansible_version: the controller's ansible-core, ``2.19.4``.
    """
    members = [*groups.get("k3s_servers", []), *groups.get("k3s_agents", []), *groups.get("k3s_cluster", [])]
    cluster = list(dict.fromkeys(str(host) for host in members))
    everybody = list(dict.fromkeys([*cluster, *(str(host) for host in groups.get("mirror_seeds", []))]))
    names: dict[str, list[str]] = {}
    for host in everybody:
        for name in variables[host]:
            names.setdefault(str(name), []).append(host)
    return [
        *_version_problems(ansible_version),
        *_group_problems(groups),
        *_name_problems(cluster, {host: node_address(host, variables[host]) for host in cluster}),
        *_copies_problems(cluster, variables),
        *unknown_variables(names, options),
    ]


def _contact_problem(host: str, result: Mapping[str, Any]) -> Problem | None:
    """Say why a host gave no report, or return None where it did."""
    if result.get("report"):
        return None
    message = " ".join(str(result.get("msg") or result.get("module_stderr") or "no answer").split())
    if "host key verification failed" in message.lower() or "host identification has changed" in message.lower():
        offered = re.search(r"SHA256:[\w+/=]+", message)
        listed = re.search(r"Offending \S+ key in (\S+)", message)
        return problem(
            "APL-0721",
            host,
            f"the SSH host key{f' {offered[0]}' if offered else ''} is not one that known_hosts has for this host"
            + (f" ({listed[1]})" if listed else ""),
            "Compare the fingerprint at the host's own console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub);"
            " only if it is right, replace the old entry (ssh-keygen -R).",
        )
    message = re.sub(r"^(Task failed: )?(Data could not be sent to remote host .*? over ssh: )?", "", message).rstrip(
        "."
    )
    if result.get("unreachable"):
        return problem(
            "APL-0720",
            host,
            f"unreachable: {message}",
            "Check power, cable, address and SSH, then run again; or --limit.",
        )
    return problem(
        "APL-0722",
        host,
        f"could not be examined: {message}",
        "Python 3.9 or newer at ansible_python_interpreter and root rights (ansible_become) are needed.",
    )


def _python_problems(host: str, report: Mapping[str, Any]) -> list[Problem]:
    problems = []
    if tuple(report["python"]) < _TARGET_PYTHON:
        version = ".".join(str(part) for part in report["python"])
        problems.append(
            problem(
                "APL-0723",
                host,
                f"Python on the host is {version}; the modules need 3.9",
                "Install a newer Python from the distribution and set ansible_python_interpreter to it.",
            )
        )
    service = report["service_python"]
    if service["version"] is None or tuple(service["version"]) < _SERVICE_PYTHON:
        found = "not there" if service["version"] is None else ".".join(str(part) for part in service["version"])
        problems.append(
            problem(
                "APL-0724",
                host,
                f"{service['path']} is {found}; the appliance's services need Python 3.10 or newer",
                "Install one from the distribution's medium and set mirror_python to its path.",
            )
        )
    return problems


def _system_problems(host: str, report: Mapping[str, Any]) -> list[Problem]:
    """Check architecture, rights, init system, cgroups and a K3s of somebody else."""
    problems = []
    if report["machine"] not in _MACHINES:
        problems.append(
            problem(
                "APL-0725",
                host,
                f"architecture {report['machine']} is not supported",
                f"Use a host of one of: {', '.join(_MACHINES)}.",
            )
        )
    if report["uid"] != 0:
        problems.append(
            problem(
                "APL-0722",
                host,
                "Ansible is not root on the host",
                "Set ansible_become: true in the inventory.",
            )
        )
    if report["init"] != "systemd":
        problems.append(
            problem(
                "APL-0726",
                host,
                f"process 1 is {report['init'] or 'unknown'}, not systemd",
                "The appliance and K3s run as systemd units: boot the host with systemd.",
            )
        )
    cgroup = report["cgroup"]
    needed = _CGROUP2_NEEDED if cgroup["version"] == 2 else ("memory",)
    missing = [name for name in needed if name not in cgroup["controllers"]]
    if missing:
        problems.append(
            problem(
                "APL-0730",
                host,
                f"cgroup v{cgroup['version']} without the controller(s) {', '.join(missing)}, which K3s needs",
                "Add cgroup_enable=cpuset cgroup_enable=memory cgroup_memory=1 to the kernel command line and reboot.",
            )
        )
    k3s = report["k3s"]
    if k3s["found"] and not k3s["managed"]:
        problems.append(
            problem(
                "APL-0731",
                host,
                f"a K3s that the appliance did not install is here: {named(k3s['found'])}",
                "Remove it (k3s-uninstall.sh; save its snapshots and token first), or hand it over by creating"
                " /etc/appliance/managed.",
            )
        )
    return problems


def _port_problems(host: str, address: str, report: Mapping[str, Any], ports: list[Mapping[str, Any]]) -> list[Problem]:
    """Check that nobody else listens where the appliance and K3s will.

    :param ports: each ``port`` and ``address``: ``loopback`` or ``node`` (any address of the host counts then).
    """
    if report["listeners"] is None:
        return [problem("APL-0722", host, "ss is not installed, so open ports cannot be seen", "Install iproute2.")]
    problems = []
    for wanted in ports:
        for listener in report["listeners"]:
            if listener["port"] != int(wanted["port"]) or set(listener["units"]) & set(_OWN_UNITS):
                continue
            at = listener["address"]
            is_loopback = at == "::1" or at.startswith("127.")
            clash = at in _WILDCARDS or (is_loopback if wanted["address"] == "loopback" else True)
            if not clash:
                continue
            owner = named(listener["units"] or listener["processes"]) or "an unknown process"
            problems.append(
                problem(
                    "APL-0728",
                    host,
                    f"port {wanted['port']}/tcp is taken on {at} by {owner}; {wanted['use']} needs it"
                    + (f" on {address}" if wanted["address"] != "loopback" else " on 127.0.0.1"),
                    "Stop that service or move it to another port, then run again.",
                )
            )
            break
    return problems


def _disk_problems(host: str, report: Mapping[str, Any], needed: Mapping[str, int]) -> list[Problem]:
    """Check free space, adding up directories that share a file system.

    :param needed: directory to bytes that will be written below it.
    """
    by_device: dict[Any, list[str]] = {}
    for path in needed:
        if path in report["filesystems"]:
            by_device.setdefault(report["filesystems"][path]["device"], []).append(path)
    problems = []
    for paths in by_device.values():
        disk = report["filesystems"][paths[0]]
        total = sum(int(needed[path]) for path in paths)
        if total > disk["available"]:
            problems.append(
                problem(
                    "APL-0727",
                    host,
                    f"the file system at {disk['mount']} is too small: {human(total)} needed ({total} bytes, for"
                    f" {', '.join(paths)}), {human(disk['available'])} available ({disk['available']} bytes)",
                    "Free space there, or mount a larger file system at one of these directories.",
                )
            )
    return problems


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


def host_problems(
    results: Mapping[str, Mapping[str, Any]],
    variables: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> list[Problem]:
    """Return what is wrong with the hosts that were examined.

    :param results: host to the registered result of ``site.appliance.host_report``.
    :param variables: ``hostvars``.
    :param settings: ``ports``, ``max_clock_skew`` (seconds), ``now`` (seconds since 1970, optional), ``bytes`` and
        ``minimum`` (directory to bytes), ``seeds`` (hosts that import), ``nodes`` (how many there are), ``copies``.
    """
    problems: list[Problem] = []
    reports: dict[str, Mapping[str, Any]] = {}
    for host, result in results.items():
        contact = _contact_problem(host, result)
        if contact:
            problems.append(contact)
        else:
            reports[host] = result["report"]
    sizes: dict[str, int] = {}
    for report in reports.values():
        for path, size in report["sources"].items():
            sizes[path] = max(sizes.get(path, 0), size or 0)
    for path, size in (settings.get("controller_sources") or {}).items():
        sizes[path] = max(sizes.get(path, 0), size or 0)
    total = sum(sizes.values())
    copies = settings.get("copies", 2)
    nodes = max(1, int(settings.get("nodes", 1)))
    for host, report in reports.items():
        holds_all = host in settings.get("seeds", []) or copies == "all"
        share = 1.0 if holds_all else min(1.0, int(copies) / nodes)
        needed = bytes_needed(report, settings.get("bytes", {}), settings.get("minimum", {}), total, share)
        problems += _python_problems(host, report)
        problems += _system_problems(host, report)
        problems += _port_problems(host, node_address(host, variables[host]), report, settings.get("ports", []))
        problems += _disk_problems(host, report, needed)
    epochs = {host: float(report["epoch"]) for host, report in reports.items()}
    now = float(settings.get("now") or time.time())
    problems += clock_problems(epochs, now, float(settings["max_clock_skew"]))
    order = list(results)
    problems.sort(key=lambda entry: order.index(entry["where"]))
    names: dict[str, list[str]] = {}
    for host, report in reports.items():
        names.setdefault(report["hostname"].lower(), []).append(host)
    for name, twins in names.items():
        if len(twins) > 1:
            problems.append(
                problem(
                    "APL-0704",
                    "inventory",
                    f"{named(twins)} all call themselves {name}: host names must differ",
                    "Set each one's own name (hostnamectl set-hostname).",
                )
            )
    return problems


def host_notes(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what is no problem but worth knowing: what role host will mend, cgroup v1, swap, an old iptables."""
    notes = []
    for host, result in results.items():
        report = result.get("report")
        if not report:
            continue
        if not report["default_routes"]:
            notes.append(f"{host}: no default route; role host adds one that leads nowhere")
        to_load = [name for name, state in report["modules"].items() if state == "loadable"]
        if to_load:
            notes.append(f"{host}: kernel modules that role host loads: {', '.join(to_load)}")
        absent = [name for name, state in report["modules"].items() if state == "missing"]
        if absent and not report["container"]:
            notes.append(f"{host}: kernel modules that cannot be seen: {', '.join(absent)}")
        if report["cgroup"]["version"] == 1:
            notes.append(f"{host}: cgroup v1; a kubelet from 1.35 on needs the argument fail-cgroupv1=false")
        if report["swap"]:
            notes.append(f"{host}: {human(report['swap'])} of swap; Kubernetes recommends none")
        old = re.match(r"iptables v1\.8\.([0-4])\b", report["iptables"])
        if old:
            notes.append(f"{host}: {report['iptables']} has known defects; K3s's own is used with prefer-bundled-bin")
    return notes


def problem_text(problems: list[Problem]) -> str:
    """Write all problems as one message, the inventory's first, then host by host."""
    places = list(dict.fromkeys(["inventory", *(entry["where"] for entry in problems)]))
    count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
    lines = [f"{count} found. Nothing was changed on any host."]
    for place in places:
        here = [entry for entry in problems if entry["where"] == place]
        if here:
            lines += ["", f"{place}:"]
            for entry in here:
                lines += [f"  {entry['id']} {entry['what']}.", f"           {entry['fix']}"]
    return "\n".join(lines)


def source_sizes(paths: Iterable[str]) -> dict[str, int]:
    """Return the bytes below each path on the controller, 0 where there is nothing."""
    sizes = {}
    for name in paths:
        path = Path(name)
        files = [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]
        sizes[name] = sum(entry.stat().st_size for entry in files)
    return sizes


class FilterModule:
    """The names that playbooks call these functions by."""

    def filters(self) -> dict[str, Any]:
        """Return name to function."""
        return {
            "host_notes": host_notes,
            "host_problems": host_problems,
            "inventory_problems": inventory_problems,
            "node_address": node_address,
            "node_addresses": node_addresses,
            "problem_text": problem_text,
            "role_options": role_options,
            "source_sizes": source_sizes,
        }
