#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Documentation of an action plugin: it does all on the controller, and no Ansible module runs on the node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: follow
short_description: Wait until a node serves a generation and holds its share of the layers
description:
  - Asks the node's agent (C(appliance status --json)) again and again over the connection that Ansible has anyway.
  - After 5 seconds it shows what each node still lacks, the slowest first.
  - Never fails for a node that does not follow; the caller judges the result.
options:
  command:
    description: Path of the appliance's command on the node.
    type: str
    required: true
  generation:
    description: C(number) and C(digest) of the generation that the publisher serves; none where there is no generation yet.
    type: dict
  timeout:
    description: Seconds to wait.
    type: int
    default: 3600
  delay:
    description: Seconds between two questions.
    type: int
    default: 2
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
attributes:
  check_mode:
    support: none
    description: The task is skipped.
"""

EXAMPLES = r"""
- name: Wait until this node serves it
  site.appliance.follow:
    command: /opt/appliance/current/venv/bin/appliance
    generation: {number: 4, digest: "sha256:..."}
"""

RETURN = r"""
rc:
  description: Exit code of the last question.
  type: int
  returned: always
stdout:
  description: The last answer.
  type: str
  returned: always
stderr:
  description: Standard error of the last question.
  type: str
  returned: always
attempts:
  description: How often it was asked.
  type: int
  returned: always
"""
