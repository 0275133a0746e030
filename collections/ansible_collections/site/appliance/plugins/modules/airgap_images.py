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
  - With I(stage=true) it only makes the staging directory and says which archives have to be copied there (C(needed)).
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
  stage:
    description: Make the staging directory if something has to be copied there (C(needed)), and do no more.
    type: bool
    default: false
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

import os
import time
from pathlib import Path
from typing import Dict, List

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.site.appliance.plugins.module_utils.directories import make_directory
from ansible_collections.site.appliance.plugins.module_utils.image_archives import (
    load_manifest,
    save_manifest,
    sha256,
)


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
            "stage": {"type": "bool", "default": False},
            "cache": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    directory, staging = Path(module.params["directory"]), Path(module.params["staging"])
    manifest = Path(module.params["manifest"])
    wanted: Dict[str, str] = {item["name"]: item["sha256"] for item in module.params["images"]}
    try:
        needed = [name for name, digest in sorted(wanted.items()) if sha256(directory / name) != digest]
        if module.params["stage"]:
            missing = bool(needed) and not staging.is_dir()
            if missing and not module.check_mode:
                make_directory(staging, 0o700)
            module.exit_json(changed=missing, needed=needed, removed=[])
        before = load_manifest(manifest)
        removed: List[str] = [name for name in before if name not in wanted and (directory / name).exists()]
        cache = directory / ".cache.json"
        new_cache = module.params["cache"] and bool(wanted) and not cache.exists()
        changed = bool(needed or removed or new_cache or sorted(wanted) != sorted(before))
        if changed and not module.check_mode:
            broken = [name for name in needed if sha256(staging / name) != wanted[name]]
            if broken:
                module.fail_json(
                    msg=f"APL-0821: the image archive did not arrive whole [{staging / broken[0]}]. Run it again"
                )
            make_directory(directory)
            make_directory(manifest.parent)
            # The manifest comes first: a name without a file is harmless, a file without a name would stay for ever.
            save_manifest(manifest, sorted({*before, *wanted}))
            if new_cache:
                cache.touch(mode=0o600)
            for name in needed:
                place(staging / name, directory / name, time.time())
            for name in removed:
                (directory / name).unlink()
            save_manifest(manifest, sorted(wanted))
        if staging.is_dir() and not module.check_mode:
            for left in staging.iterdir():
                left.unlink()
            staging.rmdir()
    except OSError as error:
        module.fail_json(msg=f"{error.filename or directory}: {error.strerror or error}")
    module.exit_json(changed=changed, needed=needed, removed=removed)


if __name__ == "__main__":
    main()
