"""Commands ``history``, ``diff``, ``audit`` and ``rollback``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from appliance.cli.common import CONFIG, JSON, STORE, open_as_publisher, open_store, show, tell_agent
from appliance.cli.seeding import done_text, plan_text
from appliance.media import media_words


@click.command()
@STORE
@CONFIG
@JSON
def history(directory: Path, config_file: Path | None, as_json: bool) -> None:
    """Show what was published, when, from which medium and by whom, and what it changed."""
    from appliance.store.history import history as run

    store = open_store(directory, config_file)
    store.blobs.require()
    rows = run(store.generations, store.blobs, store.config.keep_generations)
    show({"generations": rows}, as_json, lambda shown: "\n".join(map(_row_text, shown["generations"])) or "nothing yet")


@click.command()
@STORE
@CONFIG
@JSON
@click.argument("older", type=int)
@click.argument("newer", type=int)
def diff(directory: Path, config_file: Path | None, as_json: bool, older: int, newer: int) -> None:
    """Show the differences between the generations OLDER and NEWER. Both have to be kept."""
    from appliance.store.diff import Changes
    from appliance.store.history import find

    store = open_store(directory, config_file)
    store.blobs.require()
    before, after = find(store.generations, to=older), find(store.generations, to=newer)
    changes = Changes.of(before, after).as_dict()
    show({"older": before.summary, "newer": after.summary, **changes}, as_json, _diff_text)


@click.command()
@STORE
@CONFIG
@click.option("--noted", metavar="SHA256", help="Hash that an earlier audit printed. A line of the log must have it.")
@JSON
def audit(directory: Path, config_file: Path | None, noted: str | None, as_json: bool) -> None:
    """Check that the audit log is complete and unchanged, and that it agrees with the generations."""
    from appliance.store.auditcheck import audit as run

    store = open_store(directory, config_file)
    store.blobs.require()
    found = run(directory, store.generations.newest_first(), noted)
    show(found.as_dict(), as_json, _audit_text)
    found.check()


@click.command()
@STORE
@CONFIG
@click.option("--to", type=int, metavar="N", help="Number of the generation.")
@click.option(
    "--at", metavar="TIME", help="Time at which the generation was served (ISO 8601; UTC if there is no offset)."
)
@click.option(
    "--medium",
    metavar="TEXT",
    help="Last generation that was made from this source, or from the medium with this id, label or UUID.",
)
@click.option("--plan", "only_plan", is_flag=True, help="Show what would change. Nothing is written.")
@click.option("--expect", metavar="PLAN_ID", help="Publish only if the changes are those of this plan.")
@click.option(
    "--move-pinned",
    "move_pinned",
    multiple=True,
    metavar="NAME",
    help="Pinned name that may move. NAME@sha256:... allows only that digest.",
)
@JSON
def rollback(
    directory: Path,
    config_file: Path | None,
    to: int | None,
    at: str | None,
    medium: str | None,
    only_plan: bool,
    expect: str | None,
    move_pinned: tuple[str, ...],
    as_json: bool,
) -> None:
    """Publish the content of an older generation as a new one."""
    from appliance.lease import under_lease
    from appliance.publish.approval import Consent
    from appliance.publish.publisher import Publisher
    from appliance.publish.rollback import make_rollback, roll_back
    from appliance.store.history import find

    if sum(choice is not None for choice in (to, at, medium)) != 1:
        raise click.UsageError("Give exactly one of --to, --at and --medium.")
    consent = Consent(move_pinned)
    # First of all: only root may open the lease, and whoever publishes is not root any more.
    with under_lease() as lease:
        store = open_as_publisher(directory, config_file, "only the publisher makes generations")

        def choose() -> Any:
            return find(store.generations, to=to, at=at, medium=medium)

        if only_plan:
            target, current = choose(), store.generations.current()
            assert current is not None  # there is an older one
            planned = make_rollback(target, current, store.blobs, store.pushes.current(), store.pins.current())
            show(planned.as_dict(), as_json, lambda shown: f"{_target_text(shown)}\n{plan_text(shown)}")
            planned.check(store.blobs)
            consent.check(planned.as_dict())
            return
        publisher = Publisher(store, lease)
        done, result = roll_back(publisher, choose, expect=expect, consent=consent)
    if result.published:
        tell_agent(directory, config_file)
    show(
        {**done.as_dict(), **result.as_dict()},
        as_json,
        lambda shown: f"{_target_text(shown)}\n{done_text(shown)}",
    )


COMMANDS = (history, diff, audit, rollback)


def _row_text(row: dict[str, Any]) -> str:
    kinds = ("added", "moved", "completed", "removed")
    changed = [f"{len(row[kind])} {kind}" for kind in kinds if row[kind]]
    signed = [
        f"{len(row[f'referrers_{kind}'])} signatures {kind}"
        for kind in ("added", "removed")
        if row[f"referrers_{kind}"]
    ]
    changes = "; ".join(changed + signed)
    media = "; ".join(media_words(row["sources"], row["medium"]))
    state = row["state"] + (f", {len(row['missing'])} blobs not here" if row["missing"] else "")
    lines = [
        f"{row['number']}  {row['created']}  {row['cause']} by {row['by'] or 'unknown'}  [{state}]",
        f"    from {media or 'no medium'}: "
        + ("what it changed is not known" if row["added"] is None else changes or "no name changed"),
    ]
    return "\n".join(lines + _change_lines(row, "    "))


def _change_lines(changes: dict[str, Any], indent: str) -> list[str]:
    lines = [f"{indent}add   {name}  {digest}" for name, digest in (changes["added"] or {}).items()]
    lines += [f"{indent}move  {name}  {old} -> {new}" for name, (old, new) in (changes["moved"] or {}).items()]
    lines += [f"{indent}fill  {name}" for name in changes["completed"] or ()]
    lines += [f"{indent}remove  {name}  {digest}" for name, digest in (changes["removed"] or {}).items()]
    for verb, kind in (("sign", "referrers_added"), ("unsign", "referrers_removed")):
        lines += [f"{indent}{verb}  {subject}  by {digest}" for digest, subject in (changes[kind] or {}).items()]
    return lines


def _diff_text(shown: dict[str, Any]) -> str:
    head = f"generation {shown['older']['number']} -> {shown['newer']['number']}"
    return "\n".join([head, *(_change_lines(shown, "  ") or ["  the same names, with the same digests"])])


def _target_text(shown: dict[str, Any]) -> str:
    target = shown["target"]
    lines = [
        f"back to generation {target['number']} of {target['created']}, "
        f"from {'; '.join(media_words(target['sources'], target['medium'])) or 'nothing'}"
    ]
    lines += [f"  cannot bring back {item['name']}: {', '.join(item['blobs'])}" for item in shown["missing"]]
    return "\n".join(lines)


def _audit_text(shown: dict[str, Any]) -> str:
    lines = [*shown["remarks"], *shown["unlogged"]]
    if shown["broken"] is not None:
        lines.append(f"line {shown['broken']['line']} does not fit: {shown['broken']['why']}")
    elif shown["head"] is not None:
        head = shown["head"]
        lines.append(f"{shown['lines']} lines, all in order; the last is number {head['seq']}, {head['sha256']}")
    else:
        lines.append("no line is chained yet")
    return "\n".join(lines)
