# SPDX-License-Identifier: Apache-2.0
"""Judge an inventory, what was brought, and the reports of the hosts: pure functions from data to a list of problems.

A problem is a mapping of strings: ``id`` (``APL-07xx``), ``where`` (``inventory``, ``controller`` or a host), ``what``, ``fix``.
They run on the controller. Nothing is raised for a bad site: what is wrong is collected, to be said at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.site.appliance.plugins.module_utils import host_state
from ansible_collections.site.appliance.plugins.plugin_utils import brought
from ansible_collections.site.appliance.plugins.plugin_utils.contact import contact_problem
from ansible_collections.site.appliance.plugins.plugin_utils.findings import CONTROLLER, INVENTORY, Problem
from ansible_collections.site.appliance.plugins.plugin_utils.host_checks import HOST_CHECKS, SITE_CHECKS, Host, Site
from ansible_collections.site.appliance.plugins.plugin_utils.host_notes import host_notes
from ansible_collections.site.appliance.plugins.plugin_utils.inventory_checks import (
    INVENTORY_CHECKS,
    Inventory,
    node_address,
    node_addresses,
)


def role_options(roles: str) -> dict[str, list[str]]:
    """Read every role's ``argument_specs.yml`` and return the roles' option names, over all their entry points.

    :param roles: directory that holds the roles.
    """
    options: dict[str, list[str]] = {}
    for path in sorted(Path(roles).glob("*/meta/argument_specs.yml")):
        specs = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("argument_specs", {})
        names = {option for entry in specs.values() for option in (entry.get("options") or {})}
        options[path.parent.parent.name] = sorted(names)
    return options


def inventory_problems(
    variables: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Any],
    options: Mapping[str, list[str]],
    ansible_version: str,
) -> list[Problem]:
    """Return what is wrong with an inventory, as far as it can be told without asking a host.

    :param variables: ``hostvars``.
    :param groups: ``groups``.
    :param options: role to option names, see :func:`role_options`.
    :param ansible_version: the controller's ansible-core, ``2.19.4``.
    """
    inventory = Inventory(variables, groups, options, ansible_version)
    return [found for check in INVENTORY_CHECKS for found in check(inventory)]


def host_problems(
    results: Mapping[str, Mapping[str, Any]],
    variables: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> list[Problem]:
    """Return what is wrong with the hosts that were examined, and with what was brought for them.

    :param results: host to the registered result of ``site.appliance.host_report``.
    :param variables: ``hostvars``.
    :param settings: ``ports``, ``max_clock_skew`` (seconds), ``now`` (seconds since 1970, optional), ``bytes`` and
        ``minimum`` (directory to bytes), ``seeds`` (hosts that import), ``nodes`` (how many there are), ``copies``,
        ``runs_from`` and ``writes_to`` (directories), ``base`` (directory of ``site.yml``; without it no file on the
        controller is looked at), ``media`` (whether the media are needed), ``seed_host`` (the host that reads them) and
        ``controller_sources`` (path to ``host_state.source``, where the controller has them).
    """
    problems: list[Problem] = []
    examined: dict[str, Host] = {}
    for name, result in results.items():
        own = variables[name]
        contact = contact_problem(name, result, str(own.get("ansible_host") or name), _port(own))
        if contact:
            problems.append(contact)
        else:
            examined[name] = Host(name, own, result["report"], settings)
    media = [host.report["sources"] for host in examined.values()] + [settings.get("controller_sources") or {}]
    settings = {**settings, "source_bytes": brought.total_bytes(media)}
    examined = {name: dataclasses.replace(host, settings=settings) for name, host in examined.items()}
    problems += [found for host in examined.values() for check in HOST_CHECKS for found in check(host)]
    silent = {name: variables[name] for name in results if name not in examined}
    problems += [found for check in SITE_CHECKS for found in check(Site(examined, settings, silent))]
    places = [INVENTORY, CONTROLLER, *results]
    return sorted(problems, key=lambda entry: places.index(entry["where"]))


def _port(variables: Mapping[str, Any]) -> int | None:
    value = str(variables.get("ansible_port") or "")
    return int(value) if value.isdigit() else None


def preflight_success(results: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """Return the sentence for a site in which nothing is wrong: how many hosts and checks, and what was not looked at.

    :param results: host to the registered result of ``site.appliance.host_report``.
    :param settings: as in :func:`host_problems`.
    """
    checks = len(INVENTORY_CHECKS) + len(HOST_CHECKS) * len(results) + len(SITE_CHECKS)
    hosts = f"{len(results)} host{'s' if len(results) != 1 else ''}"
    rest = "the content of the media, which the plan verifies" if settings.get("media", True) else "the media"
    return f"Preflight: {hosts}, {checks} checks, nothing is wrong. Not checked here: {rest}."


def problem_text(problems: list[Problem]) -> str:
    """Write all problems as one message: the inventory's, the controller's, then host by host."""
    places = list(dict.fromkeys([INVENTORY, CONTROLLER, *(entry["where"] for entry in problems)]))
    count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
    lines = [f"{count} found. Nothing was changed on any host."]
    for place in places:
        here = [entry for entry in problems if entry["where"] == place]
        if here:
            lines += ["", f"{place}:"]
            for entry in here:
                lines += [
                    f"  {entry['id']} {entry['what']}.",
                    *([f"           {entry['fix']}"] if entry["fix"] else []),
                ]
    return "\n".join(lines)


def source_states(paths: Iterable[str], base: str = "/") -> dict[str, dict[str, Any]]:
    """Return what lies on the controller at each path, see ``host_state.source``.

    :param base: directory of ``site.yml``, which a relative path starts from.
    """
    return {str(name): host_state.source(brought.resolve(str(name), Path(base))) for name in paths}


class FilterModule:
    """The names that playbooks call these functions by."""

    def filters(self) -> dict[str, Any]:
        """Return name to function."""
        return {
            "host_notes": host_notes,
            "host_problems": host_problems,
            "inventory_problems": inventory_problems,
            "node_address": node_address,
            "node_addresses": node_addresses,
            "problem_text": problem_text,
            "role_options": role_options,
            "preflight_success": preflight_success,
            "source_states": source_states,
        }
