"""Times as text: ISO 8601, in UTC, to the second."""

from __future__ import annotations

import datetime


def now() -> str:
    """This moment, as this node's clock has it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def utc_text(seconds: float) -> str:
    """Return a time, given in seconds since 1970, as text in ISO 8601."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="seconds")


def parse_time(text: str) -> datetime.datetime:
    """Read a time of ISO 8601: ``2026-01-02``, ``2026-01-02T03:04:05Z``; one without an offset is in UTC.

    :raises ValueError: for anything else.
    """
    # Python 3.10 does not read the Z of RFC 3339.
    text = text.strip()
    found = datetime.datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text)
    return found if found.tzinfo else found.replace(tzinfo=datetime.timezone.utc)
