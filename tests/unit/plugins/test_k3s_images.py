"""Images that a K3s binary needs, images that its archives hold, and the difference."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.unit.plugins.test_k3s_modules import run

sys.path.insert(0, str(Path(__file__).parents[3] / "collections"))
BASE = "ansible_collections.site.appliance.plugins"
reader: Any = importlib.import_module(f"{BASE}.module_utils.k3s_images")
k3s_images: Any = importlib.import_module(f"{BASE}.filter.k3s_images")
image_names: Any = importlib.import_module(f"{BASE}.plugin_utils.image_names")

PAUSE = "rancher/mirrored-pause:3.6"
# The forms of K3s's sources (manifests/, pkg/cloudprovider, linker flags); no separator lies between constants.
PROGRAM = b"""\x00\x00goroutine rancher/mirrored-pause:3.6runtime error\x00rancher/klipper-lb:v0.4.17register
rancher/klipper-helm:v0.11.1-build20260615\x00
        image: "%{SYSTEM_DEFAULT_REGISTRY}%rancher/mirrored-coredns-coredns:1.14.4"
        image: "%{SYSTEM_DEFAULT_REGISTRY}%rancher/local-path-provisioner:v0.0.36"
        image: "%{SYSTEM_DEFAULT_REGISTRY}%rancher/mirrored-library-busybox:1.37.0"
        image: "%{SYSTEM_DEFAULT_REGISTRY}%rancher/mirrored-metrics-server:v0.8.1"
    image:
      repository: "rancher/mirrored-library-traefik"
      tag: "3.7.4"
