"""One host of the lab: a disk of its own, a plug in the bridge, a power switch, a slot for a stick."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import signal
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import cgroups
from tests.lab.base import LabError, Process, children_of, run, wait_for
from tests.lab.keeper import BRIDGE
from tests.lab.root import RELEASE, build_root
from tests.lab.sink import SINK_ADDRESS, SINK_ADDRESS_6

if TYPE_CHECKING:
    from tests.lab.site import Site

APPLIANCE_UNITS = ("appliance-mirror.service", "appliance-peer.service", "appliance-agent.service")
_CLOCK = "etc/systemd/system/{unit}.d/99-lab-clock.conf"

# What K3s and runc call and nspawn's own list leaves out.
_SYSTEM_CALLS = "add_key keyctl bpf @keyring @mount perf_event_open"

# Joins the host's control groups and starts it again for as long as it asks for that: nspawn, told to leave its unit
# alone, ends with 133 where the host rebooted (systemd-nspawn(1), --keep-unit).
_POWER_SUPPLY = """
for group in $GROUPS_TO_JOIN; do echo 0 > "$group/cgroup.procs" || exit 1; done
while :; do
    # The kernel takes the old plug away a moment after the host's last process: not to be waited for.
    ip link del "$PLUG" 2>/dev/null
    "$@"
    code=$?
    [ $code = 133 ] || exit $code
done
"""

_NFTABLES = """\
#!/usr/sbin/nft -f
flush ruleset

