"""Summary and judgement of a cluster's pods, from answers in the form of kubectl."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.plugins.test_k3s_modules import run

sys.path.insert(0, str(Path(__file__).parents[3] / "collections"))
BASE = "ansible_collections.site.appliance.plugins"
pods: Any = importlib.import_module(f"{BASE}.module_utils.cluster_pods")
judge: Any = importlib.import_module(f"{BASE}.plugin_utils.cluster")
problems: Any = importlib.import_module(f"{BASE}.plugin_utils.problems")

COREDNS = "rancher/mirrored-coredns-coredns:1.14.4"
SANDBOX = (
    'Failed to create pod sandbox: rpc error: code = NotFound desc = failed to get sandbox image "rancher/mirrored-pause:3.6": '
    'failed to pull image "rancher/mirrored-pause:3.6": not found'
)


def pod(name: str, *states: dict[str, Any], node: str = "a", phase: str = "Pending", **more: Any) -> dict[str, Any]:
    containers = [{"name": f"c{number}", "image": COREDNS} for number in range(len(states) or 1)]
    statuses = [{"name": f"c{number}", "state": state} for number, state in enumerate(states)]
    return {
        "kind": "Pod",
        "metadata": {"namespace": "kube-system", "name": name, **more.pop("metadata", {})},
        "spec": {"nodeName": node, "containers": containers} if node else {"containers": containers},
        "status": {"phase": phase, "containerStatuses": statuses, **more},
    }


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


RUNS = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
UNSCHEDULED: dict[str, Any] = {
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"}
    ]
}


@pytest.mark.parametrize(
    ("item", "state", "reason"),
    [
        (pod("ok", RUNS, phase="Running"), "ok", ""),
        (pod("new", waits("ContainerCreating")), "starting", "ContainerCreating"),
        (pod("pulls", waits("ErrImagePull", "not found")), "starting", "ErrImagePull"),
        (pod("pulls", waits("ImagePullBackOff", "Back-off")), "starting", "ImagePullBackOff"),
        (pod("falls", waits("CrashLoopBackOff"), phase="Running"), "stuck", "CrashLoopBackOff"),
        (pod("half", RUNS, waits("CrashLoopBackOff"), phase="Running"), "stuck", "CrashLoopBackOff"),
        (pod("config", waits("CreateContainerConfigError")), "stuck", "CreateContainerConfigError"),
        (pod("error", waits("CreateContainerError")), "stuck", "CreateContainerError"),
        (pod("name", waits("InvalidImageName")), "stuck", "InvalidImageName"),
        (pod("fell", {"terminated": {"exitCode": 1, "reason": "Error"}}, phase="Running"), "starting", "Error"),
        (pod("no room", node="", **UNSCHEDULED), "starting", "Unschedulable"),
        (pod("just made", node=""), "starting", "Pending"),
        (
            pod("init", waits("PodInitializing"), initContainerStatuses=[{"state": waits("ErrImageNeverPull")}]),
            "stuck",
            "ErrImageNeverPull",
        ),
    ],
    ids=lambda value: value["metadata"]["name"] if isinstance(value, dict) else "",
)
def test_the_state_of_a_pod(item: dict[str, Any], state: str, reason: str) -> None:
    (row,) = pods.read_pods([item])
    assert (row["state"], row["reason"]) == (state, reason)
    assert row["images"] == [COREDNS] and row["pod"] == f"kube-system/{item['metadata']['name']}"


def test_pods_that_have_ended_or_are_going_do_not_count() -> None:
    ended = [pod("job", phase="Succeeded"), pod("evicted", phase="Failed")]
    going = pod("going", waits("ContainerCreating"), metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert pods.read_pods([*ended, going, {"kind": "Node"}]) == []


def workload(kind: str, spec: dict[str, Any], status: dict[str, Any] | None = None) -> dict[str, Any]:
    template = {"spec": {"initContainers": [{"image": "i:1"}], "containers": [{"image": "c:1"}]}}
    whole = {"jobTemplate": {"spec": {"template": template}}} if kind == "CronJob" else {"template": template}
    metadata = {"namespace": "n", "name": "x"}
    return {"kind": kind, "metadata": metadata, "spec": {**whole, **spec}, "status": status or {}}


@pytest.mark.parametrize(
    ("item", "wanted", "waiting"),
    [
        (workload("Deployment", {"replicas": 2}, {"replicas": 1}), True, True),
        (workload("Deployment", {"replicas": 2}, {"replicas": 2}), True, False),
        (workload("Deployment", {"replicas": 0}), False, False),
        (workload("DaemonSet", {}, {"desiredNumberScheduled": 2, "currentNumberScheduled": 2}), True, False),
        (workload("DaemonSet", {}, {"desiredNumberScheduled": 0}), False, False),
        (workload("CronJob", {}), True, False),
        (workload("CronJob", {"suspend": True}), False, False),
        (workload("Job", {}, {"conditions": [{"type": "Complete", "status": "True"}]}), False, False),
        (workload("Job", {}), True, False),
    ],
)
def test_workloads_want_images_while_they_are_to_have_pods(item: dict[str, Any], wanted: bool, waiting: bool) -> None:
    rows = pods.read_workloads([item])
    name = f"{item['kind'].lower()} n/x"
    assert rows == ([{"name": name, "images": ["c:1", "i:1"], "waits": waiting}] if wanted else [])


def event(message: str, time: str, reason: str = "FailedCreatePodSandBox", **more: Any) -> dict[str, Any]:
    thing = {"kind": "Pod", "namespace": "kube-system", "name": "new"}
    return {
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": time,
        "involvedObject": thing,
        **more,
    }


def test_the_newest_warning_of_a_pod_counts() -> None:
    words = pods.last_words(
        [
            event(SANDBOX, "2026-01-01T00:00:02Z"),
            event("older", "2026-01-01T00:00:01Z"),
            event("normal", "2026-01-01T00:00:09Z", type="Normal"),
        ]
    )
    assert words == {"kube-system/new": f"FailedCreatePodSandBox: {SANDBOX}"}


KUBECTL = """#!/usr/bin/python3
import pathlib, sys
here = pathlib.Path(sys.argv[0]).parent
assert sys.argv[1:3] == ["kubectl", "get"] and "--all-namespaces" in sys.argv
answer = here / ("events.json" if sys.argv[3] == "events" else "pods.json")
if not answer.exists():
    sys.exit("The connection to the server 127.0.0.1:6443 was refused")
