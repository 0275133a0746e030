"""Interface by which the registry gets blobs that other nodes hold.

Without Flask, which the command line would load for nothing whenever it asks the agent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from appliance.web.streaming import BlobSource


class Unreachable(Exception):
    """A blob the site knows cannot be had now; the text says why."""


class Fetcher(Protocol):
    """Gets blobs that other nodes hold."""

    def source(self, digest: str, size: int, start: int, *, suspect: bool = False) -> BlobSource:
        """Bytes of a blob from ``start`` on; returns when the first is at hand, raises :class:`Unreachable`.

        :param suspect: hash what lies here before any byte of it counts.
        """
        ...

    def mend(self, digest: str, size: int) -> None:
        """Bring back a manifest that is lost or damaged here; returns when it is, raises :class:`Unreachable`."""
        ...

    def suspect(self, digest: str) -> None:
        """Take note that a blob cannot be read; returns at once."""
        ...


class NoFetcher:
    """For a store without a site, and for what other nodes ask: what is not here cannot be had.

    :param suspect: told of a blob that cannot be read.
    """

    def __init__(self, suspect: Callable[[str], None] = lambda digest: None) -> None:
        self.suspect = suspect

    def source(self, digest: str, size: int, start: int, *, suspect: bool = False) -> BlobSource:
        """Always unreachable."""
        raise Unreachable("this store has no peers to fetch it from")

    def mend(self, digest: str, size: int) -> None:
        """Always unreachable."""
        raise Unreachable("this store has no peers to fetch it from")
