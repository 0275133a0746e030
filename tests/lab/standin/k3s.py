"""The stand-in's command line: ``k3s server``, ``agent``, ``ctr``, ``kubectl``, ``--version``."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from . import api, cluster, config, hostdirs, images, kubectl, pki, pods, translate
from .ctr import Ctr, CtrError, Store
from .members import Member, Members
from .options import Options, UsageError, load
from .version import BANNER, VERSION, version_text

DEAD_END_PORT = 6449
DEAD_END = f"http://127.0.0.1:{DEAD_END_PORT}"
PAUSE_IMAGE = "rancher/mirrored-pause:3.10.2"
_HELP = f"""
   --pause-image value   (agent/runtime) Customized pause image (default: "{PAUSE_IMAGE}")
"""
_CAP_SYS_RESOURCE = 24
_PR_SET_PDEATHSIG = 1

_log = logging.getLogger("k3s")


class Fatal(RuntimeError):
    """K3s would log this and exit 1."""


def main(argv: list[str]) -> int:
    """Run one command.

    :param argv: name under which the program was called, and its arguments.
    """
    called, arguments = Path(argv[0]).name, argv[1:]
    if called in ("ctr", "kubectl", "crictl"):
        arguments = [called, *arguments]
    command = arguments[0] if arguments else ""
    if command in ("--version", "-v", "-version"):
        sys.stdout.write(version_text())
    elif command in ("", "help", "--help", "-h"):
        sys.stdout.write(f"{BANNER}\nUSAGE: k3s server|agent|ctr|kubectl [arguments]\n")
    elif command == "ctr":
        return _ctr(arguments[1:])
    elif command == "kubectl":
        return kubectl.main(arguments[1:])
    elif command in ("server", "agent"):
        if {"--help", "-h"} & set(arguments):
            sys.stdout.write(
                f"{BANNER}\nUSAGE: k3s {command} [OPTIONS], from /etc/rancher/k3s/config.yaml as well\n{_HELP}"
            )
            return 0
        return _node(command, arguments[1:])
    else:
        sys.stderr.write(f"the stand-in for K3s has no {command!r}\n")
        return 1
    return 0


# ------------------------------------------------------------------------------------------------ k3s ctr


def _ctr(arguments: list[str]) -> int:
    layout = config.Layout()
    environment = Ctr(layout).environment()
    with _hosts_directory(arguments, layout) as translated:
        if translated is arguments:
            os.execvpe("ctr", ["ctr", *arguments], environment)
        return subprocess.run(["ctr", *translated], env=environment, check=False).returncode


@contextlib.contextmanager
def _hosts_directory(arguments: list[str], layout: config.Layout) -> Iterator[list[str]]:
    """A pull with ``--hosts-dir`` gets a copy of that directory which ends where K3s's containerd would end."""
    place = next((index for index, item in enumerate(arguments) if item.partition("=")[0] == "--hosts-dir"), None)
    if place is None or "pull" not in arguments:
        yield arguments
        return
    _, equals, value = arguments[place].partition("=")
    if not equals:
        value = arguments[place + 1] if place + 1 < len(arguments) else ""
    if not value or Path(value) == Path(layout.merged):
        yield arguments
        return
    with tempfile.TemporaryDirectory(prefix="k3s-standin-") as scratch:
        directories = [hostdirs.read(Path(item)) for item in value.split(":")]
        hostdirs.write(Path(scratch) / "certs.d", hostdirs.merged(directories, DEAD_END))
        rest = arguments[place + (1 if equals else 2) :]
        yield [*arguments[:place], f"--hosts-dir={scratch}/certs.d", *rest]


# ------------------------------------------------------------------------------------- k3s server, k3s agent


