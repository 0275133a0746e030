"""Archives that have to go in, and what they say once they are in."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.archives.discovery import find_sources
from appliance.archives.docker import DIGESTS_LOST
from appliance.archives.left_out import Reason
from appliance.archives.model import ArchiveContents
from appliance.archives.reader import read_source
from appliance.archives.sink import HashingSink
from appliance.errors import ApplianceError
from appliance.oci import mediatypes
from appliance.oci.blob import StoredBlob
from appliance.oci.manifests import Descriptor
from tests.unit.archives.conftest import Read
from tests.unit.archives.made import (
    Layout,
    compact,
    docker,
    gzip_members,
    layer,
    pax,
    raw_member,
    sha,
    simple,
    special,
    tar,
    zstd,
)

NAME = "ksd.test.com/ksd/nginx:1.27"


def names(contents: ArchiveContents) -> list[str]:
    return [str(image.reference) for image in contents.images]


COMPRESSED: dict[str, list[Callable[[bytes], bytes]]] = {
    "none": [lambda data: data],
    "gzip": [gzip.compress, lambda data: gzip_members(data, 3), lambda data: gzip.compress(data) + b"\0" * 512],
    "zstd": [
        zstd,
        lambda data: zstd(data, 2),
        lambda data: b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" + zstd(data) + b"\x5f\x2a\x4d\x18\x00\x00\x00\x00",
        lambda data: zstd(data, write_content_size=False),
        lambda data: zstd(data, level=19),
    ],
    "xz": [lzma.compress, lambda data: lzma.compress(data[:999]) + lzma.compress(data[999:])],
    "bzip2": [bz2.compress, lambda data: bz2.compress(data[:999]) + bz2.compress(data[999:])],
}


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, number) for kind, ways in COMPRESSED.items() for number in range(len(ways))]
)
def test_compressions_by_magic_whatever_the_name(read: Read, kind: str, number: int) -> None:
    layout = simple(size=300_000)
    data = COMPRESSED[kind][number](layout.tar())
    contents = read(data, name="images.txt")
    assert names(contents) == [NAME]
    assert (contents.format, contents.compression, contents.bytes_read) == ("oci-archive", kind, len(data))
    assert contents.blobs == {digest: len(blob) for digest, blob in layout.blobs.items()}
    assert [str(platform) for platform in contents.images[0].platforms] == ["linux/amd64"]
    assert not contents.missing


@pytest.mark.parametrize("prefix", ["", "./"])
@pytest.mark.parametrize("index_first", [False, True])
def test_members_in_any_order(read: Read, prefix: str, index_first: bool) -> None:
    layout = simple()
    members = layout.members(prefix, index_first=index_first)
    contents = read(tar(special("./", tarfile.DIRTYPE), *members))
    assert names(contents) == [NAME]
    assert contents.images[0].descriptor.digest == layout.entries[0]["digest"]


@pytest.mark.parametrize(
    "extra",
    [
        [("index.json", simple().index_json())],
        [special("blobs/evil", tarfile.SYMTYPE, "/etc/passwd")],
        [special("pipe", tarfile.FIFOTYPE), special("dev", tarfile.CHRTYPE), special("disk", tarfile.BLKTYPE)],
        [("audit.log", b"x"), ("blobs/sha256/README", b"no digest names this")],
        [("d" * 150 + "/" + "f" * 150, b"a GNU long name")],
        [*pax("short", b"data", path="p" * 300)],
        [raw_member("vendor", b"label", b"V")],
    ],
)
def test_oddities_that_do_no_harm(read: Read, extra: list[tuple[str, bytes] | tarfile.TarInfo]) -> None:
    assert names(read(tar(*simple().members(), *extra))) == [NAME]


def test_absolute_names_lie_below_the_root_of_the_archive(read: Read) -> None:
    """Buildpacks write "/<hex>.tar"; nothing is extracted, so it is read as docker reads it."""
    one, two = layer("one"), layer("two")
    members = docker(one, two, tags=[NAME])
    manifest = json.loads(members[-1][1])  # type: ignore[index]
    manifest[0]["Layers"] = ["/" + path for path in manifest[0]["Layers"]]
    files = [("/" + name, data) for name, data in members[:2]]  # type: ignore[misc]
    absolute = read(tar(*files, members[2], ("/manifest.json", compact(manifest))))
    assert absolute.images == read(tar(*members)).images
    link = special("/link.tar", tarfile.SYMTYPE, "/" + members[0][0])  # type: ignore[index]
    manifest[0]["Layers"] = ["link.tar", manifest[0]["Layers"][1]]
    assert read(tar(*files, link, members[2], ("manifest.json", compact(manifest)))).images == absolute.images


def test_without_its_end_marker_but_otherwise_whole(read: Read) -> None:
    contents = read(simple().tar(end=False))
    assert names(contents) == [NAME]
    assert any("end marker" in note for note in contents.notes)
    assert not any("end marker" in note for note in read(simple().tar()).notes)


def test_sparse_index_is_accepted_and_reported(read: Read) -> None:
    layout = Layout()
    here = {**layout.image(layer()), "platform": {"os": "linux", "architecture": "amd64"}}
    away = {**layout.image(layer("arm"), arch="arm64"), "platform": {"os": "linux", "architecture": "arm64"}}
    layout.name(layout.index(here, away), NAME)
    del layout.blobs[away["digest"]]
    contents = read(layout.tar())
    assert names(contents) == [NAME]
    assert [str(platform) for platform in contents.images[0].platforms] == ["linux/amd64"]
    assert contents.missing == [away["digest"]]
    assert away["digest"] not in contents.blobs


def test_child_without_its_layers_is_sparse_too(read: Read) -> None:
    layout = Layout()
    here, away = layout.image(layer()), layout.image(layer("arm"), arch="arm64")
    layout.name(layout.index(here, away), NAME)
    del layout.blobs[sha(layer("arm"))]
    contents = read(layout.tar())
    assert [str(platform) for platform in contents.images[0].platforms] == ["linux/amd64"]
    assert contents.missing == [sha(layer("arm"))]


def test_children_listed_again_are_not_nameless_images(read: Read) -> None:
    layout = Layout()
    child = layout.image(layer())
    layout.name(layout.index(child), NAME).name(child)
    contents = read(layout.tar())
    assert names(contents) == [NAME]
    assert contents.notes == []


def test_signature_is_a_referrer_and_needs_no_name(read: Read) -> None:
    layout = Layout()
    image = layout.image(layer())
    layout.name(image, NAME)
    subject = {key: image[key] for key in ("mediaType", "digest", "size")}
    layout.name(layout.image(b"{}", layer_type="application/x", subject=subject))
    contents = read(layout.tar())
    assert [(image.reference is None, image.subject) for image in contents.images] == [
        (False, None),
        (True, image["digest"]),
    ]
    assert contents.nameless == []


def test_buildx_attestation_counts_as_no_platform(read: Read) -> None:
    layout = Layout()
    image = {**layout.image(layer()), "platform": {"os": "linux", "architecture": "amd64"}}
    statement = layout.image(b"{}", arch="unknown", layer_type="application/vnd.in-toto+json")
    layout.name(layout.index(image, {**statement, "platform": {"os": "unknown", "architecture": "unknown"}}), NAME)
    assert [str(platform) for platform in read(layout.tar()).images[0].platforms] == ["linux/amd64"]


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({"org.opencontainers.image.ref.name": "foo:1"}, "docker.io/library/foo:1"),
        ({"org.opencontainers.image.ref.name": "docker.io/library/foo:1"}, "docker.io/library/foo:1"),
        ({"org.opencontainers.image.ref.name": "1", "io.containerd.image.name": "quay.io/a/b:1"}, "quay.io/a/b:1"),
        (
            {"org.opencontainers.image.ref.name": "a/b:1", "io.containerd.image.name": "index.docker.io/a/b:1"},
            "docker.io/a/b:1",
        ),
        ({"org.opencontainers.image.ref.name": "v1"}, "None"),
        ({}, "None"),
    ],
)
def test_names_of_layouts(read: Read, annotations: dict[str, str], expected: str) -> None:
    layout = Layout()
    layout.name(layout.image(layer()), **annotations)
    contents = read(layout.tar())
    assert names(contents) == [expected]
    assert (expected == "None") == any("--name" in note for note in contents.notes)


def test_hauler_signature_gets_the_tag_that_cosign_asks_for(read: Read) -> None:
    layout = Layout()
    image = layout.image(layer())
    signature = layout.image(b"{}", layer_type="application/vnd.dev.cosign.simplesigning.v1+json")
    for entry, kind in ((image, "image"), (signature, "sigs")):
        layout.name(entry, "ksd/nginx:1.27", **{"io.containerd.image.name": NAME, "kind": f"dev.hauler/{kind}"})
    contents = read(layout.tar())
    tag = image["digest"].replace(":", "-") + ".sig"
    assert names(contents) == [NAME, f"ksd.test.com/ksd/nginx:{tag}"]
    assert contents.images[1].subject == image["digest"]


# --name


def test_name_takes_the_tag_that_the_archive_gives(read: Read) -> None:
    layout = Layout()
    layout.name(layout.image(layer()), "1.27")
    assert names(read(layout.tar(), names=["ksd.test.com/ksd/nginx"])) == [NAME]
    assert names(read(layout.tar(), names=["ksd.test.com/ksd/nginx:2"])) == ["ksd.test.com/ksd/nginx:2"]
    assert names(read(layout.tar(), names=["foo:1", "foo:2"])) == ["docker.io/library/foo:1", "docker.io/library/foo:2"]


def test_name_is_an_alias_for_the_only_image(read: Read) -> None:
    assert names(read(simple().tar(), names=["foo:9"])) == [NAME, "docker.io/library/foo:9"]
    assert names(read(simple().tar(), names=[NAME])) == [NAME]


def test_name_with_several_images_needs_a_digest(read: Read) -> None:
    layout = Layout()
    first, second = layout.image(layer("a")), layout.image(layer("b"))
    layout.name(first).name(second)
    with pytest.raises(ApplianceError, match="APL-0123"):
        read(layout.tar(), names=["foo:1"])
    contents = read(layout.tar(), names=[f"foo:1@{second['digest']}"])
    assert [(str(i.reference), i.descriptor.digest) for i in contents.images] == [
        ("None", first["digest"]),
        ("docker.io/library/foo:1", second["digest"]),
    ]
    with pytest.raises(ApplianceError, match="APL-0123"):
        read(layout.tar(), names=["foo:1@" + sha(b"nothing")])


# docker-archives


def test_docker_archive_manifest_is_containerds(read: Read) -> None:
    plain = layer()
    packed = gzip.compress(layer("b"), mtime=0)
    contents = read(tar(*docker(plain, layer("b"), stored=[plain, packed], tags=["alpine:3.19", NAME])))
    config = compact(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [sha(plain), sha(layer("b"))]},
        }
    )
    expected = (
        '{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":'
        f'"application/vnd.docker.container.image.v1+json","digest":"{sha(config)}","size":{len(config)}}},"layers":['
        f'{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar","digest":"{sha(plain)}","size":{len(plain)}}},'
        '{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip",'
        f'"digest":"{sha(packed)}","size":{len(packed)}}}]}}'
    ).encode()
    assert names(contents) == ["docker.io/library/alpine:3.19", NAME]
    assert [image.descriptor.digest for image in contents.images] == [sha(expected)] * 2
    assert contents.images[0].descriptor == Descriptor(mediatypes.DOCKER_MANIFEST, sha(expected), len(expected))
    assert contents.format == "docker-archive"
    assert contents.notes == [DIGESTS_LOST]
    assert set(contents.blobs) == {sha(expected), sha(config), sha(plain), sha(packed)}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_docker_layer_that_is_a_link(read: Read, kind: bytes) -> None:
    data = layer()
    v1 = "a" * 64
    target = f"../{v1}/layer.tar" if kind == tarfile.SYMTYPE else f"{v1}/layer.tar"
    config = compact({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [sha(data), sha(data)]}})
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": [f"{v1}/layer.tar", "b/layer.tar"]}]
    contents = read(
        tar(
            (f"{v1}/VERSION", b"1.0"),
            (f"{v1}/json", b"{}"),
            (f"{v1}/layer.tar", data),
            special("b/layer.tar", kind, target),
            ("c.json", config),
            ("manifest.json", compact(manifest)),
            ("repositories", b"{}"),
        )
    )
    assert names(contents) == ["None"]
    assert len(contents.nameless) == 1
    assert sha(data) in contents.blobs


def test_docker_layers_under_blobs_are_unpacked_in_a_second_pass(read: Read) -> None:
    """As ``hauler store save --containerd`` leaves it: manifest.json over compressed blobs, without oci-layout."""
    data, packed = layer(), zstd(layer())
    config = compact({"architecture": "arm64", "os": "linux", "rootfs": {"diff_ids": [sha(data)]}})
    path = {blob: "blobs/" + sha(blob).replace(":", "/") for blob in (packed, config)}

    def archive(diff: bytes) -> bytes:
        manifest = [{"Config": path[config], "RepoTags": ["a/b:1"], "Layers": [path[diff]]}]
        return tar((path[packed], packed), (path[config], config), ("manifest.json", compact(manifest)))

    contents = read(archive(packed))
    assert names(contents) == ["docker.io/a/b:1"]
    assert [str(platform) for platform in contents.images[0].platforms] == ["linux/arm64"]


def test_docker_25_falls_back_to_manifest_json(read: Read) -> None:
    """moby #47150: layers of the OCI manifest in the wrong order."""
    one, two = layer("one"), layer("two")
    layout = Layout()
    layout.name(layout.image(one, two, diff_ids=[sha(two), sha(one)]), "3", **{"io.containerd.image.name": NAME})
    config = next(data for data in layout.blobs.values() if b"diff_ids" in data)
    layers = ["blobs/" + sha(data).replace(":", "/") for data in (two, one)]
    manifest = [{"Config": "blobs/" + sha(config).replace(":", "/"), "RepoTags": [NAME], "Layers": layers}]
    contents = read(tar(*layout.members(), ("manifest.json", compact(manifest))))
    assert contents.format == "docker-archive"
    assert names(contents) == [NAME]
    assert any("not sound" in note for note in contents.notes)
    with pytest.raises(ApplianceError, match="APL-0118"):
        read(layout.tar())


