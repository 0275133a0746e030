# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Directories that are made on the way to a file."""

from __future__ import annotations

from pathlib import Path

#: K3s keeps keys below this directory and makes it closed to others; what lies above it stays open to all.
K3S_AGENT = Path("/var/lib/rancher/k3s/agent")


def make_directory(path: Path, mode: int = 0o755, private: Path = K3S_AGENT) -> None:
    """Make a directory and those above it that are absent.

    :param path: the directory.
    :param mode: its permissions, if it is made here.
    :param private: it and every directory below it get 0700 when they are made here; others on the way get 0755.
    """
    if path.is_dir():
        return
    closed = path == private or private in path.parents
    if not path.parent.is_dir():
        make_directory(path.parent, private=private)
    path.mkdir(mode=0o700, exist_ok=True)
    # mkdir's mode goes through the umask.
    path.chmod(0o700 if closed else mode)
