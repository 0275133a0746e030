# SPDX-License-Identifier: Apache-2.0
"""What role mirror writes and checks, as pure functions."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.site.appliance.plugins.plugin_utils.problems import plain

_HEAD = "# Written by the appliance (role mirror). Change the inventory and run site.yml; this file is overwritten.\n"
_PEER_PORT = 5443


def mirror_seeds(groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the site's seeds in order, the publisher first.

    They are the hosts of ``mirror_seeds`` that belong to the cluster; where there is none, the first server.
    """
    cluster = list(groups.get("k3s_cluster", []))
    seeds = [host for host in groups.get("mirror_seeds", []) if host in cluster]
    return plain(seeds or list(groups.get("k3s_servers", []))[:1])


def mirror_listen(address: str) -> str:
    """Return where the peer listener binds: the node's address; every address where that is a name."""
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return f"0.0.0.0:{_PEER_PORT}"
    return f"[{address}]:{_PEER_PORT}" if version == 6 else f"{address}:{_PEER_PORT}"


def mirror_config(spec: Mapping[str, Any]) -> str:
    """Return the text of ``/etc/appliance/config.yaml``.

    The order of the peers is that of the inventory, so that a run over the same inventory writes the same bytes.

    :param spec: ``node`` (its id), ``addresses`` (id to address, all nodes), ``zones`` (id to zone), ``seeds`` (ordered ids),
        ``copies`` (number or ``all``), ``keep_generations`` and ``workers`` (counts), ``free_percent``, ``store``, ``pki``.
    """
    spec = plain(spec)
    copies = spec["copies"]
    if copies != "all":
        try:
            copies = int(copies)
        except (TypeError, ValueError):
            copies = 0
        if copies < 1:
            raise AnsibleFilterError(
                f"APL-0764: mirror_copies is {spec['copies']!r}. Set it to a number of nodes from 1 on, or to all"
            )
    document = {
        "node": spec["node"],
        "store": spec["store"],
        "pki": spec["pki"],
        "publisher": spec["seeds"][0],
        "seeds": spec["seeds"],
        "mirror_copies": copies,
        "keep_generations": int(spec["keep_generations"]),
        "free_percent": float(spec["free_percent"]),
        "workers": int(spec["workers"]),
        "peer_listen": mirror_listen(spec["addresses"][spec["node"]]),
        "peers": [
            {
                "id": host,
                "address": address,
                "zone": str(spec["zones"].get(host, "default")),
                "seed": host in spec["seeds"],
            }
            for host, address in spec["addresses"].items()
        ],
    }
    return _HEAD + yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=200)


def mirror_changes(
    found: Mapping[str, str], wanted: Mapping[str, str], release: Mapping[str, Any], certificate: str
) -> list[str]:
    """Return what role mirror would change on a node, one line each.

    :param found: path to SHA-256 of the files that are there, empty where a file is missing.
    :param wanted: path to text of the files that the role writes.
    :param release: result of ``site.appliance.release`` in check mode.
    :param certificate: path of the node's certificate.
    """
    lines = []
    if not release["current"]:
        lines.append(f"release {release['name']} is installed")
    if not found.get(certificate):
        lines.append("a key and a certificate are made")
    for path, text in wanted.items():
        digest = hashlib.sha256(text.encode()).hexdigest()
        if found.get(path) != digest:
            lines.append(f"{path} {'changes' if found.get(path) else 'is written'}")
    return lines


def mirror_properties(shown: str, wanted: Mapping[str, str]) -> list[str]:
    """Return what systemd says of a unit where it differs from what its file asks for.

    :param shown: output of ``systemctl show -p NAME,... UNIT``.
    :param wanted: property to value; a property that this systemd does not know (it is not shown) does not count.
    """
    found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return [
        f"{name} is {found[name] or 'empty'}, not {value}"
        for name, value in wanted.items()
        if name in found and found[name] != value
    ]


class FilterModule:
    """The names that playbooks call these functions by."""

    def filters(self) -> dict[str, Any]:
        """Return name to function."""
        return {
            "mirror_changes": mirror_changes,
            "mirror_config": mirror_config,
            "mirror_properties": mirror_properties,
            "mirror_seeds": mirror_seeds,
        }
