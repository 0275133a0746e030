"""Publisher readiness: names may change only after every listed node was asked for newer state.

A node that has just become the publisher, or whose store was lost, may be behind the nodes that followed the one before: what
it made would have a number that they know already. So it first asks every listed node, follows the newest that it finds, and
then leaves this mark in its store. A new store has none; it is taken away where the node is not the publisher any more, and
where another node turns out to have something else.

Decision 6.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

from appliance.config import Config
from appliance.errors import Diverged, error_from_dict, fail
from appliance.files import write_atomically
from appliance.oci.digests import is_digest

FILE = "standing.json"
"""Its name in the store."""


def is_settled(store: Path) -> bool:
    """Return whether the mark is there."""
    return (store / FILE).exists()


def given_up(store: Path) -> frozenset[str]:
    """Digests of the indexes of other nodes that the operator gave up, while the mark is there."""
    try:
        found = json.loads((store / FILE).read_bytes())["given_up"]
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
    return frozenset(map(str, found))


def mark_ready(store: Path, node: str, give_up: Collection[str] = ()) -> None:
    """Leave the mark.

    :param give_up: digests to be given up, with those that were.
    """
    known = given_up(store)
    if not is_settled(store) or not known.issuperset(give_up):
        mark = {"node": node, "given_up": sorted(known.union(give_up))}
        write_atomically(store / FILE, json.dumps(mark).encode())


def is_sound(store: Path, node: str | None, logged: Collection[str] = ()) -> bool:
    """Return whether the mark can be read and is this node's, where there is one.

    :param node: its id; None where that is not known.
    :param logged: digests that the audit log says were given up; none where it does not say.
    """
    try:
        mark = json.loads((store / FILE).read_bytes())
    except FileNotFoundError:
        return True
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(mark, dict):
        return False
    given_up, owner = mark.get("given_up"), mark.get("node")
    is_readable = isinstance(given_up, list) and all(map(is_digest, given_up)) and isinstance(owner, str)
    return is_readable and node in (None, owner) and (not logged or set(logged).issuperset(given_up or ()))


def write_again(store: Path, node: str, given_up: Collection[str]) -> None:
    """Replace a mark that is damaged: that it is there is what it says, and the audit log knows the rest."""
    write_atomically(store / FILE, json.dumps({"node": node, "given_up": sorted(given_up)}).encode())


def clear(store: Path) -> None:
    """Take it away."""
    # On a file system that is mounted read-only even what is not there cannot be removed.
    if is_settled(store):
        (store / FILE).unlink(missing_ok=True)


def require(store: Path, config: Config) -> None:
    """Refuse (APL-0341) a publisher that is not sure; for changes that do not wait until the others were asked."""
    if _has_to_ask(config) and not is_settled(store):
        _unsure(config, "not every node has said yet what it has; 'appliance status' names them")


def make_sure(store: Path, config: Config, look: Callable[[], Mapping[str, Any]]) -> None:
    """Have every node asked now, and refuse where one of them has, or may have, something newer.

    :param look: asks, and returns what :meth:`appliance.agent.daemon.Agent.look` does; raises :class:`ConnectionError`
        where the agent does not answer. A publisher that was sure before goes on without it.
    :raises ApplianceError: APL-0306 where a node has another index of the same number, APL-0341 otherwise.
    """
    if not _has_to_ask(config):
        return
    try:
        found = look()
    except ConnectionError as problem:
        if is_settled(store):
            return
        _unsure(config, str(problem))
    if found["settled"]:
        return
    for refused in found["refused"]:
        error = error_from_dict(refused["problem"])
        if isinstance(error, Diverged):
            raise error
        _unsure(config, f"{refused['index']} {refused['number']} of {refused['peer']} cannot be followed: {error}")
    _unsure(config, f"no answer from {', '.join(found['silent'])}")


def _has_to_ask(config: Config) -> bool:
    # Without an authority (development) anybody could answer anything.
    return config.pki is not None and bool(config.others)


def _unsure(config: Config, why: str) -> NoReturn:
    fail(
        "APL-0341",
        "this publisher is not sure that no other node has something newer",
        where=config.node,
        why=why,
        fix="Nothing was changed. Bring that node back, or take it out of the inventory and run site.yml;"
        " 'appliance take-over --without NODE' gives up what only that node has",
    )
