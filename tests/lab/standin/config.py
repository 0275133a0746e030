"""containerd's configuration: what K3s writes for its own (2.x), and the same in the words of Debian's 1.6.

K3s's file and the drop-ins beside it have schema 3, where the parts of the CRI plugin have names of their own.
containerd 1.6 knows schema 2 and one directory for registries; :func:`for_debian` translates. Pure functions.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from .translate import Auth, Registries, quote

_toml = import_module("tomllib")  # Python 3.11; by name, since the checker's oldest Python lacks it

IMAGES = "io.containerd.cri.v1.images"
RUNTIME = "io.containerd.cri.v1.runtime"
SERVICE = "io.containerd.grpc.v1.cri"

Table = dict[str, Any]


class ConfigError(ValueError):
    """A drop-in that containerd could not load: it would not start."""


@dataclass(frozen=True)
class Layout:
    """Where K3s keeps containerd's things, from its data directory."""

    data_dir: str = "/var/lib/rancher/k3s"
    state: str = "/run/k3s/containerd"

    @property
    def etc(self) -> str:
        """Directory of config.toml."""
        return f"{self.data_dir}/agent/etc/containerd"

    @property
    def config(self) -> str:
        """The file that the real K3s starts containerd with."""
        return f"{self.etc}/config.toml"

    @property
    def certs(self) -> str:
        """K3s's own registry directory."""
        return f"{self.etc}/certs.d"

    @property
    def merged(self) -> str:
        """The stand-in's one directory for containerd 1.6 and ``ctr --hosts-dir``."""
        return f"{self.etc}/standin-certs.d"

    @property
    def standin_config(self) -> str:
        """The file that the stand-in starts Debian's containerd with."""
        return f"{self.etc}/standin-config.toml"

    @property
    def drop_ins(self) -> str:
        """Directory of the drop-ins of schema 3."""
        return f"{self.etc}/config-v3.toml.d"

    @property
    def root(self) -> str:
        """containerd's root."""
        return f"{self.data_dir}/agent/containerd"

    @property
    def socket(self) -> str:
        """containerd's socket."""
        return f"{self.state}/containerd.sock"

    @property
    def images(self) -> str:
        """Directory of the tarballs to import."""
        return f"{self.data_dir}/agent/images"


@dataclass(frozen=True)
class Debian:
    """The translation for containerd 1.6."""

    text: str
    directories: tuple[str, ...]
    dropped: tuple[str, ...] = field(default=())


def own(registries: Registries, layout: Layout, *, snapshotter: str, pause_image: str) -> Table:
    """The configuration that K3s writes, before any drop-in, as plain values."""
    auth = {host: {"auth": _auth(config.auth)} for host, config in registries.configs.items() if config.auth}
    return {
        "version": 3,
        "imports": [f"{layout.drop_ins}/*.toml"],
        "root": layout.root,
        "state": layout.state,
        "grpc": {"address": layout.socket},
        "plugins": {
            "io.containerd.internal.v1.opt": {"path": layout.root},
            SERVICE: {"stream_server_address": "127.0.0.1", "stream_server_port": "10010"},
            RUNTIME: {
                "enable_selinux": False,
                "enable_unprivileged_ports": True,
                "enable_unprivileged_icmp": True,
                "device_ownership_from_security_context": False,
                "containerd": {"runtimes": {"runc": {"runtime_type": "io.containerd.runc.v2"}}},
            },
            IMAGES: {
                "snapshotter": snapshotter,
                "disable_snapshot_annotations": True,
                "use_local_image_pull": True,
                "pinned_images": {"sandbox": pause_image},
                "registry": {"config_path": layout.certs, **({"configs": auth} if auth else {})},
            },
        },
    }


def render(table: Mapping[str, Any], *, title: str) -> str:
    """TOML text for plain values: strings, booleans, numbers, lists of these, and tables."""
    lines = [f"# {title}"]
    _render_into(lines, (), table)
    return "\n".join(lines) + "\n"


def merge(base: Table, drop_ins: Iterable[tuple[str, str]]) -> Table:
    """The configuration with its drop-ins, in the order given: tables are joined, anything else is replaced.

    :param drop_ins: name and text of each file.
    :raises ConfigError: where a file is no TOML or has another schema.
    """
    merged = _copy(base)
    for name, text in drop_ins:
        try:
            table = _toml.loads(text)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from error
        if table.get("version", 3) != 3:
            raise ConfigError(f"{name}: version = {table['version']}, not 3")
        _join(merged, table)
    return merged


