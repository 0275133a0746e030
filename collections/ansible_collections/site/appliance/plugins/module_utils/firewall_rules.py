#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Open ports in the firewall that a host has: firewalld, ufw, nftables or iptables.

It adds and removes rules of its own only.

One file, two lives: the Ansible module ``site.appliance.firewall`` imports it, and role ``firewall`` installs it as
``/usr/local/lib/appliance/firewall``, which puts the rules back at boot and after a reload of nftables. Hence standard
library only, Python 3.9, and no import of Ansible.

The shape is *plan, apply, plan again*: a plan is computed from what the firewall says of itself, an empty plan means
that all is there, and after applying it the next plan has to be empty.

Usage as a command: ``firewall apply|remove|check``; it reads ``/etc/appliance/firewall.json``.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Optional

RULES_FILE = "/etc/appliance/firewall.json"
MARK = "appliance"
#: Names of our own chains by hook. iptables' are upper case, as its users expect.
NFT_CHAINS = {"input": "appliance_input", "forward": "appliance_forward"}
IPT_CHAINS = {"input": "APPLIANCE-INPUT", "forward": "APPLIANCE-FORWARD"}
#: Firewalld directories, relative to the root of the tree, with the beginning of the names of our files there.
FIREWALLD_IPSETS = "etc/firewalld/ipsets"
FIREWALLD_POLICIES = "etc/firewalld/policies"

#: Runs a command with text on its standard input; returns exit code, standard output, standard error.
Run = Callable[[list[str], str], tuple[int, str, str]]
Rules = Mapping[str, Any]


class FirewallError(Exception):
    """The firewall refused, or is in a state in which adding rules would do harm."""


@dataclass
class Step:
    """One thing to do: a command with its input, or a file to write (``text``) or to delete (``text`` is None)."""

    argv: list[str] = field(default_factory=list)
    stdin: str = ""
    path: str = ""
    text: Optional[str] = None


@dataclass
class Plan:
    """What has to be done for the rules to be there (or gone), and the rules before and after, for people."""

    backend: str
    steps: list[Step] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


# --- rules -----------------------------------------------------------------------------------------------------------


def split_families(sources: Iterable[str]) -> dict[str, list[str]]:
    """Sort addresses and networks into ``ip`` and ``ip6``; single hosts are written without a prefix length."""
    families: dict[str, list[str]] = {"ip": [], "ip6": []}
    networks = [ipaddress.ip_network(source, strict=False) for source in sources]
    for network in dict.fromkeys(networks):
        # nft refuses a set whose members overlap, so what lies within another network is left out.
        if any(other != network and _within(network, other) for other in networks):
            continue
        text = str(network.network_address) if network.num_addresses == 1 else str(network)
        families["ip" if network.version == 4 else "ip6"].append(text)
    return families


def _within(network: Any, other: Any) -> bool:
    return bool(network.version == other.version and network.subnet_of(other))


def port_order(port: str) -> tuple[int, int]:
    """Sort ports and ranges (``2379-2380``) by number."""
    first, _, last = port.partition("-")
    return int(first), int(last or first)


def tag(text: str) -> str:
    """Return the comment that a rule of ours carries: it names the rule's own text, so that a changed rule shows."""
    return f"{MARK}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


# --- nftables --------------------------------------------------------------------------------------------------------


