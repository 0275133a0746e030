"""Commands ``fsck`` and ``status``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.common import CONFIG, JSON, STORE, agent_down, open_store, show
from appliance.config import DEFAULT_PATH, load
from appliance.errors import ApplianceError, make_error
from appliance.sizes import size_words
from appliance.words import one_line, quoted

if TYPE_CHECKING:
    from appliance.agent.client import AgentClient
    from appliance.config import Config
    from appliance.store.fsck import Report
    from appliance.store.store import Store


@click.command()
@STORE
@CONFIG
@JSON
@click.option(
    "--repair",
    is_flag=True,
    help="Move damaged blobs to quarantine/, so that none is served, heal the other files, and let the agent fetch what is "
    "damaged, and what is missing of the generations that are kept, from other nodes now.",
)
def fsck(directory: Path, config_file: Path | None, as_json: bool, repair: bool) -> None:
    """Check the store: hash every blob, read every other file, and check that every name can be served."""
    from appliance.archives.sandbox import drop_privileges
    from appliance.store.fsck import check
    from appliance.store.quarantine import verify_or_quarantine

    store = open_store(directory, config_file)
    store.blobs.require()
    if repair:
        # What is written belongs to the services; and nothing is hashed for hours where nothing can be written.
        drop_privileges(directory)
        store.blobs.require_writable()
    report = check(store)
    repaired: dict[str, Any] | None = None
    shown = report.as_dict()
    if repair:
        for digest in report.damaged:
            verify_or_quarantine(store.blobs, digest, None, suspect=True)
        repaired = _fetch_now(store)
        shown["damage"] = _heal(store, report, repaired)
        report.look_at_quarantine(store.blobs)
        shown["quarantined"] = report.quarantined
    shown["back"] = repaired["back"] if repaired else []
    shown["not_fetched"] = repaired["missing"] if repaired else {}
    shown["lost"] = repaired["lost"] if repaired else _lost(store, report)
    show(shown, as_json, lambda shown: "\n".join(_fsck_lines(report, shown)))
    if report.problems or shown["not_fetched"]:
        sys.exit(1)


@click.command()
@CONFIG
@JSON
def status(config_file: Path | None, as_json: bool) -> None:
    """Show what this node serves, what it still lacks, and which peers answer."""
    from appliance.agent.client import AgentClient, AgentDown

    config = load(config_file or DEFAULT_PATH)
    try:
        shown = AgentClient(config.agent_socket).status()
    except AgentDown as error:
        agent_down(config, error)
    shown["foreign_listeners"] = _foreign(config)
    show(shown, as_json, _status_text)


COMMANDS = (fsck, status)


_ASKS = {
    "mirror": "containerd in place of the mirror",
    "peer": "other nodes in place of the peer service",
}


def _foreign(config: Config) -> list[dict[str, Any]]:
    """Return the processes that listen in place of the mirror or of the peer service, each with ``service`` and ``words``."""
    from appliance.listeners import foreign

    try:
        owner = config.store.stat().st_uid
    except OSError:
        return []
    services = {"mirror": config.mirror_listen} | ({"peer": config.peer_listen} if config.peers else {})
    return [
        asdict(item) | {"service": service, "words": item.words()}
        for service, listen in services.items()
        for item in foreign(listen, owner, f"appliance-{service}.service")
    ]


def _agent(store: Store) -> AgentClient | None:
    """The agent that serves this store, where it is a node's; ``appliance serve`` has its socket beside it."""
    from appliance.agent.client import AgentClient

    beside = store.blobs.root / "agent.sock"
    if beside.exists():
        return AgentClient(beside)
    return AgentClient(store.config.agent_socket) if store.config.peers else None


def _fetch_now(store: Store) -> dict[str, Any] | None:
    """Let the agent bring back what is missing; None where there is none, or it does not answer."""
    from appliance.agent.client import AgentDown, AgentRefused
    from appliance.errors import fail

    agent = _agent(store)
    if agent is None:
        return None
    try:
        return agent.repair()
    except AgentRefused as error:
        fail(
            "APL-0357",
            "the agent could not repair the store",
            where=store.config.node,
            why=str(error),
            fix="See 'journalctl -u appliance-agent', then run the same again",
        )
    except AgentDown as error:
        click.echo(f"note: {one_line(error)}; what is missing is fetched once the agent runs", err=True)
        return None


