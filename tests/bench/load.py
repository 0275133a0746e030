"""Many small requests, by wrk: it is in C and needs a fraction of what the fastest server here does."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import Failed
from tests.bench.servers import Server

CONNECTIONS = 16
_SCRIPT = Path(__file__).with_name("load.lua")
_RESULT = re.compile(r"^RESULT (\d+) (\d+) (\d+) (\d+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Load:
    """What one turn of requests found.

    :param requests: how many were answered.
    :param rate: answers in a second.
    :param p50: median of the times to an answer, in milliseconds.
    :param p99: 99th percentile of them, in milliseconds.
    :param cpu: processor time of the server for one answer, in microseconds.
    """

    requests: int
    rate: float
    p50: float
    p99: float
    cpu: float


def press(server: Server, path: str, seconds: int) -> Load:
    """Ask for one path over :data:`CONNECTIONS` connections that stay open, each with its next request at once.

    :raises Failed: when a single answer was missing or none of the 2xx kind.
    """
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "-s", str(_SCRIPT)]
    before = server.child.cpu_seconds()
    done = subprocess.run(
        [*words, f"http://127.0.0.1:{server.port}{path}"], capture_output=True, text=True, check=False
    )
    used = server.child.cpu_seconds() - before
    match = _RESULT.search(done.stdout)
    if match is None or done.returncode != 0:
        raise Failed(f"wrk: {done.stdout}{done.stderr}")
    requests, duration, p50, p99, errors = map(int, match.groups())
    if errors or not requests:
        raise Failed(f"{path} of {server.name}: {errors} of {requests} requests failed")
    return Load(requests, requests / duration * 1e6, p50 / 1000, p99 / 1000, used / requests * 1e6)
