#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""What the store of a node serves, read from its files; the appliance need not be installed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: served_info
short_description: Read which generation and which index of pushes a node's store serves
description:
  - Reads C(index.json) and C(pushes.json) of the store, and hashes I(files). Changes nothing.
options:
  store:
    description: Directory of the store.
    type: path
    required: true
  files:
    description: Further files whose SHA-256 is returned.
    type: list
    elements: path
    default: []
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
"""

EXAMPLES = r"""
- name: See what the node serves
  site.appliance.served_info:
    store: /var/lib/appliance
"""

RETURN = r"""
generation:
  description: C(number) and C(digest) of the generation; null where there is none.
  type: dict
  returned: always
pushes:
  description: The same of the index of pushes.
  type: dict
  returned: always
files:
  description: Path to SHA-256 of each of I(files); a directory has C(directory), what is not there the empty string.
  type: dict
  returned: always
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, Optional

from ansible.module_utils.basic import AnsibleModule

PREFIX = "vnd.k3s-airgap-appliance."


def read_index(path: Path, annotation: str) -> Optional[Dict[str, Any]]:
    """Number and digest of an index; None where there is none, or the empty one of a fresh store.

    :raises ValueError: for what is no index.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    said = json.loads(raw)
    number = (said.get("annotations") or {}).get(PREFIX + annotation) if isinstance(said, dict) else "none"
    if number is None:
        return None
    return {"number": int(number), "digest": "sha256:" + hashlib.sha256(raw).hexdigest()}


def hash_file(path: Path) -> str:
    """SHA-256 in hexadecimal."""
    if path.is_dir():
        return "directory"
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                hasher.update(chunk)
    except FileNotFoundError:
        return ""
    return hasher.hexdigest()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "store": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    store = Path(module.params["store"])
    found: Dict[str, Any] = {}
    for key, name, annotation in (("generation", "index.json", "generation"), ("pushes", "pushes.json", "pushes")):
        try:
            found[key] = read_index(store / name, annotation)
        except (OSError, ValueError, AttributeError) as error:
            module.fail_json(msg="APL-0873: what the store serves cannot be read [%s]: %s" % (store / name, error))
    try:
        files = {path: hash_file(Path(path)) for path in module.params["files"]}
    except OSError as error:
        module.fail_json(msg="%s: %s" % (error.filename, error.strerror or error))
    module.exit_json(changed=False, files=files, **found)


if __name__ == "__main__":
    main()
