#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Documentation of an action plugin: it does all on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: outcome
short_description: State what is true at this point of a run, for the sentence at its end
description:
  - The callback C(site.appliance.screen) prints the sentence that fits the end of the run. Each option holds until a
    later task states it anew.
  - With another callback O(ends) is printed where it is stated.
options:
  stopped:
    description: What is true where the run is stopped from here on.
    type: str
    default: ""
  switched:
    description: What is true instead where a job that was stopped had done its work.
    type: str
    default: ""
  ends:
    description: What is true and what to do next where the run ends well.
    type: str
    default: ""
  checked:
    description: The same for check mode.
    type: str
    default: ""
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
attributes:
  check_mode:
    support: full
    description: It changes nothing.
"""

EXAMPLES = r"""
- name: Say what a stop would leave
  site.appliance.outcome:
    stopped: Nothing was changed on any host.
"""

RETURN = r"""
msg:
  description: O(ends), or O(checked) in check mode.
  type: str
  returned: where one is given
"""
