"""Wiring of the units: what each serves, put together from the configuration."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

from flask import Flask

from appliance.agent.client import AgentClient, AgentDown
from appliance.config import LiveConfig
from appliance.countedlog import CountedLog
from appliance.peers.routes import PeerRoutes
from appliance.publish.pushes import Publishing, check_publisher
from appliance.registry.push import Pushing
from appliance.registry.read import Registry, create_app
from appliance.registry.repeats import Repeats
from appliance.registry.response_cache import Recent
from appliance.store import schema
from appliance.store.catalog import LiveCatalog
from appliance.store.store import Store
from appliance.web.auth import Operators
from appliance.web.loopback import LoopbackNames
from appliance.web.peer_listener import create_app as create_peer_app

_LOG = logging.getLogger("appliance.mirror")


@dataclass(frozen=True)
class Parts:
    """The pieces that the applications of a node share."""

    store: Store
    catalog: LiveCatalog
    agent: AgentClient
    registry: Registry


def assemble(current: LiveConfig, repeats: Repeats | None = None) -> Parts:
    """Build the pieces from a configuration; the store is made where there is none.

    :param repeats: what clients asked for before, as all workers of a listener know it.
    """
    config = current.get()
    store = Store.open(current)
    schema.prepare(store.blobs)
    catalog = LiveCatalog(store.blobs, store.generations, store.pushes)
    agent = AgentClient(config.agent_socket)
    uploads = store.uploads if config.push_users else None
    registry = Registry(store.blobs, catalog, agent, current.site_addresses, uploads, repeats)
    return Parts(store, catalog, agent, registry)


def mirror(current: LiveConfig, repeats: Repeats) -> Flask:
    """The local listener: plain HTTP for this host's containerd."""
    parts = assemble(current, repeats)
    app = create_app(parts.registry)
    # Here alone: the other listener asks who is calling.
    recent = Recent(app.wsgi_app, parts.catalog, current.get)
    log = CountedLog(_LOG.warning, report=functools.partial(parts.agent.report, "mirror"))
    refused = functools.partial(log.count, "requests with a Host that is not this host's own")
    app.wsgi_app = LoopbackNames(recent, current.get().mirror_listen, refused)  # type: ignore[method-assign]  # Flask's own way
    return app


def peer(current: LiveConfig, repeats: Repeats) -> Flask:
    """The listener for other nodes, and for operators where pushing is on."""
    config, parts = current.get(), assemble(current, repeats)

    def wake() -> None:
        # The agent looks every half-minute anyway; a call it cannot take now is no reason to fail the caller.
        with contextlib.suppress(AgentDown):
            parts.agent.wake()

    routes = PeerRoutes(config, parts.store, parts.catalog, wake, parts.agent.suspect)
    handlers, operators = parts.registry.handlers(), None
    if config.push_users is not None:
        operators = Operators(config.push_users)
        publishing = Publishing(parts.store, parts.catalog)
        pushing = Pushing(
            lambda: check_publisher(current.get(), config.store),
            parts.store.uploads,
            publishing,
            current.site_addresses,
        )
        handlers = pushing.handlers(handlers)
    report = functools.partial(parts.agent.report, "peer")
    return create_peer_app(current, {**handlers, **routes.handlers()}, operators, report)


def agent(current: LiveConfig) -> Flask:
    """The agent; its loops start here."""
    # Taken in here: what it asks its peers with would be memory of each web worker too.
    from appliance.agent.daemon import Agent

    parts = assemble(current)
    running = Agent(current, parts.store, parts.catalog)
    running.run()
    return running.application()


LISTENERS: dict[str, Callable[[LiveConfig, Repeats], Flask]] = {"mirror": mirror, "peer": peer}
