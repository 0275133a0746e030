"""What role uninstall takes, what it leaves, and how it says so."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.site.appliance.plugins.filter import uninstall

TOKENS = ["/etc/rancher/k3s/cluster-token", "/etc/rancher/k3s/agent-token"]
WHOLE: dict[str, Any] = {
    "k3s": True,
    "data": False,
    "managed": True,
    "k3s_runs": True,
    "k3s_data_there": True,
    "store_there": True,
    "tokens": TOKENS,
    "links": ["/usr/local/bin/kubectl"],
    "restored": ["/etc/rancher/k3s/registries.yaml"],
}


def scope(**changes: Any) -> dict[str, Any]:
    return uninstall.uninstall_scope({**WHOLE, **changes})


def test_data_stays_with_what_opens_it() -> None:
    found = scope()
    assert found["data"] == [] and found["stays"] == ["/var/lib/appliance", "/var/lib/rancher/k3s"]
    assert not found["user"], "its number owns the store"
    assert not {*TOKENS} & {*found["k3s"]} and "/etc/rancher/node/password" not in found["k3s"]
    assert uninstall.MANAGED in found["keep"], "without it preflight takes the data for somebody else's"
    # K3s's tree is data: nothing of it goes beside what is on its way into it.
    assert [path for path in found["k3s"] if "/var/lib/rancher" in path] == [
        "/var/lib/rancher/k3s/agent/.appliance-images"
    ]


def test_data_goes_when_told() -> None:
    found = scope(data=True)
    assert "/var/lib/appliance" in found["data"] and "/var/lib/rancher/k3s" in found["data"]
    assert found["stays"] == [] and found["user"] and {*TOKENS} <= {*found["k3s"]}
    assert uninstall.MANAGED not in found["keep"]


def test_what_was_there_before_is_not_removed_after_it_came_back() -> None:
    for data in (False, True):
        found = scope(data=data)
        assert "/etc/rancher/k3s/registries.yaml" in found["keep"] and found["restored"]


def test_k3s_that_stays_keeps_all_that_it_needs() -> None:
    for data in (False, True):
        found = scope(k3s=False, data=data)
        assert found["k3s_stays"] and not found["k3s"] and not found["host"] and not found["empty"]
        assert {f"/etc/appliance/{name}" for name in ("managed", "before", "k3s-resolv.conf")} <= set(found["keep"])
        assert found["data"] == (["/var/lib/appliance"] if data else [])
        assert found["restored"] == []


def test_a_k3s_of_somebody_else_is_not_touched() -> None:
    found = scope(managed=False, data=True)
    assert found["k3s"] == [] and not found["k3s_stays"] and found["data"] == ["/var/lib/appliance"]
    assert found["mirror"] and found["host"] and found["empty"] == []


def test_half_an_installation_has_nothing_that_stays() -> None:
    found = scope(k3s_runs=False, k3s_data_there=False, store_there=False)
    assert found["stays"] == [] and found["user"] and uninstall.MANAGED not in found["keep"]
    # Nothing runs that could be left running.
    assert not scope(k3s=False, k3s_runs=False)["k3s_stays"]


def test_links_of_ours_only() -> None:
    def stat(path: str, **more: Any) -> dict[str, Any]:
        return {"stat": {"exists": True, "path": path, **more}}

    looks = [
        {"stat": {"exists": False}},
        stat("/usr/local/bin/kubectl", islnk=True, lnk_target="k3s"),
        stat("/usr/local/bin/ctr", islnk=True, lnk_target="/opt/ctr"),
        stat("/usr/local/bin/crictl", islnk=False),
    ]
    assert uninstall.uninstall_links(looks) == ["/usr/local/bin/kubectl"]


def test_units_that_run_and_units_with_a_file_of_ours() -> None:
    shown = """\
Id=k3s.service
ActiveState=activating
FragmentPath=/etc/systemd/system/k3s.service

Id=appliance-agent.service
ActiveState=failed
FragmentPath=/etc/systemd/system/appliance-agent.service

