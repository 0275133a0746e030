#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""A set of small files under one directory, kept in step; only files that carry our mark are ever removed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: marked_files
short_description: Keep a set of small marked files under one directory in step
description:
  - Writes the files that are asked for, and removes files that match I(pattern), start with I(marker) and are not
    asked for.
  - A file without the marker belongs to somebody else and is neither changed nor removed; it is named in C(foreign).
  - A file in a directory of its own (C(host/hosts.toml)) appears and goes together with that directory in one rename,
    so that a reader never sees the directory without its file.
options:
  path:
    description: The directory. It is made where it is absent and something has to be written.
    type: path
    required: true
  files:
    description: Relative path (at most one directory deep) to content. Each content has to start with the marker.
    type: dict
    required: true
  marker:
    description: First line of every file that this caller writes.
    type: str
    required: true
  pattern:
    description: Which files under the directory are looked at when stale ones are removed.
    type: str
    required: true
  mode:
    description: Permissions of the files, as an octal string.
    type: str
    default: "0644"
  directory_mode:
    description: Permissions of directories that are made, as an octal string; below K3s's agent directory it is 0700.
    type: str
    default: "0755"
  remove_stale:
    description: Whether files of ours that are not asked for are removed.
    type: bool
    default: true
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
"""

EXAMPLES = r"""
- name: Ask the mirror first for one registry
  site.appliance.marked_files:
    path: /etc/appliance/certs.d
    marker: "# Written by the appliance"
    pattern: "*/hosts.toml"
    files:
      ksd.test.com/hosts.toml: "# Written by the appliance\n..."
"""

RETURN = r"""
written:
  description: Relative paths that were or would be written.
  type: list
  returned: always
removed:
  description: Relative paths that were or would be removed.
  type: list
  returned: always
foreign:
  description: Relative paths that were asked for but hold somebody else's file.
  type: list
  returned: always
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.site.appliance.plugins.module_utils.directories import make_directory


def read(path: Path) -> Optional[str]:
    """The file's text, or None where there is no file."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_ours(text: str, marker: str) -> bool:
    """Whether a file's first line is the marker."""
    return text.split("\n", 1)[0] == marker


def differing(root: Path, files: Dict[str, str], marker: str, pattern: str, remove_stale: bool) -> Dict[str, Any]:
    """What has to be done: ``written``, ``removed`` and ``foreign`` relative paths, and the ``before`` texts."""
    written: List[str] = []
    foreign: List[str] = []
    before: Dict[str, str] = {}
    for name, content in sorted(files.items()):
        now = read(root / name)
        if now is not None and not is_ours(now, marker):
            foreign.append(name)
        elif now != content:
            written.append(name)
            before[name] = now or ""
    removed: List[str] = []
    if remove_stale and root.is_dir():
        for path in sorted(root.glob(pattern)):
            name = str(path.relative_to(root))
            # Hidden directories are this module's own, on their way in or out.
            if name in files or name.startswith(".") or not path.is_file():
                continue
            text = read(path)
            if text is not None and is_ours(text, marker):
                removed.append(name)
                before[name] = text
    return {"written": written, "removed": removed, "foreign": foreign, "before": before}


def write(root: Path, name: str, content: str, mode: int, directory_mode: int) -> None:
    """Put one file in its place by a rename; a directory that is new comes with its file in it."""
    target = root / name
    make_directory(root, directory_mode)
    whole_directory = target.parent != root and not target.parent.exists()
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    try:
        staged = temporary / target.name
        with staged.open("w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        staged.chmod(mode)
        if whole_directory:
            temporary.chmod(directory_mode)
            temporary.rename(target.parent)
        else:
            staged.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove(root: Path, name: str) -> None:
    """Take one file away, with its directory if nothing else is in it."""
    target = root / name
    if target.parent == root or len(list(target.parent.iterdir())) > 1:
        target.unlink()
        return
    gone = Path(tempfile.mkdtemp(prefix=".old-", dir=root))
    target.parent.rename(gone)
    shutil.rmtree(gone)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
            "marker": {"type": "str", "required": True},
            "pattern": {"type": "str", "required": True},
            "mode": {"type": "str", "default": "0644"},
            "directory_mode": {"type": "str", "default": "0755"},
            "remove_stale": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["path"])
    files: Dict[str, str] = module.params["files"]
    marker: str = module.params["marker"]
    for name, content in files.items():
        parts = Path(name).parts
        if not parts or len(parts) > 2 or ".." in parts or name.startswith(("/", ".")):
            module.fail_json(msg=f"{name} is not a file at most one directory under {root}")
        if not is_ours(str(content), marker):
            module.fail_json(msg=f"the content of {name} does not start with the marker")
    try:
        todo = differing(root, files, marker, module.params["pattern"], module.params["remove_stale"])
        if not module.check_mode:
            for name in todo["written"]:
                write(
                    root,
                    name,
                    files[name],
                    int(module.params["mode"], 8),
                    int(module.params["directory_mode"], 8),
                )
            for name in todo["removed"]:
                remove(root, name)
    except OSError as error:
        module.fail_json(msg=f"{error.filename or root}: {error.strerror or error}")
    touched = todo["written"] + todo["removed"]
    module.exit_json(
        changed=bool(touched),
        written=todo["written"],
        removed=todo["removed"],
        foreign=todo["foreign"],
        diff=[
            {
                "before_header": str(root / name),
                "after_header": str(root / name),
                "before": todo["before"][name],
                "after": files.get(name, ""),
            }
            for name in touched
        ],
    )


if __name__ == "__main__":
    main()
