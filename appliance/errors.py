"""Every error the appliance raises on purpose: what happened, where, why, and what to do next.

One class carries them all; the stable id (``APL-0107``) names the runbook page ``docs/runbooks/APL-0107.md``.
A test holds the ids in the code and the pages against each other.
"""

from __future__ import annotations

import errno
from typing import Any, NoReturn

from appliance.words import one_line


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
        text = f"{self.code}: {one_line(self.what)}"
        if self.where:
            text += f" [{one_line(self.where)}]"
        if self.why:
            text += f": {one_line(self.why)}"
        if self.fix:
            text += f". {one_line(self.fix)}"
        return text

    def within(self, place: str) -> ApplianceError:
        """Return the same error with a place in front of its own, unless it names that place already."""
        if self.where.startswith(place):
            return self
        where = f"{place}: {self.where}" if self.where else place
        return type(self)(self.code, self.what, where=where, why=self.why, fix=self.fix)

    def as_dict(self) -> dict[str, Any]:
        """The same as a mapping of strings, for ``--json`` output and log records."""
        return {"code": self.code, "what": self.what, "where": self.where, "why": self.why, "fix": self.fix}


class NotAnImageArchive(ApplianceError):
    """A file that begins as an archive may, and is none of images.

    It is an error where the operator, or the name of the file, says that it is an image archive.
    """


def system_error(error: OSError, where: str = "", what: str = "the operating system refused") -> ApplianceError:
    """Return the error for what the operating system refused: APL-0310 for a full disk, APL-0311 for everything else.

    :param where: what it was refused for; the file that the system names, where it is empty.
    """
    why = error.strerror or str(error)
    where = where or ("" if error.filename is None else str(error.filename))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        fix = "Free space there, then run the same again"
        return ApplianceError("APL-0310", "not enough room in the store", where=where, why=why, fix=fix)
    fixes = {
        errno.EROFS: "Its file system is mounted read-only, mostly after an error of the disk: see dmesg and findmnt -T",
        errno.EACCES: "Run this as root; 'ls -ld' there says who may write",
        errno.EPERM: "Run this as root; 'ls -ld' there says who may write",
        errno.EIO: "The disk fails: see dmesg and smartctl",
    }
    return ApplianceError("APL-0311", what, where=where, why=why, fix=fixes.get(error.errno or 0, ""))


def fail(code: str, what: str, *, where: str = "", why: str = "", fix: str = "") -> NoReturn:
    """Raise :class:`ApplianceError` with these words."""
    raise ApplianceError(code, what, where=where, why=why, fix=fix)