@pytest.mark.parametrize("manifests", ["null", "[]"])
def test_docker_25_with_an_empty_index_falls_back(read: Read, manifests: str) -> None:
    extra = (
        ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        ("index.json", f'{{"schemaVersion":2,"manifests":{manifests}}}'.encode()),
    )
    assert names(read(tar(*docker(layer(), tags=["foo:1"], extra=extra)))) == ["docker.io/library/foo:1"]


# checksums beside the file


@pytest.mark.parametrize(
    "form",
    [
        "{0}  images.tar\n",
        "{0} *images.tar\n",
        "{0}\n",
        "SHA256 (images.tar) = {0}\n",
        "{1}  other.tar\n{0}  ./x/images.tar\n",
        "{0}  renamed.tar\n",
    ],
)
def test_checksum_beside_the_file(read: Read, form: str) -> None:
    data = simple().tar()
    right, wrong = hashlib.sha256(data).hexdigest(), hashlib.sha256(b"").hexdigest()
    assert names(read(data, sidecar=form.format(right, wrong))) == [NAME]
    with pytest.raises(ApplianceError, match="APL-0115"):
        read(data, sidecar=form.format(wrong, right))


@pytest.mark.parametrize("text", ["", "hello", "{0}  a.tar\n{0}  b.tar\n"])
def test_checksum_file_without_a_line_for_the_file(read: Read, text: str) -> None:
    data = simple().tar()
    with pytest.raises(ApplianceError, match="APL-0115"):
        read(data, sidecar=text.format(hashlib.sha256(data).hexdigest()))


