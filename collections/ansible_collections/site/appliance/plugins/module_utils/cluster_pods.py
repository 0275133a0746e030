# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Summary of pods and workloads from ``kubectl get -o json``. Pure functions."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping

KINDS = "pods,deployments.apps,daemonsets.apps,statefulsets.apps,jobs.batch,cronjobs.batch"
# A pod passes through these on its way, and kubelet goes on pulling by itself; every other reason to wait stays until somebody mends it.
PASSING = ("ContainerCreating", "PodInitializing", "ErrImagePull", "ImagePullBackOff", "")
_ENDED = ("Succeeded", "Failed")
_MESSAGE_LIMIT = 600


def read_pods(items: Iterable[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    """Return one row for each pod that is to run: ``pod``, ``node``, ``state``, ``reason``, ``message`` and ``images``.

    ``state`` is ``ok``, ``starting`` (may become ok by itself) or ``stuck``. Pods that have ended, or that are being
    deleted, are left out.
    """
    rows = []
    for item in items:
        status = item.get("status") or {}
        metadata = item.get("metadata") or {}
        if item.get("kind") != "Pod" or metadata.get("deletionTimestamp") or status.get("phase") in _ENDED:
            continue
        spec = item.get("spec") or {}
        rows.append(
            {
                "pod": "%s/%s" % (metadata.get("namespace", ""), metadata.get("name", "")),
                "node": str(spec.get("nodeName") or ""),
                "images": images_of(spec),
                **_state(status),
            }
        )
    return rows


def _state(status: Mapping[str, Any]) -> Dict[str, str]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or []:
            state = container.get("state") or {}
            waiting, ended = state.get("waiting"), state.get("terminated")
            if waiting is not None:
                reason = str(waiting.get("reason") or "")
                return _row("starting" if reason in PASSING else "stuck", reason, waiting.get("message"))
            if ended is not None and ended.get("exitCode"):
                # Restarted in a moment, with a reason to wait if it goes on like that.
                return _row("starting", str(ended.get("reason") or "Error"), ended.get("message"))
    if status.get("phase") == "Pending":
        for condition in status.get("conditions") or []:
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                return _row("starting", str(condition.get("reason") or ""), condition.get("message"))
        return _row("starting", str(status.get("reason") or "Pending"), status.get("message"))
    return _row("ok", "", "")


def _row(state: str, reason: str, message: Any) -> Dict[str, str]:
    return {"state": state, "reason": reason, "message": " ".join(str(message or "").split())[:_MESSAGE_LIMIT]}


def images_of(spec: Mapping[str, Any]) -> List[str]:
    """Return the images of a pod's specification, each once."""
    containers = [item for kind in ("initContainers", "containers") for item in spec.get(kind) or []]
    return sorted({str(item["image"]) for item in containers if item.get("image")})


def read_workloads(items: Iterable[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    """Return one row for each workload that is to have pods: ``name``, ``images`` and ``waits``.

    ``waits`` is true while the workload has fewer pods than it is to have.
    """
    rows = []
    for item in items:
        kind, spec, status = str(item.get("kind")), item.get("spec") or {}, item.get("status") or {}
        template = spec.get("template") or {}
        if kind in ("Deployment", "StatefulSet"):
            wanted = spec.get("replicas", 1)
            waits = (status.get("replicas") or 0) < wanted
        elif kind == "DaemonSet":
            wanted = status.get("desiredNumberScheduled", 1)
            waits = (status.get("currentNumberScheduled") or 0) < wanted
        elif kind == "CronJob":
            wanted = 0 if spec.get("suspend") else 1
            template, waits = ((spec.get("jobTemplate") or {}).get("spec") or {}).get("template") or {}, False
        elif kind == "Job":
            over = [c for c in status.get("conditions") or [] if c.get("status") == "True"]
            wanted, waits = (0 if spec.get("suspend") or over else 1), False
        else:
            continue
        metadata = item.get("metadata") or {}
        if wanted:
            name = "%s %s/%s" % (kind.lower(), metadata.get("namespace", ""), metadata.get("name", ""))
            rows.append({"name": name, "images": images_of(template.get("spec") or {}), "waits": waits})
    return rows


def last_words(events: Iterable[Mapping[str, Any]]) -> Dict[str, str]:
    """Return for each pod the message of its newest warning: a pod without a sandbox says in its events alone why."""
    found: Dict[str, Any] = {}
    for event in events:
        thing = event.get("involvedObject") or {}
        if thing.get("kind") != "Pod" or event.get("type") != "Warning":
            continue
        pod = "%s/%s" % (thing.get("namespace", ""), thing.get("name", ""))
        series = event.get("series") or {}
        metadata = event.get("metadata") or {}
        times = (event.get("lastTimestamp"), series.get("lastObservedTime"), event.get("eventTime"))
        time = max([str(moment) for moment in times if moment] or [str(metadata.get("creationTimestamp") or "")])
        if pod not in found or time >= found[pod][0]:
            message = " ".join(str(event.get("message") or "").split())[:_MESSAGE_LIMIT]
            found[pod] = (time, "%s: %s" % (event.get("reason", ""), message))
    return {pod: message for pod, (_, message) in found.items()}
