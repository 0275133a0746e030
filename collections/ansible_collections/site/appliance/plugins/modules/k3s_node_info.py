#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""What is on a node of K3s, read in one go."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_node_info
short_description: Read what a node has of K3s
description:
  - Reads the version that is installed, the hashes of files, which image archives are in place, which tools are absent, and whether a
    running K3s was started with what is there now. Changes nothing.
options:
  k3s:
    description: Path of the binary.
    type: path
    required: true
  unit:
    description: The unit that K3s runs as on this node.
    type: str
    required: true
  address:
    description: Address of the node, or several with commas between them; the interface that has the first is looked for.
    type: str
    default: ""
  files:
    description: Files whose SHA-256 is wanted.
    type: list
    elements: path
    required: true
  paths:
    description: Paths of which only their being there is wanted.
    type: list
    elements: path
    default: []
  tools:
    description: Commands that are looked for on the PATH of a host.
    type: list
    elements: str
    default: []
  images:
    description: Name and SHA-256 of each image archive that is wanted.
    type: list
    elements: dict
    default: []
  images_directory:
    description: K3s's directory of image archives.
    type: path
    required: true
  images_manifest:
    description: File that names the archives that were placed earlier.
    type: path
    required: true
  inputs_command:
    description: Shell command that prints what a start of K3s goes by.
    type: str
    required: true
  inputs_file:
    description: Where the unit kept that command's output at its last start.
    type: path
    required: true
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
"""

EXAMPLES = r"""
- name: Look at the node
  site.appliance.k3s_node_info:
    k3s: /usr/local/bin/k3s
    unit: k3s
    files: [/etc/rancher/k3s/config.yaml]
    images_directory: /var/lib/rancher/k3s/agent/images
    images_manifest: /etc/appliance/k3s-images.json
    inputs_command: sha256sum /etc/rancher/k3s/*
    inputs_file: /run/k3s-inputs.sha256
"""

RETURN = r"""
version_output:
  description: What C(k3s --version) prints; empty where it does not run.
  type: str
  returned: always
interface:
  description: Name of the network interface that has I(address); empty where none has it.
  type: str
  returned: always
files:
  description: Path to SHA-256, empty where there is no such file.
  type: dict
  returned: always
present:
  description: Those of I(paths) that are there.
  type: list
  returned: always
tools_missing:
  description: Those of I(tools) that the host has not.
  type: list
  returned: always
images_needed:
  description: Archives that are not in place with the right content.
  type: list
  returned: always
images_stale:
  description: Archives that were placed earlier and are not wanted any more.
  type: list
  returned: always
active:
  description: Whether the unit runs.
  type: bool
  returned: always
outdated:
  description: Whether it was started with something else than what is there now.
  type: bool
  returned: always
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import List

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.site.appliance.plugins.module_utils.image_archives import load_manifest, sha256

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def output(argv: List[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command that only reads; one that does not exist ends with 127."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
        )
    except OSError:
        return subprocess.CompletedProcess(argv, 127, "", "")


def interface_of(address: str) -> str:
    """The interface that has an address; empty where there is none."""
    listed = output(["ip", "-json", "address", "show", "to", address]).stdout if address else ""
    try:
        # Interfaces without it are listed as empty objects.
        return next((str(entry["ifname"]) for entry in json.loads(listed or "[]") if entry.get("ifname")), "")
    except ValueError:
        return ""


def outdated(command: str, record: Path) -> bool:
    """Whether the record of the last start is absent or says something else than the command does now."""
    now = output(["/bin/sh", "-c", command]).stdout
    try:
        return record.read_text(encoding="utf-8") != now
    except FileNotFoundError:
        return True


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "k3s": {"type": "path", "required": True},
            "unit": {"type": "str", "required": True},
            "address": {"type": "str", "default": ""},
            "files": {"type": "list", "elements": "path", "required": True},
            "paths": {"type": "list", "elements": "path", "default": []},
            "tools": {"type": "list", "elements": "str", "default": []},
            "images": {"type": "list", "elements": "dict", "default": []},
            "images_directory": {"type": "path", "required": True},
            "images_manifest": {"type": "path", "required": True},
            "inputs_command": {"type": "str", "required": True},
            "inputs_file": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    directory = Path(given["images_directory"])
    wanted = {item["name"]: item["sha256"] for item in given["images"]}
    try:
        placed = load_manifest(Path(given["images_manifest"]))
        version = output([given["k3s"], "--version"])
        module.exit_json(
            changed=False,
            version_output=version.stdout if version.returncode == 0 else "",
            interface=interface_of(given["address"].split(",")[0].strip()),
            files={name: sha256(Path(name)) for name in given["files"]},
            present=[name for name in given["paths"] if Path(name).exists()],
            tools_missing=[name for name in given["tools"] if not shutil.which(name, path=PATH)],
            images_needed=[name for name, digest in sorted(wanted.items()) if sha256(directory / name) != digest],
            images_stale=[name for name in placed if name not in wanted],
            active=output(["systemctl", "is-active", "--quiet", f"{given['unit']}.service"]).returncode == 0,
            outdated=outdated(given["inputs_command"], Path(given["inputs_file"])),
        )
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror or error}")


if __name__ == "__main__":
    main()