@pytest.mark.parametrize("name", ["k3s-airgap-images-amd64.tar", "rke2-images-core.linux-amd64.tar.zst"])
def test_the_list_of_a_release_beside_the_file(read: Read, tmp_path: Path, name: str) -> None:
    """K3s brings one list for all files of an architecture; it counts for what it lists."""
    data = simple().tar()
    right, wrong = hashlib.sha256(data).hexdigest(), hashlib.sha256(b"").hexdigest()
    listed = tmp_path / "sha256sum-amd64.txt"
    listed.write_text(f"{wrong}  k3s\n{right}  {name}\n")
    assert names(read(data, name=name)) == [NAME]
    listed.write_text(f"{right}  k3s\n{wrong}  {name}\n")
    with pytest.raises(ApplianceError, match="APL-0115"):
        read(data, name=name)
    assert names(read(data, name=name, sidecar=f"{right}  {name}\n")) == [NAME]  # its own list is nearer
    (tmp_path / f"{name}.sha256").unlink()
    assert names(read(data, name=name.replace("amd64", "arm64"))) == [NAME]
    assert names(read(data, name=f"other-{name}")) == [NAME]


def test_a_release_in_parts_is_held_against_its_list(tmp_path: Path) -> None:
    data = simple().tar()
    parts = [tmp_path / f"k3s-airgap-images-amd64.tar.00{number}" for number in range(2)]
    for path, piece in zip(parts, (data[:2000], data[2000:]), strict=True):
        path.write_bytes(piece)
    listed = tmp_path / "sha256sum-amd64.txt"
    listed.write_text(f"{hashlib.sha256(data).hexdigest()} *k3s-airgap-images-amd64.tar\n")
    assert names(read_path(parts[0])) == [NAME]
    listed.write_text(f"{hashlib.sha256(b'').hexdigest()} *k3s-airgap-images-amd64.tar\n")
    with pytest.raises(ApplianceError, match="APL-0115"):
        read_path(parts[0])


