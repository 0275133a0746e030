#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Install a release of the appliance from a wheelhouse on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Install a release of the appliance from a wheelhouse on the controller
description:
  - Makes a virtual environment at O(root)C(/releases/<version>/venv) with the wheelhouse's packages, checked against their
    hashes and without any network, and points O(root)C(/current) at it by one rename.
  - Does nothing, and sends nothing to the host, where that release is complete and current. One that is complete is made
    current without sending anything.
  - A part of it runs on the controller, where the wheelhouse lies.
options:
  wheelhouse:
    description: Directory on the controller that holds C(wheelhouse/) and C(requirements.txt).
    type: path
    required: true
  root:
    description: Directory on the host.
    type: path
    default: /opt/appliance
  python:
    description: Interpreter on the host, Python 3.10 or newer.
    type: str
    default: /usr/bin/python3
  activate:
    description: Whether C(current) is pointed at it. Without, it is only installed beside the one that runs.
    type: bool
    default: true
  keep:
    description: How many releases stay on the host, the current one counted.
    type: int
    default: 2
  version:
    description: Version of the appliance in the wheelhouse; found on the controller.
    type: str
  digest:
    description: SHA-256 of C(requirements.txt); found on the controller.
    type: str
  archive:
    description: Path on the host of the packed wheelhouse; sent by the controller.
    type: path
author:
  - The K3s air-gap appliance's authors
attributes:
  check_mode:
    support: full
    description: Says whether the release would be installed.
  diff_mode:
    support: full
    description: Shows the name of the current release before and after.
"""

EXAMPLES = r"""
- name: Install the appliance
  site.appliance.release:
    wheelhouse: build/wheelhouse
"""

RETURN = r"""
name:
  description: Name of the release, below O(root)C(/releases).
  type: str
  returned: success
current:
  description: Whether that release was complete and current before.
  type: bool
  returned: success
complete:
  description: Whether that release was complete before.
  type: bool
  returned: success
program:
  description: Path of this release's own command.
  type: str
  returned: success
command:
  description: Path of the command of whichever release is current.
  type: str
  returned: success
interpreter:
  description: Version, machine and glibc of the interpreter, by which the controller chooses the wheels that it sends.
  type: dict
  returned: success
removed:
  description: Names of old releases that were removed.
  type: list
  returned: success
"""

import os
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.site.appliance.plugins.module_utils import interpreters, releases


def interpreter(module: AnsibleModule) -> dict:
    """Return what the services' interpreter says of itself; end the module where it cannot be used."""
    found = interpreters.probe(module.params["python"], module.run_command)
    if found["version"] is None:
        module.fail_json(
            msg=f"APL-0761: {found['path']} does not run: {found['error']}. Install Python 3.10 or newer, or set mirror_python to its path"
        )
    if tuple(found["version"]) < (3, 10):
        version = ".".join(str(part) for part in found["version"])
        module.fail_json(
            msg=f"APL-0761: {found['path']} is Python {version}; the appliance's services need 3.10 or newer. Set mirror_python"
        )
    return found


def wanted(module: AnsibleModule, found: dict) -> dict:
    """Return what the release is to say of itself: the digest of its packages and the interpreter below it."""
    minor = ".".join(str(part) for part in found["version"][:2])
    return {"digest": module.params["digest"], "python": module.params["python"], "minor": minor}


def main() -> None:
    """Compare, and install where something differs."""
    module = AnsibleModule(
        argument_spec={
            "wheelhouse": {"type": "path", "required": True},
            "root": {"type": "path", "default": "/opt/appliance"},
            "python": {"type": "str", "default": "/usr/bin/python3"},
            "activate": {"type": "bool", "default": True},
            "keep": {"type": "int", "default": 2},
            "version": {"type": "str"},
            "digest": {"type": "str"},
            "archive": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not params["version"] or not params["digest"]:
        module.fail_json(msg="APL-0760: the part of this module that runs on the controller was left out")
    os.umask(0o022)
    root, version = Path(params["root"]), params["version"]
    found = interpreter(module)
    aim = wanted(module, found)
    name, before = releases.name_for(root, version, aim), releases.current(root)
    complete = releases.marker(root / "releases" / name) == aim
    result = {
        "name": name,
        "complete": complete,
        "program": str(root / "releases" / name / "venv" / "bin" / "appliance"),
        "command": str(root / "current" / "venv" / "bin" / "appliance"),
        "current": releases.installed(root, version, aim),
        "interpreter": found,
        "changed": False,
        "removed": [],
        "diff": {"before": f"{before or 'none'}\n", "after": f"{name}\n"},
    }
    result["changed"] = not (result["current"] if params["activate"] else complete)
    if not result["changed"] or module.check_mode or not (complete or params["archive"]):
        module.exit_json(**result)
    try:
        if not complete:
            root.mkdir(parents=True, exist_ok=True, mode=0o755)
            with tempfile.TemporaryDirectory(dir=module.tmpdir) as work:
                releases.install(root, version, aim, Path(params["archive"]), Path(work))
            result["removed"] = releases.prune(root, params["keep"], also=[name])
        if params["activate"]:
            releases.flip(root, name)
    except (releases.ReleaseError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
