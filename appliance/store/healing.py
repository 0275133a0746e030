"""Repair of damaged files of a store, from copies in the store or from what a peer sent."""

from __future__ import annotations

import contextlib
from collections.abc import Collection

from appliance.errors import ApplianceError
from appliance.files import write_atomically
from appliance.oci.digests import digest_of
from appliance.store import auditlog, readiness
from appliance.store.auditcheck import survey
from appliance.store.blobs import LAYOUT
from appliance.store.index import beginning, summary
from appliance.store.inspection import Fault
from appliance.store.locks import names_locked
from appliance.store.store import Store
from appliance.trust import Signature

_JUNK = ("staged", "scrub")


def heal(store: Store, fault: Fault, *, is_alone: bool) -> str | None:
    """Heal a file from what lies on this node; returns from what, None where that does not do.

    :param is_alone: whether there is no other node to ask.
    :raises OSError: where the disk takes no change.
    :raises ApplianceError: where something else that it is made from is damaged.
    """
    root = store.blobs.root
    if fault.kind == "layout":
        write_atomically(root / "oci-layout", LAYOUT)
        return "written again"
    if fault.kind in _JUNK:
        (root / fault.path).unlink(missing_ok=True)
        return "removed, for it is made again"
    if fault.kind == "standing":
        readiness.write_again(root, store.node or "", survey(root).given_up)
        return "written again from the audit log"
    if fault.kind == "journal":
        return _log(store)
    if fault.kind == "generation" and is_alone:
        return "put back from its copy" if store.generations.put_back() is not None else None
    if fault.kind == "generation-copy" and fault.item is not None:
        return _copy(store, fault.item)
    if fault.kind.endswith("-signature") and fault.item is not None:
        return _signature(store, fault, fault.item, is_alone=is_alone)
    return None


def _copy(store: Store, item: tuple[int, str]) -> str | None:
    current = store.generations.current()
    if current is None or (current.number, beginning(current.digest)) != item:
        return None
    write_atomically(store.generations.file(*item, ".json"), current.raw)
    return "put back from index.json"


def _signature(store: Store, fault: Fault, item: tuple[int, str], *, is_alone: bool) -> str | None:
    """Sign anew, on the publisher, what it can prove that it published; remove one that signs nothing any more."""
    index, root = store.index(fault.kind), store.blobs.root
    current = index.current()
    is_current = current is not None and (current.number, beginning(current.digest)) == item
    if not is_current and index is not store.generations:
        index.file(*item, ".sig").unlink(missing_ok=True)
        return "removed, for it signs nothing that lies here"
    if not store.config.is_publisher:
        return None
    if is_current and current is not None:
        # The file's name has the digest: what lies here is what was published, or followed.
        proved = index.file(*item, ".sig").exists() and readiness.is_settled(root)
        raw = current.raw
    else:
        proved, raw = False, index.file(*item, ".json").read_bytes()
    logged = {(number, beginning(digest)) for number, digest in survey(root).published}
    is_logged = index is store.generations and item in logged
    if not (proved or is_logged or (is_alone and is_current)):
        return None
    if beginning(digest_of(raw)) != item[1]:
        return None
    index.put_signature(*item, raw)
    return "signed anew"


def _log(store: Store) -> str | None:
    root = store.blobs.root
    found = survey(root)
    if found.cut and not found.damaged:
        auditlog.note(root, {"action": "close-line", "bytes": found.cut})
        return f"the {found.cut} bytes of the line that was cut short are closed off; what it said is lost"
    if found.size and not found.sound:
        name = auditlog.set_aside(root)
        auditlog.note(root, {"action": "begin-log", "set_aside": name, **_served(store)})
        return f"set aside as {name}; a new one is begun, and what it said is lost"
    if not found.size:
        auditlog.note(root, {"action": "begin-log", **_served(store)})
        return "a new one is begun; what it said is lost"
    if not found.damaged and found.published:
        return _catch_up(store, min(found.published)[0])
    return None


def _catch_up(store: Store, first: int) -> str | None:
    """Write the lines of generations that this publisher made and that the log does not have."""
    root, index = store.blobs.root, store.generations
    with names_locked(root):
        logged = survey(root).published
        missing = [item for item in index.kept() if item.number > first and (item.number, item.digest) not in logged]
        for item in missing:
            signature = index.signature(item)
            if signature is not None and signature.signer == store.node:
                auditlog.catch_up(root, index, item)
    return (
        f"the lines of {len(missing)} generations are written again from them; other lines are lost"
        if missing
        else None
    )


def _served(store: Store) -> dict[str, object]:
    try:
        return {"generation": summary(store.generations.current())}
    except ApplianceError:
        return {}


def signers(store: Store) -> frozenset[str]:
    """Return the nodes whose signatures lie here and can be read: this node followed them once."""
    found = set()
    for item in store.generations.known():
        with contextlib.suppress(OSError, ApplianceError):
            found.add(Signature.from_json(store.generations.file(*item, ".sig").read_bytes()).signer)
    return frozenset(found)


def take_signature(store: Store, fault: Fault, offered: bytes, besides: Collection[str]) -> None:
    """Put a peer's copy of a signature in its place.

    :param besides: nodes whose signature counts beside the seeds'.
    :raises ApplianceError: APL-0605 or APL-0606 for one that is none.
    :raises OSError: where what it signs does not lie here.
    """
    assert fault.item is not None
    index = store.index(fault.kind)
    raw = (index.file(*fault.item, ".json") if index is store.generations else index.index).read_bytes()
    if beginning(digest_of(raw)) == fault.item[1]:
        signature = Signature.from_json(offered)
        index.check_signature(raw, signature, besides)
        index.put_signature(*fault.item, raw, signature)


def take_copy(store: Store, fault: Fault, raw: bytes, offered: bytes | None, besides: Collection[str]) -> bool:
    """Put a peer's copy of a generation in its place; false where it is another one.

    :param offered: the peer's signature; counts where this node's own cannot be read.
    :raises ApplianceError: APL-0605 or APL-0606 where neither signature is one.
    """
    assert fault.item is not None
    index = store.generations
    if beginning(digest_of(raw)) != fault.item[1]:
        return False
    if index.signs:
        own = index.file(*fault.item, ".sig")
        mine = own.read_bytes() if own.exists() else None
        if mine is None or index.why_unsound(fault.item[0], raw, mine) is not None:
            signature = Signature.from_json(offered or b"")
            index.check_signature(raw, signature, besides)
            index.put_signature(*fault.item, raw, signature)
    write_atomically(index.file(*fault.item, ".json"), raw)
    return True