# directories


def write_layout(root: Path, layout: Layout) -> Path:
    for member in layout.members():
        assert isinstance(member, tuple)
        path = root / member[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(member[1])
    return root


def read_path(path: Path) -> ArchiveContents:
    with HashingSink() as sink:
        return read_source(path, sink)


def test_layout_directory_reads_what_is_named_and_nothing_else(tmp_path: Path) -> None:
    layout = simple()
    root = write_layout(tmp_path / "layout", layout)
    (root / "blobs/sha256" / ("0" * 64)).write_bytes(b"unreachable, and not what its name says")
    contents = read_path(root)
    assert (contents.format, names(contents)) == ("oci-layout", [NAME])
    assert contents.blobs == {digest: len(data) for digest, data in layout.blobs.items()}


def test_layout_directory_with_a_link_is_refused(tmp_path: Path) -> None:
    layout = simple()
    root = write_layout(tmp_path / "layout", layout)
    victim = root / "blobs" / sha(layer("two")).replace(":", "/")
    victim.rename(tmp_path / "elsewhere")
    victim.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ApplianceError, match="APL-0101"):
        read_path(root)
    victim.unlink()
    (root / "blobs").rename(tmp_path / "blobs")
    (root / "blobs").symlink_to(tmp_path / "blobs")
    with pytest.raises(ApplianceError, match="APL-0101"):
        read_path(root)


