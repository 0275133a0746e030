# SPDX-License-Identifier: Apache-2.0
"""What role mirror writes and checks, as pure functions."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.site.appliance.plugins.plugin_utils.problems import plain
from ansible_collections.site.appliance.plugins.plugin_utils.words import each

_HEAD = "# Written by the appliance (role mirror). Change the inventory and run site.yml; this file is overwritten.\n"
_PEER_PORT = 5443
# What running services take anew when the file is replaced (appliance.config.LIVE): it restarts nothing.
_LIVE = ("publisher", "seeds", "mirror_copies", "peers")
# What the appliance reads (appliance.web.auth), so that a slip is found before anything changes.
_BYTES = re.compile(r"(\d{1,15}) ?([KMGTkmgt]?)(?:i?B)?")
_PUSH_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}:scrypt\$\d+\$\d+\$\d+\$[A-Za-z0-9+/]+=*\$[A-Za-z0-9+/]+=*")


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
        ``copies`` (number or ``all``), ``keep_generations``, ``workers`` and ``peer_workers`` (counts), ``free_percent``,
        ``store_limit`` and ``scrub_rate`` (see :func:`mirror_bytes`; an empty limit is none), ``store``, ``pki``,
        ``site`` (its name), ``push_users`` (path of the operators' credentials; empty: pushing is off).
    """
    return _HEAD + _dump(_document(plain(spec)))


def mirror_start(spec: Mapping[str, Any]) -> str:
    """Return the part of that file which the services act on at start alone; another list of nodes leaves it the same."""
    return _dump({key: value for key, value in _document(plain(spec)).items() if key not in _LIVE})


def _dump(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(document), sort_keys=False, default_flow_style=None, width=200)


