"""Commands that serve: the three units of a node, and one process group for development and tests."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from appliance.config import DEFAULT_PATH, load


@click.command()
@click.argument("name", type=click.Choice(["mirror", "peer", "agent"]))
@click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), default=DEFAULT_PATH)
def unit(name: Literal["mirror", "peer", "agent"], config_file: Path) -> None:
    """Run one of the node's units; systemd calls this."""
    from appliance.serve.start import serve_unit

    serve_unit(name, load(config_file))


@click.command()
@click.option("--store", "directory", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where the registry and the peers' routes answer.")
@click.option("--peer", "peers", multiple=True, metavar="URL", help="Another 'appliance serve'; may be repeated.")
@click.option("--publisher/--follower", default=None, help="Whether it makes generations; default: if it has no peer.")
def serve(directory: Path, listen: str, peers: tuple[str, ...], publisher: bool | None) -> None:
    """Serve a store without root and without a site: for development, tests and trying things out.

    Plain HTTP, no client certificates, generations are taken from the peers unsigned.
    """
    from appliance.serve.development import run

    run(directory, listen, peers, publisher=not peers if publisher is None else publisher)


COMMANDS = (unit, serve)
