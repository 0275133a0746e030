"""The trees that hosts of the lab boot from, one for each release of Debian, built once and kept in the cache.

The recipe below is the key: a change to it builds a new tree, nothing else does. Packages come from wherever this
machine's own apt takes bookworm from.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.lab.base import LabError, cache_dir, check_controller, run

RELEASE = "bookworm"
"""Release of Debian of every host that asks for no other one."""
NEXT_RELEASE = "trixie"

PACKAGES = [
    "busybox-static",
    "ca-certificates",
    "conntrack",
    "containerd",
    "curl",
    "dbus",
    "docker.io",
    "e2fsprogs",
    "ethtool",
    "exfat-fuse",
    "firewalld",
    "ifupdown",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "runc",
    "sudo",
    "systemd",
    "systemd-sysv",
    "ufw",
    "util-linux",
]

# A host of another release is there for what its Python and its systemd do otherwise: one firewall, nothing that pushes.
LEFT_OUT = {"docker.io", "exfat-fuse", "firewalld", "ufw"}

# What Debian would start by itself and what a host without a network must not: enabled per host, or not at all.
DISABLED = ["containerd", "docker", "docker.socket", "firewalld", "ufw", "nftables", "e2scrub_reap", "getty@tty1"]
_ONLY_WITH = {"docker": "docker.io", "docker.socket": "docker.io", "firewalld": "firewalld", "ufw": "ufw"}
MASKED = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "console-getty.service",
    "container-getty@.service",
    "systemd-pstore.service",
]

INIT = r"""#!/bin/sh
# PID 1 of a lab host until it looks the way a K3s node has to; then systemd.
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount --make-rshared /