def nft_lines(rules: Rules, hook: str, family: str) -> list[str]:
    """Return the rules of our chain for a hook (``input``, ``forward``) in a table of a family, without comments."""
    kinds = ("ip", "ip6") if family == "inet" else (family,)
    lines = []

    def of(sources: Iterable[str], direction: str) -> list[str]:
        split = split_families(sources)
        return [f"{kind} {direction} {{ {', '.join(split[kind])} }}" for kind in kinds if split[kind]]

    closed = f"tcp dport {{ {', '.join(rules.get('closed', ()))} }} drop" if rules.get("closed") else ""
    if hook == "forward":
        if closed:
            nodes = {match.partition(" ")[0]: match for match in of(rules["nodes"], "daddr")}
            pods = [(match.partition(" ")[0], match) for match in of(rules["forward"], "saddr")]
            lines += [f"{match} {nodes[kind]} {closed}" for kind, match in pods if kind in nodes]
        lines += [f"{match} accept" for match in of(rules["forward"], "saddr")]
        lines += [f"{match} accept" for match in of(rules["forward"], "daddr")]
        return lines
    if rules["guarded"]:
        lines += [
            f"{match} udp dport {{ {', '.join(rules['guarded'])} }} drop" for match in of(rules["trusted"], "saddr")
        ]
    if closed:
        lines += [f"{match} {closed}" for match in of(rules["trusted"], "saddr")]
    lines += [f"{match} accept" for match in of(rules["trusted"], "saddr")]
    for rule in rules["input"]:
        match = f"{rule['proto']} dport {{ {', '.join(rule['ports'])} }} accept"
        if rule["sources"]:
            lines += [f"{source} {match}" for source in of(rule["sources"], "saddr")]
        else:
            lines.append(match)
    return lines


@dataclass
class Chain:
    """A chain of the live ruleset with its rules, in order."""

    family: str
    table: str
    name: str
    hook: str = ""
    policy: str = ""
    kind: str = ""
    rules: list[dict[str, Any]] = field(default_factory=list)

    @property
    def where(self) -> str:
        """The chain's place as nft writes it."""
        return f"{self.family} {self.table} {self.name}"


def parse_ruleset(text: str) -> dict[tuple[str, str, str], Chain]:
    """Read what ``nft -j list ruleset`` printed: chains by family, table and name."""
    chains: dict[tuple[str, str, str], Chain] = {}
    for entry in json.loads(text or "{}").get("nftables", []):
        if "chain" in entry:
            chain = entry["chain"]
            key = (chain["family"], chain["table"], chain["name"])
            chains[key] = Chain(*key, chain.get("hook", ""), chain.get("policy", ""), chain.get("type", ""))
        elif "rule" in entry:
            rule = entry["rule"]
            owner = chains.get((rule["family"], rule["table"], rule["chain"]))
            if owner:
                owner.rules.append(rule)
    return chains


def closes(chain: Chain, chains: Mapping[tuple[str, str, str], Chain], seen: tuple[str, ...] = ()) -> bool:
    """Say whether a chain ends by refusing what no rule accepted: by policy, or by a last rule without a condition."""
    if chain.policy == "drop":
        return True
    for rule in chain.rules:
        expressions = [item for item in rule.get("expr", []) if not set(item) & {"counter", "log", "comment"}]
        if len(expressions) != 1:
            continue  # It has a condition; what it does is for some packets only.
        verdict = expressions[0]
        if "drop" in verdict or "reject" in verdict:
            return True
        if "accept" in verdict or "return" in verdict:
            return False
        for how in ("jump", "goto"):
            if how in verdict:
                name = verdict[how]["target"]
                target = chains.get((chain.family, chain.table, name))
                if target and name not in seen and closes(target, chains, (*seen, name)):
                    return True
    return False


def nft_targets(chains: Mapping[tuple[str, str, str], Chain]) -> list[Chain]:
    """Return the base chains that our chains have to be jumped to from.

    An accept in a table of one's own does not undo another table's drop, so the rules go to where the drop is.
    Firewalld's table is firewalld's; the tables that iptables manages take only what
    iptables understands, see :func:`ipt_managed`.
    """
    found = []
    for chain in chains.values():
        if chain.kind != "filter" or chain.hook not in NFT_CHAINS or chain.family not in ("inet", "ip", "ip6"):
            continue
        if chain.table == "firewalld" or ipt_managed(chain):
            continue
        ours = (chain.family, chain.table, NFT_CHAINS[chain.hook])
        if ours in chains or closes(chain, chains):
            found.append(chain)
    return found


def ipt_managed(chain: Chain) -> bool:
    """Say whether a base chain is one that iptables (in its nft form) made."""
    return chain.family in ("ip", "ip6") and chain.table == "filter" and chain.name in ("INPUT", "FORWARD")


