"""The lab itself: what every other lab test takes for granted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import cgroups, images
from tests.lab.base import REPOSITORY, LabError, Process, children_of, run, wait_for
from tests.lab.host import Host
from tests.lab.site import DEFAULT_HOSTS, Site, unique_id

pytestmark = pytest.mark.lab

OUTSIDE = "203.0.113.7"  # a documentation address, RFC 5737
OUTSIDE_6 = "2001:db8::7"  # RFC 3849

_CONNECT = (
    "python3 -c 'import socket; socket.create_connection((\"{address}\", 443), 5)'"  # the host's own way, no proxy
)


@pytest.fixture
def hosts(site: Site) -> Iterator[dict[str, Host]]:
    """The hosts, all on and plugged in; put back so after the test."""
    yield site.hosts
    for host in site.hosts.values():
        if not host.is_up():
            host.boot()


def test_hosts_boot_whole_and_differ(hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        state = host.run("systemctl is-system-running; systemctl --failed --no-legend", check=False).stdout
        assert state == "running\n", host.run("systemctl list-jobs; journalctl -b -p warning --no-pager").stdout
        assert host.run("hostname").stdout.strip() == host.name
    assert len({host.run("cat /etc/machine-id").stdout for host in hosts.values()}) == 3
    assert len({host.run("cat /etc/ssh/ssh_host_ed25519_key.pub").stdout for host in hosts.values()}) == 3


def test_hosts_reach_each_other_by_ssh(hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        for peer in hosts.values():
            banner = host.run(f"timeout 5 bash -c 'exec 3<>/dev/tcp/{peer.address}/22; head -c 4 <&3'").stdout
            assert banner == "SSH-"


def test_ansible_reaches_every_host_with_its_key_checked(site: Site, tmp_path: Path) -> None:
    inventory = site.write_inventory(tmp_path / "site", {"lab_word": "seen"})
    ansible = Path(sys.executable).parent / "ansible"
    argv: list[str | Path] = [
        ansible,
        "-i",
        inventory,
        "k3s_cluster",
        "-m",
        "command",
        "-a",
        "echo {{ lab_word }} {{ group_names }}",
    ]
    said = site.exec(argv, cwd=REPOSITORY).stdout
    assert said.count("seen") == 3
    assert "seen [k3s_cluster, k3s_servers, mirror_seeds]" in said

    (tmp_path / "known_hosts").write_text(
        (site.state / "ssh/known_hosts").read_text().replace("10.77.0.11", "10.77.0.99")
    )
    args = f"ansible_ssh_common_args=-o UserKnownHostsFile={tmp_path}/known_hosts -o StrictHostKeyChecking=yes"
    extra = json.dumps(dict([args.split("=", 1)]) | {"ansible_control_path_dir": str(tmp_path)})
    refused = site.exec([ansible, "-i", inventory, "a", "-m", "ping", "-e", extra], cwd=REPOSITORY, check=False)
    assert "UNREACHABLE" in refused.stdout + refused.stderr


@pytest.mark.parametrize("name", ["a", "b"])
def test_an_attempt_to_leave_is_refused_and_logged(site: Site, name: str) -> None:
    host = site.hosts[name]
    began = time.monotonic()
    assert host.run(_CONNECT.format(address=OUTSIDE), check=False).returncode != 0
    assert host.run(_CONNECT.format(address=OUTSIDE_6), check=False).returncode != 0
    assert host.run("getent ahosts registry.example.com", check=False).returncode != 0
    assert time.monotonic() - began < 10, "refused at once, not after a time-out"
    log = "\n".join(site.sink_log())
    site.sink_reset()
    assert f"{host.address}:" in log
    assert f"> {OUTSIDE}:443 tcp syn" in log
    assert f"> [{OUTSIDE_6}]:443 tcp syn" in log
    assert "asks registry.example.com A" in log


def test_the_host_without_a_route_cannot_even_try(site: Site) -> None:
    host = site.hosts["c"]
    for address in (OUTSIDE, OUTSIDE_6):
        assert "unreachable" in host.run(_CONNECT.format(address=address), check=False).stderr
    assert host.run("getent ahosts registry.example.com", check=False).returncode != 0
    assert site.sink_log() == []


def test_a_stranger_sees_ssh_and_nothing_else(site: Site) -> None:
    for host in site.hosts.values():
        listen = "systemd-run --quiet --unit=lab-listen python3 -m http.server 6443"
        host.run(f"{listen} && until curl -s -o /dev/null http://127.0.0.1:6443/; do :; done", timeout=20)
        try:
            assert site.stranger_connect(host.address, 22) == "open"
            assert site.stranger_connect(host.address, 6443, timeout=1) == "filtered", host.spec.firewall
            assert site.controller_connect(host.address, 6443, timeout=1) == "filtered", host.spec.firewall
        finally:
            host.run("systemctl stop lab-listen")


@pytest.mark.parametrize("fs", ["ext4", "exfat"])
def test_a_stick_is_read_only_and_comes_and_goes(site: Site, tmp_path: Path, fs: images.FileSystem) -> None:
    files = images.write_sources(tmp_path / "files")
    stick = images.make_stick(tmp_path / "files", tmp_path / "stick", fs)
    before = stick.read_bytes()
    host = site.hosts["b"]
    host.attach_stick(stick)
    try:
        assert host.run("cmp /dev/stdin /media/stick/word || ls /media/stick", stdin="").stdout.split()[:1] == [
            files[0].name
        ]
        assert "Read-only file system" in host.run("touch /media/stick/x", check=False).stderr
        with pytest.raises(LabError, match="already"):
            host.attach_stick(stick)
    finally:
        host.detach_stick()
    assert host.run("ls -A /media").stdout == ""
    assert stick.read_bytes() == before


def test_a_container_runs_and_answers(site: Site, tmp_path: Path) -> None:
    host = site.hosts["c"]
    images.write_sources(tmp_path / "files")
    host.attach_stick(images.make_stick(tmp_path / "files", tmp_path / "stick"))
    name = images.NGINX.name
    try:
        host.run("systemctl start containerd && ctr image import /media/stick/ksd-nginx-1.27.tar")
        host.run(f"ctr run --detach --net-host --memory-limit 67108864 {name} web")
        page = host.run("curl -s --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:8080/").stdout
        assert page == images.NGINX.text()
        # Accounted in the host's own groups, beneath a root that is the host's and not the machine's.
        assert host.run("cat /sys/fs/cgroup/memory/default/web/memory.limit_in_bytes").stdout.strip() == "67108864"
    finally:
        host.run("ctr task kill -s 9 web; ctr task delete web; ctr container delete web", check=False)
        host.run(f"ctr image rm {name}; systemctl stop containerd", check=False)
        host.detach_stick()


def test_power_loss_is_silent_and_keeps_the_disk(site: Site, hosts: dict[str, Host]) -> None:
    for name in ("b", "c"):
        host = hosts[name]
        host.run("echo kept > /etc/lab-word; echo kept > /var/lib/appliance-word; echo lost > /run/lab-word; sync")
        identity = host.run("cat /etc/machine-id").stdout
        host.power_off()
        assert not host.is_up()
        assert site.controller_connect(host.address, 22, timeout=0.5) == "filtered", "no answer, not a refusal"
        host.boot()
        assert host.run("cat /etc/lab-word /var/lib/appliance-word").stdout == "kept\nkept\n"
        assert host.run("cat /run/lab-word", check=False).returncode != 0
        assert host.run("cat /etc/machine-id").stdout == identity
        assert host.run(f"systemctl is-active {host.spec.firewall}").stdout == "active\n"
        assert site.stranger_connect(host.address, 6443, timeout=1) == "filtered", "the firewall came back"


def test_orderly_shutdown_and_boot(hosts: dict[str, Host]) -> None:
    host = hosts["a"]
    host.run(
        "systemd-run --quiet --unit=lab-last -p 'ExecStop=touch /etc/lab-last' -p RemainAfterExit=yes true"
        " && until systemctl is-active -q lab-last; do :; done"
    )
    host.shutdown()
    assert not host.is_up()
    host.boot()
    assert host.run("ls /etc/lab-last").stdout == "/etc/lab-last\n"


def test_a_reboot_from_inside_comes_back(hosts: dict[str, Host]) -> None:
    host = hosts["c"]
    before = host.run("cat /proc/sys/kernel/random/boot_id").stdout
    host.run("systemctl reboot", check=False)

    def back() -> bool:
        asked = host.run("cat /proc/sys/kernel/random/boot_id", check=False, timeout=30)
        return asked.returncode == 0 and asked.stdout != before

    wait_for("the host to be back", back, 90)
    host.run("timeout 60 systemctl is-system-running --wait")
    assert host.run("cat /proc/sys/kernel/panic").stdout == "10\n"


def test_a_cut_link_carries_nothing_until_restored(site: Site) -> None:
    host = site.hosts["a"]
    host.cut_link()
    assert site.controller_connect(host.address, 22, timeout=0.5) == "filtered"
    host.restore_link()
    wait_for("the link", lambda: site.controller_connect(host.address, 22, timeout=0.5) == "open", 10)
    assert host.run("true").returncode == 0


def test_a_service_lives_in_1970_while_its_host_does_not(site: Site) -> None:
    host = site.hosts["c"]
    host.write(
        "/etc/systemd/system/lab-date.service",
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'date -u +%%F > /run/lab-date'\n",
    )
    show = "systemctl start lab-date && cat /run/lab-date"
    host.set_service_clock(["lab-date.service"], "1970-01-01 00:10:00")
    assert host.run(show).stdout == "1970-01-01\n"
    host.clear_service_clock(["lab-date.service"])
    assert host.run(show).stdout == host.run("date -u +%F").stdout != "1970-01-01\n"


def test_kubelet_finds_what_it_insists_on(site: Site) -> None:
    for host in site.hosts.values():
        wanted = {"vm.overcommit_memory": 1, "vm.panic_on_oom": 0, "kernel.panic": 10, "kernel.panic_on_oops": 1}
        for key, value in wanted.items():
            host.run(f"sysctl -qw {key}={value}")
            assert host.run(f"sysctl -n {key}").stdout == f"{value}\n"
        host.run("sysctl -qw net.ipv4.conf.all.route_localnet=1 && test -c /dev/kmsg")
        host.run("findmnt -no PROPAGATION / | grep -q shared")
        # A group made inside is the host's own: at its root, and not seen by the next host.
        host.run(f"mkdir /sys/fs/cgroup/memory/only-{host.name} && ! ls -d /sys/fs/cgroup/memory/only-[!{host.name}]")
        host.run(f"rmdir /sys/fs/cgroup/memory/only-{host.name}")


def _left(site: Site, members: list[Process]) -> list[str]:
    """Everything on this machine that belongs to the site."""
    left = [str(site.state)] if site.state.exists() else []
    for top in cgroups.hierarchies():
        left += [str(path) for path in top.glob(f"*lab-{site.id}-*")]
    left += [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"lab-{site.id}/" in line]
    left += [line for line in run(["losetup", "--list"]).stdout.splitlines() if f"lab-{site.id}/" in line]
    return left + [f"process {process.pid}" for process in members if process.alive()]


def _members(site: Site) -> list[Process]:
    """All processes of a site that is up: whoever is in its keeper's namespaces, and their descendants.

    Kept as processes: the numbers of namespaces are used again at once.
    """
    namespaces = _namespaces(site.keeper.pid) - _namespaces(os.getpid())
    assert len(namespaces) == 3
    todo = [int(path.name) for path in Path("/proc").glob("[0-9]*") if namespaces & _namespaces(int(path.name))]
    found: dict[int, Process] = {}
    while todo:
        pid = todo.pop()
        if pid not in found:
            with contextlib.suppress(LabError):
                found[pid] = Process.of(pid)
            todo += children_of(pid)
    return list(found.values())


def _namespaces(pid: int) -> set[str]:
    found = set()
    for kind in ("net", "mnt", "pid"):
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
        except OSError:
            continue
    return found


def _one_host_site(suffix: str) -> Site:
    return Site(f"{unique_id()}-{suffix}", DEFAULT_HOSTS[1:2], store_size_mib={"b": 64})


def test_down_leaves_nothing(tmp_path: Path) -> None:
    site = _one_host_site("x")
    site.up()
    try:
        host = site.hosts["b"]
        assert 50 < int(host.run("df --output=size -BM /var/lib/appliance | tail -1 | tr -d M").stdout) < 64
        (tmp_path / "files").mkdir()
        host.attach_stick(images.make_stick(tmp_path / "files", tmp_path / "stick", "exfat"))
        shell = subprocess.Popen(["nsenter", f"--net=/proc/{site.keeper.pid}/ns/net", "sleep", "600"])
        members = _members(site)
        assert len(_left(site, members)) > 20
    finally:
        site.down()
    assert shell.wait(5) == -signal.SIGKILL, "what was left running in the site's network is ended too"
    assert _left(site, members) == []
    assert str(tmp_path) not in run(["losetup", "--list"]).stdout
    site.down()  # and again: no error


@pytest.mark.whole
def test_up_and_down_as_make_has_them() -> None:
    """The two targets, with an id of this run's own: a lab of that name may be up on this machine."""
    site_id = f"{unique_id()}-z"
    for target, word in (("lab-up", "up"), ("lab-down", "down")):
        command = f"-m tests.lab {word}"
        assert f"python {command}\n" in run(["make", "-n", target], cwd=REPOSITORY).stdout
    lab = [sys.executable, "-m", "tests.lab", "--id", site_id]
    try:
        assert f"lab {site_id!r} is up after" in run([*lab, "up"], cwd=REPOSITORY).stdout
        assert run([*lab, "exec", "c", "hostname"], cwd=REPOSITORY).stdout == "c\n"
    finally:
        run([*lab, "down"], cwd=REPOSITORY)
    assert site_id not in Site.ids()


# Killed by the test; should the test itself be killed, it ends by itself.
_OWNER = """
import sys, time
from tests.lab.test_lab import _one_host_site
site = _one_host_site("y")
site.up()
print(site.id, flush=True)
time.sleep(600)
"""


@pytest.mark.whole
def test_a_killed_test_run_takes_its_lab_along() -> None:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert owner.stdout is not None  # a pipe, as asked for
    try:
        site = Site(owner.stdout.readline().strip(), DEFAULT_HOSTS[1:2])
        members = _members(site)
    finally:
        owner.kill()
        owner.communicate()
    assert len(members) > 10
    wait_for("the namespaces to end", lambda: not site.is_up(), 20)
    assert site.id in Site.sweep()
    wait_for("nothing to be left", lambda: _left(site, members) == [], 20)
