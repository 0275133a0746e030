"""Complete or not at all: a seeding that is killed, or finds the disk full, at any call of the operating system.

Every point has a number that stands in the failure; ``FAULT=<number>`` runs that one alone.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from appliance.errors import ApplianceError
from appliance.publish.seed import Request, seed
from appliance.store.auditcheck import audit
from appliance.store.auditlog import publications
from appliance.store.blobs import BlobStore
from appliance.store.fsck import check
from tests.integration import faults, powerloss
from tests.integration.conftest import APPLIANCE, run
from tests.unit.store import made

A, B = "docker.io/library/a:1", "docker.io/library/b:1"
OLD, NEW = made.image(1), made.image(2, size=1200 << 10, layers=3)
SMALL = made.image(3, size=30 << 10, layers=3)
WHOLE, SAMPLE = 240, 30
FORMS = ("oci", "docker", "oci.zst", "layout")


@dataclass(frozen=True)
class World:
    """A store that serves ``OLD``, and media with ``NEW`` in several forms."""

    root: Path
    sources: dict[str, Path]
    calls: dict[str, int]

    def copy(self, name: str) -> Path:
        store = self.root / name
        shutil.copytree(self.root / "old", store, symlinks=True)
        return store


def run_seed(store: Path, source: Path) -> str:
    blobs = BlobStore(store, reserve=0)
    try:
        done = seed(made.store(blobs), Request([str(source)]))
    except ApplianceError as error:
        return error.code
    return "published" if done.published else "nothing new"


def served(store: Path) -> dict[str, str]:
    current = made.generations(BlobStore(store)).current()
    return {name: entry.descriptor.digest for name, entry in current.names.items()} if current else {}


def problems(store: Path) -> list[str]:
    blobs = BlobStore(store)
    return check(made.store(blobs)).problems


def logged(store: Path) -> list[int]:
    """Numbers of the generations that the audit log has, which is whole."""
    audit(store, made.generations(BlobStore(store)).newest_first()).check()
    return [line["number"] for line in publications(store)]


def inodes(store: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (store / "blobs").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("faults")
    sources = {
        "oci": made.write_oci_archive(root / "oci.tar", {A: NEW, B: NEW}),
        "docker": made.write_docker_archive(root / "docker.tar", A, NEW),
        "layout": made.write_layout(root / "layout", {A: NEW, B: NEW}),
    }
    sources["oci.zst"] = root / "oci.tar.zst"
    sources["oci.zst"].write_bytes(zstandard.compress(sources["oci"].read_bytes()))
    assert run_seed(root / "old", made.write_oci_archive(root / "old.tar", {A: OLD})) == "published"
    found = World(root, sources, {})
    for form, source in sources.items():
        store = found.copy(f"count-{form}")
        ended = faults.run(lambda store=store, source=source: run_seed(store, source))  # type: ignore[misc]
        assert ended.said == "published"
        found.calls[form] = ended.calls
    return found


def numbers(sampled: random.Random, whole: bool, all_of: int = WHOLE, some: int = SAMPLE) -> list[int]:
    if chosen := os.environ.get("FAULT"):
        return [int(chosen)]
    return [sampled.getrandbits(32) for _ in range(all_of if whole else some)]


def after_of(world: World, form: str) -> dict[str, str]:
    store = world.root / f"count-{form}"
    return served(store)


@pytest.mark.timeout(900)
def test_kill_9_at_any_call(world: World, sampled: random.Random, whole_series: bool) -> None:
    before, killed = {A: OLD.digest}, 0
    for count, number in enumerate(numbers(sampled, whole_series)):
        point = random.Random(number)
        form, mode = point.choice(FORMS), point.choice(faults.MODES)
        call = point.randrange(1, world.calls[form] + 1)
        what = f"FAULT={number}: {mode} call {call} of {world.calls[form]}, {form}"
        store, source = world.copy(f"kill{count}"), world.sources[form]
        after = after_of(world, form)
        ended = faults.run(lambda store=store, source=source: run_seed(store, source), call, mode)  # type: ignore[misc]
        killed += ended.killed
        assert served(store) in (before, after), what
        assert problems(store) == [], what
        kept = inodes(store)
        assert run_seed(store, source) in ("published", "nothing new"), what
        assert served(store) == after, what
        assert problems(store) == [], what
        assert kept.items() <= inodes(store).items(), f"{what}: a blob that was there was written again"
        assert list((store / "incoming").iterdir()) == [], what
        assert logged(store) == [1, 2], what
        shutil.rmtree(store)
    assert killed or "FAULT" in os.environ, "no run was killed"


@pytest.mark.timeout(900)
def test_a_disk_that_is_full_from_any_call_on(world: World, sampled: random.Random, whole_series: bool) -> None:
    before, refused = {A: OLD.digest}, 0
    for count, number in enumerate(numbers(sampled, whole_series)):
        point = random.Random(number)
        form = point.choice(FORMS)
        call = point.randrange(1, world.calls[form] + 1)
        what = f"FAULT={number}: from call {call} of {world.calls[form]} on, {form}"
        store, source = world.copy(f"full{count}"), world.sources[form]
        after = after_of(world, form)
        ended = faults.run(lambda store=store, source=source: run_seed(store, source), call, "full")  # type: ignore[misc]
        assert ended.said in ("APL-0310", "published"), what
        refused += ended.said == "APL-0310"
        # A rename may be there although it could not be made durable any more.
        assert served(store) == after or (ended.said == "APL-0310" and served(store) == before), what
        assert problems(store) == [], what
        assert run_seed(store, source) in ("published", "nothing new"), what
        assert served(store) == after, what
        assert problems(store) == [], what
        assert logged(store) == [1, 2], what
        shutil.rmtree(store)
    assert refused or "FAULT" in os.environ


def archives(folder: Path) -> dict[str, bytes]:
    """The same images in every order and form that a cut may come upon."""
    both = made.index({"amd64": SMALL, "arm64": made.image(4, arch="arm64", size=30 << 10)})
    found = {
        "oci": made.write_oci_archive(folder / "oci", {A: SMALL, B: SMALL}),
        "docker": made.write_docker_archive(folder / "docker", A, SMALL),
        # The index first: what is cut off could have been left out on purpose.
        "platforms": made.write_oci_archive(
            folder / "platforms", {A: made.Image(both.descriptor, {both.digest: both.raw, **both.blobs})}
        ),
    }
    members: dict[str, bytes] = {}
    for name in ("docker", "oci"):
        with tarfile.open(found[name]) as archive:
            members |= {item.name: archive.extractfile(item).read() for item in archive}  # type: ignore[union-attr]
    found["docker 25"] = made.write_tar(folder / "docker-25", dict(sorted(members.items())))
    return {form: path.read_bytes() for form, path in found.items()}


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "gzip": lambda data: gzip.compress(data, 1),
    "zstd": zstandard.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "bzip2": lambda data: bz2.compress(data, 1),
}


@dataclass(frozen=True)
class Packed:
    """An archive that may be cut.

    :param streams: its bytes: in one compressed stream, or one for each member and one for the end marker.
    :param end: bytes up to which the archive must come out: what is behind is padding.
    """

    kind: str
    streams: list[bytes]
    end: int

    @property
    def data(self) -> bytes:
        return b"".join(self.streams)

    def cut(self, point: random.Random) -> int:
        """Where: anywhere, near the end, or near where one stream or member follows another."""
        size = len(self.data)
        sums = list(itertools.accumulate(map(len, self.streams)))
        near = point.choice(sums) + point.choice((0, 0, point.randrange(-600, 600)))
        return min(
            size - 1, max(0, point.choice((point.randrange(size), size - point.randrange(1, min(size, 12000)), near)))
        )


def packed(raw: bytes, kind: str, *, apart: bool) -> Packed:
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        members = list(archive)
    starts = [item.offset for item in members]
    last = members[-1]
    end = last.offset_data + last.size
    # Not compressed it has one stream in any case, and the members are where a cut could be overlooked.
    bounds = [*starts, end + -end % 512, len(raw)] if apart or kind == "none" else [0, len(raw)]
    return Packed(kind, [PACKED[kind](raw[a:b]) for a, b in itertools.pairwise(bounds)], end)


def unpacked(kind: str, data: bytes) -> int:
    """Bytes that come out of a file that was cut, by other means than those that are tested."""
    if kind == "none":
        return len(data)
    return len(subprocess.run([kind, "-dc"], input=data, capture_output=True, check=False).stdout)


@pytest.mark.timeout(900)
def test_a_file_that_is_cut_anywhere_publishes_nothing(
    world: World, sampled: random.Random, whole_series: bool
) -> None:
    """Whatever the form and the compression; and the whole file later finds its way through what that left."""
    made_of = archives(world.root)
    published = 0
    for count, number in enumerate(numbers(sampled, whole_series, 2000, 100)):
        point = random.Random(number)
        form, kind, apart = point.choice(sorted(made_of)), point.choice(sorted(PACKED)), point.random() < 0.7
        medium = packed(made_of[form], kind, apart=apart)
        cut, data = medium.cut(point), medium.data
        what = f"FAULT={number}: {form}, {kind}, {len(medium.streams)} streams, {cut} of {len(data)} bytes"
        store, source = world.copy(f"cut{count}"), world.root / "cut.tar"
        source.write_bytes(data[:cut])
        said = run_seed(store, source)
        if said == "published":
            published += 1
            assert unpacked(kind, data[:cut]) >= medium.end, what
        else:
            assert said in ("APL-0102", "APL-0103", "APL-0111"), f"{said}, {what}"
            assert served(store) == {A: OLD.digest}, what
        assert problems(store) == [], what
        source.write_bytes(data)
        assert run_seed(store, source) == ("nothing new" if said == "published" else "published"), what
        assert served(store).get(A) not in (None, OLD.digest), what
        assert problems(store) == [], what
        assert list((store / "incoming").iterdir()) == [], what
        shutil.rmtree(store)
    print(f"{published} of them lacked nothing but padding")


@pytest.mark.timeout(900)
def test_a_layout_of_which_any_file_is_cut_publishes_nothing(
    world: World, sampled: random.Random, whole_series: bool
) -> None:
    for count, number in enumerate(numbers(sampled, whole_series, 200, 12)):
        point = random.Random(number)
        layout, store = world.root / "cut-layout", world.copy(f"cut-layout{count}")
        made.write_layout(layout, {A: SMALL})
        victim = point.choice(sorted(path for path in layout.rglob("*") if path.is_file()))
        raw = victim.read_bytes()
        victim.write_bytes(raw[: point.randrange(len(raw))])
        what = f"FAULT={number}: {victim.stat().st_size} of {len(raw)} bytes of {victim.relative_to(layout)}"
        said = run_seed(store, layout)
        assert said.startswith(("APL-01", "APL-02")), f"{said}, {what}"
        assert served(store) == {A: OLD.digest}, what
        assert problems(store) == [], what
        victim.write_bytes(raw)
        assert run_seed(store, layout) == "published", what
        assert problems(store) == [], what
        shutil.rmtree(store)
        shutil.rmtree(layout)


SMALL_DISK = """
import os, shutil, subprocess, sys
from pathlib import Path
from tests.integration.test_faults import problems, run_seed, served
old, source, point, *sizes = sys.argv[1:]
before = None
for size in sizes:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", point], check=True)
    store = Path(point) / "store"
    shutil.copytree(old, store)
    before = served(store)
    said = run_seed(store, Path(source))
    assert said == "published" or (said == "APL-0310" and served(store) == before), (size, said)
    assert problems(store) == [], (size, problems(store))
    subprocess.run(["mount", "-o", "remount,size=64m", point], check=True)
    assert run_seed(store, Path(source)) in ("published", "nothing new"), size
    assert problems(store) == [], (size, problems(store))
    assert served(store) != before, size
    subprocess.run(["umount", point], check=True)
    print(said)