def jumps_to(rule: Mapping[str, Any], name: str) -> bool:
    """Say whether a rule jumps to the chain of that name."""
    return any(item.get("jump", {}).get("target") == name for item in rule.get("expr", []) if isinstance(item, dict))


def comes_in_time(chain: Chain, own: str, chains: Mapping[tuple[str, str, str], Chain]) -> bool:
    """Say whether our jump stands before everything in a base chain that refuses.

    It need not stay first: others (kube-router, fail2ban) put their own jumps first again and again.
    """
    for rule in chain.rules:
        if jumps_to(rule, own):
            return True
        for item in rule.get("expr", []):
            target = (item.get("jump") or item.get("goto") or {}).get("target")
            other = chains.get((chain.family, chain.table, str(target)))
            if "drop" in item or "reject" in item or (other and closes(other, chains)):
                return False
    return False


def nft_plan(rules: Optional[Rules], chains: Mapping[tuple[str, str, str], Chain]) -> Plan:
    """Plan our chains in every table that refuses something; without rules, plan their removal.

    The jump is put first in the base chain, so that no refusal of the table's own is met before it. All goes in
    one transaction: there is no moment without the rules.
    """
    plan = Plan("nftables")
    script: list[str] = []
    for chain in nft_targets(chains):
        own = NFT_CHAINS[chain.hook]
        place = f"{chain.family} {chain.table}"
        live = chains.get((chain.family, chain.table, own))
        live_tags = [str(rule.get("comment", "")) for rule in live.rules] if live else []
        handles = [rule["handle"] for rule in chain.rules if jumps_to(rule, own)]
        lines = nft_lines(rules, chain.hook, chain.family) if rules is not None else []
        tags = [tag(line) for line in lines]
        words = dict(zip(tags, lines))  # noqa: B905 - strict= is Python 3.10
        plan.before += [f"{place} {own}: {words.get(name, name)}" for name in live_tags]
        if rules is None:
            script += [f"delete rule {chain.where} handle {handle}" for handle in handles]
            if live:
                script += [f"flush chain {place} {own}", f"delete chain {place} {own}"]
            continue
        plan.after += [f"{place} {own}: {line}" for line in lines]
        if live_tags != tags or not live:
            script += [f"add chain {place} {own}", f"flush chain {place} {own}"]
            script += [f'add rule {place} {own} {line} comment "{name}"' for line, name in zip(lines, tags)]  # noqa: B905 - strict= is Python 3.10
        if len(handles) != 1 or not comes_in_time(chain, own, chains):
            script += [f"delete rule {chain.where} handle {handle}" for handle in handles]
            script.append(f'insert rule {chain.where} jump {own} comment "{MARK}"')
    if script:
        plan.steps.append(Step(["nft", "-f", "-"], "\n".join(script) + "\n"))
    return plan


# --- iptables --------------------------------------------------------------------------------------------------------


def ipt_closes(saved: str, chain: str) -> bool:
    """Say whether ``iptables -S`` shows a base chain that refuses by policy or by an unconditional rule."""
    for line in saved.splitlines():
        if line == f"-P {chain} DROP":
            return True
        if re.fullmatch(
            rf"-A {chain} (-m comment --comment (\"[^\"]*\"|\S+) )?-j (DROP|REJECT)( --reject-with \S+)?",
            line,
        ):
            return True
    return False


def ipt_lines(rules: Rules, hook: str, family: str) -> list[str]:
    """Return our chain's rules as iptables-restore takes them, without comments; ``family`` is ``ip`` or ``ip6``."""
    accept = " -j ACCEPT"
    if hook == "forward":
        networks = split_families(rules["forward"])[family]
        lines = [
            f"-s {network} -d {node} -p tcp --dport {port} -j DROP"
            for port in rules.get("closed", ())
            for network in networks
            for node in split_families(rules["nodes"])[family]
        ]
        lines += [f"-s {network}{accept}" for network in networks]
        return lines + [f"-d {network}{accept}" for network in networks]
    trusted = split_families(rules["trusted"])[family]
    lines = [
        f"-s {network} -p udp --dport {port.replace('-', ':')} -j DROP"
        for network in trusted
        for port in rules["guarded"]
    ]
    lines += [f"-s {network} -p tcp --dport {port} -j DROP" for network in trusted for port in rules.get("closed", ())]
    lines += [f"-s {network}{accept}" for network in trusted]
    for rule in rules["input"]:
        sources = [f"-s {source} " for source in split_families(rule["sources"])[family]] if rule["sources"] else [""]
        for port in rule["ports"]:
            lines += [f"{source}-p {rule['proto']} --dport {port.replace('-', ':')}{accept}" for source in sources]
    return lines