def test_layout_directory_with_a_damaged_blob_is_refused(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "layout", simple())
    victim = root / "blobs" / sha(layer("two")).replace(":", "/")
    victim.write_bytes(layer("two")[:-1] + b"!")
    with pytest.raises(ApplianceError, match="APL-0107"):
        read_path(root)
    victim.unlink()
    with pytest.raises(ApplianceError, match="APL-0112"):
        read_path(root)


def test_skopeo_dir(tmp_path: Path) -> None:
    layout = simple()
    manifest = layout.blobs[layout.entries[0]["digest"]]
    root = tmp_path / "dir"
    root.mkdir()
    for digest, data in layout.blobs.items():
        (root / digest[7:]).write_bytes(data)
    (root / digest[7:]).write_bytes(data)
    (root / sha(manifest)[7:]).unlink()
    (root / "manifest.json").write_bytes(manifest)
    (root / "version").write_text("Directory Transport Version: 1.1\n")
    assert find_sources(root).sources == [root]
    contents = read_path(root)
    assert (contents.format, names(contents)) == ("dir", ["None"])
    assert contents.images[0].descriptor.digest == sha(manifest)


def test_the_sources_of_a_directory(tmp_path: Path) -> None:
    wanted = ["a.tar", "b.tar.zst", "c.tgz", "D.TAR.GZ", "sub/e.tar.xz", "sub/f.tbz", "two\nlines.tar"]
    passed_over = ["a.tar.sha256", "System Volume Information/x.tar", "lost+found/y.tar", ".Trash-0/z.tar"]
    others = ["README.txt", "k3s", "sub/notes.pdf", ".hidden.tar", "sha256sum-arm64.txt"]
    for name in wanted + passed_over + others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link.tar").symlink_to("/etc/passwd")
    layout = write_layout(tmp_path / "sub" / "layout", simple())
    found = find_sources(tmp_path)
    assert sorted(found.sources) == sorted([tmp_path / name for name in wanted] + [layout])
    assert found.sources == find_sources(tmp_path).sources
    assert {Path(item.path).name: item.reason for item in found.left_out} == {
        **dict.fromkeys(("README.txt", "k3s", "notes.pdf"), Reason.OTHER),
        ".hidden.tar": Reason.HIDDEN,
        "sha256sum-arm64.txt": Reason.CHECKSUM,
        "link.tar": Reason.LINK,
    }
    assert {path.name for path in found.passed_over} == {Path(name).parts[0] for name in passed_over}
    assert find_sources(tmp_path / "README.txt").sources == [tmp_path / "README.txt"]


