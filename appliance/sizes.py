"""Sizes for people, such as 1.5 GiB. JSON has bytes."""

from __future__ import annotations


def size_words(count: float) -> str:
    """Return a number of bytes with a unit of 1024: ``512 B``, ``1.5 KiB``, ``20.0 GiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        # What rounds to 1024.0 of a unit is 1.0 of the next.
        if count < 1023.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"
