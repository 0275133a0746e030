#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Containers, mounts, interfaces, routes and rules that a stopped K3s left on a host, taken away."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_remains
short_description: Take away what a K3s left on a host when its unit was stopped
description:
  - Ends the containers, removes their mounts, network namespaces, interfaces, routes, packet-filter rules, address sets and
    control groups.
  - Takes nothing that is not recognised as K3s's. K3s's unit has to be stopped before.
  - In check mode it says what is there.
options:
  grace:
    description: Seconds that containers have to end by themselves before they are killed.
    type: int
    default: 10
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
"""

EXAMPLES = r"""
- name: Take away what K3s left
  site.appliance.k3s_remains:
"""

RETURN = r"""
found:
  description: What was there, one kind a line, with its number.
  type: list
  returned: always
containers:
  description: Number of processes within containers.
  type: int
  returned: always
mounts:
  description: Mount points.
  type: list
  returned: always
links:
  description: Network interfaces.
  type: list
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.site.appliance.plugins.module_utils import k3s_remains


def main() -> None:
    """Look, act, and look again."""
    module = AnsibleModule(argument_spec={"grace": {"type": "int", "default": 10}}, supports_check_mode=True)
    try:
        found = k3s_remains.look()
        if found and not module.check_mode:
            k3s_remains.remove(grace=module.params["grace"])
    except (k3s_remains.RemainsError, OSError, ValueError) as error:
        module.fail_json(msg=f"APL-0851: what K3s left could not be taken away: {error}")
    module.exit_json(changed=bool(found), **k3s_remains.as_result(found))


if __name__ == "__main__":
    main()