def test_a_source_with_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match=r"APL-0122.*empty"):
        find_sources(tmp_path).check(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(ApplianceError, match=r"APL-0122.*photo\.jpg"):
        find_sources(tmp_path).check(tmp_path)
    with pytest.raises(ApplianceError, match="APL-0101"):
        find_sources(tmp_path / "nothing").check(tmp_path / "nothing")


# the sink


def test_blobs_that_the_store_has_need_not_be_brought(tmp_path: Path) -> None:
    layout = simple()
    held = sha(layer("two"))

    data = layout.blobs.pop(held)

    class Base:
        def has(self, digest: str) -> bool:
            return digest == held

        def size(self, digest: str) -> int | None:
            return len(data) if digest == held else None

        def read(self, digest: str, limit: int) -> bytes:
            raise AssertionError(digest, limit)

    path = tmp_path / "x.tar"
    path.write_bytes(layout.tar())
    with HashingSink(Base()) as sink:
        contents = read_source(path, sink)
    assert names(contents) == [NAME]
    assert held not in contents.blobs


def test_hashing_sink_checks_and_keeps_documents_only() -> None:
    with HashingSink(spool_limit=100) as sink:
        assert sink.put([b"{", memoryview(b'"a":1}')], size=7, expect=None, where="x") == StoredBlob(
            sha(b'{"a":1}'), 7, b'{"a":1}'
        )
        assert sink.read(sha(b'{"a":1}'), 7) == b'{"a":1}'
        other = sink.put([b"\x1f\x8b" + b"x" * 100], size=None, expect=None, where="x")
        assert (other.head, sink.sizes[other.digest]) == (b"\x1f\x8b" + b"x" * 14, 102)
        for digest, limit, code in ((sha(b'{"a":1}'), 6, "0204"), (other.digest, 999, "0204"), (sha(b"?"), 9, "0108")):
            with pytest.raises(ApplianceError, match=f"APL-{code}"):
                sink.read(digest, limit)
        with pytest.raises(ApplianceError, match="APL-0106"):
            sink.put([b"abc"], size=4, expect=None, where="x")
        with pytest.raises(ApplianceError, match="APL-0107"):
            sink.put([b"abc"], size=3, expect=sha(b"abd"), where="x")
        assert not sink.has(sha(b"abc"))
        with pytest.raises(ApplianceError, match="APL-0109"):
            sink.put([b"{" + b" " * 99 + b"}"], size=101, expect=None, where="x")


def test_sha512_blobs_are_checked_with_sha512(read: Read) -> None:
    layout = simple()
    data = layer("extra")
    digest = hashlib.sha512(data).hexdigest()
    assert names(read(tar(*layout.members(), (f"blobs/sha512/{digest}", data)))) == [NAME]
    with pytest.raises(ApplianceError, match="APL-0107"):
        read(tar(*layout.members(), (f"blobs/sha512/{digest}", data + b"!")))


def test_progress_ends_at_the_size(read: Read) -> None:
    seen: list[tuple[int, int]] = []
    data = simple(size=5 << 20).tar()
    read(data, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(data), len(data))
    assert seen == sorted(seen)


def test_deep_unpacks_compressed_layers(read: Read) -> None:
    def archive(inside: bytes) -> bytes:
        layout = Layout()
        image = layout.image(layer(), layer_type=mediatypes.OCI_LAYER_GZIP, stored=[gzip.compress(inside)])
        return layout.name(image, NAME).tar()

    assert names(read(archive(layer()), deep=True)) == [NAME]
    assert names(read(archive(layer("other")))) == [NAME]
    with pytest.raises(ApplianceError, match="APL-0118"):
        read(archive(layer("other")), deep=True)


def test_document_order_is_kept_for_json() -> None:
    assert json.loads(compact({"b": 1, "a": 2})) == {"b": 1, "a": 2}
