"""Commands that bring images: plan, seed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.opened import CONFIG, JSON, STORE, config_of, make_sure, open_store, show, tell_agent

if TYPE_CHECKING:
    from appliance.archives.medium import Medium

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
_REMOVE = click.option(
    "--remove", multiple=True, metavar="NAME", help="Name that leaves what is served; SOURCES may then be empty."
)
_OLDER = click.option(
    "--older", is_flag=True, help="Agree to names that go back to what they were, and to a medium older than the last."
)
_OTHER_SITE = click.option("--other-site", is_flag=True, help="Take a medium that says it is for another site.")
_DEEP = click.option(
    "--deep", is_flag=True, help="Unpack compressed layers of OCI archives too, and hold them against their configs."
)


def _named(_: click.Context, parameter: click.Parameter, sources: tuple[str, ...]) -> tuple[str, ...]:
    # A variable of a shell that is not set: Path("") would be the directory where one happens to be.
    if "" in sources:
        raise click.BadParameter("a source has no name", param=parameter)
    return sources


_SOURCES = click.argument("sources", nargs=-1, callback=_named)


@click.command()
@STORE
@CONFIG
@_NAME
@_PLATFORM
@_ANY_PLATFORM
@_ALLOW
@_REMOVE
@_MOVE_PINNED
@_OLDER
@_OTHER_SITE
@_DEEP
@JSON
@_SOURCES
def plan(
    directory: Path,
    config_file: Path | None,
    names: tuple[str, ...],
    platforms: tuple[str, ...],
    any_platform: bool,
    allow: tuple[str, ...],
    remove: tuple[str, ...],
    move_pinned: tuple[str, ...],
    older: bool,
    other_site: bool,
    deep: bool,
    as_json: bool,
    sources: tuple[str, ...],
) -> None:
    """Read and verify SOURCES whole and say what seeding them would change. Writes nothing."""
    from appliance.archives.sink import HashingSink
    from appliance.bundle.consent import Consent
    from appliance.bundle.plan import make_plan
    from appliance.bundle.reading import read_sources
    from appliance.bundle.removal import names_to_remove
    from appliance.oci.platforms import parse_platform

    _check_given(sources, remove)
    wanted = [parse_platform(text) for text in platforms]

    def work(medium: Medium, report: Callable[[int, int], None]) -> dict[str, Any]:
        store = open_store(directory, config_file)
        current = store.generations.current() if (directory / "oci-layout").exists() else None
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
                site=store.config.site,
                other_site=other_site,
                deep=deep,
                medium=medium,
                progress=report,
            )
        history = store.generations.newest_first if current else tuple
        made = make_plan(
            reading,
            current,
            store.blobs,
            store.pushes.current(),
            store.pins.current(),
            removed=names_to_remove(remove, reading, current, history, directory, store.config.site_addresses),
            history=history,
        )
        store.blobs.check_room(made.bytes_to_write)
        return made.as_dict()

    shown = _read(directory, sources, work, as_json)
    show(shown, as_json, plan_text)
    Consent(move_pinned, older, other_site, any_platform).check(shown)


@click.command()
@STORE
@CONFIG
@_NAME
@_PLATFORM
@_ANY_PLATFORM
@_ALLOW
@_REMOVE
@_MOVE_PINNED
@_OLDER
@_OTHER_SITE
@click.option("--expect", metavar="PLAN_ID", help="Publish only what this plan showed.")
@_DEEP
@JSON
@_SOURCES
def seed(
    directory: Path,
    config_file: Path | None,
    names: tuple[str, ...],
    platforms: tuple[str, ...],
    any_platform: bool,
    allow: tuple[str, ...],
    remove: tuple[str, ...],
    move_pinned: tuple[str, ...],
    older: bool,
    other_site: bool,
    expect: str | None,
    deep: bool,
    as_json: bool,
    sources: tuple[str, ...],
) -> None:
    """Import SOURCES (tarballs, layouts, directories of them) and publish them as one new generation."""
    from appliance.bundle.consent import Consent
    from appliance.bundle.seed import seed as run
    from appliance.oci.platforms import parse_platform

    _check_given(sources, remove)
    wanted = [parse_platform(text) for text in platforms]

    def work(medium: Medium, report: Callable[[int, int], None]) -> dict[str, Any]:
        store = open_store(directory, config_file)
        result = run(
            store.config,
            store.blobs,
            store.generations,
            store.pushes,
            sources,
            names=names,
            platforms=wanted or [parse_platform(text) for text in store.config.platforms],
            allow=allow,
            remove=remove,
            expect=expect,
            pins=store.pins,
            consent=Consent(move_pinned, older, other_site, any_platform),
            deep=deep,
            medium=medium,
            progress=report,
        )
        return result.as_dict()

    make_sure(config_of(directory, config_file))
    shown = _read(directory, sources, work, as_json)
    if shown["published"]:
        tell_agent(directory, config_file)
    show(shown, as_json, done_text)


COMMANDS = (plan, seed)


def plan_text(shown: dict[str, Any]) -> str:
    """A plan for people: what ``appliance plan --json`` prints."""
    back = {item["name"]: item["number"] for item in shown["steps_back"]}
    lines = [f"plan {shown['plan_id']}"]
    lines += [f"  add   {item['name']}  {item['digest']}" for item in shown["added"]]
    lines += [
        f"  move  {item['name']}  {item['old']} -> {item['new']}{'  (pinned)' if item['pinned'] else ''}"
        + (f"  (back to generation {back[item['name']]})" if item["name"] in back else "")
        for item in shown["moved"]
    ]
    lines += [f"  fill  {name}" for name in shown["completed"]]
    lines += [
        f"  remove  {item['name']}  {item['digest']}{'  (pinned)' if item['pinned'] else ''}"
        for item in shown["removed"]
    ]
    lines += [
        f"  cover {item['name']}  {item['old']} (pushed by an operator) -> {item['new']}"
        for item in shown["covers_pushed"]
    ]
    lines += [
        f"  uncover {item['name']}  {item['old']} -> {item['new']} (pushed by an operator)"
        for item in shown["uncovers_pushed"]
    ]
    lines += [
        f"  medium {source}: {label['id']} for {label['site']}, made at {label['created']}"
        + (f"; older than one of {shown['older_media'][source]['newest']}" if source in shown["older_media"] else "")
        + (f"; {label['note']}" if "note" in label else "")
        for source, label in shown["medium"].items()
    ]
    lines += [f"  note  {note}" for note in shown["notes"]]
    lines.append(f"  {len(shown['unchanged'])} names unchanged, {shown['bytes_to_write']} bytes to write")
    return "\n".join(lines)


def done_text(shown: dict[str, Any]) -> str:
    """What was done, for people."""
    number = shown["generation"]["number"] if shown["generation"] else None
    ending = f"published generation {number}" if shown["published"] else f"nothing new; generation {number} is served"
    if shown["bytes_written"] and not shown["published"]:
        ending += f", and {shown['bytes_written']} bytes that its images lacked here were written"
    return f"{plan_text(shown)}\n{ending}"


def _check_given(sources: tuple[str, ...], remove: tuple[str, ...]) -> None:
    if not sources and not remove:
        raise click.UsageError("Missing argument 'SOURCES...' (only --remove does without).")


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
