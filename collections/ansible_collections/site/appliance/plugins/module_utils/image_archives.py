# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""What role k3s remembers about the image archives that it placed on a node."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import List


def sha256(path: Path) -> str:
    """SHA-256 of a file, empty where there is none."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""
    return digest.hexdigest()


def load_manifest(path: Path) -> List[str]:
    """Names that were placed earlier; an absent or broken manifest counts as empty."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["images"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if isinstance(name, str) and Path(name).name == name]


def save_manifest(path: Path, names: List[str]) -> None:
    """Remember names, by a rename."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps({"images": sorted(names)}) + "\n", encoding="utf-8")
    temporary.replace(path)
