# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible's display for words that nodes, media and commands chose."""

from __future__ import annotations

import inspect
from types import MethodType
from typing import Any

from ansible_collections.site.appliance.plugins.plugin_utils.words import several_lines


class HarmlessDisplay:
    """Ansible's display, where only line breaks and Ansible's own colours act; all else is seen, as itself or as an escape.

    Its methods are Ansible's, bound to this object: whatever they show comes to :meth:`display` here.

    :param display: Ansible's own, for what draws by controls.
    """

    def __init__(self, display: Any) -> None:
        self.own = display

    def display(self, msg: str, *arguments: Any, **options: Any) -> None:
        """Show a message; see Ansible's method of that name."""
        self.own.display(several_lines(msg.replace("\r\n", "\n")), *arguments, **options)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.own, name)
        return MethodType(value.__func__, self) if inspect.ismethod(value) else value


def harmless(value: Any) -> Any:
    """Return plain data with :func:`several_lines` of every string in it, as a difference between files is made of."""
    if isinstance(value, str):
        return several_lines(value)
    if isinstance(value, dict):
        return {key: harmless(item) for key, item in value.items()}
    return [harmless(item) for item in value] if isinstance(value, list) else value
