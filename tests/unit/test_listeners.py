"""Listeners that take the mirror's place: by the kernel's tables and control groups, as files."""

from __future__ import annotations

import ipaddress
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import listeners
from appliance.listeners import Foreign, foreign, parse

UNIT, OWNER, ROOT = "appliance-mirror.service", 998, 0
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LOOPBACK, ANY, OTHER = "0100007F", "00000000", "0200000A"
ANY6, MAPPED = "0" * 32, "0000000000000000FFFF00000100007F"


class Host:
    """A host's /proc and control groups."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroup = root / "proc", root / "cgroup"
        (self.proc / "self/net").mkdir(parents=True)
        (self.cgroup / UNIT).mkdir(parents=True)
        for name in ("tcp", "tcp6"):
            (self.proc / "self/net" / name).write_text(HEAD)

    def listens(self, address: str, uid: int, inode: int, *, port: str = "1388", state: str = "0A") -> None:
        table = self.proc / "self/net" / ("tcp" if len(address) == 8 else "tcp6")
        line = (
            f"   0: {address}:{port} {ANY}:0000 {state} 00000000:00000000 00:00000000 00000000  {uid}  0 {inode} 1 0\n"
        )
        table.write_text(table.read_text() + line)

    def process(self, pid: int, name: str, group: str, *inodes: int) -> None:
        directory = self.proc / str(pid)
        (directory / "fd").mkdir(parents=True)
        (directory / "comm").write_text(f"{name}\n")
        (directory / "cgroup").write_text(f"0::{group}\n")
        for number, inode in enumerate(inodes):
            (directory / "fd" / str(number)).symlink_to(f"socket:[{inode}]")

    def ends(self, pid: int) -> None:
        shutil.rmtree(self.proc / str(pid))

    def foreign(self) -> list[Foreign]:
        return foreign("127.0.0.1:5000", OWNER, UNIT, proc=self.proc, cgroup=self.cgroup)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.process(1, "systemd", "/init.scope", 10)
    made.process(40, "appliance", f"/system.slice/{UNIT}", 10)
    return made


@pytest.mark.parametrize("owner", [ROOT, OWNER], ids=["systemd's", "its own"])
def test_the_mirrors_own_listener_is_none(host: Host, owner: int) -> None:
    host.listens(LOOPBACK, owner, 10)
    assert host.foreign() == []


def test_systemds_listener_is_none_while_the_service_is_down(host: Host) -> None:
    host.ends(40)
    host.listens(LOOPBACK, ROOT, 10)
    assert host.foreign() == []


@pytest.mark.parametrize("grouped", [True, False])
def test_one_of_root_in_a_container_is_found_where_systemd_does_not_hold_it(host: Host, grouped: bool) -> None:
    if not grouped:
        host.ends(40)
        (host.cgroup / UNIT).rmdir()
    host.listens(LOOPBACK, ROOT, 20)
    host.process(50, "registry", "/kubepods.slice/pod1", 20)
    (found,) = host.foreign()
    assert found.words() == "127.0.0.1:5000 (user 0, process 50 registry)"


@pytest.mark.parametrize("grouped", [True, False])
def test_a_holder_beside_systemd_is_found(host: Host, grouped: bool) -> None:
    if not grouped:
        (host.cgroup / UNIT).rmdir()
    host.listens(LOOPBACK, ROOT, 10)
    host.process(50, "registry", "/kubepods.slice/pod1", 10)
    (found,) = host.foreign()
    assert "process 50 registry" in found.processes


def test_one_of_root_that_no_process_is_seen_to_hold_is_found(host: Host) -> None:
    host.listens(LOOPBACK, ROOT, 20)
    (found,) = host.foreign()
    assert found.words() == "127.0.0.1:5000 (user 0)"


def test_a_child_of_systemd_that_is_about_to_be_a_service_is_none(host: Host) -> None:
    host.listens(LOOPBACK, ROOT, 10)
    host.process(50, "(cron)", "/system.slice/cron.service", 10)
    for pid in (1, 50):
        (host.proc / str(pid) / "exe").symlink_to("/lib/systemd/systemd")
    assert host.foreign() == []


def test_who_does_not_see_systemd_believes_roots_listener(host: Host) -> None:
    host.ends(1)
    host.listens(LOOPBACK, ROOT, 10)
    assert host.foreign() == []


@pytest.mark.parametrize("address", [LOOPBACK, ANY, ANY6, MAPPED])
def test_one_of_another_user_is_found_on_every_address_that_takes_loopback(host: Host, address: str) -> None:
    host.listens(address, 1000, 20)
    host.process(50, "nc", "/user.slice", 20)
    (found,) = host.foreign()
    assert (found.uid, found.processes) == (1000, ("process 50 nc",))
    assert found.address.endswith(":5000")


def test_one_of_the_same_number_in_a_container_is_found_by_its_group(host: Host) -> None:
    host.listens(LOOPBACK, OWNER, 20)
    host.process(50, "registry", "/kubepods.slice/pod1", 20)
    (found,) = host.foreign()
    assert found.words() == f"127.0.0.1:5000 (user {OWNER}, process 50 registry)"


def test_other_ports_addresses_and_connections_are_none(host: Host) -> None:
    host.listens(LOOPBACK, 1000, 20, port="1389")
    host.listens(OTHER, 1000, 21)
    host.listens(LOOPBACK, 1000, 22, state="01")
    assert host.foreign() == []


def test_without_systemd_the_owner_has_to_do(host: Host) -> None:
    (host.cgroup / UNIT).rmdir()
    host.listens(LOOPBACK, OWNER, 20)
    host.process(50, "appliance", "/", 20)
    assert host.foreign() == []


@given(st.lists(st.text()))
def test_no_table_is_an_error(lines: list[str]) -> None:
    assert list(parse("\n".join(lines))) == []


@pytest.mark.parametrize(
    ("bound", "wanted", "covers"),
    [
        ("0.0.0.0", "192.0.2.1", True),
        ("192.0.2.1", "0.0.0.0", True),
        ("192.0.2.2", "192.0.2.1", False),
        ("::", "192.0.2.1", True),
        ("192.0.2.1", "::", True),
        ("2001:db8::1", "0.0.0.0", False),
        ("0.0.0.0", "2001:db8::1", False),
    ],
)
def test_an_unspecified_address_is_every_address(bound: str, wanted: str, covers: bool) -> None:
    assert listeners._covers(ipaddress.ip_address(bound), ipaddress.ip_address(wanted)) is covers
