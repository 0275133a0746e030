"""What an operator can get wrong, each tried on real hosts: one clear error, and not a file changed anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.images import NGINX, ImageSpec, docker_archive, make_stick
from tests.lab.scenario import Luggage, inventory, pack
from tests.lab.site import Site
from tests.lab.story import STICK, playbook
from tests.lab.trace import differences, look_at

pytestmark = [pytest.mark.lab, pytest.mark.sample(2)]

# K3s's archives, carried to the publisher to be read there, and what was verified: bytes that no name refers to.
STAGED = r"file /var/lib/appliance(-staging)?[/ ]"


@dataclass(frozen=True)
class Stage:
    """Three pristine hosts, and what the operator brought."""

    site: Site
    luggage: Luggage
    directory: Path

    def inventory(self, **extra: Any) -> Path:
        """An inventory of its own for one test."""
        return inventory(self.site, self.luggage, self.directory / "inventory", **extra)

    def look(self) -> dict[str, list[str]]:
        """What is on every host that is up: files with their sizes and times, rules, units, links."""
        return look_at([host for host in self.site.hosts.values() if host.is_up()], times=True)

    def refused(self, hosts: Path, *expected: str, arguments: tuple[str, ...] = ("-e", "confirm=yes")) -> str:
        """Run ``site.yml``, which has to fail with all these words and change nothing; returns what it said."""
        before = self.look()
        run = playbook(self.site, "site.yml", hosts, *arguments, expect=None)
        assert run.code not in (0, None), run.output[-4000:]
        for words in expected:
            assert words in run.output, f"{words!r} is not in:\n{run.output[-6000:]}"
        assert run.changed == 0, run.output[-4000:]
        after = self.look()
        for name in before:
            allowed = STAGED if name == "a" else ""
            assert differences(before[name], after[name], allowed) == [], f"{name} was changed"
        return run.output


@pytest.fixture(scope="module")
def luggage(tmp_path_factory: pytest.TempPathFactory) -> Luggage:
    return pack(tmp_path_factory.mktemp("luggage"))


@pytest.fixture
def stage(site: Site, luggage: Luggage, tmp_path: Path) -> Iterator[Stage]:
    yield Stage(site, luggage, tmp_path)
    site.hosts["a"].detach_stick(STICK)


def plug(stage: Stage, **files: bytes) -> None:
    """Plug a stick with these files into a; underscores in the names stand for dots."""
    content = stage.directory / "files"
    content.mkdir()
    for name, raw in files.items():
        (content / name.replace("_", ".")).write_bytes(raw)
    stage.site.hosts["a"].attach_stick(make_stick(content, stage.directory / "stick.ext4"), STICK)


def archive(directory: Path, spec: ImageSpec) -> bytes:
    return docker_archive(spec, directory / "archive.tar").read_bytes()


# -- the medium ----------------------------------------------------------------------------------------------------


def test_no_stick_that_was_never_published(stage: Stage) -> None:
    stage.refused(stage.inventory(), "APL-0101", STICK)


def test_empty_stick(stage: Stage) -> None:
    plug(stage)
    stage.refused(stage.inventory(), "APL-0122", STICK)


def test_truncated_tarball_is_named_with_its_bytes(stage: Stage) -> None:
    whole = archive(stage.directory, NGINX)
    plug(stage, nginx_tar=whole[: len(whole) // 2])
    stage.refused(stage.inventory(), "APL-0102", "nginx.tar", str(len(whole) // 2), "Nothing was changed on any host")


def test_corrupt_tarball_is_named(stage: Stage) -> None:
    raw = bytearray(archive(stage.directory, NGINX))
    raw[len(raw) // 2] ^= 0xFF
    plug(stage, nginx_tar=bytes(raw))
    stage.refused(stage.inventory(), "APL-0118", "nginx.tar", "Nothing was changed on any host")


def test_images_for_another_architecture_only(stage: Stage) -> None:
    foreign = replace(NGINX, name="ksd.test.com/ksd/foreign:1", architecture="s390x", payload_mib=0)
    plug(stage, foreign_tar=archive(stage.directory, foreign))
    stage.refused(stage.inventory(), "APL-0128", "ksd.test.com/ksd/foreign:1", "linux/s390x", "linux/amd64")


# -- the inventory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("servers", "extra", "expected"),
    [
        ((), {}, ("APL-0701",)),
        (("a", "b"), {}, ("APL-0702",)),
        (("a",), {"mirror_copys": 2}, ("APL-0708", "mirror_copys", "mirror_copies")),
    ],
    ids=["no-servers", "two-servers", "typo"],
)
def test_inventories(
    stage: Stage, servers: tuple[str, ...], extra: Mapping[str, Any], expected: tuple[str, ...]
) -> None:
    hosts = stage.inventory(**extra)
    groups = yaml.safe_load(hosts.read_text())
    children = groups["all"]["children"]
    children["k3s_servers"] = {"hosts": {name: {} for name in servers}}
    children["k3s_agents"] = {"hosts": {name: {} for name in stage.site.hosts if name not in servers}}
    if not servers:
        children.pop("mirror_seeds")
    hosts.write_text(yaml.safe_dump(groups))
    stage.refused(hosts, *expected)


# -- the hosts -----------------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_with_the_hosts_is_said_at_once(stage: Stage) -> None:
    b, c = stage.site.hosts["b"], stage.site.hosts["c"]
    b.run("systemd-run --quiet --unit=lab-thief python3 -m http.server --bind 127.0.0.1 5000")
    c.run("mkdir /var/lib/appliance && mount -t tmpfs -o size=32M,mode=755 tmpfs /var/lib/appliance")
    try:
        b.run("until ss -Htln sport = :5000 | grep -q .; do :; done", timeout=20)
        said = stage.refused(stage.inventory(seed_sources=[]), "APL-0728", "APL-0727", "2 problems found")
    finally:
        b.run("systemctl stop lab-thief")
        c.run("umount /var/lib/appliance && rmdir /var/lib/appliance")
    of_b, _, of_c = said.partition("\n  b:\n")[2].partition("\n  c:\n")
    assert "5000" in of_b, said
    assert "file system at /var/lib/appliance is too small: " in of_c, said
    assert " needed (" in of_c and "32.0 MiB available (33554432 bytes)" in of_c, said


def test_a_mount_where_nothing_may_run(stage: Stage) -> None:
    b, paths = stage.site.hosts["b"], ("/var/lib/rancher", "/opt")
    for path in paths:
        b.run(f"mkdir -p {path} && mount --bind {path} {path} && mount -o remount,bind,noexec {path}")
    try:
        said = stage.refused(stage.inventory(seed_sources=[]), "APL-0714", "2 problems found")
    finally:
        for path in paths:
            b.run(f"umount {path}")
        b.run("rmdir /var/lib/rancher")
    for path in paths:
        assert f"{path} is mounted noexec, and programs have to run from {path}" in said.partition("\n  b:\n")[2], said


def test_a_site_in_which_nothing_is_wrong(stage: Stage) -> None:
    plug(stage, nginx_tar=archive(stage.directory, NGINX))
    run = playbook(stage.site, "playbooks/preflight.yml", stage.inventory())
    assert run.changed == 0
    said = " ".join(run.output.split())
    assert (
        "Preflight: 3 hosts, " in said
        and " checks, nothing is wrong. Not checked here: the content of the media" in said
    )


@pytest.mark.parametrize(
    ("is_listed", "expected"),
    [(True, ("APL-0721", "ssh-keygen -R")), (False, ("APL-0733", "ssh-keyscan"))],
    ids=["another", "unknown"],
)
def test_a_host_whose_key_is_not_known(is_listed: bool, expected: tuple[str, ...], stage: Stage) -> None:
    hosts = stage.inventory(seed_sources=[])
    known = stage.directory / "known_hosts"
    real = (stage.site.state / "ssh/known_hosts").read_text().splitlines()
    stolen = real[0].split(" ", 1)[1]
    of_b = [f"{stage.site.hosts['b'].address} {stolen}"] if is_listed else []
    known.write_text("\n".join([*real[:1], *of_b, *real[2:]]) + "\n")
    arguments = f"-o UserKnownHostsFile={known} -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"
    variables = hosts.parent / "group_vars/all.yml"
    changed = {**yaml.safe_load(variables.read_text()), "ansible_ssh_common_args": arguments}
    changed["ansible_control_path_dir"] = str(stage.directory)
    variables.write_text(yaml.safe_dump(changed))
    said = stage.refused(hosts, *expected, "1 problem found")
    assert is_listed is ("SHA256:" in said.partition("\n  b:\n")[2]), "the fingerprint that the host showed"
    assert is_listed is ("ssh-keygen -R" in said)


def test_a_node_that_is_down(stage: Stage) -> None:
    b = stage.site.hosts["b"]
    b.power_off()
    try:
        stage.refused(stage.inventory(seed_sources=[]), "APL-0720", "1 problem found")
    finally:
        b.boot()


# -- K3s -----------------------------------------------------------------------------------------------------------


def test_a_binary_that_does_not_match_its_checksum(stage: Stage) -> None:
    plug(stage, nginx_tar=archive(stage.directory, NGINX))
    wrong = stage.directory / "sha256sum-amd64.txt"
    wrong.write_text(f"{'0' * 64}  k3s\n")
    stage.refused(stage.inventory(k3s_checksums=str(wrong)), "APL-0821", "0" * 12, str(stage.luggage.k3s))


def test_a_plan_that_nobody_confirmed(stage: Stage) -> None:
    plug(stage, nginx_tar=archive(stage.directory, NGINX))
    stage.refused(stage.inventory(), "APL-0770", NGINX.name, "MiB to write", arguments=())
