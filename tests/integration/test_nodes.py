"""The list of nodes changes under real processes: nobody is restarted, a publisher is lost, and one leaves with the only copy."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import pki
from tests.integration.conftest import APPLIANCE, Process, appliance, free_port, wait_for
from tests.keys import certify
from tests.unit.store import made

A, B, C = "docker.io/library/a:1", "docker.io/library/b:1", "docker.io/library/c:1"
NODES = ("a", "b", "c")


class Cluster:
    """Three nodes with their keys, each a peer listener and an agent."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ports = {name: free_port() for name in NODES}
        self.running: dict[str, list[Process]] = {}
        pki.init_ca(root / "ca")
        for name in NODES:
            certify(root / "ca", root / f"pki-{name}", name, "127.0.0.1")

    def store(self, name: str) -> Path:
        return self.root / f"store-{name}"

    def config(self, name: str) -> Path:
        return self.root / f"{name}.yaml"

    def list(self, nodes: Sequence[str], seeds: Sequence[str], *, on: Sequence[str] | None = None) -> None:
        """Give nodes a list, as role mirror does: by a rename over the file that is there."""
        for name in on or nodes:
            document = {
                "node": name,
                "store": str(self.store(name)),
                "pki": str(self.root / f"pki-{name}"),
                "agent_socket": str(self.root / f"{name}.sock"),
                "peer_listen": f"127.0.0.1:{self.ports[name]}",
                "free_percent": 0,
                "mirror_copies": 1,
                "seeds": list(seeds),
                "peers": [
                    {"id": node, "address": "127.0.0.1", "url": f"https://127.0.0.1:{self.ports[node]}"}
                    for node in nodes
                ],
            }
            new = self.root / f"{name}.new"
            new.write_text(yaml.safe_dump(document))
            new.rename(self.config(name))

    def start(self, *names: str) -> None:
        for name in names:
            self.running[name] = [
                Process(
                    [*APPLIANCE, "unit", unit, "--config", str(self.config(name))], self.root / f"{unit}-{name}.log"
                )
                for unit in ("peer", "agent")
            ]
        for name in names:
            wait_for(f"{name} to answer", functools.partial(self._answers, name))

    def _answers(self, name: str) -> bool:
        return appliance("status", "--config", self.config(name), check=False).returncode == 0

    def kill(self, *names: str) -> None:
        for name in names:
            for process in self.running.pop(name, []):
                process.kill()

    def status(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(appliance("status", "--config", self.config(name), "--json").stdout)
        return answer

    def serves(self, name: str) -> int | None:
        generation = self.status(name)["generation"]
        return generation["number"] if generation else None

    def is_settled(self, name: str) -> bool:
        return bool(self.status(name)["standing"]["settled"])

    def seed(self, name: str, images: dict[str, made.Image], *, check: bool = True) -> str:
        medium = made.write_oci_archive(self.root / "medium.tar", images)
        done = appliance("seed", "--store", self.store(name), "--config", self.config(name), medium, check=check)
        return done.stdout + done.stderr


@pytest.fixture
def cluster(root: Path) -> Iterator[Cluster]:
    """Three nodes that follow a, none of them started."""
    made_one = Cluster(root)
    made_one.list(NODES, ["a"])
    yield made_one
    made_one.kill(*NODES)


def test_the_heir_of_a_lost_publisher_goes_on_from_the_newest_that_is_left(cluster: Cluster) -> None:
    one, two, three = (made.image(number, size=1000) for number in (1, 2, 3))
    cluster.start("a")
    assert "APL-0341" in cluster.seed("a", {A: one}, check=False), "b and c may have something"
    assert not (cluster.store("a") / "journal.jsonl").exists()
    cluster.start("b", "c")
    wait_for("a to be sure", lambda: cluster.is_settled("a"))
    assert "published generation 1" in cluster.seed("a", {A: one})
    wait_for("b and c", lambda: {cluster.serves("b"), cluster.serves("c")} == {1})
    cluster.kill("b")
    assert "published generation 2" in cluster.seed("a", {B: two}), "one that is off holds up nobody"
    wait_for("c", lambda: cluster.serves("c") == 2)
    pids = [process.popen.pid for process in cluster.running["c"]]
    cluster.kill("a")
    cluster.list(("b", "c"), ["b"])
    cluster.start("b")
    wait_for("b to be sure", lambda: cluster.is_settled("b"))
    assert cluster.serves("b") == 2, "which c alone had, signed by a"
    assert "published generation 3" in cluster.seed("b", {C: three})
    wait_for("c", lambda: cluster.serves("c") == 3)
    assert [process.popen.pid for process in cluster.running["c"]] == pids
    assert cluster.status("c")["publisher"] == "b"
    # The lost one comes back with its old list: it is refused, and its own generation goes nowhere.
    cluster.start("a")
    wait_for("a to be refused", lambda: cluster.status("a")["standing"]["silent"] == ["b", "c"])
    assert all(peer["reason"] == "answered 403" for peer in cluster.status("a")["peers"])
    assert (cluster.serves("b"), cluster.serves("c")) == (3, 3)


def test_a_publisher_whose_store_was_lost_counts_on(cluster: Cluster) -> None:
    cluster.start(*NODES)
    wait_for("a to be sure", lambda: cluster.is_settled("a"))
    for number, name in enumerate((A, B), 1):
        cluster.seed("a", {name: made.image(number, size=1000)})
    wait_for("b and c", lambda: {cluster.serves("b"), cluster.serves("c")} == {2})
    cluster.kill("a", "c")
    cluster.store("a").rename(cluster.root / "gone")
    cluster.start("a")
    wait_for("a", lambda: cluster.serves("a") == 2)
    assert "no answer from c" in cluster.seed("a", {C: made.image(3)}, check=False)
    taken = appliance("take-over", "--config", cluster.config("a"), "--without", "c")
    assert "a is the publisher" in taken.stdout
    assert "published generation 3" in cluster.seed("a", {C: made.image(3)})


def test_what_only_a_leaving_node_holds(cluster: Cluster) -> None:
    one = made.image(1, size=1000)
    cluster.start(*NODES)
    wait_for("a to be sure", lambda: cluster.is_settled("a"))
    cluster.seed("a", {A: one})
    wait_for("b and c", lambda: {cluster.serves("b"), cluster.serves("c")} == {1})
    asked = ["leaving", "--config", cluster.config("b"), "--stay", "b", "--stay", "c", "--json"]
    # Its configuration and its layer: with one copy, on the publisher.
    assert len(json.loads(appliance(*asked).stdout)["only_there"]) == 2
    cluster.kill("a")
    refused = appliance(*asked, check=False)
    assert (refused.returncode, "APL-0411" in refused.stderr, A in refused.stderr) == (1, True, True)
    assert appliance(*asked, "--anyway").returncode == 0
    cluster.start("a")
    brought = json.loads(appliance(*asked, "--fetch").stdout)
    assert (brought["fetched"], brought["only_there"], brought["at_risk"]) == (2, [], [])
    cluster.kill("a")
    assert json.loads(appliance(*asked).stdout)["at_risk"] == []
    cluster.list(("b", "c"), ["b"])
    wait_for("b to be sure", lambda: cluster.is_settled("b"))
    assert appliance("fsck", "--store", cluster.store("b"), "--config", cluster.config("b")).returncode == 0