"""


@pytest.mark.timeout(900)
def test_a_small_disk_of_any_size(world: World, sampled: random.Random, whole_series: bool) -> None:
    """The kernel says that it is full, and where it wants to."""
    point = world.root / "small"
    point.mkdir()
    weight = NEW.weight >> 10
    sizes = [str(sampled.randrange(60, weight + 200, 4)) for _ in range(100 if whole_series else 10)]
    words = [sys.executable, "-c", SMALL_DISK, world.root / "old", world.sources["oci"], point]
    said: list[str] = []
    for start in range(0, len(sizes), 10):
        some = sizes[start : start + 10]
        said += run("unshare", "-m", "--propagation", "private", *words, *some).stdout.split()
    assert len(said) == len(sizes)
    assert "APL-0310" in said, sizes


def changed(world: World, form: str, name: str, store: Path) -> list[powerloss.Call]:
    words = [*APPLIANCE, "seed", "--json", "--store", store, world.sources[form]]
    return powerloss.record(words, store, world.root / f"{name}.strace")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", ["oci", "docker"])
@pytest.mark.parametrize("fresh", [False, True], ids=["next", "first"])
def test_power_loss_at_any_call(
    world: World, sampled: random.Random, whole_series: bool, form: str, fresh: bool
) -> None:
    """What was not synced is dropped: all of it, the bytes alone, or any part. A reported success stays."""
    name = f"power-{form}-{fresh}"
    store = world.root / name if fresh else world.copy(name)
    store.mkdir(exist_ok=True)
    disk = powerloss.Disk.of(store)
    calls = changed(world, form, name, store)
    before, after = ({} if fresh else {A: OLD.digest}), served(store)
    assert after == {**after_of(world, form)}
    points = range(len(calls) + 1)
    chosen = set(points if whole_series else sampled.sample(points, min(len(points), 12))) | {len(calls)}
    for played in points:
        if played:
            disk.apply(calls[played - 1])
        for variant in powerloss.VARIANTS if played in chosen else ():
            what = f"{variant}, after call {played} of {len(calls)}: {calls[played - 1].name if played else 'none'}"
            lost = world.root / f"{name}-lost"
            disk.write_out(store, lost, variant, random.Random(f"{name} {played}"))
            if (lost / "index.json").exists():
                found = served(lost)
                assert found in ((after,) if played == len(calls) else (before, after)), what
                assert problems(lost) == [], what
            else:
                assert fresh, what
                assert played < len(calls), what
            assert run_seed(lost, world.sources[form]) in ("published", "nothing new"), what
            assert served(lost) == after, what
            assert problems(lost) == [], what
            assert logged(lost) == ([1] if fresh else [1, 2]), what
            shutil.rmtree(lost)
