"""What is done to each kind of firewall: plans from what the firewall says of itself, without a firewall."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.site.appliance.plugins.module_utils import firewall_rules as fw

RULES: dict[str, Any] = {
    "input": [
        {
            "name": "nodes",
            "proto": "tcp",
            "ports": ["5001", "6443"],
            "sources": ["192.0.2.11", "192.0.2.12", "2001:db8::1"],
        },
        {"name": "servers", "proto": "tcp", "ports": ["2379-2380"], "sources": ["192.0.2.11"]},
        {"name": "services", "proto": "tcp", "ports": ["80"], "sources": []},
    ],
    "trusted": ["10.42.0.0/16", "10.43.0.0/16"],
    "guarded": ["8472"],
    "forward": ["10.42.0.0/16"],
}


# --- nftables --------------------------------------------------------------------------------------------------------


class Ruleset:
    """Builds what ``nft -j list ruleset`` prints."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = [{"metainfo": {"version": "1.0.6"}}]
        self.handle = 100

    def chain(
        self, name: str, *, family: str = "inet", table: str = "filter", hook: str = "", policy: str = "accept"
    ) -> Ruleset:
        entry: dict[str, Any] = {"family": family, "table": table, "name": name}
        if hook:
            entry |= {"type": "filter", "hook": hook, "prio": 0, "policy": policy}
        self.entries.append({"chain": entry})
        return self

    def rule(
        self, chain: str, *expr: dict[str, Any], family: str = "inet", table: str = "filter", comment: str = ""
    ) -> Ruleset:
        self.handle += 1
        entry = {"family": family, "table": table, "chain": chain, "handle": self.handle, "expr": list(expr)}
        if comment:
            entry["comment"] = comment
        self.entries.append({"rule": entry})
        return self

    def parsed(self) -> dict[tuple[str, str, str], fw.Chain]:
        return fw.parse_ruleset(json.dumps({"nftables": self.entries}))


DROP: dict[str, Any] = {"drop": None}
REJECT: dict[str, Any] = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
ACCEPT: dict[str, Any] = {"accept": None}
MATCH: dict[str, Any] = {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}}
COUNTER: dict[str, Any] = {"counter": {"packets": 0, "bytes": 0}}


def _jump(target: str) -> dict[str, Any]:
    return {"jump": {"target": target}}


@pytest.mark.parametrize(
    ("ruleset", "closed"),
    [
        (Ruleset().chain("input", hook="input", policy="drop"), True),
        (Ruleset().chain("input", hook="input").rule("input", MATCH, ACCEPT).rule("input", COUNTER, DROP), True),
        (Ruleset().chain("input", hook="input").rule("input", {"log": {}}, REJECT), True),
        (Ruleset().chain("no").rule("no", REJECT).chain("input", hook="input").rule("input", _jump("no")), True),
        (
            Ruleset()
            .chain("no")
            .rule("no", REJECT)
            .chain("input", hook="input")
            .rule("input", {"goto": {"target": "no"}}),
            True,
        ),
        (Ruleset().chain("input", hook="input").rule("input", MATCH, DROP), False),
        (Ruleset().chain("input", hook="input").rule("input", ACCEPT).rule("input", DROP), False),
        (
            Ruleset().chain("no").rule("no", REJECT).chain("input", hook="input").rule("input", MATCH, _jump("no")),
            False,
        ),
        (Ruleset().chain("x").rule("x", _jump("x")).chain("input", hook="input").rule("input", _jump("x")), False),
        (Ruleset().chain("input", hook="input"), False),
    ],
)
def test_which_chains_refuse(ruleset: Ruleset, closed: bool) -> None:
    assert bool(fw.nft_targets(ruleset.parsed())) is closed


@pytest.mark.parametrize(
    "ruleset",
    [
        Ruleset().chain("output", hook="output", policy="drop"),
        Ruleset().chain("filter_INPUT", table="firewalld", hook="input", policy="drop"),
        Ruleset().chain("INPUT", family="ip", hook="input", policy="drop"),
        Ruleset().chain("in", family="bridge", hook="input", policy="drop"),
    ],
)
def test_chains_that_are_not_ours_to_touch(ruleset: Ruleset) -> None:
    assert fw.nft_targets(ruleset.parsed()) == []


def _closed() -> Ruleset:
    return Ruleset().chain("input", hook="input", policy="drop").rule("input", MATCH, ACCEPT)


