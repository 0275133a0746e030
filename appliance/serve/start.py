"""Starting one of a node's units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import ssl

    from appliance.config import CurrentConfig


def serve_unit(name: Literal["mirror", "peer", "agent"], current: CurrentConfig) -> None:
    """Serve one of a node's units until a signal ends it.

    ``mirror`` is the local listener, ``peer`` the listener for other nodes (mutual TLS where the site has a PKI), and
    ``agent`` one process behind a unix socket that only this user may open.
    """
    config = current.get()

    def make() -> Any:
        # Imported in the worker, after gevent has patched it: ssl and threads must not have been taken in before.
        from appliance.serve import units

        return units.APPLICATIONS[name](current)

    def tls() -> ssl.SSLContext:
        from appliance.trust import server_context

        assert config.pki is not None
        return server_context(config.pki)

    # Each reads in what it runs on: the agent has no use for gunicorn.
    if name == "agent":
        from appliance.serve import alone

        alone.serve(config.agent_socket, make)
        return
    from appliance.serve.server import Server

    if name == "peer":
        Server(config.peer_listen, make, workers=config.peer_workers, tls=tls if config.pki else None).run()
    else:
        Server(config.mirror_listen, make, workers=config.workers).run()
