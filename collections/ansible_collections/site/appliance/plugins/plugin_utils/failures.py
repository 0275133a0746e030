# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Failures of tasks as text: each once, with its hosts and the pages of the manual that explain it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

_ID = re.compile(r"\bAPL-\d{4}\b")
_WRAPPERS = re.compile(r"^(?:Task failed|Module failed|Action failed)(?:: |\. ?)", re.IGNORECASE)
_HEADING = re.compile(r"^Data could not be sent to remote host .*? over ssh: ")
_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b|(?<![\w:])[0-9a-fA-F]{1,4}:[0-9a-fA-F:]*:[0-9a-fA-F:]*")
_TAIL_LINES = 15
_PAGES = 6


class Failure(NamedTuple):
    """Report of one task for one host.

    :param host: the host, with the one that the task was delegated to; empty where it is about the whole site.
    :param task: name of the task.
    :param text: what went wrong.
    :param is_lost: whether the host could not be reached.
    :param where: file and line of the task.
    :param is_worded: whether the text was written for an operator, by ``fail`` or ``assert``.
    """

    host: str
    task: str
    text: str
    is_lost: bool = False
    where: str = ""
    is_worded: bool = False


def failure_text(result: Mapping[str, Any]) -> str:
    """Return what a failed result says to the operator.

    A message of the appliance stands alone. What any other command wrote is added: there is nothing else to judge by.
    """
    message = str(result.get("msg") or "").strip()
    while _WRAPPERS.match(message):
        message = _WRAPPERS.sub("", message, count=1)
    if _ID.search(message):
        return message
    parts = [message or "it failed without a message"]
    for name in ("stderr", "module_stderr", "stdout", "module_stdout"):
        said = str(result.get(name) or "").strip()
        if said:
            parts += said.split("\n")[-_TAIL_LINES:]
            break
    return "\n".join(parts)


def grouped(failures: Iterable[Failure]) -> list[tuple[list[str], Failure]]:
    """Return failures that say the same as one, with all their hosts.

    Where the only difference is that each text names its own host, or its address where it cannot be reached, they say the
    same too.
    """
    found: dict[tuple[str, str, bool], tuple[list[str], Failure]] = {}
    for failure in failures:
        host = failure.host.split(" ")[0]
        own = re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w.-])", "\0", failure.text) if host else failure.text
        own = _ADDRESS.sub("\0", own) if failure.is_lost else own
        key = (failure.task, own, failure.is_lost)
        found.setdefault(key, ([], failure))[0].append(failure.host)
    return list(found.values())


def failure_lines(hosts: Sequence[str], failure: Failure) -> list[str]:
    """Return the lines of one failure."""
    text = failure.text
    if failure.is_lost:
        reason = _one_line(_HEADING.sub("", text))
        reason = _ADDRESS.sub("ADDRESS", reason) if len(hosts) > 1 else reason
        return [
            f"APL-0779: {', '.join(hosts)} cannot be reached [{failure.task}]: {reason}.",
            "  See that the node is on and in the network, then run it again.",
            *_pages("APL-0779"),
        ]
    ids = list(dict.fromkeys(_ID.findall(text)))
    lines = text.split("\n")
    named = all(_names(text, host) for host in hosts)
    is_ours = bool(ids) or failure.is_worded
    head = "" if hosts == [""] or (named and is_ours) else f"{', '.join(hosts)}: "
    body = [f"{head}{lines[0]}" if is_ours else f"{head}{failure.task}: {lines[0]}"]
    body += [f"  {line}".rstrip() for line in lines[1:]]
    if not is_ours:
        body.append(f"  Add -v to see all of it{f' ({failure.where})' if failure.where else ''}.")
    return [*body, *_pages(*ids)]


def _names(text: str, host: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(host)}(?![\w.-])", text) is not None


def _pages(*ids: str) -> list[str]:
    if not ids:
        return []
    shown = ", ".join(f"docs/runbooks/{name}.md" for name in ids[:_PAGES])
    more = f" and {len(ids) - _PAGES} more" if len(ids) > _PAGES else ""
    return [f"  {'Page' if len(ids) == 1 else 'Pages'}: {shown}{more}"]


def _one_line(text: str) -> str:
    return "; ".join(" ".join(line.split()).rstrip(".:") for line in text.split("\n") if line.strip())
