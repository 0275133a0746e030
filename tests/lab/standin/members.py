"""Who belongs to the cluster, as each node knows it: told by heartbeats, kept over a power loss.

Ages travel instead of times, so no two clocks need to agree.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

READY_FOR = 40.0
"""Seconds after its last word for which a node counts as Ready; Kubernetes' own grace period."""


@dataclass(frozen=True)
class Member:
    """One node."""

    name: str
    address: str
    role: str
    version: str
    etcd: bool = False
    ready: bool = False


class Members:
    """The nodes known here, with the age of their last word."""

    def __init__(self, file: Path | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Member, float]] = {}
        if file is not None and file.is_file():
            self.merge({**entry, "age": 2 * READY_FOR} for entry in json.loads(file.read_text("utf-8")))

    def heard(self, member: Member) -> None:
        """A node spoke just now."""
        self.merge([{**asdict(member), "age": 0.0}])

    def merge(self, entries: Iterable[dict[str, Any]]) -> None:
        """Take over what another node knows; what is newer wins."""
        names = {item.name for item in fields(Member)}
        with self._lock:
            before = {name: member for name, (member, _) in self._known.items()}
            for entry in entries:
                member = Member(**{key: value for key, value in entry.items() if key in names})
                seen = self._now() - float(entry["age"])
                if member.name not in self._known or seen > self._known[member.name][1]:
                    self._known[member.name] = (member, seen)
            after = {name: member for name, (member, _) in self._known.items()}
            if self._file is not None and before != after:
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                fresh = self._file.with_suffix(".new")
                fresh.write_text(json.dumps([asdict(member) for member in after.values()]), "utf-8")
                fresh.replace(self._file)

    def entries(self) -> list[dict[str, Any]]:
        """All nodes with the age of their last word in seconds, for another node."""
        with self._lock:
            return [
                {**asdict(member), "age": max(0.0, self._now() - seen)}
                for _, (member, seen) in sorted(self._known.items())
            ]

    def others(self, name: str) -> list[Member]:
        """All nodes but this one."""
        with self._lock:
            return [member for other, (member, _) in sorted(self._known.items()) if other != name]


def node_object(entry: dict[str, Any]) -> dict[str, Any]:
    """One entry of :meth:`Members.entries` as Kubernetes shows a node."""
    server = entry["role"] == "server"
    alive = entry["age"] < READY_FOR
    status = ("True" if entry["ready"] else "False") if alive else "Unknown"
    message = {
        "True": "kubelet is posting ready status",
        "False": "the node is starting",
        "Unknown": "Kubelet stopped posting node status.",
    }[status]
    conditions = [{"type": "Ready", "status": status, "reason": "StandIn", "message": message}]
    labels = {
        "kubernetes.io/hostname": entry["name"],
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "k3s-stand-in",
        "p2p.k3s.cattle.io/enabled": "true",
    }
    if server:
        labels["node-role.kubernetes.io/control-plane"] = "true"
        if entry["etcd"]:
            labels["node-role.kubernetes.io/etcd"] = "true"
            conditions.insert(0, {"type": "EtcdIsVoter", "status": "True", "reason": "MemberNotLearner"})
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": entry["name"],
            "labels": labels,
            "annotations": {"k3s.io/stand-in": "true", "k3s.io/internal-ip": entry["address"]},
        },
        "spec": {},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": entry["address"]},
                {"type": "Hostname", "address": entry["name"]},
            ],
            "conditions": conditions,
            "nodeInfo": {
                "kubeletVersion": entry["version"],
                "containerRuntimeVersion": "containerd://debian",
                "osImage": "STAND-IN for K3s",
                "operatingSystem": "linux",
            },
        },
    }
