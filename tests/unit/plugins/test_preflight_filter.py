"""The filters of role preflight: every problem of an inventory and of hosts, found and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.site.appliance.plugins.filter import preflight
from ansible_collections.site.appliance.plugins.plugin_utils import findings, host_checks, inventory_checks

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
    (found,) = inventory_checks.unknown_variables({"mirror_pyton": ["a", "b", "c", "d", "e", "f"]}, OPTIONS)
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


def _python(**changes: Any) -> dict[str, Any]:
    found = {"path": "/usr/bin/python3", "version": [3, 11, 2], "machine": "x86_64", "glibc": [2, 36], "missing": []}
    return {**found, **changes}


def _medium(**changes: Any) -> dict[str, Any]:
    state = {"kind": "directory", "bytes": 1200, "files": 2, "candidates": 1, "examples": ["a.sha256"], "error": ""}
    return {**state, **changes}


def _report(**changes: Any) -> dict[str, Any]:
    report: dict[str, Any] = {
        "epoch": 1_000_000.0,
        "hostname": "a",
        "machine": "x86_64",
        "uid": 0,
        "python": [3, 9, 2],
        "service_python": _python(),
        "init": "systemd",
        "filesystems": {
            "/opt": {"mount": "/", "device": 1, "available": 1000},
            "/var/lib/appliance": {"mount": "/", "device": 1, "available": 1000},
            "/var/lib/rancher": {"mount": "/var/lib/rancher", "device": 2, "available": 5},
        },
        "sources": {},
        "published": [],
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


def test_files_on_the_controller_are_looked_at_also_where_no_host_answers(tmp_path: Path) -> None:
    silent = {"unreachable": True, "msg": "No route to host"}
    found = _problems({"a": silent, "b": silent}, base=str(tmp_path))
    assert [entry["id"] for entry in found if entry["where"] == findings.CONTROLLER] == [
        *("APL-0822", "APL-0822"),
        "APL-0760",
    ]
    assert [entry["id"] for entry in found if entry["where"] in "ab"] == ["APL-0720", "APL-0720"]


def test_files_are_named_once_where_some_hosts_answer(tmp_path: Path) -> None:
    silent = {"unreachable": True, "msg": "No route to host"}
    found = _problems({"a": _report(), "b": silent}, base=str(tmp_path))
    said = [entry["what"] for entry in found if entry["id"] == "APL-0822"]
    assert said == [
        "k3s_binary is not set: K3s is installed from that file",
        "k3s_checksums is not set: the K3s binary is checked against that file",
    ]


def test_a_good_host_has_no_problem() -> None:
    assert _problems({"a": _report()}) == []


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"python": [3, 8, 1]}, "APL-0723", "3.8.1"),
        ({"service_python": _python(version=[3, 9, 2])}, "APL-0724", "3.9.2"),
        (
            {"service_python": {"path": "/opt/py", "version": None, "error": "it is not there"}},
            "APL-0724",
            "/opt/py does not run: it is not there",
        ),
        ({"service_python": _python(missing=["ssl", "venv"])}, "APL-0724", "lacks parts of Python's own library"),
        ({"service_python": _python(machine="i686")}, "APL-0724", "32-bit"),
        ({"machine": "armv7l"}, "APL-0725", "armv7l"),
        ({"uid": 1000}, "APL-0732", "not root"),
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
        {"listeners": [_listener("127.0.0.1", 5000, "appliance-mirror.socket", "systemd")]},
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
    sources = {"/media/images.tar": _medium()}
    absent = {"/media/images.tar": _medium(kind="", bytes=0, files=0, candidates=0)}
    results = {"a": _report(sources=sources), "b": _report(hostname="b", sources=absent)}
    found = _problems(results, seeds=["a"], nodes=3)
    assert [(entry["where"], entry["id"]) for entry in found] == [("a", "APL-0727")]
    assert len(_problems(results, seeds=["a"], nodes=3, copies="all")) == 2
    assert _problems(results, seeds=["a"], bytes={"/var/lib/appliance": 10}) == []
    assert len(_problems({"a": _report()}, seeds=["a"], controller_sources=sources)) == 1


def test_what_is_there_already_is_not_counted_again() -> None:
    """The second run on a disk that the first one filled."""
    needs = {"/opt": 2000, "/var/lib/appliance": 2000, "/var/lib/rancher": 2000}
    report = _report(installed=list(needs), held=1200, sources={"/media/images.tar": _medium()})
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
    assert [entry["where"] for entry in host_checks.clock_problems(epochs, now, 60)] == bad


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
        ("c", "APL-0732"),
        ("d", "APL-0725"),
    ]
    assert found[0]["what"] == "unreachable: ssh: connect to host x port 22: No route to host"
    assert (
        found[1]["what"]
        == "the SSH host key SHA256:bpI1/Q is not the one that known_hosts has for this host (/root/known_hosts:1)"
    )
    assert "ssh-keygen -R b" in found[1]["fix"]


def test_hosts_that_call_themselves_the_same_are_named() -> None:
    (found,) = _problems({"a": _report(hostname="debian"), "b": _report(hostname="Debian")})
    assert (found["id"], found["where"]) == ("APL-0704", "inventory")


def _notes(results: dict[str, Any], variables: dict[str, Any] | None = None, **settings: Any) -> list[str]:
    return preflight.host_notes(results, {host: variables or {} for host in results}, settings)


def test_notes_tell_what_will_be_mended() -> None:
    report = _report(
        default_routes=[],
        modules={"overlay": "builtin", "br_netfilter": "loadable", "vxlan": "missing"},
        cgroup={"version": 1, "controllers": ["memory"]},
        swap=1 << 30,
        iptables="iptables v1.8.4 (legacy)",
    )
    notes = _notes({"a": report, "b": {"unreachable": True}})
    assert len(notes) == 6
    assert all(note.startswith("a: ") for note in notes)
    assert _notes({"a": _report()}) == []


CGROUP_V1 = _report(cgroup={"version": 1, "controllers": ["memory"]})


@pytest.mark.parametrize(
    "variables",
    [
        {"k3s_kubelet_args": ["fail-cgroupv1=false"]},
        {"k3s_kubelet_args": ["max-pods=200", "--fail-cgroupv1=false"]},
        {"k3s_kubelet_args": "fail-cgroupv1=false"},
        {"k3s_kubelet_args": "--max-pods=200 --fail-cgroupv1=false"},
        {"k3s_kubelet_args": "max-pods=200,fail-cgroupv1=False"},
        {"k3s_kubelet_args": {"fail-cgroupv1": False}},
        {"k3s_kubelet_args": [{"fail-cgroupv1": "false"}]},
        {"k3s_kubelet_args": ["fail-cgroupv1=true", "fail-cgroupv1=false"]},
        {"k3s_config": {"kubelet-arg": ["fail-cgroupv1=false"]}},
        {"k3s_config": {"kubelet-arg": "fail-cgroupv1=false"}},
        {"k3s_server_config": {"kubelet-arg+": ["fail-cgroupv1=false"]}, "group_names": ["k3s_servers"]},
        {"k3s_agent_config": {"kubelet-arg": ["fail-cgroupv1=0"]}},
    ],
)
def test_the_argument_for_cgroup_v1_is_not_asked_for_where_it_is_set(variables: dict[str, Any]) -> None:
    assert _notes({"a": CGROUP_V1}, variables) == []


@pytest.mark.parametrize("argument", ["fail-cgroupv1", "fail-cgroupv1=true", "--fail-cgroupv1=1"])
def test_the_argument_for_cgroup_v1_with_a_value_that_stops_the_kubelet_is_named(argument: str) -> None:
    (note,) = _notes({"a": CGROUP_V1}, {"k3s_kubelet_args": [argument]})
    assert "will not start; set fail-cgroupv1=false" in note


def test_an_argument_for_agents_does_not_count_on_a_server() -> None:
    variables = {"k3s_agent_config": {"kubelet-arg": ["fail-cgroupv1=false"]}, "group_names": ["k3s_servers"]}
    assert len(_notes({"a": CGROUP_V1}, variables)) == 1


@pytest.mark.parametrize("argument", ["max-pods=200", "x-fail-cgroupv1=false", "feature-gates=fail-cgroupv1=false"])
def test_other_arguments_are_not_taken_for_it(argument: str) -> None:
    (note,) = _notes({"a": CGROUP_V1}, {"k3s_kubelet_args": [argument]})
    assert "needs the argument fail-cgroupv1=false" in note


def test_the_message_groups_by_place_and_puts_the_inventory_first() -> None:
    text = preflight.problem_text(
        [
            findings.problem("APL-0725", "b", "architecture x is not supported", "Use another."),
            findings.problem("APL-0701", "inventory", "no servers", "Add one."),
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


def test_media_on_the_controller(tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick/one.tar").write_bytes(b"x" * 10)
    (tmp_path / "two.tar").write_bytes(b"x" * 5)
    states = preflight.source_states(["stick", str(tmp_path / "two.tar"), "absent"], str(tmp_path))
    assert [(state["kind"], state["bytes"]) for state in states.values()] == [("directory", 10), ("file", 5), ("", 0)]


# --- node names ------------------------------------------------------------------------------------------------------


LONG = "n" * 63


@pytest.mark.parametrize(
    ("host", "variables", "ids"),
    [
        (LONG, {}, []),
        (f"{LONG}n", {}, ["APL-0706"]),
        (f"{'n' * 40}.{'site' * 6}", {}, ["APL-0706"]),
        ("node_c", {}, ["APL-0706"]),
        ("node-.c", {}, ["APL-0706"]),
        ("c", {"k3s_node_name": f"{LONG}n"}, ["APL-0706"]),
        ("c", {"k3s_node_name": "Node_C"}, ["APL-0706"]),
        ("c", {"k3s_node_name": "A"}, ["APL-0706", "APL-0704"]),
        ("c", {"k3s_node_name": "b"}, ["APL-0704"]),
        ("c", {"k3s_node_name": "node-c.site.example"}, []),
    ],
)
def test_a_name_that_kubernetes_does_not_take_for_a_node_is_found(
    host: str, variables: dict[str, Any], ids: list[str]
) -> None:
    groups = {"k3s_agents": ["b", host], "k3s_cluster": ["a", "b", host]}
    site = _site(groups=groups, **{host: {"node_ip": "192.0.2.14", **variables}})
    found = inventory_checks.Inventory(*site, {}, "2.19.4")
    assert [entry["id"] for entry in inventory_checks.INVENTORY_CHECKS[2](found)] == ids


def test_a_wrong_table_of_registries_is_found_before_any_host_is_asked() -> None:
    site = _site(
        b={"registries_internal": {"a.example": {"rewrite": {"^(?!x)(.*)": "y/$1"}}}}, a={"registries_wildcard": True}
    )
    (found,) = preflight.inventory_problems(*site, {}, "2.19.4")
    assert (found["id"], found["where"]) == ("APL-0808", "inventory")
    assert "lookahead" in found["what"]


@pytest.mark.parametrize(
    ("host", "variables", "code", "words"),
    [
        ("b", {"k3s_config": {"Node_Label": "x"}}, "APL-0831", "Node_Label is not a K3s option"),
        ("b", {"k3s_agent_config": {"etcd-arg": ["x"]}}, "APL-0833", "etcd-arg is an option of servers only"),
        ("a", {"k3s_server_config": {"token-file": "/x"}}, "APL-0832", "token-file is written by the role"),
        (
            "b",
            {"k3s_agent_token_file": "/etc/rancher/k3s/cluster-token"},
            "APL-0881",
            "the agents' token is the servers'",
        ),
        ("a", {"k3s_kubelet_args": "--max-pods=200"}, "APL-0831", "--max-pods=200 is not a kubelet argument"),
        ("a", {"firewall_operator_sources": ["192.0.2.0/33"]}, "APL-0752", "firewall_operator_sources: '192.0.2.0/33'"),
        ("a", {"firewall_service_ports": ["80"]}, "APL-0752", "firewall_service_ports: '80'"),
        ("a", {"firewall_service_ports": [{"sources": ["192.0.2.1"]}]}, "APL-0752", "firewall_service_ports"),
        ("a", {"firewall_operator_ports": ["6443"]}, "APL-0752", "firewall_operator_ports: '6443'"),
        ("a", {"firewall_pod_cidr": "10.42.0.0/99"}, "APL-0752", "firewall_pod_cidr"),
    ],
)
def test_settings_that_a_role_would_refuse_later_are_found(
    host: str, variables: dict[str, Any], code: str, words: str
) -> None:
    known = {"k3s": list(variables), "firewall": list(variables)}
    (found,) = preflight.inventory_problems(*_site(**{host: variables}), known, "2.19.4")
    assert (found["id"], found["where"]) == (code, "inventory")
    assert words in found["what"]


def test_settings_that_the_roles_take_are_no_problem() -> None:
    variables = {
        "k3s_config": {"pause-image": "x"},
        "k3s_server_config": {"disable": ["traefik"]},
        "k3s_kubelet_args": ["max-pods=200"],
        "firewall_operator_sources": ["192.0.2.0/24"],
        "firewall_service_ports": ["80/tcp", {"port": "443/tcp", "sources": ["192.0.2.0/24"]}],
        "firewall_pod_cidr": "10.42.0.0/16,fd00::/56",
        "firewall_backend": "auto",
    }
    options = {"k3s": list(variables), "firewall": list(variables)}
    assert preflight.inventory_problems(*_site(a=variables), options, "2.19.4") == []


# --- mount options ---------------------------------------------------------------------------------------------------


MOUNTS = {"runs_from": ["/opt", "/var/lib/rancher"], "writes_to": ["/var/lib/appliance", "/etc"]}


def _mounted(**options: list[str]) -> dict[str, Any]:
    """Report file systems with options: the option to the directories that have it."""
    report = _report()
    for option, paths in options.items():
        for path in paths:
            report["report"]["filesystems"][path][option] = True
    return report


def test_a_mount_option_that_stops_the_run_is_named_with_place_and_remedy() -> None:
    (found,) = _problems({"a": _mounted(noexec=["/var/lib/rancher"])}, **MOUNTS)
    assert (found["id"], found["where"]) == ("APL-0714", "a")
    assert found["what"] == "/var/lib/rancher is mounted noexec, and programs have to run from /var/lib/rancher"
    assert found["fix"].startswith(
        "mount -o remount,exec /var/lib/rancher, and take noexec out of its line in /etc/fstab"
    )
    both = _problems({"a": _mounted(noexec=["/opt", "/var/lib/rancher"], readonly=["/var/lib/appliance"])}, **MOUNTS)
    assert [entry["what"].partition(", and")[0] for entry in both] == [
        "/ is mounted noexec",
        "/var/lib/rancher is mounted noexec",
        "/ is mounted read-only",
    ]


def test_data_may_lie_where_nothing_runs() -> None:
    assert _problems({"a": _mounted(noexec=["/var/lib/appliance"])}, **MOUNTS) == []


# --- media -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"kind": "", "files": 0}, "APL-0101", "not there, and was never published"),
        ({"files": 0, "candidates": 0}, "APL-0122", "is the stick mounted?"),
        ({"candidates": 0}, "APL-0122", "none of which can be an archive: a.sha256"),
        ({"error": "Input/output error"}, "APL-0101", "Input/output error"),
        ({"kind": "other"}, "APL-0101", "neither a file nor a directory"),
        ({"kind": "file", "bytes": 0}, "APL-0122", "empty"),
    ],
)
def test_a_medium_that_brings_nothing_is_found(change: dict[str, Any], code: str, words: str) -> None:
    report = _report(sources={"/media/stick": _medium(**change)}, filesystems={})
    (found,) = _problems({"a": report}, seed_host="a")
    assert (found["id"], found["where"]) == (code, "a")
    assert (
        words in found["what"]
        and found["what"].endswith("[/media/stick]")
        and found["what"].startswith("seed_sources: ")
    )
    assert found["fix"]
    # Nobody else has to have it, and a restore does not need it yet.
    assert _problems({"a": report, "b": _report(hostname="b")}, seed_host="b") == []
    assert _problems({"a": report}, seed_host="a", media=False) == []
    # On the controller, only what is there counts.
    (found,) = _problems({"a": report}, seed_host="a", controller_sources={"/srv/x": _medium(**change)})
    assert (found["where"], found["what"].endswith("[/srv/x]")) == ("controller", True)


def test_a_medium_that_was_published_before_may_be_absent() -> None:
    absent = _medium(kind="", bytes=0, files=0, candidates=0)
    report = _report(sources={"/media/stick": absent}, published=["/media/stick"])
    assert _problems({"a": report}, seed_host="a") == []
    assert _notes({"a": report}, seed_host="a") == [
        "a: /media/stick is not there, but was published before: the run goes on without it"
    ]
    empty = _report(sources={"/media/stick": {**absent, "kind": "directory"}}, published=["/media/stick"])
    assert _problems({"a": empty}, seed_host="a") == []
    assert _notes({"a": _report(sources={"/media/stick": _medium()})}, seed_host="a") == []


def test_the_last_line_counts_hosts_and_checks() -> None:
    results = {"a": _report(), "b": _report()}
    checks = len(inventory_checks.INVENTORY_CHECKS) + 2 * len(host_checks.HOST_CHECKS) + len(host_checks.SITE_CHECKS)
    assert preflight.preflight_success(results, {}) == (
        f"Preflight: 2 hosts, {checks} checks, nothing is wrong."
        " Not checked here: the content of the media, which the plan verifies."
    )
    assert preflight.preflight_success({"a": _report()}, {"media": False}).endswith("Not checked here: the media.")
    for count, page in ((3, "roles/preflight/README.md"), (2, "docs/tutorial/first-site.md")):
        shown = preflight.preflight_success({str(number): _report() for number in range(count)}, {})
        text = (Path(__file__).resolve().parents[3] / page).read_text(encoding="utf-8")
        assert shown in " ".join(text.split()), page