def _document(spec: Mapping[str, Any]) -> dict[str, Any]:
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
    limit = mirror_bytes(spec["store_limit"] or 0, "mirror_store_limit")
    return {
        "node": spec["node"],
        "store": spec["store"],
        "pki": spec["pki"],
        "site": str(spec["site"]),
        "publisher": spec["seeds"][0],
        "seeds": spec["seeds"],
        "mirror_copies": copies,
        "keep_generations": int(spec["keep_generations"]),
        "free_percent": float(spec["free_percent"]),
        **({"store_limit": limit} if limit else {}),
        "scrub_rate": mirror_bytes(spec["scrub_rate"], "mirror_scrub_rate"),
        "workers": int(spec["workers"]),
        "peer_workers": int(spec["peer_workers"]),
        **({"push_users": spec["push_users"]} if spec.get("push_users") else {}),
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


def mirror_leaving(text: str, nodes: Sequence[str]) -> list[str]:
    """Return the nodes that a configuration lists and the inventory does not any more.

    :param text: of the ``config.yaml`` that a node runs with; one that is no configuration lists nobody.
    :param nodes: ids in the inventory.
    """
    return [node for node in _listed(text) if node not in nodes]


def mirror_departures(text: str, seeds: Sequence[str], said: Mapping[str, Any] | None) -> list[str]:
    """Return the lines of a plan about nodes that leave, and about another publisher.

    :param text: as for :func:`mirror_leaving`.
    :param seeds: ordered ids in the inventory.
    :param said: what ``appliance leaving --json`` printed; None where it was not asked.
    """
    before = (_parsed(text).get("seeds") or [""])[0]
    lines = [f"{seeds[0]} publishes from now on; it was {before}"] if before and before != seeds[0] else []
    for node in said["leaving"] if said else ():
        lines.append(f"{node} is a node of the site no more{', and does not answer' if node in said['silent'] else ''}")
    for key, words in (
        ("only_there", "fetched here first, since only a node that leaves holds it"),
        ("at_risk", "GIVEN UP"),
    ):
        blobs = said[key] if said else []
        names = sorted({name for blob in blobs for name in blob["names"]})
        # An older release on the node does not say it.
        older = "" if any(blob.get("served", True) for blob in blobs) else " in older generations alone"
        if blobs:
            lines.append(
                f"{len(blobs)} blobs ({sum(blob['size'] for blob in blobs)} bytes) of {', '.join(names)}{older}: {words}"
            )
    return plain(each(lines))


def _listed(text: str) -> list[str]:
    peers = _parsed(text).get("peers")
    return (
        [str(peer["id"]) for peer in peers if isinstance(peer, dict) and "id" in peer]
        if isinstance(peers, list)
        else []
    )


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    return found if isinstance(found, dict) else {}


def mirror_bytes(value: Any, name: str) -> int:
    """Return bytes from a number of them, or from a number with ``K``, ``M``, ``G`` or ``T`` (powers of 1024).

    :param name: the variable, for the error.
    """
    found = _BYTES.fullmatch(str(plain(value)).strip())
    if found is None:
        raise AnsibleFilterError(
            f"APL-0778: {name} is {plain(value)!r}. Set it to bytes, or to a number with K, M, G or T, such as 200G"
        )
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[found[2].upper()]


def mirror_memory_max(high: str) -> str:
    """Return ``MemoryMax`` of a unit from its ``MemoryHigh``: a quarter more, so that it is slowed down before it is killed.

    :param high: as systemd takes it: bytes, a number with K, M, G or T, percent, or ``infinity``.
    """
    text = str(plain(high)).strip()
    if text == "infinity":
        return text
    if text.endswith("%") and text[:-1].isdecimal():
        return f"{min(100, int(text[:-1]) * 5 // 4)}%"
    return str(mirror_bytes(text, "mirror_memory_high") * 5 // 4)


def mirror_push_lines(users: Sequence[str]) -> str:
    """Return the text of ``/etc/appliance/push-users``.

    :param users: lines that ``appliance hash-password`` printed.
    """
    lines = [str(line).strip() for line in plain(users)]
    wrong = [number for number, line in enumerate(lines, 1) if not _PUSH_USER.fullmatch(line)]
    names = [line.partition(":")[0] for line in lines]
    twice = sorted({name for name in names if names.count(name) > 1})
    if wrong or twice:
        raise AnsibleFilterError(
            f"APL-0768: mirror_push_users: {f'entries {wrong} are not name:scrypt$...' if wrong else f'given twice: {twice}'}."
            " Make each line with `appliance hash-password NAME`; a password does not belong into the inventory"
        )
    return _HEAD + "".join(f"{line}\n" for line in lines)


def mirror_record(sums: str, release: str, certificates: Sequence[str], texts: Mapping[str, str]) -> str:
    """Return the record of what the services start from; where the one on the node differs, a restart is due.

    :param sums: output of ``sha256sum`` in which the certificates are; one that is missing is not in it.
    :param release: its name.
    :param certificates: paths of what is not made from the inventory.
    :param texts: path to text of what is, with the part of the configuration that counts at start.
    """
    found = _sums(sums)
    lines = [f"{found.get(path, 'none')}  {path}" for path in certificates]
    lines += [f"{_sha256(text)}  {path}" for path, text in texts.items()]
    return "\n".join([release, *lines]) + "\n"


def mirror_changes(
    sums: str, wanted: Mapping[str, str], release: Mapping[str, Any], certificate: str, record: Mapping[str, str]
) -> dict[str, Any]:
    """Return what role mirror would change on a node (``changes``, lines) and whether its services restart (``due``).

    :param sums: output of ``sha256sum`` over the files that the role writes, the certificates and the record; a file that
        is missing is not in it.
    :param wanted: path to text of the files that the role writes.
    :param release: result of ``site.appliance.release`` in check mode.
    :param certificate: path of the node's certificate.
    :param record: ``path`` and ``text`` of the record of what the services were last restarted with.
    """
    found = _sums(sums)
    is_due = not release["current"] or certificate not in found or found.get(record["path"]) != _sha256(record["text"])
    changes = []
    if not release["current"]:
        changes.append(f"release {release['name']} is installed")
    if certificate not in found:
        changes.append("a key and a certificate are made")
    for path, text in wanted.items():
        if found.get(path) != _sha256(text):
            how = "changes" if path in found else "is written"
            changes.append(f"{path} {how}{'' if is_due else ', without a restart'}")
    return {"changes": changes, "due": is_due}


def _sums(text: str) -> dict[str, str]:
    """Path to digest from the output of ``sha256sum``."""
    return {path: digest for digest, _, path in (line.partition("  ") for line in text.splitlines())}


def mirror_stopped(shown: str, units: Sequence[str]) -> list[str]:
    """Return the units that do not run, or will not at the next boot.

    :param shown: output of ``systemctl show`` for these units, with ActiveState and UnitFileState.
    """
    blocks = _blocks(shown, units)
    return [
        unit
        for unit, block in blocks.items()
        if block.get("ActiveState") != "active" or block.get("UnitFileState") != "enabled"
    ]


def mirror_properties(shown: str, units: Sequence[str], wanted: Mapping[str, str]) -> list[str]:
    """Return what systemd says of the units where it differs from what their files ask for.

    :param shown: output of ``systemctl show`` for these units.
    :param wanted: property to value; a property that this systemd does not know (it is not shown) does not count.
    """
    return [
        f"{unit}: {name} is {block[name] or 'empty'}, not {value or 'empty'}"
        for unit, block in _blocks(shown, units).items()
        for name, value in wanted.items()
        if name in block and block[name] != value
    ]


def _blocks(shown: str, units: Sequence[str]) -> dict[str, dict[str, str]]:
    """Split the output of ``systemctl show`` by unit; a unit of which nothing was said has an empty block."""
    found: dict[str, dict[str, str]] = {unit: {} for unit in units}
    for text in shown.split("\n\n"):
        block = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        if block.get("Id") in found:
            found[block["Id"]] = block
    return found


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class FilterModule:
    """The names that playbooks call these functions by."""

    def filters(self) -> dict[str, Any]:
        """Return name to function."""
        return {
            "mirror_changes": mirror_changes,
            "mirror_config": mirror_config,
            "mirror_properties": mirror_properties,
            "mirror_departures": mirror_departures,
            "mirror_leaving": mirror_leaving,
            "mirror_memory_max": mirror_memory_max,
            "mirror_push_lines": mirror_push_lines,
            "mirror_record": mirror_record,
            "mirror_start": mirror_start,
            "mirror_stopped": mirror_stopped,
            "mirror_seeds": mirror_seeds,
        }
