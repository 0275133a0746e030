"""The filters of role preflight: every problem of an inventory and of hosts, found and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.site.appliance.plugins.filter import preflight

OPTIONS = {"mirror": ["mirror_copies", "mirror_python"], "firewall": ["firewall_operator_sources"]}


def _site(**changes: Any) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    variables: dict[str, dict[str, Any]] = {
        "a": {"node_ip": "192.0.2.11"},
        "b": {"ansible_host": "192.0.2.12"},
        "c": {"node_ip": "192.0.2.13", "ansible_host": "203.0.113.1"},
    }
    groups = {"k3s_servers": ["a"], "k3s_agents": ["b", "c"], "k3s_cluster": ["a", "b", "c"], "mirror_seeds": ["a"]}
    groups.update(changes.pop("groups", {}))
    for host, values in changes.items():
        variables.setdefault(host, {}).update(values)
    return variables, groups


def _ids(site: tuple[dict[str, dict[str, Any]], dict[str, list[str]]], version: str = "2.19.14") -> list[str]:
    return [entry["id"] for entry in preflight.inventory_problems(*site, OPTIONS, version)]


def test_a_good_inventory_has_no_problem() -> None:
    assert _ids(_site()) == []


@pytest.mark.parametrize(
    ("site", "ids"),
    [
        (_site(groups={"k3s_servers": [], "k3s_cluster": ["b", "c"], "mirror_seeds": []}), ["APL-0701"]),
        (_site(groups={"k3s_servers": ["a", "b"], "k3s_agents": ["c"]}), ["APL-0702"]),
        (_site(groups={"k3s_servers": ["a"], "k3s_agents": ["a", "b", "c"]}), ["APL-0703"]),
        (_site(groups={"k3s_agents": ["b"]}), ["APL-0712"]),
        (_site(groups={"k3s_cluster": ["a", "b"]}), ["APL-0712"]),
        (_site(groups={"mirror_seeds": ["z"]}, z={}), ["APL-0707"]),
        (_site(b={"ansible_host": "192.0.2.11"}), ["APL-0705"]),
        (_site(b={"ansible_host": "node-b.example.org"}), ["APL-0711"]),
        (_site(b={"ansible_host": "127.0.0.1"}), ["APL-0711"]),
        (_site(b={"mirror_copies": 4}), ["APL-0709"]),
        (_site(b={"mirror_copies": 0}), ["APL-0709"]),
        (_site(b={"mirror_copies": "some"}), ["APL-0709"]),
        (_site(b={"mirror_copies": "all"}), []),
        (_site(b={"mirror_copies": 3}), []),
        (_site(b={"mirror_copys": 3}), ["APL-0708"]),
        (_site(b={"miror_copies": 3}), ["APL-0708"]),
        (_site(b={"my_mirror_copies": 3, "ansible_user": "root", "__mirror_x": 1, "site_name": "north"}), []),
    ],
)
def test_each_mistake_is_found_once(site: Any, ids: list[str]) -> None:
    assert _ids(site) == ids


def test_everything_is_listed_at_once() -> None:
    site = _site(
        groups={"k3s_servers": ["a", "B_b"], "mirror_seeds": ["z"]}, B_b={"node_ip": "192.0.2.11"}, z={"mirror_no": 1}
    )
    assert set(_ids(site, "2.22.0")) == {
        "APL-0702",
        "APL-0705",
        "APL-0706",
        "APL-0707",
        "APL-0708",
        "APL-0710",
        "APL-0712",
    }


@pytest.mark.parametrize(
    ("version", "ids"),
    [("2.18.9", ["APL-0710"]), ("2.19.0", []), ("2.21.5", []), ("2.22.0rc1", ["APL-0710"]), ("odd", ["APL-0710"])],
)
def test_ansible_core_window(version: str, ids: list[str]) -> None:
    assert _ids(_site(), version) == ids


def test_host_names_that_differ_only_in_case_are_one_name() -> None:
    site = _site(
        groups={"k3s_agents": ["b", "c", "A"], "k3s_cluster": ["a", "b", "c", "A"]}, A={"node_ip": "192.0.2.14"}
    )
    assert _ids(site) == ["APL-0706", "APL-0704"]


def test_an_unknown_variable_names_its_hosts_and_the_nearest_name() -> None:
    (found,) = preflight.unknown_variables({"mirror_pyton": ["a", "b", "c", "d", "e", "f"]}, OPTIONS)
    assert found["what"] == "unknown variable mirror_pyton (set for a, b, c, d, e and 1 more)"
    assert found["fix"] == "Did you mean mirror_python?"


def test_role_options_joins_the_entry_points(tmp_path: Path) -> None:
    meta = tmp_path / "mirror/meta"
    meta.mkdir(parents=True)
    (meta / "argument_specs.yml").write_text(
        "argument_specs: {main: {options: {mirror_b: {type: str}}}, remove: {options: {mirror_a: {type: str}}}, x: {}}"
    )
    (tmp_path / "plain/tasks").mkdir(parents=True)
    assert preflight.role_options(str(tmp_path)) == {"mirror": ["mirror_a", "mirror_b"]}


# --- hosts -----------------------------------------------------------------------------------------------------------


def _report(**changes: Any) -> dict[str, Any]:
    report: dict[str, Any] = {
        "epoch": 1_000_000.0,
        "hostname": "a",
        "machine": "x86_64",
        "uid": 0,
        "python": [3, 9, 2],
        "service_python": {"path": "/usr/bin/python3", "version": [3, 11, 2]},
        "init": "systemd",
        "filesystems": {
            "/opt": {"mount": "/", "device": 1, "available": 1000},
            "/var/lib/appliance": {"mount": "/", "device": 1, "available": 1000},
            "/var/lib/rancher": {"mount": "/var/lib/rancher", "device": 2, "available": 5},
        },
        "sources": {},
        "installed": [],
        "held": 0,
        "listeners": [],
        "cgroup": {"version": 2, "controllers": ["cpu", "cpuset", "memory"]},
        "k3s": {"managed": False, "found": []},
        "default_routes": [{"device": "eth0"}],
        "modules": {"overlay": "builtin"},
        "container": "",
        "swap": 0,
        "iptables": "iptables v1.8.9 (nf_tables)",
    }
    report.update(changes)
    return {"report": report}


PORTS = [
    {"port": 5000, "address": "loopback", "use": "the mirror"},
    {"port": 6443, "address": "node", "use": "K3s"},
]


def _problems(results: dict[str, Any], **settings: Any) -> list[dict[str, str]]:
    base = {"max_clock_skew": 60, "now": 1_000_000.0, "ports": PORTS, "nodes": 3, "copies": 2, **settings}
    variables = {host: {"node_ip": f"192.0.2.{number}"} for number, host in enumerate(results, 11)}
    return preflight.host_problems(results, variables, base)


def _listener(address: str, port: int, unit: str = "", process: str = "x") -> dict[str, Any]:
    return {"address": address, "port": port, "processes": [process], "units": [unit] if unit else []}


def test_a_good_host_has_no_problem() -> None:
    assert _problems({"a": _report()}) == []


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"python": [3, 8, 1]}, "APL-0723", "3.8.1"),
        ({"service_python": {"path": "/usr/bin/python3", "version": [3, 9, 2]}}, "APL-0724", "3.9.2"),
        ({"service_python": {"path": "/opt/py", "version": None}}, "APL-0724", "/opt/py is not there"),
        ({"machine": "armv7l"}, "APL-0725", "armv7l"),
        ({"uid": 1000}, "APL-0722", "not root"),
        ({"init": "openrc-init"}, "APL-0726", "openrc-init"),
        ({"cgroup": {"version": 2, "controllers": ["cpu", "hugetlb"]}}, "APL-0730", "cpuset, memory"),
        ({"cgroup": {"version": 1, "controllers": []}}, "APL-0730", "v1 without the controller(s) memory"),
        ({"k3s": {"managed": False, "found": ["/usr/local/bin/k3s"]}}, "APL-0731", "/usr/local/bin/k3s"),
        ({"listeners": None}, "APL-0722", "ss is not installed"),
        (
            {"listeners": [_listener("127.0.0.1", 5000, "docker-registry.service")]},
            "APL-0728",
            "docker-registry.service",
        ),
        ({"listeners": [_listener("*", 5000)]}, "APL-0728", "taken on * by x"),
        ({"listeners": [_listener("192.0.2.9", 6443, process="haproxy")]}, "APL-0728", "haproxy"),
    ],
)
def test_each_fault_of_a_host_is_found_once(change: dict[str, Any], code: str, words: str) -> None:
    (found,) = _problems({"a": _report(**change)})
    assert (found["id"], found["where"]) == (code, "a")
    assert words in found["what"]
    assert found["fix"]


@pytest.mark.parametrize(
    "change",
    [
        {"k3s": {"managed": True, "found": ["/usr/local/bin/k3s"]}},
        {"cgroup": {"version": 1, "controllers": ["memory"]}},
        {"listeners": [_listener("127.0.0.1", 5000, "appliance-mirror.service"), _listener("*", 6443, "k3s.service")]},
        {"listeners": [_listener("*", 6443, "k3s-agent.service"), _listener("192.0.2.9", 5000), _listener("*", 80)]},
        {"machine": "aarch64"},
    ],
)
def test_what_is_ours_or_does_no_harm_is_no_problem(change: dict[str, Any]) -> None:
    assert _problems({"a": _report(**change)}) == []


def test_disk_space_is_summed_per_file_system_and_named() -> None:
    needs = {"/opt": 600, "/var/lib/appliance": 500, "/var/lib/rancher": 5}
    (found,) = _problems({"a": _report()}, minimum=needs)
    assert found["id"] == "APL-0727"
    assert (
        "the file system at / is too small: 1.1 KiB needed (1100 bytes, for /opt, /var/lib/appliance)" in found["what"]
    )
    assert "1000 B available" in found["what"]


def test_a_seed_writes_all_of_the_sources_and_another_node_its_share() -> None:
    sources = {"/media/images.tar": 1200}
    results = {"a": _report(sources=sources), "b": _report(hostname="b", sources={"/media/images.tar": None})}
    found = _problems(results, seeds=["a"], nodes=3)
    assert [(entry["where"], entry["id"]) for entry in found] == [("a", "APL-0727")]
    assert len(_problems(results, seeds=["a"], nodes=3, copies="all")) == 2
    assert _problems(results, seeds=["a"], bytes={"/var/lib/appliance": 10}) == []
    assert len(_problems({"a": _report()}, seeds=["a"], controller_sources=sources)) == 1


def test_what_is_there_already_is_not_counted_again() -> None:
    """The second run on a disk that the first one filled."""
    needs = {"/opt": 2000, "/var/lib/appliance": 2000, "/var/lib/rancher": 2000}
    report = _report(installed=list(needs), held=1200, sources={"/media/images.tar": 1200})
    assert _problems({"a": report}, minimum=needs, seeds=["a"]) == []
    report["report"]["held"] = 100
    assert len(_problems({"a": report}, minimum=needs, seeds=["a"])) == 1


@pytest.mark.parametrize(
    ("epochs", "now", "bad"),
    [
        ({"a": 0.0, "b": 30.0, "c": 60.0}, 0.0, []),
        ({"a": 100.0, "b": 100.0, "c": 5000.0}, 100.0, ["c"]),
        ({"a": 100.0, "b": 100.0, "c": 100.0}, 90000.0, []),
        ({"a": 100.0, "b": 5000.0}, 100.0, ["b"]),
        ({"a": 100.0, "b": 5000.0}, 5000.0, ["a"]),
        ({"a": 100.0}, 90000.0, []),
    ],
)
def test_the_clock_that_is_wrong_is_the_one_that_is_named(epochs: dict[str, float], now: float, bad: list[str]) -> None:
    assert [entry["where"] for entry in preflight.clock_problems(epochs, now, 60)] == bad


REACHED = 'Data could not be sent to remote host "192.0.2.1". Make sure this host can be reached over ssh:'
CHANGED = (
    "The fingerprint for the ED25519 key sent by the remote host is SHA256:bpI1/Q. Please contact your administrator."
    " Offending ED25519 key in /root/known_hosts:1 Host key verification failed."
)


def test_a_host_that_does_not_answer_is_one_entry_among_the_others() -> None:
    results = {
        "a": {"unreachable": True, "msg": f"Task failed: {REACHED} ssh: connect to host x port 22: No route to host."},
        "b": {"unreachable": True, "msg": f"{REACHED} @@@ WARNING {CHANGED}"},
        "c": {"failed": True, "msg": "Missing sudo password"},
        "d": _report(machine="riscv64"),
    }
    found = _problems(results)
    assert [(entry["where"], entry["id"]) for entry in found] == [
        ("a", "APL-0720"),
        ("b", "APL-0721"),
        ("c", "APL-0722"),
        ("d", "APL-0725"),
    ]
    assert found[0]["what"] == "unreachable: ssh: connect to host x port 22: No route to host"
    assert (
        found[1]["what"]
        == "the SSH host key SHA256:bpI1/Q is not one that known_hosts has for this host (/root/known_hosts:1)"
    )


def test_hosts_that_call_themselves_the_same_are_named() -> None:
    (found,) = _problems({"a": _report(hostname="debian"), "b": _report(hostname="Debian")})
    assert (found["id"], found["where"]) == ("APL-0704", "inventory")


def test_notes_tell_what_will_be_mended() -> None:
    report = _report(
        default_routes=[],
        modules={"overlay": "builtin", "br_netfilter": "loadable", "vxlan": "missing"},
        cgroup={"version": 1, "controllers": ["memory"]},
        swap=1 << 30,
        iptables="iptables v1.8.4 (legacy)",
    )
    notes = preflight.host_notes({"a": report, "b": {"unreachable": True}})
    assert len(notes) == 6
    assert all(note.startswith("a: ") for note in notes)
    assert preflight.host_notes({"a": _report()}) == []


def test_the_message_groups_by_place_and_puts_the_inventory_first() -> None:
    text = preflight.problem_text(
        [
            preflight.problem("APL-0725", "b", "architecture x is not supported", "Use another."),
            preflight.problem("APL-0701", "inventory", "no servers", "Add one."),
        ]
    )
    assert text.splitlines() == [
        "2 problems found. Nothing was changed on any host.",
        "",
        "inventory:",
        "  APL-0701 no servers.",
        "           Add one.",
        "",
        "b:",
        "  APL-0725 architecture x is not supported.",
        "           Use another.",
    ]


def test_sizes_on_the_controller(tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick/one.tar").write_bytes(b"x" * 10)
    (tmp_path / "two.tar").write_bytes(b"x" * 5)
    names = [str(tmp_path / "stick"), str(tmp_path / "two.tar"), str(tmp_path / "absent")]
    assert list(preflight.source_sizes(names).values()) == [10, 5, 0]