def for_debian(table: Table, layout: Layout, *, restrict_oom: bool) -> Debian:
    """Say a configuration of schema 3 in schema 2, for containerd 1.6.

    :param restrict_oom: keep containers' oom_score_adj at or above our own, where nothing may lower it.
    """
    plugins = table["plugins"]
    images, runtime = _copy(plugins.get(IMAGES, {})), _copy(plugins.get(RUNTIME, {}))
    cri: Table = _copy(plugins.get(SERVICE, {}))
    dropped: list[str] = []
    registry = images.pop("registry", {})
    directories = tuple(item for item in str(registry.pop("config_path", "")).split(":") if item)
    containerd: Table = runtime.pop("containerd", {})
    for key in ("snapshotter", "disable_snapshot_annotations"):
        if key in images:
            containerd[key] = images.pop(key)
    sandbox = images.pop("pinned_images", {}).get("sandbox")
    images.pop("use_local_image_pull", None)
    if sandbox:
        cri["sandbox_image"] = sandbox
    cni = runtime.pop("cni", {})
    if "bin_dirs" in cni:
        cni["bin_dir"] = cni.pop("bin_dirs")[0]
    for source, part in ((RUNTIME, runtime), (IMAGES, images)):
        for key, value in part.items():
            if key in _CRI_1_6.split():
                cri[key] = value
            else:
                dropped.append(f"{source}.{key}")
    if restrict_oom:
        cri.setdefault("restrict_oom_score_adj", True)
    cri.update(containerd=containerd, registry={**registry, "config_path": layout.merged})
    if cni:
        cri["cni"] = cni
    kept: Table = {SERVICE: cri}
    for name, value in plugins.items():
        if name in (IMAGES, RUNTIME, SERVICE):
            continue
        if any(fnmatch.fnmatch(name, pattern) for pattern in _PLUGINS_1_6):
            kept[name] = value
        else:
            dropped.append(name)
    top = {key: value for key, value in table.items() if key not in ("version", "imports", "plugins")}
    text = render(
        {"version": 2, **top, "plugins": kept},
        title="Written by the STAND-IN for K3s: config.toml and its drop-ins, for Debian's containerd 1.6",
    )
    return Debian(text, directories, tuple(dropped))


_CRI_1_6 = (
    "device_ownership_from_security_context disable_apparmor disable_cgroup disable_hugetlb_controller "
    "disable_proc_mount enable_selinux enable_tls_streaming enable_unprivileged_icmp enable_unprivileged_ports "
    "ignore_image_defined_volumes image_pull_progress_timeout max_concurrent_downloads "
    "max_container_log_line_size netns_mounts_under_state_dir restrict_oom_score_adj sandbox_image "
    "selinux_category_range stats_collect_period stream_idle_timeout tolerate_missing_hugetlb_controller "
    "unset_seccomp_profile"
)
_PLUGINS_1_6 = (
    "io.containerd.gc.v1.*",
    "io.containerd.internal.v1.*",
    "io.containerd.metadata.v1.*",
    "io.containerd.monitor.v1.*",
    "io.containerd.runtime.v2.*",
    "io.containerd.service.v1.*",
    "io.containerd.snapshotter.v1.*",
)


def _auth(auth: Auth | None) -> Table:
    if auth is None:
        return {}
    given = {
        "username": auth.username,
        "password": auth.password,
        "auth": auth.auth,
        "identitytoken": auth.identity_token,
    }
    return {key: value for key, value in given.items() if value}


def _copy(table: Mapping[str, Any]) -> Table:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in table.items()}


def _join(base: Table, more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _join(base[key], value)
        else:
            base[key] = _copy(value) if isinstance(value, Mapping) else value


def _render_into(lines: list[str], path: tuple[str, ...], table: Mapping[str, Any]) -> None:
    scalars = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    if path and (scalars or not table):
        lines += ["", "[" + ".".join(_key(part) for part in path) + "]"]
    indent = "  " if path else ""
    lines += [f"{indent}{_key(key)} = {_value(value)}" for key, value in scalars.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            _render_into(lines, (*path, key), value)


def _key(key: str) -> str:
    plain = key.replace("_", "").replace("-", "").isalnum() and key.isascii()
    return key if plain else f"'{key}'" if "'" not in key else quote(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    raise ConfigError(f"cannot write {value!r} as TOML")
