"""Removal of names that the operator lists."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from appliance.errors import fail
from appliance.oci.reference import parse_reference
from appliance.publish.downgrades import History
from appliance.publish.reading import Reading
from appliance.store.auditlog import publications
from appliance.store.generations import Generation


def names_to_remove(
    texts: Sequence[str],
    reading: Reading,
    current: Generation | None,
    history: History,
    store: Path,
    site_addresses: Collection[str] = (),
) -> list[str]:
    """The names that are listed to leave, written out in full; taken out of the reading as well, if a medium brings them.

    A list stays in the inventory: a name that left before is no error.

    :param store: the store's directory; its audit log knows older removals.
    :raises ApplianceError: APL-0153 for names that were never served here, APL-0202 and APL-0201 for no name at all.
    """
    wanted = list(dict.fromkeys(_key(text, site_addresses) for text in texts))
    for name in wanted:
        if reading.names.pop(name, None) is not None:
            reading.notes.append(f"{name} is on the medium and is left out, as asked.")
    served = current.names if current else {}
    unknown = {name for name in wanted if name not in served}
    known = iter(_ever_served(history, store))
    while unknown and (names := next(known, None)) is not None:
        unknown -= set(names)
    if unknown:
        fail(
            "APL-0153",
            "names to remove are not served",
            where=str(store),
            why=f"never served here: {', '.join(sorted(unknown))}",
            fix="Nothing was changed. 'appliance images' lists the names; correct --remove (seed_remove)",
        )
    return wanted


def _ever_served(history: History, store: Path) -> Iterable[Collection[str]]:
    for generation in history():
        yield generation.names
    for line in publications(store):
        yield line.get("removed") or ()


def _key(text: str, site_addresses: Collection[str]) -> str:
    return parse_reference(text, where="--remove").at_site(site_addresses).key
