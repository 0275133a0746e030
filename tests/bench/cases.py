"""What is measured. Every case takes the servers in turns, first ours and then theirs first, and keeps each figure."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from appliance.oci.mediatypes import OCI_MANIFEST
from tests.bench.load import CONNECTIONS, Load, press
from tests.bench.processes import Child, Failed, peak_pss
from tests.bench.pushes import Layer, push
from tests.bench.report import Goal, Result
from tests.bench.scale import Scale
from tests.bench.servers import Server, Site
from tests.bench.sinks import Address, digest, download, downloading

T = TypeVar("T")
_GIB, _MIB, _MB = 1 << 30, 1 << 20, 10**6
_NEXT = re.compile(r'<([^>]+)>; *rel="next"')


@dataclass(frozen=True)
class Blob:
    """A blob on one server."""

    server: Server
    address: Address


@dataclass
class Transfer:
    """Figures of one server's downloads, one for each repetition; ``peak`` in bytes."""

    rate: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: int = 0


def blobs(
    case: str, items: Sequence[Blob], clients: int, size: int, repetitions: int, goals: Mapping[tuple[str, str], Goal]
) -> list[Result]:
    """One blob, ``clients`` at once: throughput, processor time and peak memory of each server.

    :param items: ours first.
    :param goals: by peer's name and measure.
    """
    # About two seconds for a turn of the fastest.
    times = max(1, round(6 / clients)) if size >= 256 * _MIB else 4
    found = {item.server.name: Transfer() for item in items}
    for item in items:
        download(item.address, clients, 1)
    for item in _turns(items, repetitions):
        before = item.server.child.cpu_seconds()
        received, seconds = download(item.address, clients, times)
        used = item.server.child.cpu_seconds() - before
        found[item.server.name].rate.append(received / _MIB / seconds)
        found[item.server.name].cpu.append(used / (received / _GIB))
    for item in items:
        # In a turn of its own: looking costs the server time.
        with peak_pss(item.server.child) as peak:
            download(item.address, clients, times)
        found[item.server.name].peak = peak[0]
    ours = found[items[0].server.name]
    results = []
    for item in items[1:]:
        peer, theirs = item.server.name, found[item.server.name]
        rows: list[tuple[str, str, Sequence[float], Sequence[float]]] = [
            ("throughput", "MiB/s", ours.rate, theirs.rate),
            ("processor time", "s/GiB", ours.cpu, theirs.cpu),
            ("peak memory", "MiB", [ours.peak / _MIB], [theirs.peak / _MIB]),
        ]
        results += [
            Result(case, measure, unit, peer, mine, other, goals.get((peer, measure)))
            for measure, unit, mine, other in rows
        ]
    return results


def check_blobs(items: Sequence[Blob], expected: str) -> None:
    """Every server sends the same bytes, or the figures would compare different things."""
    for item in items:
        if (found := digest(item.address)) != expected:
            raise Failed(f"{item.server.name} sent {found}, not {expected}")


def manifests(servers: Sequence[Server], path: str, seconds: int, repetitions: int) -> list[Result]:
    """A manifest by its tag while nothing else happens; ours is the first of the servers."""
    found: dict[str, list[Load]] = {server.name: [] for server in servers}
    for server in servers:
        press(server, path, 1)
    for server in _turns(servers, repetitions):
        found[server.name].append(press(server, path, seconds))
    return _loads(f"manifest by tag, {CONNECTIONS} connections", found)


def manifests_beside_blobs(
    items: Sequence[Blob], path: str, seconds: int, repetitions: int, clients: int = 4
) -> list[Result]:
    """A manifest by its tag while some clients download blobs from the same server."""
    found: dict[str, list[Load]] = {item.server.name: [] for item in items}
    rates: dict[str, list[float]] = {item.server.name: [] for item in items}
    for item in _turns(items, repetitions):
        with downloading(item.address, clients) as received:
            before, begun = received(), time.perf_counter()
            found[item.server.name].append(press(item.server, path, seconds))
            rates[item.server.name].append((received() - before) / _MIB / (time.perf_counter() - begun))
    case = f"the same beside {clients} downloads"
    ours, *others = rates
    rows = [Result(case, "the downloads' throughput", "MiB/s", name, rates[ours], rates[name]) for name in others]
    return [*_loads(case, found), *rows]


def _loads(case: str, found: Mapping[str, list[Load]]) -> list[Result]:
    (_, ours), *others = found.items()
    results = []
    for name, theirs in others:
        rows: list[tuple[str, str, Callable[[Load], float], Goal | None]] = [
            ("answers", "/s", lambda load: load.rate, Goal(5, "least")),
            ("processor time", "µs each", lambda load: load.cpu, None),
            ("p50", "ms", lambda load: load.p50, None),
            ("p99", "ms", lambda load: load.p99, Goal(0.5, "most")),
        ]
        results += [
            Result(case, measure, unit, name, [*map(figure, ours)], [*map(figure, theirs)], goal)
            for measure, unit, figure, goal in rows
        ]
    return results


@dataclass(frozen=True)
class Target:
    """A server that takes pushes.

    :param address: with the path of a repository.
    :param blobs: where its blobs lie; what was pushed is taken away again from there.
    """

    server: Server
    address: Address
    authorization: str | None
    blobs: Path