# Each controller of a cgroup v1 machine is mounted anew: inside the cgroup namespace the host's own directory is its
# root, writable. As nspawn leaves them, all kubelets of the machine would share one tree and clear each other's pods.
# (The list is read first: each mount adds to its end.)
mounts=$(cat /proc/self/mounts)
while read -r _ where type options _; do
    case $type:$where in
    cgroup:/sys/fs/cgroup/*)
        kept=$(printf '%s' "$options" |
            tr , '\n' | grep -vxE 'rw|ro|nosuid|nodev|noexec|relatime|noatime|release_agent=.*' | paste -sd, -)
        case $kept in *name=*) kept=none,$kept ;; esac
        umount "$where" && mount -t cgroup -o "$kept" cgroup "$where" ;;
    esac
done <<EOF
$mounts
EOF

# The kubelet refuses to start where it cannot write these six. They belong to the whole machine, so the host gets files
# with the wanted values in their places, and nothing outside is touched.
install -d -m 0755 /run/lab/sysctl
while read -r key value; do
    printf '%s\n' "$value" > "/run/lab/sysctl/$key"
    mount --bind "/run/lab/sysctl/$key" "/proc/sys/$(printf '%s' "$key" | tr . /)"
done <<EOF
vm.overcommit_memory 1
vm.panic_on_oom 0
kernel.panic 10
kernel.panic_on_oops 1
kernel.keys.root_maxkeys 1000000
kernel.keys.root_maxbytes 25000000
EOF

# Network sysctls belong to the host's own namespace; where nspawn left them read-only a fresh proc lends its own.
if ! [ -w /proc/sys/net/ipv4/ip_forward ]; then
    install -d /run/lab/proc
    mount -t proc proc /run/lab/proc && mount --bind /run/lab/proc/sys/net /proc/sys/net
fi
exec /lib/systemd/systemd
"""

SSHD = """\
PermitRootLogin prohibit-password
PasswordAuthentication no
UseDNS no
"""

CUSTOMIZE = """
set -eu
cd "$1"
rm -f etc/ssh/ssh_host_* etc/hostname etc/resolv.conf
rm -f etc/apt/apt.conf.d/99mmdebstrap etc/apt/sources.list etc/apt/sources.list.d/*
: > etc/machine-id
install -d -m 0755 usr/lib/lab var/log/journal
chroot . systemctl -q disable {disabled}
chroot . systemctl -q mask {masked}
rm -f etc/network/interfaces.d/*
rm -rf usr/share/doc/* usr/share/man/* usr/share/locale/* var/cache/apt/* var/lib/apt/lists/*
chroot . python3 -c 'import venv, ssl, sqlite3, ctypes'
"""


CLOCK = Path(__file__).with_name("clock.c")


def packages(release: str) -> list[str]:
    """Return the packages of a release's tree."""
    return PACKAGES if release == RELEASE else [name for name in PACKAGES if name not in LEFT_OUT]


def _customize(release: str) -> str:
    installed = packages(release)
    disabled = [unit for unit in DISABLED if _ONLY_WITH.get(unit, unit) in installed or unit not in _ONLY_WITH]
    return CUSTOMIZE.format(disabled=" ".join(disabled), masked=" ".join(MASKED))


def recipe_key(release: str = RELEASE) -> str:
    """Return the name of the tree that this recipe makes: a digest over everything that decides its content."""
    digest = hashlib.sha256()
    for part in (release, *packages(release), INIT, SSHD, _customize(release), CLOCK.read_text()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]


def build_root(release: str = RELEASE) -> Path:
    """Return the tree, built if it is not there yet; about 40 s once, 400 MiB. Two builders at a time are safe.

    :param release: code name of the release of Debian.
    :returns: a directory to be used as the read-only lower layer of an overlay.
    :raises LabError: when mmdebstrap fails, with the end of its log.
    """
    check_controller()
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    ready = cache / f"root-{recipe_key(release)}"
    with locked(cache / "root.lock"):
        if ready.is_dir():
            return ready
        for stale in cache.glob("root-*.new"):
            shutil.rmtree(stale)
        new = ready.with_name(ready.name + ".new")
        _mmdebstrap(new, release)
        _write(new / "usr/lib/lab/init", INIT, 0o755)
        _write(new / "etc/ssh/sshd_config.d/lab.conf", SSHD, 0o644)
        run(["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", new / "usr/lib/lab/clock.so", CLOCK])
        new.rename(ready)
    return ready


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file as long as the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _mmdebstrap(target: Path, release: str) -> None:
    with tempfile.TemporaryDirectory(prefix="lab-root-") as scratch:
        options = Path(scratch) / "apt.conf"
        options.write_text(_apt_options())
        hook = Path(scratch) / "customize"
        _write(hook, "#!/bin/sh\n" + _customize(release), 0o755)
        sources = Path(scratch) / "lab.sources"
        sources.write_text(_apt_sources(release))
        argv = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(packages(release))}"]
        argv += [f"--aptopt={options}", f'--customize-hook={hook} "$1"', release, str(target)]
        if sources.stat().st_size:
            argv.append(str(sources))
        # Its own mount namespace: whatever it mounts goes with it, even when it is killed.
        try:
            run(["unshare", "--mount", "--propagation", "private", *argv], timeout=1800)
        except LabError:
            subprocess.run(["rm", "-rf", "--one-file-system", str(target)], check=False)
            raise


def _apt_options() -> str:
    """How this machine reaches its packages (proxies, timeouts, clock checks), as far as apt has it configured."""
    kept = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries", "Acquire::ForceIPv")
    lines = run(["apt-config", "dump"]).stdout.splitlines()
    return "".join(f"{line}\n" for line in lines if line.startswith(kept))


def _apt_sources(release: str) -> str:
    """Return this machine's own apt sources, for a release, as deb822 stanzas; empty leaves it to mmdebstrap's default.

    Sources of other suites are left out: the tree is Debian and nothing else. Another release comes from where this
    machine takes its own from.
    """
    stanzas: list[str] = []
    parts = Path("/etc/apt/sources.list.d")
    for path in sorted(parts.glob("*.sources")):
        for stanza in path.read_text().split("\n\n"):
            fields = _deb822(stanza)
            suites = [s for s in fields.get("Suites", "").split() if s.split("-")[0].split("/")[0] == RELEASE]
            if suites and "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes") == "yes":
                fields |= {"Types": "deb", "Suites": " ".join(suites)}
                stanzas.append("".join(f"{name}: {value}\n" for name, value in fields.items()))
    for path in [Path("/etc/apt/sources.list"), *sorted(parts.glob("*.list"))]:
        for line in path.read_text().splitlines() if path.exists() else []:
            stanzas += _one_line(line)
    return "\n".join(stanzas).replace(RELEASE, release)


def _deb822(stanza: str) -> dict[str, str]:
    """The simple fields of a stanza; a field with an inline key (several lines) keeps its lines."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0] in " \t" and name:
            fields[name] += "\n" + line
        else:
            name, _, value = line.partition(":")
            name = name.strip().title() if name.strip().lower() != "uris" else "URIs"
            fields[name] = value.strip()
    return fields


def _one_line(line: str) -> list[str]:
    words = line.split("#", maxsplit=1)[0].split()
    if not words or words[0] != "deb":
        return []
    words = words[1:]
    signed = ""
    if words and words[0].startswith("["):
        end = next(i for i, word in enumerate(words) if word.endswith("]"))
        for option in " ".join(words[: end + 1]).strip("[]").split():
            if option.startswith("signed-by="):
                signed = f"Signed-By: {option.partition('=')[2]}\n"
        words = words[end + 1 :]
    if len(words) < 3 or words[1].split("-")[0].split("/")[0] != RELEASE:
        return []
    return [f"Types: deb\nURIs: {words[0]}\nSuites: {words[1]}\nComponents: {' '.join(words[2:])}\n{signed}"]


def remove_old_roots() -> None:
    """Delete trees of earlier recipes; one that a running lab stands on is left alone."""
    keep = {f"root-{recipe_key(release)}" for release in (RELEASE, NEXT_RELEASE)}
    mounted = ""
    for path in Path("/proc").glob("[0-9]*/mounts"):
        with contextlib.suppress(OSError):  # processes end while they are being looked at
            mounted += path.read_text(errors="replace")
    for tree in cache_dir().glob("root-????????????????"):
        if tree.name not in keep and str(tree) not in mounted:
            shutil.rmtree(tree)
