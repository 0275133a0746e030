# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""registries.yaml, the appliance's own hosts.toml files, and everything that can be wrong with what they are made of.

K3s reads registries.yaml with a parser that drops unknown keys without a word, so every rule is checked here, before
anything is written. The rules are those of K3s (``getHostConfigs`` in k3s-io/k3s
``pkg/agent/containerd/config.go``) and rancher/wharfie (``pkg/registries/types.go``). No files, no network.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import yaml

from ansible_collections.site.appliance.plugins.plugin_utils import re2
from ansible_collections.site.appliance.plugins.plugin_utils.problems import Problems, plain

WILDCARD = "*"
MARKER = "# Written by the appliance; do not edit. It goes when the site no longer names this registry."
DROPIN_MARKER = "# Written by the appliance; do not edit."
EMBEDDED_URL = "https://127.0.0.1:6443/v2"
AGENT_DIR = "/var/lib/rancher/k3s/agent"
CERTS_DIR = "/etc/appliance/certs.d"
K3S_CERTS_DIR = f"{AGENT_DIR}/etc/containerd/certs.d"

_MIRROR_KEYS = {"endpoint", "rewrite"}
_INTERNAL_KEYS = {"endpoint", "rewrite", "auth", "tls"}
_CONFIG_KEYS = {"auth", "tls"}
_AUTH_KEYS = {"username", "password", "auth", "identity_token"}
_TLS_KEYS = {"ca_file", "cert_file", "key_file", "insecure_skip_verify"}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?::(\d{1,5}))?")
# What cannot stand in a repository's name, whatever the registry: capitals are left to those that take them.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._/-]")
_DOCKER_HUB = {"docker.io", "registry-1.docker.io", "index.docker.io", "registry.hub.docker.com"}
# Endpoints that no site has inside itself, whatever the inventory says.
_PUBLIC = _DOCKER_HUB | {
    "quay.io",
    "ghcr.io",
    "gcr.io",
    "registry.k8s.io",
    "mcr.microsoft.com",
    "public.ecr.aws",
}


class _Dumper(yaml.SafeDumper):
    """Block style, nulls as nothing, ``"*"`` in double quotes: the way a person writes registries.yaml."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)


def _represent_none(dumper: yaml.SafeDumper, _value: None) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:null", "")


def _represent_str(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = '"' if value == WILDCARD else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(type(None), _represent_none)
_Dumper.add_representer(str, _represent_str)


def to_yaml(document: Mapping[str, Any]) -> str:
    """The document as YAML in its own order, nulls as nothing.

    :param document: mapping of built-in types.
    """
    return str(yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=1000))


# ----------------------------------------------------------------------------------------- names, URLs


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine itself (localhost, 127/8, ::1)."""
    match = _HOST.fullmatch(host)
    name = (match.group(1) if match else host).strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def normalise_endpoint(endpoint: str) -> str:
    """An endpoint of registries.yaml as K3s writes it to hosts.toml.

    No scheme means https, except for a localhost with a port other than 443; an empty path, ``/`` or ``/v2`` becomes
    ``/v2``; any other path stays as written.
    """
    if "://" not in endpoint:
        host = endpoint.split("/", 1)[0]
        match = _HOST.fullmatch(host)
        port = match.group(2) if match else None
        scheme = "http" if is_loopback(host) and port not in (None, "443") else "https"
        endpoint = f"{scheme}://{endpoint}"
    parts = urlsplit(endpoint)
    path = "/v2" if parts.path in ("", "/", "/v2") else parts.path
    return f"{parts.scheme}://{parts.netloc}{path}"


def endpoint_host(endpoint: str) -> str:
    """``host[:port]`` of an endpoint: the key under which K3s looks up its credentials and TLS."""
    return urlsplit(normalise_endpoint(endpoint)).netloc


