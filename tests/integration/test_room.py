"""Room and health with real processes: garbage goes under load, on a full disk and in pieces, and damage mends itself."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.site.appliance.plugins.filter import seed

from appliance.agent.client import AgentClient
from appliance.errors import ApplianceError
from appliance.store.blobs import BlobStore
from appliance.store.gc import GarbageCollector, collect
from appliance.store.uploads import Uploads
from tests.integration import faults
from tests.integration.conftest import APPLIANCE, Node, Site, appliance, free_port, request, run, wait_for
from tests.integration.test_containerd import Containerd
from tests.integration.test_damage import download, file_of, flip, quarantine
from tests.integration.test_faults import numbers, problems
from tests.integration.test_push import Registry, users  # noqa: F401 - the fixture
from tests.unit.store import made

BIG, STAYS = made.image(3, size=24 << 20), made.image(9, size=5 << 20)
NAMES = {"docker.io/library/big:1": BIG, "quay.io/team/stays:1": STAYS}
RAW = BIG.blobs[BIG.layers[0]]


def give_up(node: Node, root: Path) -> None:
    """Move the name three times, so that no generation that is kept has what it pointed to."""
    for number in range(20, 23):
        source = made.write_oci_archive(root / f"{number}.tar", {"docker.io/library/big:1": made.image(number)})
        assert node.seed(source)["published"]


def gc(store: Path, *words: object) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(appliance("gc", "--store", store, "--grace", "0", "--json", *words).stdout)
    return answer


def weight(store: Path) -> int:
    return sum(path.stat().st_size for path in (store / "blobs").rglob("*") if path.is_file())


def is_sound(store: Path) -> bool:
    return appliance("fsck", "--store", store, check=False).returncode == 0


def status(node: Node) -> dict[str, Any]:
    """What the agent says, as ``appliance status --json`` prints it."""
    found: dict[str, Any] = AgentClient(node.store / "agent.sock").status()
    return found


def health(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = status(node)["health"]
    return found


# --------------------------------------------------------------------------------------------- under load


def test_what_a_client_is_pulling_goes_and_the_client_gets_all_of_it(site: Site, root: Path) -> None:
    a, b = site.pair(NAMES)
    assert request(b.port, f"/v2/library/big/blobs/{BIG.layers[0]}")[2] == RAW
    pulls = [download(node.port) for node in (a, b)]
    give_up(a, root)
    # The publisher of this pair knows no peers, and tells nobody.
    AgentClient(b.store / "agent.sock").wake()
    wait_for("b to follow", lambda: b.generation() == 4)
    for node, (client, response) in zip((a, b), pulls, strict=True):
        before, plan = weight(node.store), gc(node.store, "--plan")
        assert weight(node.store) == before
        done = gc(node.store, "--expect", plan["plan_id"])
        assert done["freed_bytes"] == plan["bytes"] == before - weight(node.store)
        assert plan["bytes"] >= len(RAW)
        with client, response:
            assert response.read() == RAW
        # Known by nobody any more, and no byte of it is left to be had.
        status, _, _ = request(node.port, f"/v2/library/big/blobs/{BIG.layers[0]}")
        assert status == 404
        assert gc(node.store)["freed_bytes"] == 0
        # b never held the layers of what stays, and gets them as before.
        for digest, raw in STAYS.blobs.items():
            assert request(node.port, f"/v2/team/stays/blobs/{digest}?ns=quay.io")[2] == raw
        assert is_sound(node.store) or node is b
        assert "Traceback" not in node.process.log


def test_a_containerd_pulls_what_stays_while_the_rest_goes(site: Site, root: Path) -> None:
    a, _ = site.pair(NAMES)
    give_up(a, root)
    containerd = Containerd(root)
    containerd.trust(a.port)
    ended = threading.Event()

    def collect_on() -> None:
        while not ended.is_set():
            gc(a.store)

    thread = threading.Thread(target=collect_on)
    thread.start()
    try:
        for _ in range(3):
            containerd.pull("quay.io/team/stays:1")
            for digest, raw in STAYS.blobs.items():
                assert containerd.blob(digest) == raw
            containerd.ctr("images", "rm", "--sync", "quay.io/team/stays:1")
    finally:
        ended.set()
        thread.join()
        containerd.process.stop()
    assert is_sound(a.store)


@pytest.fixture
def registry(site: Site, users: Path) -> Iterator[Registry]:  # noqa: F811
    """The publisher of a site that takes pushes."""
    node = Registry(site.root / "a", free_port(), [], users, publisher=True)
    site.nodes.append(node)
    node.ready()
    yield node


@pytest.mark.timeout(300)
def test_pushes_and_deletions_beside_collections_without_a_grace_period(
    registry: Registry, sampled: random.Random
) -> None:
    """What a client was told is there is there when its manifest comes, and what was answered 201 stays whole."""
    images = [made.image(number, size=3000, layers=3) for number in range(30, 34)]
    # Two of them share their layers with the others: a client finds those there, and does not send them.
    ended = threading.Event()

    def collect_on() -> None:
        while not ended.is_set():
            done = run(*APPLIANCE, "gc", "--store", registry.store, "--grace", "0", "--json", check=False)
            assert done.returncode == 0, done.stderr

    thread = threading.Thread(target=collect_on)
    thread.start()
    served: dict[str, made.Image] = {}
    try:
        for turn in range(40):
            item, tag = sampled.choice(images), f"t{turn % 5}"
            for digest, raw in item.blobs.items():
                if digest != item.digest and registry.call("HEAD", f"/v2/team/x/blobs/{digest}")[0] != 200:
                    registry.upload("team/x", raw)
            kind = item.descriptor["mediaType"]
            status, _, said = registry.call("PUT", f"/v2/team/x/manifests/{tag}", item.raw, Content_Type=kind)
            assert status == 201, said
            served[tag] = item
            if turn % 3 == 0:
                gone = served.pop(tag)
                assert registry.call("DELETE", f"/v2/team/x/manifests/{gone.digest}")[0] == 202
                served = {name: other for name, other in served.items() if other.digest != gone.digest}
    finally:
        ended.set()
        thread.join()
    for tag, item in served.items():
        assert registry.call("GET", f"/v2/team/x/manifests/{tag}")[2] == item.raw
        for digest, raw in item.blobs.items():
            assert registry.call("GET", f"/v2/team/x/blobs/{digest}")[2] == raw
    assert is_sound(registry.store)


# --------------------------------------------------------------------------------------------- in pieces, on a full disk


def old_and_new(root: Path) -> Path:
    """A store with two generations, of which the older one is given up."""
    blobs = made.open_store(root)
    made.publish(blobs, {"docker.io/library/a:1": made.image(1, layers=5), "docker.io/library/b:1": made.image(2)})
    made.publish(blobs, {"docker.io/library/a:1": made.image(4), "docker.io/library/b:1": made.image(2)})
    made.fill(blobs, [made.image(number) for number in range(5, 15)])
    blobs.quarantine(made.image(2).layers[0])
    made.fill(blobs, [made.image(2)])
    return root


def run_gc(store: Path) -> str:
    blobs = BlobStore(store, reserve=0)
    given = made.generations(blobs), made.pushes(blobs), made.pins(blobs), Uploads(blobs)
    try:
        _, swept = collect(GarbageCollector(blobs, *given, keep=1, grace=0))
    except ApplianceError as error:
        return error.code
    return str(swept.size)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["kill", "full"])
def test_kill_9_or_a_full_disk_at_any_call(
    tmp_path: Path, sampled: random.Random, whole_series: bool, kind: str
) -> None:
    source = old_and_new(tmp_path / "source")
    counted = shutil.copytree(source, tmp_path / "counted")
    calls = faults.run(lambda: run_gc(counted)).calls
    after = {path.name for path in (counted / "blobs").rglob("*")}
    assert calls > 40
    for count, number in enumerate(numbers(sampled, whole_series)):
        point = random.Random(number)
        call = point.randrange(1, calls + 1)
        mode: faults.Mode = "full" if kind == "full" else point.choice(faults.MODES)
        what = f"FAULT={number}: {mode} call {call} of {calls}"
        store = shutil.copytree(source, tmp_path / f"{kind}{count}")
        ended = faults.run(lambda store=store: run_gc(store), call, mode)  # type: ignore[misc]
        assert problems(store) == [], what
        if kind == "full":
            # It needs no room. Where a directory could not be synced it says so, and all is gone that had to go.
            assert ended.said.isdigit() or ended.said == "APL-0310", what
            assert {path.name for path in (store / "blobs").rglob("*")} == after, what
        assert run_gc(store).isdigit(), what
        assert {path.name for path in (store / "blobs").rglob("*")} == after, what
        assert problems(store) == [], what
        shutil.rmtree(store)


FULL_DISK = """
import json, os, subprocess, sys
from pathlib import Path
from tests.integration.test_faults import problems
from tests.integration.test_room import old_and_new, weight
point = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", point], check=True)
store = old_and_new(point / "store")
with (point / "others").open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError as error:
        print(error.strerror)
