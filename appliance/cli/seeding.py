"""Commands ``plan`` and ``seed``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.common import CONFIG, JSON, STORE, Renamed, config_of, make_sure, open_store, show, tell_agent
from appliance.sizes import size_words

if TYPE_CHECKING:
    from appliance.archives.medium import Medium
    from appliance.lease import Lease
    from appliance.publish.seed import Request
    from appliance.store.store import Store

_NAME = click.option("--name", "names", multiple=True, metavar="REF", help="Name for an image that has none.")
_PLATFORM = click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH",
    help="Platform of the nodes. An image for no such platform is refused.  [default: the platforms of the inventory]",
)
_ANY_PLATFORM = click.option(
    "--any-platform", is_flag=True, help="Accept images that no node can run; the plan lists them."
)
_ALLOW = click.option(
    "--allow",
    multiple=True,
    metavar="[SOURCE=]PATTERN",
    help="Names that the sources, or one source, may bring, such as docker.io/rancher/*. Other names are refused.",
)
_MOVE_PINNED = click.option(
    "--move-pinned",
    "move_pinned",
    multiple=True,
    metavar="NAME",
    help="Pinned name that may move. NAME@sha256:... allows only that digest.",
)
_REMOVE = click.option(
    "--remove", multiple=True, metavar="NAME", help="Name to remove from what is served. SOURCES may then be empty."
)
_OLDER = click.option(
    "--allow-downgrade",
    "--older",
    "older",
    cls=Renamed,
    is_flag=True,
    help="Agree to names that go back to an earlier digest, and to a medium that is older than the last one.",
)
_OTHER_SITE = click.option(
    "--allow-other-site",
    "--other-site",
    "other_site",
    cls=Renamed,
    is_flag=True,
    help="Accept a medium whose label names another site.",
)
_DEEP = click.option(
    "--deep", is_flag=True, help="Also unpack compressed layers of OCI archives, and compare them with their configs."
)


def _named(_: click.Context, parameter: click.Parameter, sources: tuple[str, ...]) -> tuple[str, ...]:
    # A variable of a shell that is not set: Path("") would be the directory where one happens to be.
    if "" in sources:
        raise click.BadParameter("a source has no name", param=parameter)
    return sources


_SOURCES = click.argument("sources", nargs=-1, callback=_named)


_REQUEST = (_NAME, _PLATFORM, _ANY_PLATFORM, _ALLOW, _REMOVE, _OTHER_SITE, _DEEP, _SOURCES)
"""Options and arguments that say what is read; ``plan`` and ``seed`` take the same."""
_CONSENT = (_MOVE_PINNED, _OLDER)


def _take(*parameters: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a decorator that gives a command several options."""

    def decorate(command: Any) -> Any:
        for parameter in reversed(parameters):
            command = parameter(command)
        return command

    return decorate