def pushes(
    case: str, targets: Sequence[Target], layer: Layer, repetitions: int, goal: Goal | None, *, streamed: bool
) -> list[Result]:
    """One blob that no server has: until it is answered that it is there, which only ours makes durable before."""
    rates: dict[str, list[float]] = {target.server.name: [] for target in targets}
    used: dict[str, list[float]] = {target.server.name: [] for target in targets}
    peaks = {target.server.name: 0 for target in targets}
    for number, target in enumerate(_turns(targets, repetitions + 1)):
        fresh, digest = layer.anew()
        # What others wrote is on the disk before anybody's time begins to count.
        os.sync()
        before = target.server.child.cpu_seconds()
        with contextlib.ExitStack() as stack:
            # The first turn counts for memory alone: looking costs the server time.
            looking = number < len(targets)
            peak = stack.enter_context(peak_pss(target.server.child)) if looking else [0]
            seconds = push(target.address, fresh, digest, target.authorization, streamed=streamed)
        name = target.server.name
        if looking:
            peaks[name] = peak[0]
        else:
            rates[name].append(layer.size / _MIB / seconds)
            used[name].append((target.server.child.cpu_seconds() - before) / (layer.size / _GIB))
        (found,) = [path for path in target.blobs.rglob("*") if path.is_file() and path.stat().st_size == layer.size]
        found.unlink()
    ours, *others = rates
    results = []
    for name in others:
        results += [
            Result(case, "throughput", "MiB/s", name, rates[ours], rates[name], goal),
            Result(case, "processor time", "s/GiB", name, used[ours], used[name]),
            Result(case, "peak memory", "MiB", name, [peaks[ours] / _MIB], [peaks[name] / _MIB]),
        ]
    return results


def listing(
    case: str, ours: Server, theirs: Server, path: str, key: str, expected: int, repetitions: int, goal: Goal
) -> list[Result]:
    """Time to read a list whole, page after page as the server links them."""
    found: dict[str, list[float]] = {ours.name: [], theirs.name: []}
    for server in (ours, theirs):
        # Every worker has read what is current then.
        press(server, f"{path}?n=1", 1)
    for server in _turns((ours, theirs), repetitions):
        begun = time.perf_counter()
        _read_list(server.port, path, key, expected)
        found[server.name].append((time.perf_counter() - begun) * 1000)
    return [Result(case, "time", "ms", theirs.name, found[ours.name], found[theirs.name], goal)]


def _read_list(port: int, path: str, key: str, expected: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with contextlib.closing(connection):
        items: list[str] = []
        # What docker-registry sends at most in one page of its catalog.
        following: str | None = f"{path}?n=1000"
        while following:
            connection.request("GET", following)
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise Failed(f"{following} on port {port}: {response.status} {body[:300]!r}")
            items += json.loads(body)[key]
            link = _NEXT.search(response.headers.get("Link") or "")
            following = link[1] if link else None
    if len(items) != expected or len(set(items)) != expected:
        raise Failed(f"{path} on port {port}: {len(items)} items, {expected} expected")


def start_to_ready(
    case: str,
    ours: Callable[[], tuple[Child, int]],
    theirs: tuple[str, Callable[[], tuple[Child, int]]],
    path: str,
    repetitions: int,
) -> list[Result]:
    """Time from starting a server until it has answered a request for a manifest.

    :param ours: starts one; gives it and its port.
    """
    found: dict[str, list[float]] = {"": [], theirs[0]: []}
    for name, start in _turns((("", ours), theirs), repetitions):
        begun = time.perf_counter()
        child, port = start()
        with child:
            _await_answer(child, port, path)
            found[name].append(time.perf_counter() - begun)
    return [Result(case, "time", "s", theirs[0], found[""], found[theirs[0]], Goal(1, "most", of="ours"))]


def _await_answer(child: Child, port: int, path: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        child.require_alive()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
        with contextlib.closing(connection), contextlib.suppress(ConnectionRefusedError):
            connection.request("GET", path, headers={"Accept": OCI_MANIFEST})
            response = connection.getresponse()
            if response.status == 200:
                return
            raise Failed(f"{path} on port {port}: {response.status} {response.read(300)!r}")
        # A port has no event to wait for; two milliseconds are a hundredth of what is measured.
        time.sleep(0.002)
    raise Failed(f"port {port} did not answer in {seconds} s: {child.log[-2000:]}")


def memory(case: str, site: Site, path: str, theirs: Server, scale: Scale) -> list[Result]:
    """Memory of a node's three units at rest, after every worker has answered; and what many pulls add to it."""
    seconds = min(2, scale.load_seconds)

    def settled(child: Child) -> int:
        # "At rest" is a state and has no event; this long after the last answer it is looked at, in every server alike.
        time.sleep(scale.rest_seconds)
        return child.pss()

    with ExitStack() as stack:
        agent = stack.enter_context(site.unit("agent"))
        mirror, peer = site.serve("mirror", stack), site.serve("peer", stack)
        for address in (Address(mirror.port, path), Address(peer.port, path, site.client_tls())) * CONNECTIONS:
            download(address, 1, 1)
        rest = {
            name: settled(unit) for name, unit in (("agent", agent), ("mirror", mirror.child), ("peer", peer.child))
        }
        press(mirror, path, seconds)
        before, done = settled(mirror.child), 0
        while done < scale.pulls:
            done += press(mirror, path, seconds).requests
        after = settled(mirror.child)
    press(theirs, path, 1)
    whole, goal = sum(rest.values()) / _MB, Goal(150, "most", of="ours")
    pulls, grown = f"mirror after {scale.pulls} pulls", Goal(1.05, "most")
    return [
        Result(case, "three units at rest", "MB", theirs.name, [whole], [settled(theirs.child) / _MB], goal),
        *(Result(case, f"unit {name} at rest", "MB", "", [size / _MB]) for name, size in rest.items()),
        Result(case, pulls, "MB", "before", [after / _MB], [before / _MB], grown),
    ]


def _turns(items: Sequence[T], repetitions: int) -> Iterator[T]:
    """Each item once in every repetition, in an order that turns round, so that none always comes after the same."""
    for repetition in range(repetitions):
        yield from items if repetition % 2 == 0 else reversed(items)
