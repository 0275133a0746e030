"""Three servers with etcd, from installation to their return from a backup: what only a real K3s has (``K3S_BINARY=``)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator

import pytest

from tests.lab.host import Host
from tests.lab.images import NGINX, TOOL
from tests.lab.life import Life, begun
from tests.lab.story import KUBECTL, status, until

pytestmark = [
    pytest.mark.lab,
    pytest.mark.whole,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not os.environ.get("K3S_BINARY"), reason="the stand-in has no etcd: K3S_BINARY= names a real K3s"
    ),
]

SERVERS = ("b", "a", "c")


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    with begun(tmp_path_factory.mktemp("servers"), "servers", nodes=SERVERS, servers=SERVERS) as life:
        yield life


def voters(host: Host) -> list[str]:
    """The names of etcd's members with a vote that are Ready; empty where the API does not answer."""
    done = host.run(f"{KUBECTL} get nodes -o json", check=False)
    if done.returncode != 0:
        return []
    return sorted(
        node["metadata"]["name"]
        for node in json.loads(done.stdout)["items"]
        if {("EtcdIsVoter", "True"), ("Ready", "True")}
        <= {(condition["type"], condition["status"]) for condition in node["status"]["conditions"]}
    )


def page(host: Host) -> str:
    """What the cluster remembers."""
    return host.run(f"{KUBECTL} get configmap page -o jsonpath='{{.data.is}}'", check=False).stdout


def test_three_servers_come_one_after_the_other(life: Life) -> None:
    life.plug("a", NGINX, TOOL)
    life.run("site.yml")
    assert voters(life["c"]) == sorted(SERVERS)
    assert life.run("site.yml").changed == 0
    life["a"].run(f"{KUBECTL} create configmap page --from-literal=is=old")


def test_one_of_them_is_taken_out_and_comes_back(life: Life) -> None:
    """A member that was only stopped would count against the majority for ever."""
    life.run("playbooks/uninstall.yml", "--limit", "c", "-e", '{"uninstall_data": true}')
    until(lambda: voters(life["b"]) == ["a", "b"], "the member to be gone", 60)
    life.run("site.yml")
    assert voters(life["c"]) == sorted(SERVERS)
    assert page(life["c"]) == "old"


def test_two_of_three_go_on_without_the_first(life: Life) -> None:
    life["b"].power_off()
    try:
        until(lambda: page(life["c"]) == "old", "the API of a server that is left", 120)
        life["c"].run(f"{KUBECTL} create configmap while-b-is-off --from-literal=is=new")
    finally:
        life["b"].boot()
    until(lambda: voters(life["b"]) == sorted(SERVERS), "all three again", 180)


def test_all_of_them_come_back_from_a_backup(life: Life) -> None:
    backups = life.directory / "backups"
    life.variables["backup_dir"] = str(backups)
    said = life.run("playbooks/backup.yml").output
    assert "a snapshot of etcd" in said, said[-3000:]
    (archive,) = backups.iterdir()
    # After the backup: not in it.
    life["a"].run(f"{KUBECTL} create configmap too-late --from-literal=is=lost")
    before = {host.name: host.run("cat /etc/rancher/node/password").stdout for host in life.up}

    shutil.rmtree(life.inventory)
    for name in SERVERS:
        life[name].replace()
        life[name].boot()
    life.plug("a", NGINX, TOOL)
    life.start("playbooks/restore.yml", "-e", f"restore_archive={archive}")
    life.run("site.yml")
    assert voters(life["a"]) == sorted(SERVERS)
    for host in life.up:
        assert page(host) == "old"
        kept = host.run(f"{KUBECTL} get configmap -o name").stdout
        assert "while-b-is-off" in kept and "too-late" not in kept
    assert {host.name: host.run("cat /etc/rancher/node/password").stdout for host in life.up} == before
    assert len({status(host)["generation"]["digest"] for host in life.up}) == 1
    life.serves(NGINX, TOOL)
    assert life.run("site.yml").changed == 0
