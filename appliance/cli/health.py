"""Commands that look: fsck, status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.opened import CONFIG, JSON, STORE, agent_down, open_store, show
from appliance.config import DEFAULT_PATH, load
from appliance.errors import ApplianceError

if TYPE_CHECKING:
    from appliance.agent.client import AgentClient
    from appliance.cli.opened import Opened
    from appliance.store.fsck import Report


@click.command()
@STORE
@CONFIG
@JSON
@click.option(
    "--repair",
    is_flag=True,
    help="Move damaged blobs to quarantine/, so that none is served, and let the agent fetch them, and what is missing of "
    "the generations that are kept, from other nodes now.",
)
def fsck(directory: Path, config_file: Path | None, as_json: bool, repair: bool) -> None:
    """Hash every blob of the store and check that what it names can be served."""
    from appliance.store.damage import examine
    from appliance.store.fsck import check

    store = open_store(directory, config_file)
    store.blobs.require()
    report = check(store.blobs, store.generations, store.pushes, whole=store.config.is_publisher, pins=store.pins)
    repaired = None
    if repair:
        for digest in report.damaged:
            examine(store.blobs, digest, None, suspect=True)
        repaired = _fetch_now(store)
        report.look_at_quarantine(store.blobs)
    shown = report.as_dict()
    shown["back"] = repaired["back"] if repaired else []
    shown["not_fetched"] = repaired["missing"] if repaired else {}
    shown["lost"] = repaired["lost"] if repaired else _lost(store, report)
    show(shown, as_json, lambda _: "\n".join(_fsck_lines(report, shown)))
    if report.problems:
        sys.exit(1)


@click.command()
@CONFIG
@JSON
def status(config_file: Path | None, as_json: bool) -> None:
    """Say what this node serves, what it still lacks, and which peers answer."""
    from appliance.agent.client import AgentClient, AgentDown

    config = load(config_file or DEFAULT_PATH)
    try:
        shown = AgentClient(config.agent_socket).status()
    except AgentDown as error:
        agent_down(config, error)
    show(shown, as_json, _status_text)


COMMANDS = (fsck, status)


def _agent(store: Opened) -> AgentClient | None:
    """The agent that serves this store, where it is a node's; ``appliance serve`` has its socket beside it."""
    from appliance.agent.client import AgentClient

    beside = store.blobs.root / "agent.sock"
    if beside.exists():
        return AgentClient(beside)
    return AgentClient(store.config.agent_socket) if store.config.peers else None


def _fetch_now(store: Opened) -> dict[str, Any] | None:
    """Let the agent bring back what is missing; None where there is none, or it does not answer."""
    from appliance.agent.client import AgentDown

    agent = _agent(store)
    if agent is None:
        return None
    try:
        return agent.repair()
    except AgentDown as error:
        click.echo(f"note: {error}; what is missing is fetched once the agent runs", err=True)
        return None


def _lost(store: Opened, report: Report) -> list[dict[str, Any]]:
    """What the site has lost, as the agent knows it; without an agent it is what this store has not."""
    from appliance.agent.client import AgentDown
    from appliance.store.blame import blame

    agent = _agent(store)
    if agent is None:
        gone = {*report.missing, *report.damaged, *report.quarantined}
        found = blame(gone, store.blobs, store.generations, store.pushes) if gone else {}
        return [lost.as_dict() for lost in found.values()]
    try:
        lost: list[dict[str, Any]] = agent.status()["health"]["lost"]
    except AgentDown:
        return []
    return lost


def _fsck_lines(report: Report, shown: dict[str, Any]) -> list[str]:
    lines = [*report.problems]
    lines += [f"{digest} is back" for digest in shown["back"]]
    lines += [f"{digest} could not be fetched: {reason}" for digest, reason in shown["not_fetched"].items()]
    lines += [_lost_text(item) for item in shown["lost"]]
    if report.quarantined:
        lines.append(f"in quarantine and not fetched again yet: {' '.join(report.quarantined)}")
    elif report.damaged and not shown["back"]:
        lines.append("'appliance fsck --repair' takes what is damaged out; the agent then fetches it from another node")
    lines.append(f"{report.blobs} blobs, {report.size} bytes, {len(report.problems)} problems")
    return lines


def _lost_text(item: dict[str, Any]) -> str:
    from appliance.store.blame import Lost

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
    # An agent of the release before, in the moment in which this one replaces it, says neither.
    lines += _room_lines(shown["room"]) if "room" in shown else []
    lines += _health_lines(shown["health"]) if "health" in shown else []
    standing = shown["standing"]
    if shown["node"] == shown["publisher"] and not standing["settled"]:
        waits = f"; no answer from {', '.join(standing['silent'])}" if standing["silent"] else ""
        lines.append(f"this publisher is not sure yet that no other node has something newer{waits}")
    lines += [
        f"not followed: {refused['index']} {refused['number']} of {refused['peer']}: {ApplianceError(**refused['problem'])}"
        for refused in standing["refused"]
    ]
    return "\n".join(lines)


def _room_lines(room: dict[str, Any]) -> list[str]:
    lines = [f"room: {room['used_bytes']} of {room['limit_bytes']} bytes used, {room['free_bytes']} left"]
    if room["near"]:
        lines.append("the store is near its limit (APL-0326); what alone takes most:")
        lines += [f"  {item['bytes']} bytes  {item['name']}" for item in room["largest"]]
    return lines


def _health_lines(health: dict[str, Any]) -> list[str]:
    scrubbed = health["scrubbed"]
    if scrubbed is None:
        lines = ["health: blobs are not hashed again (mirror_scrub_rate is 0)"]
    else:
        ended = f"; the last pass ended {scrubbed['finished']}" if scrubbed["finished"] else ""
        which = "this pass" if scrubbed["running"] or not scrubbed["finished"] else "the last pass"
        lines = [
            f"health: {scrubbed['blobs']} blobs, {scrubbed['bytes']} bytes hashed again in {which}, "
            f"{scrubbed['damaged']} damaged{ended}"
        ]
    if health["quarantined"]:
        lines.append(f"in quarantine and not fetched again yet: {' '.join(health['quarantined'])}")
    return lines + [_lost_text(item) for item in health["lost"]]
