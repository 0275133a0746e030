#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Image archives in K3s's agent/images, put there so that its importer never sees half a file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: airgap_images
short_description: Put image archives into K3s's agent/images
description:
  - K3s imports a file two seconds after it appears, whether it is complete or not, and compares whole seconds of its
    time with those it remembers. So archives are staged outside the watched directory on the same file system, get an
    integral time that is newer than what they replace, and are moved into place.
  - With I(place=false) it only says which archives have to be staged (C(needed)).
  - Archives that this module placed earlier and that are not asked for any more are removed; others are left alone.
options:
  directory:
    description: K3s's directory of image archives.
    type: path
    required: true
  staging:
    description: Where the archives were copied to; on the same file system, outside I(directory).
    type: path
    required: true
  manifest:
    description: The file in which this module remembers what it placed.
    type: path
    required: true
  images:
    description: Name and SHA-256 of each archive.
    type: list
    elements: dict
    required: true
  place:
    description: Whether to act, or only to say what would have to be staged.
    type: bool
    default: true
  cache:
    description: Whether K3s may remember what it imported (an empty C(.cache.json) is made where there is none).
    type: bool
    default: true
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
"""

EXAMPLES = r"""
- name: Place the archives
  site.appliance.airgap_images:
    directory: /var/lib/rancher/k3s/agent/images
    staging: /var/lib/rancher/k3s/agent/.appliance-images
    manifest: /etc/appliance/k3s-images.json
    images:
      - {name: k3s-airgap-images-amd64.tar.zst, sha256: "..."}
"""

RETURN = r"""
needed:
  description: Archives that are not in place with the right content.
  type: list
  returned: always
removed:
  description: Archives of ours that were or would be removed.
  type: list
  returned: always
"""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Dict, List

from ansible.module_utils.basic import AnsibleModule


def sha256(path: Path) -> str:
    """SHA-256 of a file, empty where there is none."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    except FileNotFoundError:
        return ""
    return digest.hexdigest()


def load_manifest(path: Path) -> List[str]:
    """Names that were placed earlier; an absent or broken manifest counts as empty."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["images"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if isinstance(name, str) and Path(name).name == name]


def integral_mtime(replaced: Path, now: float) -> int:
    """Whole seconds, newer than the file that is replaced even if the clock is behind it."""
    try:
        return max(int(now), int(replaced.stat().st_mtime) + 1)
    except FileNotFoundError:
        return int(now)


def place(staged: Path, target: Path, now: float) -> None:
    """Move one staged archive to its place."""
    seconds = integral_mtime(target, now)
    os.utime(staged, (seconds, seconds))
    staged.chmod(0o600)
    with staged.open("rb") as stream:
        os.fsync(stream.fileno())
    staged.replace(target)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "staging": {"type": "path", "required": True},
            "manifest": {"type": "path", "required": True},
            "images": {"type": "list", "elements": "dict", "required": True},
            "place": {"type": "bool", "default": True},
            "cache": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    directory, staging = Path(module.params["directory"]), Path(module.params["staging"])
    manifest = Path(module.params["manifest"])
    wanted: Dict[str, str] = {item["name"]: item["sha256"] for item in module.params["images"]}
    acting = module.params["place"] and not module.check_mode
    removed: List[str] = []
    changed = False
    try:
        needed = [name for name, digest in sorted(wanted.items()) if sha256(directory / name) != digest]
        if module.params["place"]:
            before = load_manifest(manifest)
            removed = [name for name in before if name not in wanted and (directory / name).exists()]
            cache = directory / ".cache.json"
            new_cache = module.params["cache"] and bool(wanted) and not cache.exists()
            new_manifest = sorted(wanted) != before
            changed = bool(needed or removed or new_cache or new_manifest)
        if acting and changed:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            for name in needed:
                if sha256(staging / name) != wanted[name]:
                    module.fail_json(
                        msg=f"APL-0821: the image archive did not arrive whole [{staging / name}]. Run it again",
                    )
            # The manifest comes first: a name without a file is harmless, a file without a name would stay for ever.
            if new_manifest:
                manifest.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                temporary = manifest.with_name(f".{manifest.name}.new")
                temporary.write_text(json.dumps({"images": sorted(set(before) | set(wanted))}) + "\n", encoding="utf-8")
                temporary.replace(manifest)
            if new_cache:
                cache.touch(mode=0o600)
            for name in needed:
                place(staging / name, directory / name, time.time())
            for name in removed:
                (directory / name).unlink()
            if new_manifest:
                temporary.write_text(json.dumps({"images": sorted(wanted)}) + "\n", encoding="utf-8")
                temporary.replace(manifest)
        if acting and staging.is_dir():
            for left in staging.iterdir():
                left.unlink()
            staging.rmdir()
    except OSError as error:
        module.fail_json(msg=f"{error.filename or directory}: {error.strerror or error}")
    module.exit_json(changed=changed, needed=needed, removed=removed)


if __name__ == "__main__":
    main()