def _node(command: str, arguments: list[str]) -> int:
    logging.basicConfig(
        level=logging.DEBUG if os.environ.get("K3S_DEBUG") else logging.INFO,
        stream=sys.stderr,
        format="level=%(levelname)s msg=%(message)s",
    )
    sys.stderr.write(f"{BANNER}\n")
    try:
        options = load(command, arguments, read_yaml=yaml.safe_load, environment=os.environ)
        for warning in options.warnings:
            _log.warning(warning)
        return Supervisor(options).run()
    except UsageError as error:
        sys.stderr.write(f"Incorrect Usage: {error}\n")
        _log.critical("Error: %s", error)
    except (
        Fatal,
        cluster.JoinError,
        config.ConfigError,
        translate.RegistriesError,
        pki.PkiError,
        yaml.YAMLError,
        OSError,
    ) as error:
        _log.critical("Error: %s", error)
    return 1


class Supervisor:
    """One node from its start to its end."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.server = options.command == "server"
        data = options.text("data-dir", "/var/lib/rancher/k3s")
        self.layout = config.Layout(data_dir=data)
        self.paths = cluster.Paths(Path(data))
        self.name = options.text("node-name", socket.gethostname()).lower()
        self.address = node_address(options)
        self.stop = threading.Event()
        self.ctr = Ctr(self.layout)
        self.members = Members(self.paths.agent / "standin-members.json")
        self.etcd = self.server and bool(options.flag("cluster-init") or options.text("server"))
        self.ready = False
        self.embedded = False
        self.containerd: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Start everything, say that it is ready, and wait for the end."""
        signal.signal(signal.SIGTERM, lambda *_: self.stop.set())
        signal.signal(signal.SIGINT, lambda *_: self.stop.set())
        Path(self.layout.state).mkdir(mode=0o711, parents=True, exist_ok=True)
        self.paths.agent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._join()
        registries = self._registries()
        directories = self._write_containerd(registries)
        server = self._serve(registries)
        try:
            if self.options.flag("disable-agent"):
                _log.info("disable-agent: no containerd on this server")
            else:
                self._start_containerd(directories)
            return self._until_the_end()
        finally:
            server.shutdown()
            self._end_containerd()

    def _me(self) -> Member:
        return Member(self.name, self.address, self.options.command, VERSION, self.etcd, self.ready)

    def _names(self) -> list[str]:
        return [*self.options.many("node-ip"), self.address, self.name, *self.options.many("tls-san")]

    def _join(self) -> None:
        token, url = _secret(self.options, "token"), self.options.text("server")
        agent_token = cluster.password(_secret(self.options, "agent-token"))[0]
        known = [f"https://{_bracketed(m.address)}:6443" for m in self.members.others(self.name) if m.role == "server"]
        if self.server and (not url or (self.paths.tls / "server-ca.key").is_file()):
            cluster.found(self.paths, token, agent_token, etcd=self.etcd)
            self.embedded = self.options.flag("embedded-registry")
            cluster.issue_node(self.paths, self._names(), self.paths.agent)
        else:
            if not url:
                raise Fatal("--server is required")
            if not token:
                raise Fatal("--token is required")
            document = {"role": self.options.command, "name": self.name, "names": self._names()}
            answer = cluster.join(self.paths, [url, *known], token, document, agent_token, stopped=self.stop.wait)
            self.embedded = answer["embedded_registry"]
            if self.server and self.embedded != self.options.flag("embedded-registry"):
                shutil.rmtree(self.paths.tls)
                raise Fatal(
                    "critical configuration value mismatch between servers: "
                    f"EmbeddedRegistry: {self.options.flag('embedded-registry')} here, {self.embedded} there"
                )
            self.members.merge(answer.get("known", []))
        if self.server:
            cluster.issue_server(self.paths, self._names())
            self._write_kubeconfig()
            (self.paths.data / "server" / "manifests").mkdir(mode=0o700, parents=True, exist_ok=True)

    def _write_kubeconfig(self) -> None:
        authority = (self.paths.tls / "server-ca.crt").read_text("utf-8")
        certificate = (self.paths.tls / "client-admin.crt").read_text("utf-8")
        key = (self.paths.tls / "client-admin.key").read_text("utf-8")
        text = kubectl.kubeconfig("https://127.0.0.1:6443", authority, certificate, key)
        target = Path(self.options.text("write-kubeconfig", str(kubectl.KUBECONFIG)))
        pki.put(target, text, int(self.options.text("write-kubeconfig-mode", "0600") or "0600", 8))

    def _registries(self) -> translate.Registries:
        file = Path(self.options.text("private-registry", "/etc/rancher/k3s/registries.yaml"))
        try:
            return translate.parse(yaml.safe_load(file.read_text("utf-8")))
        except FileNotFoundError:
            return translate.Registries()

    def _write_containerd(self, registries: translate.Registries) -> tuple[Path, ...]:
        snapshotter = self.options.text("snapshotter", "overlayfs")
        own = config.own(
            registries,
            self.layout,
            snapshotter=snapshotter,
            pause_image=self.options.text("pause-image", PAUSE_IMAGE),
        )
        title = "File generated by k3s. DO NOT EDIT. Use config-v3.toml.tmpl instead."
        pki.put(Path(self.layout.config), config.render(own, title=title), 0o644)
        hosts = translate.hosts_files(
            registries,
            embedded_registry=self.embedded,
            disable_default_endpoint=self.options.flag("disable-default-registry-endpoint"),
            data_dir=self.layout.data_dir,
        )
        write_certs(Path(self.layout.certs), hosts)
        drop_ins = sorted(Path(self.layout.drop_ins).glob("*.toml"))
        whole = config.merge(own, [(str(path), path.read_text("utf-8")) for path in drop_ins])
        debian = config.for_debian(whole, self.layout, restrict_oom=not _may_lower_oom_score())
        for name in debian.dropped:
            _log.warning("containerd 1.6 has no %s: not translated", name)
        pki.put(Path(self.layout.standin_config), debian.text, 0o644)
        return tuple(Path(item) for item in debian.directories)

    def _serve(self, registries: translate.Registries) -> api.Server:
        context = cluster.client_context(self.paths)

        def client() -> ssl.SSLContext:
            return context

        shared = translate.shared_registries(registries)
        node = api.Node(
            me=self._me(),
            members=self.members,
            store=Store(self.ctr, self.layout),
            client=client,
            embedded=self.embedded and bool(shared),
            shared=shared,
        )
        if self.server:
            node = replace(
                node,
                passwords=self._passwords(),
                cacert=(self.paths.tls / "server-ca.crt").read_text("utf-8"),
                join=self._let_in,
                pods=pods.Pods(
                    self.paths.data / "server" / "manifests",
                    self.name,
                    self.options.text("pause-image", PAUSE_IMAGE),
                    pods.getter(self.ctr, self.layout.merged),
                ),
            )
        pair = (self.paths.tls, "serving-kube-apiserver") if self.server else (self.paths.agent, "serving-kubelet")
        started = api.start(
            node, pair[0] / f"{pair[1]}.crt", pair[0] / f"{pair[1]}.key", self.paths.agent / "client-ca.crt"
        )
        api.start_dead_end(DEAD_END_PORT)
        api.start_listener("", 10250)
        if not self.server:
            api.start_listener("127.0.0.1", 6444)
        if self.embedded and not shared:
            _log.info("Not starting distributed registry mirror: no registries configured for distributed mirroring")
        elif self.embedded:
            api.start_listener(self.address, 5001)
            _log.info(
                "Starting distributed registry mirror at https://%s:6443/v2 for registries [%s] (STAND-IN)",
                self.address,
                " ".join(sorted(shared)),
            )
        beat = threading.Thread(
            target=cluster.heartbeat, args=(self.paths, self.members, self._me, self.stop), daemon=True
        )
        beat.start()
        return started

    def _passwords(self) -> dict[str, str]:
        server = cluster.password(self.paths.token.read_text("utf-8").strip())[0]
        agent = cluster.password(self.paths.token.with_name("agent-token").read_text("utf-8").strip())[0]
        return {"server": server, "node": agent}

    def _let_in(self, document: dict[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as scratch:
            answer = cluster.answer_join(self.paths, document, Path(scratch), self.embedded)
        return {**answer, "known": self.members.entries()}

    def _start_containerd(self, directories: tuple[Path, ...]) -> None:
        merged = Path(self.layout.merged)
        keep_merged(directories, merged)
        threading.Thread(target=_follow, args=(directories, merged, self.stop), daemon=True).start()
        log = Path(self.layout.root) / "containerd.log"
        log.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        libc = ctypes.CDLL(None)

        def with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        with log.open("ab") as output:
            self.containerd = subprocess.Popen(
                ["containerd", "-c", self.layout.standin_config],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                preexec_fn=with_parent,  # noqa: PLW1509 - as K3s does: containerd dies with it, however it dies
            )
        for _ in range(600):
            if self.containerd.poll() is not None:
                raise Fatal(f"containerd exited with {self.containerd.returncode}; see {log}")
            with contextlib.suppress(CtrError):
                self.ctr.run("version")
                break
            if self.stop.wait(0.1):
                return
        else:
            raise Fatal(f"containerd does not answer; see {log}")
        importer = images.Importer(Path(self.layout.images), self.ctr)
        importer.at_start()
        threading.Thread(target=importer.watch, args=(self.stop,), daemon=True).start()

    def _until_the_end(self) -> int:
        self.ready = not self.stop.is_set()
        self.members.heard(self._me())
        _notify(f"READY=1\nSTATUS={BANNER}")
        _log.info("k3s is up and running (STAND-IN)")
        while not self.stop.wait(0.5):
            if self.containerd is not None and self.containerd.poll() is not None:
                raise Fatal(f"containerd exited with {self.containerd.returncode}")
        _notify("STOPPING=1")
        return 0

    def _end_containerd(self) -> None:
        if self.containerd is None or self.containerd.poll() is not None:
            return
        self.containerd.terminate()
        try:
            self.containerd.wait(10)
        except subprocess.TimeoutExpired:
            self.containerd.kill()
            self.containerd.wait()


# ------------------------------------------------------------------------------------------------ small parts


def write_certs(directory: Path, hosts: dict[str, str]) -> None:
    """Write K3s's own host directories, after the cleaning that K3s does: those about to be written and those with its
    header go, anything else stays.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in hosts:
        shutil.rmtree(directory / name, ignore_errors=True)
    for host in [item for item in directory.iterdir() if item.is_dir()]:
        file = host / "hosts.toml"
        if file.is_file() and file.read_text("utf-8", "replace").startswith(translate.HEADER + "\n"):
            shutil.rmtree(host)
    for name, text in hosts.items():
        host = directory / name
        host.mkdir(mode=0o700, parents=True, exist_ok=True)
        pki.put(host / "hosts.toml", text, 0o644)


def keep_merged(directories: tuple[Path, ...], target: Path) -> bool:
    """Bring the merged directory up to date; says whether anything changed."""
    return hostdirs.write(target, hostdirs.merged([hostdirs.read(item) for item in directories], DEAD_END))


def node_address(options: Options) -> str:
    """The node's own address: ``node-ip``, else that of the default route.

    :raises Fatal: where the real K3s would not find one, or where flannel would miss a default route.
    """
    routed = any(
        fields[1] == "00000000" and int(fields[3], 16) & 1
        for fields in map(str.split, Path("/proc/net/route").read_text().splitlines()[1:])
    )
    if not routed and not options.text("flannel-iface") and options.text("flannel-backend") != "none":
        raise Fatal("failed to find the default route: no default route found in /proc/net/route (flannel-iface unset)")
    given = options.many("node-ip")
    if given:
        return given[0]
    if not routed:
        raise Fatal("unable to select an IP from default routes")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("203.0.113.1", 9))  # chooses a source address; sends nothing
        return str(probe.getsockname()[0])


def _follow(directories: tuple[Path, ...], target: Path, stop: threading.Event) -> None:
    while not stop.wait(0.25):
        try:
            if keep_merged(directories, target):
                _log.info("registry directories changed: %s rewritten", target)
        except OSError as error:
            _log.debug("a registry directory changed while it was read: %s", error)  # the next look will do


def _secret(options: Options, name: str) -> str:
    file = options.text(f"{name}-file")
    return options.text(name) or (Path(file).read_text("utf-8").strip() if file else "")


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _may_lower_oom_score() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False


def _notify(message: str) -> None:
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + path[1:] if path.startswith("@") else path)
        sender.sendall(message.encode())
