# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Ansible's default output for an operator: each error once, and one sentence at the end."""

from __future__ import annotations

DOCUMENTATION = r"""
name: screen
type: stdout
short_description: Ansible's default output, with each error once and one sentence at the end
description:
  - As M(ansible.builtin.default#callback). An error is shown once, with its hosts, without an excerpt of the playbook,
    and with the page of the manual that explains it. Hosts with the same error are named together.
  - The last line says what changed, what is true now and what to do next, also where the run was stopped.
  - With C(-v) everything is shown as Ansible shows it.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as stdout in configuration
"""

import atexit
import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.plugins.callback.default import CallbackModule as DefaultCallback
from ansible.plugins.loader import filter_loader

from ansible_collections.site.appliance.plugins.plugin_utils import ending
from ansible_collections.site.appliance.plugins.plugin_utils.board import CLEAR
from ansible_collections.site.appliance.plugins.plugin_utils.display import HarmlessDisplay, harmless
from ansible_collections.site.appliance.plugins.plugin_utils.failures import (
    Failure,
    failure_lines,
    failure_text,
    grouped,
)
from ansible_collections.site.appliance.plugins.plugin_utils.interrupts import SECONDS
from ansible_collections.site.appliance.plugins.plugin_utils.run import Run

_OUTCOME = "site_appliance_outcome"


