"""Commands ``gc`` and ``running``."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.common import CONFIG, JSON, STORE, open_store, show
from appliance.config import DEFAULT_PATH, load
from appliance.sizes import size_words

if TYPE_CHECKING:
    from appliance.config import Config
    from appliance.store.gc import Image
    from appliance.store.store import Store


def _finite(_: click.Context, parameter: click.Parameter, seconds: float | None) -> float | None:
    # "nan" is within every range, and less than nothing is as old as it: what came a moment ago would go.
    if seconds is not None and math.isnan(seconds):
        raise click.BadParameter("not a number of seconds", param=parameter)
    return seconds


@click.command()
@STORE
@CONFIG
@click.option(
    "--plan", "only_plan", is_flag=True, help="Show what would be removed and what stays. Nothing is removed."
)
@click.option("--expect", metavar="PLAN_ID", help="Remove only if the same blobs have to stay as in this plan.")
@click.option(
    "--running",
    "lists",
    multiple=True,
    metavar="FILE",
    help="List of another node ('appliance running --json' there); '-' is standard input. The list of this node is made here.",
)
@click.option(
    "--without",
    multiple=True,
    metavar="NODE",
    help="Node without a list. Images that only this node runs, and that no kept generation names, may be removed.",
)
@click.option(
    "--lost",
    multiple=True,
    metavar="DIGEST",
    help="Manifest that no node has any more. The blobs that it named are not kept.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    callback=_finite,
    help="Keep blobs that are younger than this.  [default: 3600]",
)
@click.option(
    "--staged",
    is_flag=True,
    help="Also remove blobs that 'plan --stage' verified and that are not published yet.",
)
@JSON
def gc(
    directory: Path,
    config_file: Path | None,
    only_plan: bool,
    expect: str | None,
    lists: tuple[str, ...],
    without: tuple[str, ...],
    lost: tuple[str, ...],
    grace: float | None,
    staged: bool,
    as_json: bool,
) -> None:
    """Remove blobs that no kept generation, no pushed or pinned name and no running image needs."""
    from appliance.archives.sandbox import drop_privileges
    from appliance.lease import under_lease
    from appliance.oci.digests import check_digest
    from appliance.store.gc import GRACE_SECONDS, SweepResult, collect

    store = open_store(directory, config_file)
    store.blobs.require()
    running = _what_runs(store.config, lists, without)
    notes = _compare_with_peers(store)
    # First of all: only root may open the lease.
    with under_lease() as lease:
        drop_privileges(directory)
        collector = store.collector(
            running=running,
            grace=GRACE_SECONDS if grace is None else grace,
            lost=[check_digest(digest) for digest in lost],
            keep_staged=not staged,
        )
        if lease is not None and not only_plan:
            lease.await_sign()
        plan, swept = (collector.plan(), SweepResult()) if only_plan else collect(collector, expect=expect)
    current = store.generations.current()
    shown = plan.as_dict()
    shown["generation"] = {"number": current.number, "digest": current.digest} if current else None
    shown["notes"] = notes + shown["notes"]
    shown |= {"freed_blobs": swept.blobs, "freed_bytes": swept.size}
    show(shown, as_json, lambda shown: _gc_text(shown, only_plan))


@click.command()
@CONFIG
@JSON
def running(config_file: Path | None, as_json: bool) -> None:
    """List the images of the containers that this host's containerd has. For root."""
    from appliance.k3s.containerd import as_document
    from appliance.k3s.containerd import running as run

    config = load(config_file or DEFAULT_PATH)
    show(as_document(config.node, run()), as_json, _running_text)


COMMANDS = (gc, running)


def _what_runs(config: Config, files: Sequence[str], without: Sequence[str]) -> list[Image]:
    """Return the images that the nodes of the site run; none for a store without a site."""
    from appliance.errors import fail
    from appliance.k3s.containerd import missing_nodes, read_lists
    from appliance.k3s.containerd import running as run

    lists = read_lists({file: sys.stdin.read() if file == "-" else _read(file) for file in files})
    nodes = [peer.id for peer in config.peers]
    if config.node in nodes and config.node not in lists and os.geteuid() == 0:
        lists[config.node] = run()
    missing = missing_nodes(nodes, lists, without)
    if missing:
        fail(
            "APL-0322",
            "no collection: the images that all nodes run are unknown",
            where=config.node,
            why=f"no list of {', '.join(missing)}",
            fix="playbooks/gc.yml asks all of them. By hand: run 'appliance running --json' there as root and give it with "
            "--running FILE, or leave a node out with --without NODE",
        )
    return [image for images in lists.values() for image in images]


def _read(file: str) -> str:
    return Path(file).read_text(encoding="utf-8", errors="replace")


def _compare_with_peers(store: Store) -> list[str]:
    """Refuse a node that has not followed the site's newest generation: what it needs is not known here yet."""
    from appliance.agent.client import AgentClient, AgentDown
    from appliance.errors import fail

    config, current = store.config, store.generations.current()
    if not config.others:
        return []
    try:
        peers = AgentClient(config.agent_socket).status()["peers"]
    except AgentDown as error:
        if config.is_publisher:
            return [f"The other nodes were not asked for their generation: {error}."]
        fail(
            "APL-0323",
            "no collection: it is unknown whether this node serves the site's newest generation",
            where=config.node,
            why=str(error),
            fix="See 'systemctl status appliance-agent', then run the same again",
        )
    number = current.number if current else 0
    newer = [peer["id"] for peer in peers if (peer["generation"] or 0) > number]
    if newer:
        fail(
            "APL-0323",
            "no collection: this node does not serve the site's newest generation yet",
            where=config.node,
            why=f"it has generation {number}; newer on {', '.join(newer)}",
            fix="It follows by itself within a minute; see 'journalctl -u appliance-agent' where it does not",
        )
    return [f"{peer['id']} did not say which generation it serves." for peer in peers if peer["state"] != "up"]


def _gc_text(shown: dict[str, Any], only_plan: bool) -> str:
    lines = [f"plan {shown['plan_id']}"]
    lines += [
        f"  keep  {kept['blobs']} blobs, {size_words(kept['bytes'])} for {reason}"
        for reason, kept in shown["kept_for"].items()
    ]
    lines += [
        f"  free  {size_words(item['bytes'])} of {item['name']}  {item['digest']}  (generation {item['generation']})"
        for item in shown["names"]
    ]
    lines += [f"  note  {note}" for note in shown["notes"]]
    if only_plan:
        lines.append(f"  {shown['blobs']} blobs, {size_words(shown['bytes'])} to free")
    else:
        lines.append(f"  {shown['freed_blobs']} blobs, {size_words(shown['freed_bytes'])} freed")
    return "\n".join(lines)


def _running_text(shown: dict[str, Any]) -> str:
    rows = [f"{item['digest'] or 'unknown'}  {item['name']}" for item in shown["running"]]
    return "\n".join(rows) or "nothing runs"
