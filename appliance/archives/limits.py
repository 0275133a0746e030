"""Limits on what an archive may cost."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Caps on hostile archives; sizes in bytes.

    :param json_bytes: ``index.json``, ``manifest.json`` and their like, each (containerd's limit).
    :param manifest_bytes: one manifest, index or config.
    :param depth: indexes within indexes.
    :param descriptors: descriptors walked in one archive.
    :param entries: members of one tar.
    :param total_bytes: everything in one archive, after decompression.
    :param ratio: decompressed bytes for each compressed one, counted once ``ratio_after`` bytes came out.
    :param ratio_after: see ``ratio``.
    :param window: largest memory window of a compressed stream (zstd and xz).
    """

    json_bytes: int = 20 * MIB
    manifest_bytes: int = 4 * MIB
    depth: int = 4
    descriptors: int = 100_000
    entries: int = 100_000
    total_bytes: int = 200 * 1024 * MIB
    ratio: int = 200
    ratio_after: int = 100 * MIB
    window: int = 128 * MIB
