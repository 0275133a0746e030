"""A process like the agent's, with gevent's sockets: asks several peers at once, and says how long each took.

Arguments: the directory of its keys, and for each peer its name and port. Printed is one JSON document.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()
# ruff: noqa: E402 - what follows finds gevent's sockets

import json
import sys
import time
from pathlib import Path

import gevent

from appliance.config import Config, LiveConfig, Peer
from appliance.peers.https import HttpsTransport
from appliance.peers.transport import PeerError

PATIENCE = 8.0
TICK = 0.05


def main(pki: str, *named: str) -> None:
    """Ask them all."""
    listed = {name: Peer("b", f"https://127.0.0.1:{port}", name) for name, port in (item.split("=") for item in named)}
    peers = HttpsTransport(LiveConfig(Config("a", Path("/s"), tuple(listed.values()), pki=Path(pki))))
    took: dict[str, float] = {}
    errors: dict[str, str] = {}
    stalls = [0.0]

    def ask(name: str, peer: Peer) -> None:
        begun = time.monotonic()
        try:
            peers.ask(peer, "GET", "/p2p/v1/ping")
        except PeerError as error:
            errors[name] = str(error)
        took[name] = time.monotonic() - begun

    def tick() -> None:
        while True:
            begun = time.monotonic()
            gevent.sleep(TICK)
            stalls.append(time.monotonic() - begun - TICK)

    gevent.spawn(tick)
    gevent.joinall([gevent.spawn(ask, *item) for item in listed.items()], timeout=PATIENCE)
    print(json.dumps({"took": took, "errors": errors, "stalled": max(stalls)}), flush=True)


main(*sys.argv[1:])
