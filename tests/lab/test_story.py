"""The main job's story, asserted point by point on three hosts; the order of the tests is the order of the story."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.images import NGINX as NGINX_IMAGE
from tests.lab.scenario import Luggage, inventory, pack
from tests.lab.site import Site
from tests.lab.story import (
    NGINX,
    STICK,
    TOOL,
    Run,
    digest_of,
    must_pull,
    playbook,
    pull,
    serve_http,
    status,
    until,
    wait_ready,
)

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]


@dataclass
class Installed:
    """The site after the first runs of ``site.yml``, with what they said."""

    site: Site
    luggage: Luggage
    inventory: Path
    check: Run
    first: Run
    second: Run


@pytest.fixture(scope="module")
def installed(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    directory = tmp_path_factory.mktemp("controller")
    luggage = pack(directory)
    hosts = inventory(site, luggage, directory / "inventory")
    site.hosts["a"].attach_stick(luggage.stick, STICK)
    check = playbook(site, "site.yml", hosts, "--check", "--diff")
    first = playbook(site, "site.yml", hosts, "-e", "confirm=yes")
    site.hosts["a"].detach_stick(STICK)
    second = playbook(site, "site.yml", hosts)
    yield Installed(site, luggage, hosts, check, first, second)


def test_check_mode_works_on_clean_hosts(installed: Installed) -> None:
    assert all(counts["failed"] == 0 and counts["unreachable"] == 0 for counts in installed.check.recap.values())
    assert set(installed.check.recap) >= {"a", "b", "c"}


def test_second_run_without_the_stick_changes_nothing(installed: Installed) -> None:
    assert installed.first.changed > 0
    assert installed.second.changed == 0, installed.second.output[-6000:]


@pytest.mark.parametrize("name", ["b", "c"])
def test_the_other_nodes_pull_and_run_what_only_a_was_given(installed: Installed, name: str) -> None:
    host = installed.site.hosts[name]
    must_pull(host, NGINX, real=installed.luggage.real)
    digest = digest_of(host, NGINX)
    must_pull(host, f"{NGINX.rpartition(':')[0]}@{digest}", real=installed.luggage.real)
    must_pull(host, NGINX, real=installed.luggage.real)
    assert NGINX_IMAGE.text() == serve_http(host, NGINX)


def test_every_mirror_follows_one_generation(installed: Installed) -> None:
    seen = {name: status(host)["generation"] for name, host in installed.site.hosts.items()}
    assert seen["a"]["number"] >= 1
    assert len({json.dumps(generation) for generation in seen.values()}) == 1


def test_pull_with_a_powered_off(installed: Installed) -> None:
    a, b, c = (installed.site.hosts[name] for name in "abc")
    until(lambda: all(status(host)["wanted_missing"] == 0 for host in (a, b, c)), "two copies of every blob")
    before = {host.name: pull(host, TOOL, real=installed.luggage.real) for host in (b, c)}
    assert all(result.ok for result in before.values())
    a.power_off()
    try:
        for host in (b, c):
            # "Without a wait of more than about a second": against the same pull with everybody there.
            must_pull(host, TOOL, within=before[host.name].seconds + 2.0, real=installed.luggage.real)
            must_pull(host, NGINX, real=installed.luggage.real)
    finally:
        a.boot()
    wait_ready([a])


def test_whole_site_comes_back_with_dead_clocks(installed: Installed) -> None:
    site = installed.site
    site.power_off_all()
    site.boot_all(clock="1970-01-01 00:10:00")
    try:
        wait_ready(list(site.hosts.values()), 1, 120)
        for host in site.hosts.values():
            must_pull(host, NGINX, real=installed.luggage.real)
            must_pull(host, TOOL, real=installed.luggage.real)
    finally:
        for host in site.hosts.values():
            host.clear_service_clock()
            host.run("systemctl restart appliance-agent appliance-mirror appliance-peer")
    wait_ready(list(site.hosts.values()), 1, 60)
