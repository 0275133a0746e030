# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Problems of a cluster: pods that do not start, and images that nobody has. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.site.appliance.plugins.plugin_utils.image_names import full_name, repository_of
from ansible_collections.site.appliance.plugins.plugin_utils.problems import Problems

# Number of pods of a node, and of users of an image, that are listed by name.
SHOWN = 10
_FIXES = {
    "ErrImagePull": "Bring the image (seed_sources, playbooks/update.yml), or mend its name",
    "ImagePullBackOff": "Bring the image (seed_sources, playbooks/update.yml), or mend its name",
    "ErrImageNeverPull": "Bring the image to this node, or remove imagePullPolicy: Never",
    "InvalidImageName": "Mend the image's name",
    "CrashLoopBackOff": "The image is there and its program ends; look at k3s kubectl logs --previous",
    "Unschedulable": "Make room for it, or change its requirements for a node",
}


def pods_of(info: Mapping[str, Any], node: str) -> list[Mapping[str, Any]]:
    """Return the pods of a node.

    :param info: result of ``site.appliance.cluster_pods_info``.
    :param node: its name in Kubernetes.
    """
    return [row for row in info.get("pods") or [] if row["node"] == node]


def failing(pods: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the pods that do not run."""
    return [row for row in pods if row["state"] != "ok"]


def add_pods(problems: Problems, pods: Sequence[Mapping[str, Any]], where: str) -> None:
    """Add one problem for each pod that does not run, and one for those beyond the first ones."""
    wrong = failing(pods)
    for row in wrong[:SHOWN]:
        reason, message = str(row["reason"]) or "no reason given", str(row["message"])
        problems.add(
            "APL-0912",
            f"the pod {row['pod']} does not start",
            where=where,
            why=f"{reason}: {message.rstrip('.')}" if message else reason,
            fix=_FIXES.get(reason, f"Look at k3s kubectl describe pod -n {str(row['pod']).replace('/', ' ', 1)}"),
        )
    if len(wrong) > SHOWN:
        problems.add("APL-0912", f"{len(wrong) - SHOWN} more pods do not start", where=where)


def cluster_problems(
    info: Mapping[str, Any],
    *,
    nodes: Collection[str],
    present: Mapping[str, str],
    sandboxes: Collection[str],
    elsewhere: Collection[str],
) -> list[str]:
    """Return the problems of the cluster as a whole.

    :param info: result of ``site.appliance.cluster_pods_info``.
    :param nodes: nodes whose pods were judged one by one.
    :param present: full name to digest of all images that a mirror serves or a containerd has.
    :param sandboxes: images that the nodes' containerd wants for every pod.
    :param elsewhere: registries inside the site that may have images of their own.
    """
    problems = Problems()
    if info.get("error"):
        problems.add(
            "APL-0914",
            "the cluster does not say how its pods are",
            where="cluster",
            why=str(info["error"]),
            fix="Look at k3s.service on the servers, then run verify again",
        )
        return problems.lines
    for name in info.get("absent") or []:
        problems.add(
            "APL-0915",
            f"K3s has not made the {name}",
            where="cluster",
            fix="Wait and run verify again; if it stays away, look for 'addon' in journalctl -u k3s",
        )
    add_pods(problems, [row for row in info.get("pods") or [] if row["node"] not in nodes], "cluster")
    for image, users in _missing(_wanted(info, sandboxes), present, elsewhere).items():
        more = f" and {len(users) - SHOWN} more" if len(users) > SHOWN else ""
        problems.add(
            "APL-0913",
            f"nobody at this site has the image {image}",
            where="cluster",
            why=f"it is wanted by {', '.join(users[:SHOWN])}{more}; no mirror serves it and no containerd has it",
            fix="Bring an archive of it (seed_sources) and run playbooks/update.yml",
        )
    return problems.lines


def _wanted(info: Mapping[str, Any], sandboxes: Collection[str]) -> dict[str, list[str]]:
    """Return image to its users: pods and workloads."""
    wanted: dict[str, list[str]] = {}
    owners = [(f"pod {row['pod']}", row["images"]) for row in info.get("pods") or []]
    owners += [(str(row["name"]), row["images"]) for row in info.get("workloads") or []]
    if owners:
        owners.append(("every pod", sorted(sandboxes)))
    for owner, images in owners:
        for image in images:
            wanted.setdefault(full_name(image), []).append(owner)
    return dict(sorted(wanted.items()))


def _missing(
    wanted: Mapping[str, list[str]], present: Mapping[str, str], elsewhere: Collection[str]
) -> dict[str, list[str]]:
    digests = {(repository_of(name), digest) for name, digest in present.items()}
    repositories = {repository_of(name) for name in present}

    def is_missing(image: str) -> bool:
        registry, repository = image.partition("/")[0], repository_of(image)
        # The address of a seed stands for any registry: the mirror drops it from the name.
        if registry in elsewhere or registry.endswith(":5443"):
            return False
        digest = image.partition("@")[2]
        if not digest:
            return image not in present
        # A digest may be that of one platform of an image that is there: only the mirror could tell.
        return (repository, digest) not in digests and repository not in repositories

    return {image: users for image, users in wanted.items() if is_missing(image)}
