"""Replaying waits for no disk either; see ``tests/unit/conftest.py``."""

from __future__ import annotations

from tests.unit.conftest import no_waiting_for_the_disk

__all__ = ["no_waiting_for_the_disk"]
