"""``appliance serve``: a mirror with its agent as plain processes, for development, tests and the small demo."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from appliance.config import Config, LiveConfig, Peer
from appliance.server.start import serve_unit


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
    current = LiveConfig(config)
    # One that a killed agent left behind says that there is one, and refuses whoever believes it.
    config.agent_socket.unlink(missing_ok=True)
    # gunicorn sets its own handlers once it is there; until then a signal has to end the agent as well.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    agent = os.fork()
    if agent == 0:
        serve_unit("agent", current)
        return
    with _ended_with_this_process(agent):
        serve_unit("peer", current)


@contextlib.contextmanager
def _ended_with_this_process(child: int) -> Iterator[None]:
    """End a child process when this process leaves the block; processes that were forked in it leave the child alone."""
    me, handle = os.getpid(), os.pidfd_open(child)
    try:
        yield
    finally:
        # gunicorn's workers are forked in the block, and their SystemExit passes here too.
        if os.getpid() == me:
            # By its descriptor: gunicorn reaps every child, so the number may be another process's by now.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGTERM)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)


def _end(number: int, frame: Any) -> NoReturn:
    sys.exit(0)
