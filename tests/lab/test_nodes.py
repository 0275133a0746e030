"""The list of nodes changes and the appliance is replaced by another release, on real hosts, while they serve.

The order of the tests is the order of one site's life: an older release, the update, an update that fails, a node more, another
address, a publisher that goes for good, and one that comes back from nothing.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab import releases
from tests.lab.base import REPOSITORY
from tests.lab.host import Host
from tests.lab.images import NGINX, ImageSpec, docker_archive, make_stick
from tests.lab.scenario import Luggage, inventory, pack
from tests.lab.site import Site, unique_id
from tests.lab.story import EXTRA, STICK, UNITS, Run, digest_of, playbook, status, until

# What of this the life of a site has too, or real processes in tests/integration, is in every run; the whole of it in `make test-all`.
pytestmark = [pytest.mark.lab, pytest.mark.whole, pytest.mark.timeout(1500)]

COMMAND = "/opt/appliance/current/venv/bin/appliance"
LATER = ImageSpec("ksd.test.com/ksd/later:1", page="hello from later", payload_mib=1)
# The mirror alone: K3s has lab tests of its own, and nothing here restarts it.
TAGS = "firewall,mirror,seed"
_REFUSED = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The digest of nothing at all."""

_PULL = """
cd /run; rm -f lab-stop lab-pulled lab-failed; touch lab-pulled lab-failed
nohup sh -c '
while ! test -e lab-stop; do
  digest=$(curl -sf -m 20 "http://127.0.0.1:5000/v2/{path}/manifests/{tag}?ns={registry}" | tee lab-manifest | sha256sum | cut -d" " -f1)
  test "$digest" = "{digest}" || echo "manifest: $digest" >> lab-failed
  for layer in {layers}; do
    sum=$(curl -sf -m 20 "http://127.0.0.1:5000/v2/{path}/blobs/sha256:$layer?ns={registry}" | sha256sum | cut -d" " -f1)
    test "$sum" = "$layer" || echo "layer $layer: $sum" >> lab-failed
  done
  echo >> lab-pulled
done; touch lab-ended' > /dev/null 2>&1 &
"""


@dataclass
class Life:
    """The site, and what the operator does with it.

    :param nodes: the hosts in the inventory.
    :param seeds: hosts of ``mirror_seeds``, the publisher first.
    :param refuses: whether the older release lets go of its listening socket when it stops, as 0.1.0 does.
    """

    site: Site
    luggage: Luggage
    directory: Path
    refuses: bool = False
    nodes: Sequence[str] = ("a", "b")
    seeds: Sequence[str] = ("a",)
    variables: dict[str, Any] = field(default_factory=lambda: {"mirror_copies": 1})
    host_variables: dict[str, dict[str, Any]] = field(default_factory=dict)

    def host(self, name: str) -> Host:
        return self.site.hosts[name]

    def run(self, *arguments: str, expect: int | None = 0, tree: Path = REPOSITORY) -> Run:
        """Run ``site.yml`` over the inventory as it is now."""
        hosts = inventory(
            self.site, self.luggage, self.directory / "inventory", nodes=self.nodes, seeds=self.seeds, **self.variables
        )
        document = yaml.safe_load(hosts.read_text())
        for name, more in self.host_variables.items():
            document["all"]["hosts"][name] |= more
        hosts.write_text(yaml.safe_dump(document))
        words = ("-e", "confirm=yes", "--tags", TAGS, *arguments)
        return playbook(self.site, "site.yml", hosts, *words, expect=expect, tree=tree)

    def processes(self, *names: str) -> dict[str, str]:
        """Which processes the units of these nodes are."""
        show = f"systemctl show {' '.join(UNITS)} -p MainPID --value"
        return {name: self.host(name).run(show).stdout for name in names}

    def releases(self) -> dict[str, str]:
        """The name of the release that runs on each node."""
        return {
            name: self.host(name).run("basename $(readlink /opt/appliance/current)").stdout.strip()
            for name in self.nodes
        }

    @contextlib.contextmanager
    def pulls(self) -> Iterator[dict[str, list[str]]]:
        """With every node's mirror asked for an image all the time; gives what failed by node, once it is over."""
        failed: dict[str, list[str]] = {}
        for name in self.nodes:
            self.host(name).run(_PULL.format(**_image(self.host(name))))
        try:
            yield failed
        finally:
            for name in self.nodes:
                host = self.host(name)
                pulled = int(host.run("wc -l < /run/lab-pulled").stdout)
                until(lambda host=host, n=pulled: int(host.run("wc -l < /run/lab-pulled").stdout) > n + 1, "a pull")
                host.run("touch /run/lab-stop")
                until(lambda host=host: host.run("test -e /run/lab-ended", check=False).returncode == 0, "its end")
                failed[name] = host.run("cat /run/lab-failed; rm -f /run/lab-*").stdout.splitlines()


