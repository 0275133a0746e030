"""Fingerprint of a source: tells whether a file or layout is still the one that an earlier run read and verified.

It is no proof of the content: what is published is what the earlier run hashed and stored. It only decides whether the
medium has to be read again. A changed byte in the middle of a file, with size and time of change kept, is not noticed
here, and does no harm: the verified bytes are in the store already.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from appliance.archives.checksums import checksum_files
from appliance.archives.medium import Medium
from appliance.errors import ApplianceError

_SAMPLE = 64 << 10
"""Bytes hashed at the beginning and at the end of each file. The end holds the checksum of every compressed format."""
_DOCUMENTS = frozenset({"oci-layout", "index.json", "manifest.json"})


def fingerprint(medium: Medium, path: Path, *, deep: bool) -> str | None:
    """Return what identifies a source, or None where its files cannot be looked at.

    :param path: a file, a part of an archive in parts, or the directory of a layout.
    :param deep: whether the source is read with unpacked layers; another reading has another fingerprint.
    """
    state = hashlib.sha256(f"{path}\n{deep}\n".encode(errors="surrogateescape"))
    try:
        if medium.is_directory(path):
            for name, file in medium.files(path):
                state.update(_status(name, file))
                if name in _DOCUMENTS:
                    state.update(_sample(medium, path / name))
        else:
            parts = medium.parts(path)
            for part in parts:
                state.update(_sample(medium, part))
            for beside in checksum_files(parts):
                if medium.has(beside):
                    state.update(_sample(medium, beside))
    except (ApplianceError, OSError):
        return None
    return state.hexdigest()


def _sample(medium: Medium, path: Path) -> bytes:
    handle = medium.open(path)
    try:
        file = os.fstat(handle)
        content = hashlib.sha256(os.pread(handle, _SAMPLE, 0))
        content.update(os.pread(handle, _SAMPLE, max(0, file.st_size - _SAMPLE)))
    finally:
        os.close(handle)
    return _status(path.name, file) + content.digest()


def _status(name: str, file: os.stat_result) -> bytes:
    # No inode and no device: FAT numbers its files anew at each mount.
    kind = stat.S_IFMT(file.st_mode)
    return f"{name}\n{kind} {file.st_size} {file.st_mtime_ns}\n".encode(errors="surrogateescape")
