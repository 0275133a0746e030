#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""State of a cluster's pods, asked once on a server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_pods_info
short_description: Read which pods of a cluster start, and which images its workloads want
description:
  - Asks C(k3s kubectl) on a server and returns a summary that stays small in a large cluster. Changes nothing.
options:
  k3s:
    description: Path of the K3s binary.
    type: path
    required: true
  expected:
    description: Workloads that have to be there, such as V(deployment kube-system/coredns). Until then nothing is settled.
    type: list
    elements: str
    default: []
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
"""

EXAMPLES = r"""
- name: Ask the cluster for its pods
  site.appliance.cluster_pods_info:
    k3s: /usr/local/bin/k3s
"""

RETURN = r"""
error:
  description: Why there is no answer; empty where there is one.
  type: str
  returned: always
pods:
  description: C(pod), C(node), C(state) (V(ok), V(starting) or V(stuck)), C(reason), C(message) and C(images) of each pod that is to run.
  type: list
  returned: always
absent:
  description: Entries of I(expected) that are not there.
  type: list
  returned: always
workloads:
  description: C(name), C(images) and C(waits) of each workload that is to have pods.
  type: list
  returned: always
settled:
  description: Whether nothing is on its way any more.
  type: bool
  returned: always
"""

import json
import os
import subprocess
from typing import Any, Dict, List, Tuple

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.site.appliance.plugins.module_utils.cluster_pods import (
    KINDS,
    last_words,
    read_pods,
    read_workloads,
)

TIMEOUT = 60


def get(k3s: str, *words: str) -> Tuple[List[Dict[str, Any]], str]:
    """Return the objects that kubectl prints, or why there are none."""
    argv = [k3s, "kubectl", "get", *words, "--all-namespaces", "--output=json"]
    # kubectl's cache of the API goes with K3s; root's home is not ours.
    environment = {**os.environ, "KUBECACHEDIR": "/run/k3s/kubectl"}
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except OSError as error:
        return [], "%s: %s" % (k3s, error.strerror or error)
    except subprocess.TimeoutExpired:
        return [], "no answer within %s s" % TIMEOUT
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return [], lines[-1] if lines else "kubectl ended with %s" % done.returncode
    try:
        return list(json.loads(done.stdout)["items"]), ""
    except (ValueError, KeyError, TypeError):
        return [], "kubectl printed no list"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "k3s": {"type": "path", "required": True},
            "expected": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    k3s = module.params["k3s"]
    items, error = get(k3s, KINDS)
    pods, workloads = read_pods(items), read_workloads(items)
    unsettled = [row for row in pods if row["state"] != "ok"]
    if unsettled:
        # Where there are none, or kubectl does not give them, the pods' own words have to do.
        events, _ = get(k3s, "events", "--field-selector=type=Warning")
        words = last_words(events)
        for row in unsettled:
            row["message"] = row["message"] or words.get(row["pod"], "")
    absent = [name for name in module.params["expected"] if name not in [row["name"] for row in workloads]]
    starting = any(row["state"] == "starting" for row in pods) or any(row["waits"] for row in workloads)
    module.exit_json(
        changed=False,
        error=error,
        pods=pods,
        workloads=workloads,
        absent=absent,
        settled=not (error or absent or starting),
    )


if __name__ == "__main__":
    main()
