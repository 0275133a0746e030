#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Documentation of an action plugin: it does all on the controller, and no Python starts on the node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: job
short_description: Run a long command on a node, show its progress, and stop it with the run
description:
  - Starts the command in a session of its own, with its output in a directory below O(runtime_directory) that only root
    may read. About once a second it renews the command's lease and reads its newest progress over the connection that
    Ansible has anyway. No Python starts on the node.
  - C(APPLIANCE_LEASE) names the file of the lease to the command. A command of the appliance ends itself with exit code
    75 when the file stays the same for 4 seconds or is removed.
  - After 5 seconds the progress is shown, on a terminal as one live line, else as a line every few seconds. The command
    reports it as lines of JSON on standard error.
  - Where the run is stopped (Ctrl-C, a signal), the command is ended before the run ends. Where the controller dies or
    the connection breaks, it ends by its lease.
  - It is skipped in check mode.
options:
  argv:
    description: The command and its arguments.
    type: list
    elements: str
    required: true
  about:
    description: What the command works on, for the lines of progress.
    type: str
    required: true
  stdin:
    description: What the command reads from its standard input.
    type: str
    default: ""
  watch:
    description: File on the node whose content tells whether a command that was stopped had done its work.
    type: str
    default: ""
  cleanup:
    description: Paths on the node that are removed where the command is stopped, because no later task will do it.
    type: list
    elements: str
    default: []
  runtime_directory:
    description: Directory on the node for the job's own directory.
    type: str
    default: /run
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
attributes:
  check_mode:
    support: none
    description: The task is skipped.
"""

EXAMPLES = r"""
- name: Read and verify the medium
  site.appliance.job:
    argv: [/opt/appliance/current/venv/bin/appliance, plan, --json, --, /media/stick]
    about: /media/stick
  changed_when: false
"""

RETURN = r"""
cmd:
  description: The command.
  type: list
  returned: always
rc:
  description: Its exit code; -1 where it was killed and left none.
  type: int
  returned: always
stdout:
  description: What it wrote to standard output.
  type: str
  returned: always
stderr:
  description: What it wrote to standard error, without its progress.
  type: str
  returned: always
seconds:
  description: How long it ran.
  type: float
  returned: always
"""