def _check_name(name: Any, where: str, problems: Problems) -> bool:
    if name == WILDCARD:
        return True
    if not isinstance(name, str) or not _HOST.fullmatch(name):
        problems.add(
            "APL-0802",
            f"{name!r} is not a registry",
            where=where,
            why="a registry is the host[:port] that image names start with, without scheme and path",
            fix="Write it as in ksd.test.com or reg.local:5000",
        )
        return False
    if is_loopback(name):
        problems.add(
            "APL-0803",
            f"{name} names this machine itself",
            where=where,
            why="K3s leaves localhost names out of the embedded registry",
            fix="Name the registry that image names start with; a localhost address belongs under endpoint",
        )
        return False
    if "." not in name and ":" not in name:
        problems.add(
            "APL-0802",
            f"{name} has neither a dot nor a port",
            where=where,
            why=f"{name}/image means docker.io/{name}/image, so this entry would never be used",
            fix="Name the registry with its domain or its port",
        )
        return False
    if name in _DOCKER_HUB - {"docker.io"}:
        problems.add(
            "APL-0802",
            f"{name} is not how image names start",
            where=where,
            why="Docker Hub's images are looked up under docker.io",
            fix="Write docker.io",
        )
        return False
    return True


def _check_endpoint(endpoint: Any, where: str, problems: Problems) -> bool:
    fix = "Write it as http[s]://host[:port], or with a path that holds /v2, such as https://host/v2/proxy"
    if not isinstance(endpoint, str) or not endpoint.strip():
        problems.add("APL-0804", f"{endpoint!r} is not an endpoint", where=where, fix=fix)
        return False
    url = urlsplit(normalise_endpoint(endpoint))
    why = ""
    if url.scheme not in ("http", "https"):
        why = f"K3s knows http and https, not {url.scheme}"
    elif "@" in url.netloc:
        why = "credentials in a URL are not used; they belong under auth"
    elif url.query or url.fragment or "?" in endpoint or "#" in endpoint:
        why = "it has a query or a fragment"
    elif not _HOST.fullmatch(url.netloc):
        why = "it has no valid host[:port]"
    elif "v2" not in url.path.split("/"):
        why = f"K3s uses the path {url.path} as written, and without /v2 in it no registry answers there"
    if why:
        problems.add("APL-0804", f"the endpoint {endpoint} cannot work", where=where, why=why, fix=fix)
    return not why


# -------------------------------------------------------------------------------------------- rewrites


def _literal_prefix(pattern: str) -> str:
    """What every name that an anchored pattern matches starts with; empty where that is not known."""
    if not pattern.startswith("^") or "|" in pattern:
        return ""
    literal = ""
    rest = pattern[1:]
    while rest:
        if len(rest) > 1 and rest[0] == "\\" and not rest[1].isalnum():
            char, rest = rest[1], rest[2:]
        elif rest[0] in r".[]()*+?{}\^$|":
            break
        else:
            char, rest = rest[0], rest[1:]
        if rest[:1] in ("?", "*", "{"):
            break
        literal += char
    return literal


def _check_replacement(pattern: str, replacement: str, names: list[str], where: str, problems: Problems) -> None:
    """Check that a replacement refers to groups of its pattern only, and that its text can stand in a repository's name."""
    what = f"the replacement {replacement} of the rewrite {pattern} is wrong"
    for part in re2.template(replacement):
        if isinstance(part, re2.Reference):
            if not part.resolves(names):
                problems.add("APL-0808", what, where=where, why=_unresolved(part, names), fix=_meant(part, names))
        elif odd := _NOT_IN_NAMES.search(part):
            why = f"K3s takes {odd[0]} as it stands, and no repository's name has it"
            fix = "Leave it out"
            if odd[0] == "\\" and (number := re.search(r"\\g?<?(\d+)", part)):
                fix = f"Write ${{{number[1]}}} for group {number[1]}"
            elif odd[0] == "$":
                fix = "Write ${1} for the first group"
            problems.add("APL-0808", what, where=where, why=why, fix=fix)


