"""A site: hosts a, b and c, the bridge between them, a controller, a stranger, and the sink."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.lab import cgroups
from tests.lab.base import REPOSITORY, LabError, Process, cache_dir, check_controller, run, state_dir, wait_for
from tests.lab.host import Host, HostSpec
from tests.lab.limits import raise_limits, restore_limits
from tests.lab.root import build_root, locked
from tests.lab.sink import MARK, MARK_PORT, SINK_ADDRESS

__all__ = ["DEFAULT_HOSTS", "Answer", "Host", "HostSpec", "Site", "unique_id"]

DEFAULT_HOSTS = (
    HostSpec("a", "10.77.0.11", "nftables", outward=True),
    HostSpec("b", "10.77.0.12", "firewalld", outward=True),
    HostSpec("c", "10.77.0.13", "ufw", outward=False),
)

_GROUP = "k3s-airgap-lab-"

Answer = Literal["open", "closed", "filtered"]

_CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])).close()
    print("open")
except ConnectionRefusedError:
    print("closed")
except OSError:
    print("filtered")
"""

_LISTENS = """
import socket, sys, time
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.2).close()
        sys.exit(0)
    except OSError:
        time.sleep(0.05)  # until a service on another host listens, which tells nobody
sys.exit(1)
"""

_MARK = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(sys.argv[3].encode(), (sys.argv[1], int(sys.argv[2])))
"""


class Site:
    """Three hosts and their network. All it knows is on disk, so another process can take hold of a running one.

    :param site_id: names the state directory and the control groups; sites of different ids do not meet.
    :param hosts: the hosts; by default a, b and c with three different firewalls.
    :param detached: whether the site outlives this process. If not, the kernel ends it together with the process,
        however that ends; what is then left on disk is cleared by ``down`` of the same id, or by :meth:`sweep`.
    :param store_size_mib: host name to the size of a file system of its own for /var/lib/appliance.
    """

    def __init__(
        self,
        site_id: str = "lab",
        hosts: Sequence[HostSpec] = DEFAULT_HOSTS,
        *,
        detached: bool = False,
        store_size_mib: Mapping[str, int] | None = None,
    ) -> None:
        self.id = site_id
        self.state = state_dir(site_id)
        self.detached = detached
        sizes = store_size_mib or {}
        sized = [replace(spec, store_size_mib=sizes.get(spec.name, spec.store_size_mib)) for spec in hosts]
        self.hosts: dict[str, Host] = {spec.name: Host(self, spec) for spec in sized}
        self._unshare: subprocess.Popen[bytes] | None = None

    @classmethod
    def attach(cls, site_id: str = "lab") -> Site:
        """Take hold of a running site.

        :raises LabError: when it is not up.
        """
        path = state_dir(site_id) / "site.json"
        if not path.exists():
            raise LabError(f"no lab {site_id!r} is up")
        known = json.loads(path.read_text())
        site = cls(site_id, [HostSpec(**spec) for spec in known["hosts"]], detached=True)
        if not site.is_up():
            raise LabError(f"lab {site_id!r} is dead; 'down' clears what is left of it")
        return site

    @classmethod
    def ids(cls) -> list[str]:
        """Ids of all sites that have left anything on this machine, up or dead."""
        parent = state_dir("")
        return sorted(path.name[len(parent.name) :] for path in parent.parent.glob(f"{parent.name}*"))

    @classmethod
    def sweep(cls) -> list[str]:
        """Clear away what killed test runs have left; sites that are up or being made are not touched.

        :returns: the ids that were cleared.
        """
        swept: list[str] = []
        # Two runs may begin at the same time, and one would find half of what the other takes away.
        with locked(cache_dir() / "sweep.lock"):
            for site_id in cls.ids():
                if not _in_use(site_id):
                    cls(site_id).down()
                    swept.append(site_id)
        return swept

    # -- life ----------------------------------------------------------------------------------------------------

    @property
    def keeper(self) -> Process:
        """The process that the site's namespaces hang on.

        :raises LabError: when the site is not up.
        """
        with contextlib.suppress(FileNotFoundError):
            process = Process(**json.loads((self.state / "keeper.json").read_text()))
            if process.alive():
                return process
        raise LabError(f"lab {self.id!r} is not up")

    def is_up(self) -> bool:
        """Whether the site's namespaces exist; its hosts may be on or off."""
        with contextlib.suppress(LabError):
            return bool(self.keeper)
        return False

    def up(self) -> None:
        """Build the tree if needed, lay the network, and boot every host from a pristine disk.

        :raises LabError: already up, something missing on this machine, or a host that does not come up. What was
            begun is cleared away before the error leaves.
        """
        check_controller()
        if self.is_up():
            raise LabError(f"lab {self.id!r} is up already")
        for release in sorted({host.spec.release for host in self.hosts.values()}):
            build_root(release)
        self.down()
        try:
            self.state.mkdir(parents=True, mode=0o755)
            specs = [dict(vars(host.spec)) for host in self.hosts.values()]
            owner = vars(Process.of(os.getpid()))
            (self.state / "site.json").write_text(json.dumps({"id": self.id, "hosts": specs, "owner": owner}))
            raise_limits()
            self._start_keeper()
            self._make_keys()
            with ThreadPoolExecutor(len(self.hosts)) as pool:
                list(pool.map(lambda host: host.prepare(), self.hosts.values()))
            self._write_ssh()
            self.boot_all()
            self.sink_reset()
        except BaseException:
            self.down()
            raise

    def boot_all(self, clock: str | None = None) -> None:
        """Switch on all hosts that are off, at the same time.

        :param clock: see :meth:`tests.lab.host.Host.boot`.
        """
        off = [host for host in self.hosts.values() if not host.is_up()]
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(lambda host: host.boot(clock), off))

    def power_off_all(self) -> None:
        """The whole site loses its power at once."""
        for host in self.hosts.values():
            if host.is_up():
                host.cut_link()
        for host in self.hosts.values():
            host.power_off()

    def down(self) -> None:
        """End the site and leave nothing: process, mount, namespace, control group, loop device or file.

        Hosts are not asked: nothing of theirs is kept. Safe to call for a site that is dead or was never up.
        """
        if self.is_up():
            self._end(self.keeper)
        if self._unshare is not None:
            self._unshare.wait(30)
            self._unshare = None
        for host in self.hosts.values():
            host.reap()
        for name in self._known_hosts():
            cgroups.remove(self.group(name))
        wait_for("the site's loop devices to be freed", lambda: not self._loops(), 30)
        if self.state.exists():
            shutil.rmtree(self.state)
        restore_limits(lambda: cgroups.any_with(_GROUP) or any(_in_use(site_id) for site_id in self.ids()))

    def _end(self, keeper: Process) -> None:
        """End everything that is in the site's namespaces, from inside or from outside."""
        parent = Process.of(keeper.parent())
        # Who was put into the site's network from outside: ssh's and Ansible's shared connections, above all. Listed
        # while the namespace surely exists: its number is given to another one the moment it is free.
        network, inside = _namespace(keeper.pid, "net"), _namespace(keeper.pid, "pid")
        residents = [
            process
            for process in _processes()
            if process != parent
            and _namespace(process.pid, "net") == network
            and _namespace(process.pid, "pid") != inside
        ]
        keeper.signal(signal.SIGKILL)
        # Its parent takes its exit status and ends as well; whoever killed that one first would leave a zombie.
        wait_for("the site's namespaces to end", lambda: not keeper.alive() and not parent.alive(), 30)
        for process in residents:
            process.signal(signal.SIGKILL)
        wait_for("the controller's processes to end", lambda: not any(p.alive() for p in residents), 30)

    def _known_hosts(self) -> set[str]:
        names = set(self.hosts)
        with contextlib.suppress(FileNotFoundError, ValueError):
            names |= {spec["name"] for spec in json.loads((self.state / "site.json").read_text())["hosts"]}
        return names

    def _loops(self) -> list[str]:
        """Loop devices whose file lies in the site's directory."""
        listed = run(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"]).stdout.splitlines()
        return [line for line in listed if f"{self.state}/" in line]

    def group(self, host: str) -> str:
        """The name of a host's control group."""
        return f"{_GROUP}{self.id}-{host}"

    def _start_keeper(self) -> None:
        argv = ["unshare", "--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        argv += ["--mount-proc", sys.executable, "-m", "tests.lab.keeper", str(self.state)]
        if not self.detached:
            argv = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
        log = self.state / "keeper.log"
        with log.open("ab") as output:
            self._unshare = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=REPOSITORY,
                env={
                    **os.environ,
                    "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
                    "PYTHONPATH": str(REPOSITORY),
                },
            )
        parent = Process.of(self._unshare.pid)

        def ready() -> bool:
            if not parent.alive():
                raise LabError(f"the site's first process ended:\n{log.read_text(errors='replace')}")
            return (self.state / "keeper.ready").exists()

        wait_for("the site's network", ready, 30, 0.02)
        (keeper,) = parent.children()
        (self.state / "keeper.json").write_text(json.dumps(vars(Process.of(keeper))))

    # -- network -------------------------------------------------------------------------------------------------

    def enter(self, keeper: Process) -> list[str]:
        """The words before a command that shall run in the site's network, mount and process namespaces."""
        return ["nsenter", f"--target={keeper.pid}", "--mount", "--net", "--pid"]

    def inside(
        self, argv: Sequence[str | Path], *, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a program among the site's mounts and interfaces; for what the lab itself does, not for tests."""
        return run([*self.enter(self.keeper), *argv], check=check, timeout=timeout)

    def exec(
        self,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        *,
        check: bool = True,
        timeout: float | None = 600,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as the controller: this machine's files, the site's network, no way out.

        :param env: variables to set on top of this process's own.
        :param timeout: seconds until it is killed.
        :raises LabError: when ``check`` and it failed, or when it ran out of time.
        """
        nsenter = ["nsenter", f"--net=/proc/{self.keeper.pid}/ns/net"]
        merged = {**os.environ, **(env or {})}
        return run([*nsenter, *argv], check=check, timeout=timeout, stdin=stdin, env=merged, cwd=cwd)

    def stranger_connect(self, address: str, port: int, timeout: float = 2) -> Answer:
        """What a machine on the same bridge that is not of the site gets from a TCP port.

        :param timeout: seconds after which silence counts as ``filtered``; so does an ICMP refusal.
        """
        return self._connect("stranger", address, port, timeout)

    def controller_connect(self, address: str, port: int, timeout: float = 2) -> Answer:
        """The same from the controller."""
        return self._connect(None, address, port, timeout)

    def listens(self, address: str, port: int, timeout: float) -> bool:
        """Whether a TCP port opens to the controller, asked again and again until then.

        :param timeout: seconds to go on asking.
        """
        argv = [sys.executable, "-IS", "-c", _LISTENS, address, str(port), str(timeout)]
        return self.exec(argv, check=False, timeout=timeout + 30).returncode == 0

    def _connect(self, netns: str | None, address: str, port: int, timeout: float) -> Answer:
        path = f"root/run/netns/{netns}" if netns else "ns/net"
        argv = ["nsenter", f"--net=/proc/{self.keeper.pid}/{path}", sys.executable, "-IS", "-c", _CONNECT]
        said = run([*argv, address, str(port), str(timeout)], timeout=timeout + 30).stdout.strip()
        if said == "open":
            return "open"
        return "closed" if said == "closed" else "filtered"

    # -- sink ----------------------------------------------------------------------------------------------------

    def sink_log(self) -> list[str]:
        """Every attempt to leave since the last reset, one a line, up to this moment.

        A mark is sent through the sink first and waited for, so the log is complete and the sink is known to listen.

        :raises LabError: when the sink does not answer: an empty log would prove nothing.
        """
        self._sink_sync()
        return (self.state / "sink.log").read_text(errors="replace").splitlines()

    def sink_reset(self) -> None:
        """Forget the attempts so far."""
        self._sink_sync()
        os.truncate(self.state / "sink.log", 0)

    def _sink_sync(self) -> None:
        word = secrets.token_hex(8)
        marks = self.state / "sink.marks"
        wait_for("the sink to listen", lambda: marks.exists() and "listening" in marks.read_text(), 10)
        mark = (MARK + word.encode()).decode()
        self.exec([sys.executable, "-IS", "-c", _MARK, str(SINK_ADDRESS), str(MARK_PORT), mark])
        wait_for("the sink to see the controller's mark", lambda: word in marks.read_text(), 10, 0.01)

    # -- what operators bring --------------------------------------------------------------------------------------

    def _make_keys(self) -> None:
        (self.state / "ssh").mkdir(mode=0o700)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", self.state / "ssh/id"])

    def _write_ssh(self) -> None:
        ssh = self.state / "ssh"
        known = ""
        config = ""
        for host in self.hosts.values():
            kind, key, *_ = (ssh / f"host-{host.name}.pub").read_text().split()
            known += f"{host.address} {kind} {key}\n"
            config += f"Host {host.name}\n    HostName {host.address}\n"
        config += f"""Host *
    User root
    IdentityFile {ssh}/id
    IdentitiesOnly yes
    BatchMode yes
    UserKnownHostsFile {ssh}/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    ConnectTimeout 2
    ServerAliveInterval 5
    ServerAliveCountMax 3
    ControlMaster auto
    ControlPersist 600
    ControlPath {ssh}/%h
    LogLevel ERROR
"""
        (ssh / "known_hosts").write_text(known)
        (ssh / "config").write_text(config)

    def write_inventory(
        self,
        directory: Path,
        extra_vars: Mapping[str, Any] | None = None,
        *,
        nodes: Sequence[str] | None = None,
        servers: Sequence[str] | None = None,
        seeds: Sequence[str] = ("a",),
    ) -> Path:
        """Write an Ansible inventory of the site, host keys checked against the real ones.

        :param directory: gets ``hosts.yml`` and ``group_vars/all.yml``.
        :param extra_vars: variables of the site, into ``group_vars/all.yml``.
        :param nodes: the hosts that are in it; all where none are named.
        :param servers: hosts of ``k3s_servers``; the first of ``nodes`` where none are named. The others are agents.
        :param seeds: hosts of ``mirror_seeds``.
        :returns: the path of ``hosts.yml``.
        """
        ssh = self.state / "ssh"
        (ssh / "ansible").mkdir(exist_ok=True)
        listed = list(self.hosts if nodes is None else nodes)
        servers = listed[:1] if servers is None else servers

        def group(names: Sequence[str]) -> dict[str, Any]:
            return {"hosts": {name: {} for name in names}}

        hosts = {
            "all": {
                "hosts": {name: {"ansible_host": self.hosts[name].address} for name in listed},
                "children": {
                    "k3s_cluster": {"children": {"k3s_servers": {}, "k3s_agents": {}}},
                    "k3s_servers": group(servers),
                    "k3s_agents": group([name for name in listed if name not in servers]),
                    "mirror_seeds": group(seeds),
                },
            }
        }
        variables: dict[str, Any] = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(ssh / "id"),
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={ssh}/known_hosts -o GlobalKnownHostsFile=/dev/null"
            " -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes",
            # Two labs have the same addresses: their shared connections must not meet.
            "ansible_control_path_dir": str(ssh / "ansible"),
            **(extra_vars or {}),
        }
        (directory / "group_vars").mkdir(parents=True, exist_ok=True)
        (directory / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False))
        (directory / "group_vars/all.yml").write_text(yaml.safe_dump(variables, sort_keys=False))
        return directory / "hosts.yml"


def _in_use(site_id: str) -> bool:
    """Whether a site is up or being made; what cannot be told is taken to be."""
    try:
        owner = json.loads((state_dir(site_id) / "site.json").read_text()).get("owner")
    except (FileNotFoundError, ValueError):
        return True
    return Site(site_id).is_up() or (owner is not None and Process(**owner).alive())


def _processes() -> list[Process]:
    found: list[Process] = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(LabError):
            found.append(Process.of(int(path.name)))
    return found


def _namespace(pid: int, kind: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def unique_id() -> str:
    """An id for a site that nobody else uses, short enough for control socket paths."""
    return f"{socket.gethostname()[:8]}-{os.getpid()}"
