#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Small files and their directories, in one call to the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: text_files
short_description: Write several small files, and make their directories, in one call
description:
  - Does for several files what M(ansible.builtin.copy) with C(content) and M(ansible.builtin.file) do for one each. Every call
    of a module costs a host a third of a second of processor time (ansible-core 2.19), and a copy takes two of them.
  - Directories come first, then files in the order of the list, each by a rename, then I(absent).
options:
  directories:
    description: Directories that have to be there.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The directory., type: path, required: true}
      owner: {description: Its owner., type: str, default: root}
      group: {description: Its group., type: str, default: root}
      mode: {description: "Its permissions, as an octal string.", type: str, default: "0755"}
  files:
    description: Files that have to be there.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The file., type: path, required: true}
      content: {description: Its text., type: str, required: true}
      owner: {description: Its owner., type: str, default: root}
      group: {description: Its group., type: str, default: root}
      mode: {description: "Its permissions, as an octal string.", type: str, default: "0644"}
      replace: {description: Whether a file that is there gets this text., type: bool, default: true}
  absent:
    description: Files that have to be gone.
    type: list
    elements: path
    default: []
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
"""

EXAMPLES = r"""
- name: Write the unit and what it runs
  site.appliance.text_files:
    directories:
      - {path: /usr/local/lib/appliance}
    files:
      - {path: /usr/local/lib/appliance/program, content: "#!/bin/sh\n", mode: "0755"}
      - {path: /etc/systemd/system/program.service, content: "[Service]\n"}
"""

RETURN = r"""
written:
  description: Files whose text was or would be written.
  type: list
  returned: always
present:
  description: Files of the list that are there now; in check mode, those that were there.
  type: list
  returned: always
"""

import os
import tempfile
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule

_OWNED: Dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
}


def read(path: str) -> Optional[bytes]:
    """Return what a file holds; None where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


class Files:
    """Changes to files of a host, and the report of them."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self.changed = False
        self.written: List[str] = []
        self.diff: List[Dict[str, str]] = []

    def directory(self, item: Dict[str, Any]) -> None:
        """Make a directory, and give it its owner and permissions."""
        if not os.path.isdir(item["path"]):
            self.changed = True
            if self._module.check_mode:
                return
            os.makedirs(item["path"], mode=0o700)
        self._own(item)

    def file(self, item: Dict[str, Any]) -> None:
        """Write a file where its text differs, and give it its owner and permissions."""
        path, content = item["path"], item["content"].encode("utf-8", "surrogateescape")
        before = read(path)
        if before is None or (item["replace"] and before != content):
            self.changed = True
            self.written.append(path)
            self._differs(path, before, item["content"])
            if self._module.check_mode:
                return
            self._write(path, content)
        self._own(item)

    def absent(self, path: str) -> None:
        """Remove a file."""
        before = read(path)
        if before is None:
            return
        self.changed = True
        self._differs(path, before, "")
        if not self._module.check_mode:
            os.unlink(path)

    def _write(self, path: str, content: bytes) -> None:
        handle, temporary = tempfile.mkstemp(prefix=".new-", dir=os.path.dirname(path))
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # It keeps the SELinux label that the place has.
            self._module.atomic_move(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)

    def _own(self, item: Dict[str, Any]) -> None:
        arguments = self._module.load_file_common_arguments(item, path=item["path"])
        self.changed = self._module.set_fs_attributes_if_different(arguments, self.changed)

    def _differs(self, path: str, before: Optional[bytes], after: str) -> None:
        text = (before or b"").decode("utf-8", "surrogateescape")
        self.diff.append({"before_header": path, "after_header": path, "before": text, "after": after})


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {**_OWNED, "mode": {"type": "str", "default": "0755"}},
            },
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    **_OWNED,
                    "mode": {"type": "str", "default": "0644"},
                    "content": {"type": "str", "required": True},
                    "replace": {"type": "bool", "default": True},
                },
            },
            "absent": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    done = Files(module)
    listed = [item["path"] for item in module.params["files"]]
    there = [path for path in listed if os.path.exists(path)]
    where = ""
    try:
        for item in module.params["directories"]:
            where = item["path"]
            done.directory(item)
        for item in module.params["files"]:
            where = item["path"]
            done.file(item)
        for where in module.params["absent"]:
            done.absent(where)
    except OSError as error:
        module.fail_json(msg=f"{where}: {error.strerror or error}")
    module.exit_json(
        changed=done.changed,
        written=done.written,
        present=there if module.check_mode else listed,
        diff=done.diff,
    )


if __name__ == "__main__":
    main()
