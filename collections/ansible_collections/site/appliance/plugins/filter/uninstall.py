# SPDX-License-Identifier: Apache-2.0
"""What role uninstall takes away, what stays, and the plan of it for people, as pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.site.appliance.plugins.plugin_utils.problems import plain
from ansible_collections.site.appliance.plugins.plugin_utils.sizes import size_words
from ansible_collections.site.appliance.plugins.plugin_utils.words import each

_ETC = "/etc/appliance"
_STORE = "/var/lib/appliance"
_K3S_DATA = ("/var/lib/rancher/k3s", "/var/log/pods", "/var/log/containers")
# Directories that may be others' too: they go where nothing is in them. The kubelet makes the place of volume plug-ins, and those above it.
_KUBELET = "/usr/libexec/kubernetes"
_K3S_EMPTY = [
    "/etc/rancher/k3s",
    "/etc/rancher/node",
    "/etc/rancher",
    "/var/lib/rancher",
    f"{_KUBELET}/kubelet-plugins/volume/exec",
    f"{_KUBELET}/kubelet-plugins/volume",
    f"{_KUBELET}/kubelet-plugins",
    _KUBELET,
]
#: The note that the K3s here is the appliance's; preflight asks for it where it finds one, or its data.
MANAGED = f"{_ETC}/managed"
# What K3s needs of the host and of us, where it stays.
_FOR_K3S = (MANAGED, *(f"{_ETC}/{name}" for name in ("before", "k3s-resolv.conf", "k3s-images.json", "firewall.json")))


def uninstall_scope(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what goes from a node, and what stays.

    :param settings: ``k3s`` and ``data`` (whether they are to go), ``managed`` (whether the K3s there is the appliance's), ``k3s_runs``
        (whether its unit is there), ``k3s_data_there`` and ``store_there`` (whether there is such data), ``tokens`` (files of
        the cluster's tokens), ``links`` (links to K3s that are there), ``restored`` (files that come back as they were before).
    :returns: ``k3s_stays``; absolute paths by step: ``k3s``, ``mirror``, ``host``, ``data``, ``last``; ``keep`` (paths that stay,
        whatever goes around them), ``empty`` (directories that go where nothing is in them), ``stays`` (data that does), ``restored``,
        ``user`` (whether the services' user goes).
    """
    given = plain(settings)
    is_ours = given["managed"]
    k3s_stays = is_ours and given["k3s_runs"] and not given["k3s"]
    k3s_goes = is_ours and not k3s_stays
    k3s_data_stays = k3s_goes and given["k3s_data_there"] and not given["data"]
    store_stays = given["store_there"] and not given["data"]
    # Without the one the datastore cannot be opened again; without the other a node is not let in under its old name.
    keys = [*given["tokens"], "/etc/rancher/node/password"]
    k3s = [
        "/usr/local/bin/k3s",
        "/usr/local/bin/k3s-" + "[0-9a-f]" * 12,
        *given["links"],
        *[f"/etc/rancher/k3s/{name}" for name in ("config.yaml", "registries.yaml", "k3s.yaml")],
        *([] if k3s_data_stays else keys),
        "/var/lib/kubelet",
        "/var/lib/cni",
        "/var/lib/rancher/k3s/agent/.appliance-images",
        "/run/k3s",
        "/run/flannel",
        "/run/k3s-inputs.sha256",
    ]
    host = ["/usr/local/lib/appliance", "/etc/modules-load.d/90-appliance.conf", "/etc/sysctl.d/90-appliance.conf"]
    keep = [*_FOR_K3S] if k3s_stays else [*given["restored"], *([MANAGED] if k3s_data_stays else [])]
    return {
        "k3s_stays": k3s_stays,
        "k3s": k3s if k3s_goes else [],
        "mirror": ["/opt/appliance", "/opt/.appliance-plan-*", "/run/appliance", "/var/lib/appliance-staging"],
        "host": [] if k3s_stays else host,
        "data": [_STORE, *(_K3S_DATA if k3s_goes else [])] if given["data"] else [],
        "last": [_ETC],
        "keep": keep,
        "empty": _K3S_EMPTY if k3s_goes else [],
        "stays": [*([_STORE] if store_stays else []), *([_K3S_DATA[0]] if k3s_data_stays else [])],
        "restored": given["restored"] if k3s_goes else [],
        # As long as files are the user's, its number must not become somebody else's.
        "user": not store_stays,
    }


