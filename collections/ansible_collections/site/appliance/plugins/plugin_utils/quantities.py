# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Parts, rates and durations as text for people."""

from __future__ import annotations

from ansible_collections.site.appliance.plugins.plugin_utils.sizes import size_words


def part_text(part: float, whole: float) -> str:
    """Return how much of how much, such as ``12.3 of 64.0 GiB``."""
    number, unit = _scaled(part)
    total, total_unit = _scaled(whole)
    return f"{number} of {total} {unit}" if unit == total_unit else f"{number} {unit} of {total} {total_unit}"


def rate_text(rate: float) -> str:
    """Return a number of bytes per second, such as ``31 MiB/s``."""
    number, unit = _scaled(rate)
    return f"{float(number):.0f} {unit}/s" if float(number) >= 10 else f"{number} {unit}/s"


def duration_text(seconds: float) -> str:
    """Return a duration in the one or two units that matter, such as ``28 min`` or ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _scaled(size: float) -> tuple[str, str]:
    number, _, unit = size_words(size).partition(" ")
    return number, unit