def _image(host: Host) -> dict[str, str]:
    """What is asked for: the image's manifest by tag, and each of its layers."""
    registry, _, rest = NGINX.name.partition("/")
    path, _, tag = rest.partition(":")
    digest = digest_of(host, NGINX.name).partition(":")[2]
    manifest = json.loads(host.run(f"cat /var/lib/appliance/blobs/sha256/{digest}").stdout)
    layers = " ".join(layer["digest"].partition(":")[2] for layer in manifest["layers"])
    return {"registry": registry, "path": path, "tag": tag, "digest": digest, "layers": layers}


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, whole_series: bool) -> Iterator[Life]:
    """A site of two nodes that an older release was installed on by its own playbooks: with ``--whole-series`` the first
    one, else this one under an older version.
    """
    Site.sweep()
    directory = tmp_path_factory.mktemp("controller")
    luggage = pack(directory)
    # Its own copy: the one in the cache belongs to every checkout on this machine.
    new = shutil.copytree(luggage.wheelhouse, directory / "wheelhouse")
    tree = directory / "older"
    older = releases.first_release(tree) if whole_series else releases.this_release(tree, "0.1.9")
    site = Site(unique_id())
    site.up()
    try:
        made = Life(site, luggage, directory, refuses=whole_series)
        made.host("a").attach_stick(luggage.stick, STICK)
        made.variables["mirror_wheelhouse"] = str(releases.wheelhouse(older))
        made.run(tree=older)
        made.host("a").detach_stick(STICK)
        made.variables["mirror_wheelhouse"] = str(new)
        yield made
        assert site.sink_log() == [], "something tried to leave the site"
    finally:
        site.down()


def test_the_appliance_is_updated_node_by_node_and_no_pull_fails(life: Life) -> None:
    before = life.releases()
    with life.pulls() as failed:
        run = life.run()
    # In the second in which 0.1.0 gives its socket back, whoever comes is refused and tries again; wrong bytes get nobody.
    wrong = [line for lines in failed.values() for line in lines if not (life.refuses and _REFUSED in line)]
    assert wrong == []
    after = life.releases()
    assert all(after[name] != before[name] for name in "ab")
    assert [line for line in run.output.splitlines() if "restarts (or starts)" in line], "the plan says so"
    for name in "ab":
        found = status(life.host(name))
        assert (found["generation"]["number"], [peer["state"] for peer in found["peers"]]) == (1, ["up"])
        assert life.host(name).run("stat -c '%a %U' /opt/appliance/fallback.json").stdout.split() == ["600", "root"]


def test_a_release_that_does_not_come_up_is_taken_back_and_no_other_node_is_touched(life: Life, tmp_path: Path) -> None:
    broken = releases.wheelhouse(releases.this_release(tmp_path / "broken", "9.9.9", broken=True))
    before, processes = life.releases(), life.processes("a", "b")
    good = life.variables["mirror_wheelhouse"]
    life.variables |= {"mirror_wheelhouse": str(broken), "mirror_start_timeout": 5}
    try:
        run = life.run(expect=None)
    finally:
        life.variables["mirror_wheelhouse"] = good
    assert run.code not in (0, None)
    said = " ".join(run.output.split())
    assert "did not come up with release 9.9.9" in said and "APL-0769" in said, run.output[-4000:]
    assert "broken on purpose" in said
    assert life.releases() == before
    touched = [name for name in "ab" if life.processes(name)[name] != processes[name]]
    assert len(touched) == 1, "one node was tried, and the other one not"
    for name in "ab":
        assert status(life.host(name))["generation"]["number"] == 1
        assert life.host(name).run("curl -sf http://127.0.0.1:5000/v2/_catalog").stdout


