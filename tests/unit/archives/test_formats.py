"""Formats whose tools Debian 12 does not have, built from their descriptions; and what is named and refused.

Docker from 25 on: moby daemon/internal/image/tarexport/save.go. Hauler: its store's layout, 2.x. buildx: the OCI exporter with
provenance. containerd from 2 on: core/images/archive/exporter.go.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import pytest

from appliance.archives.discovery import find_sources
from appliance.archives.docker import DIGESTS_LOST
from appliance.archives.model import ArchiveContents
from appliance.archives.reader import read_source
from appliance.archives.sink import HashingSink
from appliance.errors import ApplianceError
from appliance.oci import mediatypes
from tests.unit.archives.conftest import Read
from tests.unit.archives.made import Layout, Member, compact, docker, layer, sha, simple, special, tar, zstd

NAME = "ksd.test.com/ksd/nginx:1.27"
FOO = "docker.io/library/foo:1"


def place(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def named(contents: ArchiveContents) -> dict[str, str]:
    return {str(image.reference): image.descriptor.digest for image in contents.images}


def notes(contents: ArchiveContents, words: str) -> list[str]:
    return [note for note in contents.notes if words in note]


class Docker25:
    """``docker save`` of Docker 25 or newer with the graph driver store; every image has two layers."""

    def __init__(self) -> None:
        self.layout = Layout()
        self.manifest_json: list[dict[str, Any]] = []
        self.repositories: dict[str, dict[str, str]] = {}

    def add(self, text: str, *familiar: str, index: bool = True, **broken: Any) -> dict[str, Any]:
        """Add an image under some familiar names (none: saved by id); ``broken`` changes its OCI manifest."""
        layers = [layer(text), layer(f"{text}-2")]
        config = compact(
            {
                "architecture": "amd64",
                "os": "linux",
                "docker_version": "25.0.0",
                "rootfs": {"type": "layers", "diff_ids": [sha(data) for data in layers]},
            }
        )
        stored = [self.layout.add(data, mediatypes.OCI_LAYER) for data in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "config": self.layout.add(config, mediatypes.OCI_CONFIG),
            "layers": [dict(item) for item in stored],
        }
        sources = {item["digest"]: item for item in stored}
        change = broken.get("change")
        if change is not None:
            change(manifest)
        entry = self.layout.add(compact(manifest), mediatypes.OCI_MANIFEST)
        # The v1 configuration that only Docker before 1.10 reads lies among the blobs, too.
        self.layout.add(compact({"id": "a" * 64, "created": text}), "application/json")
        for name in familiar or ("",) if index else ():
            tag = name.rpartition(":")[2]
            annotations = {"io.containerd.image.name": f"docker.io/library/{name}"} if name else {}
            self.layout.name(entry, tag, **annotations)
        for name in familiar:
            repository, _, tag = name.rpartition(":")
            self.repositories.setdefault(repository, {})[tag] = "b" * 64
        self.manifest_json.append(
            {
                "Config": place(sha(config)),
                "RepoTags": list(familiar) or None,
                "Layers": [place(sha(data)) for data in layers],
                "LayerSources": sources,
            }
        )
        return entry

    def tar(self, index: bytes | None = None) -> bytes:
        members: list[Member] = [special("blobs/", b"5"), special("blobs/sha256/", b"5")]
        members += [
            ("index.json", index) if isinstance(member, tuple) and member[0] == "index.json" and index else member
            for member in self.layout.members()
        ]
        members += [
            ("manifest.json", compact(self.manifest_json)),
            ("repositories", compact(self.repositories)),
        ]
        return tar(*members)


def synthetic(text: str) -> str:
    """The digest that containerd gives the image of :class:`Docker25` when only manifest.json counts."""
    layers = [layer(text), layer(f"{text}-2")]
    saved = Docker25()
    saved.add(text)
    config = saved.layout.blobs["sha256:" + saved.manifest_json[0]["Config"].rpartition("/")[2]]
    parts = [{"mediaType": mediatypes.DOCKER_LAYER, "digest": sha(data), "size": len(data)} for data in layers]
    head = {"mediaType": mediatypes.DOCKER_CONFIG, "digest": sha(config), "size": len(config)}
    return sha(compact({"schemaVersion": 2, "mediaType": mediatypes.DOCKER_MANIFEST, "config": head, "layers": parts}))


def test_docker_25(read: Read) -> None:
    saved = Docker25()
    first, second = saved.add("one", "foo:1", "foo:latest"), saved.add("two", "bar:2")
    contents = read(saved.tar())
    assert contents.format == "oci-archive"
    assert named(contents) == {
        FOO: first["digest"],
        "docker.io/library/foo:latest": first["digest"],
        "docker.io/library/bar:2": second["digest"],
    }
    assert contents.notes == []
    assert {str(platform) for image in contents.images for platform in image.platforms} == {"linux/amd64"}


def test_docker_25_by_id_has_no_name(read: Read) -> None:
    saved = Docker25()
    entry = saved.add("one")
    assert named(read(saved.tar())) == {"None": entry["digest"]}
    assert named(read(saved.tar(), names=["foo:1"])) == {FOO: entry["digest"]}


BROKEN: dict[str, Any] = {
    "moby 47065: without layers": lambda manifest: manifest.update(layers=[]),
    "moby 47065: layers null": lambda manifest: manifest.update(layers=None),
    "moby 47072: wrong sizes": lambda manifest: manifest["layers"][0].update(size=7),
    "moby 47150: wrong order": lambda manifest: manifest["layers"].reverse(),
}


@pytest.mark.parametrize("case", BROKEN)
def test_docker_25_with_a_broken_oci_part_is_read_by_its_manifest_json(read: Read, case: str) -> None:
    saved = Docker25()
    saved.add("one", "foo:1", change=BROKEN[case])
    contents = read(saved.tar())
    assert contents.format == "docker-archive"
    assert named(contents) == {FOO: synthetic("one")}
    assert len(notes(contents, "not sound")) == len(notes(contents, DIGESTS_LOST)) == 1


@pytest.mark.parametrize("listed", [b"null", b"[]"])
def test_docker_25_index_without_anything(read: Read, listed: bytes) -> None:
    """moby 47210: saved by digest alone."""
    saved = Docker25()
    saved.add("one", index=False)
    index = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":' + listed + b"}"
    contents = read(saved.tar(index), names=["foo:1"])
    assert named(contents) == {FOO: synthetic("one")}


def test_docker_25_image_saved_by_its_digest_is_not_lost(read: Read) -> None:
    """moby 51389: index.json leaves it out, manifest.json has it."""
    saved = Docker25()
    first = saved.add("one", "foo:1")
    saved.add("two", index=False)
    contents = read(saved.tar())
    assert named(contents) == {FOO: first["digest"], "None": synthetic("two")}
    assert len(notes(contents, "manifest.json alone")) == len(notes(contents, DIGESTS_LOST)) == 1
    assert [image.descriptor.digest for image in contents.nameless] == [synthetic("two")]
    assert set(contents.blobs) >= {sha(layer("two")), synthetic("two")}


def test_docker_25_whose_two_lists_contradict_each_other_is_refused(read: Read) -> None:
    saved = Docker25()
    saved.add("one", "foo:1")
    saved.add("two", "foo:1", index=False)
    with pytest.raises(ApplianceError, match=r"APL-0114.*manifest\.json"):
        read(saved.tar())


def test_a_manifest_json_that_is_not_whole_beside_a_good_index(read: Read) -> None:
    saved = Docker25()
    entry = saved.add("one", "foo:1")
    saved.manifest_json.append({"Config": "gone.json", "RepoTags": ["bar:1"], "Layers": []})
    contents = read(saved.tar())
    assert named(contents) == {FOO: entry["digest"]}
    assert len(notes(contents, "passed over")) == 1


# buildx and containerd


def buildx() -> tuple[Layout, dict[str, Any], dict[str, dict[str, Any]]]:
    """``buildx build --platform linux/amd64,linux/arm64 --provenance=true -o type=oci``."""
    layout = Layout()
    children: list[dict[str, Any]] = []
    parts: dict[str, dict[str, Any]] = {}
    for arch in ("amd64", "arm64"):
        packed = gzip.compress(layer(arch), mtime=0)
        image = layout.image(layer(arch), arch=arch, layer_type=mediatypes.OCI_LAYER_GZIP, stored=[packed])
        statement = compact({"_type": "https://in-toto.io/Statement/v0.1", "subject": [{"name": arch}]})
        config = compact(
            {"architecture": "unknown", "os": "unknown", "rootfs": {"type": "layers", "diff_ids": [sha(statement)]}}
        )
        attestation = {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "config": layout.add(config, mediatypes.OCI_CONFIG),
            "layers": [
                layout.add(
                    statement,
                    "application/vnd.in-toto+json",
                    annotations={"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"},
                )
            ],
        }
        notes = {
            "vnd.docker.reference.digest": image["digest"],
            "vnd.docker.reference.type": "attestation-manifest",
        }
        proof = layout.add(compact(attestation), mediatypes.OCI_MANIFEST, annotations=notes)
        children.append({**image, "platform": {"architecture": arch, "os": "linux"}})
        children.append({**proof, "platform": {"architecture": "unknown", "os": "unknown"}})
        parts[arch], parts[f"proof of {arch}"] = image, proof
    index = layout.index(*children)
    annotations = {"io.containerd.image.name": NAME, "org.opencontainers.image.created": "2026-01-01T00:00:00Z"}
    layout.name(index, "1.27", **annotations)
    return layout, index, parts


def test_buildx_keeps_its_attestations(read: Read) -> None:
    layout, index, parts = buildx()
    contents = read(layout.tar(), deep=True)
    assert named(contents) == {NAME: index["digest"]}
    assert sorted(map(str, contents.images[0].platforms)) == ["linux/amd64", "linux/arm64"]
    assert contents.blobs == {digest: len(data) for digest, data in layout.blobs.items()}
    assert {parts["proof of amd64"]["digest"], parts["proof of arm64"]["digest"]} <= set(contents.blobs)
    assert (contents.missing, contents.notes) == ([], [])


def test_containerd_export_of_one_platform_keeps_the_index_whole(read: Read) -> None:
    """From 2.0 on: the index with all its children listed, one of them there, and manifest.json for that one."""
    layout, index, parts = buildx()
    config = sha(
        next(data for data in layout.blobs.values() if b'"architecture":"arm64"' in data and b"rootfs" in data)
    )
    packed = sha(gzip.compress(layer("arm64"), mtime=0))
    keep = {index["digest"], parts["arm64"]["digest"], config, packed}
    layout.blobs = {digest: data for digest, data in layout.blobs.items() if digest in keep}
    manifest = [{"Config": place(config), "RepoTags": ["ksd.test.com/ksd/nginx:1.27"], "Layers": [place(packed)]}]
    contents = read(tar(*layout.members(), ("manifest.json", compact(manifest))))
    assert named(contents) == {NAME: index["digest"]}
    assert list(map(str, contents.images[0].platforms)) == ["linux/arm64"]
    assert set(contents.missing) == {parts[key]["digest"] for key in ("amd64", "proof of amd64", "proof of arm64")}
    assert len(notes(contents, "other platforms")) == len(contents.notes) == 1


# Hauler


def haul() -> tuple[Layout, dict[str, dict[str, Any]]]:
    """``hauler store save``: an image, an index, its signature, attestation, SBOM and referrer, a chart and a file."""
    layout = Layout()
    parts: dict[str, dict[str, Any]] = {"image": layout.image(layer("image"))}
    children = [
        {**layout.image(layer(arch), arch=arch), "platform": {"os": "linux", "architecture": arch}}
        for arch in ("amd64", "arm64")
    ]
    parts["index"] = layout.index(*children)
    for kind in ("sigs", "atts", "sboms"):
        parts[kind] = layout.image(kind.encode(), layer_type=f"application/x-{kind}")
    subject = {key: parts["image"][key] for key in ("mediaType", "digest", "size")}
    parts["referrer"] = layout.image(b"referrer", layer_type="application/x-referrer", subject=subject)
    for kind, config_type, blob_type in (
        ("chart", "application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"),
        ("file", "application/vnd.content.hauler.file.config.v1+json", "application/vnd.content.hauler.file.layer.v1"),
    ):
        manifest = {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "config": layout.add(compact({"name": kind}), config_type),
            "layers": [layout.add(kind.encode(), blob_type)],
        }
        parts[kind] = layout.add(compact(manifest), mediatypes.OCI_MANIFEST)
    short, index_name = "ksd/nginx:1.27", "index.docker.io/rancher/both:v1"
    for key, kind, name, ref in (
        ("image", "dev.hauler/image", NAME, short),
        ("sigs", "dev.hauler/sigs", NAME, short),
        ("atts", "dev.hauler/atts", NAME, short),
        ("sboms", "dev.hauler/sboms", NAME, short),
        ("referrer", "dev.hauler/referrers/" + parts["referrer"]["digest"][7:], NAME, short),
        ("index", "dev.hauler/imageIndex", index_name, "rancher/both:v1"),
        ("chart", "dev.hauler/image", "", "hauler/chart:1.2.3"),
        ("file", "dev.hauler/image", "", "hauler/file.sh:latest"),
    ):
        annotations = {"kind": kind, **({"io.containerd.image.name": name} if name else {})}
        layout.name(parts[key], ref, **annotations)
    return layout, parts


def haul_tar() -> bytes:
    layout, _ = haul()
    config = sha(next(data for data in layout.blobs.values() if b"diff_ids" in data))
    item = {"Config": place(config), "RepoTags": ["rancher/both:v1"], "Layers": []}
    # One entry for each platform, under one name, and a log of who did what.
    return tar(*layout.members(), ("manifest.json", compact([item, item])), ("audit.log", b"..."))


def expected_of_haul() -> dict[str, str]:
    _, parts = haul()
    tag = parts["image"]["digest"].replace(":", "-")
    return {
        NAME: parts["image"]["digest"],
        f"ksd.test.com/ksd/nginx:{tag}.sig": parts["sigs"]["digest"],
        f"ksd.test.com/ksd/nginx:{tag}.att": parts["atts"]["digest"],
        f"ksd.test.com/ksd/nginx:{tag}.sbom": parts["sboms"]["digest"],
        "None": parts["referrer"]["digest"],
        "docker.io/rancher/both:v1": parts["index"]["digest"],
        "docker.io/hauler/chart:1.2.3": parts["chart"]["digest"],
        "docker.io/hauler/file.sh:latest": parts["file"]["digest"],
    }


def test_haul_with_all_its_kinds(read: Read) -> None:
    contents = read(zstd(haul_tar()))
    assert named(contents) == expected_of_haul()
    assert contents.nameless == []
    image = next(image for image in contents.images if str(image.reference) == NAME)
    assert {item.subject for item in contents.images if item.is_referrer} == {image.descriptor.digest}


@pytest.mark.parametrize(
    ("original", "expected"),
    [(NAME, NAME), ("nginx", "docker.io/library/nginx:latest"), (None, "docker.io/ksd/nginx:1.27")],
)
def test_older_haul_has_names_without_their_registry(read: Read, original: str | None, expected: str) -> None:
    layout = Layout()
    annotations = {
        "kind": "dev.cosignproject.cosign/image",
        **({"hauler.dev/original-ref": original} if original else {}),
    }
    layout.name(layout.image(layer()), "ksd/nginx:1.27", **annotations)
    assert list(named(read(layout.tar()))) == [expected]


def cut(folder: Path, form: str, data: bytes, size: int, first: int = 0) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = []
    for number, at in enumerate(range(0, len(data), size), first):
        paths.append(folder / form.format(number))
        paths[-1].write_bytes(data[at : at + size])
    return paths


def read_path(path: Path) -> ArchiveContents:
    with HashingSink() as sink:
        return read_source(path, sink)


@pytest.mark.parametrize(
    ("form", "first", "size"),
    [
        ("haul.tar.zst.{:03d}", 0, 700),
        ("haul.tar.{:03d}", 1, 20),
        ("haul.tar.zst.{:05d}", 0, 100_000),
        ("haul_{}.tar.zst", 0, 300),
        ("haul_{}.tar.zst", 1, 100),
    ],
)
def test_haul_in_parts_is_one_source(tmp_path: Path, form: str, first: int, size: int) -> None:
    """Also with numbers that have more digits than the first, whose order is not that of their letters."""
    data = zstd(haul_tar()) if "zst" in form else haul_tar()
    parts = cut(tmp_path / "medium", form, data, size, first)
    assert size != 20 or len(parts) > 1000
    (tmp_path / "medium" / "README.txt").write_text("parts")
    found = find_sources(tmp_path / "medium")
    assert (found.sources, [Path(item.path).name for item in found.left_out]) == ([parts[0]], ["README.txt"])
    assert {find_sources(part).sources[0] for part in (parts[0], parts[len(parts) // 2], parts[-1])} == {parts[0]}
    contents = read_path(parts[0])
    assert named(contents) == expected_of_haul()
    assert contents.bytes_read == sum(path.stat().st_size for path in parts)


@pytest.mark.parametrize("form", ["haul.tar.zst.{:03d}", "haul_{}.tar.zst"])
def test_missing_parts_are_said(tmp_path: Path, form: str) -> None:
    parts = cut(tmp_path / "medium", form, zstd(haul_tar()), 300)
    assert len(parts) > 3
    parts[2].unlink()
    with pytest.raises(ApplianceError, match=r"APL-0144.*but not 2"):
        find_sources(tmp_path / "medium")
    parts = cut(tmp_path / "medium", form, zstd(haul_tar()), 300)
    parts[-1].unlink()
    with pytest.raises(ApplianceError, match="APL-0102"):
        read_path(find_sources(tmp_path / "medium").sources[0])


def test_the_first_part_is_missing(tmp_path: Path) -> None:
    parts = cut(tmp_path / "medium", "haul.tar.zst.{:03d}", zstd(haul_tar()), 300)
    for path in parts[:2]:
        path.unlink()
    with pytest.raises(ApplianceError, match=r"APL-0144.*but not 1"):
        find_sources(tmp_path / "medium")
    (tmp_path / "medium" / "haul.tar.zst.999999999").write_bytes(b"x")
    with pytest.raises(ApplianceError, match=r"APL-0144.*but not 1"):
        find_sources(tmp_path / "medium")


def test_numbered_archives_of_their_own_are_no_parts(tmp_path: Path) -> None:
    for number, data in enumerate(
        [zstd(simple().tar()), simple("foo:1", "x").tar(), gzip.compress(simple("b:1").tar())]
    ):
        (tmp_path / f"images_{number}.tar").write_bytes(data)
    sources = find_sources(tmp_path).sources
    assert len(sources) == 3
    assert [list(named(read_path(path))) for path in sources] == [[NAME], [FOO], ["docker.io/library/b:1"]]


def test_parts_are_held_against_checksums(tmp_path: Path) -> None:
    data = zstd(haul_tar())
    parts = cut(tmp_path / "medium", "haul.tar.zst.{:03d}", data, 1000)
    whole = tmp_path / "medium" / "haul.tar.zst.sha256"

    def sums(*paths: Path) -> str:
        return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths)

    for text in (f"{hashlib.sha256(data).hexdigest()}  haul.tar.zst\n", sums(*parts), sums(parts[1], parts[0])):
        whole.write_text(text)
        assert find_sources(tmp_path / "medium").sources == [parts[0]]
        assert named(read_path(parts[0])) == expected_of_haul()
        whole.write_text(text.translate(str.maketrans("0123456789abcdef", "123456789abcdef0")))
        with pytest.raises(ApplianceError, match="APL-0115"):
            read_path(parts[0])
    whole.unlink()
    for path in parts:
        path.with_name(f"{path.name}.sha256").write_text(sums(path))
    assert named(read_path(parts[0])) == expected_of_haul()
    parts[1].with_name(f"{parts[1].name}.sha256").write_text(sums(parts[0]).split()[0])
    with pytest.raises(ApplianceError, match=rf"APL-0115.*{parts[1].name}"):
        read_path(parts[0])


def test_a_part_that_is_a_link_does_not_lead_elsewhere(tmp_path: Path) -> None:
    parts = cut(tmp_path / "medium", "haul.tar.zst.{:03d}", zstd(haul_tar()), 1000)
    parts[1].rename(tmp_path / "elsewhere")
    parts[1].symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ApplianceError, match=r"APL-0144|APL-0102"):
        read_path(parts[0])


# what is named and refused


REFUSED: dict[str, tuple[list[Member], str, str]] = {
    "Zarf": (
        [
            ("zarf.yaml", b"kind: ZarfPackageConfig"),
            ("checksums.txt", b""),
            ("sboms.tar", b""),
            ("images/oci-layout", b"{}"),
            ("images/index.json", b"{}"),
            ("components/app.tar", b""),
        ],
        "Zarf",
        "zarf tools archiver decompress",
    ),
    "imgpkg": (
        [
            ("manifest.json", compact([{"ImageIndex": {"Refs": ["x"], "Images": []}}, {"Image": {"Refs": ["y"]}}])),
            ("sha256-" + "a" * 64 + ".tar.gz", b""),
        ],
        "imgpkg",
        "imgpkg copy --tar",
    ),
    "oc-mirror 1": ([("mirror_seq1_000000.tar", b""), (".metadata.json", b"{}")], "oc-mirror", "oc-mirror --from"),
    "oc-mirror 2": (
        [("working-dir/info/x", b""), ("docker/registry/v2/blobs/sha256/aa/x/data", b"")],
        "oc-mirror",
        "oc-mirror --from",
    ),
    "mindthegap": (
        [("images.yaml", b""), ("docker/registry/v2/blobs/sha256/aa/x/data", b"")],
        "registry",
        "skopeo copy",
    ),
    "root file system": (
        [special("bin", b"2", "usr/bin"), ("etc/os-release", b""), ("usr/bin/sh", b"")],
        "root file system",
        "docker import",
    ),
    "busybox": ([("bin/sh", b""), ("etc/passwd", b""), ("root/.profile", b"")], "root file system", "docker import"),
    "tar of tars": (
        [("k3s-airgap-images-amd64.tar.zst", b""), ("k3s", b""), ("install.sh", b"")],
        "archive of archives",
        "Unpack it once",
    ),
    "folder": ([("stick/a/oci-layout", b"{}"), ("stick/a/index.json", b"{}")], "folder 'stick/a'", "tar -C stick/a"),
    "Helm chart": ([("app/Chart.yaml", b""), ("app/values.yaml", b"")], "Helm chart", "OCI archives"),
    "source code": ([("src/main.c", b"")], "unknown", "docker save"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_named_with_a_way_to_convert_it(read: Read, case: str) -> None:
    members, what, fix = REFUSED[case]
    with pytest.raises(ApplianceError) as caught:
        read(gzip.compress(tar(*members)))
    assert caught.value.code == "APL-0113"
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_a_docker_archive_with_a_helm_chart_beside_it_is_one(read: Read) -> None:
    extra: tuple[Member, ...] = (("app/Chart.yaml", b""), ("etc/x", b""), ("usr/x", b""))
    assert list(named(read(tar(*docker(layer(), tags=["foo:1"], extra=extra))))) == [FOO]
