"""What holds for every target: a deliberate error is one plain line with a known id."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from appliance.errors import ApplianceError
from tests.hostile import acting

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
_PAGES = {page.stem for page in (ROOT / "docs" / "runbooks").glob("APL-*.md")}
_LINE_LIMIT = 12_000


def plain(text: str) -> None:
    """Text for an operator's terminal: one line, no control characters, of a bearable length."""
    assert acting(text) == [] and "\n" not in text, f"not one plain line: {text[:300]!r}"
    assert len(text) <= _LINE_LIMIT, f"a line of {len(text)} characters: {text[:300]!r}"


def known(error: ApplianceError) -> None:
    """The error has a runbook page, and can be printed and sent as it is."""
    assert error.code in _PAGES, error.code
    plain(str(error))
    json.dumps(error.as_dict()).encode()


def attempt(call: Callable[[], T]) -> T | None:
    """What a reader makes of its input, None where it refuses it in the one way that it may."""
    try:
        return call()
    except ApplianceError as error:
        known(error)
        return None