@click.command()
@STORE
@CONFIG
@_take(*_REQUEST, *_CONSENT)
@click.option(
    "--stage",
    "staged",
    is_flag=True,
    help="Keep the verified blobs in the store, so that 'seed --expect' and later runs do not read SOURCES again.",
)
@JSON
def plan(
    directory: Path,
    config_file: Path | None,
    move_pinned: tuple[str, ...],
    older: bool,
    staged: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Read and verify all SOURCES and show what seeding would change. Without --stage nothing is written."""
    from appliance.publish.approval import Consent
    from appliance.publish.seed import inspect, stage

    _check_given(asked["sources"], asked["remove"])

    def work(medium: Medium, report: Callable[[int, int], None], lease: Lease | None) -> dict[str, Any]:
        store = open_store(directory, config_file)
        run = stage if staged else inspect
        return run(store, _request(store, asked), medium=medium, progress=report).as_dict()

    shown = _read(directory, asked["sources"], work, as_json)
    show(shown, as_json, plan_text)
    Consent(move_pinned, older, asked["other_site"], asked["any_platform"]).check(shown)


@click.command()
@STORE
@CONFIG
@_take(*_REQUEST, *_CONSENT)
@click.option("--expect", metavar="PLAN_ID", help="Publish only if the changes are those of this plan.")
@JSON
def seed(
    directory: Path,
    config_file: Path | None,
    move_pinned: tuple[str, ...],
    older: bool,
    expect: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Import SOURCES (tarballs, layouts, directories of them) and publish them as one new generation."""
    from appliance.publish.approval import Consent
    from appliance.publish.seed import seed as run

    _check_given(asked["sources"], asked["remove"])
    consent = Consent(move_pinned, older, asked["other_site"], asked["any_platform"])

    def work(medium: Medium, report: Callable[[int, int], None], lease: Lease | None) -> dict[str, Any]:
        store = open_store(directory, config_file)
        request = _request(store, asked)
        return run(
            store, request, expect=expect, consent=consent, medium=medium, progress=report, lease=lease
        ).as_dict()

    make_sure(config_of(directory, config_file))
    shown = _read(directory, asked["sources"], work, as_json)
    if shown["published"]:
        tell_agent(directory, config_file)
    show(shown, as_json, done_text)


COMMANDS = (plan, seed)
LEGEND = {
    "fill": "gets more platforms",
    "sign": "gets signatures or attestations",
    "cover": "hides what an operator pushed",
    "uncover": "shows again what an operator pushed",
}
"""Words of the plan that do not explain themselves."""


def plan_text(shown: dict[str, Any]) -> str:
    """Return a plan for people, from what ``appliance plan --json`` prints."""
    from appliance.archives.left_out import as_lines

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
        f"  sign  {item['name']}{' and {} more names'.format(item['other_names']) if item['other_names'] else ''}  "
        + (
            "1 signature or attestation"
            if len(item["digests"]) == 1
            else f"{len(item['digests'])} signatures and attestations"
        )
        for item in shown["referrers"]
    ]
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
    kinds = {"fill": "completed", "sign": "referrers", "cover": "covers_pushed", "uncover": "uncovers_pushed"}
    legend = [f"{word}: {LEGEND[word]}" for word, kind in kinds.items() if shown[kind]]
    lines += [f"  ({'; '.join(legend)})"] if legend else []
    lines += [
        f"  medium {source}: {label['id']} for {label['site']}, made at {label['created']}"
        + (f"; older than one of {shown['older_media'][source]['newest']}" if source in shown["older_media"] else "")
        + (f"; {label['note']}" if "note" in label else "")
        for source, label in shown["medium"].items()
    ]
    lines += [_source_text(source) for source in shown["sources"]]
    lines += [f"  note  {note}" for note in shown["notes"]]
    lines += [f"  {line}" for line in as_lines(shown)]
    lines.append(f"  {len(shown['unchanged'])} names unchanged, {size_words(shown['bytes_to_write'])} to write")
    return "\n".join(lines)


def _source_text(source: dict[str, Any]) -> str:
    medium = source.get("medium", "a medium that is not known here")
    if source["state"] == "absent-published":
        return f"  not there, but published before: {source['path']}, from {medium}"
    earlier = ", by an earlier run" if source["state"] == "verified-before" else ""
    return f"  read  {source['path']}: {size_words(source['bytes'])} from {medium}{earlier}"


def done_text(shown: dict[str, Any]) -> str:
    """Return the result as text."""
    served = f"generation {shown['generation']['number']}" if shown["generation"] else "nothing"
    ending = f"published {served}" if shown["published"] else f"nothing new; {served} is served"
    if shown["bytes_written"] and not shown["published"]:
        lacked = "" if shown["referrers_left_out"] else " that its images lacked here"
        ending += f", and {size_words(shown['bytes_written'])}{lacked} were written"
    return f"{plan_text(shown)}\n{ending}"


def _check_given(sources: tuple[str, ...], remove: tuple[str, ...]) -> None:
    if not sources and not remove:
        raise click.UsageError("Missing argument 'SOURCES...' (only --remove does without).")


def _request(store: Store, asked: Mapping[str, Any]) -> Request:
    """Return what the options ask for; what the nodes run is taken from the inventory where no option says it."""
    from appliance.oci.platforms import parse_platform
    from appliance.publish.seed import Request

    platforms = [parse_platform(text) for text in asked["platforms"] or store.config.platforms]
    return Request(**{**asked, "platforms": platforms})


def _read(
    directory: Path,
    sources: tuple[str, ...],
    work: Callable[[Medium, Callable[[int, int], None], Lease | None], dict[str, Any]],
    as_json: bool,
) -> dict[str, Any]:
    """Read the sources in a process of their own, and say on standard error how far it is."""
    from appliance.archives.medium import Medium
    from appliance.archives.sandbox import confined
    from appliance.cli.progress import Form, Progress
    from appliance.lease import under_lease

    form: Form = "json" if as_json else "bar" if sys.stderr.isatty() else "lines"
    with under_lease() as lease:
        medium = Medium([Path(source) for source in sources])
        progress = Progress(form, lambda text: click.echo(text, err=True, nl=form != "bar"), medium.weight)
        try:
            return confined(directory, medium, lambda report: work(medium, report, lease), progress)
        finally:
            progress.close()
            medium.close()
