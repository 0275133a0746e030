"""Answers at the question."""

from __future__ import annotations

import pytest
from ansible_collections.site.appliance.plugins.plugin_utils.answers import Answer, refusal, understood


@pytest.mark.parametrize("given", ["y", "Y", "yes", "YES", " Yes\n"])
def test_a_yes_in_any_form(given: str) -> None:
    assert understood(given) is Answer.YES


@pytest.mark.parametrize("given", ["n", "No", "NO "])
def test_a_no_in_any_form(given: str) -> None:
    assert understood(given) is Answer.NO


@pytest.mark.parametrize("given", ["", "yess", "j", "y n", "yes please"])
def test_a_slip_is_neither(given: str) -> None:
    assert understood(given) is None


def test_a_refusal_says_what_stays_for_the_next_run() -> None:
    said = refusal(
        Answer.NO, "What was verified is kept on a until 2026-11-30 20:15 UTC: run it again and it asks at once."
    )
    assert said.startswith(
        "APL-0770: the plan was not confirmed: the answer was no. Nothing was changed on any host. What was"
    )
    assert said.endswith("Run again and answer yes, or agree beforehand with -e confirm=yes.")
