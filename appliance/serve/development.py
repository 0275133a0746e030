"""``appliance serve``: a mirror with its agent as plain processes, for development, tests and the small demo."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from appliance.config import Config, CurrentConfig, Peer
from appliance.serve.start import serve_unit


def configuration(
    directory: Path,
    listen: str,
    peers: Sequence[str],
    *,
    publisher: bool,
    workers: int = 1,
    push_users: Path | None = None,
    scrub_rate: int = 0,
) -> Config:
    """The configuration of a node without a site: its id is where it listens, its peers are URLs."""
    me = Peer(id=listen, url=f"http://{listen}", address=listen, seed=publisher)
    others = tuple(Peer(id=urlsplit(url).netloc, url=url.rstrip("/"), address=urlsplit(url).netloc) for url in peers)
    return Config(
        node=listen,
        store=directory,
        peers=(me, *others),
        # A follower takes generations from anybody; any name but its own says that it is not the publisher.
        seeds=(listen,) if publisher else tuple(peer.id for peer in others),
        mirror_copies=1,
        agent_socket=(directory / "agent.sock").absolute(),
        peer_listen=listen,
        free_percent=0,
        peer_workers=workers,
        push_users=push_users,
        scrub_rate=scrub_rate,
    )


def run(
    directory: Path,
    listen: str,
    peers: Sequence[str],
    *,
    publisher: bool,
    workers: int = 1,
    push_users: Path | None = None,
    scrub_rate: int = 0,
) -> None:
    """Serve until a signal ends it; the registry and the peers' routes on one plain listener."""
    directory.mkdir(parents=True, exist_ok=True)
    config = configuration(
        directory,
        listen,
        peers,
        publisher=publisher,
        workers=workers,
        push_users=push_users,
        scrub_rate=scrub_rate,
    )
    current = CurrentConfig(config)
    # One that a killed agent left behind says that there is one, and refuses whoever believes it.
    config.agent_socket.unlink(missing_ok=True)
    agent = multiprocessing.get_context("spawn").Process(target=serve_unit, args=("agent", current))
    agent.start()
    try:
        serve_unit("peer", current)
    finally:
        if agent.pid is not None and agent.is_alive():
            agent.terminate()
        agent.join()
