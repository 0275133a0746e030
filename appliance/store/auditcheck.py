"""Check of the audit log: its chain of hashes, and its lines against the generations."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.errors import fail
from appliance.store.auditlog import FILE, is_chained, parse_line, read_lines
from appliance.store.generations import Generation


@dataclass
class Audit:
    """Result of checking the audit log.

    :param lines: lines of the chain that fit.
    :param head: number and SHA-256 of the last of them: noted elsewhere, they prove later that nothing up to it was
        changed. None where there is none.
    :param broken: the first line that does not fit, by its place in the file, and why; None where the chain is whole.
    :param noted: whether a line has the SHA-256 that was noted elsewhere; None where none was given.
    :param unlogged: generations whose line is missing or says something else, one sentence each.
    :param remarks: what is no error and worth knowing.
    """

    store: Path
    lines: int = 0
    head: dict[str, Any] | None = None
    broken: dict[str, Any] | None = None
    noted: bool | None = None
    unlogged: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As ``appliance audit --json`` prints it."""
        return {
            "lines": self.lines,
            "head": self.head,
            "broken": self.broken,
            "noted": self.noted,
            "unlogged": self.unlogged,
            "remarks": self.remarks,
        }

    def check(self) -> None:
        """Raise what was found.

        :raises ApplianceError: APL-0350 for a chain that is broken, APL-0351 for generations that are not logged.
        """
        if self.broken is not None:
            fail(
                "APL-0350",
                "the audit log was changed after it was written, or is damaged",
                where=f"{self.store / FILE}, line {self.broken['line']}",
                why=self.broken["why"],
                fix="Keep a copy of the file before anything else is done; see the runbook",
            )
        if self.noted is False:
            fail(
                "APL-0350",
                "the audit log was changed after it was written, or is damaged",
                where=str(self.store / FILE),
                why=f"no line has the SHA-256 that was noted; the last of {self.lines} has {(self.head or {}).get('sha256')}",
                fix="Keep a copy of the file before anything else is done; see the runbook",
            )
        if self.unlogged:
            fail(
                "APL-0351",
                "the audit log does not match the generations",
                where=str(self.store / FILE),
                why="; ".join(self.unlogged),
                fix="Where a run was ended in the middle, running it again writes its line; otherwise see the runbook",
            )


def audit(store: Path, generations: Iterable[Generation], noted: str | None = None) -> Audit:
    """Follow the chain, and look for the line of every generation.

    :param generations: those whose bytes are kept.
    :param noted: SHA-256 of a line, as an earlier audit printed it and somebody noted it elsewhere.
    """
    found = Audit(store, noted=None if noted is None else False)
    published: dict[int, set[str]] = {}
    before, gap, whole = hashlib.sha256(), 0, 0
    for place, raw in enumerate(read_lines(store), 1):
        line = parse_line(raw)
        if line is not None and type(line.get("number")) is int:
            published.setdefault(line["number"], set()).add(str(line.get("digest")))
        if line is None or not is_chained(line):
            before.update(raw)
            gap += len(raw)
            whole += line is not None
            continue
        why = _misfit(line, found.lines, before.hexdigest(), gap)
        if why is not None:
            found.broken = {"line": place, "why": why}
            return found
        if gap:
            found.remarks.append(_remark(place, gap, whole))
        found.lines += 1
        before, gap, whole = hashlib.sha256(raw), 0, 0
        found.head = {"seq": line["seq"], "sha256": before.hexdigest()}
        if found.head["sha256"] == noted:
            found.noted = True
    if gap:
        found.remarks.append(f"The last {gap} bytes are not in the chain yet; the next line will cover them.")
    _hold_against(found, published, generations)
    return found


@dataclass
class Survey:
    """Return what of the log can be read, with every line that cannot; :func:`audit` stops at the first.

    :param size: bytes; None where there is no log.
    :param sound: lines that can be read, whether they fit or not.
    :param damaged: places in the file, from 1, of lines that are damaged, or of the line after one that is.
    :param cut: bytes of a last line that was cut short; it begins as each line does.
    :param published: number and digest of the generations that it says were published or signed anew here.
    :param given_up: digests that it says were given up.
    """

    size: int | None = None
    sound: int = 0
    damaged: list[int] = field(default_factory=list)
    cut: int = 0
    published: set[tuple[int, str]] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)


def survey(store: Path) -> Survey:
    """Read the whole log; raises OSError where it cannot be read."""
    found = Survey()
    with contextlib.suppress(FileNotFoundError):
        found.size = (store / FILE).stat().st_size
    seen, before, gap = 0, hashlib.sha256(), 0
    unread: list[int] = []
    for place, raw in enumerate(read_lines(store), 1):
        line = parse_line(raw)
        if line is not None:
            found.sound += 1
            _take_note(found, line)
        if line is None or not is_chained(line):
            before.update(raw)
            gap += len(raw)
            if line is None:
                unread.append(place)
                found.cut = len(raw) if raw[:1] == b"{" and not raw.endswith(b"\n") else 0
            continue
        if _misfit(line, seen, before.hexdigest(), gap) is not None:
            found.damaged += unread or [place]
        seen, before, gap, unread = line["seq"], hashlib.sha256(raw), 0, []
    found.damaged += unread[:-1] if found.cut else unread
    return found


def _take_note(found: Survey, line: dict[str, Any]) -> None:
    said = {"publish": line, "take-over": line.get("generation")}.get(str(line.get("action")))
    if isinstance(said, dict) and type(said.get("number")) is int:
        found.published.add((said["number"], str(said.get("digest"))))
    given_up = line.get("given_up")
    if isinstance(given_up, list):
        found.given_up.update(item for item in given_up if isinstance(item, str))


def _misfit(line: dict[str, Any], seen: int, before: str, gap: int) -> str | None:
    if line["seq"] != seen + 1:
        return f"it has the number {line['seq']}, and {seen + 1} is next: lines are missing or were put in"
    if line["prev"] != before:
        return f"what stands before it has the SHA-256 {before}, and {line['prev']} when it was written"
    if line.get("gap", 0) != gap:
        return f"{gap} bytes before it are no line of the chain, and it says {line.get('gap', 0)}"
    return None


def _remark(place: int, gap: int, whole: int) -> str:
    what = f"{whole} lines of a release that did not chain them" if whole else "a line that was cut short"
    return f"Before line {place} are {gap} bytes with {what}; the chain covers them."


def _hold_against(found: Audit, published: dict[int, set[str]], generations: Iterable[Generation]) -> None:
    """A node that followed another publisher before has no lines of that time."""
    first = min(published, default=None)
    earlier = 0
    for generation in generations:
        logged = published.get(generation.number)
        if first is None or generation.number < first:
            earlier += 1
        elif logged is None:
            found.unlogged.append(f"generation {generation.number} ({generation.digest}) has no line")
        elif generation.digest not in logged:
            found.unlogged.append(
                f"generation {generation.number} is {generation.digest}, and its line says {', '.join(sorted(logged))}"
            )
    if earlier:
        found.remarks.append(f"{earlier} generations were published before this log began, by another node.")