"""
RELEASE = {
    "rancher/klipper-helm:v0.11.1-build20260615",
    "rancher/klipper-lb:v0.4.17",
    "rancher/local-path-provisioner:v0.0.36",
    "rancher/mirrored-coredns-coredns:1.14.4",
    "rancher/mirrored-library-busybox:1.37.0",
    "rancher/mirrored-library-traefik:3.7.4",
    "rancher/mirrored-metrics-server:v0.8.1",
    PAUSE,
}


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def binary(path: Path, program: bytes = PROGRAM) -> Path:
    """A K3s as it is built: a program with a compressed tar of the real one inside, and false beginnings before it."""
    noise = b"\x7fELF" + b"\x28\xb5\x2f\xfd" + b"no frame" + zstandard.compress(b"another frame") + b"x" * 100
    inside = zstandard.ZstdCompressor().compress(tar({"bin/aux": b"a" * 5000, "bin/k3s": program}))
    path.write_bytes(noise + inside + b"what follows")
    return path


# ------------------------------------------------------------------------------------------------- the binary


def test_a_binary_names_the_images_of_its_components(tmp_path: Path) -> None:
    assert reader.binary_images(binary(tmp_path / "k3s")) == {"images": sorted(RELEASE), "known": "all"}


@pytest.mark.parametrize("shift", range(0, 160, 7))
def test_names_are_found_wherever_the_blocks_of_reading_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    monkeypatch.setattr(reader, "_BLOCK", 1024)
    found = reader.binary_images(binary(tmp_path / "k3s", b"-" * shift + PROGRAM * 2))
    assert set(found["images"]) == RELEASE


def stand_in(path: Path) -> Path:
    path.write_text(
        '#!/bin/sh\n[ "$1 $2" = "server --help" ] && '
        "echo '   --pause-image value  (agent/runtime) Customized pause image (default: \"rancher/mirrored-pause:9\")'\n"
    )
    path.chmod(0o755)
    return path


def test_a_binary_without_manifests_says_its_pause_image_at_least(tmp_path: Path) -> None:
    assert reader.binary_images(stand_in(tmp_path / "k3s")) == {
        "images": ["rancher/mirrored-pause:9"],
        "known": "pause",
    }
    other = tmp_path / "other"
    other.write_bytes(b"\x7fELF of another machine")
    other.chmod(0o755)
    assert reader.binary_images(other) == {"images": [], "known": "nothing"}


def test_a_list_of_the_release_stands_in_for_a_binary_that_does_not_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "k3s-images.txt"
    listed.write_text("# of the release\ndocker.io/rancher/klipper-lb:v1\n\ndocker.io/rancher/mirrored-pause:9 # all\n")
    whole, silent = binary(tmp_path / "k3s"), stand_in(tmp_path / "k3s-stand-in")
    said = run("k3s_images_info", capsys, binaries=[str(whole), str(silent)], lists=[str(listed)])
    assert said["binaries"][str(whole)]["known"] == "all"
    assert said["binaries"][str(silent)] == {
        "images": ["docker.io/rancher/klipper-lb:v1", "docker.io/rancher/mirrored-pause:9"],
        "known": "list",
    }
    gone = run("k3s_images_info", capsys, fails=True, lists=[str(tmp_path / "none.txt")])
    assert gone["msg"].startswith("APL-0822") and "none.txt" in gone["msg"]


# ------------------------------------------------------------------------------------------------- archives


def docker(name: str) -> bytes:
    """A docker-archive with one image that has this name, and one that has none."""
    listed = [{"RepoTags": [name]}, {"RepoTags": None}]
    return tar({"layer.tar": b"x" * 3000, "manifest.json": json.dumps(listed).encode()})


DOCKER = docker(PAUSE)
LAYOUT = tar(
    {
        "oci-layout": b"{}",
        "./index.json": json.dumps(
            {
                "manifests": [
                    {"annotations": {"io.containerd.image.name": "docker.io/rancher/klipper-lb:v1"}},
                    {"annotations": {"org.opencontainers.image.ref.name": "docker.io/a/b:2"}},
                    {"annotations": {"org.opencontainers.image.ref.name": "latest"}},
                    {},
                ]
            }
        ).encode(),
    }
)


def test_archives_of_every_kind_say_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "plain.tar": DOCKER,
        "a.tar.gz": gzip.compress(DOCKER),
        "a.tar.bz2": bz2.compress(DOCKER),
        "a.tar.zst": zstandard.compress(DOCKER),
        "layout.tar.zst": zstandard.compress(LAYOUT),
        "list.txt": b"docker.io/a/b:1\n",
        "cut.tar.zst": zstandard.compress(DOCKER)[:40],
        "not.tar.lz4": b"\x04\x22\x4d\x18....",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    said = run("k3s_images_info", capsys, archives=[str(tmp_path / name) for name in files])["archives"]
    assert {Path(path).name: names for path, names in said.items()} == {
        **{name: [PAUSE] for name in ("plain.tar", "a.tar.gz", "a.tar.bz2", "a.tar.zst")},
        "layout.tar.zst": ["docker.io/a/b:2", "docker.io/rancher/klipper-lb:v1"],
        "list.txt": [],
        "cut.tar.zst": None,
        "not.tar.lz4": None,
    }


# ------------------------------------------------------------------------------------------------- needs


def needed(server: dict[str, Any] | None = None, own: dict[str, Any] | None = None) -> dict[str, str]:
    found: dict[str, str] = k3s_images.k3s_needed_images(RELEASE, server or {}, own or {})
    return found


def test_every_enabled_component_wants_its_images() -> None:
    assert needed() == {
        "docker.io/rancher/klipper-helm:v0.11.1-build20260615": "traefik",
        "docker.io/rancher/klipper-lb:v0.4.17": "servicelb",
        "docker.io/rancher/local-path-provisioner:v0.0.36": "local-storage",
        "docker.io/rancher/mirrored-coredns-coredns:1.14.4": "coredns",
        "docker.io/rancher/mirrored-library-busybox:1.37.0": "local-storage",
        "docker.io/rancher/mirrored-library-traefik:3.7.4": "traefik",
        "docker.io/rancher/mirrored-metrics-server:v0.8.1": "metrics-server",
        "docker.io/rancher/mirrored-pause:3.6": "every pod",
    }


@pytest.mark.parametrize("form", [["traefik", "servicelb"], "traefik,servicelb", ["traefik,servicelb"]])
def test_a_disabled_component_wants_none(form: Any) -> None:
    assert {"traefik", "servicelb"} & set(needed({"disable": form}).values()) == set()
    assert "coredns" in needed({"disable": form}).values()
    assert "traefik" not in needed({"disable-helm-controller": True}).values()


def test_options_name_other_images() -> None:
    assert "docker.io/kubernetes/pause:4" in needed(own={"pause-image": "kubernetes/pause:4"})
    assert "docker.io/my/helm:1" in needed({"helm-job-image": "my/helm:1"})
    private = needed({"system-default-registry": "reg.site:5000"})
    assert "reg.site:5000/rancher/mirrored-pause:3.6" in private
    assert not [name for name in private if name.startswith("docker.io/")]


def missing(images: dict[str, str], **more: Any) -> list[dict[str, Any]]:
    spec = {"needed": images, "archives": [], "served": [], "held": [], "registry": "", **more}
    found: list[dict[str, Any]] = k3s_images.k3s_missing_images(spec)
    return found


def test_an_image_may_come_from_an_archive_the_mirror_or_containerd() -> None:
    one = {"docker.io/rancher/mirrored-pause:3.6": "every pod"}
    assert missing(one) == [{"image": "docker.io/rancher/mirrored-pause:3.6", "component": "every pod", "other": []}]
    assert missing(one, archives=[PAUSE]) == []
    assert missing(one, served=["docker.io/rancher/mirrored-pause:3.6"]) == []
    assert missing(one, held=["docker.io/rancher/mirrored-pause:3.6"]) == []


def test_the_archive_of_the_release_before_is_told_apart() -> None:
    old = [name.replace("1.14.4", "1.13.0") for name in RELEASE]
    (found,) = missing(needed(), archives=old)
    assert found["image"] == "docker.io/rancher/mirrored-coredns-coredns:1.14.4"
    assert found["other"] == ["docker.io/rancher/mirrored-coredns-coredns:1.13.0"]
    (line,) = k3s_images.k3s_missing_lines({"a": [found], "b": [found]})
    assert line == (
        "docker.io/rancher/mirrored-coredns-coredns:1.14.4 (for coredns, on a, b; "
        "there is docker.io/rancher/mirrored-coredns-coredns:1.13.0)"
    )


def test_k3s_names_what_it_imports_for_its_own_registry_too_and_the_mirror_does_not() -> None:
    private = {"reg.site:5000/rancher/mirrored-pause:3.6": "every pod"}
    assert missing(private, registry="reg.site:5000", archives=[PAUSE]) == []
    assert missing(private, registry="reg.site:5000", served=["docker.io/rancher/mirrored-pause:3.6"])


def test_names_that_the_mirror_will_serve_follow_from_the_plan() -> None:
    plan = {
        "added": [{"name": "a/b:1"}],
        "moved": [{"name": "a/c:1"}],
        "completed": ["a/d:1"],
        "unchanged": ["a/e:1"],
        "removed": [{"name": "a/f:1"}],
    }
    assert k3s_images.k3s_served_names(plan) == ["a/b:1", "a/c:1", "a/d:1", "a/e:1"]
    assert k3s_images.k3s_served_names(None) is None


def test_options_of_a_node_are_its_own_and_those_of_all() -> None:
    variables = {"k3s_config": {"disable": ["coredns"]}, "k3s_server_config": {"disable": ["traefik"], "x": 1}}
    assert k3s_images.k3s_options(variables, "server") == {"disable": ["coredns", "traefik"], "x": 1}
    assert k3s_images.k3s_options(variables, "agent") == {"disable": ["coredns"]}
    assert k3s_images.k3s_deployments({"disable": ["local-storage"]}) == [
        "deployment kube-system/coredns",
        "deployment kube-system/metrics-server",
    ]


@pytest.mark.parametrize(
    ("short", "whole"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("rancher/mirrored-pause:3.6", "docker.io/rancher/mirrored-pause:3.6"),
        ("index.docker.io/nginx:1", "docker.io/library/nginx:1"),
        ("localhost/a", "localhost/a:latest"),
        ("reg.site:5000/a/b", "reg.site:5000/a/b:latest"),
        ("quay.io/a/b:1@sha256:00", "quay.io/a/b:1@sha256:00"),
        ("quay.io/a/b@sha256:00", "quay.io/a/b@sha256:00"),
    ],
)
def test_names_are_completed_as_kubernetes_completes_them(short: str, whole: str) -> None:
    assert image_names.full_name(short) == whole
    assert image_names.full_name(whole) == whole
    assert "@" not in image_names.repository_of(whole) and image_names.repository_of(whole)[-2:] != ":1"
