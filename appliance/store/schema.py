"""Schema of a store: the releases that may use it, and the migration of an older one.

``form`` in the store holds two numbers: the form that it has, and the oldest form whose releases may still use it. A store
without that file has form 1. A conversion leaves a store that the release before it can use (the second number says so), so that
an update can be taken back; what that release cannot cope with is left to the conversion of the release after.

Decision 9.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from appliance.errors import fail
from appliance.files import write_atomically
from appliance.store.blobs import BlobStore
from appliance.store.locks import Rank, locked

FILE = "form"
"""Its name in the store."""


@dataclass(frozen=True)
class Migration:
    """One step from a form to the next.

    :param usable_from: the oldest form whose releases may use what it leaves; for one release at least, the form before.
    :param convert: does it, for the store's root; run again after it was ended at any point, it finishes.
    """

    usable_from: int
    convert: Callable[[Path], None]


CONVERSIONS: tuple[Migration, ...] = ()
"""The first makes form 2 of form 1, and so on; none has been needed yet."""


def check(root: Path, conversions: Sequence[Migration] = CONVERSIONS) -> int:
    """The form that a store has; refuses (APL-0343) one that this release must not use."""
    own = len(conversions) + 1
    try:
        found, usable_from = map(int, (root / FILE).read_text(encoding="ascii").split())
    except FileNotFoundError:
        return 1
    except ValueError as error:
        _refuse(root, f"not two numbers: {error}")
    if not 1 <= usable_from <= found:
        _refuse(root, f"no store has form {found} that releases from form {usable_from} on use")
    if usable_from > own:
        _refuse(root, f"it has form {found}, which releases from form {usable_from} on use; this one has {own}")
    return found


def prepare(blobs: BlobStore, conversions: Sequence[Migration] = CONVERSIONS) -> None:
    """Make a store where there is none, and bring one of an older form up; one process does, and the others wait for it.

    :raises ApplianceError: as :func:`check`, before anything is changed.
    """
    root = blobs.root
    form = check(root, conversions)
    blobs.create()
    if form > len(conversions):
        return
    # A file of its own: a step may publish an index, which locks the store's directory.
    with locked(root / f"{FILE}.lock", Rank.FORM):
        while (form := check(root, conversions)) <= len(conversions):
            step = conversions[form - 1]
            step.convert(root)
            write_atomically(root / FILE, f"{form + 1} {step.usable_from}\n".encode())


def _refuse(root: Path, why: str) -> NoReturn:
    fail(
        "APL-0343",
        "this release does not support the form of the store",
        where=str(root / FILE),
        why=why,
        fix="Nothing was changed. Install the newer release again",
    )