class CallbackModule(DefaultCallback):  # type: ignore[misc]  # ansible-core carries no types
    """Screen of an operator."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "site.appliance.screen"

    def __init__(self) -> None:
        super().__init__()
        self._harmless = self._display = HarmlessDisplay(self._display)
        self._failures: list[Failure] = []
        self._told: list[str] = []
        self._outcome = ending.Outcome()
        self._changed: list[str] = []
        self._failed_play = ""
        self._failed_hosts: list[str] = []
        self._is_declined = False
        self._is_over = False
        self._is_stopped = False
        self._is_terminal = sys.stdout.isatty()
        self._run = Run.begin(shutil.get_terminal_size().columns if self._is_terminal else 0)
        self._process = os.getpid()
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number, handler in self._handlers.items():
            if callable(handler):
                signal.signal(number, self._interrupted)
        atexit.register(self._exit)

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Begin anew: several playbooks may be run in one go."""
        self._outcome, self._changed = ending.Outcome(), []
        self._failed_play, self._failed_hosts = "", []
        self._is_declined, self._is_over = False, False
        # Each task runs in a fork of this process, and a fork that needs one filter compiles every file of the collection's
        # filters anew: that was a third of the processor time of all forks. One that is asked for here loads them for all.
        filter_loader.get("site.appliance.seed_served")
        super().v2_playbook_on_start(playbook)

    # -- errors ------------------------------------------------------------------------------------------------------

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Keep a failure until its task is over on every host, then show it once."""
        if self._shows_all():
            super().v2_runner_on_failed(result, ignore_errors=ignore_errors)
        elif ignore_errors:
            self._show_ignored(result, "failed")
        else:
            self._handle_warnings(result.result)
            self._failures += self._failures_of(result)
        if not ignore_errors:
            self._note_failure(result)
            self._is_declined = self._is_declined or bool(result.result.get("declined"))

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """Show nothing: the failure of the loop names its items."""
        if self._shows_all():
            super().v2_runner_item_on_failed(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Keep a host that was lost until its task is over on every host, then show it once."""
        if self._shows_all():
            super().v2_runner_on_unreachable(result)
        elif result.task.ignore_unreachable:
            self._show_ignored(result, "cannot be reached")
        else:
            self._handle_warnings(result.result)
            self._failures.append(self._failure(result, failure_text(result.result), is_lost=True))
        if not result.task.ignore_unreachable:
            self._note_failure(result)

    def _failures_of(self, result: Any) -> list[Failure]:
        items = [item for item in result.result.get("results") or [] if item.get("failed")]
        if not (result.task.loop and items):
            return [self._failure(result, failure_text(result.result))]
        return [self._failure(result, f"{self._get_item_label(item)}: {failure_text(item)}") for item in items]

    def _failure(self, result: Any, text: str, *, is_lost: bool = False) -> Failure:
        if result.result.get("_ansible_no_log"):
            text = "the message is hidden, because it may hold a secret"
        task = result.task
        is_worded = task.action.rpartition(".")[2] in ("fail", "assert", "confirm")
        # What one host says for all of them is not about that host.
        host = "" if task.run_once and is_worded else self.host_label(result)
        return Failure(host, task.get_name(), text, is_lost, str(task.get_path() or ""), is_worded)

    def _note_failure(self, result: Any) -> None:
        self._failed_play = self._play.get_name().strip() if self._play else "the run"
        if not result.task.run_once:
            self._failed_hosts = sorted({*self._failed_hosts, result.host.get_name()})

    def _show_ignored(self, result: Any, what: str) -> None:
        """Show one short line: the tasks that follow judge this."""
        self._display.display(
            f"{self.host_label(result)}: {what}; the run goes on, and a later task judges that", color=C.COLOR_SKIP
        )

    def _flush(self) -> None:
        """Show the failures of the task that is over."""
        failures, self._failures = sorted(self._failures), []
        for hosts, failure in grouped(failures):
            lines = [line for line in failure_lines(hosts, failure) if line not in self._told]
            self._told += [line for line in lines if "APL-" in line and "Page" not in line]
            if lines:
                shown = "\n".join(["", *map(self._fitted, lines)])
                self._display.display(shown, color=C.COLOR_ERROR, stderr=self._uses_stderr())

    def _fitted(self, line: str) -> str:
        """Return a line broken between words, where it is for a terminal; a log keeps it whole."""
        if not self._run.columns:
            return line
        return textwrap.fill(
            line,
            self._run.columns - 1,
            subsequent_indent=" " * (len(line) - len(line.lstrip())) + "  ",
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
        )

    def _uses_stderr(self) -> bool:
        return bool(self.get_option("display_failed_stderr"))

    def _shows_all(self) -> bool:
        return bool(self._display.verbosity > 0)

    # -- the rest ------------------------------------------------------------------------------------------------------

    def v2_runner_on_ok(self, result: Any) -> None:
        """Show a result; a message of several lines as text and not as a document."""
        self._clear_live_line()
        if result.result.get("changed"):
            self._note_change(result)
        stated = result.result.get(_OUTCOME)
        if stated is not None:
            self._outcome = self._outcome.updated(stated)
            if not self._shows_all():
                return
        message = result.result.get("msg")
        if result.task.action in C._ACTION_DEBUG and isinstance(message, str) and not self._shows_all():
            if self._last_task_banner != result.task._uuid:
                self._print_task_banner(result.task)
            text = "\n".join(f"  {line}".rstrip() for line in message.split("\n"))
            self._display.display(f"{self.host_label(result)}:\n{text}" if text else "")
            return
        super().v2_runner_on_ok(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Show that a task was skipped."""
        self._clear_live_line()
        super().v2_runner_on_skipped(result)

    def v2_on_file_diff(self, result: Any) -> None:
        """Show what changed in a file."""
        with self._shown_by(self._harmless.own):
            super().v2_on_file_diff(result)

    def _get_diff(self, difflist: Any) -> str:
        return str(super()._get_diff(harmless(difflist)))

    def _print_task_banner(self, task: Any) -> None:
        with self._shown_by(self._harmless):
            super()._print_task_banner(task)

    @contextlib.contextmanager
    def _shown_by(self, display: Any) -> Iterator[None]:
        """Show by another display for a while: by Ansible's own what Ansible has coloured itself and no stranger worded."""
        before, self._display = self._display, display
        try:
            yield
        finally:
            self._display = before

    def _note_change(self, result: Any) -> None:
        host = str(result.task.delegate_to or result.host.get_name())
        # What changes on the controller is named by the steps that change it; this list is of nodes.
        if host not in (*self._changed, "localhost"):
            self._changed = sorted([*self._changed, host])

    def _clear_live_line(self) -> None:
        if self._is_terminal:
            self._harmless.own.display(CLEAR, newline=False, screen_only=True)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Show what the task before left to show, then the name of this one."""
        self._flush()
        if task.action.rpartition(".")[2] == "outcome" and not self._shows_all():
            return
        super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """Show what the task before left to show, then the name of this one."""
        self._flush()
        super().v2_playbook_on_handler_task_start(task)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Show an included file only with ``-v``."""
        self._flush()
        if self._shows_all():
            super().v2_playbook_on_include(included_file)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Show what the play before left to show, then the name of this one."""
        self._flush()
        super().v2_playbook_on_play_start(play)

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        """Show the last failures; the sentence at the end says the rest."""
        self._flush()
        if self._shows_all():
            super().v2_playbook_on_no_hosts_remaining()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Show the recap and the sentence at the end."""
        self._flush()
        with self._shown_by(self._harmless.own):
            super().v2_playbook_on_stats(stats)
        counts = [stats.summarize(host) for host in stats.processed]
        is_failed = any(count["failures"] or count["unreachable"] for count in counts)
        if self._is_declined:
            said = ending.refusal(self._outcome)
        elif is_failed:
            said = ending.failure(self._outcome, self._failed_play, self._failed_hosts, self._changed, self._run.ends())
        else:
            said = ending.success(self._outcome, self._changed, is_check=bool(context.CLIARGS.get("check")))
        self._display.display(self._fitted(said), color=C.COLOR_ERROR if is_failed else C.COLOR_OK)
        self._is_over = True

    # -- a run that is stopped -------------------------------------------------------------------------------------------

    def _interrupted(self, signum: int, frame: FrameType | None) -> None:
        self._is_stopped = True
        if self._is_terminal:
            self._harmless.own.display(f"\r{CLEAR}\r", newline=False, screen_only=True)
        if signum == signal.SIGTERM:
            # ansible-core ends this process from its handler; nothing that is registered for the exit runs then.
            self._run.end()
        handler = self._handlers[signal.Signals(signum)]
        if callable(handler):
            handler(signum, frame)

    def _exit(self) -> None:
        """Show the sentence of a run that came to no recap, and remove what its processes shared."""
        if os.getpid() != self._process:
            return
        if self._is_stopped and not self._is_over:
            self._wait_for_workers()
            said = ending.interruption(self._outcome, self._changed, self._run.ends())
            self._display.display(self._fitted(said), color=C.COLOR_ERROR)
        self._run.end()

    def _wait_for_workers(self) -> None:
        """Wait until the workers have ended what they run on the nodes."""
        workers = multiprocessing.active_children()
        if workers:
            self._display.display("Please wait: the commands on the nodes are ending ...")
            sys.stdout.flush()
        end = time.monotonic() + SECONDS
        for worker in workers:
            worker.join(max(0.0, end - time.monotonic()))
