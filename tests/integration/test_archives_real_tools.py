"""Archives that real tools write are read, and agree with what containerd makes of them.

Needs root, skopeo, umoci, podman, buildah, containerd with ctr, and docker; all work offline, below one temporary
folder. Where Debian 12 has no tool for a format, ``tests/unit/archives/test_formats.py`` builds it from its description.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.archives.discovery import find_sources
from appliance.archives.docker import DIGESTS_LOST
from appliance.archives.model import ArchiveContents
from appliance.archives.reader import read_source
from appliance.archives.sink import HashingSink
from appliance.errors import ApplianceError
from tests.unit.archives.test_formats import Docker25, buildx

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
def storage(work: Path) -> Iterator[list[object]]:
    """Options that keep podman and buildah below temporary folders; the run root may have 50 characters, and pytest's has more."""
    with tempfile.TemporaryDirectory(prefix="apl-") as runroot:
        yield ["--root", work / "storage", "--runroot", runroot, "--storage-driver", "vfs"]


@pytest.fixture(scope="module")
def docker(work: Path, layout: Path) -> Iterator[Ctr]:
    """A Docker engine of its own, with both images in it; calls ``docker``."""
    folder = work / "docker"
    folder.mkdir()
    socket = folder / "sock"
    (folder / "config.json").write_text(json.dumps({"deprecated-key-path": str(folder / "key.json")}))
    words = ["/usr/sbin/dockerd", "--config-file", folder / "config.json", "--host", f"unix://{socket}"]
    words += ["--data-root", folder / "root", "--exec-root", folder / "exec", "--pidfile", folder / "pid"]
    words += ["--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs"]

    def call(*argv: object) -> str:
        return run("/usr/bin/docker", "--host", f"unix://{socket}", *argv)

    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(word) for word in words], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        ready = ["/usr/bin/docker", "--host", f"unix://{socket}", "version"]
        while subprocess.run(ready, capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < deadline, (folder / "log").read_text()
            assert process.poll() is None, (folder / "log").read_text()
        for tag in ("one", "two"):
            archive = work / f"to-docker-{tag}.tar"
            run("skopeo", "copy", "-q", f"oci:{layout}:{tag}", f"docker-archive:{archive}:docker.io/rancher/{tag}:v1")
            call("load", "-q", "-i", archive)
        yield call
    finally:
        process.terminate()
        process.wait(30)


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


@pytest.mark.parametrize("tag", ["", ":1"])
def test_skopeo_oci_archive_of_an_image_called_by_its_digest(
    work: Path, layout: Path, oci_digest: str, tag: str
) -> None:
    name = f"ksd.test.com/ksd/nginx{tag}@{oci_digest}"
    path, other = work / "by-digest.tar", work / "by-another-digest.tar"
    run("skopeo", "copy", "-q", f"oci:{layout}:one", f"oci-archive:{path}:{name}")
    assert found(path) == [(name, oci_digest)]
    run("skopeo", "copy", "-q", f"oci:{layout}:two", f"oci-archive:{other}:{name}")
    with pytest.raises(ApplianceError, match=rf"APL-0165.*by-another-digest\.tar.*{oci_digest}"):
        read(other)
    assert [str(image.reference) for image in read(other, NAME).images] == [NAME]
    path.unlink()
    other.unlink()


def test_absolute_layer_names_are_read_as_containerd_reads_them(work: Path, layout: Path, ctr: Ctr) -> None:
    """Buildpacks write "/<hex>.tar" into archive and manifest.json."""
    source, path, name = work / "relative.tar", work / "absolute.tar", f"{NAME}-absolute"
    run("skopeo", "copy", "-q", f"oci:{layout}:one", f"docker-archive:{source}:{name}")
    with tarfile.open(source) as old, tarfile.open(path, "w") as new:
        for member in [member for member in old if member.isreg()]:
            content = old.extractfile(member)
            assert content is not None
            data = content.read()
            if member.name == "manifest.json":
                (listed,) = json.loads(data)
                data = json.dumps([{**listed, "Layers": [f"/{layer}" for layer in listed["Layers"]]}]).encode()
            elif member.name.endswith(".tar"):
                member.name = f"/{member.name}"
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    with tarfile.open(path) as absolute:
        assert any(member.name.startswith("/") for member in absolute)
    assert found(path) == found(source)
    ctr("images", "import", "--no-unpack", source)
    assert found(path) == [(name, ctr_digest(ctr, name))]


def test_layout_made_into_a_tar_by_hand(work: Path, layout: Path, oci_digest: str) -> None:
    path = work / "by-hand.tar"
    run("tar", "-C", layout, "-cf", path, ".")
    assert ("None", oci_digest) in found(path)
    run("tar", "--format=pax", "-C", layout, "-czf", path, ".")
    assert ("None", oci_digest) in found(path)


def test_skopeo_dir(work: Path, layout: Path, oci_digest: str) -> None:
    run("skopeo", "copy", "-q", f"oci:{layout}:one", f"dir:{work}/dir")
    assert found(work / "dir") == [("None", oci_digest)]


def test_skopeo_oci_directory(work: Path, layout: Path, oci_digest: str) -> None:
    run("skopeo", "copy", "-q", f"oci:{layout}:one", f"oci:{work}/by-skopeo:{NAME}")
    assert found(work / "by-skopeo") == [(NAME, oci_digest)]
    run("skopeo", "copy", "-q", f"oci:{layout}:one", f"oci:{work}/by-skopeo-nameless")
    assert found(work / "by-skopeo-nameless") == [("None", oci_digest)]


@pytest.fixture(scope="module")
def index(work: Path, layout: Path) -> tuple[Path, str, dict[str, str]]:
    """A layout with one index for two platforms, tagged ``multi``; the index's digest, and the children's by platform."""
    multi = work / "multi"
    shutil.copytree(layout, multi)
    run("umoci", "config", "--image", f"{multi}:two", "--os", "linux", "--architecture", "arm64")
    document = json.loads((multi / "index.json").read_text())
    tags = {entry["annotations"]["org.opencontainers.image.ref.name"]: entry for entry in document["manifests"]}
    children = [
        {**tags[tag], "annotations": {}, "platform": {"os": "linux", "architecture": arch}}
        for tag, arch in (("one", "amd64"), ("two", "arm64"))
    ]
    media_type = "application/vnd.oci.image.index.v1+json"
    body = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": children}).encode()
    digest = hashlib.sha256(body).hexdigest()
    (multi / "blobs/sha256" / digest).write_bytes(body)
    entry = {
        "mediaType": media_type,
        "digest": f"sha256:{digest}",
        "size": len(body),
        "annotations": {"org.opencontainers.image.ref.name": "multi"},
    }
    (multi / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return multi, f"sha256:{digest}", {child["platform"]["architecture"]: child["digest"] for child in children}


def platforms(path: Path) -> list[str]:
    (image,) = read(path).images
    return sorted(map(str, image.platforms))


Index = tuple[Path, str, dict[str, str]]


def test_skopeo_index_whole_and_sparse(work: Path, index: Index) -> None:
    multi, digest, children = index
    path, sparse = work / "multi.tar", work / "multi-sparse.tar"
    run("skopeo", "copy", "-q", "--all", f"oci:{multi}:multi", f"oci-archive:{path}:{NAME}")
    assert found(path) == [(NAME, digest)]
    assert (platforms(path), read(path).missing) == (["linux/amd64", "linux/arm64"], [])
    # The index alone: without any child there is no image; with one it is sparse.
    run("skopeo", "copy", "-q", "--multi-arch", "index-only", f"oci:{multi}:multi", f"oci:{work}/index-only:{NAME}")
    with pytest.raises(ApplianceError, match="APL-0112"):
        read(work / "index-only")
    shutil.copytree(work / "layout/blobs", work / "index-only/blobs", dirs_exist_ok=True)
    assert found(work / "index-only")[0] == (NAME, digest)
    assert read(work / "index-only").missing == [children["arm64"]]
    run("tar", "-C", work / "index-only", "-cf", sparse, ".")
    assert read(sparse).missing == [children["arm64"]]


def test_ctr_export_of_one_platform_and_of_all(work: Path, index: Index, ctr: Ctr) -> None:
    multi, digest, children = index
    source, one, both = work / "multi-in.tar", work / "ctr-one.tar", work / "ctr-all.tar"
    name = f"{NAME}-multi"
    run("skopeo", "copy", "-q", "--all", f"oci:{multi}:multi", f"oci-archive:{source}:{name}")
    ctr("images", "import", "--no-unpack", "--all-platforms", source)
    ctr("images", "export", "--platform", "linux/arm64", one, name)
    ctr("images", "export", "--all-platforms", both, name)
    assert found(both) == [(name, digest)]
    assert (platforms(both), read(both).missing) == (["linux/amd64", "linux/arm64"], [])
    # containerd 1.6 writes an index of its own for one platform, newer ones the whole index without the other child.
    contents = read(one)
    assert [str(image.reference) for image in contents.images] == [name]
    assert platforms(one) == ["linux/arm64"]
    assert children["arm64"] in contents.blobs and children["amd64"] not in contents.blobs


def test_ctr_export(work: Path, layout: Path, ctr: Ctr, oci_digest: str) -> None:
    source, path, sparse = work / "to-ctr.tar", work / "from-ctr.tar", work / "from-ctr-only.tar"
    run("skopeo", "copy", "-q", f"oci:{layout}:one", f"oci-archive:{source}:{NAME}-ctr")
    ctr("images", "import", "--no-unpack", source)
    ctr("images", "export", path, f"{NAME}-ctr")
    ctr("images", "export", "--skip-manifest-json", sparse, f"{NAME}-ctr")
    assert found(path) == found(sparse) == [(f"{NAME}-ctr", oci_digest)]
    assert read(path).notes == read(sparse).notes == []
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


def test_two_platforms_put_together_by_podman(work: Path, layout: Path, storage: list[object]) -> None:
    """The way out that APL-0125 has for two docker-archives of one name."""
    list_, path, own = "ksd.test.com/podman/both:1", work / "podman-both.tar", work / "layout-both"
    shutil.copytree(layout, own)
    run("podman", *storage, "manifest", "create", list_)
    for tag, arch in (("one", "amd64"), ("two", "arm64")):
        run("umoci", "config", "--image", f"{own}:{tag}", "--architecture", arch)
        archive = work / f"for-{arch}.tar"
        run("skopeo", "copy", "-q", f"oci:{own}:{tag}", f"docker-archive:{archive}:{list_}")
        run("podman", *storage, "manifest", "add", list_, f"docker-archive:{archive}")
    run("podman", *storage, "manifest", "push", "--all", list_, f"oci-archive:{path}:{list_}")
    (image,) = [image for image in read(path).images if image.reference]
    assert str(image.reference) == list_
    assert sorted(map(str, image.platforms)) == ["linux/amd64", "linux/arm64"]


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


def test_docker_save_of_several_images(work: Path, docker: Ctr, ctr: Ctr) -> None:
    """Legacy docker save, several names for one image among them; containerd reads the same digests from it."""
    path = work / "docker-save.tar"
    docker("tag", "rancher/one:v1", f"{NAME}-docker")
    docker("save", "-o", path, "rancher/one:v1", "rancher/two:v1", f"{NAME}-docker")
    names = ["docker.io/rancher/one:v1", "docker.io/rancher/two:v1", f"{NAME}-docker"]
    ctr("images", "import", "--no-unpack", path)
    assert sorted(found(path)) == [(name, ctr_digest(ctr, name)) for name in names]
    contents = read(path)
    assert (contents.format, contents.notes) == ("docker-archive", [DIGESTS_LOST])


def test_docker_save_by_id_has_no_name(work: Path, docker: Ctr) -> None:
    path = work / "docker-id.tar"
    docker("save", "-o", path, docker("images", "-q", "rancher/one:v1").strip())
    assert [name for name, _ in found(path)] == ["None"]
    assert [str(image.reference) for image in read(path, NAME).images] == [NAME]


def test_docker_save_of_a_repeated_layer(work: Path, docker: Ctr, ctr: Ctr) -> None:
    """docker stores the repetition as a symbolic link."""
    folder, source, path = work / "repeated", work / "repeated.tar", work / "docker-repeated.tar"
    folder.mkdir()
    run("tar", "-xf", work / "to-docker-one.tar", "-C", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    config = json.loads((folder / manifest[0]["Config"]).read_text())
    config["rootfs"]["diff_ids"] += config["rootfs"]["diff_ids"][:1]
    config["history"] += config["history"][:1]
    (folder / "config.json").write_text(json.dumps(config))
    manifest[0] |= {
        "Config": "config.json",
        "RepoTags": ["repeated:1"],
        "Layers": manifest[0]["Layers"] + manifest[0]["Layers"][:1],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    run("tar", "-cf", source, "-C", folder, ".")
    docker("load", "-q", "-i", source)
    docker("save", "-o", path, "repeated:1")
    with tarfile.open(path) as archive:
        assert any(member.issym() for member in archive)
    name = "docker.io/library/repeated:1"
    ctr("images", "import", "--no-unpack", path)
    assert found(path) == [(name, ctr_digest(ctr, name))]


def test_k3s_airgap_images(work: Path, docker: Ctr, ctr: Ctr) -> None:
    """As k3s-io/k3s:scripts/package-airgap makes them: docker save of all images, zstd with a window of 32 MiB."""
    medium, plain = work / "airgap", work / "k3s-airgap-images-amd64.tar"
    medium.mkdir()
    docker("save", "-o", plain, "docker.io/rancher/one:v1", "docker.io/rancher/two:v1")
    packed = medium / "k3s-airgap-images-amd64.tar.zst"
    run("zstd", "-q", "-T0", "-16", "--long=25", plain, "-o", packed)
    (medium / f"{packed.name}.sha256").write_text(run("sha256sum", packed.name, cwd=medium))
    for window in (25, 27):
        # From a pipe the size is unknown, and the frame asks for the whole window.
        streamed = work / f"window-{window}.tar.zst"
        run("sh", "-c", f"zstd -q -16 --ultra --long={window} -o {streamed} < {plain}")
        assert found(streamed) == found(plain)
    run("gzip", "-k", plain)
    shutil.move(f"{plain}.gz", medium)
    ctr("images", "import", "--no-unpack", plain)
    sources = find_sources(medium).sources
    assert [source.name for source in sources] == [f"{plain.name}.gz", packed.name]
    for source in sources:
        names = ["docker.io/rancher/one:v1", "docker.io/rancher/two:v1"]
        assert sorted(found(source)) == [(name, ctr_digest(ctr, name)) for name in names]
    packed.write_bytes(packed.read_bytes()[:-1] + b"!")
    with pytest.raises(ApplianceError, match=r"APL-0115|APL-0103"):
        read(packed)


@pytest.mark.parametrize("form", ["docker 25", "buildx"])
def test_containerd_agrees_on_archives_that_no_tool_here_writes(work: Path, ctr: Ctr, form: str) -> None:
    path = work / f"{form}.tar"
    if form == "buildx":
        path.write_bytes(buildx()[0].tar())
    else:
        saved = Docker25()
        saved.add("one", "from-docker-25:1")
        saved.add("two", "from-docker-25:2", "from-docker-25:latest")
        path.write_bytes(saved.tar())
    ctr("images", "import", "--no-unpack", "--all-platforms", path)
    listed = found(path)
    assert len(listed) == (1 if form == "buildx" else 3)
    assert listed == [(name, ctr_digest(ctr, name)) for name, _ in listed]
