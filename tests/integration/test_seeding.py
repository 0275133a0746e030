"""Seeding under kill -9 and on a full disk: the generation before stays, and the rerun finishes."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance.store.blobs import BlobStore
from appliance.store.fsck import check
from tests.integration.conftest import APPLIANCE, Process, appliance, run, wait_for
from tests.unit.store import made

A, B = "docker.io/library/a:1", "docker.io/library/b:1"
OLD, NEW = made.image(1), made.image(2, size=4 << 20, layers=6)
SAMPLES = 6


def served(store: Path) -> dict[str, str]:
    current = made.generations(BlobStore(store)).current()
    return {name: entry.descriptor.digest for name, entry in current.names.items()} if current else {}


def is_sound(store: Path) -> None:
    blobs = BlobStore(store)
    assert check(made.store(blobs)).problems == []


@pytest.fixture(scope="module")
def points() -> list[float]:
    """Parts of a whole run at which it is killed; ``KILL_SEED`` repeats a series, ``KILL_POINTS`` lengthens it."""
    seed = int(os.environ.get("KILL_SEED", random.SystemRandom().randrange(10**6)))
    count = int(os.environ.get("KILL_POINTS", SAMPLES))
    print(f"KILL_SEED={seed}")
    sampler = random.Random(seed)
    return [sampler.uniform(0.2, 1.05) for _ in range(count)]


def test_kill_9_at_any_point_leaves_a_whole_generation(root: Path, points: list[float]) -> None:
    old = made.write_oci_archive(root / "old.tar", {A: OLD})
    new = made.write_oci_archive(root / "new.tar", {A: NEW, B: NEW})
    begun = time.monotonic()
    appliance("seed", "--store", root / "whole", new)
    whole = time.monotonic() - begun
    before, after = {A: OLD.digest}, {A: NEW.digest, B: NEW.digest}
    killed = 0
    for number, point in enumerate(points):
        store = root / f"store{number}"
        appliance("seed", "--store", store, old)
        process = Process([*APPLIANCE, "seed", "--store", str(store), str(new)], root / "log")
        try:
            process.popen.wait(whole * point)
        except subprocess.TimeoutExpired:
            killed += 1
        process.kill()
        found = served(store)
        assert found in (before, after), point
        is_sound(store)
        appliance("seed", "--store", store, new)
        assert served(store) == after
        is_sound(store)
        assert list((store / "incoming").iterdir()) == []
        lines = (store / "journal.jsonl").read_text().splitlines()
        assert [json.loads(line)["number"] for line in lines] == [1, 2]
    assert killed, f"no run was killed, points {points}"


FULL_DISK = r"""
set -eu
store=$1/mnt/store old=$2 new=$3; shift 3
mount -t tmpfs -o size=76m tmpfs "$(dirname "$store")"
"$@" seed --store "$store" "$old" >&2
before=$(sha256sum < "$store/index.json")
rc=0; "$@" seed --json --store "$store" "$new" 2> error >&2 || rc=$?
[ "$rc" = 1 ]
[ "$before" = "$(sha256sum < "$store/index.json")" ]
"$@" fsck --store "$store" >&2
rc=0; "$@" plan --store "$store" "$new" 2> plan_error >&2 || rc=$?
[ "$rc" = 1 ]
mount -o remount,size=120m "$(dirname "$store")"
"$@" seed --json --store "$store" "$new" > answer
"$@" fsck --store "$store" >&2
"$@" images --json --store "$store" > images
"""


def test_a_full_disk_publishes_nothing_and_the_rerun_completes(root: Path) -> None:
    (root / "mnt").mkdir()
    old = made.write_oci_archive(root / "old.tar", {A: OLD})
    new = made.write_oci_archive(root / "new.tar", {A: NEW, B: NEW})
    run("unshare", "-m", "--propagation", "private", "sh", "-c", FULL_DISK, "sh", root, old, new, *APPLIANCE, cwd=root)
    error = json.loads((root / "error").read_text().splitlines()[-1])
    assert error["code"] == "APL-0310"
    assert "APL-0310" in (root / "plan_error").read_text()
    assert json.loads((root / "answer").read_text())["published"] is True
    images = {item["name"]: item["digest"] for item in json.loads((root / "images").read_text())["images"]}
    assert images == {A: NEW.digest, B: NEW.digest}


REALLY_FULL = """
import sys
from pathlib import Path
from appliance.errors import ApplianceError
from appliance.store.blobs import BlobStore
store = BlobStore(Path(sys.argv[1]), reserve=0)
store.create()
try:
    store.put((bytes(1 << 20) for _ in range(64)), where="a stream of unknown size")
