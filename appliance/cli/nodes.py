"""Commands on the list of nodes: take-over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from appliance.cli.opened import CONFIG, JSON, make_sure, show
from appliance.config import DEFAULT_PATH, load
from appliance.errors import fail


@click.command("take-over")
@CONFIG
@JSON
@click.option(
    "--without",
    multiple=True,
    metavar="NODE",
    help="Do not wait for this node's answer: a generation, or pushes, that it alone has are given up.",
)
def take_over(config_file: Path | None, as_json: bool, without: tuple[str, ...]) -> None:
    """Make sure that this publisher has the newest that any node has, so that it may publish.

    The agent does so by itself as soon as every listed node answers. Run this, with --without, where one never will.
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
    show(shown, as_json, lambda _: f"{config.node} is the publisher, and nothing newer is known")


COMMANDS = (take_over,)
