"""Which ports a host opens to whom, computed from the inventory."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.site.appliance.plugins.filter import firewall

ADDRESSES = {"a": "192.0.2.11", "b": "192.0.2.12"}


def _rules(host: str, **settings: Any) -> dict[str, Any]:
    base = {
        "cluster_ports": ["6443/tcp", "5001/tcp", "8472/udp"],
        "server_ports": ["2379-2380/tcp"],
        "operator_ports": ["6443/tcp"],
        "operator_sources": [],
        "service_ports": [],
        "pod_cidr": "10.42.0.0/16",
        "service_cidr": "10.43.0.0/16",
    }
    return firewall.firewall_rules(host, ADDRESSES, ["a"], {**base, **settings})


NODES = ["192.0.2.11", "192.0.2.12"]


def test_a_server_opens_etcd_to_servers_only() -> None:
    assert _rules("a") == {
        "input": [
            {"name": "nodes", "proto": "tcp", "ports": ["5001", "6443"], "sources": NODES},
            {"name": "nodes", "proto": "udp", "ports": ["8472"], "sources": NODES},
            {"name": "servers", "proto": "tcp", "ports": ["2379-2380"], "sources": ["192.0.2.11"]},
        ],
        "trusted": ["10.42.0.0/16", "10.43.0.0/16"],
        "guarded": ["8472"],
        "closed": ["5443"],
        "forward": ["10.42.0.0/16"],
        "nodes": NODES,
    }


def test_pods_reach_the_mirror_only_where_the_inventory_says_so() -> None:
    assert _rules("a", pods_to_mirror=False)["closed"] == ["5443"]
    assert _rules("a", pods_to_mirror=True)["closed"] == []


def test_an_agent_does_not() -> None:
    assert [rule["name"] for rule in _rules("b")["input"]] == ["nodes", "nodes"]


def test_operators_and_services_are_added() -> None:
    services = ["80/tcp", "30000-32767/tcp", {"port": "443/tcp", "sources": ["198.51.100.9/24"]}, {"port": "53/udp"}]
    found = _rules("b", operator_sources=["198.51.100.7/32", "2001:db8::/64"], service_ports=services)["input"][2:]
    assert found == [
        {"name": "operators", "proto": "tcp", "ports": ["6443"], "sources": ["198.51.100.7", "2001:db8::/64"]},
        {"name": "service3", "proto": "tcp", "ports": ["443"], "sources": ["198.51.100.0/24"]},
        {"name": "services", "proto": "tcp", "ports": ["80", "30000-32767"], "sources": []},
        {"name": "services", "proto": "udp", "ports": ["53"], "sources": []},
    ]


def test_no_operator_means_nobody_and_not_everybody() -> None:
    assert all(rule["sources"] for rule in _rules("a", operator_sources=[])["input"])


def test_two_families_of_pods() -> None:
    found = _rules("a", pod_cidr="10.42.0.0/16,2001:db8:42::/56")
    assert found["forward"] == ["10.42.0.0/16", "2001:db8:42::/56"]


@pytest.mark.parametrize("port", ["80", "http/tcp", "0/tcp", "70000/tcp", "90-80/tcp", "80/sctp", "", 80])
def test_what_is_no_port_is_refused(port: Any) -> None:
    with pytest.raises(ValueError, match="APL-0752"):
        _rules("a", service_ports=[port])


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match=r"APL-0752.*operators.example.org"):
        _rules("a", operator_sources=["operators.example.org"])