except ApplianceError as error:
    assert list((store.root / "incoming").iterdir()) == [], "the half blob is still there"
    print(error.code)
"""


def test_a_disk_that_fills_up_under_a_blob(root: Path) -> None:
    (root / "mnt").mkdir()
    script = 'mount -t tmpfs -o size=8m tmpfs "$1" && exec "$2" -c "$3" "$1/store"'
    done = run("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", root / "mnt", sys.executable, REALLY_FULL)  # fmt: skip
    assert done.stdout.strip() == "APL-0310"


def _private_medium(root: Path) -> tuple[Path, Path]:
    """Make a store with an owner other than root, and a medium that only root may read."""
    root.chmod(0o755)
    store, medium = root / "store", root / "medium"
    store.mkdir()
    os.chown(store, 65534, 65534)
    medium.mkdir(mode=0o700)
    return store, medium


def test_root_opens_the_sources_and_reads_nothing_of_them(root: Path) -> None:
    """Plan and seed read a medium as the owner of the store, through descriptors that root opened before."""
    store, medium = _private_medium(root)
    source = made.write_oci_archive(medium / "a.tar", {A: OLD})
    source.chmod(0o600)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    source.with_name("a.tar.sha256").write_text(f"{digest}  a.tar\n")
    for named in (source, medium):
        appliance("plan", "--store", store, named)
    appliance("seed", "--store", store, medium)
    assert {path.stat().st_uid for path in store.rglob("*")} == {65534}
    source.with_name("a.tar.sha256").write_text(f"{'0' * 64}  a.tar\n")
    refused = appliance("plan", "--store", store, medium, check=False)
    assert (refused.returncode, refused.stderr.split(":")[0]) == (1, "APL-0115")
    missing = appliance("plan", "--store", store, medium / "b.tar", check=False)
    assert (missing.returncode, missing.stderr.split(":")[0]) == (1, "APL-0101")
    (medium / "link.tar").symlink_to("/etc/shadow")
    source.with_name("a.tar.sha256").unlink()
    appliance("seed", "--store", store, medium)


def test_root_opens_all_parts_of_an_archive(root: Path) -> None:
    """A haul in parts on a medium that only root may read, each with its checksum, or one for the whole."""
    store, medium = _private_medium(root)
    raw = made.write_oci_archive(root / "whole.tar", {A: OLD}).read_bytes()
    for number in range(3):
        part = medium / f"haul.tar.{number:03}"
        part.write_bytes(raw[number * len(raw) // 3 : (number + 1) * len(raw) // 3])
        part.chmod(0o600)
    whole = medium / "haul.tar.sha256"
    whole.write_text(f"{'0' * 64}  haul.tar\n")
    refused = appliance("plan", "--store", store, medium, check=False)
    assert (refused.returncode, refused.stderr.split(":")[0]) == (1, "APL-0115")
    whole.write_text(f"{hashlib.sha256(raw).hexdigest()}  haul.tar\n")
    for named in (medium, medium / "haul.tar.001"):
        appliance("plan", "--store", store, named)
    appliance("seed", "--store", store, medium)


def test_root_knows_archives_by_their_first_bytes_and_the_owner_of_the_store_reads_them(root: Path) -> None:
    """A medium that only root may read, with an archive without the name of one, parts of ``split``, and what is no archive."""
    store, medium = _private_medium(root)
    raw = made.write_oci_archive(root / "whole.tar", {A: OLD}).read_bytes()
    other = made.write_oci_archive(root / "other.tar", {B: NEW}).read_bytes()
    files = {
        "app": raw,
        "b.tar.aa": other[:5000],
        "b.tar.ab": other[5000:],
        "notes.gz": gzip.compress(b"notes"),
        "k3s": b"x",
    }
    for name, data in files.items():
        (medium / name).write_bytes(data)
        (medium / name).chmod(0o600)
    listed = medium / "SHA256SUMS"
    listed.write_text(f"{hashlib.sha256(raw).hexdigest()}  app\n{'0' * 64}  gone.tar\n")
    refused = appliance("plan", "--store", store, medium, check=False)
    assert (refused.returncode, refused.stderr.split(":")[0]) == (1, "APL-0157")
    listed.write_text(f"{hashlib.sha256(raw).hexdigest()}  app\n")
    shown = json.loads(appliance("seed", "--store", store, "--json", medium).stdout)
    assert {Path(item["path"]).name: item["kind"] for item in shown["left_out"]} == {
        "notes.gz": "no-images",
        "k3s": "other",
    }
    assert {item["name"] for item in shown["added"]} == {A, B}
    assert {path.stat().st_uid for path in store.rglob("*")} == {65534}


def test_root_opens_all_of_a_layout_and_reads_nothing_of_it(root: Path) -> None:
    """More files than a process may have open at first, in folders that only root may look into."""
    root.chmod(0o755)
    store, many = root / "store", made.image(5, layers=1100)
    store.mkdir()
    os.chown(store, 65534, 65534)
    medium = root / "medium"
    layout = made.write_layout(medium / "layout", {A: many})
    left_out = layout / "blobs" / many.layers[7].replace(":", "/")
    for path in (medium, *medium.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    for named in (layout, medium):
        appliance("plan", "--store", store, named)
    raw = left_out.read_bytes()
    left_out.unlink()
    refused = appliance("plan", "--store", store, layout, check=False)
    assert (refused.returncode, refused.stderr.split(":")[0]) == (1, "APL-0112")
    left_out.symlink_to("/etc/shadow")
    refused = appliance("plan", "--store", store, layout, check=False)
    assert (refused.returncode, refused.stderr.split(":")[0]) == (1, "APL-0101")
    left_out.unlink()
    left_out.write_bytes(raw)
    left_out.chmod(0o600)
    appliance("seed", "--store", store, medium)
    assert {path.stat().st_uid for path in store.rglob("*")} == {65534}


def test_the_child_does_not_outlive_the_command(root: Path) -> None:
    """Also where the command alone is killed, and not its group."""
    big = made.write_oci_archive(root / "big.tar", {A: made.image(3, size=64 << 20)})
    store = root / "store"
    process = Process([*APPLIANCE, "seed", "--store", str(store), str(big)], root / "log")
    tasks = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children")
    child = wait_for("the child", lambda: tasks.read_text().split())[0]
    process.popen.kill()
    process.popen.wait(20)
    wait_for("the end of the child", lambda: not Path(f"/proc/{child}").exists() or "Z" in _state(child))


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


# Of a small process: one that is started by a large one counts what that had, until it runs its own program.
MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


@pytest.mark.parametrize("form", ["oci", "docker", "zstd", "layout"])
def test_memory_does_not_grow_with_the_input(root: Path, form: str) -> None:
    """150 MB beside the window of the decompressor, here 128 MiB for zstd; the input has 256 MiB."""
    one = made.image(4, size=128 << 20, layers=2)
    source, most = root / "x.tar", 150 * 10**6
    if form == "layout":
        source = made.write_layout(root / "layout", {A: one})
    elif form == "docker":
        made.write_docker_archive(source, A, one)
    else:
        made.write_oci_archive(source, {A: one})
    if form == "zstd":
        run("zstd", "-q", "-1", "--long=27", "--rm", source)
        source, most = source.with_name("x.tar.zst"), most + (128 << 20)
    done = run(sys.executable, "-c", MEASURED, *APPLIANCE, "seed", "--store", root / "store", source)
    assert int(done.stdout) <= most


def test_a_dirty_ext4_is_not_replayed(root: Path) -> None:
    """The medium was pulled out while it was written: its journal waits to be replayed, and nobody does that here."""
    image, point, store = root / "stick.img", root / "stick", root / "store"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    run("mkfs.ext4", "-q", "-F", image)
    made.write_oci_archive(root / "a.tar", {A: OLD})
    script = """
