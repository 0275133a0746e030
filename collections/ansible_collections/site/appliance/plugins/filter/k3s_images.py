# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Comparison of the images that a K3s needs with the images that a site has. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.site.appliance.plugins.filter.k3s import merge_options
from ansible_collections.site.appliance.plugins.plugin_utils.image_names import full_name, repository_of
from ansible_collections.site.appliance.plugins.plugin_utils.problems import plain
from ansible_collections.site.appliance.plugins.plugin_utils.words import each

_PAUSE = "mirrored-pause"
# Last part of the repository to the component that runs it, as `--disable` calls it.
_COMPONENTS = {
    "mirrored-coredns-coredns": "coredns",
    "local-path-provisioner": "local-storage",
    "mirrored-library-busybox": "local-storage",
    "mirrored-metrics-server": "metrics-server",
    "mirrored-library-traefik": "traefik",
    # Installs Traefik; without the helm controller neither of them runs.
    "klipper-helm": "traefik",
    "klipper-lb": "servicelb",
}
# Traefik's comes from a job that runs once the rest does.
_DEPLOYMENTS = {
    "coredns": "coredns",
    "local-storage": "local-path-provisioner",
    "metrics-server": "metrics-server",
}


def k3s_options(variables: Mapping[str, Any], role: str) -> dict[str, Any]:
    """Return the K3s options of a node that the inventory gives.

    :param variables: the host's entry of ``hostvars``.
    :param role: ``server`` or ``agent``.
    """
    return plain(merge_options(variables.get("k3s_config") or {}, variables.get(f"k3s_{role}_config") or {}))


def k3s_needed_images(
    known: Iterable[str], server_options: Mapping[str, Any], own_options: Mapping[str, Any]
) -> dict[str, str]:
    """Return the images that a node's K3s needs, with the component that wants each.

    :param known: names out of the K3s binary or of its release's list.
    :param server_options: K3s options of the servers, with the disabled components.
    :param own_options: K3s options of the node, which may name another pause image.
    """
    disabled = _disabled(server_options)
    registry = str(server_options.get("system-default-registry") or "")
    needed = {}
    for name in plain(list(known)):
        last = repository_of(full_name(name)).rpartition("/")[2]
        component = "every pod" if last == _PAUSE else _COMPONENTS.get(last, "K3s")
        other = {_PAUSE: own_options.get("pause-image"), "klipper-helm": server_options.get("helm-job-image")}.get(last)
        if component not in disabled:
            needed[_from_registry(str(other or name), registry)] = component
    return needed


def k3s_missing_images(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the images that a node's K3s needs and that the node cannot have.

    :param spec: ``needed`` (see :func:`k3s_needed_images`), ``archives`` (names in the node's own image archives),
        ``served`` (names that the mirror will serve), ``held`` (names in the node's containerd) and ``registry`` (the
        option ``system-default-registry``: K3s names what it imports for that registry too).
    :returns: ``image``, ``component`` and ``other`` (names of the same repository that there are), by image.
    """
    registry = str(spec.get("registry") or "")
    brought = {full_name(name) for name in spec["archives"]}
    if registry:
        brought |= {_from_registry(name, registry) for name in spec["archives"]}
    present = brought | {full_name(name) for name in [*spec["served"], *spec["held"]]}
    return [
        {"image": image, "component": component, "other": _others(image, present)}
        for image, component in sorted(spec["needed"].items())
        if image not in present
    ]


def k3s_missing_lines(nodes: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return one line for each image that is missing anywhere, with its component and the nodes without it.

    :param nodes: node to its result of :func:`k3s_missing_images`.
    """
    wanted: dict[str, dict[str, Any]] = {}
    for node, missing in nodes.items():
        for item in missing:
            wanted.setdefault(str(item["image"]), {**item, "nodes": []})["nodes"].append(str(node))
    lines = []
    for image, item in sorted(wanted.items()):
        other = f"; there is {', '.join(item['other'])}" if item["other"] else ""
        lines.append(f"{image} (for {item['component']}, on {', '.join(item['nodes'])}{other})")
    return plain(each(lines))


def k3s_served_names(plan: Mapping[str, Any] | None) -> list[str] | None:
    """Return the names that the mirror serves once a plan is carried out; None where there is no plan for images.

    :param plan: output of ``appliance plan --json``, parsed.
    """
    if not plan:
        return None
    changed = [item["name"] for key in ("added", "moved") for item in plan[key]]
    names: list[str] = plain([*changed, *plan["completed"], *plan["unchanged"]])
    return names


def k3s_deployments(server_options: Mapping[str, Any]) -> list[str]:
    """Return the deployments that K3s makes in a cluster by itself, as ``deployment NAMESPACE/NAME``.

    :param server_options: K3s options of the servers.
    """
    disabled = _disabled(server_options)
    return [f"deployment kube-system/{name}" for component, name in _DEPLOYMENTS.items() if component not in disabled]


def _disabled(server_options: Mapping[str, Any]) -> set[str]:
    disabled = _words(server_options.get("disable")) | _words(server_options.get("disable+"))
    if server_options.get("disable-helm-controller"):
        disabled.add("traefik")
    return disabled


def _words(value: Any) -> set[str]:
    """Return the members of an option that may be a list, or text with commas."""
    parts = value if isinstance(value, list) else str(value or "").split(",")
    return {word.strip() for part in parts for word in str(part).split(",")} - {""}


def _from_registry(name: str, registry: str) -> str:
    """Return a name as K3s writes it where ``system-default-registry`` is set."""
    if not registry or name.startswith(f"{registry}/"):
        return full_name(name)
    return full_name(f"{registry}/{name.removeprefix('docker.io/')}")


def _others(image: str, present: Iterable[str]) -> list[str]:
    repository = repository_of(image)
    return sorted(name for name in present if repository_of(name) == repository and "@" not in name)


class FilterModule:
    """Filters of the k3s role that concern images."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function, as Ansible asks for them."""
        return {
            "k3s_deployments": k3s_deployments,
            "k3s_options": k3s_options,
            "k3s_needed_images": k3s_needed_images,
            "k3s_missing_images": k3s_missing_images,
            "k3s_missing_lines": k3s_missing_lines,
            "k3s_served_names": k3s_served_names,
        }
