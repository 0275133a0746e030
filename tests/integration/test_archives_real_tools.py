"""Archives that real tools write are read, and agree with what containerd makes of them.

Needs root, skopeo, umoci, podman, buildah, and containerd with ctr; all work offline, below one temporary folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.archives.contents import ArchiveContents
from appliance.archives.dispatch import read_source
from appliance.archives.sink import HashingSink

pytestmark = pytest.mark.integration

NAME = "ksd.test.com/ksd/nginx:1.27"


def run(*argv: object, cwd: Path | None = None) -> str:
    """Run a tool; its output, or a failure that shows what it said."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def read(path: Path, *names: str) -> ArchiveContents:
    with HashingSink() as sink:
        return read_source(path, sink, names=names, deep=True)


def found(path: Path) -> list[tuple[str, str]]:
    return [(str(image.reference), image.descriptor.digest) for image in read(path).images]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(scope="module")
def layout(work: Path) -> Path:
    """An OCI layout by umoci with two images of two layers each, tagged ``one`` and ``two``."""
    path = work / "layout"
    run("umoci", "init", "--layout", path)
    for tag in ("one", "two"):
        image = f"{path}:{tag}"
        run("umoci", "new", "--image", image)
        for number in (1, 2):
            content = work / f"{tag}-{number}"
            content.write_bytes(os.urandom(200_000) + b"\0" * 500_000)
            run("umoci", "insert", "--image", image, content, f"/data/{number}")
        run("umoci", "config", "--image", image, "--os", "linux", "--architecture", "amd64")
    return path


