"""Commands on keys and certificates. The role ``mirror`` calls them; an operator rarely needs them."""

from __future__ import annotations

from pathlib import Path

import click

_DIRECTORY = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)
_NODE = click.option("--node", required=True, help="Id of the node (inventory_hostname).")
_ADDRESS = click.option("--address", required=True, help="Address of the node.")


@click.group("pki")
def group() -> None:
    """Manage the site's own certificate authority."""


@group.command("init-ca")
@click.argument("directory", type=_DIRECTORY)
@click.option("--site", default="site", help="Name of the site, for people who read the certificate.")
def init_ca(directory: Path, site: str) -> None:
    """Create the site's CA in DIRECTORY on the controller, once. Prints 'created' or 'unchanged'."""
    from appliance import pki

    click.echo("created" if pki.init_ca(directory, site) else "unchanged")


@group.command()
@_NODE
@_ADDRESS
@click.option("--dir", "directory", required=True, type=_DIRECTORY, help="Directory of the node's key.")
def request(node: str, address: str, directory: Path) -> None:
    """Create this node's key and signing request. Prints 'changed' or 'unchanged'."""
    from appliance import pki

    click.echo("changed" if pki.request(directory, node, address) else "unchanged")


@group.command()
@click.option("--ca", required=True, type=_DIRECTORY, help="Directory of the CA.")
@click.option("--csr", required=True, type=_FILE, help="The node's signing request.")
@click.option("--out", required=True, type=_FILE, help="File for the certificate.")
@_NODE
@_ADDRESS
def sign(ca: Path, csr: Path, out: Path, node: str, address: str) -> None:
    """Sign a node's request, on the controller. Prints 'changed' or 'unchanged'."""
    from appliance import pki

    click.echo("changed" if pki.sign(ca, csr, out, node, address) else "unchanged")


COMMANDS = (group,)
