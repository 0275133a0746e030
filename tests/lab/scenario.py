"""What an operator brings to the lab's site: K3s, the wheelhouse, a stick with two tarballs, and an inventory."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.release.wheelhouse import build_wheelhouse
from tests.lab.base import cache_dir
from tests.lab.images import FileSystem, docker_archive, make_stick, pause_image, write_sources
from tests.lab.root import locked
from tests.lab.site import Site
from tests.lab.standin.build import build as build_standin
from tests.lab.story import NGINX, STICK

# A real K3s in nspawn, and on a cgroup-v1 kernel, needs these; a site on real machines does not.
KUBELET_ARGS = ("fail-cgroupv1=false",)
CONTAINERD_DROPINS = {
    "10-lab": 'version = 3\n[plugins."io.containerd.cri.v1.runtime"]\n  restrict_oom_score_adj = true\n'
}
# Whatever version of it a release asks for by itself: this one is brought, so this one is named.
PAUSE = "docker.io/rancher/mirrored-pause:3.10.2"
REAL_SERVER_CONFIG: Mapping[str, Any] = {
    "disable": ["coredns", "servicelb", "traefik", "local-storage", "metrics-server"],
    "disable-helm-controller": True,
    "disable-cloud-controller": True,
    "flannel-backend": "host-gw",
}


@dataclass(frozen=True)
class Luggage:
    """Paths of what was brought.

    :param k3s: the K3s binary, real or stand-in.
    :param checksums: its sha256sum file.
    :param real: whether it is a real K3s.
    :param wheelhouse: what the appliance is installed from.
    :param files: the two tarballs of the stick.
    :param stick: file-system image of the stick.
    :param airgap_images: image archives for ``agent/images``: the pause image, which every K3s needs.
    """

    k3s: Path
    checksums: Path
    real: bool
    wheelhouse: Path
    files: Path
    stick: Path
    airgap_images: tuple[Path, ...] = ()


def pack(directory: Path, fs: FileSystem = "ext4") -> Luggage:
    """Build or find everything; what can be kept between runs is kept in the lab's cache.

    :param directory: where this run's own files go.
    :param fs: file system of the stick, ``ext4`` or ``exfat``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    real = os.environ.get("K3S_BINARY") or None
    k3s = directory / "k3s"
    if real:
        k3s.unlink(missing_ok=True)
        shutil.copyfile(real, k3s)
        k3s.chmod(0o755)
        _checksum(k3s)
    else:
        k3s = build_standin(directory / "k3s-standin")
    wheelhouse = cache_dir() / "wheelhouse"
    with locked(cache_dir() / "wheelhouse.lock"):
        build_wheelhouse(wheelhouse)
    files = directory / "stick"
    write_sources(files)
    stick = make_stick(files, directory / f"stick.{fs}", fs)
    return Luggage(
        k3s=k3s,
        checksums=k3s.parent / "sha256sum-amd64.txt",
        real=bool(real),
        wheelhouse=wheelhouse,
        files=files,
        stick=stick,
        airgap_images=(docker_archive(pause_image(PAUSE), directory / "pause.tar"),),
    )


def _checksum(file: Path) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (file.parent / "sha256sum-amd64.txt").write_text(f"{digest}  k3s\n")


def inventory(
    site: Site,
    luggage: Luggage,
    directory: Path,
    *,
    nodes: Sequence[str] | None = None,
    servers: Sequence[str] | None = None,
    seeds: Sequence[str] = ("a",),
    **extra: Any,
) -> Path:
    """Write the site's inventory; ``extra`` variables win.

    :param nodes: the hosts in it; all where none are named.
    :param servers: those of K3s; the first of ``nodes`` where none are named.
    :param seeds: hosts of ``mirror_seeds``, the publisher first.
    """
    variables: dict[str, Any] = {
        "seed_sources": [STICK],
        "mirror_wheelhouse": str(luggage.wheelhouse),
        "mirror_free_percent": 1,
        "k3s_binary": str(luggage.k3s),
        "k3s_checksums": str(luggage.checksums),
        "k3s_airgap_images": [str(path) for path in luggage.airgap_images],
        "k3s_kubelet_args": list(KUBELET_ARGS),
        "k3s_containerd_dropins": dict(CONTAINERD_DROPINS),
        "k3s_kubeconfig": str(directory / "kubeconfig"),
        "registries_mirrors": {"ksd.test.com": None},
        "verify_image": NGINX,
    }
    if luggage.real:
        variables["k3s_server_config"] = dict(REAL_SERVER_CONFIG)
        variables["k3s_config"] = {"pause-image": PAUSE}
    return site.write_inventory(directory, {**variables, **extra}, nodes=nodes, servers=servers, seeds=seeds)
