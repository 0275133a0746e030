#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Open ports in the firewall that the host has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
short_description: Open ports in the firewall that the host has
description:
  - Finds out whether firewalld, ufw, nftables or iptables refuses packets here, and adds what is missing to that one,
    in objects of its own. Never disables, flushes or reorders what others put there. What it adds is read back.
options:
  rules:
    description:
      - C(input), a list of C(name), C(proto), C(ports) and C(sources) (none means anybody); C(trusted), networks
        from which everything is accepted but C(guarded), UDP ports, and C(closed), TCP ports; C(forward), networks from and to which
        packets are forwarded, but not to the C(closed) ports of C(nodes).
      - Not looked at with I(state=absent).
    type: dict
    default: {}
  state:
    description: Whether the rules are to be there or gone.
    type: str
    choices: [present, absent]
    default: present
  backend:
    description: The firewall to use; C(auto) asks the host. With I(state=absent) it looks in all of them, also in one that is off.
    type: str
    choices: [auto, firewalld, ufw, nftables, iptables, none]
    default: auto
author:
  - The K3s air-gap appliance's authors
attributes:
  check_mode:
    support: full
    description: Computes the same plan and does not apply it.
  diff_mode:
    support: full
    description: Shows our rules before and after.
"""

EXAMPLES = r"""
- name: Open the ports
  site.appliance.firewall:
    rules:
      input: [{name: nodes, proto: tcp, ports: ["6443"], sources: [192.0.2.11]}]
      trusted: [10.42.0.0/16]
      guarded: ["8472"]
      closed: ["5443"]
      forward: [10.42.0.0/16]
      nodes: [192.0.2.11]
"""

RETURN = r"""
backend:
  description: The firewall that was found.
  type: str
  returned: always
commands:
  description: The commands that were or would be run.
  type: list
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.site.appliance.plugins.module_utils import firewall_rules


def main() -> None:
    """Plan, apply, plan again."""
    module = AnsibleModule(
        argument_spec={
            "rules": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "backend": {
                "type": "str",
                "choices": ["auto", "firewalld", "ufw", "nftables", "iptables", "none"],
                "default": "auto",
            },
        },
        supports_check_mode=True,
    )
    rules: Any = module.params["rules"] if module.params["state"] == "present" else None
    result: dict[str, Any] = {}
    try:
        plan = firewall_rules.make_plan(rules, backend=module.params["backend"])
        result = {
            "backend": plan.backend,
            "changed": bool(plan.steps),
            "commands": [" ".join(step.argv) for step in plan.steps if step.argv],
            "diff": {
                "before": "".join(f"{line}\n" for line in plan.before),
                "after": "".join(f"{line}\n" for line in plan.after),
            },
        }
        if plan.steps and not module.check_mode:
            firewall_rules.apply_plan(plan)
            # Ours may have lain in several, also in one that is off.
            backend = module.params["backend"] if rules is None else plan.backend
            left = firewall_rules.make_plan(rules, backend=backend).steps
            if left:
                module.fail_json(
                    msg="APL-0750: the firewall took the rules but does not show them when it is asked again",
                    missing=[step.stdin or " ".join(step.argv) or step.path for step in left],
                    **result,
                )
    except (firewall_rules.FirewallError, OSError, ValueError) as error:
        result.pop("changed", None)
        module.fail_json(msg=f"APL-0751: the firewall's rules could not be set: {error}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