def test_the_script_for_nftables() -> None:
    (step,) = fw.nft_plan(RULES, _closed().parsed()).steps
    lines = [
        "ip saddr { 10.42.0.0/16, 10.43.0.0/16 } udp dport { 8472 } drop",
        "ip saddr { 10.42.0.0/16, 10.43.0.0/16 } accept",
        "ip saddr { 192.0.2.11, 192.0.2.12 } tcp dport { 5001, 6443 } accept",
        "ip6 saddr { 2001:db8::1 } tcp dport { 5001, 6443 } accept",
        "ip saddr { 192.0.2.11 } tcp dport { 2379-2380 } accept",
        "tcp dport { 80 } accept",
    ]
    assert step.argv == ["nft", "-f", "-"]
    assert step.stdin.splitlines() == [
        "add chain inet filter appliance_input",
        "flush chain inet filter appliance_input",
        *[f'add rule inet filter appliance_input {line} comment "{fw.tag(line)}"' for line in lines],
        'insert rule inet filter input jump appliance_input comment "appliance"',
    ]


def test_a_table_of_one_family_gets_that_family() -> None:
    ruleset = Ruleset().chain("in", family="ip6", table="mine", hook="input", policy="drop")
    (step,) = fw.nft_plan(RULES, ruleset.parsed()).steps
    assert "192.0.2" not in step.stdin
    assert "ip6 saddr { 2001:db8::1 }" in step.stdin


def _applied(rules: dict[str, Any]) -> Ruleset:
    ruleset = Ruleset().chain("input", hook="input", policy="drop").chain("appliance_input")
    ruleset.rule("input", _jump("appliance_input"), comment="appliance").rule("input", MATCH, ACCEPT)
    for line in fw.nft_lines(rules, "input", "inet"):
        ruleset.rule("appliance_input", MATCH, ACCEPT, comment=fw.tag(line))
    return ruleset


def test_nothing_is_done_twice() -> None:
    plan = fw.nft_plan(RULES, _applied(RULES).parsed())
    assert plan.steps == []
    assert plan.before == plan.after


def test_a_changed_rule_is_replaced_without_touching_the_jump() -> None:
    changed = {**RULES, "input": RULES["input"][:2]}
    (step,) = fw.nft_plan(changed, _applied(RULES).parsed()).steps
    assert "flush chain inet filter appliance_input" in step.stdin
    assert "jump" not in step.stdin


def test_a_jump_that_stands_behind_a_refusal_is_moved_to_the_front() -> None:
    ruleset = Ruleset().chain("input", hook="input", policy="drop").chain("appliance_input")
    ruleset.rule("input", MATCH, DROP).rule("input", _jump("appliance_input"))
    for line in fw.nft_lines(RULES, "input", "inet"):
        ruleset.rule("appliance_input", MATCH, ACCEPT, comment=fw.tag(line))
    (step,) = fw.nft_plan(RULES, ruleset.parsed()).steps
    assert step.stdin.splitlines() == [
        "delete rule inet filter input handle 102",
        'insert rule inet filter input jump appliance_input comment "appliance"',
    ]


def test_a_jump_behind_an_accept_stays() -> None:
    ruleset = _applied(RULES)
    ruleset.entries.insert(
        3, {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 1, "expr": [MATCH, ACCEPT]}}
    )
    assert fw.nft_plan(RULES, ruleset.parsed()).steps == []


def test_removal_takes_our_objects_only() -> None:
    (step,) = fw.nft_plan(None, _applied(RULES).parsed()).steps
    assert step.stdin.splitlines() == [
        "delete rule inet filter input handle 101",
        "flush chain inet filter appliance_input",
        "delete chain inet filter appliance_input",
    ]
    assert fw.nft_plan(None, _closed().parsed()).steps == []


def test_networks_within_others_are_left_out_of_a_set() -> None:
    assert fw.split_families(["192.0.2.0/24", "192.0.2.7", "192.0.2.0/24", "2001:db8::/32", "2001:db8::1"]) == {
        "ip": ["192.0.2.0/24"],
        "ip6": ["2001:db8::/32"],
    }


# --- iptables --------------------------------------------------------------------------------------------------------

SAVED = """-P INPUT DROP
-P FORWARD ACCEPT
-P OUTPUT ACCEPT
-N KUBE-ROUTER-FORWARD
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A FORWARD -j KUBE-ROUTER-FORWARD
-A FORWARD -j REJECT --reject-with icmp-port-unreachable
"""


