"""config.yaml of servers and agents, versions, node states."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[3] / "collections"))
k3s: Any = importlib.import_module("ansible_collections.site.appliance.plugins.filter.k3s")
GOLDEN = Path(__file__).parent / "golden"
SERVERS = [{"name": "a", "ip": "10.77.0.11"}, {"name": "s2", "ip": "10.77.0.14"}, {"name": "s3", "ip": "10.77.0.15"}]


def config(**spec: Any) -> dict[str, Any]:
    base = {
        "role": "server",
        "node_name": "a",
        "node_ip": "10.77.0.11",
        "servers": SERVERS,
        "token_file": "/etc/rancher/k3s/cluster-token",
        "agent_token_file": "/etc/rancher/k3s/agent-token",
    }
    result: dict[str, Any] = k3s.k3s_config({**base, **spec})
    return result


def loaded(**spec: Any) -> dict[str, Any]:
    result = config(**spec)
    assert result["problems"] == []
    document: dict[str, Any] = yaml.safe_load(result["config_yaml"])
    return document


def test_first_server_of_three_word_for_word() -> None:
    result = config(
        resolv_conf="/etc/appliance/k3s-resolv.conf",
        kubelet_args=["fail-cgroupv1=false"],
        options={"kubelet-arg": ["max-pods=50"]},
        own_options={"disable": ["traefik"]},
    )
    assert result["problems"] == []
    assert result["config_yaml"] == (GOLDEN / "server-config.yaml").read_text(encoding="utf-8")


def test_agent_word_for_word() -> None:
    result = config(role="agent", node_name="b", node_ip="10.77.0.12", servers=SERVERS[:1], flannel_iface="eth1")
    assert result["config_yaml"] == (GOLDEN / "agent-config.yaml").read_text(encoding="utf-8")


def test_a_single_server_has_no_etcd() -> None:
    document = loaded(servers=SERVERS[:1])
    assert "cluster-init" not in document and "server" not in document


def test_a_further_server_joins_the_first() -> None:
    document = loaded(node_name="s2", node_ip="10.77.0.14")
    assert document["server"] == "https://10.77.0.11:6443"
    assert "cluster-init" not in document
    assert loaded(node_name="s2", server_url="https://vip:6443")["server"] == "https://vip:6443"


def test_ipv6_server_is_bracketed() -> None:
    servers = [{"name": "a", "ip": "fd00::1"}]
    assert loaded(role="agent", node_name="b", servers=servers)["server"] == "https://[fd00::1]:6443"


def test_an_agent_never_has_the_token_of_servers() -> None:
    """K3s takes that for an administrator of the cluster."""
    server, agent = loaded(), loaded(role="agent", node_name="b")
    assert (server["token-file"], server["agent-token-file"]) == (
        "/etc/rancher/k3s/cluster-token",
        "/etc/rancher/k3s/agent-token",
    )
    assert agent["token-file"] == "/etc/rancher/k3s/agent-token" and "agent-token-file" not in agent
    assert "cluster-token" not in str(agent)


def test_tokens_that_a_node_lacks_or_has_otherwise_are_due() -> None:
    due = k3s.k3s_tokens_due
    assert due({"/a": "", "/b": "1"}, {"/a": "2", "/b": "1"}, ["/a", "/b"]) == ["/a"]
    assert due({"/a": "1", "/b": "1"}, {"/a": "2", "/b": "1"}, ["/a", "/b"]) == ["/a"]
    # A first server without the file is about to make another one; of one that was not looked at, nothing is known.
    assert due({"/a": "1"}, {"/a": ""}, ["/a"]) == ["/a"]
    assert due({"/a": "1"}, {}, ["/a"]) == []


def test_server_only_settings_never_reach_an_agent() -> None:
    document = loaded(role="agent", node_name="b", tls_san=["vip"])
    assert document.keys() & {"embedded-registry", "write-kubeconfig-mode", "tls-san", "cluster-init"} == set()


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ({"options": {"--node-label": "x"}}, "APL-0831", "Write node-label"),
        ({"options": {"node_label": "x"}}, "APL-0831", "Write node-label"),
        ({"options": {"node-label": None}}, "APL-0831", "no value"),
        ({"kubelet_args": ["--max-pods=3"]}, "APL-0831", "name=value"),
        ({"options": {"token": "x"}}, "APL-0832", "k3s_token_file"),
        ({"own_options": {"agent-token": "x"}}, "APL-0832", "k3s_agent_token_file"),
        ({"own_options": {"agent-token-file": "/x"}}, "APL-0832", "k3s_agent_token_file"),
        ({"agent_token_file": "/etc/rancher/k3s/cluster-token"}, "APL-0881", "administrator"),
        ({"own_options": {"embedded-registry": False}}, "APL-0832", "k3s_embedded_registry"),
        ({"options": {"disable": ["traefik"]}}, "APL-0833", "k3s_server_config"),
        ({"role": "agent", "node_name": "b", "own_options": {"tls-san": "x"}}, "APL-0832", "k3s_tls_san"),
        ({"role": "agent", "node_name": "b", "own_options": {"etcd-arg": "x"}}, "APL-0833", "k3s_server_config"),
        (
            {"server_options": {"a": {"flannel-backend": "host-gw"}, "s2": {}}},
            "APL-0834",
            "does not join",
        ),
        ({"servers": []}, "APL-0835", "k3s_servers"),
        ({"node_name": "A_1"}, "APL-0836", "lower-case"),
        ({"dropins": {"20-appliance.toml": "x = 1"}}, "APL-0837", "appliance"),
        ({"dropins": {"../x": "x = 1"}}, "APL-0837", "path"),
        ({"dropins": {"x": ""}}, "APL-0837", "no text"),
        ({"dropins": {"x": 'config_path = "/x"'}}, "APL-0837", "registries_mirror_order"),
    ],
)
def test_a_mistake_is_named(spec: dict[str, Any], code: str, words: str) -> None:
    problems = config(**spec)["problems"]
    assert [line for line in problems if line.startswith(code) and words in line], problems


def test_dropins_carry_the_mark_and_the_suffix() -> None:
    result = config(dropins={"30-oom": "version = 3\n"})
    assert result["dropins"] == {"30-oom.toml": f"{k3s.DROPIN_MARKER}\nversion = 3\n"}


def test_versions() -> None:
    assert k3s.k3s_version("k3s version v1.36.3+k3s1 (abcdef)\ngo version go1.25") == "v1.36.3+k3s1"
    assert k3s.k3s_version("k3s version v1.36.3+k3s1 (stand-in)") == "v1.36.3+k3s1"
    assert k3s.k3s_version("nothing") == ""


@pytest.mark.parametrize(
    ("old", "new", "refused"),
    [
        ("", "v1.36.3+k3s1", False),
        ("v1.36.3+k3s1", "", False),
        ("v1.36.3+k3s1", "v1.36.3+k3s1", False),
        ("v1.35.7+k3s1", "v1.36.3+k3s1", False),
        ("v1.36.3+k3s1", "v1.36.3+k3s2", False),
        ("v1.36.3+k3s2", "v1.36.3+k3s1", True),
        ("v1.36.3+k3s1", "v1.35.7+k3s1", True),
        ("v1.34.10+k3s1", "v1.36.3+k3s1", True),
    ],
)
def test_upgrades(old: str, new: str, refused: bool) -> None:
    problems = k3s.k3s_upgrade_problems(old, new, "a")
    assert bool(problems) is refused
    assert all(line.startswith("APL-0826") for line in problems)


@pytest.mark.parametrize(
    ("version", "kept"),
    [
        ("v1.34.9+k3s1", False),
        ("v1.34.10+k3s1", True),
        ("v1.35.6+k3s1", False),
        ("v1.35.7+k3s1", True),
        ("v1.36.2+k3s1", False),
        ("v1.36.3+k3s1", True),
        ("v1.37.0+k3s1", True),
        ("v1.33.20+k3s1", False),
        ("", False),
    ],
)
def test_cache_keeps_pins(version: str, kept: bool) -> None:
    assert k3s.k3s_cache_keeps_pins(version) is kept


def test_kubeconfig_gets_the_servers_address() -> None:
    text = yaml.safe_dump({"clusters": [{"name": "default", "cluster": {"server": "https://127.0.0.1:6443"}}]})
    for address, url in {
        "10.77.0.11": "https://10.77.0.11:6443",
        "vip.site:8443": "https://vip.site:8443",
        "fd00::1": "https://[fd00::1]:6443",
    }.items():
        assert yaml.safe_load(k3s.k3s_kubeconfig(text, address))["clusters"][0]["cluster"]["server"] == url


def node(name: str, **conditions: str) -> dict[str, Any]:
    return {
        "kind": "Node",
        "metadata": {"name": name},
        "status": {
            "nodeInfo": {"kubeletVersion": "v1.36.3+k3s1"},
            "conditions": [
                {"type": key, "status": value, "message": f"{key} says"} for key, value in conditions.items()
            ],
        },
    }


def test_node_state() -> None:
    both = json.dumps(
        {"kind": "NodeList", "items": [node("a", Ready="True", EtcdIsVoter="True"), node("b", Ready="False")]}
    )
    assert k3s.k3s_node_state(both, "a") == {
        "known": True,
        "ready": True,
        "voter": True,
        "version": "v1.36.3+k3s1",
        "why": "",
    }
    assert k3s.k3s_node_state(both, "b")["why"] == "Ready says"
    assert k3s.k3s_node_state(json.dumps(node("c", Ready="True")))["ready"] is True


@pytest.mark.parametrize("stdout", ["", "error: no route", "[]", "{}", '{"kind": "Node"}', "null"])
def test_node_state_of_nonsense(stdout: str) -> None:
    assert k3s.k3s_node_state(stdout, "a")["known"] is False


def test_differing() -> None:
    assert k3s.k3s_differing({"/a": "1", "/b": ""}, {"/a": "1", "/b": "2", "/c": "3"}) == ["/b", "/c"]
    assert k3s.k3s_differing({"/a": "1"}, {"/a": "3"}) == ["/a"]


def test_servers_from_the_inventory() -> None:
    assert k3s.k3s_server_entry({"inventory_hostname": "Node-A", "ansible_host": "10.0.0.1"}) == {
        "name": "node-a",
        "ip": "10.0.0.1",
    }
    assert k3s.k3s_server_options([{"inventory_hostname": "a"}]) == {"a": {}}


def test_tokens_that_were_read_are_files_for_root_alone() -> None:
    read = {"item": "/etc/k/token", "content": "c2VjcmV0Cg=="}
    assert k3s.k3s_token_texts([read, {"item": "/etc/k/other", "unreachable": True}]) == [
        {"path": "/etc/k/token", "content": "secret\n", "mode": "0600"}
    ]
