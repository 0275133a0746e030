"""Commands on a store: plan, seed, images, pin, unpin, fsck, status."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.config import DEFAULT_PATH, Config, load

if TYPE_CHECKING:
    from appliance.archives.medium import Medium
    from appliance.store.blobs import BlobStore
    from appliance.store.generations import Generations
    from appliance.store.pins import Pins
    from appliance.store.pushes import Pushes

_STORE = click.option(
    "--store", "directory", required=True, type=click.Path(path_type=Path), help="Directory of the store."
)
_CONFIG = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"The node's configuration; {DEFAULT_PATH} is used for the store that it names.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_NAME = click.option("--name", "names", multiple=True, metavar="REF", help="Name for an image that has none.")
_PLATFORM = click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH",
    help="What the nodes run; images for none of them are refused. Default: what the site's inventory says.",
)
_ANY_PLATFORM = click.option(
    "--any-platform", is_flag=True, help="Take images that no node can run too; the plan remarks on them."
)
_ALLOW = click.option(
    "--allow",
    multiple=True,
    metavar="[SOURCE=]PATTERN",
    help="What the sources, or one of them, may bring, such as docker.io/rancher/*; other names are refused.",
)
_MOVE_PINNED = click.option(
    "--move-pinned",
    "move_pinned",
    multiple=True,
    metavar="NAME",
    help="Pinned name that may move; NAME@sha256:... to that digest alone.",
)
_DEEP = click.option(
    "--deep", is_flag=True, help="Unpack compressed layers of OCI archives too, and hold them against their configs."
)
_SOURCES = click.argument("sources", nargs=-1, required=True)


@click.command()
@_STORE
@_CONFIG
@_NAME
@_PLATFORM
@_ANY_PLATFORM
@_ALLOW
@_MOVE_PINNED
@_DEEP
@_JSON
@_SOURCES
def plan(
    directory: Path,
    config_file: Path | None,
    names: tuple[str, ...],
    platforms: tuple[str, ...],
    any_platform: bool,
    allow: tuple[str, ...],
    move_pinned: tuple[str, ...],
    deep: bool,
    as_json: bool,
    sources: tuple[str, ...],
) -> None:
    """Read and verify SOURCES whole and say what seeding them would change. Writes nothing."""
    from appliance.archives.sink import HashingSink
    from appliance.bundle.plan import check_moves, make_plan, read_sources
    from appliance.oci.platforms import parse_platform

    wanted = [parse_platform(text) for text in platforms]

    def work(medium: Medium, report: Callable[[int, int], None]) -> dict[str, Any]:
        store = _open(directory, config_file)
        current = store.generations.current() if store.generations.index.exists() else None
        with HashingSink(store.blobs) as sink:
            reading = read_sources(
                sources,
                sink,
                directory,
                current,
                names=names,
                platforms=wanted or [parse_platform(text) for text in store.config.platforms],
                any_platform=any_platform,
                allow=allow,
                site_addresses=store.config.site_addresses,
                deep=deep,
                medium=medium,
                progress=report,
            )
        made = make_plan(reading, current, store.blobs, store.pushes.current(), store.pins.current())
        store.blobs.check_room(made.bytes_to_write)
        return made.as_dict()

    shown = _read(directory, sources, work, as_json)
    _show(shown, as_json, _plan_text)
    check_moves(shown["moved"], move_pinned)


@click.command()
@_STORE
@_CONFIG
@_NAME
@_PLATFORM
@_ANY_PLATFORM
@_ALLOW
@_MOVE_PINNED
@click.option("--expect", metavar="PLAN_ID", help="Publish only what this plan showed.")
@_DEEP
@_JSON
@_SOURCES
def seed(
    directory: Path,
    config_file: Path | None,
    names: tuple[str, ...],
    platforms: tuple[str, ...],
    any_platform: bool,
    allow: tuple[str, ...],
    move_pinned: tuple[str, ...],
    expect: str | None,
    deep: bool,
    as_json: bool,
    sources: tuple[str, ...],
) -> None:
    """Import SOURCES (tarballs, layouts, directories of them) and publish them as one new generation."""
    from appliance.bundle.seed import seed as run
    from appliance.oci.platforms import parse_platform

    wanted = [parse_platform(text) for text in platforms]

    def work(medium: Medium, report: Callable[[int, int], None]) -> dict[str, Any]:
        store = _open(directory, config_file)
        result = run(
            store.config,
            store.blobs,
            store.generations,
            store.pushes,
            sources,
            names=names,
            platforms=wanted or [parse_platform(text) for text in store.config.platforms],
            any_platform=any_platform,
            allow=allow,
            expect=expect,
            pins=store.pins,
            move_pinned=move_pinned,
            deep=deep,
            medium=medium,
            progress=report,
        )
        shown = result.plan.as_dict()
        shown["published"] = result.published
        shown["generation"] = (
            {"number": result.generation.number, "digest": result.generation.digest} if result.generation else None
        )
        return shown

    _show(_read(directory, sources, work, as_json), as_json, _seed_text)


@click.command()
@_STORE
@_JSON
def images(directory: Path, as_json: bool) -> None:
    """List the names that the store serves."""
    store = _open(directory, None)
    store.blobs.require()
    current, pushed, pinned = store.generations.current(), store.pushes.current(), store.pins.current()
    pins = set(pinned.names) if pinned else set()
    seeded = current.names if current else {}
    # What the generation covers is not served, and what has no tag has no name that anybody would list.
    own = {name: entry for name, entry in pushed.names.items() if "@" not in name} if pushed else {}
    rows = [
        {
            "name": name,
            "digest": entry.descriptor.digest,
            "mediaType": entry.descriptor.media_type,
            "pushed": name not in seeded,
            # Pins are the publisher's: another node does not know them.
            "pinned": name in pins if store.config.is_publisher else None,
        }
        for name, entry in {**own, **seeded}.items()
    ]
    shown = {
        "generation": current.number if current else None,
        "pushes": pushed.number if pushed else None,
        "images": sorted(rows, key=lambda row: str(row["name"])),
    }
    _show(shown, as_json, _images_text)


@click.command()
@_STORE
@_CONFIG
@_JSON
@click.argument("names", nargs=-1, required=True)
def pin(directory: Path, config_file: Path | None, as_json: bool, names: tuple[str, ...]) -> None:
    """Pin NAMES: no medium moves them without --move-pinned, and their images are always kept."""
    from appliance.store.pins import pin as run

    store = _open_to_pin(directory, config_file)
    _show_pins("pinned", run(store.blobs, store.generations, store.pins, names), store.pins, as_json)


@click.command()
@_STORE
@_CONFIG
@_JSON
@click.argument("names", nargs=-1, required=True)
def unpin(directory: Path, config_file: Path | None, as_json: bool, names: tuple[str, ...]) -> None:
    """Take the pins of NAMES away; what they name is served on."""
    from appliance.store.pins import unpin as run

    store = _open_to_pin(directory, config_file)
    _show_pins("unpinned", run(store.blobs, store.pins, names), store.pins, as_json)


@click.command()
@_STORE
@_CONFIG
@_JSON
@click.option(
    "--repair",
    is_flag=True,
    help="Move damaged blobs to quarantine/, so that none is served and the agent fetches them again from another node.",
)
def fsck(directory: Path, config_file: Path | None, as_json: bool, repair: bool) -> None:
    """Hash every blob of the store and check that what it names can be served."""
    from appliance.store.damage import examine
    from appliance.store.fsck import check

    store = _open(directory, config_file)
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
    _show(report.as_dict(), as_json, lambda _: "\n".join(lines))
    if report.problems:
        sys.exit(1)


@click.command()
@_CONFIG
@_JSON
def status(config_file: Path | None, as_json: bool) -> None:
    """Say what this node serves, what it still lacks, and which peers answer."""
    from appliance.agent.client import AgentClient, AgentDown
    from appliance.errors import fail

    config = load(config_file or DEFAULT_PATH)
    try:
        shown = AgentClient(config.agent_socket).status()
    except AgentDown as error:
        fail(
            "APL-0402",
            "the agent of this node does not answer",
            where=config.node,
            why=str(error),
            fix="Run this as root; see 'systemctl status appliance-agent'",
        )
    _show(shown, as_json, _status_text)


COMMANDS = (plan, seed, images, pin, unpin, fsck, status)


@dataclass(frozen=True)
class _Opened:
    """A store, what it serves, and the node's configuration."""

    config: Config
    blobs: BlobStore
    generations: Generations
    pushes: Pushes
    pins: Pins


