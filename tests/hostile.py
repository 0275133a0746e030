"""Words as a stranger may choose them, and what must be left of them where people read."""

from __future__ import annotations

import unicodedata

_ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}

FORGED = "\nNov 30 06:00:00 node-a appliance: all is well"
"""A line that would look like the program's own."""
HOSTILE = (
    f"x{FORGED}\r\x1b[2J\x1b]0;t\x07\x9b1m\x7f\x85\u2028\u2029\u202egnp.\u2066\u200b\ufeff\U000e0041{{{{ 6 * 7 }}}}"
)
"""Line breaks of all kinds, controls of terminals, directions of writing, what is not seen, and a template."""
UNWRITABLE = HOSTILE + "\udcff"
"""The same with a byte that is no UTF-8, as file names have it."""


def acting(text: str) -> list[str]:
    """Return the characters of a text that act instead of being shown, but for line breaks."""
    return [char for char in text if char != "\n" and unicodedata.category(char) in _ACTING]


def assert_harmless(text: str) -> None:
    """Hold a text of a program to what it may show: nothing acts, and no stranger began a line of it."""
    assert acting(text) == [], text
    assert FORGED not in text
    assert "\\n" in text, "the hostile word is not in it"
