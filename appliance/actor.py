"""The person behind a command, for the audit log."""

from __future__ import annotations

import functools
import os
import pwd
from collections.abc import Callable, Mapping
from pathlib import Path

_LONGEST = 200
_NOBODY = 2**32 - 1
"""The login uid of a process that no login led to: a service, an early boot."""


@functools.cache
def actor() -> str:
    """Return who runs this process. The first answer is kept, so ask before the process gives its rights up."""
    return who(os.environ, os.getuid(), _login(), _name)


def who(environ: Mapping[str, str], uid: int, login: int | None, name: Callable[[int], str]) -> str:
    """Return the person's name.

    :param environ: ``APPLIANCE_BY`` (a playbook says who runs it) and ``SUDO_USER``; believed where root calls, for
        anybody else could write there what they like.
    :param uid: the user of the process.
    :param login: the user who logged in, whoever they became since; None where that is not known.
    :param name: gives a user's name.
    """
    said = (environ.get("APPLIANCE_BY") or environ.get("SUDO_USER")) if uid == 0 else None
    return said[:_LONGEST] if said else name(uid if login is None else login)


def _login() -> int | None:
    try:
        login = int(Path("/proc/self/loginuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if login == _NOBODY else login


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
