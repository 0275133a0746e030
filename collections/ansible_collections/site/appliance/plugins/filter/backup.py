# SPDX-License-Identifier: Apache-2.0
"""What a backup holds, as pure functions from data to data and text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.site.appliance.plugins.plugin_utils.problems import plain
from ansible_collections.site.appliance.plugins.plugin_utils.sizes import size_words
from ansible_collections.site.appliance.plugins.plugin_utils.words import each

_DATASTORES = {
    "sqlite": "K3s's datastore: a copy of its sqlite database",
    "etcd": "K3s's datastore: a snapshot of etcd",
    "none": "K3s's datastore: NOT in it; the first server has neither sqlite nor etcd (K3s is not installed there, uses an"
    " external database, or is the lab's stand-in)",
}


def backup_passwords(hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str]) -> dict[str, str]:
    """Return node to its password of K3s, in base64, of those that could be read."""
    found = {host: (hostvars[host].get("__backup_password") or {}).get("content") for host in hosts}
    return plain({host: content for host, content in found.items() if content})


def backup_text(packed: Mapping[str, Any], nodes: Sequence[str]) -> str:
    """Write for people what was packed, and what of the site is not in it.

    :param packed: what ``appliance backup pack --json`` printed.
    :param nodes: the nodes of the site.
    """
    packed = each(packed)
    about = packed["about"]
    store, k3s = about["store"], about["k3s"]
    lines = [
        f"{packed['archive']}: {size_words(packed['bytes'])}, written and read back. Keep a copy off the site, as secret as a key.",
        f"  the authority of site {about['site']}, with its key",
        f"  {about['publisher']}: {_index('generation', store['generation'])} with {store['names']} names,"
        f" {_index('pushes', store['pushes'])}, {_index('pins', store['pins'])}, the journal",
    ]
    if store["pushes"]:
        layers = "with" if store["pushed_blobs"] else "WITHOUT (backup_pushed_blobs)"
        lines.append(f"  what operators pushed, {layers} its layers")
    if store["missing"]:
        lines.append(f"  not on {about['publisher']}, and so NOT in it: {', '.join(store['missing'])}")
    listed = {item["name"] for item in packed["files"]}
    for what, name in (("servers", "k3s/token"), ("agents", "k3s/agent-token")):
        lines.append(f"  K3s's token of {what}: {'in it' if name in listed else 'NOT in it, there is none'}")
    lines.append(f"  {_DATASTORES[k3s['datastore']]}")
    without = [node for node in nodes if f"k3s/nodes/{node}" not in listed]
    if without and k3s["datastore"] != "none":
        lines.append(f"  K3s's password NOT in it of {', '.join(without)}: off, or not of the cluster yet")
    if store["media"]:
        lines.append("  layers that media brought are not in it; keep these media:")
        lines += [f"    {medium}" for medium in store["media"]]
    return "\n".join(lines)


def _index(what: str, said: Mapping[str, Any] | None) -> str:
    return f"{what} {said['number']}" if said else f"no {what}"


class FilterModule:
    """The names that playbooks call these functions by."""

    def filters(self) -> dict[str, Any]:
        """Return name to function."""
        return {"backup_passwords": backup_passwords, "backup_text": backup_text}
