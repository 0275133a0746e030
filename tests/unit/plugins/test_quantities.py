"""Sizes, rates and durations for people."""

from __future__ import annotations

import pytest
from ansible_collections.site.appliance.plugins.plugin_utils import quantities, sizes


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (12_900_000, "12.3 MiB"), (64 * 1024**3, "64.0 GiB"), (3 * 1024**5, "3072.0 TiB")],
)
def test_sizes(size: int, text: str) -> None:
    assert sizes.size_words(size) == text


def test_a_part_names_the_unit_once_where_both_have_it() -> None:
    gib = 1024**3
    assert quantities.part_text(12.3 * gib, 64 * gib) == "12.3 of 64.0 GiB"
    assert quantities.part_text(300 * 1024**2, 64 * gib) == "300.0 MiB of 64.0 GiB"


def test_rates() -> None:
    assert quantities.rate_text(31.4 * 1024**2) == "31 MiB/s"
    assert quantities.rate_text(1.25 * 1024**2) == "1.2 MiB/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (1680, "28 min"), (7500, "2 h 5 min"), (3599, "1 h 0 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert quantities.duration_text(seconds) == text