def _unresolved(reference: re2.Reference, names: list[str]) -> str:
    count = len(names) - 1
    if reference.number is not None:
        groups = "no group" if not count else f"{count} group{'s' if count > 1 else ''}"
        return f"{reference.source} stands for group {reference.number}, and the pattern has {groups}: K3s puts nothing there"
    return f"{reference.source} stands for a group named {reference.name}, which the pattern does not have: K3s puts nothing there"


def _meant(reference: re2.Reference, names: list[str]) -> str:
    """Return the advice for a reference to a group that is not there."""
    digits = re.match(r"[1-9][0-9]*", reference.name)
    if digits and reference.number is None and int(digits[0]) < len(names):
        return f"Write ${{{digits[0]}}}{reference.name[digits.end() :]}"
    return "Put what is to be kept into parentheses in the pattern, or leave the reference out"


def _check_rewrites(rewrites: Any, where: str, problems: Problems) -> dict[str, str]:
    if rewrites is None:
        return {}
    if not isinstance(rewrites, dict) or not all(
        isinstance(key, str) and isinstance(value, str) for key, value in rewrites.items()
    ):
        problems.add("APL-0808", "rewrite is not a mapping of pattern to replacement", where=where)
        return {}
    for pattern, replacement in rewrites.items():
        try:
            names = re2.group_names(pattern)
        except re2.PatternError as error:
            problems.add(
                "APL-0808",
                f"the rewrite pattern {pattern} is not valid",
                where=where,
                why=f"K3s reads it as RE2: {error}",
                fix="Write it without that; https://github.com/google/re2/wiki/Syntax lists what there is",
            )
        else:
            _check_replacement(pattern, replacement, names, where, problems)
    patterns = sorted(rewrites)
    for index, first in enumerate(patterns):
        for second in patterns[index + 1 :]:
            one, two = _literal_prefix(first), _literal_prefix(second)
            if one.startswith(two) or two.startswith(one):
                problems.add(
                    "APL-0808",
                    f"the rewrites {first} and {second} can match the same name",
                    where=where,
                    why="containerd tries them in random order and takes the first that matches",
                    fix="Anchor each with ^ and a prefix of its own, or keep one",
                )
    return dict(rewrites)


# -------------------------------------------------------------------------------------- configs tables


def _unknown(given: Mapping[str, Any], known: set[str], where: str, problems: Problems) -> None:
    for key in given:
        if key not in known:
            why = "K3s drops keys that it does not know without a word"
            fix = f"Known here: {', '.join(sorted(known))}"
            if key == "token" and "identity_token" in known:
                why = "the K3s documentation shows auth.token, but there is no such key"
                fix = "Use identity_token, or username and password"
            problems.add("APL-0801", f"unknown key {key}", where=where, why=why, fix=fix)


def _check_config(config: Any, where: str, problems: Problems) -> dict[str, Any]:
    """The ``auth`` and ``tls`` tables of one host, checked, empty ones left out."""
    result: dict[str, Any] = {}
    if not isinstance(config, dict):
        problems.add("APL-0801", "not a mapping with auth and tls", where=where)
        return result
    auth, tls = config.get("auth"), config.get("tls")
    if auth is not None:
        if not isinstance(auth, dict):
            problems.add("APL-0801", "auth is not a mapping", where=where)
        else:
            _unknown(auth, _AUTH_KEYS, f"{where}.auth", problems)
            if bool(auth.get("username")) != bool(auth.get("password")):
                problems.add(
                    "APL-0811",
                    "username and password go together",
                    where=f"{where}.auth",
                    why="one of them is empty",
                )
            result["auth"] = auth
    if tls is not None:
        if not isinstance(tls, dict):
            problems.add("APL-0801", "tls is not a mapping", where=where)
        else:
            _unknown(tls, _TLS_KEYS, f"{where}.tls", problems)
            for key in ("ca_file", "cert_file", "key_file"):
                value = tls.get(key)
                if value is not None and not (isinstance(value, str) and value.startswith("/")):
                    problems.add(
                        "APL-0811",
                        f"{key} is not an absolute path on the nodes",
                        where=f"{where}.tls",
                        why=repr(value),
                    )
            if bool(tls.get("cert_file")) != bool(tls.get("key_file")):
                problems.add("APL-0811", "cert_file and key_file go together", where=f"{where}.tls")
            skip = tls.get("insecure_skip_verify")
            if skip is not None and not isinstance(skip, bool):
                problems.add("APL-0811", "insecure_skip_verify is true or false", where=f"{where}.tls", why=repr(skip))
            result["tls"] = tls
    return result


