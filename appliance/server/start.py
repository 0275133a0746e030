"""Start of one of a node's units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from appliance import logs
from appliance.registry.repeats import Repeats

if TYPE_CHECKING:
    import ssl

    from appliance.config import LiveConfig
    from appliance.server.sdnotify import Handed


def serve_unit(
    name: Literal["mirror", "peer", "agent"],
    current: LiveConfig,
    handed: Handed | None = None,
    *,
    socket_unit: bool = False,
) -> None:
    """Serve one of a node's units until a signal ends it.

    ``mirror`` is the local listener, ``peer`` the listener for other nodes (mutual TLS where the site has a PKI), and
    ``agent`` one process behind a unix socket that only this user may open.

    :param handed: what systemd handed over.
    :param socket_unit: whether the mirror serves on a socket unit's socket and on no other.
    """
    logs.install(service=True)
    config = current.get()
    # Here and not in the worker: what one of them is asked for, all have to know.
    repeats = Repeats()

    def make() -> Any:
        # Imported in the worker, after gevent has patched it: ssl and threads must not have been taken in before.
        from appliance.server import wiring

        return wiring.agent(current) if name == "agent" else wiring.LISTENERS[name](current, repeats)

    def report(events: dict[str, Any]) -> None:
        from appliance.agent.client import AgentClient

        AgentClient(config.agent_socket).report(name, events)

    def tls() -> ssl.SSLContext:
        from appliance.trust import server_context

        assert config.pki is not None
        return server_context(config.pki)

    # Each reads in what it runs on: the agent has no use for gunicorn.
    if name == "agent":
        from appliance.server import unix_server

        unix_server.serve(config.agent_socket, make)
        return
    from appliance.server.gunicorn_server import Server

    if name == "peer":
        Server(
            config.peer_listen,
            make,
            workers=config.peer_workers,
            tls=tls if config.pki else None,
            report=report,
            listed=lambda: current.get().hosts,
            handed=handed,
        ).run()
    else:
        Server(
            config.mirror_listen,
            make,
            workers=config.workers,
            report=report,
            handed=handed,
            handed_only=socket_unit,
        ).run()
