# SPDX-License-Identifier: Apache-2.0
"""Checks of an inventory that need no host: groups, names, addresses, variables. Pure functions."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.site.appliance.plugins.filter.firewall import firewall_rules
from ansible_collections.site.appliance.plugins.filter.k3s import AGENT_TOKEN_FILE, TOKEN_FILE, k3s_config
from ansible_collections.site.appliance.plugins.filter.registries import registries_render
from ansible_collections.site.appliance.plugins.plugin_utils.findings import (
    INVENTORY,
    Problem,
    from_line,
    named,
    problem,
)

#: A host name as Kubernetes takes one for a node: RFC 1123, lower case. The whole is also a label's value: 63 characters.
_HOSTNAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$")
_NAME_LIMIT = 63
_CORE_MIN = (2, 19)
_CORE_END = (2, 22)


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


@dataclasses.dataclass(frozen=True)
class Inventory:
    """An inventory: ``hostvars``, ``groups``, the options that the roles know, and the controller's ansible-core."""

    variables: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, Any]
    options: Mapping[str, list[str]]
    ansible_version: str

    @property
    def cluster(self) -> list[str]:
        """The hosts of all groups that make the cluster, each once."""
        members = [
            host for group in ("k3s_servers", "k3s_agents", "k3s_cluster") for host in self.groups.get(group, [])
        ]
        return list(dict.fromkeys(str(host) for host in members))


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
        problems.append(problem("APL-0708", INVENTORY, f"unknown variable {name} (set for {named(names[name])})", fix))
    return problems


def _group_problems(inventory: Inventory) -> list[Problem]:
    """Check who is in which group."""
    groups = inventory.groups
    servers = list(groups.get("k3s_servers", []))
    agents = list(groups.get("k3s_agents", []))
    cluster = list(dict.fromkeys([*servers, *agents, *groups.get("k3s_cluster", [])]))
    seeds = list(groups.get("mirror_seeds", []))
    problems = []
    if not servers:
        problems.append(
            problem(
                "APL-0701",
                INVENTORY,
                "the group k3s_servers is missing or empty",
                "Put one host, or an odd number of hosts, into k3s_servers; see inventory/example/hosts.yml.",
            )
        )
    elif len(servers) > 1 and len(servers) % 2 == 0:
        problems.append(
            problem(
                "APL-0702",
                INVENTORY,
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
                INVENTORY,
                f"in k3s_servers and in k3s_agents: {named(both)}",
                "Keep each in one.",
            )
        )
    strays = [host for host in cluster if host not in servers and host not in agents]
    if strays:
        problems.append(
            problem(
                "APL-0712",
                INVENTORY,
                f"in k3s_cluster but neither a server nor an agent: {named(strays)}",
                "Put each into k3s_servers or k3s_agents.",
            )
        )
    apart = [host for host in [*servers, *agents] if host not in groups.get("k3s_cluster", [])]
    if apart:
        problems.append(
            problem(
                "APL-0712",
                INVENTORY,
                f"not in k3s_cluster: {named(apart)}",
                "Make k3s_servers and k3s_agents children of k3s_cluster; see inventory/example/hosts.yml.",
            )
        )
    outside = [host for host in seeds if host not in cluster]
    if outside:
        problems.append(
            problem(
                "APL-0707",
                INVENTORY,
                f"in mirror_seeds but not in k3s_cluster: {named(outside)}",
                "Seeds are nodes of the cluster: add each to k3s_servers or k3s_agents, or take it out of there.",
            )
        )
    return problems


def node_name(host: str, variables: Mapping[str, Any]) -> str:
    """Return the name that a host gets in Kubernetes, as role ``k3s`` does."""
    return str(variables.get("k3s_node_name") or host.lower())


def _name_problems(inventory: Inventory) -> list[Problem]:
    """Check host names and node names for form and for duplicates."""
    problems = []
    by_name: dict[str, list[str]] = {}
    for host in inventory.cluster:
        name = node_name(host, inventory.variables[host])
        by_name.setdefault(name.lower(), []).append(host)
        for kind, wrong in dict.fromkeys((("host name", host), ("k3s_node_name", name))):
            if kind == "k3s_node_name" and wrong == host.lower():
                continue
            if not _HOSTNAME.match(wrong):
                what = f"{wrong!r} is not a valid node name" + (f" (k3s_node_name of {host})" if wrong != host else "")
                fix = "Use lower-case letters, digits, '-' and '.' (RFC 1123); it becomes the Kubernetes node name."
                problems.append(problem("APL-0706", INVENTORY, what, fix))
            elif len(wrong) > _NAME_LIMIT:
                what = f"{wrong!r} has {len(wrong)} characters; a node's name may have {_NAME_LIMIT}"
                problems.append(
                    problem("APL-0706", INVENTORY, what, "Use a shorter one: Kubernetes keeps it as a label.")
                )
    for twins in by_name.values():
        if len(twins) > 1:
            differ = all(node_name(host, inventory.variables[host]) == host.lower() for host in twins)
            what = (
                f"host names that differ only in case: {named(twins)}"
                if differ
                else f"one node name for {named(twins)}"
            )
            problems.append(problem("APL-0704", INVENTORY, what, "Rename one."))
    return problems


