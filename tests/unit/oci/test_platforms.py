"""Platforms: spelling and what runs where."""

from __future__ import annotations

import pytest

from appliance.errors import ApplianceError
from appliance.oci.platforms import Platform, matches, parse_platform


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm"),
        ("linux/arm/v7", "linux/arm"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/armhf", "linux/arm"),
    ],
)
def test_parse(text: str, expected: str) -> None:
    assert str(parse_platform(text)) == expected
    assert parse_platform(expected) == parse_platform(text)


@pytest.mark.parametrize("text", ["", "linux/", "a/b/c/d", "linux/amd 64", "linux/am\nd"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ApplianceError, match="APL-0205"):
        parse_platform(text)


@pytest.mark.parametrize(
    ("have", "node", "runs"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/arm64", "linux/amd64", False),
        ("linux/386", "linux/amd64", False),
        ("windows/amd64", "linux/amd64", False),
        ("linux/arm/v6", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/arm", "linux/arm/v7", True),
        ("linux/amd64/v3", "linux/amd64", False),
        ("linux/amd64", "linux/amd64/v3", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm", "linux/arm64", False),
        ("linux/mips/odd", "linux/mips", False),
    ],
)
def test_matches(have: str, node: str, runs: bool) -> None:
    assert matches(parse_platform(have), parse_platform(node)) is runs


def test_attestations_run_nowhere() -> None:
    assert not Platform("unknown", "unknown").runnable
    assert not Platform("", "").runnable
    assert Platform("linux", "amd64").runnable