def ipt_plan(rules: Optional[Rules], saved: Mapping[str, str]) -> Plan:
    """Plan our chains in iptables' filter tables.

    :param rules: the rules, or None to remove ours.
    :param saved: what ``iptables -S`` and ``ip6tables -S`` printed, by family (``ip``, ``ip6``).
    """
    plan = Plan("iptables")
    for family, text in saved.items():
        restore: list[str] = []
        for hook, own in IPT_CHAINS.items():
            base = hook.upper()
            is_there = f"-N {own}" in text.splitlines()
            if not is_there and not ipt_closes(text, base):
                continue
            live = re.findall(rf"^-A {own} .*--comment \"?({MARK}:[0-9a-f]+)", text, re.MULTILINE)
            jumps = [
                line for line in text.splitlines() if line.startswith(f"-A {base} ") and line.endswith(f"-j {own}")
            ]
            in_base = [line for line in text.splitlines() if line.startswith(f"-A {base} ")]
            lines = ipt_lines(rules, hook, family) if rules is not None else []
            tags = [tag(line) for line in lines]
            words = dict(zip(tags, lines))  # noqa: B905 - strict= is Python 3.10
            plan.before += [f"{family} {own}: {words.get(name, name)}" for name in live]
            if rules is None:
                restore += [line.replace("-A", "-D", 1) for line in jumps]
                restore += [f"-F {own}", f"-X {own}"] if is_there else []
                continue
            plan.after += [f"{family} {own}: {line}" for line in lines]
            if live != tags or not is_there:
                restore.append(f":{own} - [0:0]")
                restore += [
                    f"-A {own} -m comment --comment {name} {line}"
                    for line, name in zip(lines, tags)  # noqa: B905 - strict= is Python 3.10
                ]
            others = [line for line in in_base if line not in jumps]
            first_refusal = next(
                (number for number, line in enumerate(others, 1) if re.search(r" -j (DROP|REJECT)\b", line)),
                0,
            )
            place = in_base.index(jumps[0]) + 1 if len(jumps) == 1 else 0
            if not place or (first_refusal and place > first_refusal):
                restore += [line.replace("-A", "-D", 1) for line in jumps]
                # Right before the first refusal: what others put first (kube-router's network policies) stays first.
                where = f"-I {base} {first_refusal}" if first_refusal else f"-A {base}"
                restore.append(f"{where} -m comment --comment {MARK} -j {own}")
        if restore:
            # Declaring a chain there empties it; everything else of the table stays, by --noflush.
            restore.sort(key=lambda line: not line.startswith(":"))
            command = "iptables-restore" if family == "ip" else "ip6tables-restore"
            stdin = "\n".join(["*filter", *restore, "COMMIT"]) + "\n"
            plan.steps.append(Step([command, "--wait", "5", "--noflush"], stdin))
    return plan


# --- firewalld -------------------------------------------------------------------------------------------------------


