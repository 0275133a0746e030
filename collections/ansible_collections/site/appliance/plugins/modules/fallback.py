#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Keep with which release and files the services last ran well, or go back to that."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fallback
short_description: Keep with which release and files the services last ran well, or go back to that
description:
  - O(state=kept) keeps the name of the release that is current and the files, with owner and mode, in
    O(root)C(/fallback.json), readable by root alone.
  - O(state=restored) puts those files back and points O(root)C(/current) at that release. It restarts nothing.
  - A release reads the configuration that was written for it; so the two go back together.
options:
  state:
    description: What to do.
    type: str
    choices: [kept, restored]
    required: true
  files:
    description: Paths of the files to keep. One that is not there is kept as that, and removed when it is gone back to.
    type: list
    elements: str
    default: []
  first:
    description: Keep only where nothing is kept yet. For what ran before anything was kept.
    type: bool
    default: false
  root:
    description: Directory of the releases on the host.
    type: path
    default: /opt/appliance
author:
  - The K3s air-gap appliance's authors
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Keep what the services run well with
  site.appliance.fallback:
    state: kept
    files: [/etc/appliance/config.yaml]
"""

RETURN = r"""
release:
  description: Name of the release that is kept, or was gone back to; empty where there is none.
  type: str
  returned: success
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.site.appliance.plugins.module_utils import releases


def main() -> None:
    """Keep or go back."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["kept", "restored"], "required": True},
            "files": {"type": "list", "elements": "str", "default": []},
            "first": {"type": "bool", "default": False},
            "root": {"type": "path", "default": "/opt/appliance"},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["root"])
    try:
        known = releases.kept(root)
        if module.params["state"] == "kept":
            now = releases.snapshot(root, module.params["files"])
            is_due = now["release"] is not None and now != known and not (module.params["first"] and known)
            if is_due and not module.check_mode:
                releases.keep(root, now)
            aim = now if is_due else known
        else:
            is_due, aim = known is not None, known
            if known is not None and not module.check_mode:
                releases.go_back(root, known)
    except OSError as error:
        module.fail_json(msg=f"{error.filename or root}: {error.strerror or error}")
    module.exit_json(changed=is_due, release=aim["release"] if aim else "")


if __name__ == "__main__":
    main()
