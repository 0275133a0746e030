"""The command ``appliance``.

Exit codes: 0 done, 1 failed (one line on standard error, with its id), 2 wrong usage. Results go to standard output;
``--json`` prints one document there.

Commands import what they need when they run: a server must not have loaded ``ssl`` before gevent patches it, and
``--help`` must not wait for any of it.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

from appliance import __version__, logs
from appliance.actor import actor
from appliance.cli import backup, gc, health, history, images, nodes, pki, prove, seeding, serve
from appliance.errors import ApplianceError, system_error
from appliance.words import json_text, several_lines


class _Group(click.Group):
    """Turns the appliance's errors into one line, or one JSON document, and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ApplianceError as error:
            stop(error)
        except click.UsageError as error:
            # A pattern of the shell may have made an argument of a file's name.
            text = error.format_message()
            if text == several_lines(text):
                raise
            raise click.UsageError(several_lines(text), error.ctx) from None
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            stop(system_error(error))


def stop(error: ApplianceError) -> NoReturn:
    """Print an error the way scripts and people expect it, and exit with 1."""
    click.echo(str(error), err=True)
    if "--json" in sys.argv:
        click.echo(json_text({"message_type": "exit_error", **error.as_dict()}), err=True)
    sys.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="appliance")
def main() -> None:
    """Mirror, seeding and verification for an air-gapped K3s site."""
    logs.install()
    _restrain_umask()
    # Before a command gives up its rights: the audit log names who called, not whom it became.
    actor()


def _restrain_umask() -> None:
    """Let nobody but this user write what is made from here on, and this user all of it, whatever umask the caller has.

    A service sets its own, which is stricter.
    """
    given = os.umask(0o077)
    os.umask((given | 0o022) & 0o077)


for module in (seeding, history, images, health, nodes, gc, prove, serve, pki, backup):
    for command in module.COMMANDS:
        main.add_command(command)