print(answer.read_text())
"""


@pytest.fixture
def k3s(tmp_path: Path) -> Path:
    program = tmp_path / "k3s"
    program.write_text(KUBECTL)
    program.chmod(0o755)
    return program


def test_a_pod_without_sandbox_says_why_in_its_events(k3s: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [pod("new", waits("ContainerCreating")), workload("Deployment", {}, {"replicas": 1})]
    (k3s.parent / "pods.json").write_text(json.dumps({"items": items}))
    (k3s.parent / "events.json").write_text(json.dumps({"items": [event(SANDBOX, "2026-01-01T00:00:02Z")]}))
    said = run("cluster_pods_info", capsys, k3s=str(k3s), expected=["deployment n/x", "deployment n/y"])
    assert said["pods"][0]["message"] == f"FailedCreatePodSandBox: {SANDBOX}"
    assert (said["error"], said["settled"], said["absent"]) == ("", False, ["deployment n/y"])


def test_a_cluster_is_settled_once_nothing_is_on_its_way(k3s: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = pod("ok", RUNS, phase="Running")
    for items, settled in (([good], True), ([good, pod("new", waits("ContainerCreating"))], False), ([], True)):
        (k3s.parent / "pods.json").write_text(json.dumps({"items": items}))
        assert run("cluster_pods_info", capsys, k3s=str(k3s))["settled"] is settled


def test_a_cluster_that_does_not_answer_is_no_cluster_without_pods(
    k3s: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run("cluster_pods_info", capsys, k3s=str(k3s))
    assert said["error"].endswith("6443 was refused") and not said["settled"]
    assert "No such file" in run("cluster_pods_info", capsys, k3s="/nowhere/k3s")["error"]
    (k3s.parent / "pods.json").write_text("no json")
    assert run("cluster_pods_info", capsys, k3s=str(k3s))["error"] == "kubectl printed no list"


# ------------------------------------------------------------------------------------------------- judgement


def info(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"error": "", "absent": [], "pods": pods.read_pods(items), "workloads": pods.read_workloads(items), **more}


def site(answer: dict[str, Any], **more: Any) -> list[str]:
    given: dict[str, Any] = {"nodes": ["a"], "present": {}, "sandboxes": [], "elsewhere": [], **more}
    lines: list[str] = judge.cluster_problems(answer, **given)
    return lines


def test_images_that_nobody_has_are_named_with_their_users() -> None:
    answer = info(pod("dns", RUNS, phase="Running"), workload("CronJob", {}))
    lines = site(answer, sandboxes=["rancher/mirrored-pause:3.6"], present={"docker.io/library/i:1": "sha256:0"})
    assert [line.partition(" [")[0] for line in lines] == [
        "APL-0913: nobody at this site has the image docker.io/library/c:1",
        f"APL-0913: nobody at this site has the image docker.io/{COREDNS}",
        "APL-0913: nobody at this site has the image docker.io/rancher/mirrored-pause:3.6",
    ]
    assert "wanted by cronjob n/x;" in lines[0] and "wanted by pod kube-system/dns;" in lines[1]
    assert "wanted by every pod;" in lines[2] and "seed_sources" in lines[2]


def test_a_cluster_without_pods_wants_no_pause_image() -> None:
    assert site(info(), sandboxes=["rancher/mirrored-pause:3.6"]) == []


@pytest.mark.parametrize(
    ("image", "present", "missing"),
    [
        ("a.site/x:1", {"a.site/x:1": "sha256:1"}, False),
        ("a.site/x:1", {"a.site/x:2": "sha256:1"}, True),
        ("a.site/x@sha256:1", {"a.site/x:2": "sha256:1"}, False),
        ("a.site/x:1@sha256:1", {"a.site/x:2": "sha256:1"}, False),
        # It may be one platform of what is there.
        ("a.site/x@sha256:2", {"a.site/x:2": "sha256:1"}, False),
        ("a.site/x@sha256:2", {"a.site/y:2": "sha256:1"}, True),
        ("10.0.0.1:5443/x:1", {}, False),
        ("harbor.site/x:1", {}, False),
    ],
)
def test_an_image_is_missing_where_no_name_and_no_digest_of_it_is_there(
    image: str, present: dict[str, str], missing: bool
) -> None:
    answer = info(workloads=[{"name": "job n/x", "images": [image], "waits": False}])
    assert bool(site(answer, present=present, elsewhere=["harbor.site"])) is missing


def test_pods_without_a_node_and_silence_are_problems_of_the_cluster() -> None:
    answer = info(pod("no room", node="", **UNSCHEDULED), pod("ok", waits("ContainerCreating")))
    present = {f"docker.io/{COREDNS}": "sha256:1"}
    (line,) = site(answer, present=present)
    assert line.startswith("APL-0912: the pod kube-system/no room does not start [cluster]: Unschedulable: 0/2 nodes")
    assert site({"error": "refused"})[0].startswith("APL-0914")
    assert site(info(absent=["deployment kube-system/coredns"]))[0].startswith("APL-0915")


def test_a_hundred_pods_that_do_not_start_are_not_a_hundred_lines() -> None:
    found = problems.Problems()
    rows = pods.read_pods([pod(f"p{number}", waits("CrashLoopBackOff")) for number in range(100)])
    judge.add_pods(found, rows, "a")
    assert len(found.lines) == judge.SHOWN + 1 and "90 more pods" in found.lines[-1]
