# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""K3s's config.yaml, its versions, its kubeconfig and the state of its nodes. Pure functions."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import yaml

from ansible_collections.site.appliance.plugins.filter.registries import host_address
from ansible_collections.site.appliance.plugins.plugin_utils.problems import Problems, plain

DROPIN_MARKER = "# Written by Ansible (role k3s); change the inventory instead."

# Options that the role writes itself, and the variable that leads to each.
_OWNED = {
    "token": "the role makes the token (k3s_token_file)",
    "token-file": "k3s_token_file",
    "agent-token": "the role makes the token (k3s_agent_token_file)",
    "agent-token-file": "k3s_agent_token_file",
    "server": "k3s_server_url",
    "cluster-init": "the number of hosts in the group of servers",
    "cluster-reset": "a restore, which is no setting",
    "node-name": "k3s_node_name",
    "node-ip": "k3s_node_ip",
    "flannel-iface": "k3s_flannel_iface",
    "resolv-conf": "k3s_resolv_conf",
    "tls-san": "k3s_tls_san",
    "embedded-registry": "k3s_embedded_registry",
    "disable-default-registry-endpoint": "no variable: with it off, nodes would try to go out",
    "write-kubeconfig-mode": "no variable: it stays 0600",
    "private-registry": "role registries, which writes /etc/rancher/k3s/registries.yaml",
    "data-dir": "no variable: the appliance's paths are fixed",
}
# Critical settings that K3s compares when a server joins (k3s-io/k3s pkg/daemons/config/types.go).
_MUST_MATCH = (
    "cluster-cidr",
    "service-cidr",
    "cluster-dns",
    "cluster-domain",
    "disable",
    "disable-cloud-controller",
    "disable-helm-controller",
    "disable-kube-proxy",
    "disable-network-policy",
    "egress-selector-mode",
    "flannel-backend",
    "flannel-external-ip",
    "flannel-ipv6-masq",
    "secrets-encryption",
    "secrets-encryption-provider",
    "supervisor-metrics",
)
# An agent that finds one of these in its config.yaml exits: "flag provided but not defined".
_SERVER_ONLY = frozenset(_MUST_MATCH) | {
    "advertise-address",
    "advertise-port",
    "cluster-reset-restore-path",
    "datastore-cafile",
    "datastore-certfile",
    "datastore-endpoint",
    "datastore-keyfile",
    "default-local-storage-path",
    "disable-apiserver",
    "disable-controller-manager",
    "disable-etcd",
    "disable-scheduler",
    "embedded-registry",
    "etcd-arg",
    "etcd-disable-snapshots",
    "etcd-expose-metrics",
    "etcd-s3",
    "etcd-snapshot-compress",
    "etcd-snapshot-dir",
    "etcd-snapshot-name",
    "etcd-snapshot-retention",
    "etcd-snapshot-schedule-cron",
    "helm-job-image",
    "https-listen-port",
    "kine-tls",
    "kube-apiserver-arg",
    "kube-cloud-controller-manager-arg",
    "kube-controller-manager-arg",
    "kube-scheduler-arg",
    "servicelb-namespace",
    "service-node-port-range",
    "system-default-registry",
    "tls-san",
    "tls-san-security",
    "write-kubeconfig",
    "write-kubeconfig-group",
    "write-kubeconfig-mode",
}
#: Where the tokens lie, unless the inventory says otherwise; role k3s has the same.
TOKEN_FILE = "/etc/rancher/k3s/cluster-token"
AGENT_TOKEN_FILE = "/etc/rancher/k3s/agent-token"
_OPTION = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_NODE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)(?:-rc\.?\d+)?(?:\+k3s(\d+))?")


