#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Files and trees, removed without leaving their file system."""

from __future__ import annotations

DOCUMENTATION = r"""
module: removed_paths
short_description: Remove files and trees, and never what is mounted in them
description:
  - Removes each path with all that lies below it. What is mounted below it, and what I(keep) names, stays with the directories
    that lead there.
  - A path that is a mount point itself is emptied and stays, with its C(lost+found); so is a link to a directory.
  - In check mode it says what would go.
options:
  paths:
    description: Absolute paths; shell patterns are allowed in the last part.
    type: list
    elements: str
    required: true
  keep:
    description: Absolute paths that stay, with all that lies below them.
    type: list
    elements: str
    default: []
  empty:
    description: Absolute paths of directories that are removed where nothing is in them, in this order.
    type: list
    elements: str
    default: []
  measure:
    description: Whether to say how many bytes go.
    type: bool
    default: false
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
"""

EXAMPLES = r"""
- name: Remove the store
  site.appliance.removed_paths:
    paths: [/var/lib/appliance]
"""

RETURN = r"""
removed:
  description: Those of I(paths) and I(empty) of which something went or would go.
  type: list
  returned: always
left:
  description: What is mounted below one of I(paths) and therefore stays.
  type: list
  returned: always
bytes:
  description: Path to the bytes that it takes on disk; nothing without I(measure).
  type: dict
  returned: always
"""

import glob
import os
import shutil
from pathlib import Path
from typing import Dict, Iterable, List, Set, Tuple

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.site.appliance.plugins.module_utils.k3s_remains import mount_points


def victims(path: Path, mounts: Set[Path], keep: Set[Path]) -> Tuple[List[Path], List[Path]]:
    """Return the largest trees below a path, or itself, that can go whole, and the mounts that stay.

    :param mounts: mount points of the host.
    :param keep: paths that stay.
    """
    if path in keep or not os.path.lexists(path):
        return [], []
    spared = mounts | keep
    is_whole = path not in mounts and not any(path in other.parents for other in spared)
    if is_whole or not path.is_dir():
        return [path], []
    gone: List[Path] = []
    left: List[Path] = []
    for child in sorted(path.iterdir()):
        if child in mounts:
            left.append(child)
        elif not (path in mounts and child.name == "lost+found"):
            of_child = victims(child, mounts, keep)
            gone += of_child[0]
            left += of_child[1]
    return gone, left


def remove(path: Path) -> None:
    """Remove a file, a link or a tree; one that is gone already is no error."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return


def size(path: Path) -> int:
    """Return the bytes that a tree takes on disk; a file with several names counts once."""
    seen: Set[Tuple[int, int]] = set()
    total = 0
    waiting = [str(path)]
    while waiting:
        place = waiting.pop()
        try:
            found = os.lstat(place)
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
            if os.path.isdir(place) and not os.path.islink(place):
                waiting += [entry.path for entry in os.scandir(place)]
        except OSError:
            # It went while it was counted.
            continue
    return total


def expanded(patterns: Iterable[str]) -> List[Path]:
    """Return what is there of these paths and patterns."""
    found = [match for pattern in patterns for match in sorted(glob.glob(pattern)) or [pattern]]
    return [Path(name) for name in found if os.path.lexists(name)]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "str", "required": True},
            "keep": {"type": "list", "elements": "str", "default": []},
            "empty": {"type": "list", "elements": "str", "default": []},
            "measure": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    removed: List[str] = []
    left: List[str] = []
    sizes: Dict[str, int] = {}
    keep = set(expanded(module.params["keep"]))
    for name in (*module.params["paths"], *module.params["empty"]):
        if not name.startswith("/") or len(Path(name).parts) < 3 or ".." in Path(name).parts:
            module.fail_json(msg=f"{name} is not an absolute path below a directory of the root")
    try:
        mounts = {Path(point) for point in mount_points(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))}
        for path in expanded(module.params["paths"]):
            # A tree that the host keeps elsewhere: the link and the directory are the host's, as a mount point would be.
            is_elsewhere = path.is_symlink() and path.is_dir()
            place = path.resolve() if is_elsewhere else path
            gone, stays = victims(place, mounts | {place} if is_elsewhere else mounts, keep)
            left += [str(point) for point in stays]
            if not gone:
                continue
            removed.append(str(path))
            if module.params["measure"]:
                sizes[str(path)] = sum(size(tree) for tree in gone)
            if not module.check_mode:
                for tree in gone:
                    remove(tree)
        for path in expanded(module.params["empty"]):
            if path.is_dir() and path not in mounts and not any(path.iterdir()):
                removed.append(str(path))
                if not module.check_mode:
                    path.rmdir()
    except OSError as error:
        module.fail_json(
            msg=f"APL-0852: {error.filename} cannot be removed: {error.strerror or error}", removed=removed, left=left
        )
    module.exit_json(changed=bool(removed), removed=removed, left=left, bytes=sizes)


if __name__ == "__main__":
    main()
