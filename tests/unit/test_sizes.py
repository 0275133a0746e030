"""Sizes for people: one form everywhere, also in the collection, which cannot import the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.site.appliance.plugins.plugin_utils import sizes as collection
from hypothesis import given
from hypothesis import strategies as st

import appliance.cli
from appliance.sizes import size_words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (5 << 20, "5.0 MiB"),
        (20 << 30, "20.0 GiB"),
        (3 << 40, "3.0 TiB"),
        (5000 << 40, "5000.0 TiB"),
    ],
)
def test_a_size_has_one_decimal_and_the_largest_unit_that_it_fills(count: int, words: str) -> None:
    assert size_words(count) == words


@given(st.integers(min_value=0, max_value=1 << 60))
def test_the_collection_writes_sizes_as_the_package_does(count: int) -> None:
    assert collection.size_words(count) == size_words(count)
    assert re.fullmatch(r"\d{1,4} B|\d{1,3}\.\d [KMG]iB|10[0-2]\d\.\d [KMG]iB|\d+\.\d TiB", size_words(count))


@pytest.mark.parametrize("file", sorted(Path(appliance.cli.__file__).parent.glob("*.py")), ids=lambda file: file.stem)
def test_no_command_prints_sizes_as_bare_bytes(file: Path) -> None:
    assert re.findall(r"\{[^{}]+\} bytes|_bytes'\]\}", file.read_text(encoding="utf-8")) == []