@pytest.fixture(scope="module")
def oci_digest(work: Path, layout: Path) -> str:
    """The digest of image ``one``."""
    index = json.loads((layout / "index.json").read_text())
    tags = {entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"] for entry in index["manifests"]}
    return str(tags["one"])


Ctr = Callable[..., str]


@pytest.fixture(scope="module")
def ctr(work: Path) -> Iterator[Ctr]:
    """A containerd of its own; calls ``ctr`` in the namespace ``test``."""
    folder = work / "containerd"
    folder.mkdir()
    config = folder / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
        f'[grpc]\naddress = "{folder}/sock"\n[ttrpc]\naddress = "{folder}/ttrpc"\n'
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["containerd", "--config", str(config)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while (
            subprocess.run(["ctr", "-a", f"{folder}/sock", "version"], capture_output=True, check=False).returncode != 0
        ):
            assert time.monotonic() < deadline, (folder / "log").read_text()
            assert process.poll() is None, (folder / "log").read_text()
        yield lambda *argv: run("ctr", "-a", folder / "sock", "-n", "test", *argv)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def storage(work: Path) -> list[object]:
    """Options that keep podman and buildah below the temporary folder."""
    return ["--root", work / "storage", "--runroot", work / "run", "--storage-driver", "vfs"]


def ctr_digest(ctr: Ctr, name: str) -> str:
    for line in ctr("images", "ls").splitlines()[1:]:
        if line.split()[0] == name:
            return next(word for word in line.split() if word.startswith("sha256:"))
    raise AssertionError(f"{name} is not in {ctr('images', 'ls')}")


def test_skopeo_docker_archive_has_the_digest_that_containerd_gives_it(work: Path, layout: Path, ctr: Ctr) -> None:
    path = work / "skopeo-docker.tar"
    run("skopeo", "copy", "-q", f"oci:{layout}:one", f"docker-archive:{path}:{NAME}")
    ctr("images", "import", path)
    assert found(path) == [(NAME, ctr_digest(ctr, NAME))]
    assert read(path).format == "docker-archive"


@pytest.mark.parametrize("pack", ["gzip", "zstd", "xz", "bzip2"])
def test_skopeo_docker_archive_compressed(work: Path, layout: Path, pack: str) -> None:
    path = work / f"packed-{pack}.tar"
    run("skopeo", "copy", "-q", f"oci:{layout}:one", f"docker-archive:{path}:{NAME}")
    plain = found(path)
    run(pack, "-k", *(["-q", "--long=25"] if pack == "zstd" else []), path)
    packed = path.with_name(path.name + {"gzip": ".gz", "zstd": ".zst", "xz": ".xz", "bzip2": ".bz2"}[pack])
    assert found(packed) == plain
    assert read(packed).compression == pack


def test_layers_compressed_inside_a_docker_archive(work: Path, layout: Path, ctr: Ctr) -> None:
    """As crane writes them; containerd calls any compression gzip."""
    source, path = work / "inner-source.tar", work / "inner.tar"
    run("skopeo", "copy", "-q", f"oci:{layout}:two", f"docker-archive:{source}:{NAME}-inner")
    folder = work / "inner"
    folder.mkdir()
    run("tar", "-xf", source, "-C", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    packed = []
    for number, name in enumerate(manifest[0]["Layers"]):
        run(*(("gzip", "-n") if number else ("zstd", "-q")), folder / name)
        packed.append(name + (".gz" if number else ".zst"))
    manifest[0]["Layers"] = packed
    (folder / "manifest.json").write_text(json.dumps(manifest))
    run("tar", "-cf", path, *packed, manifest[0]["Config"], "manifest.json", cwd=folder)
    ctr("images", "import", "--no-unpack", path)
    assert found(path) == [(f"{NAME}-inner", ctr_digest(ctr, f"{NAME}-inner"))]


def test_skopeo_oci_archive_and_layout_keep_digests(work: Path, layout: Path, oci_digest: str) -> None:
    named, nameless = work / "named.tar", work / "nameless.tar"
    run("skopeo", "copy", "-q", f"oci:{layout}:one", f"oci-archive:{named}:{NAME}")
    run("skopeo", "copy", "-q", f"oci:{layout}:one", f"oci-archive:{nameless}")
    assert found(named) == [(NAME, oci_digest)]
    assert found(nameless) == [("None", oci_digest)]
    assert [str(image.reference) for image in read(nameless, NAME).images] == [NAME]
    contents = read(layout)
    assert contents.format == "oci-layout"
    assert ("None", oci_digest) in found(layout)
    assert len(contents.nameless) == 2


def test_layout_made_into_a_tar_by_hand(work: Path, layout: Path, oci_digest: str) -> None:
    path = work / "by-hand.tar"
    run("tar", "-C", layout, "-cf", path, ".")
    assert ("None", oci_digest) in found(path)
    run("tar", "--format=pax", "-C", layout, "-czf", path, ".")
    assert ("None", oci_digest) in found(path)


def test_skopeo_dir(work: Path, layout: Path, oci_digest: str) -> None:
    run("skopeo", "copy", "-q", f"oci:{layout}:one", f"dir:{work}/dir")
    assert found(work / "dir") == [("None", oci_digest)]


def test_skopeo_multi_arch(work: Path, layout: Path) -> None:
    """An index with both platforms, and the same copied without one child's content."""
    multi = work / "multi"
    shutil.copytree(layout, multi)
    index = json.loads((multi / "index.json").read_text())
    children = [
        {**entry, "annotations": {}, "platform": {"os": "linux", "architecture": arch}}
        for entry, arch in zip(index["manifests"], ("amd64", "amd64"), strict=True)
    ]
    body = json.dumps(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": children}
    ).encode()
    digest = hashlib.sha256(body).hexdigest()
    (multi / "blobs/sha256" / digest).write_bytes(body)
    entry = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": f"sha256:{digest}",
        "size": len(body),
        "annotations": {"org.opencontainers.image.ref.name": "multi"},
    }
    (multi / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    path = work / "multi.tar"
    run("skopeo", "copy", "-q", "--all", f"oci:{multi}:multi", f"oci-archive:{path}:{NAME}")
    contents = read(path)
    assert [(str(image.reference), image.descriptor.digest) for image in contents.images] == [
        (NAME, f"sha256:{digest}")
    ]
    assert not contents.missing


def test_ctr_export(work: Path, layout: Path, ctr: Ctr, oci_digest: str) -> None:
    source, path, sparse = work / "to-ctr.tar", work / "from-ctr.tar", work / "from-ctr-only.tar"
    run("skopeo", "copy", "-q", f"oci:{layout}:one", f"oci-archive:{source}:{NAME}-ctr")
    ctr("images", "import", "--no-unpack", source)
    ctr("images", "export", path, f"{NAME}-ctr")
    ctr("images", "export", "--skip-manifest-json", sparse, f"{NAME}-ctr")
    assert found(path) == found(sparse) == [(f"{NAME}-ctr", oci_digest)]
    # Without oci-layout only manifest.json is left, over compressed blobs: Hauler's --containerd.
    bare = work / "bare.tar"
    with tarfile.open(path) as old, tarfile.open(bare, "w") as new:
        for member in old:
            if member.name not in ("oci-layout", "index.json"):
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
    contents = read(bare)
    assert contents.format == "docker-archive"
    assert [str(image.reference) for image in contents.images] == [f"{NAME}-ctr"]


def test_podman_save(work: Path, layout: Path, storage: list[object], ctr: Ctr, oci_digest: str) -> None:
    for tag in ("one", "two"):
        archive = work / f"to-podman-{tag}.tar"
        run("skopeo", "copy", "-q", f"oci:{layout}:{tag}", f"oci-archive:{archive}:ksd.test.com/podman/{tag}:1")
        run("podman", *storage, "load", "-q", "-i", archive)
    names = [f"ksd.test.com/podman/{tag}:1" for tag in ("one", "two")]
    both, oci, folder = work / "podman.tar", work / "podman-oci.tar", work / "podman-dir"
    run("podman", *storage, "save", "-q", "-m", "-o", both, *names)
    ctr("images", "import", "--no-unpack", both)
    assert sorted(found(both)) == [(name, ctr_digest(ctr, name)) for name in names]
    run("podman", *storage, "save", "-q", "--format", "oci-archive", "-o", oci, names[0])
    assert [name for name, _ in found(oci)] == [names[0]]
    run("podman", *storage, "save", "-q", "--format", "oci-dir", "-o", folder, names[0])
    assert [name for name, _ in found(folder)] == [names[0]]
    run("podman", *storage, "save", "-q", "--format", "docker-dir", "-o", work / "podman-docker-dir", names[0])
    assert read(work / "podman-docker-dir").format == "dir"


def test_buildah_push(work: Path, storage: list[object], ctr: Ctr) -> None:
    container = run("buildah", *storage, "from", "scratch").strip()
    content = work / "content"
    content.write_bytes(os.urandom(100_000))
    run("buildah", *storage, "add", container, content, "/content")
    run("buildah", *storage, "config", "--cmd", "/content", container)
    run("buildah", *storage, "commit", "-q", container, "built:1")
    docker, oci = work / "buildah-docker.tar", work / "buildah-oci.tar"
    run("buildah", *storage, "push", "-q", "localhost/built:1", f"docker-archive:{docker}:{NAME}-built")
    run("buildah", *storage, "push", "-q", "localhost/built:1", f"oci-archive:{oci}:{NAME}-built")
    ctr("images", "import", "--no-unpack", docker)
    # buildah writes the name that the image has in its own storage beside the one asked for.
    assert sorted(found(docker)) == [(name, ctr_digest(ctr, name)) for name in (f"{NAME}-built", "localhost/built:1")]
    assert [name for name, _ in found(oci)] == [f"{NAME}-built"]
