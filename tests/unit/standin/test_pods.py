"""Pods of the stand-in are as far as their images let them be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.lab.standin import kubectl
from tests.lab.standin.pods import Pods, of_kinds

PAUSE = "rancher/mirrored-pause:1"


def listed(manifests: Path, *there: str) -> dict[str, list[dict[str, Any]]]:
    pod = {"kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "web:1"}]}}
    (manifests / "web.json").write_text(json.dumps(pod))
    (manifests / "other.json").write_text(json.dumps({"kind": "Service"}))
    return Pods(manifests, "a", PAUSE, lambda image: "" if image in there else "not found").lists()


def test_a_pod_with_its_images_runs(tmp_path: Path) -> None:
    found = listed(tmp_path, PAUSE, "web:1")
    (pod,) = found["Pod"]
    assert pod["status"]["phase"] == "Running" and pod["spec"]["nodeName"] == "a"
    assert pod["metadata"] == {"namespace": "default", "name": "web"} and found["Event"] == []
    assert of_kinds(found, "Pod")["items"] == [pod]


def test_a_pod_without_its_image_goes_on_pulling(tmp_path: Path) -> None:
    (pod,) = listed(tmp_path, PAUSE)["Pod"]
    waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]
    assert pod["status"]["phase"] == "Pending" and waiting["reason"] == "ImagePullBackOff"
    assert "not found" in waiting["message"]


def test_a_pod_without_the_pause_image_says_why_in_an_event_alone(tmp_path: Path) -> None:
    found = listed(tmp_path, "web:1")
    assert found["Pod"][0]["status"]["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    (event,) = found["Event"]
    assert event["reason"] == "FailedCreatePodSandBox" and PAUSE in event["message"]
    assert event["involvedObject"] == {"kind": "Pod", "namespace": "default", "name": "web"}


def test_kubectl_joins_the_kinds_that_there_are(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(kubectl, "_get", lambda path, options: json.dumps({"items": [path]}))
    assert kubectl.main(["get", "pods,deployments.apps", "--all-namespaces", "--output=json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == ["/api/v1/pods"]
    assert kubectl.main(["get", "events", "--field-selector=type=Warning", "-A", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == ["/api/v1/events"]
    assert kubectl.main(["get", "services", "-o", "json"]) == 1
