"""Reading a host from a tree of /proc, /sys and /lib."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.site.appliance.plugins.module_utils import host_state, interpreters

from tests.unit.publish.site import Site
from tests.unit.store import made


def _write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    _write(tmp_path, "lib/modules/6.1/modules.builtin", "kernel/fs/overlayfs/overlay.ko\n")
    _write(
        tmp_path,
        "lib/modules/6.1/modules.dep",
        "kernel/net/br_netfilter.ko.xz: kernel/net/bridge.ko.xz\nkernel/vxlan.ko:\n",
    )
    _write(tmp_path, "sys/module/br_netfilter/initstate", "live\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("overlay", "builtin"),
        ("br_netfilter", "loaded"),
        ("vxlan", "loadable"),
        ("nf_conntrack", "missing"),
        ("bridge", "missing"),
    ],
)
def test_module_states(host: Path, name: str, state: str) -> None:
    assert host_state.module_state(name, "6.1", host) == state


def test_a_container_shows_features_without_modules(tmp_path: Path) -> None:
    _write(tmp_path, "proc/filesystems", "nodev\toverlay\n\text4\n")
    _write(tmp_path, "proc/sys/net/bridge/bridge-nf-call-iptables", "1\n")
    states = [host_state.module_state(name, "6.1", tmp_path) for name in ("overlay", "br_netfilter", "nf_conntrack")]
    assert states == ["present", "present", "missing"]


ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
{}eth0\t000000C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def test_default_routes(tmp_path: Path) -> None:
    real = "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
    ours = "appliance0\t00000000\tFF7100CB\t0003\t0\t0\t65000\t00000000\t0\t0\t0\n"
    _write(tmp_path, "proc/net/route", ROUTES.format(real + ours))
    assert host_state.default_routes(tmp_path) == [
        {"device": "eth0", "metric": 100, "ours": False},
        {"device": "appliance0", "metric": 65000, "ours": True},
    ]
    _write(tmp_path, "proc/net/route", ROUTES.format(""))
    assert host_state.default_routes(tmp_path) == []
    assert host_state.default_routes(tmp_path / "absent") == []


SS = """LISTEN 0      2048       127.0.0.1:5000       0.0.0.0:*    users:(("gunicorn",pid=7,fd=5),("py",pid=8,fd=5))
LISTEN 0      128                *:6443             *:*    users:(("k3s-server",pid=9,fd=12))
LISTEN 0      128             [::]:22            [::]:*
LISTEN 0      4096 [fe80::1%eth0]:5001          [::]:*    users:(("x",pid=10,fd=1))
"""


def test_listeners_and_their_units(tmp_path: Path) -> None:
    _write(tmp_path, "proc/7/cgroup", "0::/system.slice/appliance-mirror.service\n")
    _write(tmp_path, "proc/8/cgroup", "0::/system.slice/appliance-mirror.service\n")
    _write(tmp_path, "proc/9/cgroup", "12:memory:/x.service\n1:name=systemd:/system.slice/k3s.service/sub\n0::/\n")
    _write(tmp_path, "proc/10/cgroup", "0::/user.slice/user-0.slice/session-1.scope\n")
    found = host_state.listeners(SS, tmp_path)
    assert [(entry["address"], entry["port"], entry["units"]) for entry in found] == [
        ("127.0.0.1", 5000, ["appliance-mirror.service"]),
        ("*", 6443, ["k3s.service"]),
        ("::", 22, []),
        ("fe80::1", 5001, ["session-1.scope"]),
    ]
    assert found[0]["processes"] == ["gunicorn", "py"]


def test_a_socket_that_systemd_holds_has_the_name_of_its_unit(tmp_path: Path) -> None:
    """Also while its service is down."""
    _write(tmp_path, "proc/1/cgroup", "0::/init.scope\n")
    ss = 'LISTEN 0 2048 127.0.0.1:5000 0.0.0.0:* users:(("systemd",pid=1,fd=40))\n'
    sockets = "/run/dbus/system_bus_socket dbus.socket dbus.service\n127.0.0.1:5000 appliance-mirror.socket appliance-mirror.service\n"
    (found,) = host_state.listeners(ss, tmp_path, sockets)
    assert found["units"] == ["appliance-mirror.socket", "init.scope"]
    (found,) = host_state.listeners(ss, tmp_path)
    assert found["units"] == ["init.scope"]


CGROUPS = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t2\t1\nmemory\t2\t2\t{}\n"


def test_cgroup_versions(tmp_path: Path) -> None:
    two, one, off, bare = (tmp_path / name for name in ("two", "one", "off", "bare"))
    _write(two, "sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")
    assert host_state.cgroups(two) == {"version": 2, "controllers": ["cpu", "cpuset", "io", "memory", "pids"]}
    mounts = "cgroup /sys/fs/cgroup/memory cgroup rw,nosuid,memory 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
    _write(one, "proc/cgroups", CGROUPS.format(1))
    _write(one, "proc/mounts", mounts)
    assert host_state.cgroups(one) == {"version": 1, "controllers": ["cpu", "memory"]}
    _write(off, "proc/cgroups", CGROUPS.format(0))
    _write(off, "proc/mounts", mounts)
    assert host_state.cgroups(off) == {"version": 1, "controllers": ["cpu"]}
    _write(bare, "sys/fs/cgroup/cgroup.controllers", "cpu io\n")
    _write(bare, "proc/cgroups", CGROUPS.format(1))
    assert host_state.cgroups(bare) == {"version": 2, "controllers": ["cpu", "io"]}


def test_traces_of_k3s(tmp_path: Path) -> None:
    assert host_state.k3s_traces(tmp_path) == {"managed": False, "found": []}
    _write(tmp_path, "usr/local/bin/k3s", "")
    _write(tmp_path, "etc/appliance/managed", "")
    assert host_state.k3s_traces(tmp_path) == {"managed": True, "found": ["/usr/local/bin/k3s"]}


def test_a_directory_that_is_not_there_yet_lies_on_its_parents_file_system(tmp_path: Path) -> None:
    here, below = host_state.filesystem(tmp_path), host_state.filesystem(tmp_path / "not/yet")
    assert here["mount"] == below["mount"]
    assert 0 < below["available"] <= below["total"]


def test_sizes(tmp_path: Path) -> None:
    _write(tmp_path, "d/one", "12345")
    _write(tmp_path, "d/e/two", "123")
    assert host_state.size_of(tmp_path / "d") == 8
    assert host_state.size_of(tmp_path / "d/one") == 5
    assert host_state.size_of(tmp_path / "absent") is None


def test_what_is_installed(tmp_path: Path) -> None:
    assert host_state.installed(tmp_path) == []
    _write(tmp_path, "var/lib/appliance/oci-layout", "{}")
    assert host_state.installed(tmp_path) == ["/var/lib/appliance"]


def test_swap(tmp_path: Path) -> None:
    _write(tmp_path, "proc/meminfo", "MemTotal: 5 kB\nSwapTotal:     1024 kB\n")
    assert host_state.swap_bytes(tmp_path) == 1 << 20
    assert host_state.swap_bytes(tmp_path / "absent") == 0


@pytest.mark.parametrize(
    ("flags", "noexec", "readonly"),
    [
        (0, False, False),
        (os.ST_NOEXEC | os.ST_NOSUID, True, False),
        (os.ST_RDONLY, False, True),
        (os.ST_NODEV, False, False),
    ],
)
def test_the_options_of_a_mount(
    flags: int, noexec: bool, readonly: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def statvfs(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(f_flag=flags, f_bavail=1, f_frsize=1, f_blocks=1)

    monkeypatch.setattr(os, "statvfs", statvfs)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/below")
    found = host_state.filesystem(tmp_path / "link/not/yet")
    assert (found["noexec"], found["readonly"]) == (noexec, readonly)
    assert asked == [tmp_path / "real"]


def test_a_directory_that_is_mounted_at_itself_is_its_own_mount_point(tmp_path: Path) -> None:
    (tmp_path / "a stick/below").mkdir(parents=True)
    escaped = str(tmp_path / "a stick").replace(" ", "\\040")
    lines = f"22 1 8:1 / / rw - ext4 /dev/a rw\n23 22 8:1 /x {escaped} rw,noexec shared:1 - ext4 /dev/a rw\nodd\n"
    _write(tmp_path, "proc/self/mountinfo", lines)
    assert host_state.mount_of(tmp_path / "a stick/below/not/yet", tmp_path) == tmp_path / "a stick"
    assert host_state.mount_of(tmp_path / "other", tmp_path) == Path("/")
    assert host_state.mount_of(tmp_path, tmp_path / "nothing") == Path("/")


def _state(path: Path) -> tuple[str, int, int]:
    found = host_state.source(path)
    return found["kind"], found["files"], found["candidates"]


def test_a_medium_by_names_and_sizes(tmp_path: Path) -> None:
    assert _state(tmp_path / "absent") == ("", 0, 0)
    stick = tmp_path / "stick"
    stick.mkdir()
    assert _state(stick) == ("directory", 0, 0)
    for name in ("readme.txt", "SHA256SUMS", "x.tar.sha256", "Autorun.inf", "medium.yaml"):
        _write(stick, name, "x")
    _write(stick, "empty.tar", "")
    _write(stick, ".hidden.tar", "x")
    for litter in ("System Volume Information/x", "$Recycle.Bin/old.tar", ".Trash-0/y.tar", "lost+found/z"):
        _write(stick, litter, "x")
    assert _state(stick) == ("directory", 6, 0)
    for name in ("deep/er/x.tar", "part.aa", "noending", "layout/index.json"):
        _write(stick, name, "x")
    assert _state(stick) == ("directory", 10, 4)
    assert _state(stick / "part.aa") == ("file", 1, 1)
    os.mkfifo(stick / "pipe")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/elsewhere").symlink_to(stick)
    assert _state(tmp_path / "links") == ("directory", 1, 1)
    assert _state(stick / "pipe") == ("other", 0, 0)
    assert host_state.source(stick)["bytes"] == 9


def test_a_medium_that_cannot_be_read_has_the_systems_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "scandir", broken)
    assert host_state.source(tmp_path)["error"] == "Input/output error"


def test_media_that_were_published_before(tmp_path: Path) -> None:
    lines = [
        {"action": "publish", "digest": "sha256:1", "sources": ["/media/stick", "/media/ümläut"]},
        {"action": "push", "name": "/media/pushed", "digest": "sha256:2"},
        {"action": "pin", "digest": "sha256:3", "sources": "/media/odd"},
    ]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    _write(tmp_path, "var/lib/appliance/journal.jsonl", text + '{"digest": "/media/cut')
    current = {"annotations": {"vnd.k3s-airgap-appliance.sources": json.dumps(['/media/new "one"'])}}
    _write(tmp_path, "var/lib/appliance/index.json", json.dumps(current))
    names = ["/media/stick", "/media/ümläut", "/media/pushed", "/media/odd", '/media/new "one"', "/media", "/media/cut"]
    assert host_state.published(names, tmp_path) == ["/media/stick", "/media/ümläut", '/media/new "one"']
    assert host_state.published(names, tmp_path / "nothing") == []


@pytest.mark.parametrize("lost", ["journal.jsonl", "index.json"])
def test_the_store_that_a_seeding_left_is_understood(lost: str, tmp_path: Path) -> None:
    site = Site(tmp_path)
    source = site.archive("a.tar", a=made.image(1))
    site.seed(source)
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/appliance").symlink_to(site.blobs.root)
    (site.blobs.root / lost).unlink()
    assert host_state.published([source, str(site.medium)], tmp_path) == [source]


def test_what_an_interpreter_says_of_itself(tmp_path: Path) -> None:
    def run(argv: list[str]) -> tuple[int, str, str]:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    found = interpreters.probe(sys.executable, run)
    assert (found["version"], found["missing"], found["machine"]) == (
        list(sys.version_info[:3]),
        [],
        os.uname().machine,
    )
    assert len(found["glibc"]) == 2
    assert interpreters.probe(str(tmp_path / "absent"), run)["error"] == "it is not there"
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'libpython3.so: cannot open shared object file' >&2; exit 127\n")
    broken.chmod(0o755)
    assert interpreters.probe(str(broken), run)["error"] == "libpython3.so: cannot open shared object file"