Id=appliance-peer.service
ActiveState=active
FragmentPath=

Id=k3s-agent.service
ActiveState=inactive
FragmentPath=/usr/lib/systemd/system/k3s-agent.service
"""
    assert uninstall.uninstall_units(shown) == {
        "running": ["k3s.service", "appliance-peer.service"],
        "files": ["k3s.service", "appliance-agent.service"],
    }


def removed(*paths: str, left: list[str] | None = None, size: int = 0) -> dict[str, Any]:
    return {"removed": list(paths), "left": left or [], "bytes": dict.fromkeys(paths, size)}


def node(host: str, **changes: Any) -> dict[str, Any]:
    found = {
        "scope": scope(restored=[]),
        "units": [],
        "paths": removed(),
        "data": removed(),
        "kept": removed(),
        "remains": [],
        "firewall": [],
        "user": False,
        "registries": [],
        "restart": False,
        "stayer": "",
    }
    return uninstall.uninstall_node(host, {**found, **changes})


def test_the_plan_of_a_site_that_keeps_its_data() -> None:
    a = node(
        "a",
        scope=scope(),
        units=["k3s.service", "appliance-peer.service"],
        paths=removed("/opt/appliance", "/etc/appliance"),
        kept=removed("/var/lib/appliance", size=3 << 20),
        remains=["4 processes of containers", "2 mounts"],
        firewall=["nft -f -"],
        stayer="c",
    )
    assert uninstall.uninstall_text([a, node("b")]) == (
        "This run would take the appliance away from a, b.\n"
        "\n"
        "Data stays, with what opens it: user appliance, /etc/appliance/managed, K3s's tokens and node password."
        " It goes where uninstall_data is true:\n"
        "  a: /var/lib/appliance (3.0 MiB)\n"
        "\n"
        "Nodes:\n"
        "  a:\n"
        "    stopped and removed: appliance-peer.service, k3s.service\n"
        "    ended with K3s: 4 processes of containers, 2 mounts\n"
        "    taken out of the cluster by c\n"
        "    the appliance's rules leave the firewall\n"
        "    as it was before: /etc/rancher/k3s/registries.yaml\n"
        "    removed: /opt/appliance, /etc/appliance"
    )


def test_data_that_goes_is_said_first_and_loudly() -> None:
    data = removed("/var/lib/appliance", size=1024, left=["/var/lib/rancher/k3s/storage"])
    text = uninstall.uninstall_text([node("a", scope=scope(data=True, restored=[]), data=data, user=True)])
    assert "\n\nDATA GOES, for good (uninstall_data is true):\n  a: /var/lib/appliance (1.0 KiB)\n" in text
    assert "stays, because it is mounted there: /var/lib/rancher/k3s/storage" in text
    assert "removed: user and group appliance" in text and "Data stays" not in text


def test_a_k3s_that_stays_restarts_once_and_the_plan_says_so() -> None:
    lines = ["/etc/rancher/k3s/registries.yaml changes"]
    text = uninstall.uninstall_text([node("a", scope=scope(k3s=False), registries=lines, restart=True)])
    assert "restarts once: K3s" in text and lines[0] in text and "K3s stays and runs" in text


@pytest.mark.parametrize(
    "change", [{"units": ["k3s.service"]}, {"data": removed("/x")}, {"firewall": ["x"]}, {"remains": ["1 mounts"]}]
)
def test_each_kind_of_change_makes_the_plan_not_empty(change: dict[str, Any]) -> None:
    assert uninstall.uninstall_is_empty([node("a")])
    assert not uninstall.uninstall_is_empty([node("a"), node("b", **change)])


def test_an_empty_plan_still_says_what_data_stays() -> None:
    text = uninstall.uninstall_text([node("a", kept=removed("/var/lib/appliance", size=2048))])
    assert text.startswith("Nothing to take away from these nodes.\n") and "a: /var/lib/appliance (2.0 KiB)" in text
    assert "Nodes:" not in text
