"""Commands that look: fsck, status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from appliance.cli.opened import CONFIG, JSON, STORE, agent_down, open_store, show
from appliance.config import DEFAULT_PATH, load
from appliance.errors import ApplianceError


@click.command()
@STORE
@CONFIG
@JSON
@click.option(
    "--repair",
    is_flag=True,
    help="Move damaged blobs to quarantine/, so that none is served and the agent fetches them again from another node.",
)
def fsck(directory: Path, config_file: Path | None, as_json: bool, repair: bool) -> None:
    """Hash every blob of the store and check that what it names can be served."""
    from appliance.store.damage import examine
    from appliance.store.fsck import check

    store = open_store(directory, config_file)
    store.blobs.require()
    report = check(store.blobs, store.generations, store.pushes, whole=store.config.is_publisher, pins=store.pins)
    if repair:
        for digest in report.damaged:
            examine(store.blobs, digest, None, suspect=True)
        report.look_at_quarantine(store.blobs)
    lines = [*report.problems]
    if report.quarantined:
        lines.append(f"in quarantine and not fetched again yet: {' '.join(report.quarantined)}")
    elif report.damaged:
        lines.append("'appliance fsck --repair' takes what is damaged out; the agent then fetches it from another node")
    lines.append(f"{report.blobs} blobs, {report.size} bytes, {len(report.problems)} problems")
    show(report.as_dict(), as_json, lambda _: "\n".join(lines))
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
    standing = shown["standing"]
    if shown["node"] == shown["publisher"] and not standing["settled"]:
        waits = f"; no answer from {', '.join(standing['silent'])}" if standing["silent"] else ""
        lines.append(f"this publisher is not sure yet that no other node has something newer{waits}")
    lines += [
        f"not followed: {refused['index']} {refused['number']} of {refused['peer']}: {ApplianceError(**refused['problem'])}"
        for refused in standing["refused"]
    ]
    return "\n".join(lines)
