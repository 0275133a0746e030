# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Summary of the plan in five lines above the question: images, changes, restarts, duration, place of the whole plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.site.appliance.plugins.plugin_utils.ending import hosts_text
from ansible_collections.site.appliance.plugins.plugin_utils.plan_lines import (
    names_change,
    next_number,
    publishes,
    served,
)
from ansible_collections.site.appliance.plugins.plugin_utils.quantities import duration_text
from ansible_collections.site.appliance.plugins.plugin_utils.sizes import size_words


def summary_lines(
    images: Mapping[str, Any] | None,
    nodes: Sequence[Mapping[str, Any]],
    *,
    columns: int,
    seconds: float = 0,
    path: str = "",
) -> list[str]:
    """Return the summary.

    :param columns: width of the screen; a line that is longer is cut.

    :param seconds: how long the medium was read for this plan; 0 where that is not known.
    :param path: file with the whole plan; empty where there is none.
    """
    lines = [
        f"  images     {_images(images)}",
        f"  nodes      {_nodes(nodes)}",
        f"  restarts   {_restarts(nodes)}",
        f"  duration   {_duration(images, nodes, seconds)}",
    ]
    # A path is not cut: it is to be copied.
    fitted = [line if len(line) <= columns else f"{line[: columns - 3]}..." for line in lines]
    return ["In short:", *fitted, f"  all of it  {path or 'stands above'}"]


def _images(images: Mapping[str, Any] | None) -> str:
    if images is None or not publishes(images):
        return f"nothing is published; {served(images)} stays served" if images else "nothing is published"
    counts = [
        f"{len(images['added'])} added",
        f"{len(images['moved'])} moved",
        f"{len(images.get('removed') or [])} removed",
        f"{len(images['unchanged'])} stay",
    ]
    if images["completed"]:
        counts.insert(2, f"{len(images['completed'])} filled")
    if images.get("referrers"):
        counts.insert(2, f"{len(images['referrers'])} signed")
    out = len(images.get("left_out") or []) + int(images.get("left_out_more") or 0)
    if out:
        counts.append(f"{out} {'file is' if out == 1 else 'files are'} left out")
    head = f"generation {next_number(images)}" if names_change(images) else f"{served(images)} stays, blobs come back"
    staged = images.get("bytes_staged") or 0
    there = ", kept already" if staged else ""
    if 0 < staged < images["bytes_to_write"]:
        there = f", {size_words(staged)} of it kept already"
    return f"{head}: {', '.join(counts)}; {size_words(images['bytes_to_write'])} new{there}"


def _nodes(nodes: Sequence[Mapping[str, Any]]) -> str:
    changed = [str(node["host"]) for node in nodes if node["changes"]]
    if not changed:
        return "nothing changes in their configuration"
    return f"the configuration of {len(changed)} of {len(nodes)} changes: {hosts_text(changed)}"


def _restarts(nodes: Sequence[Mapping[str, Any]]) -> str:
    hosts: dict[str, list[str]] = {}
    for node in nodes:
        for unit in [*node["restarts"], *_starts(node)]:
            hosts.setdefault(_plain(unit), []).append(str(node["host"]))
    if not hosts:
        return "none"
    together: dict[tuple[str, ...], list[str]] = {}
    for unit, where in hosts.items():
        together.setdefault(tuple(where), []).append(unit)
    parts = [f"{', '.join(units)} on {hosts_text(where)}" for where, units in together.items()]
    more = f"; and {len(parts) - 2} more" if len(parts) > 2 else ""
    return "; ".join(parts[:2]) + more


def _starts(node: Mapping[str, Any]) -> list[str]:
    """Return K3s where it starts for the first time: role k3s names that among the changes."""
    starts = any(change in ("k3s.service starts", "k3s-agent.service starts") for change in node["changes"])
    return ["K3s (starts)"] if starts and "K3s" not in node["restarts"] else []


def _plain(unit: str) -> str:
    return unit.removesuffix(".service")


def _duration(images: Mapping[str, Any] | None, nodes: Sequence[Mapping[str, Any]], seconds: float) -> str:
    parts = []
    if publishes(images) and images is not None:
        if images.get("staged_until"):
            parts.append("publishing takes seconds, because the medium is not read again")
        elif seconds >= 1:
            parts.append(f"the medium is read again, about {duration_text(seconds)}")
    if any("K3s" in node["restarts"] or _starts(node) for node in nodes):
        parts.append("K3s takes up to some minutes a node")
    return "; ".join(parts) or "not known"