def test_the_input_for_iptables_restore() -> None:
    (step,) = fw.ipt_plan(RULES, {"ip": SAVED}).steps
    assert step.argv == ["iptables-restore", "--wait", "5", "--noflush"]
    lines = step.stdin.splitlines()
    assert lines[:3] == ["*filter", ":APPLIANCE-INPUT - [0:0]", ":APPLIANCE-FORWARD - [0:0]"]
    assert lines[-1] == "COMMIT"
    rule = "-s 192.0.2.11 -p tcp --dport 2379:2380 -j ACCEPT"
    assert f"-A APPLIANCE-INPUT -m comment --comment {fw.tag(rule)} {rule}" in lines
    ends = [line.partition(" -s ")[2] for line in lines]
    guard, trust = ("10.42.0.0/16 -p udp --dport 8472 -j DROP", "10.42.0.0/16 -j ACCEPT")
    assert ends.index(guard) < ends.index(trust)
    # Right before the first refusal: what others put first stays first.
    assert "-I INPUT 2 -m comment --comment appliance -j APPLIANCE-INPUT" in lines
    assert "-I FORWARD 2 -m comment --comment appliance -j APPLIANCE-FORWARD" in lines
    assert "2001:db8" not in step.stdin


def test_iptables_that_refuses_nothing_is_left_alone() -> None:
    assert fw.ipt_plan(RULES, {"ip": "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-A INPUT -p tcp -j DROP\n"}).steps == []


def _ipt_applied(jump_at: int) -> str:
    lines = ["-P INPUT DROP", "-P FORWARD ACCEPT", "-N APPLIANCE-INPUT"]
    base = ["-A INPUT -i lo -j ACCEPT", "-A INPUT -m conntrack --ctstate INVALID -j DROP"]
    base.insert(jump_at, "-A INPUT -m comment --comment appliance -j APPLIANCE-INPUT")
    own = [
        f'-A APPLIANCE-INPUT -m comment --comment "{fw.tag(line)}" {line}'
        for line in fw.ipt_lines(RULES, "input", "ip")
    ]
    return "\n".join([*lines, *base, *own]) + "\n"


def test_iptables_nothing_is_done_twice() -> None:
    assert fw.ipt_plan(RULES, {"ip": _ipt_applied(0)}).steps == []
    assert fw.ipt_plan(RULES, {"ip": _ipt_applied(1)}).steps == []


def test_iptables_a_jump_behind_a_refusal_is_moved() -> None:
    (step,) = fw.ipt_plan(RULES, {"ip": _ipt_applied(2)}).steps
    assert step.stdin.splitlines() == [
        "*filter",
        "-D INPUT -m comment --comment appliance -j APPLIANCE-INPUT",
        "-I INPUT 2 -m comment --comment appliance -j APPLIANCE-INPUT",
        "COMMIT",
    ]


def test_iptables_removal() -> None:
    (step,) = fw.ipt_plan(None, {"ip": _ipt_applied(0)}).steps
    assert step.stdin.splitlines()[1:-1] == [
        "-D INPUT -m comment --comment appliance -j APPLIANCE-INPUT",
        "-F APPLIANCE-INPUT",
        "-X APPLIANCE-INPUT",
    ]


# --- firewalld -------------------------------------------------------------------------------------------------------


def test_firewalld_files() -> None:
    files = fw.firewalld_files(RULES)
    assert sorted(files) == [
        "etc/firewalld/ipsets/appliance-nodes.xml",
        "etc/firewalld/ipsets/appliance-nodes6.xml",
        "etc/firewalld/ipsets/appliance-servers.xml",
        "etc/firewalld/policies/appliance-host.xml",
        "etc/firewalld/policies/appliance-pods.xml",
    ]
    nodes = ET.fromstring(files["etc/firewalld/ipsets/appliance-nodes.xml"])
    assert [entry.text for entry in nodes.iter("entry")] == ["192.0.2.11", "192.0.2.12"]
    six = ET.fromstring(files["etc/firewalld/ipsets/appliance-nodes6.xml"])
    option = six.find("option")
    assert option is not None
    assert option.attrib == {"name": "family", "value": "inet6"}
    host = files["etc/firewalld/policies/appliance-host.xml"]
    policy = ET.fromstring(host)
    assert policy.attrib == {"priority": "-10", "target": "CONTINUE"}
    assert [zone.attrib["name"] for zone in policy if zone.tag.endswith("zone")] == ["ANY", "HOST"]
    assert (
        '<rule family="ipv4"><source ipset="appliance-nodes"/><port port="6443" protocol="tcp"/><accept/></rule>'
        in host
    )
    assert '<rule family="ipv4"><source address="10.43.0.0/16"/><accept/></rule>' in host
    assert (
        '<rule family="ipv4"><source address="10.42.0.0/16"/><port port="8472" protocol="udp"/><drop/></rule>' in host
    )
    # Open to everybody without a rule that names a source.
    assert '\n  <port port="80" protocol="tcp"/>' in host
    pods = files["etc/firewalld/policies/appliance-pods.xml"]
    assert '<rule family="ipv4"><destination address="10.42.0.0/16"/><accept/></rule>' in pods
    assert "10.43" not in pods


