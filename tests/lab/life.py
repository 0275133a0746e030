"""A site with its history, for the lab tests that go on from one state to the next."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.lab.base import REPOSITORY
from tests.lab.host import Host
from tests.lab.images import NGINX, TOOL, ImageSpec, docker_archive, make_stick, oci_archive
from tests.lab.scenario import Luggage, inventory, pack
from tests.lab.site import Site, unique_id
from tests.lab.story import KUBECTL, STICK, Run, must_pull, playbook, pull, serve_http, status, stop_container, until

LIVING = "life"
STORE = "/var/lib/appliance"
NOBODY_HAS = "ksd.test.com/ksd/forgotten:1"
_MANIFESTS = "/var/lib/rancher/k3s/server/manifests"


@dataclass
class Life:
    """A site with its history.

    :param nodes: the hosts in the inventory, K3s's server first.
    :param seeds: hosts of ``mirror_seeds``, the publisher first.
    :param servers: hosts of ``k3s_servers``; None: the first of ``nodes`` alone.
    :param variables: of the inventory.
    :param born: process id and start time of the container that has to live on.
    :param before: what could be seen of each host before the appliance came.
    :param backup: the backup of the site, and what has to come back from it, by path.
    """

    site: Site
    luggage: Luggage
    directory: Path
    nodes: Sequence[str] = ("b", "a")
    seeds: Sequence[str] = ("a", "b")
    servers: Sequence[str] | None = None
    variables: dict[str, Any] = field(default_factory=lambda: {"mirror_site": "north"})
    born: str = ""
    before: dict[str, list[str]] = field(default_factory=dict)
    backup: tuple[Path, Mapping[str, str]] = (Path(), {})
    sticks: Iterator[int] = field(default_factory=itertools.count)

    def __getitem__(self, name: str) -> Host:
        return self.site.hosts[name]

    @property
    def up(self) -> list[Host]:
        """The hosts in the inventory that are up."""
        return [self[name] for name in self.nodes if self[name].is_up()]

    @property
    def inventory(self) -> Path:
        """The controller's directory: the inventory, and the site's authority."""
        return self.directory / "inventory"

    def plug(self, host: str, *images: ImageSpec, says: Mapping[str, str] | None = None) -> None:
        """Put a stick with these images into a host, in place of the one that is in it."""
        files = self.directory / f"stick-{next(self.sticks)}"
        files.mkdir()
        for number, image in enumerate(images):
            write = oci_archive if image.name == TOOL.name else docker_archive
            write(image, files / f"{number}.{'tar.zst' if write is oci_archive else 'tar'}")
        if says is not None:
            (files / "medium.yaml").write_text(yaml.safe_dump(dict(says)))
        self[host].detach_stick(STICK)
        self[host].attach_stick(make_stick(files, files.with_suffix(".ext4")), STICK)

    def start(self, name: str, *arguments: str, expect: int | None = 0, tree: Path = REPOSITORY) -> Run:
        """Run a playbook over the inventory as it is now, agreed to beforehand."""
        hosts = inventory(
            self.site,
            self.luggage,
            self.inventory,
            nodes=self.nodes,
            servers=self.servers,
            seeds=self.seeds,
            **self.variables,
        )
        return playbook(self.site, name, hosts, "-e", "confirm=yes", *arguments, expect=expect, tree=tree)

    def run(self, name: str, *arguments: str, tree: Path = REPOSITORY) -> Run:
        """Run a playbook to its good end, and see that the container lives on."""
        run = self.start(name, *arguments, tree=tree)
        self.lives()
        return run

    def lives(self) -> None:
        if self.born:
            assert container(self["b"], self.luggage.real) == self.born, (
                "the container that runs throughout was restarted"
            )

    def serves(self, *images: ImageSpec) -> None:
        """Every node that is up pulls exactly these images, and a container of each answers."""
        for host in self.up:
            for image in images:
                must_pull(host, image.name, real=self.luggage.real)
                assert serve_http(host, image.name) == image.text(), host.name

    def agrees(self) -> None:
        """Wait until every node that is up serves the same."""
        until(lambda: len({status(host)["generation"]["digest"] for host in self.up}) == 1, "the nodes to agree")

    def generation(self) -> int:
        """The generation that every node that is up serves."""
        seen = {host.name: status(host)["generation"] for host in self.up}
        assert len({json.dumps(generation) for generation in seen.values()}) == 1, seen
        return int(next(iter(seen.values()))["number"])


@contextmanager
def begun(directory: Path, name: str, **more: Any) -> Iterator[Life]:
    """Fresh hosts and what is brought to them, for as long as the block runs.

    :param directory: for what is brought, and the inventory.
    :param name: keeps the site's id apart from those of other modules.
    :param more: of :class:`Life`.
    """
    site = Site(f"{unique_id()}-{name}")
    site.up()
    try:
        yield Life(site, pack(directory / "luggage"), directory, **more)
    finally:
        site.down()


def appliance(host: Host, *words: str, store: bool = True) -> Any:
    """What a command of the appliance prints on a host, as JSON."""
    where = ["--store", "/var/lib/appliance"] if store else []
    command = ["/opt/appliance/current/venv/bin/appliance", words[0], *where, *words[1:], "--json"]
    return json.loads(host.run(command, check=False).stdout)


def add_pod(server: Host, name: str, image: str) -> None:
    """Let a server have a pod on itself, as operators do it: by a manifest in K3s's directory."""
    spec = {"nodeName": server.name, "containers": [{"name": name, "image": image, "imagePullPolicy": "IfNotPresent"}]}
    metadata = {"name": name, "namespace": "default"}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    server.write(f"{_MANIFESTS}/{name}.json", json.dumps(document))
    # K3s looks into the directory every quarter of a minute.
    until(lambda: f'"{name}"' in server.run(f"{KUBECTL} get pods -A -o json", check=False).stdout, name, 60)


