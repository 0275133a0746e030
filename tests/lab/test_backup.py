"""A backup, all hosts lost at once with the controller's authority, and the site again on fresh ones: the same names, history and token."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.host import Host
from tests.lab.scenario import inventory, pack
from tests.lab.site import Site, unique_id
from tests.lab.story import NGINX, STICK, TOOL, must_pull, playbook, status

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

APPLIANCE = "/opt/appliance/current/venv/bin/appliance"
STORE = "/var/lib/appliance"
TOKEN = "/etc/rancher/k3s/cluster-token"
CONFIG_MAP = "kept-by-the-backup"


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(unique_id() + "-backup")
    site.up()
    try:
        yield site
    finally:
        site.down()


def read(host: Host, path: str) -> str:
    return host.run(f"cat {path}").stdout


def test_a_site_that_burnt_down_comes_back_from_its_backup(site: Site, tmp_path: Path) -> None:
    luggage = pack(tmp_path / "luggage")
    backups, directory = tmp_path / "backups", tmp_path / "inventory"
    more = {"backup_dir": str(backups), "mirror_site": "north"}
    hosts = inventory(site, luggage, directory, **more)
    a = site.hosts["a"]
    a.attach_stick(luggage.stick, STICK)
    playbook(site, "site.yml", hosts, "-e", "confirm=yes", "-e", "agents_at_once=2")
    a.run(f"{APPLIANCE} pin --store {STORE} {NGINX}")
    if luggage.real:
        a.run(f"k3s kubectl create configmap {CONFIG_MAP} --from-literal=page=old")
    kept = {
        path: read(a, path) for path in (TOKEN, f"{STORE}/index.json", f"{STORE}/pins.json", f"{STORE}/journal.jsonl")
    }
    authority = {name: (directory / "pki" / name).read_bytes() for name in ("ca.key", "ca.crt")}

    assert playbook(site, "playbooks/backup.yml", hosts, "--check").changed == 0
    assert not backups.exists()
    said = playbook(site, "playbooks/backup.yml", hosts).output
    (archive,) = backups.iterdir()
    assert archive.stat().st_mode & 0o777 == 0o600
    assert "K3s's token: in it" in said
    assert ("a copy of its sqlite database" if luggage.real else "the lab's stand-in") in said, said[-3000:]
    for host in site.hosts.values():
        assert host.run("ls -A /var/tmp | grep backup", check=False).stdout == "", "something was left behind"
    before = archive.read_bytes()

    assert site.sink_log() == [], "something tried to leave the site"

    # All of it is gone: the hosts, and the controller's authority.
    site.down()
    shutil.rmtree(directory)
    site.up()
    hosts = inventory(site, luggage, directory, **more)
    a = site.hosts["a"]
    a.attach_stick(luggage.stick, STICK)

    def restore(*arguments: str, of: Path = archive, expect: int = 0) -> tuple[str, int]:
        run = playbook(site, "playbooks/restore.yml", hosts, "-e", f"restore_archive={of}", *arguments, expect=expect)
        return run.output, run.changed

    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(before.replace(b"PRIVATE KEY", b"PRIVATE KEy", 1))
    assert "APL-0870" in restore("-e", "confirm=yes", of=damaged, expect=2)[0]
    assert "APL-0872" in restore("-e", "confirm=yes", "-e", "mirror_site=south", expect=2)[0]
    # Without a terminal and without a yes beforehand, nothing happens.
    assert "APL-0770" in restore(expect=2)[0]
    assert not (directory / "pki").exists()
    assert a.run(f"ls -d /opt/appliance {STORE} {TOKEN}", check=False).stdout == ""

    said, changed = restore("-e", "confirm=yes")
    assert f"in it. They come back from the media that brought them: {STICK}" in said and changed > 0
    assert restore("-e", "confirm=yes")[1] == 0
    assert {name: (directory / "pki" / name).read_bytes() for name in authority} == authority

    done = playbook(site, "site.yml", hosts, "-e", "confirm=yes", "-e", "agents_at_once=2")
    assert "generation 1 is served now." in done.output, "a name changed"
    for path in (TOKEN, f"{STORE}/index.json", f"{STORE}/pins.json"):
        assert read(a, path) == kept[path], path
    assert read(a, f"{STORE}/journal.jsonl").startswith(kept[f"{STORE}/journal.jsonl"])
    assert json.loads(a.run(f"{APPLIANCE} fsck --store {STORE} --json").stdout)["problems"] == []
    digest = hashlib.sha256(kept[f"{STORE}/index.json"].encode()).hexdigest()
    for host in site.hosts.values():
        assert status(host)["generation"] == {"number": 1, "digest": f"sha256:{digest}"}, host.name
        must_pull(host, NGINX, real=luggage.real)
        must_pull(host, TOOL, real=luggage.real)
    if luggage.real:
        page = a.run(f"k3s kubectl get configmap {CONFIG_MAP} -o jsonpath='{{.data.page}}'").stdout
        assert page == "old"
    assert archive.read_bytes() == before
    assert site.sink_log() == [], "something tried to leave the site"
