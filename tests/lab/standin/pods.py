"""Pods of the stand-in: those in the server's manifests, each as far as its images could be had.

Nothing runs. A pod counts as running once the pause image and its own images are in this server's containerd, which
pulls an image that it lacks, as under a kubelet.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .ctr import Ctr, CtrError


@dataclass
class Pods:
    """The pods that a server has manifests for.

    :param manifests: K3s's directory of manifests; JSON files with one Pod each count here.
    :param node: the server's name; without a scheduler, every pod is there.
    :param pause: the image that each pod needs beside its own.
    :param get: pulls an image that is not there, and returns the reason where that fails.
    """

    manifests: Path
    node: str
    pause: str
    get: Callable[[str], str]

    def lists(self) -> dict[str, list[dict[str, Any]]]:
        """Kind to objects, as the API lists them."""
        pods, events = [], []
        for file in sorted(self.manifests.glob("*.json")):
            pod = json.loads(file.read_text("utf-8"))
            if pod.get("kind") == "Pod":
                status, event = self._status(pod)
                pods.append(
                    {
                        **pod,
                        "metadata": _metadata(pod),
                        "spec": {**pod["spec"], "nodeName": self.node},
                        "status": status,
                    }
                )
                events += [event] if event else []
        return {"Pod": pods, "Event": events}

    def _status(self, pod: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
        containers = [(item["name"], item["image"]) for item in pod["spec"]["containers"]]
        why = self.get(self.pause)
        if why:
            waiting = [_waiting(name, "ContainerCreating", "") for name, _ in containers]
            message = f'failed to get sandbox image "{self.pause}": failed to pull image "{self.pause}": {why}'
            return {"phase": "Pending", "containerStatuses": waiting}, _event(pod, "FailedCreatePodSandBox", message)
        statuses = []
        for name, image in containers:
            why = self.get(image)
            message = f'Back-off pulling image "{image}": ErrImagePull: {why}'
            statuses.append(
                _waiting(name, "ImagePullBackOff", message) if why else {"name": name, "state": {"running": {}}}
            )
        phase = "Running" if all("running" in item["state"] for item in statuses) else "Pending"
        return {"phase": phase, "containerStatuses": statuses}, None


def getter(ctr: Ctr, hosts: str) -> Callable[[str], str]:
    """Return a function that has containerd pull an image that it lacks.

    :param hosts: directory of hosts.toml files.
    """

    def get(image: str) -> str:
        name = image if "." in image.partition("/")[0] else f"docker.io/{image}"
        try:
            if all(held.name != name for held in ctr.images()):
                ctr.run("images", "pull", "--hosts-dir", hosts, name)
        except CtrError as error:
            return str(error).splitlines()[-1]
        return ""

    return get


def of_kinds(lists: Mapping[str, Iterable[dict[str, Any]]], kind: str) -> dict[str, Any]:
    """The API's list of one kind."""
    return {"apiVersion": "v1", "kind": f"{kind}List", "metadata": {}, "items": list(lists.get(kind, ()))}


def _metadata(pod: Mapping[str, Any]) -> dict[str, Any]:
    return {"namespace": "default", **pod["metadata"]}


def _waiting(name: str, reason: str, message: str) -> dict[str, Any]:
    return {"name": name, "state": {"waiting": {"reason": reason, **({"message": message} if message else {})}}}


def _event(pod: Mapping[str, Any], reason: str, message: str) -> dict[str, Any]:
    metadata = _metadata(pod)
    return {
        "kind": "Event",
        "type": "Warning",
        "reason": reason,
        "message": message,
        "involvedObject": {"kind": "Pod", "namespace": metadata["namespace"], "name": metadata["name"]},
        "metadata": {"namespace": metadata["namespace"], "name": f"{metadata['name']}.0"},
    }
