"""Commands ``unit`` and ``serve``, which run the three services of a node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import click

from appliance.config import DEFAULT_PATH, LiveConfig, load


@click.command()
@click.argument("name", type=click.Choice(["mirror", "peer", "agent"]))
@click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), default=DEFAULT_PATH)
@click.option("--socket-unit", is_flag=True, help="Serve the mirror on the socket of a socket unit, and on no other.")
def unit(name: Literal["mirror", "peer", "agent"], config_file: Path, socket_unit: bool) -> None:
    """Run one of the node's units; systemd calls this."""
    from appliance.server.sdnotify import Handed

    handed = Handed()
    with handed.down_on_failure():
        from appliance.server.start import serve_unit

        serve_unit(name, LiveConfig(load(config_file), config_file), handed, socket_unit=socket_unit)


@click.command()
@click.option("--store", "directory", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--listen", required=True, metavar="HOST:PORT", help="Address of the registry and of the routes for peers."
)
@click.option("--peer", "peers", multiple=True, metavar="URL", help="Another 'appliance serve'; may be repeated.")
@click.option(
    "--publisher/--follower",
    default=None,
    help="Whether this process makes generations.  [default: --publisher if it has no peer]",
)
@click.option(
    "--push-users",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Allow pushes by the operators in this file ('appliance hash-password'). Only they may use /v2/ then.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, help="Number of web workers.")
@click.option(
    "--scrub-rate",
    type=click.IntRange(min=0),
    default=0,
    metavar="BYTES",
    help="Bytes a second that the scrubber hashes.",
)
def serve(
    directory: Path,
    listen: str,
    peers: tuple[str, ...],
    publisher: bool | None,
    push_users: Path | None,
    workers: int,
    scrub_rate: int,
) -> None:
    """Serve a store without root and without a site, for development and tests.

    It speaks plain HTTP without client certificates, and accepts unsigned generations from its peers.
    """
    from appliance.server.devserver import run

    is_publisher = not peers if publisher is None else publisher
    run(
        directory,
        listen,
        peers,
        publisher=is_publisher,
        workers=workers,
        push_users=push_users,
        scrub_rate=scrub_rate,
    )


@click.command("hash-password")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of asking for it.")
def hash_password(name: str, password_stdin: bool) -> None:
    """Print the line for 'mirror_push_users' with which operator NAME may push. The password itself is not stored."""
    from appliance.web.auth import line_for

    password: str
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    click.echo(line_for(name, password))


COMMANDS = (unit, serve, hash_password)
