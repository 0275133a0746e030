"""Options of the commands on a store, and functions that open the store and print results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from appliance.config import DEFAULT_PATH, Config, load
from appliance.words import each, json_text, several_lines

if TYPE_CHECKING:
    from appliance.store.store import Store


class Renamed(click.Option):
    """Option with an old name, which still works and is not shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the help without the old name."""
        names, self.opts = self.opts, self.opts[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = names


def _store_of_node(ctx: click.Context, parameter: click.Parameter, directory: Path | None) -> Path:
    """Return the store of the configuration where none was named."""
    if directory is not None:
        return directory
    file: Path | None = ctx.params.get("config_file")
    if file is None and not DEFAULT_PATH.exists():
        raise click.MissingParameter(f"{DEFAULT_PATH} does not exist, so name the store.", ctx, parameter)
    return load(file or DEFAULT_PATH).store


# Read before the store, whose default it names.
CONFIG = click.option(
    "--config",
    "config_file",
    is_eager=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Configuration of the node.  [default: {DEFAULT_PATH}, if it names the store]",
)
STORE = click.option(
    "--store",
    "directory",
    type=click.Path(path_type=Path),
    callback=_store_of_node,
    help="Directory of the store.  [default: the store that the configuration names]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def open_store(directory: Path, config_file: Path | None) -> Store:
    """Open a store, with the node's configuration where it is the node's own; see :func:`config_of`."""
    from appliance.store import schema
    from appliance.store.store import Store

    schema.check(directory)
    return Store.open(replace(config_of(directory, config_file), store=directory))


def open_as_publisher(directory: Path, config_file: Path | None, what: str) -> Store:
    """Open a store as its owner, to change what it names.

    :param what: the error on every node but the publisher (APL-0312).
    """
    from appliance.archives.sandbox import drop_privileges
    from appliance.errors import fail

    drop_privileges(directory)
    store = open_store(directory, config_file)
    if not store.config.is_publisher:
        fail(
            "APL-0312",
            what,
            where=store.config.node,
            why=f"the publisher of this site is {store.config.publisher}",
            fix=f"Run the same on {store.config.publisher}",
        )
    store.blobs.require()
    make_sure(store.config)
    return store


def tell_agent(directory: Path, config_file: Path | None) -> None:
    """Let the agent of the node look now at what was published, and call the others; where there is none it is no error.

    It would see it by itself half a second later.
    """
    from appliance.agent.client import AgentClient, AgentDown

    with contextlib.suppress(AgentDown):
        AgentClient(config_of(directory, config_file).agent_socket).wake()


def make_sure(config: Config, without: Collection[str] = ()) -> None:
    """On the publisher, let the agent ask the other nodes, and refuse if one has or may have newer names.

    See :func:`appliance.store.readiness.make_sure`.

    :param without: ids of nodes that are not waited for.
    """
    from appliance.agent.client import AgentClient, AgentDown
    from appliance.store.readiness import make_sure as run

    def look() -> dict[str, Any]:
        try:
            return AgentClient(config.agent_socket).look(without)
        except AgentDown as problem:
            raise ConnectionError(str(problem)) from problem

    if config.is_publisher:
        run(config.store, config, look)


def config_of(directory: Path, config_file: Path | None) -> Config:
    """The node's configuration where this is the node's store; elsewhere a store of its own, without a site."""
    if config_file is not None:
        return load(config_file)
    if DEFAULT_PATH.exists():
        config = load(DEFAULT_PATH)
        if config.store.resolve() == directory.resolve():
            return config
    # Where 'appliance serve' has its agent, if one serves this store.
    return Config(node="local", store=directory, agent_socket=directory.absolute() / "agent.sock")


def agent_down(config: Config, problem: Exception) -> NoReturn:
    """Say that the agent does not answer (APL-0402)."""
    from appliance.errors import fail

    fail(
        "APL-0402",
        "the agent of this node does not answer",
        where=config.node,
        why=str(problem),
        fix="Run this as root; see 'systemctl status appliance-agent'",
    )


def show(value: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    """Print a result as one JSON document, exact, or as text.

    :param text: makes text of the result and of nothing else: words of media, peers and clients that are in it are one line
        each by then.
    """
    click.echo(json_text(value, indent=2) if as_json else several_lines(text(each(value))))