# ------------------------------------------------------------------------------------------- the whole


def _entries(given: Any, where: str, known: set[str], problems: Problems) -> dict[str, dict[str, Any] | None]:
    """A mapping of registry to its options; a list of names stands for a mapping of nulls."""
    if given is None:
        return {}
    if isinstance(given, list):
        given = dict.fromkeys((item if isinstance(item, str) else repr(item) for item in given), None)
    if not isinstance(given, dict):
        problems.add("APL-0801", "not a mapping of registries, nor a list of their names", where=where)
        return {}
    result: dict[str, dict[str, Any] | None] = {}
    for name, options in given.items():
        spot = f"{where}.{name}"
        if not _check_name(name, spot, problems):
            continue
        if options is None:
            result[name] = None
            continue
        if not isinstance(options, dict):
            problems.add("APL-0801", f"not a mapping with {', '.join(sorted(known))}, nor empty", where=spot)
            continue
        _unknown(options, known, spot, problems)
        result[name] = options
    return result


def _endpoints(options: Mapping[str, Any], where: str, problems: Problems) -> list[str]:
    given = options.get("endpoint")
    if given is None:
        return []
    if not isinstance(given, list):
        problems.add("APL-0804", "endpoint is not a list of URLs", where=where, fix=f"Write endpoint: [{given}]")
        return []
    return [item for item in given if _check_endpoint(item, where, problems)]


def _unique(endpoints: Iterable[str]) -> list[str]:
    """Without repeats, as K3s sees them (it drops duplicate URLs with a warning)."""
    seen: dict[str, str] = {}
    for endpoint in endpoints:
        seen.setdefault(normalise_endpoint(endpoint), endpoint)
    return list(seen.values())


def _inside(internal: Mapping[str, dict[str, Any] | None], problems: Problems) -> dict[str, list[str]]:
    """The endpoints of each registry inside the site; one without any is its own endpoint."""
    result: dict[str, list[str]] = {}
    for name, options in internal.items():
        where = f"registries_internal.{name}"
        endpoints = _endpoints(options or {}, where, problems)
        if not endpoints and name == WILDCARD:
            problems.add("APL-0806", '"*" needs an endpoint', where=where, why="it has no address of its own")
            continue
        endpoints = endpoints or ([] if (options or {}).get("endpoint") else [f"https://{name}"])
        for endpoint in endpoints:
            host = endpoint_host(endpoint)
            if host.split(":")[0] in _PUBLIC:
                problems.add(
                    "APL-0806",
                    f"{host} is not inside the site",
                    where=where,
                    why="nodes would look for it on the internet",
                    fix="Give the endpoint of the registry inside the site that answers for it",
                )
        result[name] = endpoints
    return result


