"""Role verify run as it is, against a K3s and a mirror that answer from a file: the cluster is asked once, and judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
IMAGE = "docker.io/library/web:1"
SAMPLE = {"names": 1, "blobs": 2, "bytes": 3 << 20, "pull": IMAGE, "wrong": []}
K3S = """#!/usr/bin/python3
import json, pathlib, sys
words, here = sys.argv[1:], pathlib.Path(sys.argv[0]).parent
with (here / "asked").open("a") as log:
    print(*words, file=log)
if words == ["--version"]:
    print("k3s version v1.36.3+k3s1 (0)")
elif words[:2] == ["kubectl", "get"]:
    print((here / words[2].partition(",")[0]).read_text())
elif words[0] == "ctr":
    print("REF TYPE DIGEST SIZE")
"""
APPLIANCE = """#!/usr/bin/python3
import pathlib, sys
print((pathlib.Path(sys.argv[0]).parent / sys.argv[1]).read_text())
"""


def pod(state: dict[str, Any], phase: str) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"namespace": "kube-system", "name": "web"},
        "spec": {"nodeName": "a", "containers": [{"name": "c", "image": "web:1"}]},
        "status": {"phase": phase, "containerStatuses": [{"state": state}]},
    }


def verify(root: Path, item: dict[str, Any], *, served: bool) -> tuple[str, list[str]]:
    """Run the playbook over two nodes; return the output and the commands that K3s got."""
    digest = "sha256:" + "ab" * 32
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.3+k3s1"}}
    status = {"generation": {"number": 3, "digest": digest}, "names": 1, "peers": []}
    images = [{"name": IMAGE, "digest": digest}] if served else []
    answers: dict[str, Any] = {
        "nodes": {"kind": "List", "items": [{"metadata": {"name": name}, "status": ready} for name in "ab"]},
        "pods": {"items": [item]},
        "events": {"items": []},
        "status": status,
        "images": {"images": images},
        "prove": SAMPLE,
    }
    for name, answer in answers.items():
        (root / name).write_text(json.dumps(answer))
    for name, text in (("k3s", K3S), ("appliance", APPLIANCE)):
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    settings = {
        "ansible_become": False,
        "__verify_k3s": str(root / "k3s"),
        "verify_appliance": str(root / "appliance"),
        "verify_pods_timeout": 1,
        "verify_retries": 1,
        "k3s_server_config": {"disable": ["coredns", "local-storage", "metrics-server"]},
    }
    hosts = {name: {**LOCAL, "ansible_host": f"10.0.0.{number}"} for number, name in enumerate("ab", 1)}
    groups: dict[str, Any] = {"k3s_servers": {"hosts": {"a": {}}}, "k3s_agents": {"hosts": {"b": {}}}}
    children = {**groups, "k3s_cluster": {"children": {name: {} for name in groups}}}
    (root / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": children}}))
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "-i",
        str(root / "hosts.yml"),
        "playbooks/verify.yml",
    ]
    done = subprocess.run(
        [*command, "-e", json.dumps(settings)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )
    return " ".join((done.stdout + done.stderr).split()), (root / "asked").read_text().splitlines()


def test_a_cluster_whose_pods_run_is_good(tmp_path: Path) -> None:
    said, asked = verify(tmp_path, pod({"running": {}}, "Running"), served=True)
    assert " 1/1 " in said and "APL-091" not in said, said[-3000:]
    assert "Layers hashed: 4, 6.0 MiB on 2 nodes (-e verify_seed=" in said
    assert len([words for words in asked if words.startswith("kubectl get pods")]) == 1, "once, not for each node"
    assert asked.count(f"crictl pull {IMAGE}") == 2


@pytest.mark.parametrize("served", [True, False])
def test_a_pod_that_does_not_start_is_an_error_with_its_reason(tmp_path: Path, served: bool) -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    said, _ = verify(tmp_path, pod(waiting, "Pending"), served=served)
    assert "!0/1" in said, said[-3000:]
    assert "APL-0912: the pod kube-system/web does not start [a]: ImagePullBackOff: Back-off pulling image" in said
    assert (f"APL-0913: nobody at this site has the image {IMAGE}" in said) is not served
    assert "Unknown error" not in said