def firewalld_files(rules: Rules) -> dict[str, str]:
    """Return our firewalld files, by path below the root: sets of sources, a policy towards the host and one for pods.

    Policies of our own, tried before the zones (negative priority), leave every zone as it is: nothing that the site
    allowed or bound to a zone changes. Firewalld has policies since 0.9.
    """
    files: dict[str, str] = {}
    host: list[str] = []
    for network_family, family in (("ip", "ipv4"), ("ip6", "ipv6")):
        for network in split_families(rules["trusted"])[network_family]:
            # Of one priority, firewalld puts what drops before what accepts.
            host += [
                f'<rule family="{family}"><source address="{network}"/><port port="{port}" protocol="{proto}"/><drop/></rule>'
                for proto, ports in (("udp", rules["guarded"]), ("tcp", rules.get("closed", ())))
                for port in ports
            ]
            host.append(f'<rule family="{family}"><source address="{network}"/><accept/></rule>')
    for rule in rules["input"]:
        if not rule["sources"]:
            host += [f'<port port="{port}" protocol="{rule["proto"]}"/>' for port in rule["ports"]]
            continue
        for (network_family, members), family in zip(  # noqa: B905 - strict= is Python 3.10
            split_families(rule["sources"]).items(), ("ipv4", "ipv6")
        ):
            if not members:
                continue
            name = f"{MARK}-{rule['name']}" + ("6" if network_family == "ip6" else "")
            files[f"{FIREWALLD_IPSETS}/{name}.xml"] = _ipset_xml(family, members)
            host += [
                f'<rule family="{family}"><source ipset="{name}"/>'
                f'<port port="{port}" protocol="{rule["proto"]}"/><accept/></rule>'
                for port in rule["ports"]
            ]
    forward: list[str] = []
    for network_family, family in (("ip", "ipv4"), ("ip6", "ipv6")):
        for network in split_families(rules["forward"])[network_family]:
            forward += [
                f'<rule family="{family}"><source address="{network}"/><destination address="{node}"/>'
                f'<port port="{port}" protocol="tcp"/><drop/></rule>'
                for port in rules.get("closed", ())
                for node in split_families(rules["nodes"])[network_family]
            ]
            for end in ("source", "destination"):
                forward.append(f'<rule family="{family}"><{end} address="{network}"/><accept/></rule>')
    files[f"{FIREWALLD_POLICIES}/{MARK}-host.xml"] = _policy_xml("HOST", "Ports of the appliance and K3s", host)
    files[f"{FIREWALLD_POLICIES}/{MARK}-pods.xml"] = _policy_xml("ANY", "Traffic of pods", forward)
    return files


def _ipset_xml(family: str, members: list[str]) -> str:
    option = '  <option name="family" value="inet6"/>\n' if family == "ipv6" else ""
    entries = "".join(f"  <entry>{member}</entry>\n" for member in members)
    return f'<?xml version="1.0" encoding="utf-8"?>\n<ipset type="hash:net">\n{option}{entries}</ipset>\n'


def _policy_xml(egress: str, short: str, lines: list[str]) -> str:
    body = "".join(f"  {line}\n" for line in lines)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<policy priority="-10" target="CONTINUE">\n'
        f"  <short>{short}</short>\n  <description>Written by the appliance (role firewall).</description>\n"
        f'  <ingress-zone name="ANY"/>\n  <egress-zone name="{egress}"/>\n{body}</policy>\n'
    )


def firewalld_plan(rules: Optional[Rules], files: Mapping[str, str], runtime: Iterable[str]) -> Plan:
    """Plan our files and one reload where they, or what firewalld holds, differ.

    :param rules: the rules, or None to remove ours.
    :param files: our files that are there now, path below the root to text.
    :param runtime: names of the policies that firewalld holds.
    """
    plan = Plan("firewalld")
    wanted = firewalld_files(rules) if rules is not None else {}
    for path, text in files.items():
        plan.before += [f"{path}: {line.strip()}" for line in text.splitlines()]
    for path, text in wanted.items():
        plan.after += [f"{path}: {line.strip()}" for line in text.splitlines()]
        if files.get(path) != text:
            plan.steps.append(Step(path=path, text=text))
    plan.steps += [Step(path=path) for path in files if path not in wanted]
    ours = {f"{MARK}-host", f"{MARK}-pods"}
    held = ours & set(runtime)
    if plan.steps or (held != ours if rules is not None else held):
        plan.steps.append(Step(["firewall-cmd", "--check-config"]))
        plan.steps.append(Step(["firewall-cmd", "--reload"]))
    return plan


# --- ufw -------------------------------------------------------------------------------------------------------------


