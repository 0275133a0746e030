"""Kinds of files below the state directory: how damage is recognised, what repairs it, and what is lost otherwise.

The one table of them. :mod:`appliance.store.inspection` looks for damage, :mod:`appliance.store.healing` heals it, and
``docs/reference/files.md`` has the table for the operator, as :func:`table` writes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = r"[0-9]{8}-[0-9a-f]{16}"


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    :param name: stable name, for ``status --json`` and ``fsck --json``.
    :param shown: where it lies, for people.
    :param files: matches the path below the state directory.
    :param recognised: how damage is recognised.
    :param healed: what it is healed from.
    :param lost: what is lost where nothing heals it.
    :param fix: what the operator does then; empty where nothing has to be done.
    """

    name: str
    shown: str
    files: re.Pattern[str]
    recognised: str
    healed: str
    lost: str
    fix: str = ""


def _kind(name: str, shown: str, files: str, recognised: str, healed: str, lost: str, fix: str = "") -> Kind:
    return Kind(name, shown, re.compile(files), recognised, healed, lost, fix)


KINDS = (
    _kind(
        "blob",
        "blobs/<algorithm>/<hex>",
        r"blobs/sha(?:256|512)/[0-9a-f]+",
        "its SHA-256 is its name",
        "any node that holds it",
        "the images that need it",
        "Bring the medium that had it; see APL-0421",
    ),
    _kind(
        "layout",
        "oci-layout",
        r"oci-layout",
        "it is not the one line that each OCI layout has",
        "written again",
        "nothing",
    ),
    _kind(
        "generation",
        "index.json",
        r"index\.json",
        "it reads as a generation, and its SHA-256 is in the name of its copy",
        "its copy below generations/, or a node that has the same or a newer one",
        "what is served now",
        "Restore the last backup; see APL-0305",
    ),
    _kind(
        "generation-copy",
        "generations/<number>-<hex>.json",
        rf"generations/{_NAME}\.json",
        "the beginning of its SHA-256 is in its name; one that is gone left its signature or its line in the audit log",
        "index.json, for the current one; else a node that kept the same one",
        "the way back to that generation",
        "Bring back the nodes that are off: the agent asks them each half-minute. See APL-0356",
    ),
    _kind(
        "generation-signature",
        "generations/<number>-<hex>.sig",
        rf"generations/{_NAME}\.sig",
        "it has signatures of a node of the site over the generation of that name and over its head; a head that is gone is no damage",
        "signed anew on the publisher that published it; else a node that has it",
        "the proof of who published that generation; of the current one, nodes that come back cannot take it from here",
        "Bring back the nodes that are off: the agent asks them each half-minute. See APL-0355",
    ),
    _kind(
        "pushes",
        "pushes.json",
        r"pushes\.json",
        "it reads as an index, and its SHA-256 is in the name of its signature",
        "a node that has the same or a newer one",
        "which images operators pushed",
        "Bring back the nodes that are off, or restore the last backup; see APL-0314",
    ),
    _kind(
        "pushes-signature",
        "pushes/<number>-<hex>.sig",
        rf"pushes/{_NAME}\.sig",
        "it has signatures of a node of the site over pushes.json and over its head; an older one is a signature at all",
        "signed anew on the publisher; else a node that has it; an older one is removed",
        "nodes that come back cannot take the pushes from here",
        "Bring back the nodes that are off: the agent asks them each half-minute. See APL-0355",
    ),
    _kind(
        "pins",
        "pins.json",
        r"pins\.json",
        "it reads as an index, and its SHA-256 is in the name of its signature",
        "a node that has the same or a newer one",
        "which names are pinned",
        "Bring back the nodes that are off, or restore the last backup; see APL-0331",
    ),
    _kind(
        "pins-signature",
        "pins/<number>-<hex>.sig",
        rf"pins/{_NAME}\.sig",
        "it has signatures of a node of the site over pins.json and over its head; an older one is a signature at all",
        "signed anew on the publisher; else a node that has it; an older one is removed",
        "nodes that come back cannot take the pins from here",
        "Bring back the nodes that are off: the agent asks them each half-minute. See APL-0355",
    ),
    _kind(
        "form",
        "form",
        r"form",
        "it is not two numbers, or names a form that this release does not know; a digit that became another one is not recognised",
        "nothing",
        "which releases may use the store",
        "Where no newer release ever ran on this node, remove the file; see APL-0343",
    ),
    _kind(
        "standing",
        "standing.json",
        r"standing\.json",
        "it is not the mark of this node; one that is gone is no damage, the agent asks the nodes again",
        "written again, with what the audit log says was given up",
        "what was given up in favour of this publisher",
        "Run 'appliance take-over' again",
    ),
    _kind(
        "journal",
        "journal.jsonl",
        r"journal\.jsonl",
        "its chain of hashes; on the publisher, that generations which it published have their line; that it is there",
        "nothing; sound lines are read on, and a log that has none is set aside and begun anew",
        "what the lines said that are damaged; every other line is read on",
        "Keep a copy, compare it with a backup, and begin a new log; see APL-0350",
    ),
    _kind(
        "staged",
        "staged/<key>.json",
        r"staged/[0-9a-z-]+\.json",
        "its own SHA-256 stands at its end",
        "removed; the medium is read again",
        "nothing",
    ),
    _kind(
        "scrub",
        "scrub.json",
        r"scrub\.json",
        "it is no JSON object; another number in it does no harm",
        "removed; the pass begins again",
        "nothing",
    ),
    # What follows is hashed before it counts, or says nothing that matters: no damage of it does harm.
    _kind(
        "placed", "staged/placed", r"staged/placed", "a line that is no digest is passed over", "not needed", "nothing"
    ),
    _kind("partial", "partial/", r"partial/.+", "every byte is hashed before it counts", "fetched again", "nothing"),
    _kind(
        "incoming",
        "incoming/",
        r"incoming/.+",
        "every byte was hashed before it was written",
        "written again",
        "nothing",
    ),
    _kind(
        "upload",
        "uploads/",
        r"uploads/.+",
        "every byte is hashed before it counts",
        "the client pushes again",
        "nothing",
    ),
    _kind(
        "claim",
        "claims/",
        r"claims/.+",
        "one that cannot be read has no piece map",
        "the client pushes again",
        "nothing",
    ),
    _kind("quarantine", "quarantine/", r"quarantine/.+", "it is damaged already", "not needed", "nothing"),
    _kind(
        "replaced", "replaced-<time>/", r"replaced-[^/]+/.+", "nobody reads it", "not needed", "what a restore replaced"
    ),
    _kind(
        "set-aside",
        "journal-damaged-<time>.jsonl",
        r"journal-damaged-.+\.jsonl",
        "nobody reads it",
        "not needed",
        "evidence",
    ),
    _kind(
        "lock",
        "lock, pushes.lock, form.lock",
        r"lock|(?:pushes|form)\.lock|agent\.sock",
        "nothing is read from it",
        "made again",
        "nothing",
    ),
    _kind(
        "temporary",
        ".<name>",
        r"(?:.+/)?\.[^/]+",
        "nobody reads it",
        "removed by whoever writes the next one",
        "nothing",
    ),
)

_BY_NAME = {kind.name: kind for kind in KINDS}


def kind_named(name: str) -> Kind:
    """Return the kind of a name."""
    return _BY_NAME[name]


def kind_of(path: str) -> Kind | None:
    """Return the kind of a file; None for one that does not belong here.

    :param path: relative to the state directory.
    """
    return next((kind for kind in KINDS if kind.files.fullmatch(path)), None)


def table() -> str:
    """Return the rows of the manual's table."""
    rows = (f"| `{kind.shown}` | {kind.recognised} | {kind.healed} | {kind.lost} |" for kind in KINDS)
    return "".join(f"{row}\n" for row in rows)
