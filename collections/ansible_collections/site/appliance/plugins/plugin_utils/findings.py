# SPDX-License-Identifier: Apache-2.0
"""Problems that preflight finds: their form, and words for a sentence."""

from __future__ import annotations

from collections.abc import Iterable

from ansible_collections.site.appliance.plugins.plugin_utils.words import one_line

Problem = dict[str, str]

INVENTORY = "inventory"
"""The place of a problem that concerns no host."""

CONTROLLER = "controller"
"""The place of a problem with a file on the controller."""


def problem(code: str, where: str, what: str, fix: str) -> Problem:
    """Make one entry of the list: stable id, place, what is wrong, what to do about it."""
    return {"id": code, "where": one_line(where), "what": one_line(what), "fix": one_line(fix)}


def from_line(line: str, where: str) -> Problem:
    """Make an entry of a line in the form of the appliance's errors: ``APL-0822: what [where]: why. What to do``."""
    code, _, rest = line.partition(": ")
    what, _, fix = rest.partition(". ")
    return problem(code, where, what, f"{fix}." if fix and not fix.endswith(".") else fix)


def named(hosts: Iterable[str], limit: int = 5) -> str:
    """Join names for a sentence, and count those past the limit."""
    names = list(hosts)
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"
