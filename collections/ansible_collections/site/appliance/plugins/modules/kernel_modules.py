#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Have kernel modules loaded now and at every boot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_modules
short_description: Have kernel modules loaded now and at every boot
description:
  - Writes one file of names for systemd-modules-load and loads what is not loaded. Leaves out what is built into
    the kernel, and what cannot be loaded here at all, as in a container.
options:
  names:
    description: Modules that are needed.
    type: list
    elements: str
    required: true
  optional:
    description: Modules that are loaded where the kernel has them, and not missed where it has not.
    type: list
    elements: str
    default: []
  path:
    description: The file to write, below /etc/modules-load.d.
    type: path
    required: true
  root:
    description: The tree whose lib, proc and sys are read. For tests.
    type: path
    default: /
author:
  - The K3s air-gap appliance's authors
attributes:
  check_mode:
    support: full
    description: Says what would be written and loaded.
  diff_mode:
    support: full
    description: Shows the file.
"""

EXAMPLES = r"""
- name: Have the modules that K3s needs
  site.appliance.kernel_modules:
    names: [overlay, br_netfilter]
    path: /etc/modules-load.d/90-appliance.conf
"""

RETURN = r"""
states:
  description: Each module's state before the run, builtin, loaded, loadable, present or missing.
  type: dict
  returned: always
missing:
  description: Needed modules that the kernel shows no sign of.
  type: list
  returned: always
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.site.appliance.plugins.module_utils import host_state

HEADER = "# Written by the appliance (role host). Kernel modules that K3s needs.\n"


def file_text(states: dict[str, str], on_disk: set[str]) -> str:
    """Return the text for modules-load.d: what can be loaded from disk, loaded by now or not."""
    names = [name for name, state in states.items() if state == "loadable" or (state == "loaded" and name in on_disk)]
    return HEADER + "".join(f"{name}\n" for name in names)


def main() -> None:
    """Write the file, load the modules, report."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "optional": {"type": "list", "elements": "str", "default": []},
            "path": {"type": "path", "required": True},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["root"])
    release = os.uname().release
    wanted = [*module.params["names"], *module.params["optional"]]
    states = {name: host_state.module_state(name, release, root) for name in wanted}
    on_disk = {name for name in wanted if host_state.is_on_disk(name, release, root)}
    text = file_text(states, on_disk)
    path = Path(module.params["path"])
    before = host_state.read_text(path)
    to_load = [name for name, state in states.items() if state == "loadable"]
    try:
        if before != text and not module.check_mode:
            module.atomic_move(write_temporary(module, text), str(path))
            path.chmod(0o644)
    except OSError as error:
        module.fail_json(msg=f"{path}: {error.strerror}")
    failed = []
    if not module.check_mode:
        for name in to_load:
            code, _, err = module.run_command(["modprobe", name])
            if code != 0 and name in module.params["names"]:
                failed.append(f"{name}: {err.strip()}")
    if failed:
        module.fail_json(msg="modprobe failed: " + "; ".join(failed), states=states)
    module.exit_json(
        changed=before != text or bool(to_load),
        states=states,
        loaded=to_load,
        missing=[name for name in module.params["names"] if states[name] == "missing"],
        diff={"before": before, "after": text, "before_header": str(path), "after_header": str(path)},
    )


def write_temporary(module: AnsibleModule, text: str) -> str:
    """Write the text to a file of the module's own and return its path."""
    path = Path(module.tmpdir) / "modules-load.conf"
    path.write_text(text, encoding="utf-8")
    return str(path)


if __name__ == "__main__":
    main()