def _check_options(options: Any, where: str, agent: bool, problems: Problems) -> dict[str, Any]:
    if not options:
        return {}
    if not isinstance(options, dict):
        problems.add("APL-0831", "not a mapping of K3s options", where=where)
        return {}
    accepted = {}
    for key, value in options.items():
        spot = f"{where}.{key}"
        name = str(key)
        if not _OPTION.fullmatch(name.rstrip("+")):
            problems.add(
                "APL-0831",
                f"{name} is not a K3s option",
                where=spot,
                why="options in config.yaml are flag names without the leading dashes",
                fix=f"Write {name.lstrip('-').replace('_', '-').lower()}",
            )
        elif name in _OWNED:
            problems.add("APL-0832", f"{name} is written by the role", where=spot, fix=f"It comes from: {_OWNED[name]}")
        elif agent and name in _SERVER_ONLY:
            problems.add(
                "APL-0833",
                f"{name} is an option of servers only",
                where=spot,
                why="an agent that finds it in its config.yaml does not start",
                fix="Put it in k3s_server_config",
            )
        elif value is None:
            problems.add("APL-0831", f"{name} has no value", where=spot)
        else:
            accepted[name] = value
    return accepted


def merge_options(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return one table: later ones win, except that lists of the same option are joined."""
    result: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            if isinstance(value, list) and isinstance(result.get(key), list):
                result[key] = [*result[key], *(item for item in value if item not in result[key])]
            else:
                result[key] = value
    return result


def _check_servers_match(options: Mapping[str, Any], problems: Problems) -> None:
    """Critical settings have to be the same on all servers, or the second one refuses to join."""
    names = sorted(options)
    for key in _MUST_MATCH:
        values = {name: (plain(options[name]) or {}).get(key) for name in names}
        if len({json.dumps(value, sort_keys=True) for value in values.values()}) > 1:
            told = ", ".join(f"{name}: {json.dumps(value)}" for name, value in values.items())
            problems.add(
                "APL-0834",
                f"{key} differs between servers",
                where="k3s_server_config",
                why=f"{told}; a server whose critical settings differ does not join",
                fix="Set it for the whole group of servers",
            )


def _tokens(spec: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """Name the files of the tokens that a node of this role proves itself with.

    With the servers' token a node is administrator of the cluster, so an agent has one that lets it be an agent alone.
    """
    servers, agents = spec["token_file"], spec["agent_token_file"]
    if servers == agents:
        problems.add(
            "APL-0881",
            "the agents' token is the servers'",
            where="k3s_agent_token_file",
            why=f"both lie in {servers}, and with the servers' token an agent is administrator of the cluster",
            fix="Give it another path than k3s_token_file",
        )
    return {"token-file": servers, "agent-token-file": agents} if spec["role"] == "server" else {"token-file": agents}


def k3s_config(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A node's config.yaml, and everything that is wrong with what it is made of.

    :param spec: ``role`` (``server`` or ``agent``), ``node_name``, ``node_ip``, ``servers`` (list of ``name`` and
        ``ip``, the first one first), ``server_url`` (may be empty), ``token_file`` (of servers), ``agent_token_file``,
        ``flannel_iface``, ``resolv_conf``, ``tls_san``, ``embedded``, ``kubelet_args``, ``options`` (for every node), ``own_options`` (for the node's
        role), ``server_options`` (host to its server options, to compare) and ``dropins`` (name to TOML text).
    :returns: ``problems`` (lines), ``config_yaml`` (text) and ``dropins`` (file name to text).
    """
    problems = Problems()
    spec = plain(spec)
    server = spec["role"] == "server"
    servers: list[dict[str, str]] = spec.get("servers") or []
    if not servers:
        problems.add("APL-0835", "there is no server", where="group k3s_servers", fix="List at least one host in it")
        return {"problems": problems.lines, "config_yaml": "", "dropins": {}}
    name = str(spec["node_name"])
    if not _NODE_NAME.fullmatch(name):
        problems.add(
            "APL-0836",
            f"{name} cannot be a node's name",
            where="k3s_node_name",
            why="Kubernetes takes lower-case letters, digits, dashes and dots, 63 characters at most",
        )
    first = servers[0]
    url = spec.get("server_url") or f"https://{bracketed(first['ip'])}:6443"

    config = _tokens(spec, problems)
    if not server or name != first["name"]:
        config["server"] = url
    elif len(servers) > 1:
        config["cluster-init"] = True
    config["node-name"] = name
    config["node-ip"] = spec["node_ip"]
    if spec.get("flannel_iface"):
        config["flannel-iface"] = spec["flannel_iface"]
    if spec.get("resolv_conf"):
        config["resolv-conf"] = spec["resolv_conf"]
    config["disable-default-registry-endpoint"] = True
    if server:
        config["embedded-registry"] = bool(spec.get("embedded", True))
        config["write-kubeconfig-mode"] = "0600"
        if spec.get("tls_san"):
            config["tls-san"] = spec["tls_san"]
    kubelet = [str(item) for item in spec.get("kubelet_args") or []]
    for item in kubelet:
        if item.startswith("-") or "=" not in item:
            problems.add(
                "APL-0831",
                f"{item} is not a kubelet argument",
                where="k3s_kubelet_args",
                fix="Write it as name=value",
            )
    common = _check_options(spec.get("options"), "k3s_config", True, problems)
    own = _check_options(
        spec.get("own_options"), "k3s_server_config" if server else "k3s_agent_config", not server, problems
    )
    _check_servers_match(spec.get("server_options") or {}, problems)
    config.update(merge_options({"kubelet-arg": kubelet} if kubelet else {}, common, own))

    dropins = {}
    for key, text in (spec.get("dropins") or {}).items():
        where = f"k3s_containerd_dropins.{key}"
        file_name = key if key.endswith(".toml") else f"{key}.toml"
        if "/" in key or key.startswith(".") or file_name == "20-appliance.toml":
            problems.add(
                "APL-0837",
                f"{key} cannot be a drop-in's name",
                where=where,
                why="it is a path, hidden, or the appliance's own",
            )
        elif not isinstance(text, str) or not text.strip():
            problems.add("APL-0837", f"the drop-in {key} has no text", where=where)
        elif "config_path" in text:
            problems.add(
                "APL-0837",
                f"the drop-in {key} sets config_path",
                where=where,
                why="the order in which registries are asked is the appliance's",
                fix="Use registries_mirror_order",
            )
        else:
            dropins[file_name] = f"{DROPIN_MARKER}\n{text.rstrip()}\n"
    text = f"{DROPIN_MARKER}\n" + yaml.safe_dump(config, sort_keys=False, default_flow_style=False, width=1000)
    return {"problems": problems.lines, "config_yaml": text, "dropins": dropins}


def bracketed(address: str) -> str:
    """An address as it stands in a URL: IPv6 in brackets."""
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def k3s_server_entry(variables: Mapping[str, Any]) -> dict[str, str]:
    """Name and address of a server as its K3s has them.

    :param variables: the host's entry of ``hostvars``.
    """
    name = str(variables.get("inventory_hostname", ""))
    return {
        "name": str(variables.get("k3s_node_name") or name.lower()),
        "ip": str(variables.get("k3s_node_ip") or host_address(variables)),
    }


def k3s_differing(present: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Paths whose content is not the wanted one.

    :param present: path to SHA-256, empty where there is no such file.
    :param wanted: path to SHA-256.
    """
    return [str(path) for path, digest in wanted.items() if present.get(path, "") != digest]


def k3s_tokens_due(present: Mapping[str, str], first: Mapping[str, str], paths: Sequence[str]) -> list[str]:
    """Return the tokens that a node lacks, or has in another form than the first server.

    :param present: path to SHA-256 on the node, empty where there is no such file.
    :param first: the same of the first server, which makes what it lacks; empty where that was not looked at.
    :param paths: files of tokens that the node has to have.
    """
    return [str(path) for path in paths if not present.get(path) or first.get(path, present[path]) != present[path]]


def k3s_token_texts(results: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the tokens that were read from the first server as files for ``site.appliance.text_files``.

    :param results: of a loop of ``ansible.builtin.slurp`` over paths; one without ``content`` was not read.
    """
    return [
        {"path": str(result["item"]), "content": base64.b64decode(result["content"]).decode(), "mode": "0600"}
        for result in results
        if "content" in result
    ]


def k3s_server_options(hosts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Host to its ``k3s_server_config``.

    :param hosts: entries of ``hostvars``.
    """
    return {str(item.get("inventory_hostname", "")): item.get("k3s_server_config") or {} for item in hosts}


# -------------------------------------------------------------------------------------------- versions


def k3s_version(stdout: str) -> str:
    """The version in the output of ``k3s --version``; empty where there is none."""
    match = re.search(r"\bv\d+\.\d+\.\d+\S*", stdout or "")
    return match.group(0) if match else ""


def _parsed(version: str) -> tuple[int, int, int, int] | None:
    match = _VERSION.match(version or "")
    return tuple(int(part or 0) for part in match.groups()) if match else None  # type: ignore[return-value]


def k3s_upgrade_problems(old: str, new: str, where: str = "") -> list[str]:
    """What speaks against going from one version to another; empty if nothing does.

    :param old: version that is there; empty where there is none.
    :param new: version that is to be installed.
    :param where: the node, for the message.
    """
    problems = Problems()
    before, after = _parsed(old), _parsed(new)
    if before and after:
        if after < before:
            problems.add(
                "APL-0826",
                f"{new} is older than {old}, which is installed",
                where=where,
                why="K3s cannot go back without the restore of a snapshot",
                fix=f"Bring {old} or newer",
            )
        elif (after[0], after[1]) > (before[0], before[1] + 1):
            problems.add(
                "APL-0826",
                f"from {old} to {new} a minor version is skipped",
                where=where,
                why="Kubernetes goes up one minor version at a time",
                fix=f"Bring a v{before[0]}.{before[1] + 1} first",
            )
    return problems.lines


def k3s_cache_keeps_pins(version: str) -> bool:
    """Whether K3s's ``.cache.json`` of imported images can be trusted (k3s-io/k3s#14288).

    Before, a replacement of the same size was not imported and images lost their pins at a restart.
    """
    parsed = _parsed(version)
    if parsed is None:
        return False
    major, minor, patch, _ = parsed
    return (major, minor) > (1, 36) or patch >= {34: 10, 35: 7, 36: 3}.get(minor, 10**6)


# ----------------------------------------------------------------------------------------- the cluster


def k3s_kubeconfig(text: str, address: str) -> str:
    """K3s's kubeconfig with the server's own address instead of the loopback one.

    :param text: the kubeconfig that K3s wrote on a server.
    :param address: host or host:port under which the controller reaches that server.
    """
    document = yaml.safe_load(text)
    for cluster in document["clusters"]:
        port = urlsplit(cluster["cluster"]["server"]).port or 6443
        host = bracketed(address) if address.count(":") != 1 else address
        has_port = address.count(":") == 1 or "]:" in address
        cluster["cluster"]["server"] = f"https://{host}" if has_port else f"https://{host}:{port}"
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=False)


def k3s_node_state(stdout: str, name: str = "") -> dict[str, Any]:
    """A node's state from ``kubectl get node NAME -o json`` or from a list of nodes.

    :param stdout: the command's output; anything that is not such JSON counts as a node that is not there.
    :param name: which node of a list.
    :returns: ``known``, ``ready``, ``voter`` (member of etcd with a vote), ``version`` and ``why`` (of a node that is
        not ready).
    """
    state: dict[str, Any] = {
        "known": False,
        "ready": False,
        "voter": False,
        "version": "",
        "why": "not registered",
    }
    try:
        document = json.loads(stdout)
        nodes: Sequence[Any] = document["items"] if document.get("kind", "").endswith("List") else [document]
        for node in nodes:
            if name and node["metadata"]["name"] != name:
                continue
            conditions = {item["type"]: item for item in node["status"].get("conditions", [])}
            ready = conditions.get("Ready", {})
            state["known"] = True
            state["ready"] = ready.get("status") == "True"
            state["voter"] = conditions.get("EtcdIsVoter", {}).get("status") == "True"
            state["version"] = node["status"].get("nodeInfo", {}).get("kubeletVersion", "")
            state["why"] = "" if state["ready"] else str(ready.get("message") or "not Ready yet")
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return state


class FilterModule:
    """Filters of the k3s role."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function, as Ansible asks for them."""
        return {
            "k3s_config": k3s_config,
            "k3s_differing": k3s_differing,
            "k3s_server_entry": k3s_server_entry,
            "k3s_server_options": k3s_server_options,
            "k3s_tokens_due": k3s_tokens_due,
            "k3s_token_texts": k3s_token_texts,
            "k3s_version": k3s_version,
            "k3s_upgrade_problems": k3s_upgrade_problems,
            "k3s_cache_keeps_pins": k3s_cache_keeps_pins,
            "k3s_kubeconfig": k3s_kubeconfig,
            "k3s_node_state": k3s_node_state,
        }
