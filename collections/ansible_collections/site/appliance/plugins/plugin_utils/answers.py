# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Answers to the question whether a plan is to be carried out."""

from __future__ import annotations

import enum

TRIES = 3
"""Times that an answer may be neither yes nor no."""


class Answer(enum.Enum):
    """Answer of the operator; the value says why the plan is not carried out."""

    YES = ""
    NO = "the answer was no"
    UNCLEAR = f"none of {TRIES} answers was yes or no"
    NO_TERMINAL = "there is no terminal to ask at"
    STOPPED = "you stopped the run at the question"


def understood(given: str) -> Answer | None:
    """Return what an answer means, in any case of letters; None for anything but yes and no."""
    word = given.strip().lower()
    if word in ("y", "yes"):
        return Answer.YES
    return Answer.NO if word in ("n", "no") else None


def refusal(answer: Answer, kept: str) -> str:
    """Return the error of a plan that was not agreed to.

    :param kept: what stays for the next run; may be empty.
    """
    what_next = "Run again and answer yes, or agree beforehand with -e confirm=yes."
    return " ".join(
        part
        for part in (
            f"APL-0770: the plan was not confirmed: {answer.value}.",
            "Nothing was changed on any host.",
            kept,
            what_next,
        )
        if part
    )
