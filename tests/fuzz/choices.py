"""Reading a sequence of steps out of bytes, so that a state machine is a function of bytes as every target is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Bytes as a series of decisions; where they end, every further decision is the first one.

    :param data: what the engine made.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        """Whether there is anything left to decide by."""
        return self._at < len(self._data)

    def number(self, limit: int = 256) -> int:
        """A number below ``limit``, which is 256 at most."""
        value = self._data[self._at] if self.more else 0
        self._at += 1
        return value % limit

    def pick(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[self.number(len(options))]

    def flag(self) -> bool:
        """Yes or no; no at the end."""
        return self.number(2) == 1