set -eu
mount -o loop "$1" "$2"
cp "$3" "$2/a.tar"
sync -f "$2/a.tar"
touch "$2/later"
# What a stick holds that is pulled out now: the journal has what its tables do not have yet.
sync "$2/later"
cp --sparse=always "$1" "$1.dirty"
umount "$2"
dumpe2fs -h "$1.dirty" 2>&1 | grep -q needs_recovery
before=$(sha256sum < "$1.dirty")
mount -o loop,ro,noload "$1.dirty" "$2"
shift 3
"$@"
umount "$MEDIUM"
[ "$before" = "$(sha256sum < "$IMAGE.dirty")" ]
"""
    env = {**os.environ, "MEDIUM": str(point), "IMAGE": str(image)}
    words = [*APPLIANCE, "seed", "--store", store, point]
    run("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", image, point, root / "a.tar", *words, env=env)  # fmt: skip
    assert served(store) == {A: OLD.digest}


PULLED = """
set -eu
image=$1 point=$2 medium=$3 store=$4; shift 4
mkfs.ext4 -q -F "$image"
mount -o loop "$image" "$point"
cp -r "$medium" "$point/medium"
umount "$point"
mount -o loop,ro,noload "$image" "$point"
truncate -s 16M "$image"
rc=0; "$@" seed --store "$store" "$point/medium" > "$image.said" 2>&1 || rc=$?
umount "$point"
exit $((rc - 1))
"""


@pytest.mark.parametrize("form", ["archive", "layout"])
def test_a_stick_that_is_pulled_out_in_the_middle(root: Path, form: str) -> None:
    """From some byte on, reading fails with EIO; what was served stays, and the medium itself goes in later."""
    image, medium, store, new = (
        root / "stick.img",
        root / "medium",
        root / "store",
        made.image(6, size=8 << 20, layers=6),
    )
    (root / "point").mkdir()
    with image.open("wb") as file:
        file.truncate(80 << 20)
    if form == "archive":
        made.write_oci_archive(medium / "a.tar", {A: new})
    else:
        made.write_layout(medium, {A: new})
    appliance("seed", "--store", store, made.write_oci_archive(root / "old.tar", {A: OLD}))
    run("unshare", "-m", "--propagation", "private", "sh", "-c", PULLED, "sh", image, root / "point", medium, store, *APPLIANCE)  # fmt: skip
    said = image.with_suffix(".img.said").read_text()
    assert said.startswith("APL-0116"), said
    assert "Input/output error" in said
    assert served(store) == {A: OLD.digest}
    is_sound(store)
    appliance("seed", "--store", store, medium)
    assert served(store) == {A: new.digest}
    is_sound(store)
    assert list((store / "incoming").iterdir()) == []


def test_no_time_of_access_is_left_on_the_medium(root: Path) -> None:
    source = made.write_oci_archive(root / "a.tar", {A: OLD})
    os.utime(source, (1, 2))
    appliance("seed", "--store", root / "store", source)
    assert source.stat().st_atime == 1
