"""Commands ``leaving`` and ``take-over``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from appliance.cli.common import CONFIG, JSON, agent_down, make_sure, show
from appliance.config import DEFAULT_PATH, load
from appliance.errors import fail
from appliance.sizes import size_words


@click.command("take-over")
@CONFIG
@JSON
@click.option(
    "--without",
    multiple=True,
    metavar="NODE",
    help="Do not wait for this node. Generations and pushes that only this node has are lost.",
)
def take_over(config_file: Path | None, as_json: bool, without: tuple[str, ...]) -> None:
    """Make this node ready to publish: it asks the other nodes for newer names.

    The agent does the same by itself as soon as every listed node answers. Run this with --without for a node that will
    never answer.
    """
    config = load(config_file or DEFAULT_PATH)
    if not config.is_publisher:
        fail(
            "APL-0312",
            "only the publisher takes over",
            where=config.node,
            why=f"the publisher of this site is {config.publisher}",
            fix="Put this node first in mirror_seeds and run site.yml, or run the same there",
        )
    strangers = sorted(set(without) - config.ids)
    if strangers:
        raise click.BadParameter(f"no node of this site: {', '.join(strangers)}", param_hint="--without")
    make_sure(config, without)
    shown: dict[str, Any] = {"publisher": config.node, "without": list(without)}
    show(shown, as_json, lambda shown: f"{shown['publisher']} is the publisher, and nothing newer is known")


@click.command()
@CONFIG
@JSON
@click.option(
    "--stay", "staying", multiple=True, required=True, metavar="NODE", help="Node that stays; may be repeated."
)
@click.option("--fetch", is_flag=True, help="Fetch the blobs to this node that only leaving nodes hold.")
@click.option("--anyway", is_flag=True, help="Exit with 0 although something may be lost.")
def leaving(config_file: Path | None, as_json: bool, staying: tuple[str, ...], fetch: bool, anyway: bool) -> None:
    """Show what the site would lose if only the nodes named by --stay were left. Nothing is changed.

    Ends with APL-0411 if a node that leaves does not answer, and a blob that a kept generation or a pushed name needs is on
    no node that answers. With --fetch it also ends with APL-0411 if such a blob could not be fetched.
    """
    from appliance.agent.client import AgentClient, AgentDown

    config = load(config_file or DEFAULT_PATH)
    try:
        shown = AgentClient(config.agent_socket).leaving(staying, fetch=fetch)
    except AgentDown as problem:
        agent_down(config, problem)
    show(shown, as_json, _leaving_text)
    lost = shown["at_risk"] + (shown["only_there"] if fetch else [])
    if lost and not anyway:
        names = sorted({name for blob in lost for name in blob["names"]})
        older = sum(not blob["served"] for blob in lost)
        silent = [node for node in shown["leaving"] if node in shown["silent"]]
        fail(
            "APL-0411",
            "a node that leaves may be the only holder of a blob",
            where=", ".join(shown["leaving"]),
            why=f"{len(lost)} blobs of {', '.join(names[:10])}{' and more' if len(names) > 10 else ''} are on no other node"
            + _of_older(older, len(lost))
            + (f", and {', '.join(silent)} does not answer" if silent else "")
            + "".join(f"; {problem}" for problem in shown.get("failed", [])[:3]),
            fix="Nothing was changed. Bring it back until the others have what it holds, or bring the images on a medium;"
            " with -e mirror_remove_anyway=yes (--anyway) they are given up",
        )


COMMANDS = (leaving, take_over)


def _of_older(older: int, lost: int) -> str:
    """Return a clause about pulls: blobs that only a rollback would need do not affect them."""
    if older == lost:
        return " (all for older generations alone: what is served now stays whole)"
    return f" ({older} for older generations alone)" if older else ""


def _leaving_text(shown: dict[str, Any]) -> str:
    lines = [f"{node} leaves{', and does not answer' if node in shown['silent'] else ''}" for node in shown["leaving"]]
    for key, words in (("only_there", "only there"), ("at_risk", "at risk")):
        lines += [
            f"  {words}: {blob['digest']}  {size_words(blob['size'])}  {' '.join(blob['names'])}"
            f"{'' if blob['served'] else '  (for older generations alone)'}"
            for blob in shown[key]
        ]
    return "\n".join(lines) or "every listed node stays"
