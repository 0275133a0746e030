"""Reading a host from a tree of /proc, /sys and /lib."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.site.appliance.plugins.module_utils import host_state


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
