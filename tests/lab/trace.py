"""What can be seen of a host, as lines that can be compared: the proof that something changed nothing, or left nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.lab.host import Host

# Every file with its type, mode, owner and content; rules, units, users, mounts, links, routes and sysctls. Left out is what any
# login, journal or Ansible connection writes by itself, and what the machine under the lab changes.
_LOOK = r"""
import hashlib, os, re, stat, subprocess, sys

PRUNED = ("/proc", "/sys", "/run", "/tmp", "/var/tmp", "/var/log", "/var/lib/systemd", "/var/lib/private", "/root/.ansible", "/media", "/dev")
WITH_TIMES = "times" in sys.argv


def digest(path):
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def entry(path):
    found = os.lstat(path)
    line = f"file {path} {stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid}"
    if stat.S_ISREG(found.st_mode):
        return f"{line} {found.st_size} {found.st_mtime_ns if WITH_TIMES else digest(path)}"
    return f"{line} -> {os.readlink(path)}" if stat.S_ISLNK(found.st_mode) else line


def files(top):
    device = os.lstat(top).st_dev
    for folder, below, names in os.walk(top):
        below[:] = sorted(name for name in below if os.path.join(folder, name) not in PRUNED)
        for name in [*below, *sorted(names)]:
            yield entry(os.path.join(folder, name))
        below[:] = [name for name in below if os.lstat(os.path.join(folder, name)).st_dev == device]


def said(kind, command, keep=lambda line: True):
    text = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return [f"{kind} {line}" for line in text.splitlines() if line.strip() and keep(line)]


lines = list(files("/"))
# Counters move by themselves.
lines += said("nft", "nft list ruleset | sed -E 's/counter packets [0-9]+ bytes [0-9]+/counter/'")
lines += said("ufw", "ufw show added")
lines += said("firewalld", "firewall-cmd --list-all-zones && firewall-cmd --list-all-policies && firewall-cmd --get-ipsets")
lines += said("unit", "systemctl list-unit-files --no-legend --plain --type=service,socket,timer,target,slice")
lines += said("loaded", "systemctl list-units --all --no-legend --plain --full '*appliance*' 'k3s*' 'kubepods*'")
lines += said("user", "getent passwd && getent group")
lines += said("mount", "findmnt --raw --noheadings --output TARGET,SOURCE,FSTYPE", lambda line: not line.startswith(("/run/user/", "/sys", "/proc")))
# After the @ stands the number of the other end, a new one at each boot.
lines += said("link", "ip -br link | awk '{sub(/@.*/, \"\", $1); print $1, $2}'")
lines += said("route", "ip route; ip -6 route; ip rule; ip netns")
lines += said("sysctl", "sysctl -a", lambda line: re.match(
    r"net\.(ipv4\.(ip_forward|conf)|ipv6\.conf|bridge|netfilter)\b|vm\.(overcommit|panic)|kernel\.(panic|keys\.root)", line)
    and not re.search(r"nf_conntrack_(count|generic)|\.stable_secret", line))
lines += said("process", "ps -eo args", lambda line: re.search(r"k3s|containerd|appliance", line) and "ansible" not in line)
print("\n".join(lines))
"""


def look(host: Host, times: bool = False) -> list[str]:
    """What is on a host now, one thing a line.

    :param times: tell files by the time of their last change, which is quicker, and notices what was written and put back;
        otherwise by their content.
    """
    return host.run(f"python3 - {'times' if times else ''}", stdin=_LOOK, timeout=180).stdout.splitlines()


def look_at(hosts: Sequence[Host], times: bool = False) -> dict[str, list[str]]:
    """The same for several hosts at once, by name."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        seen = pool.map(lambda host: look(host, times), hosts)
        return dict(zip((host.name for host in hosts), seen, strict=True))


def differences(before: Sequence[str], after: Sequence[str], allowed: str = "") -> list[str]:
    """What was there and is no more (``-``), and what is there and was not (``+``).

    :param allowed: regular expression for lines that may differ; it is sought from the beginning of a line.
    """
    gone, come = set(before) - set(after), set(after) - set(before)
    return sorted(
        f"{sign} {line}"
        for sign, lines in (("-", gone), ("+", come))
        for line in lines
        if not (allowed and re.match(allowed, line))
    )
