# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""The plan's section on nodes: what holds for all of them is written once, then what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.site.appliance.plugins.plugin_utils.ending import hosts_text
from ansible_collections.site.appliance.plugins.plugin_utils.plan_lines import limited
from ansible_collections.site.appliance.plugins.plugin_utils.sizes import size_words

_GROUPS = 6


def node_lines(nodes: Sequence[Mapping[str, Any]], limit: int | None = None) -> list[str]:
    """Return the section.

    :param nodes: what the filter ``plan_nodes`` returned.
    :param limit: lines of each part at the most; None for all.
    """
    changes = _common([node["changes"] for node in nodes])
    restarts = _common([node["restarts"] for node in nodes])
    lines = ["Nodes:"]
    if changes or restarts:
        lines.append(f"  all ({hosts_text([str(node['host']) for node in nodes])}):")
        lines += limited([f"    {change}" for change in changes], limit, "    ")
        lines += _restarts(restarts)
    groups = [_group(members, changes, restarts, limit) for members in _alike(nodes)]
    shown = groups if limit is None or len(groups) <= _GROUPS else groups[: _GROUPS - 1]
    lines += [line for group in shown for line in group]
    if len(shown) < len(groups):
        lines.append(f"  and {len(groups) - len(shown)} more that differ")
    return lines


def _alike(nodes: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return nodes for which the same holds, together."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for node in nodes:
        key = (
            node["writes"],
            node.get("staged"),
            node["exact"],
            node["mount"],
            tuple(node["changes"]),
            tuple(node["restarts"]),
        )
        found.setdefault(key, []).append(node)
    return list(found.values())


def _group(
    members: Sequence[Mapping[str, Any]], changes: Sequence[str], restarts: Sequence[str], limit: int | None
) -> list[str]:
    node = members[0]
    known = [member["free"] for member in members if member["free"] is not None]
    least = "" if len(known) == 1 else "at least "
    room = f", {least}{size_words(min(known))} free at {node['mount']}" if known else ""
    about = "" if node["exact"] else "about "
    writes = (
        f"{about}{size_words(node['writes'])} to write to the store{room}" if node["writes"] else "no images to write"
    )
    if node.get("staged"):
        kept = f"{size_words(node['staged'])} verified and kept in its store already"
        writes = f"{kept}, {writes}" if node["writes"] else f"{kept}{room}"
    own = [change for change in node["changes"] if change not in changes]
    own_restarts = [unit for unit in node["restarts"] if unit not in restarts]
    lines = [f"  {hosts_text([str(member['host']) for member in members])}: {writes}"]
    lines += limited([f"    {change}" for change in own], limit, "    ")
    lines += _restarts(own_restarts)
    if not node["changes"] and not node["restarts"]:
        lines.append("    nothing changes in its configuration")
    return lines


def _restarts(units: Sequence[str]) -> list[str]:
    return [f"    restarts (or starts): {', '.join(units)}"] if units else []


def _common(lists: Sequence[Sequence[str]]) -> list[str]:
    """Return what stands in every list, where there are several."""
    if len(lists) < 2:
        return []
    return [item for item in lists[0] if all(item in other for other in lists[1:])]
