"""The first process of a site's namespaces: lays the bridge, starts the sink, and reaps.

The site's processes all live in the keeper's process namespace and its mounts in the keeper's mount namespace, so the
kernel clears everything away when the keeper ends, however it ends.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.lab.sink import NETWORK, SINK_ADDRESS, SINK_ADDRESS_6

BRIDGE = "br0"
CONTROLLER = "10.77.0.1"
STRANGER = "10.77.0.99"

_REFUSE = f"""
table inet sink {{
    chain refuse {{
        type filter hook prerouting priority raw; policy accept;
        ip daddr != {{ {NETWORK}, 224.0.0.0/4, 255.255.255.255 }} reject with icmp net-unreachable
        ip6 daddr != {{ fe80::/10, ff00::/8 }} reject with icmpv6 no-route
    }}
}}
"""


def _do(command: str, stdin: str | None = None) -> None:
    subprocess.run(command.split(), check=True, text=True, input=stdin)


def lay_network(state: Path) -> None:
    """The bridge with the controller on it, the sink and the stranger beside it.

    :param state: the site's directory, where the sink writes its log.
    """
    _do("ip link set lo up")
    # No forwarding delay and no snooping: a port works the moment it is plugged in, and neighbour discovery gets through.
    _do(f"ip link add {BRIDGE} type bridge forward_delay 0 mcast_snooping 0")
    _do(f"ip addr add {CONTROLLER}/{NETWORK.prefixlen} dev {BRIDGE}")
    _do(f"ip link set {BRIDGE} up")
    for name, address in (("sink", str(SINK_ADDRESS)), ("stranger", STRANGER)):
        _do(f"ip netns add {name}")
        _do(f"ip link add v-{name} type veth peer name eth0 netns {name}")
        _do(f"ip link set v-{name} master {BRIDGE} up")
        _do(f"ip -n {name} link set lo up")
        _do(f"ip -n {name} link set eth0 up")
        _do(f"ip -n {name} addr add {address}/{NETWORK.prefixlen} dev eth0")
    _do(f"ip -n sink addr add {SINK_ADDRESS_6}/64 dev eth0 nodad")
    inside = "ip netns exec sink"
    _do(f"{inside} sysctl -q -w net.ipv4.ip_forward=0 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0")
    _do(f"{inside} nft -f -", _REFUSE)
    sink = [*inside.split(), sys.executable, "-m", "tests.lab.sink", str(state / "sink.log"), str(state / "sink.marks")]
    subprocess.Popen(sink)


def main(state: Path) -> None:
    """Set up, say so by a file, and stay."""
    # A /run of the site's own: nspawn and ip keep locks and names there, which go with the namespace.
    _do("mount -t tmpfs -o mode=0755 tmpfs /run")
    Path("/run/lock").mkdir()
    lay_network(state)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    (state / "keeper.ready").write_text("yes\n")
    while True:
        signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
