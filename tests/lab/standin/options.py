"""Options of ``k3s server`` and ``k3s agent``: which there are, and how config.yaml and the command line combine.

Rules of K3s v1.36.3 (``pkg/configfilearg``, ``pkg/cli/cmds``): ``config.yaml`` then ``config.yaml.d/*.yaml`` in the
order of their names, the last one wins, ``key+`` appends; the command line wins over the files. A server warns about
keys that it does not know and goes on; an agent exits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_BOTH = (
    "airgap-extra-registry alsologtostderr bind-address c config container-runtime-endpoint d data-dir debug "
    "default-runtime disable-apiserver-lb disable-default-registry-endpoint docker enable-pprof flannel-cni-conf "
    "flannel-conf flannel-iface i image-credential-provider-bin-dir image-credential-provider-config "
    "image-service-endpoint kube-proxy-arg kubelet-arg l lb-server-port log node-external-dns node-external-ip "
    "node-internal-dns node-ip node-label node-name node-taint nonroot-devices pause-image prefer-bundled-bin "
    "private-registry protect-kernel-defaults resolv-conf rootless s selinux server snapshotter t token token-file v "
    "vmodule vpn-auth vpn-auth-file with-node-id"
)
_SERVER_ONLY = (
    "advertise-address advertise-port agent-token agent-token-file apiserver-bind-address apiserver-port cluster-cidr "
    "cluster-dns cluster-domain cluster-init cluster-reset cluster-reset-restore-path datastore-cafile "
    "datastore-certfile datastore-endpoint datastore-keyfile default-local-storage-path disable disable-agent "
    "disable-apiserver disable-cloud-controller disable-controller-manager disable-etcd disable-helm-controller "
    "disable-kube-proxy disable-network-policy disable-scheduler egress-selector-mode embedded-registry etcd-arg "
    "etcd-disable-snapshots etcd-expose-metrics etcd-s3 etcd-s3-access-key etcd-s3-bucket etcd-s3-bucket-lookup-type "
    "etcd-s3-config-secret etcd-s3-endpoint etcd-s3-endpoint-ca etcd-s3-folder etcd-s3-insecure etcd-s3-proxy "
    "etcd-s3-region etcd-s3-retention etcd-s3-secret-key etcd-s3-session-token etcd-s3-skip-ssl-verify "
    "etcd-s3-timeout etcd-snapshot-compress etcd-snapshot-dir etcd-snapshot-name etcd-snapshot-reconcile-interval "
    "etcd-snapshot-retention etcd-snapshot-schedule-cron flannel-backend flannel-external-ip flannel-ipv6-masq "
    "helm-controller-arg helm-job-image https-listen-port kine-tls kube-apiserver-arg "
    "kube-cloud-controller-manager-arg kube-controller-manager-arg kube-scheduler-arg o secrets-encryption "
    "secrets-encryption-provider service-cidr service-node-port-range servicelb-namespace supervisor-metrics "
    "supervisor-port system-default-registry tls-san tls-san-security write-kubeconfig write-kubeconfig-group "
    "write-kubeconfig-mode"
)
_ALIASES = {
    "c": "config",
    "d": "data-dir",
    "i": "node-ip",
    "l": "log",
    "o": "write-kubeconfig",
    "s": "server",
    "t": "token",
}
_BOOLEANS = (
    "alsologtostderr cluster-init cluster-reset debug disable-agent disable-apiserver disable-apiserver-lb "
    "disable-cloud-controller disable-controller-manager disable-default-registry-endpoint disable-etcd "
    "disable-helm-controller disable-kube-proxy disable-network-policy disable-scheduler docker embedded-registry "
    "enable-pprof etcd-disable-snapshots etcd-expose-metrics etcd-s3 etcd-s3-insecure etcd-s3-skip-ssl-verify "
    "etcd-snapshot-compress flannel-external-ip flannel-ipv6-masq kine-tls nonroot-devices prefer-bundled-bin "
    "protect-kernel-defaults rootless secrets-encryption selinux supervisor-metrics tls-san-security "
    "with-node-id"
)
_LISTS = (
    "airgap-extra-registry cluster-cidr cluster-dns disable etcd-arg helm-controller-arg kube-apiserver-arg "
    "kube-cloud-controller-manager-arg kube-controller-manager-arg kube-proxy-arg kube-scheduler-arg kubelet-arg "
    "node-external-dns node-external-ip node-internal-dns node-ip node-label node-taint service-cidr tls-san"
)
_BOOLEAN_NAMES = frozenset(_BOOLEANS.split())
_LIST_NAMES = frozenset(_LISTS.split())
KNOWN: Mapping[str, frozenset[str]] = {
    "agent": frozenset(_BOTH.split()),
    "server": frozenset((_BOTH + " " + _SERVER_ONLY).split()),
}
_ENVIRONMENT = {
    "K3S_TOKEN": "token",
    "K3S_TOKEN_FILE": "token-file",
    "K3S_URL": "server",
    "K3S_NODE_NAME": "node-name",
    "K3S_DATA_DIR": "data-dir",
}
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class UsageError(ValueError):
    """The real K3s would print this and exit 1."""


@dataclass(frozen=True)
class Options:
    """The options one command ends up with, under their long names."""

    command: str
    values: Mapping[str, tuple[str, ...]]
    warnings: tuple[str, ...] = field(default=())

    def text(self, name: str, default: str = "") -> str:
        """The last value given, or the default."""
        given = self.values.get(name, ())
        return given[-1] if given else default

    def flag(self, name: str) -> bool:
        """Whether a boolean option is on."""
        return self.text(name, "false") in _TRUE

    def many(self, name: str) -> tuple[str, ...]:
        """All values of a repeatable option, in order; comma-separated ones taken apart."""
        return tuple(part for value in self.values.get(name, ()) for part in value.split(",") if part)


def combine(
    command: str,
    files: Iterable[tuple[str, object]],
    arguments: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Options:
    """Work out the options of one command.

    :param command: ``server`` or ``agent``.
    :param files: name and loaded content of config.yaml and then of its drop-ins, in order.
    :param arguments: what follows the command on the command line.
    :param environment: for the few options that K3s takes from there.
    :raises UsageError: where the real command would refuse to start.
    """
    known = KNOWN[command]
    warnings: list[str] = []
    values: dict[str, list[str]] = {}
    for variable, name in _ENVIRONMENT.items():
        if (environment or {}).get(variable):
            values[name] = [(environment or {})[variable]]
    for key, given in _flatten(files).items():
        if key in known:
            _store(values, key, given)
        elif command == "server":
            warnings.append(f"Unknown flag --{key} found in config.yaml, skipping")
        else:
            raise UsageError(f"flag provided but not defined: -{key}")
    fresh: set[str] = set()
    for key, value in _command_line(arguments, known):
        name = _ALIASES.get(key, key)
        if name not in _LIST_NAMES and name not in fresh:
            values.pop(name, None)
        fresh.add(name)
        values.setdefault(name, [])
        _store(values, key, [*values[name], value])
    return Options(command, {name: tuple(given) for name, given in values.items()}, tuple(warnings))


def config_files(path: Path) -> list[Path]:
    """config.yaml, if it is there, and its drop-ins in the order in which they count."""
    drop_ins = path.parent / (path.name + ".d")
    found = [path] if path.is_file() else []
    if drop_ins.is_dir():
        found += sorted(
            item for item in drop_ins.iterdir() if item.is_file() and item.suffix.lower() in (".yaml", ".yml")
        )
    return found


def load(
    command: str, arguments: list[str], *, read_yaml: Callable[[str], object], environment: Mapping[str, str]
) -> Options:
    """Read the configuration files that the arguments or the environment name, and combine them with the rest.

    :param read_yaml: a YAML parser, from text to plain values.
    :raises UsageError: as :func:`combine`, and where a file is no YAML mapping.
    """
    path = Path(environment.get("K3S_CONFIG_FILE") or _config_argument(arguments) or "/etc/rancher/k3s/config.yaml")
    files = [(os.fspath(item), read_yaml(item.read_text("utf-8"))) for item in config_files(path)]
    return combine(command, files, arguments, environment)


def _config_argument(arguments: list[str]) -> str:
    for place, argument in enumerate(arguments):
        if argument in ("-c", "--config"):
            return arguments[place + 1] if place + 1 < len(arguments) else ""
        if argument.startswith(("-c=", "--config=")):
            return argument.partition("=")[2]
    return ""


def _flatten(files: Iterable[tuple[str, object]]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for where, document in files:
        if document is None:
            continue
        if not isinstance(document, Mapping):
            raise UsageError(f"{where}: not a mapping of options")
        for key, value in document.items():
            name = str(key).removesuffix("+")
            items = [_scalar(item) for item in value] if isinstance(value, list) else [_scalar(value)]
            if str(key).endswith("+") and name in merged:
                merged[name] = merged[name] + items
            else:
                merged[name] = items
    return merged


def _scalar(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _store(values: dict[str, list[str]], key: str, given: list[str]) -> None:
    name = _ALIASES.get(key, key)
    if name in _BOOLEAN_NAMES:
        for value in given:
            if value not in _TRUE | _FALSE:
                raise UsageError(f'invalid boolean value "{value}" for -{key}: parse error')
    values[name] = list(given)


def _command_line(arguments: Iterable[str], known: frozenset[str]) -> Iterable[tuple[str, str]]:
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        if not argument.startswith("-") or argument in ("-", "--"):
            raise UsageError(f"unexpected argument: {argument}")
        key, equals, value = argument.lstrip("-").partition("=")
        if key not in known:
            raise UsageError(f"flag provided but not defined: -{key}")
        if not equals:
            if _ALIASES.get(key, key) in _BOOLEAN_NAMES:
                value = "true"
            elif pending:
                value = pending.pop(0)
            else:
                raise UsageError(f"flag needs an argument: -{key}")
        yield key, value