def _open(directory: Path, config_file: Path | None) -> _Opened:
    from appliance.store.blobs import BlobStore
    from appliance.store.generations import Generations
    from appliance.store.pins import Pins
    from appliance.store.pushes import Pushes
    from appliance.trust import Trust

    config = _config(directory, config_file)
    blobs = BlobStore(directory, free_percent=config.free_percent if config.peers else 0)
    trust = Trust(config.pki, config.node, config.seeds)
    return _Opened(config, blobs, Generations(blobs, trust), Pushes(blobs, trust), Pins(blobs, trust))


def _open_to_pin(directory: Path, config_file: Path | None) -> _Opened:
    """As the owner of the store, on the publisher alone."""
    from appliance.bundle.confined import drop_privileges
    from appliance.errors import fail

    drop_privileges(directory)
    store = _open(directory, config_file)
    if not store.config.is_publisher:
        fail(
            "APL-0312",
            "only the publisher keeps pins",
            where=store.config.node,
            why=f"the publisher of this site is {store.config.publisher}",
            fix=f"Run the same on {store.config.publisher}",
        )
    store.blobs.require()
    return store


def _show_pins(verb: str, changed: list[str], pins: Pins, as_json: bool) -> None:
    current = pins.current()
    shown = {"changed": changed, "pinned": list(current.names) if current else []}
    _show(shown, as_json, lambda _: "\n".join(f"{verb} {name}" for name in changed) or "nothing changed")


