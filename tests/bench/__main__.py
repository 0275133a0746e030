"""``python -m tests.bench``: measure, print the table, write the JSON. ``make bench`` runs it.

Needs Linux, root, and docker-registry, nginx and wrk (``tests/bench/setup.sh``). With ``BENCH_QUICK`` set, or
``--quick``, it runs small and once, to show that it works.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.bench import cases, report, seeding
from tests.bench.content import Layout, docker_registry_tree
from tests.bench.medium import Unavailable
from tests.bench.processes import Child, Failed, free_port
from tests.bench.pushes import Layer as PushedLayer
from tests.bench.report import Goal, Result
from tests.bench.scale import FULL, QUICK, Scale
from tests.bench.servers import (
    DOCKER_REGISTRY,
    PUBLISHER,
    Site,
    development,
    docker_registry,
    docker_registry_command,
    nginx,
)
from tests.bench.sinks import Address

_BIG, _TAGS, _SMALL_LAYER = "bench/big", "bench/tags", 1 << 20
_PLAIN_GOALS = {
    (DOCKER_REGISTRY, "throughput"): Goal(1, "least"),
    ("nginx", "throughput"): Goal(0.95, "least"),
    ("nginx", "processor time"): Goal(1.25, "most"),
}
# 200 MB/s is a fast USB 3 stick; a slower one makes the ratio smaller.
_STICK = 200_000_000
_TLS_GOALS = {("nginx", "throughput"): Goal(250, "least", of="ours")}
GROUPS = ("blobs", "tls", "manifests", "push", "seeding", "tags", "images", "memory")


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for; 0 when all of it could be measured, whatever the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the mirror beside its peers.")
    parser.add_argument("--quick", action="store_true", default=bool(os.environ.get("BENCH_QUICK")))
    parser.add_argument("--only", action="append", choices=GROUPS, help="a group of cases; may be repeated")
    parser.add_argument("--seed-mib", type=int, help="MiB of the image that is seeded, instead of the usual")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="where the results go")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scale = QUICK if options.quick else FULL
    if options.seed_mib:
        scale = replace(scale, seed_bytes=options.seed_mib << 20)
    root = Path(tempfile.mkdtemp(prefix="apl-bench-"))
    try:
        with ExitStack() as stack:
            results = run(root, scale, options.only or GROUPS, stack)
    except Failed as problem:
        print(problem, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(root, ignore_errors=True)
    report.write(options.json, results, quick=options.quick, versions=versions())
    if options.quick:
        print("a quick run: its figures say nothing, so no goal is held against them")
    print(report.table(results, goals=not options.quick))
    return 0


def run(root: Path, scale: Scale, groups: Sequence[str], stack: ExitStack) -> list[Result]:
    """Measure some groups of cases under an empty directory; every server is stopped when ``stack`` is closed."""
    results: list[Result] = []
    if {"blobs", "tls", "manifests", "memory"} & set(groups):
        with ExitStack() as servers:
            results += _one_image(root / "one", scale, groups, servers)
    if "push" in groups:
        with ExitStack() as servers:
            results += _pushes(root / "push", scale, servers)
    if "seeding" in groups:
        archives = seeding.archives(root / "archives", scale.seed_bytes)
        for archive in archives:
            results += _say(seeding.measure(root / "archives", archive, scale.seedings))
        try:
            results += _say(seeding.measure_from_medium(root / "archives", archives[0], _STICK, scale.seedings))
        except Unavailable as problem:
            print(f"seeding from a stick was not measured: {problem}", file=sys.stderr)
        shutil.rmtree(root / "archives")
    if "tags" in groups:
        with ExitStack() as servers:
            results += _tags(root / "tags", scale, servers)
    if {"images", "memory"} & set(groups):
        with ExitStack() as servers:
            results += _images(root / "images", scale, groups, servers)
    return results


def _one_image(root: Path, scale: Scale, groups: Sequence[str], stack: ExitStack) -> list[Result]:
    def fill(layout: Layout) -> None:
        layer = layout.layer(scale.blob_bytes)
        layout.image(_BIG, "1", layout.config(layer), layer)

    site, layout = _site(root, fill)
    blob = layout.images[0].blobs[1]
    manifest = f"/v2/{_BIG}/manifests/1"
    path, file = f"/v2/{_BIG}/blobs/{blob}", "/blobs/" + blob.replace(":", "/")
    registry = docker_registry(root / "registry", stack)
    nginx_plain, nginx_tls = nginx(root / "nginx", site, stack)
    results: list[Result] = []
    with ExitStack() as units:
        mirror = site.serve("mirror", units)
        plain = [
            cases.Blob(mirror, Address(mirror.port, path)),
            cases.Blob(registry, Address(registry.port, path)),
            cases.Blob(nginx_plain, Address(nginx_plain.port, file)),
        ]
        cases.check_blobs(plain, blob)
        size = scale.blob_bytes
        if "blobs" in groups:
            for clients in (1, 4):
                case = f"blob over HTTP, {_clients(clients)}"
                results += _say(cases.blobs(case, plain, clients, size, scale.repetitions, _PLAIN_GOALS))
        if "tls" in groups:
            peer = site.serve("peer", units)
            secure = [
                cases.Blob(peer, Address(peer.port, path, site.client_tls())),
                cases.Blob(nginx_tls, Address(nginx_tls.port, file, site.client_tls())),
            ]
            cases.check_blobs(secure, blob)
            for clients in (1, 4):
                case = f"blob over mutual TLS, {_clients(clients)}"
                goals = _TLS_GOALS if clients == 1 else {}
                results += _say(cases.blobs(case, secure, clients, size, scale.repetitions, goals))
        if "manifests" in groups:
            seconds = scale.load_seconds
            results += _say(cases.manifests((mirror, registry), manifest, seconds, scale.repetitions))
            results += _say(cases.manifests_beside_blobs(plain[:2], manifest, seconds, scale.repetitions))
    if "memory" in groups:
        results += _say(cases.memory("memory, one image", site, manifest, registry, scale))
    return results


def _pushes(root: Path, scale: Scale, stack: ExitStack) -> list[Result]:
    root.mkdir()
    site, path = Site(root / "site"), "/v2/bench/push/"
    layer = PushedLayer.make(root / "layer", scale.push_bytes)
    plain = development(root / "plain", site, 2, stack)
    registry = docker_registry(_directory(root / "registry"), stack)
    stack.enter_context(site.unit("agent"))
    peer = site.serve("peer", stack)
    tls = docker_registry(_directory(root / "tls"), stack, site.pki(PUBLISHER))
    bare = [
        cases.Target(plain, Address(plain.port, path), site.authorization, root / "plain" / "blobs"),
        cases.Target(registry, Address(registry.port, path), None, root / "registry" / "storage"),
    ]
    secure = [
        cases.Target(peer, Address(peer.port, path, site.client_tls()), site.authorization, site.store / "blobs"),
        cases.Target(tls, Address(tls.port, path, site.client_tls()), None, root / "tls" / "storage"),
    ]
    results: list[Result] = []
    size = f"push of {scale.push_bytes >> 20} MiB"
    for case, targets, streamed in (
        (f"{size}, one request", bare, False),
        (f"{size}, streamed", bare, True),
        (f"{size}, streamed over TLS", secure, True),
    ):
        goal = Goal(1.5, "least")
        results += _say(cases.pushes(case, targets, layer, scale.repetitions, goal, streamed=streamed))
    return results


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


def _tags(root: Path, scale: Scale, stack: ExitStack) -> list[Result]:
    def fill(layout: Layout) -> None:
        layer = layout.layer(_SMALL_LAYER)
        config = layout.config(layer)
        for number in range(scale.images):
            layout.image(_TAGS, f"v{number}", config, layer)

    site, _ = _site(root, fill)
    registry, mirror = docker_registry(root / "registry", stack), site.serve("mirror", stack)
    case = f"list of {scale.images} tags"
    goal = Goal(100, "most", of="ours")
    path = f"/v2/{_TAGS}/tags/list"
    return _say(cases.listing(case, mirror, registry, path, "tags", scale.images, scale.repetitions, goal))


def _images(root: Path, scale: Scale, groups: Sequence[str], stack: ExitStack) -> list[Result]:
    def fill(layout: Layout) -> None:
        layer = layout.layer(_SMALL_LAYER)
        config = layout.config(layer)
        for number in range(scale.images):
            layout.image(f"bench/image-{number:05d}", "1", config, layer)

    site, layout = _site(root, fill)
    results: list[Result] = []
    manifest = f"/v2/{layout.images[-1].repository}/manifests/1"
    if "images" in groups:

        def start_ours() -> tuple[Child, int]:
            return site.unit("mirror"), site.mirror_port

        def start_theirs() -> tuple[Child, int]:
            port = free_port()
            return Child(docker_registry_command(root / "registry", port), root / "registry" / "log"), port

        case = f"start to ready, {scale.images} images"
        theirs = (DOCKER_REGISTRY, start_theirs)
        results += _say(cases.start_to_ready(case, start_ours, theirs, manifest, scale.repetitions))
        with ExitStack() as servers:
            registry, mirror = docker_registry(root / "registry", servers), site.serve("mirror", servers)
            case = f"_catalog of {scale.images} repositories"
            goal = Goal(100, "most", of="ours")
            path = "/v2/_catalog"
            results += _say(
                cases.listing(case, mirror, registry, path, "repositories", scale.images, scale.repetitions, goal)
            )
    if "memory" in groups:
        registry = docker_registry(root / "registry", stack)
        results += _say(cases.memory(f"memory, {scale.images} images", site, manifest, registry, scale))
    return results


def _site(root: Path, fill: Callable[[Layout], None]) -> tuple[Site, Layout]:
    """A seeded site under ``root``, and docker-registry's tree of the same images in ``registry/storage``."""
    root.mkdir()
    layout = Layout(root / "layout")
    fill(layout)
    layout.finish()
    site = Site(root / "site")
    site.seed(layout.root)
    shutil.rmtree(layout.root)
    docker_registry_tree(layout.images, site.store / "blobs", root / "registry" / "storage")
    return site, layout


def _clients(number: int) -> str:
    return "1 client" if number == 1 else f"{number} clients"


def _say(results: list[Result]) -> list[Result]:
    """Progress for people; a full run takes minutes."""
    print(*(f"{item.case}: {item.measure} {item.ours:.4g} {item.unit}" for item in results), sep="\n", file=sys.stderr)
    return results


def versions() -> dict[str, str]:
    """What was measured, by Debian's package and its version."""
    packages = ("docker-registry", "nginx-light", "wrk", "openssl", "skopeo", "zstd")
    words = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *packages]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