HELD = ["allow-host-ipv6", "appliance-host", "appliance-pods"]


def test_firewalld_reloads_on_change_only() -> None:
    files = fw.firewalld_files(RULES)
    assert fw.firewalld_plan(RULES, files, HELD).steps == []
    first = fw.firewalld_plan(RULES, {}, ["allow-host-ipv6"]).steps
    assert [step.argv for step in first[-2:]] == [["firewall-cmd", "--check-config"], ["firewall-cmd", "--reload"]]
    assert {step.path for step in first[:-2]} == set(files)
    # Files that are there while firewalld does not hold them: only the reload is missing.
    assert len(fw.firewalld_plan(RULES, files, ["allow-host-ipv6"]).steps) == 2


def test_firewalld_files_of_ours_that_are_not_wanted_go() -> None:
    stale = "etc/firewalld/ipsets/appliance-operators.xml"
    plan = fw.firewalld_plan(RULES, {**fw.firewalld_files(RULES), stale: "x"}, HELD)
    assert plan.steps[0] == fw.Step(path=stale)
    assert plan.steps[-1].argv == ["firewall-cmd", "--reload"]


def test_firewalld_removal() -> None:
    plan = fw.firewalld_plan(None, fw.firewalld_files(RULES), HELD)
    assert {step.text for step in plan.steps} == {None}
    assert plan.steps[-1].argv == ["firewall-cmd", "--reload"]
    assert fw.firewalld_plan(None, {}, ["allow-host-ipv6"]).steps == []


class Commands:
    """Plays a host's commands: argv joined to exit code and output; all others are not found."""

    def __init__(self, answers: dict[str, tuple[int, str]]) -> None:
        self.answers = answers
        self.ran: list[str] = []

    def __call__(self, argv: list[str], stdin: str) -> tuple[int, str, str]:
        line = " ".join(argv)
        self.ran.append(line)
        code, out = self.answers.get(line, (127, ""))
        return code, out, "" if code == 0 else f"{argv[0]}: failed"


def test_firewalld_is_not_reloaded_over_rules_that_are_not_saved(tmp_path: Path) -> None:
    run = Commands(
        {
            "firewall-cmd --get-active-zones": (0, "public\n  interfaces: eth0\n"),
            "firewall-cmd --zone=public --list-services": (0, "ssh http"),
            "firewall-cmd --permanent --zone=public --list-services": (0, "ssh"),
        }
    )
    with pytest.raises(fw.FirewallError, match=r"public.*runtime-to-permanent"):
        fw.apply_plan(fw.firewalld_plan(RULES, {}, []), run, tmp_path)
    assert not any("reload" in line for line in run.ran)
    assert list(tmp_path.rglob("*.xml")) == []


def test_files_that_firewalld_refuses_are_taken_back(tmp_path: Path) -> None:
    old = tmp_path / "etc/firewalld/policies/appliance-host.xml"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    run = Commands({"firewall-cmd --get-active-zones": (0, ""), "firewall-cmd --check-config": (104, "")})
    with pytest.raises(fw.FirewallError, match="check-config"):
        fw.apply_plan(fw.firewalld_plan(RULES, {"etc/firewalld/policies/appliance-host.xml": "old"}, []), run, tmp_path)
    assert [path.name for path in tmp_path.rglob("*.xml")] == ["appliance-host.xml"]
    assert old.read_text() == "old"


# --- ufw -------------------------------------------------------------------------------------------------------------

ADDED = """Added user rules (see 'ufw status' for running firewall):
ufw allow 22/tcp
ufw allow from 192.0.2.99 to any port 5001,6443 proto tcp comment 'appliance'
ufw allow from 10.42.0.0/16 comment 'appliance'
ufw allow 80/tcp comment 'appliance'
ufw allow 443/tcp comment 'the site: web'
ufw route allow from 10.42.0.0/16 comment 'appliance'
ufw route allow to 10.99.0.0/16 comment 'appliance'
"""