def _config(directory: Path, config_file: Path | None) -> Config:
    """The node's configuration where this is the node's store; elsewhere a store of its own, without a site."""
    if config_file is not None:
        return load(config_file)
    if DEFAULT_PATH.exists():
        config = load()
        if config.store.resolve() == directory.resolve():
            return config
    return Config(node="local", store=directory)


def _show(value: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    click.echo(json.dumps(value, indent=2) if as_json else text(value))


def _plan_text(shown: dict[str, Any]) -> str:
    lines = [f"plan {shown['plan_id']}"]
    lines += [f"  add   {item['name']}  {item['digest']}" for item in shown["added"]]
    lines += [
        f"  move  {item['name']}  {item['old']} -> {item['new']}{'  (pinned)' if item['pinned'] else ''}"
        for item in shown["moved"]
    ]
    lines += [f"  fill  {name}" for name in shown["completed"]]
    lines += [
        f"  cover {item['name']}  {item['old']} (pushed by an operator) -> {item['new']}"
        for item in shown["covers_pushed"]
    ]
    lines += [f"  note  {note}" for note in shown["notes"]]
    lines.append(f"  {len(shown['unchanged'])} names unchanged, {shown['bytes_to_write']} bytes to write")
    return "\n".join(lines)


def _images_text(shown: dict[str, Any]) -> str:
    rows = [
        f"{row['digest']}  {row['name']}{'  (pushed)' if row['pushed'] else ''}{'  (pinned)' if row['pinned'] else ''}"
        for row in shown["images"]
    ]
    return "\n".join(rows) or "no images"


def _seed_text(shown: dict[str, Any]) -> str:
    number = shown["generation"]["number"] if shown["generation"] else None
    ending = f"published generation {number}" if shown["published"] else f"nothing new; generation {number} is served"
    return f"{_plan_text(shown)}\n{ending}"


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
    return "\n".join(lines)


def _read(
    directory: Path,
    sources: tuple[str, ...],
    work: Callable[[Medium, Callable[[int, int], None]], dict[str, Any]],
    as_json: bool,
) -> dict[str, Any]:
    """Read the sources in a process of their own, and say on standard error how far it is."""
    from appliance.archives.medium import Medium
    from appliance.bundle.confined import confined
    from appliance.cli.progress import Form, Progress

    form: Form = "json" if as_json else "bar" if sys.stderr.isatty() else "lines"
    medium = Medium([Path(source) for source in sources])
    progress = Progress(form, lambda text: click.echo(text, err=True, nl=form != "bar"), medium.weight)
    try:
        return confined(directory, medium, lambda report: work(medium, report), progress)
    finally:
        progress.close()
        medium.close()
