# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Controller's side of ``site.appliance.outcome``: state what is true at this point of a run."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.site.appliance.plugins.plugin_utils.problems import plain

_NAMES = ("stopped", "switched", "ends", "checked")


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core carries no types
    """Hand the statements to the callback, and show the last one where another callback shows the run."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the statements."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            argument_spec={name: {"type": "str", "default": ""} for name in _NAMES}
        )
        stated = {name: " ".join(str(text).split()) for name, text in plain(options).items() if name in _NAMES}
        shown = stated["checked"] if self._task.check_mode and stated["checked"] else stated["ends"]
        result.update(changed=False, site_appliance_outcome=stated)
        if shown:
            result.update(msg=shown, _ansible_verbose_always=True)
        return result
