# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Sentence at the end of a run: what changed, what is true, what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

_SHOWN = 8
_AGAIN = re.compile(r" Run it again[^.]*\.")
_PARTLY = "What was done stays done."
_NOTHING = "Nothing was changed on any host."


class Outcome(NamedTuple):
    """Statements that ``site.appliance.outcome`` made last.

    :param stopped: what is true where the run stops from here on.
    :param switched: what is true instead, where a job that was stopped had done its work.
    :param ends: what a run that ends well has to say.
    :param checked: the same for check mode.
    """

    stopped: str = ""
    switched: str = ""
    ends: str = ""
    checked: str = ""

    def updated(self, stated: Mapping[str, Any]) -> Outcome:
        """Return these statements, replaced by newer ones where there are any."""
        return Outcome(*(str(stated.get(name) or getattr(self, name)) for name in self._fields))


def success(outcome: Outcome, changed: Sequence[str], *, is_check: bool) -> str:
    """Return the sentence for a run that ended well.

    :param changed: hosts on which something changed.
    """
    if is_check:
        return f"Check mode: nothing was changed. {outcome.checked or outcome.ends}".strip()
    what = f"Changed: {hosts_text(changed)}." if changed else "No node was changed."
    return f"{what} {outcome.ends}".strip()


def failure(
    outcome: Outcome, step: str, hosts: Sequence[str], changed: Sequence[str], ends: Iterable[Mapping[str, Any]]
) -> str:
    """Return the sentence for a run that was stopped by an error.

    :param step: the play that failed.
    :param hosts: hosts that failed or were lost.
    :param changed: hosts on which something had changed.
    :param ends: what is known of jobs that did not come to their end.
    """
    where = f" on {hosts_text(hosts)}" if hosts else ""
    truth = _truth(outcome, changed, ends)
    return f"Stopped at '{step}'{where}. {_AGAIN.sub('', truth)} Mend what is listed above, then run it again."


def refusal(outcome: Outcome) -> str:
    """Return the sentence for a plan that was not agreed to."""
    return f"The plan was not carried out. {outcome.stopped or _NOTHING}"


def interruption(outcome: Outcome, changed: Sequence[str], ends: Iterable[Mapping[str, Any]]) -> str:
    """Return the sentence for a run that the operator stopped."""
    truth = _truth(outcome, changed, ends)
    return f"Stopped by you. {truth}{'' if 'un it again' in truth else ' Run it again to finish.'}"


def hosts_text(hosts: Sequence[str]) -> str:
    """Return hosts as a list, a long one cut."""
    more = f" and {len(hosts) - _SHOWN} more" if len(hosts) > _SHOWN else ""
    return ", ".join(hosts[:_SHOWN]) + more


def _truth(outcome: Outcome, changed: Sequence[str], ends: Iterable[Mapping[str, Any]]) -> str:
    states = {end.get("changed") for end in ends}
    if True in states and outcome.switched:
        said = outcome.switched
    elif None in states:
        said = "A node was lost while it worked. It ends that work within 5 s, and goes on serving what it served."
    else:
        said = outcome.stopped or (_PARTLY if changed else _NOTHING)
    return f"{said} Changed so far: {hosts_text(changed)}." if changed else said