def _address_problems(inventory: Inventory) -> list[Problem]:
    """Check addresses for form and for duplicates."""
    problems = []
    by_address: dict[str, list[str]] = {}
    for host in inventory.cluster:
        address = node_address(host, inventory.variables[host])
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            problems.append(
                problem(
                    "APL-0711",
                    INVENTORY,
                    f"the address of {host} is {address!r}, which is not an IP address",
                    f"Set node_ip for {host} to the address that the other nodes reach it by.",
                )
            )
            continue
        if parsed.is_loopback or parsed.is_unspecified or parsed.is_link_local or parsed.is_multicast:
            problems.append(
                problem(
                    "APL-0711",
                    INVENTORY,
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
                    INVENTORY,
                    f"one address for {len(twins)} hosts: {address} is that of {named(twins)}",
                    "Give each its own node_ip (or ansible_host).",
                )
            )
    return problems


def _copies_problems(inventory: Inventory) -> list[Problem]:
    """Check ``mirror_copies`` where the inventory sets it."""
    cluster = inventory.cluster
    for host in cluster:
        value = inventory.variables[host].get("mirror_copies")
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
        return [problem("APL-0709", INVENTORY, what, fix)]
    return []


def _version_problems(inventory: Inventory) -> list[Problem]:
    """Check the controller's ansible-core against the window that is tested."""
    match = re.match(r"(\d+)\.(\d+)", inventory.ansible_version)
    found = (int(match[1]), int(match[2])) if match else (0, 0)
    if _CORE_MIN <= found < _CORE_END:
        return []
    window = f"from {_CORE_MIN[0]}.{_CORE_MIN[1]} up to, not including, {_CORE_END[0]}.{_CORE_END[1]}"
    return [
        problem(
            "APL-0710",
            INVENTORY,
            f"ansible-core on the controller is {inventory.ansible_version}; {window} is what this release was tested with",
            "Use the controller environment that comes with the appliance (requirements/controller.txt).",
        )
    ]


def _variable_problems(inventory: Inventory) -> list[Problem]:
    """Name the variables of the cluster and its seeds that no role knows."""
    seeds = [str(host) for host in inventory.groups.get("mirror_seeds", [])]
    names: dict[str, list[str]] = {}
    for host in dict.fromkeys([*inventory.cluster, *seeds]):
        for name in inventory.variables[host]:
            names.setdefault(str(name), []).append(host)
    return unknown_variables(names, inventory.options)


def _registry_problems(inventory: Inventory) -> list[Problem]:
    """Check the tables of registries, which role ``registries`` would refuse after the medium is read."""
    keys = ("mirrors", "wildcard", "internal", "configs", "mirror_url", "add_mirror", "embedded")
    lines: list[str] = []
    for host in inventory.cluster:
        given = {key: inventory.variables[host].get(f"registries_{key}") for key in keys}
        lines += registries_render({key: value for key, value in given.items() if value is not None})["problems"]
    return [from_line(line, INVENTORY) for line in dict.fromkeys(lines)]


def _k3s_option_problems(inventory: Inventory) -> list[Problem]:
    """Check the options of K3s, which role ``k3s`` would refuse after the medium is read."""
    servers = [str(host) for host in inventory.groups.get("k3s_servers", [])]
    variables = inventory.variables
    lines: list[str] = []
    for host in inventory.cluster if servers else []:
        own = variables[host]
        role = "server" if host in servers else "agent"
        arguments = own.get("k3s_kubelet_args") or []
        spec = {
            "role": role,
            "node_name": node_name(host, own),
            "node_ip": node_address(host, own),
            "servers": [
                {"name": node_name(name, variables[name]), "ip": node_address(name, variables[name])}
                for name in servers
            ],
            "token_file": str(own.get("k3s_token_file") or TOKEN_FILE),
            "agent_token_file": str(own.get("k3s_agent_token_file") or AGENT_TOKEN_FILE),
            # Ansible makes a list of a string in the same way.
            "kubelet_args": arguments.split(",") if isinstance(arguments, str) else arguments,
            "options": own.get("k3s_config"),
            "own_options": own.get(f"k3s_{role}_config"),
            "server_options": {name: variables[name].get("k3s_server_config") or {} for name in servers},
            "dropins": own.get("k3s_containerd_dropins"),
        }
        lines += k3s_config(spec)["problems"]
    # The names of nodes have a check of their own.
    return [from_line(line, INVENTORY) for line in dict.fromkeys(lines) if not line.startswith("APL-0836")]


def _firewall_problems(inventory: Inventory) -> list[Problem]:
    """Check the ports and sources for the firewall, which role ``firewall`` would refuse after the plan is agreed to."""
    ports = ("cluster_ports", "server_ports", "operator_ports", "operator_sources", "service_ports")
    networks = ("pod_cidr", "service_cidr")
    problems: list[Problem] = []
    for host in inventory.cluster:
        for name in (*ports, *networks):
            given = inventory.variables[host].get(f"firewall_{name}")
            if not given:
                continue
            empty = {**dict.fromkeys(ports, ()), **dict.fromkeys(networks, "")}
            value = [given] if name in ports and isinstance(given, str) else given
            # Where there are operators, their ports are looked at.
            sources = {"operator_sources": ["192.0.2.1"]} if name == "operator_ports" else {}
            try:
                firewall_rules(host, {host: "192.0.2.1"}, [host], {**empty, **sources, name: value})
            except (ValueError, KeyError, TypeError) as error:
                words = (
                    str(error) if str(error).startswith("APL-0752") else f"APL-0752: {value!r} is not a list of ports"
                )
                entry = from_line(words, INVENTORY)
                entry["what"] = f"firewall_{name}: {entry['what']}"
                if entry not in problems:
                    problems.append(entry)
    return problems


INVENTORY_CHECKS: tuple[Callable[[Inventory], list[Problem]], ...] = (
    _version_problems,
    _group_problems,
    _name_problems,
    _address_problems,
    _copies_problems,
    _registry_problems,
    _k3s_option_problems,
    _firewall_problems,
    _variable_problems,
)
