"""Check of a store: every blob against its digest, every name against what it needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from appliance.errors import ApplianceError
from appliance.oci.digests import is_digest
from appliance.store.blobs import BlobStore
from appliance.store.inspection import Fault, Inspector
from appliance.store.quarantine import hash_file
from appliance.store.reachability import Needed, needed, needed_by_pins, needed_by_pushes
from appliance.store.store import Store


@dataclass
class Report:
    """Result of a check.

    :param blobs: blobs that were hashed.
    :param size: their bytes.
    :param problems: one sentence each; empty when all is well.
    :param elsewhere: digests of layers that the generation names and that other nodes hold, not this one.
    :param missing: digests of blobs that should be here and are not.
    :param damaged: digests of the blobs that are not what they should be.
    :param quarantined: digests that lie in quarantine and are not back yet.
    :param faults: files that are no blobs and are damaged.
    :param remarks: what an interrupted command left and the next one completes, one sentence each; no damage.
    """

    blobs: int = 0
    size: int = 0
    problems: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def look_at_quarantine(self, blobs: BlobStore) -> None:
        """Note what lies in quarantine now."""
        self.quarantined = sorted(digest for digest in blobs.quarantined() if not blobs.has(digest))

    def as_dict(self) -> dict[str, Any]:
        """The report as ``appliance fsck --json`` prints it."""
        return {
            "blobs": self.blobs,
            "bytes": self.size,
            "problems": self.problems,
            "remarks": self.remarks,
            "elsewhere": len(self.elsewhere),
            "quarantined": self.quarantined,
            "damage": [
                {"kind": fault.kind, "path": fault.path, "why": fault.why, "lost": fault.lost, "fix": fault.about.fix}
                for fault in self.faults
            ],
        }


def check(
    store: Store,
    *,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Hash every blob, read every other file, and see that the current generation and what was pushed can be served.

    :param progress: called with the bytes hashed so far.
    """
    report, blobs, whole = Report(), store.blobs, store.config.is_publisher
    for digest, size in blobs.digests():
        report.blobs += 1
        computed = _hash(blobs, digest)
        report.size += size
        if computed != digest:
            said = f"its bytes have {computed}" if is_digest(computed) else computed
            report.problems.append(f"{digest} is damaged: {said}")
            report.damaged.append(digest)
        if progress is not None:
            progress(report.size)
    for fault in look(store):
        if fault.fleeting:
            report.remarks.append(f"{fault.words(blobs.root)}; the next command, or the agent, completes it")
        else:
            report.faults.append(fault)
    report.problems += [*(fault.words(blobs.root) for fault in report.faults), *_strays(blobs)]
    report.look_at_quarantine(blobs)
    wanted: dict[str, Needed] = {}
    try:
        current, pushed, pinned = store.generations.current(), store.pushes.current(), store.pins.current()
        kept = needed_by_pins(pinned, blobs) if pinned else {}
        wanted |= needed_by_pushes(pushed, blobs) if pushed else {}
        wanted |= needed(current, blobs) if current else {}
    except (ApplianceError, OSError) as error:
        if not any(fault.kind in ("generation", "pushes", "pins") for fault in report.faults):
            report.problems.append(str(error))
        return report
    for digest, item in {**kept, **wanted}.items():
        size_here = blobs.size(digest)
        if size_here == item.descriptor.size:
            continue
        if size_here is not None:
            report.problems.append(f"{digest} has {size_here} bytes, {item.descriptor.size} are listed")
        elif whole or (item.is_manifest and digest in wanted):
            report.problems.append(f"{digest} is missing")
            report.missing.append(digest)
        else:
            report.elsewhere.append(digest)
    return report


def look(store: Store) -> list[Fault]:
    """Return the files that are damaged, and what an interrupted command left; nothing that a process was just writing."""
    inspector = Inspector(store)
    faults = inspector.look()
    if not any(fault.fleeting for fault in faults):
        return faults
    still = {fault.key for fault in inspector.look()}
    return [fault for fault in faults if fault.key in still]


def _strays(blobs: BlobStore) -> list[str]:
    """Return what is wrong with names under ``blobs/`` that are no digests."""
    problems = []
    for path in sorted((blobs.root / "blobs").glob("*/*")):
        if not is_digest(f"{path.parent.name}:{path.name}"):
            problems.append(f"{path} is no blob")
    return problems


def _hash(blobs: BlobStore, digest: str) -> str:
    try:
        opened = blobs.open(digest)
        if opened is None:
            return "vanished"
        try:
            return hash_file(opened[0], digest)
        finally:
            os.close(opened[0])
    except OSError as problem:
        return f"could not be read: {problem.strerror or problem}"
