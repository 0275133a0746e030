# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Controller's side of ``site.appliance.carry``: copy big files to a node, with progress, and leave no half of one there."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.site.appliance.plugins.plugin_utils.board import Board
from ansible_collections.site.appliance.plugins.plugin_utils.interrupts import Interrupted, interruptible
from ansible_collections.site.appliance.plugins.plugin_utils.problems import plain
from ansible_collections.site.appliance.plugins.plugin_utils.progress import Progress, Rate, progress_text
from ansible_collections.site.appliance.plugins.plugin_utils.quantities import duration_text, rate_text
from ansible_collections.site.appliance.plugins.plugin_utils.run import Run
from ansible_collections.site.appliance.plugins.plugin_utils.sizes import size_words
from ansible_collections.site.appliance.plugins.plugin_utils.transfers import Transfers, size_of

display = Display()

_LARGE = 64 * 1024**2
"""Bytes from which on it is said beforehand what is carried: this takes over 5 s at 12 MiB/s."""
_LOOK_SECONDS = 1.0


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core carries no types
    """Run ``ansible.builtin.copy`` and show how far it is."""

    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Copy, with the options and the result of ``ansible.builtin.copy``."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        source = Path(str(plain(self._task.args.get("src", "")))).expanduser()
        host = str((task_vars or {}).get("inventory_hostname", ""))
        size = size_of(source) if source.exists() else 0
        about = f"{source.name} to {plain(self._task.args.get('dest', ''))}"
        if size >= _LARGE and not self._task.check_mode:
            display.display(f"{host}: carrying {about}: {size_words(size)}")
        board = Board(display, host, Run.current())
        over = threading.Event()
        watcher = threading.Thread(target=self._show, args=(board, host, about, size, over), daemon=True)
        watcher.start()
        try:
            with interruptible():
                result.update(self._copy(task_vars))
        finally:
            over.set()
            watcher.join()
        rate = f", {rate_text(size / board.elapsed)}" if board.elapsed else ""
        done = f"{host}: carried {about}: {size_words(size)} in {duration_text(board.elapsed)}{rate}"
        board.close(done if result.get("changed") else "")
        return result

    def _copy(self, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        copy = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.copy",
            task=self._task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        try:
            answer: dict[str, Any] = copy.run(task_vars=task_vars)
            return answer
        except Interrupted:
            # What arrived so far lies in Ansible's own temporary directory, which nothing else would ever remove.
            try:
                self._remove_tmp_path(self._connection._shell.tmpdir)
            except AnsibleConnectionFailure:
                display.warning("a part of a file may be left in Ansible's temporary directory on the node")
            raise

    @staticmethod
    def _show(board: Board, host: str, about: str, size: int, over: threading.Event) -> None:
        transfers, rate = Transfers(Path("/proc"), os.getpid()), Rate()
        while not over.wait(_LOOK_SECONDS):
            done = min(size, transfers.bytes_read())
            pace = rate.falls_to(size - done)
            left = (size - done) / pace if pace and done else None
            board.show(
                progress_text(host, about, Progress("carrying", done, size, pace, left), board.elapsed), size - done
            )
