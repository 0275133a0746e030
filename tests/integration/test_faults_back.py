"""A rollback or a removal that is killed, finds the disk full or loses the power, at any call of the operating system.

It ends in one of the two generations whole, and running it again finishes it. ``FAULT=<number>`` runs one point alone.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.errors import ApplianceError
from appliance.publish.approval import Consent
from appliance.publish.publisher import Publisher
from appliance.publish.rollback import roll_back
from appliance.publish.seed import Request, seed
from appliance.store.blobs import BlobStore
from appliance.store.history import find
from appliance.store.pins import pin
from tests.integration import faults, powerloss
from tests.integration.conftest import APPLIANCE
from tests.integration.test_faults import logged, numbers, problems, run_seed, served
from tests.unit.store import made

A, B = "docker.io/library/a:1", "docker.io/library/b:1"
OLD, NEW = made.image(1, size=1200 << 10), made.image(2, size=1200 << 10, layers=2)


@dataclass(frozen=True)
class Change:
    """One way to change names without a medium.

    :param run: does it to a store, and returns how it ended.
    :param words: the same at the command line.
    :param after: what is served then.
    """

    run: Callable[[Path], str]
    words: tuple[str, ...]
    after: dict[str, str]


def roll_it_back(store: Path) -> str:
    opened = made.store(BlobStore(store, reserve=0))
    return ended(
        lambda: roll_back(Publisher(opened), lambda: find(opened.generations, to=1), consent=Consent([A]))[1].published
    )


def remove_it(store: Path) -> str:
    blobs = BlobStore(store, reserve=0)
    return ended(lambda: seed(made.store(blobs), Request([], remove=[B])).published)


def ended(work: Callable[[], bool]) -> str:
    try:
        return "published" if work() else "nothing new"
    except ApplianceError as error:
        return error.code


BEFORE = {A: NEW.digest, B: NEW.digest}
CHANGES = {
    "rollback": Change(roll_it_back, ("rollback", "--to", "1", "--move-pinned", A), {A: OLD.digest}),
    "removal": Change(remove_it, ("seed", "--remove", B), {A: NEW.digest}),
}


@dataclass(frozen=True)
class World:
    """A store with two generations and a pin, and how many calls each change makes on it."""

    root: Path
    calls: dict[str, int]

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.root / "two", self.root / name, symlinks=True))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("back")
    store = root / "two"
    for number, images in enumerate(({A: OLD}, {A: NEW, B: NEW})):
        assert run_seed(store, made.write_oci_archive(root / f"{number}.tar", images)) == "published"
    blobs = BlobStore(store)
    pin(blobs, made.generations(blobs), made.pins(blobs), [A])
    found = World(root, {})
    for name, change in CHANGES.items():
        copy = found.copy(f"count-{name}")
        done = faults.run(lambda change=change, copy=copy: change.run(copy))  # type: ignore[misc]
        assert (done.said, served(copy)) == ("published", change.after)
        found.calls[name] = done.calls
    return found


def finished(store: Path, change: Change, what: str) -> None:
    """The rerun ends where it should have ended, and nothing is missing, doubled or left over."""
    assert change.run(store) in ("published", "nothing new"), what
    assert served(store) == change.after, what
    assert problems(store) == [], what
    assert logged(store) == [1, 2, 3], what
    pinned = made.pins(BlobStore(store)).current()
    assert pinned is not None
    assert {name: entry.descriptor.digest for name, entry in pinned.names.items()} == {A: change.after[A]}, what
    assert change.run(store) == "nothing new", what


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CHANGES)
def test_kill_9_at_any_call(world: World, sampled: random.Random, whole_series: bool, name: str) -> None:
    change, killed = CHANGES[name], 0
    for count, number in enumerate(numbers(sampled, whole_series)):
        point = random.Random(number)
        mode = point.choice(faults.MODES)
        call = point.randrange(1, world.calls[name] + 1)
        what = f"FAULT={number}: {mode} call {call} of {world.calls[name]}, {name}"
        store = world.copy(f"kill-{name}{count}")
        killed += faults.run(lambda store=store: change.run(store), call, mode).killed  # type: ignore[misc]
        assert served(store) in (BEFORE, change.after), what
        assert problems(store) == [], what
        finished(store, change, what)
        shutil.rmtree(store)
    assert killed


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CHANGES)
def test_a_disk_that_is_full_from_any_call_on(world: World, name: str) -> None:
    change, refused = CHANGES[name], 0
    for call in range(1, world.calls[name] + 1):
        what = f"from call {call} of {world.calls[name]} on, {name}"
        store = world.copy(f"full-{name}{call}")
        done = faults.run(lambda store=store: change.run(store), call, "full")  # type: ignore[misc]
        assert done.said in ("APL-0310", "published"), what
        refused += done.said == "APL-0310"
        assert served(store) == change.after or (done.said == "APL-0310" and served(store) == BEFORE), what
        assert problems(store) == [], what
        finished(store, change, what)
        shutil.rmtree(store)
    assert refused


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CHANGES)
def test_power_loss_at_any_call(world: World, sampled: random.Random, whole_series: bool, name: str) -> None:
    """What was not synced is dropped: all of it, the bytes alone, or any part. A reported success stays."""
    change, store = CHANGES[name], world.copy(f"power-{name}")
    disk = powerloss.Disk.of(store)
    verb, *words = change.words
    calls = powerloss.record(
        [*APPLIANCE, verb, "--json", "--store", store, *words], store, world.root / f"{name}.strace"
    )
    assert served(store) == change.after
    points = range(len(calls) + 1)
    chosen = set(points if whole_series else sampled.sample(points, min(len(points), 12))) | {len(calls)}
    for played in points:
        if played:
            disk.apply(calls[played - 1])
        for variant in powerloss.VARIANTS if played in chosen else ():
            what = f"{variant}, after call {played} of {len(calls)}: {calls[played - 1].name if played else 'none'}"
            lost = world.root / f"power-{name}-lost"
            disk.write_out(store, lost, variant, random.Random(f"{name} {played}"))
            assert served(lost) in ((change.after,) if played == len(calls) else (BEFORE, change.after)), what
            assert problems(lost) == [], what
            finished(lost, change, what)
            shutil.rmtree(lost)