table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        ct state invalid drop
        iif "lo" accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport 22 accept
    }
}
"""


@dataclass(frozen=True)
class HostSpec:
    """What makes one host differ from the others.

    :param name: host name and inventory name, one letter or a short word.
    :param address: its IPv4 address on the bridge.
    :param firewall: ``nftables``, ``firewalld``, ``ufw`` or ``none``.
    :param outward: whether it has a default route and a resolver; both lead into the sink.
    :param release: code name of its release of Debian.
    :param store_size_mib: size of a file system of its own for /var/lib/appliance; None: no such file system.
    """

    name: str
    address: str
    firewall: str
    outward: bool
    store_size_mib: int | None = None
    release: str = RELEASE


class Host:
    """A host of a running site; made by :class:`tests.lab.site.Site`, not by hand."""

    def __init__(self, site: Site, spec: HostSpec) -> None:
        self.site = site
        self.spec = spec
        self.name = spec.name
        self.address = spec.address
        self.state = site.state / spec.name
        self.console = self.state / "console.log"
        self._nsenter: subprocess.Popen[bytes] | None = None

    # -- disk ----------------------------------------------------------------------------------------------------

    @property
    def _root(self) -> Path:
        """The host's file system as the keeper mounted it, seen from outside."""
        return Path(f"/proc/{self.site.keeper.pid}/root{self.state}/root")

    def prepare(self) -> None:
        """Make a pristine disk: identity, network and firewall on an overlay over the tree of its release.

        /var/lib lies on the state directory's own file system, because overlayfs (containerd's snapshots) cannot have
        its upper layer on another overlay.
        """
        tree = build_root(self.spec.release)
        for part in ("upper", "work", "root", "media", "lib"):
            (self.state / part).mkdir(parents=True)
        (self.state / "lib/dpkg").mkdir()
        entries = sorted(path for path in (tree / "var/lib").iterdir() if path.name != "dpkg")
        run(["cp", "-a", "--reflink=auto", *entries, self.state / "lib"])
        self._mount("overlay", "overlay", self.state / "root", _overlay(tree, self.state))
        # A thousand small files that nobody changes stay where they are.
        self.site.inside(["mount", "--bind", self.state / "root/var/lib/dpkg", self.state / "lib/dpkg"])
        self.site.inside(["mount", "--rbind", self.state / "lib", self.state / "root/var/lib"])
        self.site.inside(["mount", "--bind", self.state / "media", self.state / "media"])
        self.site.inside(["mount", "--make-shared", self.state / "media"])
        if self.spec.store_size_mib is not None:
            image = self.state / "store.ext4"
            run(["truncate", "-s", f"{self.spec.store_size_mib}M", image])
            run(["mkfs.ext4", "-q", "-m", "0", "-E", "nodiscard", image])
            (self._root / "var/lib/appliance").mkdir(mode=0o755)
            self._mount(image, "ext4", self.state / "root/var/lib/appliance", "loop")
        self._identify()
        self._configure_network()
        self._configure_firewall()

    def replace(self) -> None:
        """Another machine takes the place of this one, switched off: an empty disk, and the same name, address and host key."""
        self.power_off()
        for part in ("root", "media"):
            self.site.inside(["umount", "--recursive", self.state / part])
        shutil.rmtree(self.state)
        self.prepare()

    def _mount(self, what: str | Path, kind: str, where: Path, options: str) -> None:
        self.site.inside(["mount", "-t", kind, "-o", options, what, where])

    def _identify(self) -> None:
        self._put("etc/hostname", f"{self.name}\n")
        self._put("etc/machine-id", f"{uuid.uuid4().hex}\n")
        self._put("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.name}.lab.internal {self.name}\n::1 localhost\n")
        self._put("root/.ssh/authorized_keys", (self.site.state / "ssh/id.pub").read_text(), 0o600)
        (self._root / "root/.ssh").chmod(0o700)
        key = self.site.state / f"ssh/host-{self.name}"
        if not key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{self.name}", "-f", key])
        self._put("etc/ssh/ssh_host_ed25519_key", key.read_text(), 0o600)
        self._put("etc/ssh/ssh_host_ed25519_key.pub", key.with_suffix(".pub").read_text())

    def _configure_network(self) -> None:
        lines = ["auto lo", "iface lo inet loopback", "", "auto host0", "iface host0 inet static"]
        lines += [f"    address {self.address}/24"]
        resolver = ""
        if self.spec.outward:
            # A way out for IPv6 as well, so that an attempt by it is seen and not merely impossible.
            lines += [
                f"    gateway {SINK_ADDRESS}",
                f"    post-up ip -6 route add default via {SINK_ADDRESS_6} dev host0",
            ]
            resolver = f"nameserver {SINK_ADDRESS}\n"
        self._put("etc/network/interfaces", "\n".join(lines) + "\n")
        self._put("etc/resolv.conf", resolver)

    def _configure_firewall(self) -> None:
        firewall = self.spec.firewall
        if firewall == "none":
            return
        if firewall == "nftables":
            self._put("etc/nftables.conf", _NFTABLES, 0o755)
        if firewall == "ufw":
            self._chroot("ufw allow 22/tcp")
            conf = (self._root / "etc/ufw/ufw.conf").read_text()
            self._put("etc/ufw/ufw.conf", conf.replace("ENABLED=no", "ENABLED=yes"))
        self._chroot(f"systemctl -q enable {firewall}")

    def _chroot(self, command: str) -> None:
        self.site.inside(["unshare", "--net", "chroot", self.state / "root", *command.split()])

    def _put(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file on the host's disk from outside; the path is relative and passes through no link."""
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_text(text)
        target.chmod(mode)

    # -- power ---------------------------------------------------------------------------------------------------

    @property
    def _supply(self) -> Process | None:
        try:
            known = json.loads((self.state / "power.json").read_text())
        except FileNotFoundError:
            return None
        process = Process(**known)
        return process if process.alive() else None

    @property
    def _init(self) -> Process | None:
        """The host's own PID 1, seen from outside: the child of nspawn that is the first in one more namespace."""
        supply = self._supply
        for nspawn in supply.children() if supply else []:
            for child in children_of(nspawn):
                with contextlib.suppress(OSError, LabError):
                    status = Path(f"/proc/{child}/status").read_text()
                    if any(line.startswith("NSpid:") and line.split()[-1] == "1" for line in status.splitlines()):
                        return Process.of(child)
        return None

    def is_up(self) -> bool:
        """Whether the host has power; says nothing of its services."""
        return self._supply is not None

    def boot(self, clock: str | None = None, *, timeout: float = 60, settle: float = 60) -> None:
        """Switch the host on and wait until ssh answers and systemd has finished starting.

        :param clock: ``YYYY-MM-DD hh:mm:ss`` (UTC) that the appliance's services shall start from, see
            :meth:`set_service_clock`; None leaves the setting as it is.
        :param timeout: seconds for ssh to answer.
        :param settle: seconds to wait for systemd; a unit that starts for ever is no error here. 0: do not wait.
        :raises LabError: already on, or no answer in time.
        """
        if self.is_up():
            raise LabError(f"host {self.name} is on already")
        if clock is not None:
            self.set_service_clock(APPLIANCE_UNITS, clock)
        self._start()
        try:
            wait_for(f"ssh on host {self.name}", self._answers, timeout)
        except LabError as error:
            raise LabError(f"{error}\n{self._seen()}") from error
        if settle > 0:
            self.run(f"timeout {settle} systemctl is-system-running --wait", check=False, timeout=settle + 10)

    def _start(self) -> None:
        keeper = self.site.keeper
        groups = cgroups.make(self.site.group(self.name))
        root = self.state / "root"
        nspawn: list[str | Path] = ["systemd-nspawn", "--quiet", "-D", root, f"--machine={self.name}"]
        nspawn += ["--register=no", "--keep-unit", "--console=pipe", "--link-journal=no", "--resolv-conf=off"]
        nspawn += ["--timezone=off", f"--network-bridge={BRIDGE}", "--capability=all", "--kill-signal=SIGRTMIN+3"]
        nspawn += [f"--system-call-filter={_SYSTEM_CALLS}", "--bind=/dev/kmsg", f"--bind={self.state / 'media'}:/media"]
        modules = Path("/lib/modules")
        if modules.is_dir():
            nspawn.append(f"--bind-ro={modules}")
        argv = [*self.site.enter(keeper), "env", f"GROUPS_TO_JOIN={' '.join(map(str, groups))}", f"PLUG=vb-{self.name}"]
        argv += ["sh", "-c", _POWER_SUPPLY, "sh"]
        with self.console.open("ab") as console:
            self._nsenter = subprocess.Popen(
                [str(word) for word in [*argv, *nspawn, "/usr/lib/lab/init"]],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        parent = Process.of(self._nsenter.pid)
        wait_for(f"host {self.name} to be started", lambda: bool(parent.children()) or not parent.alive(), 10, 0.01)
        for child in parent.children():
            (self.state / "power.json").write_text(json.dumps(vars(Process.of(child))))

    def _answers(self) -> bool:
        if not self.is_up():
            raise LabError(f"host {self.name} went off while it was starting")
        # ssh itself is asked once somebody listens: it would sit out its time-out on each try before.
        return self.site.listens(self.address, 22, 2) and self.run("true", check=False, timeout=10).returncode == 0

    def _seen(self) -> str:
        """What can be said of a host that does not come up: its console, its units, its ways."""
        said = self.console.read_text(errors="replace")[-2000:]
        init = self._init
        if init is not None:
            looks = ("systemctl list-jobs --no-pager", "ip -br addr", "ss -tln", "journalctl -b -n 40 --no-pager")
            for look in looks:
                done = run(
                    ["nsenter", f"--target={init.pid}", "-m", "-n", "-p", "-u", *look.split()], check=False, timeout=20
                )
                said += f"\n$ {look}\n{done.stdout}{done.stderr}"
        done = self.run("true", check=False, timeout=10)
        return f"{said}\n$ ssh {self.name} true\nexit {done.returncode} {done.stderr}"

    def shutdown(self, timeout: float = 100) -> None:
        """Switch the host off in an orderly way and wait until nothing of it is left.

        :raises LabError: when services keep it from going down in ``timeout`` seconds.
        """
        init = self._init
        if init is None:
            return
        self._forget_ssh()
        # systemd's own signal for "halt", the one an orderly power switch sends to a container: systemd(1).
        init.signal(signal.SIGRTMIN + 3)
        wait_for(f"host {self.name} to shut down", lambda: not self.is_up(), timeout)
        self.reap()

    def power_off(self) -> None:
        """Take the power away: no word on the wire, no service told, nothing flushed by its owner."""
        if not self.is_up():
            return
        # The plug first: the kernel would otherwise close each connection of the dying processes in good form.
        self.cut_link()
        supply, init = self._supply, self._init
        nspawn = [Process.of(pid) for pid in supply.children()] if supply else []
        for process in (supply, init):
            if process is not None:
                process.signal(signal.SIGKILL)
        # nspawn ends by itself after its host; until then it holds the lock on the tree, and a boot would be refused.
        wait_for(
            f"host {self.name} to be gone", lambda: not self.is_up() and not any(p.alive() for p in nspawn), 30, 0.01
        )
        self._forget_ssh()
        self.reap()

    def reap(self) -> None:
        """Take the exit status of a host that has ended, so that no zombie stays."""
        if self._nsenter is not None:
            self._nsenter.wait(10)
            self._nsenter = None

    # -- link ----------------------------------------------------------------------------------------------------

    def cut_link(self) -> None:
        """Nothing gets to or from the host any more, and neither it nor its peers is told (no carrier loss)."""
        self.site.inside(["ip", "link", "set", f"vb-{self.name}", "nomaster"])

    def restore_link(self) -> None:
        """Undo :meth:`cut_link`; a boot does so too."""
        self.site.inside(["ip", "link", "set", f"vb-{self.name}", "master", BRIDGE])

    # -- commands ------------------------------------------------------------------------------------------------

    def run(
        self, cmd: str | Sequence[str], check: bool = True, timeout: float = 120, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host as root, over ssh.

        :param cmd: a line for the host's shell, or words that are quoted for it.
        :param timeout: seconds until the ssh client is killed.
        :raises LabError: when ``check`` and it failed, or when it ran out of time.
        """
        line = cmd if isinstance(cmd, str) else shlex.join(cmd)
        ssh: list[str | Path] = ["ssh", "-F", self.site.state / "ssh/config", self.name, line]
        done = self.site.exec(ssh, check=False, timeout=timeout, stdin=stdin)
        if check and done.returncode != 0:
            said = (done.stdout[-4000:] + done.stderr[-4000:]).strip()
            raise LabError(f"host {self.name}: exit {done.returncode}: {line}\n{said}")
        return done

    def inside(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the host past its network, which may be cut.

        :raises LabError: when the host is off.
        """
        init = self._init
        if init is None:
            raise LabError(f"host {self.name} is off")
        return run(["nsenter", f"--target={init.pid}", "-m", "-n", "-p", "-u", *argv], check=False, timeout=20)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file on the running host; its directory is made where missing."""
        where = shlex.quote(path)
        self.run(f"mkdir -p $(dirname {where}) && cat > {where} && chmod {mode:o} {where}", stdin=text)

    def _forget_ssh(self) -> None:
        """End the shared ssh connection on the controller's side."""
        config = self.site.state / "ssh/config"
        self.site.exec(["ssh", "-F", config, "-O", "exit", self.name], check=False)

    # -- clock ---------------------------------------------------------------------------------------------------

    def set_service_clock(self, units: Sequence[str], stamp: str) -> None:
        """Let some services believe in another time, from their next start on; their clock then runs on from there.

        Works while the host is off as well. Timers and time-outs are not touched: the monotonic clock stays real.

        :param units: unit names with their suffix.
        :param stamp: ``YYYY-MM-DD hh:mm:ss``, UTC.
        """
        start = int(datetime.strptime(f"{stamp} +0000", "%Y-%m-%d %H:%M:%S %z").timestamp())
        text = f"[Service]\nEnvironment=LD_PRELOAD=/usr/lib/lab/clock.so LAB_CLOCK={start}\n"
        for unit in units:
            self._put(_CLOCK.format(unit=unit), text)
        self._reload()

    def clear_service_clock(self, units: Sequence[str] = APPLIANCE_UNITS) -> None:
        """Undo :meth:`set_service_clock`, from the next start of the units on."""
        for unit in units:
            path = self._root / _CLOCK.format(unit=unit)
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()
        self._reload()

    def _reload(self) -> None:
        if self.is_up():
            self.run("systemctl daemon-reload")

    # -- stick ---------------------------------------------------------------------------------------------------

    def attach_stick(self, image: Path, at: str = "/media/stick") -> None:
        """Plug a stick in: mount a file-system image read-only, visible to the host at once.

        :param image: an ext4 or exFAT image; it is never written to, not even its journal.
        :param at: mount point beneath ``/media``.
        :raises LabError: not beneath /media, something mounted there already, or a file system other than the two.
        """
        where = self._slot(at)
        if self._mounted(where):
            raise LabError(f"host {self.name}: something is plugged in at {at} already")
        kind = run(["blkid", "-p", "-o", "value", "-s", "TYPE", image], check=False).stdout.strip()
        self.site.inside(["mkdir", "-p", where])
        if kind == "ext4":
            self._mount(image.resolve(), kind, where, "loop,ro,noload")
        elif kind == "exfat":
            loop = self.site.inside(["losetup", "--read-only", "--find", "--show", image.resolve()]).stdout.strip()
            try:
                self.site.inside(["mount.exfat-fuse", "-o", "ro", loop, where])
            finally:
                # The device is busy now: detaching it makes the kernel free it with its last user.
                self.site.inside(["losetup", "--detach", loop])
        else:
            raise LabError(f"{image}: file system {kind or 'unknown'}; a stick is ext4 or exfat")

    def detach_stick(self, at: str = "/media/stick") -> None:
        """Pull the stick out, in use or not; nothing happens where none is."""
        where = self._slot(at)
        if not self._mounted(where):
            return
        self.site.inside(["umount", "--lazy", where])
        self.site.inside(["rmdir", where], check=False)

    def _slot(self, at: str) -> Path:
        below = Path(at).relative_to("/media") if at.startswith("/media/") else Path("..")
        if ".." in below.parts:
            raise LabError(f"{at}: sticks are mounted beneath /media")
        return self.state / "media" / below

    def _mounted(self, where: Path) -> bool:
        mounts = Path(f"/proc/{self.site.keeper.pid}/mounts").read_text().splitlines()
        return any(line.split()[1] == str(where) for line in mounts)


def _overlay(tree: Path, state: Path) -> str:
    return f"lowerdir={tree},upperdir={state / 'upper'},workdir={state / 'work'}"
