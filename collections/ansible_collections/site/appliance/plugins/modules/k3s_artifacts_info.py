#!/usr/bin/python
# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the K3s files that were brought are whole, right for the node, and importable. Runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_artifacts_info
short_description: Check the K3s binary and image archives that were brought
description:
  - Reads the binary, the archives and the sha256sum files on the host it runs on (the controller) and reports
    everything that is wrong with them at once. Changes nothing.
options:
  binary:
    description: The K3s binary.
    type: path
    required: true
  checksums:
    description: Files in the form of C(sha256sum), as a K3s release brings them.
    type: list
    elements: path
    required: true
  images:
    description: Image archives for C(agent/images).
    type: list
    elements: path
    default: []
  architecture:
    description: The node's architecture as C(uname -m) says it.
    type: str
    required: true
author: [k3s-airgap-appliance authors (@k3s-airgap-appliance)]
"""

EXAMPLES = r"""
- name: Check what was brought
  site.appliance.k3s_artifacts_info:
    binary: /media/stick/k3s/k3s
    checksums: [/media/stick/k3s/sha256sum-amd64.txt]
    images: [/media/stick/k3s/k3s-airgap-images-amd64.tar.zst]
    architecture: x86_64
  delegate_to: localhost
"""

RETURN = r"""
problems:
  description: One line for each thing that is wrong, with a stable id; empty if all is well.
  type: list
  returned: always
binary_sha256:
  description: The binary's SHA-256.
  type: str
  returned: always
images:
  description: Name and SHA-256 of each archive.
  type: list
  returned: always
"""

import hashlib
import re
from pathlib import Path
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule

SUFFIXES = (".tar", ".tar.lz4", ".tar.bz2", ".tbz", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".txt")
# K3s's importer limits the memory of its zstd decoder to this.
ZSTD_WINDOW = 1 << 25
BINARY_NAMES = {"x86_64": "k3s", "aarch64": "k3s-arm64", "armv7l": "k3s-armhf"}
ELF_MACHINES = {62: "x86_64", 183: "aarch64", 40: "armv7l"}
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def line(code: str, what: str, where: str, why: str = "", fix: str = "") -> str:
    """One problem in the form of the appliance's errors."""
    text = f"{code}: {what} [{where}]"
    return text + (f": {why}" if why else "") + (f". {fix}" if fix else "")


def sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def parse_checksums(text: str) -> Dict[str, str]:
    """Base name to SHA-256 of the lines of a sha256sum file; other lines are skipped."""
    found = {}
    for row in text.splitlines():
        match = LINE.fullmatch(row.strip())
        if match:
            found[Path(match.group(2)).name] = match.group(1)
    return found


def zstd_window(head: bytes) -> Optional[int]:
    """Window size in bytes that a zstd frame asks for (RFC 8878, 3.1.1.1); None if the bytes are no zstd frame."""
    if head[:4] != b"\x28\xb5\x2f\xfd" or len(head) < 6:
        return None
    descriptor = head[4]
    if not descriptor & 0x20:
        exponent, mantissa = head[5] >> 3, head[5] & 7
        base = 1 << (10 + exponent)
        return base + (base // 8) * mantissa
    # A single segment has no window descriptor: its window is the content itself.
    start = 5 + (0, 1, 2, 4)[descriptor & 3]
    length = (1, 2, 4, 8)[descriptor >> 6]
    return int.from_bytes(head[start : start + length], "little") + (256 if length == 2 else 0)


def check_binary(path: Path, sums: Dict[str, str], where: str, architecture: str) -> Dict[str, Any]:
    """Digest of the binary and what is wrong with it."""
    problems: List[str] = []
    if not path.is_file():
        return {"sha256": "", "problems": [line("APL-0822", "the K3s binary is not there", str(path))]}
    digest = sha256(path)
    listed = [sums[name] for name in (path.name, BINARY_NAMES.get(architecture, "")) if name in sums]
    if not listed:
        name = BINARY_NAMES.get(architecture, path.name)
        problems.append(
            line(
                "APL-0822",
                f"no line for {path.name}",
                where,
                f"a K3s release calls the binary of {architecture} {name}",
            )
        )
    elif digest != listed[0]:
        problems.append(
            line(
                "APL-0821",
                "the K3s binary does not match its checksum",
                str(path),
                f"it is {digest}, {where} says {listed[0]}",
                "Bring the binary again; nothing was changed",
            )
        )
    with path.open("rb") as stream:
        head = stream.read(20)
    if head[:4] == b"\x7fELF" and len(head) == 20:
        machine = ELF_MACHINES.get(int.from_bytes(head[18:20], "little"), "another machine")
        if machine != architecture:
            problems.append(
                line(
                    "APL-0823",
                    "the K3s binary is for another architecture",
                    str(path),
                    f"it is for {machine}, the node is {architecture}",
                    "Set k3s_binary for this node or its group",
                )
            )
    return {"sha256": digest, "problems": problems}


def check_image(path: Path, sums: Dict[str, str], where: str) -> Dict[str, Any]:
    """Name and digest of one archive and what is wrong with it."""
    problems: List[str] = []
    if not path.is_file():
        return {"problems": [line("APL-0822", "the image archive is not there", str(path))]}
    if not path.name.endswith(SUFFIXES) or path.name.startswith("."):
        problems.append(
            line(
                "APL-0824",
                "K3s would not import this file",
                str(path),
                f"it imports {', '.join(SUFFIXES)} only",
            )
        )
    digest = sha256(path)
    if path.name in sums and sums[path.name] != digest:
        problems.append(
            line(
                "APL-0821",
                "the image archive does not match its checksum",
                str(path),
                f"it is {digest}, {where} says {sums[path.name]}",
                "Bring the archive again; nothing was changed",
            )
        )
    with path.open("rb") as stream:
        window = zstd_window(stream.read(18))
    if window is not None and window > ZSTD_WINDOW and path.name.endswith((".zst", ".tzst")):
        problems.append(
            line(
                "APL-0824",
                "K3s would not import this file",
                str(path),
                f"its zstd window is {window} bytes, K3s takes {ZSTD_WINDOW}",
                "Compress it with zstd --long=25 or less",
            )
        )
    return {"name": path.name, "path": str(path), "sha256": digest, "problems": problems}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "binary": {"type": "path", "required": True},
            "checksums": {"type": "list", "elements": "path", "required": True},
            "images": {"type": "list", "elements": "path", "default": []},
            "architecture": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    problems: List[str] = []
    sums: Dict[str, str] = {}
    where = ", ".join(module.params["checksums"]) or "k3s_checksums"
    try:
        for name in module.params["checksums"]:
            if Path(name).is_file():
                sums.update(parse_checksums(Path(name).read_text(encoding="utf-8", errors="replace")))
            else:
                problems.append(line("APL-0822", "the file of checksums is not there", name))
        binary = check_binary(Path(module.params["binary"]), sums, where, module.params["architecture"])
        images = [check_image(Path(item), sums, where) for item in module.params["images"]]
    except OSError as error:
        module.fail_json(msg=f"APL-0822: cannot be read [{error.filename}]: {error.strerror or error}")
    for found in [binary, *images]:
        problems.extend(found["problems"])
    names = [found["name"] for found in images if "name" in found]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(line("APL-0824", f"two image archives are called {name}", "k3s_airgap_images"))
    module.exit_json(
        changed=False,
        problems=problems,
        binary_sha256=binary["sha256"],
        images=[{key: found[key] for key in ("name", "path", "sha256")} for found in images if "name" in found],
    )


if __name__ == "__main__":
    main()