def test_ufw_adds_what_is_missing_and_deletes_what_was_ours() -> None:
    assert [" ".join(step.argv) for step in fw.ufw_plan(RULES, ADDED).steps] == [
        "ufw prepend deny from 10.42.0.0/16 to any port 8472 proto udp comment appliance",
        "ufw prepend deny from 10.43.0.0/16 to any port 8472 proto udp comment appliance",
        "ufw allow from 10.43.0.0/16 comment appliance",
        "ufw allow from 192.0.2.11 to any port 5001,6443 proto tcp comment appliance",
        "ufw allow from 192.0.2.12 to any port 5001,6443 proto tcp comment appliance",
        "ufw allow from 2001:db8::1 to any port 5001,6443 proto tcp comment appliance",
        "ufw allow from 192.0.2.11 to any port 2379:2380 proto tcp comment appliance",
        "ufw route allow to 10.42.0.0/16 comment appliance",
        "ufw delete allow from 192.0.2.99 to any port 5001,6443 proto tcp",
        "ufw route delete allow to 10.99.0.0/16",
    ]


def test_ufw_nothing_is_done_twice() -> None:
    added = "".join(f"ufw {' '.join(words)} comment 'appliance'\n" for words in fw.ufw_rules(RULES))
    assert fw.ufw_plan(RULES, added.replace("from any to any port 80 proto tcp", "80/tcp")).steps == []


def test_ufw_removal_leaves_the_sites_own_rules() -> None:
    argvs = [" ".join(step.argv) for step in fw.ufw_plan(None, ADDED).steps]
    assert len(argvs) == 5
    assert all(" delete " in line for line in argvs)
    assert not any("22" in line.split() or "443/tcp" in line for line in argvs)


# --- the host --------------------------------------------------------------------------------------------------------

NFT = json.dumps({"nftables": _closed().entries})
EMPTY = json.dumps({"nftables": []})


@pytest.mark.parametrize(
    ("answers", "backend"),
    [
        ({"firewall-cmd --state": (0, "running"), "nft -j list ruleset": (0, NFT)}, "firewalld"),
        (
            {"firewall-cmd --state": (252, ""), "ufw status": (0, "Status: active\n"), "nft -j list ruleset": (0, NFT)},
            "ufw",
        ),
        ({"ufw status": (0, "Status: inactive\n"), "nft -j list ruleset": (0, NFT)}, "nftables"),
        ({"nft -j list ruleset": (0, EMPTY)}, "none"),
        ({}, "none"),
    ],
)
def test_which_firewall_a_host_has(answers: dict[str, tuple[int, str]], backend: str, tmp_path: Path) -> None:
    assert fw.detect(Commands(answers), tmp_path) == backend


def test_removal_looks_in_every_firewall_also_in_one_that_is_off(tmp_path: Path) -> None:
    for path, text in fw.firewalld_files(RULES).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    # Firewalld and ufw are off, and the rules of today are in nftables.
    ruleset = json.dumps({"nftables": _applied(RULES).entries})
    run = Commands({"ufw show added": (0, ADDED), "nft -j list ruleset": (0, ruleset)})
    plan = fw.make_plan(None, run, tmp_path)
    assert plan.backend == "firewalld, ufw, nftables"
    assert {step.path for step in plan.steps if step.path} == set(fw.firewalld_files(RULES))
    assert not any("firewall-cmd" in step.argv for step in plan.steps)
    assert sum(step.argv[:1] == ["ufw"] for step in plan.steps) == 5
    assert plan.steps[-1].argv == ["nft", "-f", "-"]


def test_removal_where_there_is_nothing_of_ours(tmp_path: Path) -> None:
    run = Commands({"firewall-cmd --get-policies": (0, "allow-host-ipv6"), "nft -j list ruleset": (0, NFT)})
    plan = fw.make_plan(None, run, tmp_path)
    assert (plan.backend, plan.steps) == ("none", [])


def test_the_older_iptables_is_asked_where_it_has_a_table(tmp_path: Path) -> None:
    run = Commands({"iptables -S": (0, SAVED)})
    assert fw.detect(run, tmp_path) == "none"
    assert "iptables -S" not in run.ran
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/ip_tables_names").write_text("nat\nfilter\n")
    assert fw.detect(run, tmp_path) == "iptables"


def test_a_ruleset_that_cannot_be_read_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(fw.FirewallError, match="nft -j list ruleset"):
        fw.make_plan(RULES, Commands({"nft -j list ruleset": (1, "")}), tmp_path)


