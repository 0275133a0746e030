"""Every error the appliance raises on purpose: what happened, where, why, and what to do next.

One class carries them all; the stable id (``APL-0107``) names the runbook page ``docs/runbooks/APL-0107.md``.
A test holds the ids in the code and the pages against each other.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls of terminals (ECMA-48), what turns the direction of writing (UAX #9), and what UTF-8 cannot write."""


class ApplianceError(Exception):
    """An error with a stable id, meant for the operator's eyes.

    :param code: stable id, ``APL-`` and four digits.
    :param what: what happened, one clause.
    :param where: file, host or address it happened at; may be empty.
    :param why: the cause as far as it is known; may be empty.
    :param fix: what to do next; may be empty.
    """

    def __init__(self, code: str, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        """One line: id, what, where, why, and what to do.

        Archives and requests choose a part of these words; escaped, they move no cursor and begin no line of a log.
        """
        text = f"{self.code}: {self.what}"
        if self.where:
            text += f" [{self.where}]"
        if self.why:
            text += f": {self.why}"
        if self.fix:
            text += f". {self.fix}"
        return printable(text)

    def as_dict(self) -> dict[str, Any]:
        """The same as a mapping of strings, for ``--json`` output and log records."""
        return {"code": self.code, "what": self.what, "where": self.where, "why": self.why, "fix": self.fix}


def printable(text: str) -> str:
    """A text with what moves a cursor, or cannot be written in UTF-8, as escapes of Python."""
    return _UNPRINTABLE.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def fail(code: str, what: str, *, where: str = "", why: str = "", fix: str = "") -> NoReturn:
    """Raise :class:`ApplianceError` with these words."""
    raise ApplianceError(code, what, where=where, why=why, fix=fix)