def ufw_rules(rules: Rules) -> list[list[str]]:
    """Return our rules as the arguments that follow ``ufw``, one address each, without the comment."""
    wanted = []
    for network in rules["trusted"]:
        for port in rules["guarded"]:
            wanted.append(["deny", "from", _bare(network), "to", "any", "port", port.replace("-", ":"), "proto", "udp"])
        for port in rules.get("closed", ()):
            wanted.append(["deny", "from", _bare(network), "to", "any", "port", port, "proto", "tcp"])
        wanted.append(["allow", "from", _bare(network)])
    for rule in rules["input"]:
        ports = ",".join(sorted((port.replace("-", ":") for port in rule["ports"]), key=_ufw_port_order))
        for source in rule["sources"] or ["any"]:
            wanted.append(["allow", "from", _bare(source), "to", "any", "port", ports, "proto", rule["proto"]])
    for network in rules["forward"]:
        family = "ip6" if ":" in network else "ip"
        wanted += [
            ["route", "deny", "from", _bare(network), "to", node, "port", port, "proto", "tcp"]
            for port in rules.get("closed", ())
            for node in split_families(rules["nodes"])[family]
        ]
        wanted.append(["route", "allow", "from", _bare(network)])
        wanted.append(["route", "allow", "to", _bare(network)])
    return wanted


def _ufw_port_order(port: str) -> int:
    return int(port.partition(":")[0])


def _bare(source: str) -> str:
    if source == "any":
        return source
    families = split_families([source])
    return (families["ip"] or families["ip6"])[0]


def ufw_key(words: list[str]) -> tuple[str, ...]:
    """Return what a ufw rule means, whichever way it is written: chain, action, from, to, ports, protocol.

    ``allow 80/tcp`` is the short form of ``allow from any to any port 80 proto tcp``, and ``ufw show added`` prints it.
    """
    chain, fields = "in", {"from": "any", "to": "any", "port": "any", "proto": "any"}
    rest = list(words)
    if rest and rest[0] == "route":
        chain, rest = "route", rest[1:]
    action, rest = rest[0], rest[1:]
    while rest:
        if rest[0] == "comment":
            rest = rest[2:]
        elif rest[0] in fields and len(rest) > 1:
            fields[rest[0]] = rest[1]
            rest = rest[2:]
        elif rest[0] == "in" and len(rest) == 1:
            rest = []
        else:
            fields["port"], _, proto = rest[0].partition("/")
            fields["proto"] = proto or "any"
            rest = rest[1:]
    return (chain, action, fields["from"], fields["to"], fields["port"], fields["proto"])


def ufw_plan(rules: Optional[Rules], added: str) -> Plan:
    """Plan the ufw rules that are missing, and the removal of those of ours that are not wanted any more.

    :param rules: the rules, or None to remove ours.
    :param added: what ``ufw show added`` printed; ours carry the comment ``appliance``.
    """
    plan = Plan("ufw")
    live: dict[tuple[str, ...], list[str]] = {}
    for line in added.splitlines():
        words = shlex.split(line) if line.startswith("ufw ") else []
        if words[-2:] == ["comment", MARK]:
            live[ufw_key(words[1:-2])] = words[1:-2]
    wanted = {ufw_key(words): words for words in (ufw_rules(rules) if rules is not None else [])}
    plan.before = [" ".join(words) for words in live.values()]
    plan.after = [" ".join(words) for words in wanted.values()]
    for key, words in wanted.items():
        if key not in live:
            # Ufw takes the first rule that fits, and an allow of ours may be there already.
            action = 1 if words[0] == "route" else 0
            first = ["prepend"] if words[action] == "deny" else []
            plan.steps.append(Step(["ufw", *words[:action], *first, *words[action:], "comment", MARK]))
    for key, words in live.items():
        if key not in wanted:
            route = words[:1] if words[0] == "route" else []
            plan.steps.append(Step(["ufw", *route, "delete", *words[len(route) :]]))
    return plan


# --- the host --------------------------------------------------------------------------------------------------------


