#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Images that K3s binaries need, and images that archives hold. Runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_images_info
short_description: Read which images a K3s binary needs and which ones image archives hold
description:
  - Reads the files on the host it runs on (the controller). Changes nothing.
  - A K3s binary carries the manifests of its components; their images are read from it without running it. Where that part cannot be
    read, a list of the release is taken, and without one C(k3s server --help) says the pause image at least.
options:
  binaries:
    description: K3s binaries.
    type: list
    elements: str
    default: []
  lists:
    description: Lists of images as a release brings them (C(k3s-images.txt)), for binaries that do not say everything.
    type: list
    elements: str
    default: []
  archives:
    description: Image archives for C(agent/images).
    type: list
    elements: str
    default: []
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
"""

EXAMPLES = r"""
- name: Read the images that K3s needs
  site.appliance.k3s_images_info:
    binaries: [/media/stick/k3s/k3s]
    archives: [/media/stick/k3s/k3s-airgap-images-amd64.tar.zst]
  delegate_to: localhost
"""

RETURN = r"""
binaries:
  description: Path to C(images) and C(known) (V(all), V(list), V(pause) or V(nothing)).
  type: dict
  returned: always
archives:
  description: Path to the names in the archive; null where it cannot be read here.
  type: dict
  returned: always
"""

import os
from pathlib import Path
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.site.appliance.plugins.module_utils.k3s_images import (
    archive_names,
    binary_images,
    list_names,
)


def needed(binary: Path, listed: List[str]) -> Dict[str, Any]:
    """Return the images that one binary needs, by itself or by the list."""
    own = binary_images(binary)
    return own if own["known"] == "all" or not listed else {"images": listed, "known": "list"}


def expanded(path: str) -> Path:
    """Return a path as Ansible would read it; results are named as they were asked for."""
    return Path(os.path.expanduser(os.path.expandvars(path)))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "binaries": {"type": "list", "elements": "str", "default": []},
            "lists": {"type": "list", "elements": "str", "default": []},
            "archives": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        listed = sorted({name for path in given["lists"] for name in list_names(expanded(path))})
        module.exit_json(
            changed=False,
            binaries={path: needed(expanded(path), listed) for path in given["binaries"]},
            archives={path: archive_names(expanded(path)) for path in given["archives"]},
        )
    except OSError as error:
        module.fail_json(msg="APL-0822: cannot be read [%s]: %s" % (error.filename, error.strerror or error))


if __name__ == "__main__":
    main()
