#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Documentation of an action plugin: it does all on the controller, by way of ansible.builtin.copy."""

from __future__ import annotations

DOCUMENTATION = r"""
module: carry
short_description: Copy big files to a node and show how far it is
description:
  - Does what M(ansible.builtin.copy) does, with its options and its result.
  - Says beforehand what is carried and how big it is, shows the progress after 5 seconds, and the rate at the end.
  - Where the run is stopped, it removes the part of a file that had arrived.
options:
  src:
    description: File or directory on the controller.
    type: path
    required: true
  dest:
    description: Where it goes on the node.
    type: path
    required: true
  owner:
    description: As for M(ansible.builtin.copy).
    type: str
  group:
    description: As for M(ansible.builtin.copy).
    type: str
  mode:
    description: As for M(ansible.builtin.copy).
    type: raw
  directory_mode:
    description: As for M(ansible.builtin.copy).
    type: raw
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
attributes:
  check_mode:
    support: full
    description: As for M(ansible.builtin.copy).
"""

EXAMPLES = r"""
- name: Carry K3s's images
  site.appliance.carry:
    src: /srv/k3s/k3s-airgap-images-amd64.tar.zst
    dest: /var/lib/rancher/k3s/agent/.appliance-images/
    mode: "0600"
"""

RETURN = r"""
dest:
  description: As for M(ansible.builtin.copy).
  type: str
  returned: success
"""
