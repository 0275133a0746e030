"""What a stopped K3s left on a host: what is recognised as its, and what is not."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from ansible_collections.site.appliance.plugins.module_utils import k3s_remains as remains
from ansible_collections.site.appliance.plugins.module_utils.k3s_remains import Process

SHIM = "/var/lib/rancher/k3s/data/0a/bin/containerd-shim-runc-v2"
SHIM_ARGS = f"{SHIM} -namespace k8s.io -id 1 -address {remains.SOCKET}"


def process(pid: int, parent: int, program: str = "/bin/app", arguments: str = "app", groups: str = "0::/") -> Process:
    return Process(pid, parent, program, arguments, groups)


def test_containers_and_programs_and_nobody_else() -> None:
    running = [
        process(1, 0, "/sbin/init"),
        process(10, 1, SHIM, SHIM_ARGS),
        process(11, 10, "/pause"),
        process(12, 11, "/bin/sh"),
        # Debian's own shim, for K3s's containerd and for somebody else's.
        process(
            20,
            1,
            "/usr/bin/containerd-shim-runc-v2",
            f"/usr/bin/containerd-shim-runc-v2 -id 2 -address {remains.SOCKET}",
        ),
        process(21, 20),
        process(
            30,
            1,
            "/usr/bin/containerd-shim-runc-v2",
            "containerd-shim-runc-v2 -address /run/containerd/containerd.sock",
        ),
        process(31, 30),
        process(40, 1, "/usr/bin/python3", "python3 k3s", "1:name=systemd:/system.slice/k3s.service"),
        process(41, 40, "/usr/bin/containerd"),
        process(50, 1, "/usr/local/bin/k3s (deleted)"),
        # Talks of it, and is not it.
        process(60, 1, "/usr/bin/vim", f"vim {remains.SOCKET} containerd-shim"),
    ]
    assert remains.sort_out(running, 1) == ([11, 12, 21], [10, 20, 40, 41, 50])


def test_whoever_asks_is_spared_with_its_ancestors() -> None:
    running = [process(1, 0), process(10, 1, SHIM, SHIM_ARGS), process(11, 10), process(12, 11), process(13, 11)]
    assert remains.sort_out(running, 12) == ([13], [])


def _proc(root: Path, pid: int, state: str, name: str = "a) b") -> None:
    place = root / "proc" / str(pid)
    place.mkdir(parents=True)
    (place / "stat").write_text(f"{pid} ({name}) {state} 1 0 0\n")
    (place / "cmdline").write_bytes(b"app\0-x\0")
    (place / "cgroup").write_text("0::/system.slice/k3s.service\n")


def test_processes_as_the_kernel_shows_them(tmp_path: Path) -> None:
    _proc(tmp_path, 7, "S")
    _proc(tmp_path, 8, "Z")
    (tmp_path / "proc/9").mkdir()
    (tmp_path / "proc/meminfo").touch()
    assert remains.processes(tmp_path) == [Process(7, 1, "", "app -x", "0::/system.slice/k3s.service\n")]


def test_what_does_not_end_softly_is_killed(tmp_path: Path) -> None:
    _proc(tmp_path, 7, "S")
    sent: list[tuple[int, int]] = []

    def kill(pid: int, number: int) -> None:
        sent.append((pid, number))
        (tmp_path / "proc/7/stat").write_text("7 (x) Z 1\n")

    remains.end_processes(tmp_path, 0, kill)
    assert sent == [(7, signal.SIGKILL)]


MOUNTINFO = "\n".join(
    f"{number} 1 0:{number} / {point} rw - tmpfs none rw"
    for number, point in enumerate(
        [
            "/",
            "/var/lib/rancher",
            "/var/lib/kubelet",
            "/run/k3s/containerd/rootfs",
            "/var/lib/kubelet/pods/1/volumes/a\\040b",
            "/var/lib/kubelet/plugins/x",
            "/run/netns/cni-1",
            "/run/netns/mine",
            "/var/lib/rancher/k3s/storage",
        ]
    )
)


def test_mounts_go_from_the_last_to_the_first_and_the_hosts_own_stay() -> None:
    fstab = "# /run/k3s/containerd/rootfs is a comment\nUUID=1 /var/lib/kubelet/plugins/x ext4 defaults 0 2\n"
    assert remains.k3s_mounts(MOUNTINFO, fstab) == [
        "/run/netns/cni-1",
        "/var/lib/kubelet/pods/1/volumes/a b",
        "/run/k3s/containerd/rootfs",
    ]


def test_interfaces() -> None:
    shown = [
        {"ifname": "eth0"},
        {"ifname": "cni0"},
        {"ifname": "veth1", "master": "cni0"},
        {"ifname": "veth2", "master": "br0"},
        {"ifname": "flannel.1"},
    ]
    assert remains.k3s_links(json.dumps(shown)) == ["veth1", "cni0", "flannel.1"]
    assert remains.k3s_links("") == []


def test_routes_to_the_pods_of_other_nodes() -> None:
    shown = [
        {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"},
        {"dst": "10.42.1.0/24", "gateway": "192.0.2.12", "dev": "eth0"},
        {"dst": "10.42.0.0/24", "dev": "cni0", "protocol": "kernel"},
        {"dst": "10.50.0.0/16", "gateway": "192.0.2.1", "dev": "eth0"},
    ]
    subnets = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.0.1/24\nFLANNEL_IPV6_NETWORK=fd00:42::/56\n"
    route = ["ip", "-4", "route", "del", "10.42.1.0/24", "via", "192.0.2.12", "dev", "eth0"]
    assert remains.k3s_routes(json.dumps(shown), "-4", subnets) == [route]
    # Nobody says which network the pods had: no route is taken for theirs.
    assert remains.k3s_routes(json.dumps(shown), "-4", "") == []


SAVED = """\
# Generated by iptables-save
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
:FLANNEL-FWD - [0:0]
:site - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -m comment --comment "KUBE-ROUTER rule to accept" -m mark --mark 0x20000/0x20000 -j ACCEPT
-A INPUT -p tcp --dport 22 -j ACCEPT
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A KUBE-FIREWALL -j DROP
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
:CNI-abc - [0:0]
-A POSTROUTING -s 10.42.0.5/32 -j CNI-abc
-A CNI-abc -j MASQUERADE
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
COMMIT
"""


def test_rules_and_chains_go_in_one_transaction_a_table_and_the_sites_own_stay() -> None:
    script, empty, count = remains.without_k3s(SAVED)
    assert script == (
        "*filter\n"
        "-D INPUT -j KUBE-FIREWALL\n"
        '-D INPUT -m comment --comment "KUBE-ROUTER rule to accept" -m mark --mark 0x20000/0x20000 -j ACCEPT\n'
        '-D FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD\n'
        "-F KUBE-FIREWALL\n-F FLANNEL-FWD\n-X KUBE-FIREWALL\n-X FLANNEL-FWD\nCOMMIT\n"
        "*nat\n-D POSTROUTING -s 10.42.0.5/32 -j CNI-abc\n-F CNI-abc\n-X CNI-abc\nCOMMIT\n"
    )
    # The filter table refuses, and has a rule and a chain of the site's.
    assert (empty, count) == (["nat"], 9)


@pytest.mark.parametrize(
    "own", [":INPUT DROP [0:0]\n", ":site - [0:0]\n", "-A INPUT -p tcp -j ACCEPT\n"], ids=["refuses", "chain", "rule"]
)
def test_a_table_that_holds_something_of_the_hosts_stays(own: str) -> None:
    made = "*filter\n:FORWARD ACCEPT [0:0]\n:KUBE-X - [0:0]\n-A FORWARD -j KUBE-X\n"
    assert remains.without_k3s(f"{made}COMMIT\n")[1] == ["filter"]
    assert remains.without_k3s(f"{made}{own}COMMIT\n")[1] == []


def test_a_host_without_rules_of_k3s() -> None:
    assert remains.without_k3s(SAVED.partition("*mangle")[2].join(["*mangle", ""])) == ("", [], 0)
    assert remains.without_k3s("") == ("", [], 0)


def test_sets() -> None:
    assert remains.k3s_sets("KUBE-SRC-1\ninet6:KUBE-DST-2\nkube-router-local-ips\nsite\n") == [
        "KUBE-SRC-1",
        "inet6:KUBE-DST-2",
        "kube-router-local-ips",
    ]


class Host:
    """A host that forgets what it is told to remove, as far as commands go."""

    def __init__(self, root: Path, stubborn: bool = False) -> None:
        self.root, self.stubborn = root, stubborn
        self.ran: list[str] = []
        self.links = [{"ifname": "cni0"}]
        (root / "proc/self").mkdir(parents=True)
        (root / "etc").mkdir()
        (root / "proc/self/mountinfo").write_text("1 1 0:1 / /run/netns/cni-1 rw - nsfs none rw\n")

    def __call__(self, argv: list[str], stdin: str) -> tuple[int, str]:
        line = " ".join(argv)
        if line == "ip -json link show":
            return 0, json.dumps(self.links)
        if argv[0] in ("umount", "nft") or argv[:3] == ["ip", "link", "delete"]:
            self.ran.append(line)
        if self.stubborn:
            return 32, ""
        if argv[0] == "umount":
            (self.root / "proc/self/mountinfo").write_text("")
        if line == "ip link delete cni0":
            self.links = []
        return 0, ""


def test_all_goes_and_nothing_is_left_to_do(tmp_path: Path) -> None:
    host = Host(tmp_path)
    remains.remove(host, tmp_path, 0)
    assert host.ran == ["umount /run/netns/cni-1", "ip link delete cni0"]
    assert not remains.look(host, tmp_path)


def test_groups_of_pods_go_from_the_innermost_and_the_hosts_own_stay(tmp_path: Path) -> None:
    top = tmp_path / "sys/fs/cgroup"
    for name in (
        "cpu,cpuacct/kubepods/burstable/pod1/c",
        "memory/kubepods",
        "kubepods.slice/x",
        "system.slice/kubepods-like",
    ):
        (top / name).mkdir(parents=True)
    (top / "cpu").symlink_to("cpu,cpuacct")
    host = Host(tmp_path)
    found = remains.look(host, tmp_path)
    assert "7 control groups" in found.lines()
    remains.remove(host, tmp_path, 0)
    left = sorted(str(path.relative_to(top)) for path in top.rglob("*") if not path.is_symlink())
    assert left == ["cpu,cpuacct", "memory", "system.slice", "system.slice/kubepods-like"]


def test_a_group_that_somebody_is_in_is_named(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup/kubepods"
    group.mkdir(parents=True)
    (group / "process").touch()
    with pytest.raises(remains.RemainsError, match=rf"1 control groups; {group}"):
        remains.remove(Host(tmp_path), tmp_path, 0)


def test_what_does_not_go_is_named(tmp_path: Path) -> None:
    host = Host(tmp_path, stubborn=True)
    with pytest.raises(remains.RemainsError, match=r"1 mounts; 1 network interfaces; /run/netns/cni-1; cni0"):
        remains.remove(host, tmp_path, 0)
    assert "umount --lazy /run/netns/cni-1" in host.ran
