"""Conversations with peers over real connections: each has an end, whatever the peer does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.peers.transport import ANSWER_SECONDS
from tests.keys import site_keys
from tests.unit.peers import badpeers
from tests.unit.peers.badpeers import BadPeers

WAYS = [
    badpeers.handshake_drips,
    badpeers.hello_requests,
    badpeers.tickets_have_no_end,
    badpeers.head_drips,
    badpeers.body_drips,
    badpeers.record_drips,
    badpeers.continues_slowly,
    badpeers.continues_fast,
    badpeers.trailer_has_no_end,
    badpeers.body_has_no_end,
]


def keys(root: Path) -> Path:
    """Make a site's authority and the keys of nodes a and b; returns their parent."""
    return site_keys(root, "a", "b", address="127.0.0.1")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The report of a process that has asked them all at once."""
    root = keys(tmp_path_factory.mktemp("keys"))
    peers = BadPeers(root / "b", *WAYS, badpeers.honest)
    ports = [f"{name}={port}" for name, port in peers.ports.items()]
    try:
        words = [sys.executable, "-m", "tests.unit.peers.asking", str(root / "a"), *ports]
        yield json.loads(subprocess.run(words, capture_output=True, check=True, timeout=30).stdout)
    except subprocess.TimeoutExpired:
        yield {"took": {}, "errors": {}, "stalled": 30}
    finally:
        peers.close()


@pytest.mark.parametrize("way", [way.__name__ for way in WAYS])
def test_every_conversation_has_an_end(asked: dict[str, Any], way: str) -> None:
    """Drips are below the time-outs on silence; what comes fast leaves gevent's loop no turn."""
    assert way in asked["errors"]
    assert asked["took"][way] < ANSWER_SECONDS + 0.5


def test_the_others_are_asked_meanwhile(asked: dict[str, Any]) -> None:
    assert "honest" not in asked["errors"]
    assert asked["took"]["honest"] < ANSWER_SECONDS
    assert asked["stalled"] < 1