def _merge_configs(
    spec: Mapping[str, Any], internal: Mapping[str, Any], inside: Mapping[str, list[str]], problems: Problems
) -> dict[str, dict[str, Any]]:
    """The ``configs`` table: those of the internal registries, then ``registries_configs``."""
    result: dict[str, dict[str, Any]] = {}
    sources: list[tuple[str, str, Any]] = []
    for name, options in internal.items():
        table = {key: options[key] for key in ("auth", "tls") if options and options.get(key) is not None}
        if table:
            sources += [(endpoint_host(item), f"registries_internal.{name}", table) for item in inside.get(name, [])]
    given = spec.get("configs") or {}
    if not isinstance(given, dict):
        problems.add("APL-0801", "not a mapping of host to auth and tls", where="registries_configs")
        given = {}
    for host, table in given.items():
        if isinstance(table, dict):
            _unknown(table, _CONFIG_KEYS, f"registries_configs.{host}", problems)
        sources.append((str(host), f"registries_configs.{host}", table))

    hosts_inside = {endpoint_host(item) for items in inside.values() for item in items}
    for host, where, table in sources:
        config = _check_config(table, where, problems)
        if host == WILDCARD:
            problems.add(
                "APL-0807",
                'configs["*"] is not used for endpoints',
                where=where,
                why="K3s takes credentials and TLS from the exact host of the endpoint only",
                fix="Give them to the registry in registries_internal",
            )
        elif host == "docker.io":
            problems.add(
                "APL-0809",
                "credentials for docker.io are never found",
                where=where,
                why="containerd looks them up by the host that asked for them, registry-1.docker.io",
                fix="Give them to the registry inside the site that answers for docker.io",
            )
        elif host not in hosts_inside:
            problems.add(
                "APL-0807",
                f"{host} is no endpoint of a registry inside the site",
                where=where,
                why="a configs entry turns the default endpoint of its host on again, whatever "
                "disable-default-registry-endpoint says, so nodes would try to go out",
                fix="Declare the registry in registries_internal, or remove the entry",
            )
        elif host in result and result[host] != config:
            problems.add("APL-0801", f"two different configs for {host}", where=where, fix="Keep one")
        else:
            result[host] = config
    return result


def _check_http_tls(
    entries: Mapping[str, list[str]], configs: Mapping[str, dict[str, Any]], problems: Problems
) -> None:
    for name, endpoints in entries.items():
        for endpoint in endpoints:
            url = normalise_endpoint(endpoint)
            if url.startswith("http://") and configs.get(endpoint_host(endpoint), {}).get("tls"):
                problems.add(
                    "APL-0805",
                    f"{endpoint} is plain http but has TLS settings",
                    where=name,
                    why="they would be ignored, and credentials would go in the clear",
                    fix="Write https:// or remove the tls table",
                )


def hosts_toml(mirror_url: str, embedded: bool) -> str:
    """The hosts.toml of one registry that asks the mirror first, then K3s's embedded registry, and nothing else.

    There is no ``server`` line: K3s's containerd then has no default endpoint for the registry.

    :param mirror_url: the mirror's address as containerd wants it, ending in ``/v2``.
    :param embedded: whether the embedded registry comes second.
    """
    text = f'{MARKER}\n\n[host."{mirror_url}"]\n  capabilities = ["pull", "resolve"]\n'
    if embedded:
        text += (
            f'\n[host."{EMBEDDED_URL}"]\n  capabilities = ["pull", "resolve"]\n'
            f'  ca = ["{AGENT_DIR}/server-ca.crt"]\n'
            f'  client = [["{AGENT_DIR}/client-k3s-controller.crt", "{AGENT_DIR}/client-k3s-controller.key"]]\n'
        )
    return text


def dropin_toml() -> str:
    """The containerd drop-in that puts the appliance's directory before K3s's own."""
    return (
        f"{DROPIN_MARKER}\n"
        "version = 3\n"
        '[plugins."io.containerd.cri.v1.images".registry]\n'
        f'  config_path = "{CERTS_DIR}:{K3S_CERTS_DIR}"\n'
    )


class _Plan:
    """The entries of registries.yaml under construction.

    ``endpoints`` and ``rewrites`` are by registry; ``own`` are those that the mirror does not answer for first.
    """

    def __init__(self) -> None:
        self.endpoints: dict[str, list[str]] = {}
        self.rewrites: dict[str, dict[str, str]] = {}
        self.own: set[str] = set()

    def add(self, name: str, endpoints: list[str], rewrites: dict[str, str], own: bool) -> None:
        """Add one registry."""
        self.endpoints[name] = _unique(endpoints)
        self.rewrites[name] = rewrites
        if own or rewrites:
            self.own.add(name)

    def document(self, configs: Mapping[str, Any]) -> dict[str, Any]:
        """The content of registries.yaml."""
        mirrors: dict[str, Any] = {}
        for name, endpoints in self.endpoints.items():
            entry: dict[str, Any] = {"endpoint": endpoints} if endpoints else {}
            if self.rewrites[name]:
                entry["rewrite"] = self.rewrites[name]
            mirrors[name] = entry or None
        return {"mirrors": mirrors, "configs": dict(configs)} if configs else {"mirrors": mirrors}


