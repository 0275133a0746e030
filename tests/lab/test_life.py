"""The life of a site, in order: each test goes on from where the one before left it.

Images come, move and are taken back while a container runs on b throughout; hosts are lost and made anew. No clock is moved.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.host import Host
from tests.lab.images import NGINX, TOOL, ImageSpec, docker_archive, make_stick, oci_archive
from tests.lab.scenario import Luggage, inventory, pack
from tests.lab.site import Site, unique_id
from tests.lab.story import (
    STICK,
    Run,
    must_pull,
    playbook,
    pull,
    serve_http,
    status,
    stop_container,
)

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

# The next quarter's stick: an image of a registry that is new to the site, and a tag that moves.
FRESH = ImageSpec("fresh.test/new/app:1", page="hello from what is new", payload_mib=1)
MOVED_TOOL = ImageSpec(TOOL.name, page="hello from the tool that moved", payload_mib=1)
LIVING = "life"


@dataclass
class Life:
    """A site with its history.

    :param born: process id and start time of the container that has to live on.
    """

    site: Site
    luggage: Luggage
    inventory: Path
    directory: Path
    born: str = ""
    sticks: Iterator[int] = field(default_factory=itertools.count)

    def __getitem__(self, name: str) -> Host:
        return self.site.hosts[name]

    @property
    def up(self) -> list[Host]:
        return [host for host in self.site.hosts.values() if host.is_up()]

    def plug(self, host: str, *images: ImageSpec, notes: dict[str, Any] | None = None) -> None:
        """Put a stick with these images into a host, in place of the one that is in it."""
        files = self.directory / f"stick-{next(self.sticks)}"
        files.mkdir()
        for number, image in enumerate(images):
            write = oci_archive if image.name == TOOL.name else docker_archive
            write(image, files / f"{number}.{'tar.zst' if write is oci_archive else 'tar'}")
        if notes is not None:
            (files / "medium.yaml").write_text(yaml.safe_dump(notes))
        self[host].detach_stick(STICK)
        self[host].attach_stick(make_stick(files, files.with_suffix(".ext4")), STICK)

    def run(self, name: str, *arguments: str, expect: int | None = 0) -> Run:
        """Run a playbook, agreed to beforehand, and see that the container lives and nothing of K3s restarted."""
        run = playbook(self.site, name, self.inventory, "-e", "confirm=yes", *arguments, expect=expect)
        self.lives()
        return run

    def lives(self) -> None:
        if self.born:
            assert container(self["b"]) == self.born, "the container that runs throughout was restarted"

    def serves(self, *images: ImageSpec) -> None:
        """Every node that is up pulls exactly these images, and a container of each answers."""
        for host in self.up:
            for image in images:
                must_pull(host, image.name, real=self.luggage.real)
                if image in (FRESH, MOVED_TOOL, TOOL):
                    assert serve_http(host, image.name, port=8080) == image.text(), host.name

    def generation(self) -> int:
        """The generation that every node that is up serves."""
        seen = {host.name: status(host)["generation"] for host in self.up}
        assert len({json.dumps(generation) for generation in seen.values()}) == 1, seen
        return int(next(iter(seen.values()))["number"])


def container(host: Host) -> str:
    """Process id and start time of the container that runs throughout; they change when it is restarted."""
    script = f"pid=$(k3s ctr tasks ls | awk '$1 == \"{LIVING}\" && $3 == \"RUNNING\" {{print $2}}') && cut -d' ' -f1,22 /proc/$pid/stat"
    return host.run(script).stdout.strip()


@contextmanager
def pulling(life: Life, name: str, image: str) -> Iterator[list[str]]:
    """One node's containerd pulls an image again and again meanwhile; yields the digests that came.

    :raises AssertionError: at the end, for a pull that failed, or where there was none at all.
    """
    host, came, failed, done = life[name], list[str](), list[str](), threading.Event()

    def pull_on() -> None:
        while not done.is_set():
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


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    directory = tmp_path_factory.mktemp("life")
    site = Site(unique_id() + "-life")
    site.up()
    try:
        luggage = pack(directory / "luggage")
        hosts = inventory(site, luggage, directory / "inventory", verify_image="", seeds=("a", "b"))
        yield Life(site, luggage, hosts, directory)
    finally:
        site.down()


@pytest.fixture(autouse=True)
def nothing_leaves_in_life(life: Life) -> Iterator[None]:
    """After each test: nothing tried to leave the site."""
    yield
    assert life.site.sink_log() == [], "something tried to leave the site"


def test_the_site_is_installed(life: Life) -> None:
    life.plug("a", NGINX, TOOL)
    life.run("site.yml", "-e", "agents_at_once=2")
    assert life.generation() == 1
    b = life["b"]
    must_pull(b, NGINX.name, real=life.luggage.real)
    stop_container(b, LIVING)
    b.run(f"k3s ctr run -d {NGINX.name} {LIVING}")
    life.born = container(b)
    assert life.born


def test_an_update_adds_an_image_of_a_new_registry_and_moves_a_tag(life: Life) -> None:
    life.plug("a", NGINX, MOVED_TOOL, FRESH)
    seen = life.run("playbooks/update.yml", "--check")
    assert life.generation() == 1
    done = life.run("playbooks/update.yml")
    for said in (seen.output, done.output):
        assert f"add   {FRESH.name}" in said and f"move  {TOOL.name}" in said, said[-6000:]
        assert "restart" not in said.partition("Nodes:")[2].partition("TASK")[0], "nothing restarts for images"
    assert done.output.count("3 names asked for, every one answered as it was published") == 3
    assert life.generation() == 2
    life.serves(MOVED_TOOL, FRESH)
    assert life.run("playbooks/update.yml").changed == 0