def remove_pod(server: Host, name: str, real: bool) -> None:
    """Take a pod and its manifest away; the stand-in for K3s takes the pod with the manifest."""
    server.run(f"rm {_MANIFESTS}/{name}.json" + (f"; {KUBECTL} delete pod {name}" if real else ""))


def container(host: Host, real: bool) -> str:
    """Process id and start time of the container that runs throughout; they change when it is restarted."""
    process = (
        f"k3s crictl inspect --output go-template --template '{{{{.info.pid}}}}' $(k3s crictl ps --quiet --name '^{LIVING}$')"
        if real
        else f'k3s ctr tasks ls | awk \'$1 == "{LIVING}" && $3 == "RUNNING" {{print $2}}\''
    )
    return host.run(f"pid=$({process}) && cut -d' ' -f1,22 /proc/$pid/stat", check=False).stdout.strip()


def start_container(life: Life) -> None:
    """Start it on b."""
    b, image = life["b"], NGINX.name
    must_pull(b, image, real=life.luggage.real)
    if life.luggage.real:
        spec = {"nodeName": "b", "containers": [{"name": LIVING, "image": image, "imagePullPolicy": "IfNotPresent"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": LIVING}, "spec": spec}
        b.run(f"{KUBECTL} apply -f -", stdin=json.dumps(pod))
    else:
        stop_container(b, LIVING)
        b.run(f"k3s ctr run -d {image} {LIVING}")
    life.born = until(lambda: container(b, life.luggage.real), "the container that lives on", 120)


@contextmanager
def pulling(life: Life, name: str, image: str) -> Iterator[list[str]]:
    """One node's containerd pulls an image again and again meanwhile; yields the digests that came.

    :raises AssertionError: at the end, for a pull that failed, or where there was none at all.
    """
    host, came, failed, done = life[name], list[str](), list[str](), threading.Event()

    def pull_on() -> None:
        # Not without a break: two cores carry the playbook too.
        while not done.wait(0.5):
            result = pull(host, image, real=life.luggage.real)
            if result.ok:
                came.append(host.run(f"k3s ctr images ls name=={image} | awk 'NR == 2 {{print $3}}'").stdout.strip())
            else:
                failed.append(result.output)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(pull_on)
        try:
            yield came
        finally:
            done.set()
        running.result()
    assert not failed, failed[0][-3000:]
    assert came
