# SPDX-License-Identifier: Apache-2.0
"""Notes on hosts: what is no problem but worth knowing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.site.appliance.plugins.plugin_utils import brought
from ansible_collections.site.appliance.plugins.plugin_utils.sizes import size_words

_CGROUP_ARGUMENT = re.compile(r"^\s*(?:--)?fail-cgroupv1(?:\s*[=: ]\s*(?P<value>\S+))?\s*$", re.IGNORECASE)


def _kubelet_arguments(value: Any) -> list[str]:
    """Return kubelet arguments as ``name=value``, however an inventory has them: a list, a mapping or one string."""
    if isinstance(value, Mapping):
        return [f"{key}={str(item).lower()}" for key, item in value.items()]
    if isinstance(value, str):
        return re.split(r"[,\n]|\s+(?=--)", value)
    return [
        argument
        for item in value or []
        for argument in _kubelet_arguments(item if isinstance(item, Mapping) else str(item))
    ]


def _cgroup_v1_note(host: str, variables: Mapping[str, Any]) -> str:
    """Return the note on cgroup v1, or nothing where the kubelet's argument is set as it has to be."""
    arguments = _kubelet_arguments(variables.get("k3s_kubelet_args"))
    is_server = "k3s_servers" in (variables.get("group_names") or [])
    for name in ("k3s_config", "k3s_server_config" if is_server else "k3s_agent_config"):
        for key, value in (variables.get(name) or {}).items():
            if str(key).rstrip("+") in ("kubelet-arg", "kubelet_arg"):
                arguments += _kubelet_arguments(value)
    values = [match["value"] or "true" for match in map(_CGROUP_ARGUMENT.match, arguments) if match]
    if values and values[-1].strip("\"'").lower() in ("false", "f", "0"):
        return ""
    if values:
        return f"{host}: cgroup v1, and the kubelet's argument fail-cgroupv1 is {values[-1]}: it will not start; set fail-cgroupv1=false"
    return f"{host}: cgroup v1; a kubelet from 1.35 on needs the argument fail-cgroupv1=false in k3s_kubelet_args"


def host_notes(
    results: Mapping[str, Mapping[str, Any]],
    variables: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> list[str]:
    """Return what is no problem but worth knowing: what role host will mend, cgroup v1, swap, an absent medium.

    The parameters are those of :func:`host_problems`.
    """
    notes = _media_notes(results, settings)
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
        if report["cgroup"]["version"] == 1 and (note := _cgroup_v1_note(host, variables[host])):
            notes.append(note)
        if report["swap"]:
            notes.append(f"{host}: {size_words(report['swap'])} of swap; Kubernetes recommends none")
        old = re.match(r"iptables v1\.8\.([0-4])\b", report["iptables"])
        if old:
            notes.append(f"{host}: {report['iptables']} has known defects; K3s's own is used with prefer-bundled-bin")
    return notes


def _media_notes(results: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> list[str]:
    seed = str(settings.get("seed_host", ""))
    report = results.get(seed, {}).get("report")
    if not report or not settings.get("media", True):
        return []
    states = settings.get("controller_sources")
    absent = brought.absent_media(report["sources"] if states is None else states, report["published"])
    return [f"{seed}: {path} is not there, but was published before: the run goes on without it" for path in absent]
