# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Controller's side of ``site.appliance.follow``: wait until a node serves a generation whole, and show what it lacks."""

from __future__ import annotations

import os
import shlex
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.site.appliance.plugins.filter.seed import (
    seed_behind_text,
    seed_lacks,
    seed_missing_bytes,
    seed_waited,
)
from ansible_collections.site.appliance.plugins.plugin_utils.board import Board
from ansible_collections.site.appliance.plugins.plugin_utils.problems import plain
from ansible_collections.site.appliance.plugins.plugin_utils.progress import Rate
from ansible_collections.site.appliance.plugins.plugin_utils.quantities import duration_text
from ansible_collections.site.appliance.plugins.plugin_utils.run import Run

display = Display()

_OPTIONS = {
    "command": {"type": "str", "required": True},
    "generation": {"type": "dict"},
    "timeout": {"type": "int", "default": 3600},
    "delay": {"type": "int", "default": 2},
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core carries no types
    """Ask the node's agent again and again, over the connection that is there."""

    _supports_check_mode = False
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Wait, and return the last answer as ``ansible.builtin.command`` returns it, with ``attempts``."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if result.get("skipped"):
            return result
        _, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        options = plain(options)
        host, parent = str((task_vars or {}).get("inventory_hostname", "")), os.getppid()
        board, rate = Board(display, host, Run.current()), Rate()
        words, generation = f"{shlex.quote(options['command'])} status --json", options["generation"]
        attempts = 0
        while True:
            if os.getppid() != parent:
                raise AnsibleActionFail("ansible-playbook, which started this, is gone")
            attempts += 1
            answer = self._low_level_execute_command("/bin/sh", in_data=f"{words}\n".encode(), sudoable=True)
            seen = {"rc": answer["rc"], "stdout": answer["stdout"], "stderr": answer["stderr"], "attempts": attempts}
            if seed_waited(seen, generation) or board.elapsed >= options["timeout"]:
                lacks = seed_lacks(seen, generation)
                board.close(f"{host}: {lacks or 'follows'} after {duration_text(board.elapsed)}")
                return {**result, **seen, "changed": False}
            missing = seed_missing_bytes(seen)
            pace = rate.falls_to(missing)
            board.show(f"{host}: {seed_behind_text(seen, generation, pace)}", missing)
            time.sleep(options["delay"])
