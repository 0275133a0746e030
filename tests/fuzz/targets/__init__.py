"""The targets: one module each, with ``run``, a function of bytes that returns where everything holds.

``WORDS`` of a module are what its grammar is made of, for the engine to put together.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

NAMES = ("names", "ranges", "documents", "requests", "uploads", "pushes", "streams", "tars", "media", "peers")


def load(name: str) -> Callable[[bytes], None]:
    """The function of a target."""
    run: Callable[[bytes], None] = importlib.import_module(f"{__name__}.{name}").run
    return run


def words(name: str) -> tuple[bytes, ...]:
    """Its dictionary."""
    found: tuple[str | bytes, ...] = getattr(importlib.import_module(f"{__name__}.{name}"), "WORDS", ())
    return tuple(word.encode() if isinstance(word, str) else word for word in found)
