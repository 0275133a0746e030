"""Seeding under kill -9 and on a full disk: the generation before stays, and the rerun finishes."""

from __future__ import annotations

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
from tests.integration.conftest import APPLIANCE, Process, appliance, run
from tests.unit.store import made

A, B = "docker.io/library/a:1", "docker.io/library/b:1"
OLD, NEW = made.image(1), made.image(2, size=4 << 20, layers=6)
SAMPLES = 6


def served(store: Path) -> dict[str, str]:
    current = made.generations(BlobStore(store)).current()
    return {name: entry.descriptor.digest for name, entry in current.names.items()} if current else {}


def is_sound(store: Path) -> None:
    blobs = BlobStore(store)
    assert check(blobs, made.generations(blobs), made.pushes(blobs), whole=True).problems == []


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


def test_root_reads_no_archive_as_root(root: Path) -> None:
    """What plan and seed read, they read as the owner of the store."""
    root.chmod(0o755)
    store = root / "store"
    store.mkdir()
    os.chown(store, 65534, 65534)
    source = made.write_oci_archive(root / "a.tar", {A: OLD})
    source.chmod(0o600)
    for command in ("plan", "seed"):
        refused = appliance(command, "--store", store, source, check=False)
        assert (refused.returncode, refused.stderr.split(":")[0]) == (1, "APL-0101")
        assert "Permission denied" in refused.stderr
    source.chmod(0o644)
    appliance("seed", "--store", store, source)
    assert {path.stat().st_uid for path in store.rglob("*")} == {65534}