def _heal(store: Store, report: Report, repaired: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Say of each file that was damaged whether it is healed; without an agent, heal what this node can by itself."""
    from appliance.store.fsck import look
    from appliance.store.healing import heal

    how = {(item["kind"], item["path"]): item["how"] for item in (repaired or {}).get("damage", ())}
    if repaired is None:
        for fault in report.faults:
            try:
                how[fault.key] = heal(store, fault, is_alone=not store.config.others) or ""
            except (ApplianceError, OSError) as error:
                how[fault.key] = f"not healed: {error}"
    left = {fault.key for fault in look(store)} if report.faults else set()
    return [
        item | {"healed": fault.key not in left, "how": how.get(fault.key, "")}
        for fault, item in zip(report.faults, report.as_dict()["damage"], strict=True)
    ]


def _lost(store: Store, report: Report) -> list[dict[str, Any]]:
    """Return the blobs that the site has lost, from the agent; without an agent, the blobs that this store lacks."""
    from appliance.agent.client import AgentDown
    from appliance.store.impact import blame

    agent = _agent(store)
    if agent is None:
        gone = {*report.missing, *report.damaged, *report.quarantined}
        found = blame(gone, store) if gone else {}
        return [lost.as_dict() for lost in found.values()]
    try:
        lost: list[dict[str, Any]] = agent.status()["health"]["lost"]
    except AgentDown:
        return []
    return lost


def _fsck_lines(report: Report, shown: dict[str, Any]) -> list[str]:
    lines = [*shown["problems"], *shown["remarks"]]
    lines += [_damage_text(item) for item in shown["damage"] if "healed" in item]
    if any("healed" not in item for item in shown["damage"]):
        lines.append("'appliance fsck --repair' heals what can be healed; so does the agent within a minute")
    lines += [f"{digest} is back" for digest in shown["back"]]
    lines += [f"{digest} could not be fetched: {reason}" for digest, reason in shown["not_fetched"].items()]
    lines += [_lost_text(item) for item in shown["lost"]]
    if report.quarantined:
        lines.append(f"in quarantine and not fetched again yet: {' '.join(report.quarantined)}")
    elif report.damaged and not shown["back"]:
        lines.append("'appliance fsck --repair' takes what is damaged out; the agent then fetches it from another node")
    lines.append(f"{report.blobs} blobs, {size_words(report.size)}, {len(report.problems)} problems")
    return lines


def _damage_text(item: dict[str, Any]) -> str:
    since = f" (since {item['since']})" if "since" in item else ""
    if item["healed"]:
        return f"{item['path']} was damaged and is healed{since}: {item['how'] or 'it is back'}"
    how = f"; {item['how']}" if item["how"] else ""
    return f"{item['path']} is damaged{since}: {item['why']}; {item['lost']}{how}. {item['fix']}".rstrip(" .")


def _lost_text(item: dict[str, Any]) -> str:
    from appliance.store.impact import Lost

    lost = Lost(item["digest"], tuple(item["images"]), item["medium"])
    return f"{lost.digest} is lost: {lost.words()}"


def _status_text(shown: dict[str, Any]) -> str:
    generation = shown["generation"]
    lines = [
        f"node {shown['node']} (publisher: {shown['publisher']})",
        f"generation {generation['number']} {generation['digest']}" if generation else "no generation yet",
        f"{shown['names']} names and {shown['pushed_names']} pushed ones, {shown['blobs_held']} blobs here, {shown['wanted_missing']} still to fetch",
    ]
    lines += [
        f"peer {peer['id']} ({peer['address']}): {peer['state']}, generation {peer['generation']}"
        for peer in shown["peers"]
    ]
    lines += [
        f"APL-0917: another process answers {_ASKS[item['service']]}: {item['words']}. Stop it, then: systemctl restart appliance-{item['service']}"
        for item in shown["foreign_listeners"]
    ]
    # An agent of the release before, in the moment in which this one replaces it, says neither.
    lines += _room_lines(shown["room"]) if "room" in shown else []
    lines += _health_lines(shown["health"]) if "health" in shown else []
    standing = shown["standing"]
    if shown["node"] == shown["publisher"] and not standing["settled"]:
        waits = f"; no answer from {', '.join(standing['silent'])}" if standing["silent"] else ""
        lines.append(f"this publisher is not sure yet that no other node has something newer{waits}")
    lines += [
        f"not followed: {refused['index']} {refused['number']} of {refused['peer']}: {make_error(**refused['problem'])}"
        for refused in standing["refused"]
    ]
    lines += [_trouble_text(item) for item in shown.get("troubles", [])]
    return "\n".join(lines + [_clients_text(item) for item in shown.get("clients", [])])


def _trouble_text(item: dict[str, Any]) -> str:
    where = f"{item['peer'] or 'this node'} ({item['about']})"
    back = f"; keeps back {item['keeps_back']}" if item["keeps_back"] and not item["ended"] else ""
    until = f" until {item['ended']}" if item["ended"] else ""
    return one_line(f"trouble with {where}: {item['times']} times since {item['since']}{until}{back}: {item['reason']}")


def _clients_text(item: dict[str, Any]) -> str:
    most = ", ".join(f"{count} from {address}" for address, count in item["addresses"].items())
    # An agent of the release before does not say it.
    if others := item.get("others"):
        most = f"{most}, {others} from other addresses".removeprefix(", ")
    # A client chooses it: without quotes it could pass for what this line says by itself.
    detail = f" ({quoted(item['detail'])})" if item["detail"] else ""
    times = f"{item['count']} times since {item['since']}, last at {item['last']}"
    return one_line(f"clients of {item['service']}: {item['what']}: {times}: {most}{detail}")


def _room_lines(room: dict[str, Any]) -> list[str]:
    lines = [
        f"room: {size_words(room['used_bytes'])} of {size_words(room['limit_bytes'])} used, {size_words(room['free_bytes'])} left"
    ]
    if room["near"]:
        lines.append("the store is near its limit (APL-0326); what alone takes most:")
        lines += [f"  {size_words(item['bytes'])}  {item['name']}" for item in room["largest"]]
    return lines


def _health_lines(health: dict[str, Any]) -> list[str]:
    scrubbed = health["scrubbed"]
    if scrubbed is None:
        lines = ["health: blobs are not hashed again (mirror_scrub_rate is 0)"]
    else:
        ended = f"; the last pass ended {scrubbed['finished']}" if scrubbed["finished"] else ""
        which = "this pass" if scrubbed["running"] or not scrubbed["finished"] else "the last pass"
        lines = [
            f"health: {scrubbed['blobs']} blobs, {size_words(scrubbed['bytes'])} hashed again in {which}, "
            f"{scrubbed['damaged']} damaged{ended}"
        ]
    if health["quarantined"]:
        lines.append(f"in quarantine and not fetched again yet: {' '.join(health['quarantined'])}")
    # An agent of the release before does not say it.
    lines += [_damage_text(item) for item in health.get("damage", ())]
    return lines + [_lost_text(item) for item in health["lost"]]
