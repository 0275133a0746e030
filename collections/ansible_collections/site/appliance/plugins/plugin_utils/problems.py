# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the input, gathered so that all of it can be shown at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.site.appliance.plugins.plugin_utils.words import one_line


class Problems:
    """A list of problems under construction, each one line with a stable id.

    The lines have the form of the appliance's own errors: ``APL-0801: what [where]: why. What to do.``
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, code: str, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        """Add one problem.

        :param code: stable id, ``APL-`` and four digits.
        :param what: what is wrong, one clause.
        :param where: variable, file or host; may be empty.
        :param why: what it would lead to; may be empty.
        :param fix: what to do next; may be empty.
        """
        text = f"{code}: {one_line(what)}"
        if where:
            text += f" [{one_line(where)}]"
        if why:
            text += f": {one_line(why)}"
        if fix:
            text += f". {one_line(fix)}"
        if text not in self.lines:
            self.lines.append(text)


def plain(value: Any) -> Any:
    """The same data in built-in types only.

    Ansible hands filters strings and containers of its own subclasses (tagged, lazily templated), which PyYAML's
    safe dumper and JSON do not all know.
    """
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return str(value)
