"""The appliance taken away again: each host is what it was before, down to the files and rules that it had of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.lab.images import NGINX
from tests.lab.scenario import Luggage, inventory, pack
from tests.lab.site import Site, unique_id
from tests.lab.story import STICK, Run, must_pull, playbook
from tests.lab.trace import differences, look_at

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

Seen = Mapping[str, Sequence[str]]
WITH_DATA = ("-e", '{"uninstall_data": true}')
# What passwd's tools keep of the files before, the directory that Debian's containerd makes for itself (the stand-in runs that one), what
# Python and ldconfig remember, and what belongs to kernel modules, which stay until the next boot.
ALLOWED = (
    r"file /etc/((g?shadow|group|passwd|subuid|subgid)-|cni|\.pwd\.lock)|file /var/cache/ldconfig|file \S+/__pycache__"
    r"|mount /media/|sysctl net\.(bridge|netfilter)\."
)


def changed(before: Seen, after: Seen, allowed: str = ALLOWED) -> dict[str, list[str]]:
    """What differs on each host; nothing of a host that is the same."""
    found = {name: differences(before[name], after[name], allowed) for name in before}
    return {name: lines for name, lines in found.items() if lines}


def uninstall(site: Site, hosts: Path, *arguments: str, expect: int | None = 0) -> Run:
    """Take the appliance away, agreed to beforehand."""
    return playbook(site, "playbooks/uninstall.yml", hosts, "-e", "confirm=yes", *arguments, expect=expect)


def had_before(site: Site) -> None:
    """Give hosts what the appliance will write over: a registries.yaml on b, and a kernel that forwards nothing on c."""
    site.hosts["b"].write("/etc/rancher/k3s/registries.yaml", "# the site's own\nmirrors: {}\n", 0o640)
    site.hosts["c"].run("sysctl -w net.ipv4.ip_forward=0")


def break_half(site: Site) -> None:
    """Leave half an installation on c: no release, no K3s binary, a service that is dead and one that cannot start."""
    site.hosts["c"].run(
        "systemctl kill --signal=KILL appliance-agent appliance-mirror; systemctl stop k3s-agent; "
        "rm -rf /opt/appliance/current /usr/local/bin/k3s /etc/appliance/config.yaml; systemctl restart --no-block appliance-peer"
    )


@pytest.fixture(scope="module")
def luggage(tmp_path_factory: pytest.TempPathFactory) -> Luggage:
    return pack(tmp_path_factory.mktemp("luggage"))


@pytest.fixture(scope="module")
def fresh() -> Iterator[Site]:
    site = Site(unique_id() + "-gone")
    site.up()
    try:
        yield site
    finally:
        site.down()


def test_what_was_added_goes_and_nothing_else(fresh: Site, luggage: Luggage, tmp_path: Path) -> None:
    hosts = inventory(fresh, luggage, tmp_path / "inventory", verify_image="")
    had_before(fresh)
    before = look_at(list(fresh.hosts.values()))
    fresh.hosts["a"].attach_stick(luggage.stick, STICK)
    playbook(fresh, "site.yml", hosts, "-e", "confirm=yes", "-e", "agents_at_once=2")
    b = fresh.hosts["b"]
    must_pull(b, NGINX.name, real=luggage.real)
    b.run(f"k3s ctr run -d {NGINX.name} life")
    break_half(fresh)

    installed = look_at([fresh.hosts["a"], b])
    refused = playbook(fresh, "playbooks/uninstall.yml", hosts, *WITH_DATA, expect=None)
    assert refused.code != 0 and refused.changed == 0 and "APL-0770" in refused.output, refused.output[-4000:]
    assert changed(installed, look_at([fresh.hosts["a"], b]), "process |mount ") == {}
    for words in (
        "DATA GOES",
        "a: /var/lib/appliance (",
        "processes of containers",
        "as it was before: /etc/rancher/k3s/registries.yaml",
    ):
        assert words in refused.output, refused.output[-4000:]

    uninstall(fresh, hosts, *WITH_DATA)
    assert changed(before, look_at(list(fresh.hosts.values()))) == {}
    assert uninstall(fresh, hosts, *WITH_DATA).changed == 0
    assert fresh.sink_log() == [], "something tried to leave the site"