def test_an_old_firewalld_is_named(tmp_path: Path) -> None:
    run = Commands({"firewall-cmd --state": (0, "running"), "firewall-cmd --get-policies": (2, "")})
    with pytest.raises(fw.FirewallError, match=r"older than 0\.9"):
        fw.make_plan(RULES, run, tmp_path)


def test_a_command_that_fails_is_named() -> None:
    plan = fw.Plan("ufw", [fw.Step(["ufw", "allow", "x"])])
    with pytest.raises(fw.FirewallError, match="ufw allow x: ufw: failed"):
        fw.apply_plan(plan, Commands({"ufw allow x": (1, "")}))


def test_wrong_usage_is_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert fw.main([]) == 2
    assert "Usage as a command" in capsys.readouterr().err


# --- pods and the mirror's peer port ---------------------------------------------------------------------------------

CLOSED = RULES | {
    "closed": ["5443"],
    "nodes": ["192.0.2.11", "2001:db8::1"],
    "forward": ["10.42.0.0/16", "2001:db8:42::/56"],
}


def test_nftables_drops_it_here_and_on_the_way_to_other_nodes() -> None:
    assert fw.nft_lines(CLOSED, "input", "inet")[1:3] == [
        "ip saddr { 10.42.0.0/16, 10.43.0.0/16 } tcp dport { 5443 } drop",
        "ip saddr { 10.42.0.0/16, 10.43.0.0/16 } accept",
    ]
    assert fw.nft_lines(CLOSED, "forward", "inet")[:3] == [
        "ip saddr { 10.42.0.0/16 } ip daddr { 192.0.2.11 } tcp dport { 5443 } drop",
        "ip6 saddr { 2001:db8:42::/56 } ip6 daddr { 2001:db8::1 } tcp dport { 5443 } drop",
        "ip saddr { 10.42.0.0/16 } accept",
    ]
    assert not [line for line in fw.nft_lines(CLOSED, "forward", "ip") if "ip6" in line]


def test_iptables_drops_it_here_and_on_the_way_to_other_nodes() -> None:
    lines = fw.ipt_lines(CLOSED, "input", "ip")
    assert lines.index("-s 10.42.0.0/16 -p tcp --dport 5443 -j DROP") < lines.index("-s 10.42.0.0/16 -j ACCEPT")
    assert fw.ipt_lines(CLOSED, "forward", "ip")[:2] == [
        "-s 10.42.0.0/16 -d 192.0.2.11 -p tcp --dport 5443 -j DROP",
        "-s 10.42.0.0/16 -j ACCEPT",
    ]
    assert fw.ipt_lines(CLOSED, "forward", "ip6")[0].endswith("-d 2001:db8::1 -p tcp --dport 5443 -j DROP")


def test_firewalld_drops_it_here_and_on_the_way_to_other_nodes() -> None:
    files = fw.firewalld_files(CLOSED)
    host, pods = (files[f"etc/firewalld/policies/appliance-{name}.xml"] for name in ("host", "pods"))
    drop = '<port port="5443" protocol="tcp"/><drop/></rule>'
    assert f'<rule family="ipv4"><source address="10.42.0.0/16"/>{drop}' in host
    assert f'<source address="10.42.0.0/16"/><destination address="192.0.2.11"/>{drop}' in pods
    assert f'<source address="2001:db8:42::/56"/><destination address="2001:db8::1"/>{drop}' in pods
    for text in (host, pods):
        ET.fromstring(text)


def test_ufw_denies_it_before_what_it_allowed_already_and_once() -> None:
    plan = [" ".join(step.argv) for step in fw.ufw_plan(CLOSED, ADDED).steps]
    assert "ufw prepend deny from 10.42.0.0/16 to any port 5443 proto tcp comment appliance" in plan
    assert "ufw route prepend deny from 10.42.0.0/16 to 192.0.2.11 port 5443 proto tcp comment appliance" in plan
    added = "".join(f"ufw {' '.join(words)} comment 'appliance'\n" for words in fw.ufw_rules(CLOSED))
    assert fw.ufw_plan(CLOSED, added.replace("from any to any port 80 proto tcp", "80/tcp")).steps == []


@pytest.mark.parametrize("hook", ["input", "forward"])
def test_rules_of_the_release_before_are_still_read(hook: str) -> None:
    """The unit's program is replaced before the file that it reads."""
    assert not [line for line in fw.nft_lines(RULES, hook, "inet") + fw.ipt_lines(RULES, hook, "ip") if "5443" in line]