def uninstall_links(shown: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the links to K3s out of the results of ``ansible.builtin.stat`` for the places where role k3s makes them."""
    return [
        str(result["stat"]["path"])
        for result in shown
        if result["stat"].get("islnk") and result["stat"].get("lnk_target") == "k3s"
    ]


def uninstall_units(shown: str) -> dict[str, list[str]]:
    """Return the units that run or try to (``running``), and those that have a file of ours (``files``).

    :param shown: output of ``systemctl show`` with Id, ActiveState and FragmentPath.
    """
    blocks = [dict(line.split("=", 1) for line in text.splitlines() if "=" in line) for text in shown.split("\n\n")]
    found = {block["Id"]: block for block in blocks if "Id" in block}
    return {
        "running": [unit for unit, block in found.items() if block["ActiveState"] not in ("inactive", "failed")],
        "files": [unit for unit, block in found.items() if block["FragmentPath"] == f"/etc/systemd/system/{unit}"],
    }


def uninstall_node(host: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node of the plan.

    :param host: its name.
    :param found: ``scope`` (of :func:`uninstall_scope`), ``units`` (names that go), ``paths``, ``data`` and ``kept`` (results of
        ``site.appliance.removed_paths`` for what goes, the data that goes, and the data that stays), ``remains`` (lines of
        ``site.appliance.k3s_remains``), ``firewall`` (commands of ``site.appliance.firewall``), ``user`` (whether it is there),
        ``registries`` (lines of role registries' plan), ``restart`` (whether K3s restarts), ``stayer`` (the server that takes the node
        out of a cluster that goes on; empty: none).
    :returns: ``host``, ``k3s_stays``; lines: ``changes``, ``data``, ``stays``, ``mounted``.
    """
    given = plain(found)
    scope, paths, data, kept = given["scope"], given["paths"], given["data"], given["kept"]
    changes = [f"stopped and removed: {', '.join(sorted(given['units']))}"] if given["units"] else []
    if given["remains"]:
        changes.append(f"ended with K3s: {', '.join(given['remains'])}")
    if given["stayer"]:
        changes.append(f"taken out of the cluster by {given['stayer']}")
    changes += given["registries"]
    if given["restart"]:
        changes.append("restarts once: K3s (its containers go on)")
    if given["firewall"]:
        changes.append("the appliance's rules leave the firewall")
    if scope["restored"]:
        changes.append(f"as it was before: {', '.join(scope['restored'])}")
    gone = [*paths["removed"], *(["user and group appliance"] if scope["user"] and given["user"] else [])]
    changes += [f"removed: {', '.join(gone)}"] if gone else []

    def sized(result: Mapping[str, Any]) -> list[str]:
        return [f"{path} ({size_words(result['bytes'][path])})" for path in result["removed"]]

    return {
        "host": str(host),
        "k3s_stays": scope["k3s_stays"],
        "changes": changes,
        "data": sized(data),
        "stays": sized(kept),
        "mounted": paths["left"] + data["left"],
    }


def uninstall_is_empty(nodes: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether nothing would go from any node."""
    return not any(node["changes"] or node["data"] for node in nodes)


def uninstall_text(nodes: Sequence[Mapping[str, Any]]) -> str:
    """Write the plan for people.

    :param nodes: what :func:`uninstall_node` returned.
    """
    nodes = each(nodes)
    lines = [
        "Nothing to take away from these nodes."
        if uninstall_is_empty(nodes)
        else f"This run would take the appliance away from {', '.join(node['host'] for node in nodes)}."
    ]
    lines += _about(nodes, "data", "DATA GOES, for good (uninstall_data is true):")
    lines += _about(
        nodes,
        "stays",
        f"Data stays, with what opens it: user appliance, {MANAGED}, K3s's tokens and node password."
        " It goes where uninstall_data is true:",
    )
    if any(node["k3s_stays"] for node in nodes):
        lines += ["", "K3s stays and runs (uninstall_k3s is false), with what it needs of the host and the firewall."]
    if not uninstall_is_empty(nodes):
        lines += ["", "Nodes:"]
    for node in nodes:
        if node["changes"]:
            lines += [f"  {node['host']}:", *(f"    {line}" for line in node["changes"])]
            lines += [f"    stays, because it is mounted there: {path}" for path in node["mounted"]]
    return "\n".join(lines)


def _about(nodes: Iterable[Mapping[str, Any]], kind: str, head: str) -> list[str]:
    lines = [f"  {node['host']}: {', '.join(node[kind])}" for node in nodes if node[kind]]
    return ["", head, *lines] if lines else []


class FilterModule:
    """The names that playbooks call these functions by."""

    def filters(self) -> dict[str, Any]:
        """Return name to function."""
        return {
            "uninstall_is_empty": uninstall_is_empty,
            "uninstall_links": uninstall_links,
            "uninstall_node": uninstall_node,
            "uninstall_scope": uninstall_scope,
            "uninstall_text": uninstall_text,
            "uninstall_units": uninstall_units,
        }