def _add_mirrors(
    plan: _Plan, mirrors: Mapping[str, dict[str, Any] | None], mirror: str, hosts_inside: set[str], problems: Problems
) -> None:
    """The registries whose images come from the mirror; ``mirror`` is empty where it is not to be written."""
    for name, options in mirrors.items():
        where = f"registries_mirrors.{name}"
        given = _endpoints(options or {}, where, problems)
        remote = [item for item in given if not is_loopback(endpoint_host(item))]
        for endpoint in remote:
            host = endpoint_host(endpoint)
            if host not in hosts_inside:
                problems.add(
                    "APL-0806",
                    f"the endpoint {endpoint} is not known to be inside the site",
                    where=where,
                    why=f"names of {name} could go out",
                    fix=f"If it is, list {host} in registries_internal",
                )
        # An explicit empty list keeps the mirror out: the embedded registry alone.
        none_wanted = options is not None and options.get("endpoint") == []
        if mirror and not none_wanted:
            given = [mirror, *given]
        rewrites = _check_rewrites((options or {}).get("rewrite"), where, problems)
        plan.add(name, given, rewrites, own=bool(remote) or none_wanted)


def _check_entries(plan: _Plan, configs: Mapping[str, dict[str, Any]], embedded: bool, problems: Problems) -> None:
    """Rules that concern the entries and the configs together."""
    for name, endpoints in plan.endpoints.items():
        hosts = [endpoint_host(item) for item in endpoints]
        if name in configs and name not in hosts:
            problems.add(
                "APL-0807",
                f"{name} has a configs entry but is not among its own endpoints",
                where=f"registries_configs.{name}",
                why="the configs entry turns its default endpoint on again, so nodes would try to go out",
                fix=f"Give the settings to {', '.join(hosts) or 'the endpoint'} instead",
            )
        if not endpoints and not embedded:
            problems.add(
                "APL-0810",
                f"{name} has no endpoint and the embedded registry is off",
                where=f"registries_mirrors.{name}",
                why="K3s then writes no hosts.toml for it, and containerd goes out",
                fix="Leave registries_add_mirror at true, or give it an endpoint",
            )
    if not plan.endpoints:
        problems.add(
            "APL-0810",
            "no registry is listed",
            where="registries_mirrors, registries_wildcard",
            why="the embedded registry does not start, and every name would go out",
            fix="Leave registries_wildcard at true, or list registries in registries_mirrors",
        )


def _expected(
    plan: _Plan, listed: Iterable[str], first: Iterable[str], mirror: str, embedded: bool
) -> dict[str, list[str]]:
    """Registry to the URLs that containerd has to ask; registries that nothing covers are left out."""
    expected: dict[str, list[str]] = {}
    for name in [*plan.endpoints, *(item for item in listed if item not in plan.endpoints)]:
        if name in first:
            expected[name] = [mirror, *([EMBEDDED_URL] if embedded else [])]
            continue
        endpoints = plan.endpoints.get(name, plan.endpoints.get(WILDCARD))
        if endpoints is not None:
            urls = [normalise_endpoint(item) for item in endpoints]
            expected[name] = [EMBEDDED_URL, *(url for url in urls if url != EMBEDDED_URL)] if embedded else urls
    return expected