before = weight(store)
done = subprocess.run([sys.executable, "-m", "appliance", "gc", "--store", store, "--grace", "0", "--json"],
    capture_output=True, text=True)
assert done.returncode == 0, done.stderr
said = json.loads(done.stdout)
assert said["freed_bytes"] == said["bytes"] > 0, said
assert problems(store) == [], problems(store)
assert os.statvfs(point).f_bavail > 0
print("freed", before - weight(store))
"""


def test_a_disk_without_a_free_byte(tmp_path: Path) -> None:
    # pytest alone knows where the collection is, which this module imports.
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    own_mounts = ["unshare", "-m", "--propagation", "private"]
    said = run(*own_mounts, sys.executable, "-c", FULL_DISK, tmp_path, env=paths).stdout
    assert "No space left on device" in said
    assert int(said.split()[-1]) > 0


# --------------------------------------------------------------------------------------------- health


SMALL = {"docker.io/library/small:1": made.image(40, size=300_000)}
LAYER = SMALL["docker.io/library/small:1"].layers[0]


def pair(site: Site) -> tuple[Node, Node]:
    """A publisher and a follower that hold everything, at a site of three."""
    a, b, _ = site.trio()
    a.seed(made.write_oci_archive(site.root / "medium.tar", SMALL))
    wait_for("the generation", lambda: b.generation() == 1)
    for digest, raw in SMALL["docker.io/library/small:1"].blobs.items():
        assert request(b.port, f"/v2/library/small/blobs/{digest}")[2] == raw
    wait_for("b to hold it", lambda: b.holds(LAYER))
    return a, b


def test_a_damaged_blob_is_found_and_mended_without_a_request(site: Site) -> None:
    _, b = pair(site)
    b.process.kill()
    flip(file_of(b, LAYER))
    b.rehash(8 << 20)
    b.ready()
    wait_for("it to be found", lambda: quarantine(b) == [LAYER])
    wait_for("it to be back", lambda: file_of(b, LAYER).exists(), 60)
    assert made.sha(file_of(b, LAYER).read_bytes()) == LAYER
    wait_for("the pass to end", lambda: health(b)["scrubbed"]["passes"] == 1)
    assert health(b)["scrubbed"]["damaged"] == 1
    assert health(b)["lost"] == health(b)["quarantined"] == []
    assert "Traceback" not in b.process.log


def test_repair_fetches_at_once_and_says_what_came_back(site: Site) -> None:
    a, b = pair(site)
    for node in (a, b):
        flip(file_of(node, LAYER if node is b else SMALL["docker.io/library/small:1"].digest))
        done = appliance("fsck", "--store", node.store, "--repair", check=False)
        digest = quarantine(node)[0]
        assert f"{digest} is back" in done.stdout
        assert made.sha(file_of(node, digest).read_bytes()) == digest
        assert is_sound(node.store)


def test_what_only_an_older_generation_needs_is_mended_too(site: Site) -> None:
    """The way back: a collection does not guess what a manifest listed that is gone, and repair brings it back."""
    a, b = pair(site)
    item = SMALL["docker.io/library/small:1"]
    a.seed(made.write_oci_archive(site.root / "next.tar", {"docker.io/library/small:1": made.image(41)}))
    wait_for("b to follow", lambda: b.generation() == 2)
    flip(file_of(a, LAYER))
    file_of(a, item.digest).unlink()
    refused = appliance("gc", "--store", a.store, "--grace", "0", check=False)
    assert refused.returncode == 1
    assert "APL-0321" in refused.stderr
    assert item.digest in refused.stderr
    said = appliance("fsck", "--store", a.store, "--repair", check=False).stdout
    for digest in (item.digest, LAYER):
        assert f"{digest} is back" in said
        assert made.sha(file_of(a, digest).read_bytes()) == digest
    assert gc(a.store)["blobs"] == 0


def test_what_the_whole_site_has_lost_is_named_until_its_medium_is_brought_again(site: Site) -> None:
    a, b = pair(site)
    for node in (b, a):
        file_of(node, LAYER).unlink()
    done = appliance("fsck", "--store", a.store, "--repair", check=False)
    medium = str(site.root / "medium.tar")
    for words in (f"{LAYER} is lost", "docker.io/library/small:1", medium):
        assert words in done.stdout
    (lost,) = health(a)["lost"]
    assert (lost["digest"], lost["images"]) == (LAYER, ["docker.io/library/small:1"])
    assert medium in lost["medium"]
    assert a.process.log.count("APL-0421") == 1
    assert f"{LAYER} is lost" in appliance("fsck", "--store", a.store, check=False).stdout
    # A run of the playbooks gives up waiting for it, and says what to bring.
    serves, asked = status(a)["generation"], {"rc": 0, "stdout": json.dumps(status(a)), "attempts": 45}
    assert seed.seed_waited(asked, serves)
    lacks = seed.seed_lacks(asked, serves)
    assert "of docker.io/library/small:1: bring 1 archive: medium.tar" in lacks and f" at {medium} (" in lacks
    assert not seed.seed_waited({**asked, "attempts": 44}, serves)
    assert not a.seed(medium)["published"]
    wait_for("it to be found", lambda: health(a)["lost"] == [], 60)
    assert seed.seed_lacks({"rc": 0, "stdout": json.dumps(status(a))}, serves) == ""
    assert is_sound(a.store)
    assert request(b.port, f"/v2/library/small/blobs/{LAYER}")[2] == SMALL["docker.io/library/small:1"].blobs[LAYER]


def test_with_a_node_off_nothing_is_called_lost(site: Site) -> None:
    a, b = pair(site)
    b.process.kill()
    a.process.kill()
    file_of(b, LAYER).unlink()
    flip(file_of(b, SMALL["docker.io/library/small:1"].digest))
    b.start()
    b.ready()
    answer = AgentClient(b.store / "agent.sock").repair()
    assert answer["lost"] == []


def test_a_limit_stops_an_import_with_the_sums(root: Path) -> None:
    store, config = root / "store", root / "config.yaml"
    config.write_text(f"node: a\nstore: {store}\nstore_limit: 1000000\n")
    source = made.write_oci_archive(root / "big.tar", NAMES)
    done = appliance("seed", "--store", store, "--config", config, source, check=False)
    assert done.returncode == 1
    for words in ("APL-0310", "of the 976.6 KiB that mirror_store_limit allows", "'appliance gc' would free up to"):
        assert words in done.stderr
    small = made.write_oci_archive(root / "small.tar", SMALL)
    appliance("seed", "--store", store, "--config", config, small)
    assert is_sound(store)