def test_a_node_more_restarts_nobody(life: Life) -> None:
    processes = life.processes("a", "b")
    life.nodes = ("a", "b", "c")
    run = life.run()
    assert "changes, without a restart" in run.output
    assert life.processes("a", "b") == processes
    for name in "abc":
        peers = {peer["id"]: peer["state"] for peer in status(life.host(name))["peers"]}
        assert peers == {other: "up" for other in "abc" if other != name}
    assert status(life.host("c"))["generation"] == status(life.host("a"))["generation"]


def test_a_node_at_another_address_is_found_there(life: Life) -> None:
    processes, moved = life.processes("a", "b"), "10.77.0.23"
    # The old one stays for the controller's SSH; what c sends to the others comes from the new one.
    life.host("c").run(f"ip address add {moved}/24 dev host0 && ip route change 10.77.0.0/24 dev host0 src {moved}")
    life.host_variables["c"] = {"node_ip": moved}
    life.run()
    assert life.processes("a", "b") == processes
    for name in "ab":
        (peer,) = [peer for peer in status(life.host(name))["peers"] if peer["id"] == "c"]
        assert (peer["address"], peer["state"]) == (moved, "up")
    assert all(peer["state"] == "up" for peer in status(life.host("c"))["peers"])


def test_the_only_one_that_holds_something_does_not_leave_unseen(life: Life) -> None:
    """With one copy of everything, on the publisher. It is off, and the operator takes it out of the inventory."""
    life.nodes, life.seeds = ("b", "c"), ("b",)
    life.host("a").power_off()
    try:
        refused = life.run(expect=None)
    finally:
        life.host("a").boot()
    said = " ".join(refused.output.split())
    assert refused.code not in (0, None) and "APL-0411" in said and NGINX.name in said, refused.output[-4000:]
    assert refused.changed == 0
    assert status(life.host("b"))["publisher"] == "a"


def test_what_only_it_holds_is_fetched_first_and_the_next_seed_publishes(life: Life) -> None:
    until(lambda: life.host("a").run(f"{COMMAND} status", check=False).returncode == 0, "a to be back")
    with life.pulls() as failed:
        run = life.run()
    assert failed == {"b": [], "c": []}
    assert "b publishes from now on; it was a" in run.output
    assert "fetched here first" in " ".join(run.output.split())
    found = status(life.host("b"))
    assert (found["publisher"], found["standing"]["settled"], found["wanted_missing"]) == ("b", True, 0)
    assert life.host("b").run(f"{COMMAND} fsck --store /var/lib/appliance").stdout.endswith(" 0 problems\n")
    denied = life.host("a").run(
        "cd /etc/appliance/pki; curl -s -m 3 -o /dev/null --cacert ca.crt --cert node.crt --key node.key "
        f"--resolve b:5443:{life.host('b').address} https://b:5443/p2p/v1/ping",
        check=False,
    )
    assert denied.returncode != 0, "the firewall is closed to it as well"


def test_a_publisher_that_comes_back_from_nothing_goes_on_from_what_the_others_have(life: Life, tmp_path: Path) -> None:
    """a, rebuilt under its old name, is first of mirror_seeds again, and a new stick is in it."""
    a = life.host("a")
    a.run(
        f"systemctl disable --now appliance-mirror.socket {' '.join(UNITS)}; rm -rf /opt/appliance /etc/appliance /var/lib/appliance "
        "/etc/systemd/system/appliance-*; systemctl daemon-reload"
    )
    before = status(life.host("b"))["generation"]
    (tmp_path / "files").mkdir()
    docker_archive(LATER, tmp_path / "files/later.tar")
    a.attach_stick(make_stick(tmp_path / "files", tmp_path / "later.ext4"), EXTRA)
    life.nodes, life.seeds = ("a", "b", "c"), ("a", "b")
    life.variables |= {"seed_sources": [EXTRA], "mirror_copies": 2}
    run = life.run(expect=None)
    assert run.code != 0 and "APL-0126" in run.output, "the plan was made before a knew what the site serves"
    run = life.run()
    for name in "abc":
        found = status(life.host(name))
        assert found["generation"]["number"] == before["number"] + 1, run.output[-3000:]
        assert (found["publisher"], found["wanted_missing"]) == ("a", 0)
        assert digest_of(life.host(name), NGINX.name) and digest_of(life.host(name), LATER.name)
