# SPDX-License-Identifier: Apache-2.0
"""Compute a host's firewall rules from the inventory: pure functions, run on the controller."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

_MIRROR = "5443"
_PORT = re.compile(r"^(\d{1,5})(?:-(\d{1,5}))?/(tcp|udp)$")


def parse_port(text: str) -> tuple[str, str]:
    """Split ``80/tcp`` or ``30000-32767/udp`` into ports and protocol.

    :raises ValueError: where the form or a number is wrong.
    """
    match = _PORT.match(str(text).strip())
    numbers = [int(number) for number in match.groups()[:2] if number] if match else []
    if not match or not all(1 <= number <= 65535 for number in numbers) or numbers != sorted(numbers):
        raise ValueError(f"APL-0752: {text!r} is not a port: write 80/tcp, 53/udp or 30000-32767/tcp")
    return "-".join(str(number) for number in dict.fromkeys(numbers)), match[3]


def parse_sources(sources: Iterable[Any]) -> list[str]:
    """Normalise addresses and networks, without repeats, in order.

    :raises ValueError: where one is neither.
    """
    found = []
    for source in sources:
        try:
            network = ipaddress.ip_network(str(source), strict=False)
        except ValueError:
            raise ValueError(f"APL-0752: {source!r} is not an address or a network (192.0.2.0/24)") from None
        found.append(str(network.network_address) if network.num_addresses == 1 else str(network))
    return list(dict.fromkeys(found))


def _rules_for(name: str, ports: Iterable[str], sources: list[str]) -> list[dict[str, Any]]:
    """Make one rule for each protocol, its ports in order of number."""
    by_protocol: dict[str, list[str]] = {}
    for port in ports:
        number, protocol = parse_port(port)
        by_protocol.setdefault(protocol, []).append(number)
    return [
        {
            "name": name,
            "proto": protocol,
            "ports": sorted(dict.fromkeys(numbers), key=lambda text: int(text.split("-")[0])),
            "sources": sources,
        }
        for protocol, numbers in sorted(by_protocol.items())
    ]


def firewall_rules(
    host: str, addresses: Mapping[str, str], servers: Iterable[str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the rules of one host, for the module ``site.appliance.firewall``.

    :param host: the host they are for.
    :param addresses: every node of the cluster to the address it comes from.
    :param servers: the nodes that run etcd; their ports are open among themselves only.
    :param settings: ``cluster_ports``, ``server_ports``, ``operator_ports`` (lists of ``6443/tcp``),
        ``operator_sources``, ``service_ports`` (``80/tcp``, or a mapping of ``port`` and ``sources``), ``pod_cidr`` and
        ``service_cidr`` (networks, several with commas), ``pods_to_mirror`` (whether pods reach the mirrors' peer port).
    :raises ValueError: where a port or an address is none.
    """
    everyone = parse_sources(addresses.values())
    etcd = list(servers)
    rules = _rules_for("nodes", settings["cluster_ports"], everyone)
    if host in etcd:
        rules += _rules_for("servers", settings["server_ports"], parse_sources(addresses[name] for name in etcd))
    operators = parse_sources(settings["operator_sources"])
    if operators:
        rules += _rules_for("operators", settings["operator_ports"], operators)
    open_to_all = []
    for number, entry in enumerate(settings["service_ports"], start=1):
        if not isinstance(entry, Mapping):
            open_to_all.append(str(entry))
        elif entry.get("sources"):
            rules += _rules_for(f"service{number}", [entry["port"]], parse_sources(entry["sources"]))
        else:
            open_to_all.append(str(entry["port"]))
    rules += _rules_for("services", open_to_all, [])
    pods = parse_sources(part for part in str(settings["pod_cidr"]).split(",") if part)
    services = parse_sources(part for part in str(settings["service_cidr"]).split(",") if part)
    # The nodes' UDP ports carry the pods' own traffic, wrapped (vxlan): what comes to them with a pod's address is forged.
    guarded = [port for rule in rules if rule["name"] == "nodes" and rule["proto"] == "udp" for port in rule["ports"]]
    # On its way to another node a pod's packet gets this node's address: only here can it be told from the node's own.
    closed = [] if settings.get("pods_to_mirror") else [_MIRROR]
    return {
        "input": rules,
        "trusted": [*pods, *services],
        "guarded": guarded,
        "closed": closed,
        "forward": pods,
        "nodes": everyone,
    }


class FilterModule:
    """The names that playbooks call these functions by."""

    def filters(self) -> dict[str, Any]:
        """Return name to function."""
        return {"firewall_rules": firewall_rules}
