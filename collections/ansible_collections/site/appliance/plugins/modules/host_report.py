#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Report what the preflight checks need to know of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_report
short_description: Report what the preflight checks need to know of a host
description:
  - Reads the host once and returns plain data. It judges nothing and changes nothing; the filter
    C(site.appliance.host_problems) judges on the controller, where all hosts are known.
options:
  filesystems:
    description: Directories whose file systems are reported, whether they exist yet or not.
    type: list
    elements: str
    default: []
  sources:
    description: Media, as the inventory names them; what lies there is reported by names and sizes, and whether it was published before.
    type: list
    elements: str
    default: []
  modules:
    description: Kernel modules whose state is reported.
    type: list
    elements: str
    default: []
  service_python:
    description: Interpreter that the appliance's services are to run with.
    type: str
    default: /usr/bin/python3
author:
  - The K3s air-gap appliance's authors
attributes:
  check_mode:
    support: full
    description: Reads only.
"""

EXAMPLES = r"""
- name: Look at the host
  site.appliance.host_report:
    filesystems: [/var/lib/appliance]
    modules: [overlay]
  register: __preflight_report
"""

RETURN = r"""
report:
  description: What was found, see module_utils/host_state.py for each part.
  type: dict
  returned: always
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.site.appliance.plugins.module_utils import host_state, interpreters


def iptables_version(module: AnsibleModule) -> str:
    """Return what iptables says of itself, or an empty string where it is not installed."""
    found = module.get_bin_path("iptables")
    if not found:
        return ""
    code, out, _ = module.run_command([found, "--version"])
    return str(out).strip() if code == 0 else ""


def listening(module: AnsibleModule) -> list[dict[str, Any]] | None:
    """Return the listening TCP sockets, or None where ss is not there to tell."""
    found = module.get_bin_path("ss")
    if not found:
        return None
    code, out, _ = module.run_command([found, "-ltnpH"])
    systemctl = module.get_bin_path("systemctl")
    listed = [systemctl, "list-sockets", "--no-legend", "--no-pager"]
    sockets = str(module.run_command(listed)[1]) if systemctl else ""
    return host_state.listeners(out, sockets=sockets) if code == 0 else None


def main() -> None:
    """Read the host and hand the report to Ansible."""
    module = AnsibleModule(
        argument_spec={
            "filesystems": {"type": "list", "elements": "str", "default": []},
            "sources": {"type": "list", "elements": "str", "default": []},
            "modules": {"type": "list", "elements": "str", "default": []},
            "service_python": {"type": "str", "default": "/usr/bin/python3"},
        },
        supports_check_mode=True,
    )
    epoch = time.time()
    uname = os.uname()
    sources = {path: host_state.source(Path(path)) for path in module.params["sources"]}
    report = {
        "epoch": epoch,
        "hostname": uname.nodename,
        "machine": uname.machine,
        "kernel": uname.release,
        "uid": os.geteuid(),
        "python": list(sys.version_info[:3]),
        "service_python": interpreters.probe(module.params["service_python"], module.run_command),
        "init": host_state.read_text(Path("/proc/1/comm")).strip(),
        "container": host_state.read_text(Path("/run/systemd/container")).strip(),
        "filesystems": {path: host_state.filesystem(Path(path)) for path in module.params["filesystems"]},
        "sources": sources,
        "published": host_state.published([path for path, state in sources.items() if not state["candidates"]]),
        "installed": host_state.installed(),
        "held": host_state.size_of(Path("/var/lib/appliance/blobs")) or 0,
        "listeners": listening(module),
        "cgroup": host_state.cgroups(),
        "k3s": host_state.k3s_traces(),
        "default_routes": host_state.default_routes(),
        "modules": {name: host_state.module_state(name, uname.release) for name in module.params["modules"]},
        "swap": host_state.swap_bytes(),
        "iptables": iptables_version(module),
    }
    module.exit_json(changed=False, report=report)


if __name__ == "__main__":
    main()
