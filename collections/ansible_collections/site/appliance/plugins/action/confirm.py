# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Controller's side of ``site.appliance.confirm``: ask for a yes."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsiblePromptInterrupt, AnsiblePromptNoninteractive
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.site.appliance.plugins.plugin_utils.answers import TRIES, Answer, refusal, understood
from ansible_collections.site.appliance.plugins.plugin_utils.problems import plain

display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core carries no types
    """Ask until the answer is a yes or a no, three times at the most."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return normally for a yes, and fail with APL-0770 for everything else."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            argument_spec={"question": {"type": "str", "required": True}, "kept": {"type": "str", "default": ""}}
        )
        question, kept = str(plain(options["question"])), str(plain(options["kept"]))
        answer = self._ask(question)
        result["changed"] = False
        if answer is not Answer.YES:
            result.update(failed=True, declined=True, msg=refusal(answer, kept))
        return result

    def _ask(self, question: str) -> Answer:
        try:
            for _ in range(TRIES):
                given = bytes(display.prompt_until(f"{question} [y/n]: ")).decode(errors="replace")
                answer = understood(given)
                if answer is not None:
                    return answer
                question = f"{given.strip()!r} is neither yes nor no. Type y or n and press Enter"
        except AnsiblePromptNoninteractive:
            return Answer.NO_TERMINAL
        except AnsiblePromptInterrupt:
            return Answer.STOPPED
        return Answer.UNCLEAR
