"""The list of differences as a page of the manual."""

from __future__ import annotations

from collections.abc import Iterable

from tests.integration.differential.differences import DIFFERENCES, SPEC, Change, Difference

_INTRODUCTION = f"""\
Debian's docker-registry 2.8.2 and the mirror are sent the same requests, with the same content in both: by
`tests/integration/test_differential.py`, to the writing listener (5443) beside a docker-registry with deletion on, and
to the local one (5000) beside a read-only docker-registry over the same files. Compared are status, error code, headers
and body. Whatever differs is in this table, or fails the test; so does an entry that nothing needs any more.

Not compared: the words of errors, the ids of uploads, the order in which docker-registry lists tags, and everything
else where the two statuses differ. *{SPEC}* is the OCI Distribution Specification, main branch of 2026-07-16. `*`
stands for anything."""


def render(note: str) -> str:
    """The whole page."""
    lines = ["# Differences to docker-registry", "", note, "", _INTRODUCTION, ""]
    lines += ["| what | docker-registry | here | why | source |", "|---|---|---|---|---|"]
    lines += [_row(entry) for entry in DIFFERENCES]
    lines += ["", "## Requests of each entry", "", "As `pair:group/scenario:number method` of the test's tables.", ""]
    lines += ["| what | requests |", "|---|---|"]
    lines += [f"| {_cell(entry.title)} | {_list(entry.requests)} |" for entry in DIFFERENCES]
    return "\n".join(lines) + "\n"


def _row(entry: Difference) -> str:
    theirs = _list(_value(change, change.theirs) for change in entry.changes)
    ours = _list(_value(change, change.ours) for change in entry.changes)
    return f"| {_cell(entry.title)} | {theirs} | {ours} | {_cell(entry.why)} | {_cell(entry.source)} |"


def _value(change: Change, value: str) -> str:
    shown = value if value else "empty"
    return shown if change.field == "status" else f"{change.field}: {shown}"


def _list(values: Iterable[str]) -> str:
    """Each once, in order."""
    return "<br>".join(f"`{_cell(value)}`" for value in dict.fromkeys(values))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
