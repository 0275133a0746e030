# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Controller's side of ``site.appliance.job``: run a long command on a node, show its progress, and stop it with the run."""

from __future__ import annotations

import os
import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.site.appliance.plugins.plugin_utils import progress, remote_job
from ansible_collections.site.appliance.plugins.plugin_utils.board import Board
from ansible_collections.site.appliance.plugins.plugin_utils.interrupts import Interrupted, interruptible
from ansible_collections.site.appliance.plugins.plugin_utils.problems import plain
from ansible_collections.site.appliance.plugins.plugin_utils.quantities import duration_text, rate_text
from ansible_collections.site.appliance.plugins.plugin_utils.run import Run
from ansible_collections.site.appliance.plugins.plugin_utils.sizes import size_words

display = Display()

_RENEW_SECONDS = 1.0
_FIRST_POLLS = (0.1, 0.2, 0.4)
_OPTIONS = {
    "argv": {"type": "list", "elements": "str", "required": True},
    "about": {"type": "str", "required": True},
    "stdin": {"type": "str", "default": ""},
    "watch": {"type": "str", "default": ""},
    "cleanup": {"type": "list", "elements": "str", "default": []},
    "runtime_directory": {"type": "str", "default": remote_job.ROOT},
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core carries no types
    """Start the command, renew its lease once a second, and collect what it wrote."""

    _supports_check_mode = False
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the command and return what ``ansible.builtin.command`` returns for it."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if result.get("skipped"):
            return result
        _, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        self._options: dict[str, Any] = plain(options)
        self._host = str((task_vars or {}).get("inventory_hostname", ""))
        self._run = Run.current()
        self._parent = os.getppid()
        # In one call: whatever ends the run finds the job that it has to stop.
        with interruptible():
            return {**result, **self._controlled()}

    def _controlled(self) -> dict[str, Any]:
        job = remote_job.new_directory(self._options["runtime_directory"])
        is_started = False
        board = Board(display, self._host, self._run)
        try:
            self._start(job)
            is_started = True
            state, newest = self._watch(job, board)
            answer = self._collect(job, state)
        except Interrupted:
            self._stop(job, is_started)
            raise
        except AnsibleConnectionFailure:
            self._note(None)
            raise
        except _ParentGone as problem:
            self._stop(job, is_started)
            if self._run is not None:
                self._run.end()
            raise AnsibleActionFail("ansible-playbook, which started this, is gone") from problem
        board.close(_last_line(self._host, self._options["about"], state, newest, board.elapsed))
        return {**answer, "seconds": round(board.elapsed, 1)}

    def _start(self, job: str) -> None:
        script = remote_job.start_script(
            job,
            self._options["argv"],
            environment=self._compute_environment_string(),
            stdin=self._options["stdin"],
            watch=self._options["watch"],
            cleanup=self._options["cleanup"],
        )
        done = self._shell(script)
        try:
            if done["rc"] != 0:
                raise ValueError(done["stderr"].strip() or done["stdout"].strip())
            remote_job.check_started(done["stdout"])
        except ValueError as problem:
            raise AnsibleActionFail(
                f"APL-0775: a command could not be started [{self._host}]: {problem}. "
                f"Make room below {self._options['runtime_directory']} there, and see that sudo lets this user run /bin/sh"
            ) from problem

    def _watch(self, job: str, board: Board) -> tuple[remote_job.State, progress.Progress | None]:
        """Renew the lease and show the progress until the job ends."""
        newest: progress.Progress | None = None
        script = remote_job.poll_script(job)
        pauses = list(_FIRST_POLLS)
        while True:
            if os.getppid() != self._parent:
                raise _ParentGone
            began = time.monotonic()
            state = remote_job.state(self._shell(script)["stdout"])
            newest = progress.parse(state.line) or newest
            if state.word != "running":
                return state, newest
            left = float(newest.total - newest.done) if newest else 0.0
            board.show(progress.progress_text(self._host, self._options["about"], newest, board.elapsed), left)
            pause = pauses.pop(0) if pauses else _RENEW_SECONDS
            time.sleep(max(0.0, pause - (time.monotonic() - began)))

    def _collect(self, job: str, state: remote_job.State) -> dict[str, Any]:
        answer: dict[str, Any] = {"cmd": self._options["argv"], "rc": state.code, "stdout": "", "stderr": ""}
        if state.word == "ended":
            answer["stdout"] = self._shell(remote_job.read_script(job, "stdout"))["stdout"]
            said = self._shell(remote_job.read_script(job, "stderr"))["stdout"]
            answer["stderr"] = progress.without_progress(said)
        else:
            answer["stderr"] = (
                f"APL-0774: the command on the node left no result [{self._host}]: it was killed, for want of memory or by a "
                "restart of the node. See 'journalctl -k' there, then run it again"
            )
        self._shell(remote_job.remove_script(job))
        answer["changed"] = True
        if answer["rc"] != 0:
            answer.update(failed=True, msg="non-zero return code")
        return answer

    def _stop(self, job: str, is_started: bool) -> None:
        """End the job, as far as the node can be reached, and note whether it changed anything before.

        :param is_started: whether the node has said that it started the job. Until then, a node without the job has done nothing.
        """
        script = remote_job.stop_script(job, watch=self._options["watch"], cleanup=self._options["cleanup"])
        try:
            is_changed = remote_job.stopped(self._shell(script)["stdout"])
        except AnsibleConnectionFailure:
            self._note(None)
            return
        self._note(False if is_changed is None and not is_started else is_changed)

    def _note(self, is_changed: bool | None) -> None:
        if self._run is not None:
            self._run.note_end(self._host, {"changed": is_changed, "about": self._options["about"]})

    def _shell(self, script: str) -> dict[str, Any]:
        """Run lines of shell on the node, as the user that ``become`` says."""
        # By standard input: no terminal is asked for then, which would mix the outputs and end lines with CR.
        answer: dict[str, Any] = self._low_level_execute_command("/bin/sh", in_data=script.encode(), sudoable=True)
        return answer


class _ParentGone(Exception):
    """The process that this worker works for does not exist any more."""


def _last_line(host: str, about: str, state: remote_job.State, newest: progress.Progress | None, elapsed: float) -> str:
    if newest is None or state.code != 0:
        return f"{host}: {about}: ended after {duration_text(elapsed)}"
    rate = f", {rate_text(newest.done / elapsed)}" if elapsed and newest.done else ""
    what = f"{newest.phase} {about}" if newest.phase else about
    return f"{host}: {what}: {size_words(newest.done)} in {duration_text(elapsed)}{rate}"
