#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""The files from which a node's containerd learns where to look for images."""

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_config_info
short_description: Read containerd's configuration and its hosts.toml files
description:
  - Returns the texts of the configuration files that match I(files), and of the hosts.toml files in each directory
    directly under I(directories). Credentials are blanked. Changes nothing.
options:
  files:
    description: Paths or glob patterns of configuration files.
    type: list
    elements: str
    required: true
  directories:
    description: Directories that hold one directory for each registry.
    type: list
    elements: path
    required: true
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
"""

EXAMPLES = r"""
- name: Read what containerd goes by
  site.appliance.containerd_config_info:
    files: [/var/lib/rancher/k3s/agent/etc/containerd/config.toml]
    directories: [/etc/appliance/certs.d]
"""

RETURN = r"""
files:
  description: Path to text of each configuration file, in the order of the names.
  type: dict
  returned: always
hosts:
  description: Directory to registry directory to text of its hosts.toml; null where the directory has no such file.
  type: dict
  returned: always
"""

import glob
import re
from pathlib import Path
from typing import Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule

SECRET = re.compile(r"(?im)^(\s*[\"']?(?:password|auth|identity_?token|username)[\"']?\s*=\s*).*$")


def blank(text: str) -> str:
    """The text with the values of credentials taken out."""
    return SECRET.sub(r'\1""', text)


def read_files(patterns: List[str]) -> Dict[str, str]:
    """Path to text, credentials blanked."""
    paths = sorted({path for pattern in patterns for path in glob.glob(pattern)})
    return {
        path: blank(Path(path).read_text(encoding="utf-8", errors="replace")) for path in paths if Path(path).is_file()
    }


def read_hosts(directory: Path) -> Dict[str, Optional[str]]:
    """Name of each registry's directory to its hosts.toml, None where it has none."""
    found: Dict[str, Optional[str]] = {}
    if directory.is_dir():
        for path in sorted(directory.iterdir()):
            if not path.is_dir():
                continue
            hosts = path / "hosts.toml"
            found[path.name] = blank(hosts.read_text(encoding="utf-8", errors="replace")) if hosts.is_file() else None
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "str", "required": True},
            "directories": {"type": "list", "elements": "path", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        files = read_files(module.params["files"])
        hosts = {name: read_hosts(Path(name)) for name in module.params["directories"]}
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror or error}")
    module.exit_json(changed=False, files=files, hosts=hosts)


if __name__ == "__main__":
    main()
