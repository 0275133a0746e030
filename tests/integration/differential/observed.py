"""What one comparison says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Observed:
    """One field that differs in one request.

    :param request: ``pair:group/scenario:number method``, the number from 1.
    """

    request: str
    field: str
    theirs: str
    ours: str

    def __str__(self) -> str:
        return f"{self.request}: {self.field}: theirs {self.theirs!r}, ours {self.ours!r}"