def run_command(argv: list[str], stdin: str = "") -> tuple[int, str, str]:
    """Run a command without a shell; a missing program is exit code 127, as in a shell."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, env=environment)
    except FileNotFoundError:
        return 127, "", f"{argv[0]}: not found"
    return done.returncode, done.stdout, done.stderr


def detect(run: Run, root: Path = Path("/")) -> str:
    """Say which firewall the host has: ``firewalld``, ``ufw``, ``nftables``, ``iptables`` or ``none``.

    Firewalld and ufw are asked first: both keep their rules in nftables or iptables and undo what others add there.
    """
    if run(["firewall-cmd", "--state"], "")[0] == 0:
        return "firewalld"
    code, out, _ = run(["ufw", "status"], "")
    if code == 0 and out.startswith("Status: active"):
        return "ufw"
    chains = _ruleset(run)
    if nft_targets(chains):
        return "nftables"
    if any(_ipt_saved(run, chains, root).values()):
        return "iptables"
    return "none"


def _ruleset(run: Run) -> dict[tuple[str, str, str], Chain]:
    code, out, err = run(["nft", "-j", "list", "ruleset"], "")
    if code == 127:
        return {}
    if code != 0:
        raise FirewallError(f"nft -j list ruleset: {err.strip()}")
    return parse_ruleset(out)


def _ipt_saved(run: Run, chains: Mapping[tuple[str, str, str], Chain], root: Path) -> dict[str, str]:
    """Return ``iptables -S`` by family where it refuses something or has our chains.

    It is asked only where a filter table is there already: asking the older iptables would make one.
    """
    saved = {}
    for family, command, names in (
        ("ip", "iptables", "ip_tables_names"),
        ("ip6", "ip6tables", "ip6_tables_names"),
    ):
        has_nft = any(key[:2] == (family, "filter") and key[2] in ("INPUT", "FORWARD") for key in chains)
        try:
            has_old = "filter" in (root / "proc/net" / names).read_text(encoding="utf-8").split()
        except OSError:
            has_old = False
        if not has_nft and not has_old:
            continue
        code, out, _ = run([command, "-S"], "")
        if code == 0 and (
            any(ipt_closes(out, base) for base in ("INPUT", "FORWARD"))
            or any(f"-N {own}" in out.splitlines() for own in IPT_CHAINS.values())
        ):
            saved[family] = out
    return saved


def _firewalld_files_now(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text(encoding="utf-8")
        for folder in (FIREWALLD_IPSETS, FIREWALLD_POLICIES)
        for path in sorted((root / folder).glob(f"{MARK}-*.xml"))
    }


def _firewalld_now(run: Run, root: Path) -> tuple[dict[str, str], list[str]]:
    files = _firewalld_files_now(root)
    code, out, _ = run(["firewall-cmd", "--get-policies"], "")
    if code != 0:
        raise FirewallError("this firewalld has no policies: it is older than 0.9")
    return files, out.split()


def unsaved_firewalld(run: Run) -> list[str]:
    """Name the active zones whose running services, ports or rich rules are not saved: a reload would lose them."""
    unsaved = []
    _, out, _ = run(["firewall-cmd", "--get-active-zones"], "")
    for zone in (line.split()[0] for line in out.splitlines() if line and not line[0].isspace()):
        for what in ("--list-services", "--list-ports", "--list-rich-rules"):
            _, live, _ = run(["firewall-cmd", f"--zone={zone}", what], "")
            code, saved, _ = run(["firewall-cmd", "--permanent", f"--zone={zone}", what], "")
            if code == 0 and set(live.split()) - set(saved.split()):
                unsaved.append(zone)
                break
    return unsaved


def make_plan(rules: Optional[Rules], run: Run = run_command, root: Path = Path("/"), backend: str = "auto") -> Plan:
    """Plan what has to be done on this host.

    :param rules: ``input`` (list of ``name``, ``proto``, ``ports``, ``sources``; no sources means anybody),
        ``trusted`` and ``forward`` (networks), ``guarded`` and ``closed`` (UDP and TCP ports that are closed to the
        trusted networks), ``nodes`` (addresses to which ``closed`` is not forwarded either); None plans the removal of ours.
    :param run: runs commands.
    :param root: the tree that holds /etc and /proc.
    :param backend: ``auto`` or what :func:`detect` may return.
    :raises FirewallError: where the firewall cannot be read.
    """
    if rules is None and backend == "auto":
        return _removal(run, root)
    backend = detect(run, root) if backend == "auto" else backend
    if backend == "firewalld":
        return firewalld_plan(rules, *_firewalld_now(run, root))
    if backend == "ufw":
        code, out, err = run(["ufw", "show", "added"], "")
        if code != 0:
            raise FirewallError(f"ufw show added: {err.strip()}")
        return ufw_plan(rules, out)
    if backend in ("nftables", "iptables"):
        chains = _ruleset(run)
        plan = nft_plan(rules, chains)
        other = ipt_plan(rules, _ipt_saved(run, chains, root))
        return Plan(backend, plan.steps + other.steps, plan.before + other.before, plan.after + other.after)
    return Plan("none")


def _removal(run: Run, root: Path) -> Plan:
    """Plan the removal of ours wherever it is: a firewall that was switched off since keeps the rules in its files."""
    plans = []
    files = _firewalld_files_now(root)
    code, policies, _ = run(["firewall-cmd", "--get-policies"], "")
    if code == 0:
        plans.append(firewalld_plan(None, files, policies.split()))
    elif files:
        lines = [f"{path}: {line.strip()}" for path, text in files.items() for line in text.splitlines()]
        plans.append(Plan("firewalld", [Step(path=path) for path in files], lines))
    code, added, _ = run(["ufw", "show", "added"], "")
    if code == 0:
        plans.append(ufw_plan(None, added))
    chains = _ruleset(run)
    plans += [nft_plan(None, chains), ipt_plan(None, _ipt_saved(run, chains, root))]
    plans = [plan for plan in plans if plan.steps]
    return Plan(
        ", ".join(plan.backend for plan in plans) or "none",
        [step for plan in plans for step in plan.steps],
        [line for plan in plans for line in plan.before],
    )


def apply_plan(plan: Plan, run: Run = run_command, root: Path = Path("/")) -> None:
    """Do what a plan says; where firewalld does not like the files, put the old ones back.

    :raises FirewallError: where a command fails, or where a reload would lose what somebody added to firewalld by hand.
    """
    if any(step.argv[:2] == ["firewall-cmd", "--reload"] for step in plan.steps):
        unsaved = unsaved_firewalld(run)
        if unsaved:
            raise FirewallError(
                f"firewalld's zone(s) {', '.join(unsaved)} have rules that are not saved, and the reload that is needed"
                " would lose them; keep them by `firewall-cmd --runtime-to-permanent` or drop them by `firewall-cmd --reload`"
            )
    undo: list[tuple[Path, Optional[str]]] = []
    for step in plan.steps:
        if step.path:
            path = root / step.path
            undo.append((path, path.read_text(encoding="utf-8") if path.exists() else None))
            _put(path, step.text)
            continue
        code, out, err = run(step.argv, step.stdin)
        if code != 0:
            for path, text in reversed(undo):
                _put(path, text)
            detail = (err.strip() or out.strip() or f"exit code {code}").splitlines()
            raise FirewallError(f"{' '.join(step.argv)}: {' '.join(detail[-3:])}")


def _put(path: Path, text: Optional[str]) -> None:
    if text is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o644)
    temporary.replace(path)


def main(arguments: list[str]) -> int:
    """Run as a command: 0 done or nothing to do, 1 failed or (``check``) rules missing, 2 wrong usage."""
    if len(arguments) != 1 or arguments[0] not in ("apply", "remove", "check"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        text = Path(RULES_FILE).read_text(encoding="utf-8")
        rules = None if arguments[0] == "remove" else json.loads(text)
        plan = make_plan(rules)
        if arguments[0] == "check":
            print(f"{plan.backend}: {'rules are missing' if plan.steps else 'all rules are there'}")
            return 1 if plan.steps else 0
        apply_plan(plan)
        if make_plan(rules, backend=plan.backend).steps:
            raise FirewallError("the rules are not there after they were added")
    except (FirewallError, OSError, ValueError) as error:
        print(f"APL-0751: the firewall's rules could not be set: {error}", file=sys.stderr)
        return 1
    print(f"{plan.backend}: {'changed' if plan.steps else 'nothing to do'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