def registries_render(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the role writes, and everything that is wrong with what it was given.

    :param spec: the role's variables without their prefix: ``mirrors``, ``wildcard``, ``internal``, ``configs``,
        ``mirror_url``, ``add_mirror``, ``embedded``, ``order`` (``mirror_first`` or ``embedded_first``), ``served``
        (registries that the site's generation names; ``None`` where that is not known) and ``seeds`` (``host:port``).
    :returns: ``problems`` (lines, empty if all is well), ``registries_yaml`` (text), ``dropin`` (text, empty for
        ``embedded_first``), ``hosts`` (relative path under ``/etc/appliance/certs.d`` to text), ``expected`` (registry
        to the URLs that containerd has to ask, in order), ``wildcard`` (whether names not listed are covered),
        ``left_out`` (registries of the generation that have their own endpoints in registries.yaml) and
        ``node_files`` (certificates that have to be on the node).
    """
    problems = Problems()
    spec = plain(spec)
    embedded = bool(spec.get("embedded", True))
    mirror = str(spec.get("mirror_url") or "http://127.0.0.1:5000")
    mirrors = _entries(spec.get("mirrors"), "registries_mirrors", _MIRROR_KEYS, problems)
    internal = _entries(spec.get("internal"), "registries_internal", _INTERNAL_KEYS, problems)
    wildcard = bool(spec.get("wildcard", True))
    if not wildcard and WILDCARD in mirrors:
        problems.add(
            "APL-0801",
            '"*" is listed and refused',
            where="registries_mirrors, registries_wildcard",
            fix='Set registries_wildcard: true, or take "*" out of registries_mirrors',
        )
    if wildcard and WILDCARD not in internal:
        mirrors = {WILDCARD: mirrors.get(WILDCARD), **mirrors}
    for name in [name for name in mirrors if name in internal]:
        problems.add(
            "APL-0801",
            f"{name} is in registries_mirrors and in registries_internal",
            where=name,
            why="images of a registry inside the site come from there, of the others from the mirror",
            fix="Keep one",
        )

    inside = _inside(internal, problems)
    plan = _Plan()
    hosts_inside = {endpoint_host(item) for items in inside.values() for item in items}
    _add_mirrors(plan, mirrors, mirror if spec.get("add_mirror", True) else "", hosts_inside, problems)
    for name, endpoints in inside.items():
        rewrites = _check_rewrites((internal[name] or {}).get("rewrite"), f"registries_internal.{name}", problems)
        plan.add(name, endpoints, rewrites, own=True)
    configs = _merge_configs(spec, internal, inside, problems)
    _check_http_tls(plan.endpoints, configs, problems)
    _check_entries(plan, configs, embedded, problems)
    configs = {host: config for host, config in configs.items() if config}

    mirror_first = spec.get("order", "mirror_first") == "mirror_first"
    named = [str(name) for name in [*(spec.get("served") or []), *(spec.get("seeds") or [])]]
    listed = sorted({name for name in named if _HOST.fullmatch(name) and not is_loopback(name)})
    first = [name for name in listed if name not in plan.own] if mirror_first else []
    content = hosts_toml(normalise_endpoint(mirror), embedded)
    return {
        "problems": problems.lines,
        "registries_yaml": to_yaml(plan.document(configs)),
        "dropin": dropin_toml() if mirror_first else "",
        "hosts": {f"{name}/hosts.toml": content for name in first},
        "expected": _expected(plan, listed, first, normalise_endpoint(mirror), embedded),
        "wildcard": WILDCARD in plan.endpoints,
        "left_out": [name for name in listed if name in plan.own],
        "node_files": sorted(
            {
                config["tls"][key]
                for config in configs.values()
                for key in ("ca_file", "cert_file", "key_file")
                if config.get("tls", {}).get(key)
            }
        ),
    }


def host_address(variables: Mapping[str, Any]) -> str:
    """A host's address inside the site: ``node_ip``, else how Ansible reaches it.

    :param variables: the host's entry of ``hostvars``.
    """
    for key in ("node_ip", "ansible_host", "inventory_hostname"):
        if variables.get(key):
            return str.__str__(variables[key])
    return ""


def seed_registry(address: str) -> str:
    """The registry name under which a seed's mirror answers peers and operators."""
    return f"[{address}]:5443" if ":" in address else f"{address}:5443"


class FilterModule:
    """Filters of the registries role."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function, as Ansible asks for them."""
        return {
            "registries_render": registries_render,
            "host_address": host_address,
            "seed_registry": seed_registry,
        }
