#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Documentation of an action plugin: it does all on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: confirm
short_description: Ask for a yes before a plan is carried out
description:
  - Takes y, yes, n and no in any case of letters. Anything else is asked again, three times at the most.
  - Fails with APL-0770 for a no, for Ctrl-C at the question, and where there is no terminal.
options:
  question:
    description: The question.
    type: str
    required: true
  kept:
    description: What stays for the next run where the answer is no, as a sentence.
    type: str
    default: ""
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
attributes:
  check_mode:
    support: full
    description: It asks there too; leave it out where nothing is to be asked.
"""

EXAMPLES = r"""
- name: Ask
  site.appliance.confirm:
    question: Carry this out?
"""

RETURN = r"""
msg:
  description: Why the plan is not carried out.
  type: str
  returned: where it is not
"""
