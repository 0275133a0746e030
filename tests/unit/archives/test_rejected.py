"""Archives that must not go in: cut, damaged, lying or hostile. Each says so, and nothing comes out of it."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import resource
import socket
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.archives import tar as tarstream
from appliance.archives.compression import Decoder
from appliance.archives.limits import MIB, Limits
from appliance.archives.reader import read_source
from appliance.archives.sink import HashingSink
from appliance.errors import ApplianceError
from appliance.oci import mediatypes
from tests.unit.archives.conftest import Read
from tests.unit.archives.made import (
    Layout,
    compact,
    docker,
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
GOOD = simple().members()


def refused(read: Read, data: bytes, code: str, **more: Any) -> ApplianceError:
    with pytest.raises(ApplianceError) as caught:
        read(data, **more)
    assert caught.value.code == code, caught.value
    assert "images.tar" in caught.value.where, caught.value
    return caught.value


def lying(**change: Any) -> bytes:
    layout = simple()
    layout.entries[0].update(change)
    return layout.tar()


def nested(depth: int, width: int) -> bytes:
    layout = Layout()
    entry = layout.image(layer())
    for _ in range(depth):
        entry = layout.index(*[entry] * width)
    return layout.name(entry, NAME).tar()


def wide() -> bytes:
    layout = Layout()
    leaves = [{"mediaType": mediatypes.OCI_MANIFEST, "digest": f"sha256:{n:064x}", "size": 1} for n in range(20_000)]
    entry = layout.index(*leaves)
    return layout.name(layout.index(*[entry] * 20_000), NAME).tar()


def both() -> bytes:
    """One document with layers and manifests (CVE-2021-41190): an image for some, an index for others."""
    layout = Layout()
    entry = layout.image(layer())
    document = {**json.loads(layout.blobs[entry["digest"]]), "manifests": [entry]}
    return layout.name(layout.add(compact(document), mediatypes.OCI_MANIFEST), NAME).tar()


def typeless() -> bytes:
    """The media type is left out where it would say that the descriptor lies."""
    layout = Layout()
    entry = layout.image(layer())
    document = json.loads(layout.blobs[entry["digest"]])
    del document["mediaType"]
    return layout.name(layout.add(compact(document), mediatypes.OCI_INDEX), NAME).tar()


def without(part: str) -> bytes:
    return tar(*[member for member in GOOD if isinstance(member, tuple) and part not in member[0]])


def docker_with(**change: Any) -> bytes:
    members = docker(layer(), tags=[NAME])
    head = {"Config": members[1][0], "RepoTags": [NAME], "Layers": [members[0][0]], **change}  # type: ignore[index]
    return tar(*members[:-1], ("manifest.json", compact([head])))


def chained() -> bytes:
    """A layer that is a link to a link: one step is followed."""
    members = docker(layer(), tags=[NAME])
    real = members[0][0]  # type: ignore[index]
    links = (special("one.tar", tarfile.SYMTYPE, "two.tar"), special("two.tar", tarfile.SYMTYPE, real))
    head = {"Config": members[1][0], "RepoTags": [NAME], "Layers": ["one.tar"]}  # type: ignore[index]
    return tar(*members[:-1], *links, ("manifest.json", compact([head])))


def circle() -> bytes:
    members = docker_with(Layers=["a.tar"])
    links = tar(special("a.tar", tarfile.SYMTYPE, "b.tar"), special("b.tar", tarfile.SYMTYPE, "a.tar"), end=False)
    return links + members


BIG_SPARSE = special("sparse", tarfile.GNUTYPE_SPARSE)

HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "APL-0102"),
    "random bytes": (random.Random(1).randbytes(5000), "APL-0111"),
    "few bytes": (b"hello", "APL-0111"),
    "text": (b"hello\n" * 1000, "APL-0111"),
    "only zeros": (b"\0" * 10240, "APL-0111"),
    "lz4": (b"\x04\x22\x4d\x18" + b"x" * 100, "APL-0110"),
    "upwards": (tar(*GOOD, ("../x", b"x")), "APL-0105"),
    "upwards in the middle": (tar(*GOOD, ("a/../../x", b"x")), "APL-0105"),
    "absolute and upwards": (tar(*GOOD, ("/../x", b"x")), "APL-0105"),
    "absolute link leading out": (tar(*GOOD, special("l", tarfile.SYMTYPE, "/../x")), "APL-0105"),
    "NUL in a name": (tar(*GOOD, *pax("x", b"x", path="a\0b")), "APL-0105"),
    "NUL in a link": (tar(*GOOD, *pax("x", b"", linkpath="a\0b")[:1], special("l", tarfile.SYMTYPE, "x")), "APL-0105"),
    "symlink leading out": (tar(*GOOD, special("a/l", tarfile.SYMTYPE, "../../x")), "APL-0105"),
    "hardlink leading out": (tar(*GOOD, special("a/l", tarfile.LNKTYPE, "../x")), "APL-0105"),
    "GNU sparse": (tar(*GOOD, BIG_SPARSE), "APL-0105"),
    "pax sparse": (tar(*GOOD, *pax("x", b"x", GNU__sparse__major="1")), "APL-0105"),
    "global header sets a size": (tar(raw_member("g", b"12 size=999\n", tarfile.XGLTYPE), *GOOD), "APL-0105"),
    "endless name": (tar(*GOOD, *pax("x", b"x", path="p" * 5000)), "APL-0105"),
    "bad pax record": (tar(*GOOD, raw_member("x", b"99 path=x\n", tarfile.XHDTYPE), ("y", b"")), "APL-0103"),
    "pax record of no length": (tar(*GOOD, raw_member("x", b"0 path=x\n", tarfile.XHDTYPE), ("y", b"")), "APL-0103"),
    "pax with a bad size": (tar(*GOOD, *pax("x", b"x", size="-1")), "APL-0103"),
    "huge pax header": (tar(*GOOD, raw_member("x", b"", tarfile.XHDTYPE, 1 << 40)), "APL-0103"),
    "two different index.json": (tar(*GOOD, ("index.json", b"{}")), "APL-0117"),
    "two different members of one name": (tar(*GOOD, ("x", b"1"), ("x", b"2")), "APL-0117"),
    "blob that is not its name": (tar(*GOOD, ("blobs/sha256/" + "a" * 64, b"x")), "APL-0107"),
    "size lie": (lying(size=7), "APL-0106"),
    "digest as a path": (lying(digest="sha256:../../../etc/passwd"), "APL-0201"),
    "media type lie": (lying(mediaType=mediatypes.OCI_INDEX), "APL-0207"),
    "layout without index.json": (without("index.json"), "APL-0119"),
    "layout without oci-layout": (without("oci-layout"), "APL-0113"),
    "layout of another version": (tar(*GOOD[:-1], ("oci-layout", b'{"imageLayoutVersion":"2"}')), "APL-0119"),
    "missing layer": (without(sha(layer("two"))[7:]), "APL-0112"),
    "missing manifest": (without(simple().entries[0]["digest"][7:]), "APL-0112"),
    "index without images": (Layout().tar(), "APL-0120"),
    "deep index": (nested(12, 50), "APL-0104"),
    "wide index": (wide(), "APL-0112"),
    "deep JSON": (tar(*GOOD[:-2], GOOD[-1], ("index.json", b"[" * 200_000)), "APL-0204"),
    "JSON of millions of values": (tar(*GOOD[:-2], GOOD[-1], ("index.json", b"[" + b"[]," * (6 * MIB))), "APL-0204"),
    "manifest and index at once": (both(), "APL-0207"),
    "index without a type that is a manifest": (typeless(), "APL-0207"),
    "bad name": (simple("evil.io/../x:1").tar(), "APL-0165"),
    "bad UTF-8 in index.json": (tar(*GOOD[:-2], GOOD[-1], ("index.json", b"\xff")), "APL-0203"),
    "docker: missing layer": (docker_with(Layers=["nothing.tar"]), "APL-0112"),
    "docker: missing config": (docker_with(Config="nothing.json"), "APL-0112"),
    "docker: layer as a path": (docker_with(Layers=["../../etc/passwd"]), "APL-0112"),
    "docker: layer as an absolute path": (docker_with(Layers=["/etc/passwd"]), "APL-0112"),
    "docker: link to a link": (chained(), "APL-0112"),
    "docker: links in a circle": (circle(), "APL-0112"),
    "docker: one layer too few": (docker_with(Layers=[]), "APL-0118"),
    "docker: config is the layer": (docker_with(Config=docker(layer())[0][0]), "APL-0204"),  # type: ignore[index]
    "docker: layers are no list": (docker_with(Layers="x"), "APL-0121"),
    "docker: tags are no strings": (docker_with(RepoTags=[1]), "APL-0121"),
    "docker: no images": (tar(("manifest.json", b"[]")), "APL-0120"),
    "docker: list of strings": (tar(("manifest.json", b'["x"]')), "APL-0121"),
    "docker: imgpkg's manifest.json": (tar(("manifest.json", b'[{"Image":{}}]')), "APL-0113"),
    "docker: wrong diff_id": (tar(*docker(layer(), diff_ids=[sha(b"x")], tags=[NAME])), "APL-0118"),
    "docker: packed layer with a wrong diff_id": (
        tar(*docker(layer(), stored=[gzip.compress(layer("other"))], tags=[NAME])),
        "APL-0118",
    ),
    "docker: packed layer that is cut": (tar(*docker(layer(), stored=[gzip.compress(layer())[:-3]])), "APL-0118"),
    "dir without layers": (tar(("manifest.json", simple().blobs[simple().entries[0]["digest"]])), "APL-0112"),
    "Zarf": (tar(("zarf.yaml", b"x"), ("images/index.json", b"{}")), "APL-0113"),
    "oc-mirror": (tar(("mirror_seq1_000000.tar", b"x"), ("imageset-config.yaml", b"")), "APL-0113"),
    "registry storage": (tar(("docker/registry/v2/blobs/x", b"x")), "APL-0113"),
    "root file system": (tar(("etc/passwd", b"x"), ("usr/bin/x", b"x")), "APL-0113"),
    "tar of tars": (tar(("k3s-airgap-images-amd64.tar.zst", zstd(simple().tar()))), "APL-0113"),
    "layout in a folder": (tar(*simple().members("layout/")), "APL-0113"),
    "old docker": (tar(("repositories", b"{}")), "APL-0113"),
    "index.json alone": (tar(("index.json", b"{}")), "APL-0113"),
    "no member": (tar(special("d", tarfile.DIRTYPE)), "APL-0113"),
    "lone zero block": (tar(*GOOD, end=False) + b"\0" * 512 + tar(("x", b"x")), "APL-0103"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(read: Read, case: str) -> None:
    data, code = HOSTILE[case]
    refused(read, data, code)


def test_negative_size_in_base_256(read: Read) -> None:
    data = bytearray(tar(("x", b""), end=False))
    data[124:136] = b"\xff" * 12
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    error = refused(read, tar(*GOOD, end=False) + bytes(data), "APL-0103")
    assert "negative" in error.why


@pytest.mark.parametrize(
    ("limits", "data"),
    [
        (Limits(total_bytes=10 * MIB), tar(("big", b"\0" * (60 * MIB)), *GOOD)),
        (Limits(total_bytes=10 * MIB), gzip.compress(tar(("big", b"\0" * (60 * MIB)), *GOOD))),
        (Limits(ratio_after=10 * MIB), zstd(tar(("big", b"\0" * (60 * MIB)), *GOOD))),
        (Limits(ratio_after=10 * MIB), gzip.compress(tar(("big", b"\0" * (60 * MIB)), *GOOD))),
        (Limits(ratio_after=10 * MIB), lzma.compress(tar(("big", b"\0" * (60 * MIB)), *GOOD), preset=1)),
        (Limits(ratio_after=10 * MIB), bz2.compress(tar(("big", b"\0" * (60 * MIB)), *GOOD), 1)),
        (Limits(ratio_after=10 * MIB), tar(*docker(layer(), stored=[gzip.compress(b"\0" * (60 * MIB))]))),
        (Limits(entries=50), tar(*[(f"f{number}", b"") for number in range(51)], *GOOD)),
        (Limits(entries=50), tar(*[special(f"d{number}", tarfile.CHRTYPE) for number in range(51)], *GOOD)),
        (Limits(descriptors=3), simple().tar()),
    ],
    ids=[
        "total",
        "total gzip",
        "ratio zstd",
        "ratio gzip",
        "ratio xz",
        "ratio bzip2",
        "layer",
        "entries",
        "devices count too",
        "descriptors",
    ],
)
def test_caps(read: Read, limits: Limits, data: bytes) -> None:
    refused(read, data, "APL-0104", limits=limits)


def test_an_exponential_index_costs_what_its_documents_cost(read: Read) -> None:
    """Four levels of 400 equal children are 2.5e10 ways to one image; each document is walked once."""
    assert len(read(nested(4, 400)).images) == 1


def test_urls_are_never_followed(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that may not be distributed names places to get it from (CVE-2020-15157)."""

    def dial(*_: Any) -> None:
        raise AssertionError("an archive made the reader connect somewhere")

    for name in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, name, dial)
    monkeypatch.setattr(socket, "getaddrinfo", dial)
    layout = Layout()
    entry = layout.image(layer())
    document = json.loads(layout.blobs.pop(entry["digest"]))
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    document["layers"][0] |= {"mediaType": foreign, "urls": ["http://169.254.169.254/latest", "file:///etc/passwd"]}
    del layout.blobs[document["layers"][0]["digest"]]
    layout.name(layout.add(compact(document), mediatypes.OCI_MANIFEST), NAME)
    contents = read(layout.tar())
    assert contents.missing == [document["layers"][0]["digest"]]


def test_large_document_is_refused(read: Read) -> None:
    index = simple().index_json() + b" " * 2000
    refused(read, tar(*GOOD[:-2], GOOD[-1], ("index.json", index)), "APL-0204", limits=Limits(json_bytes=1000))
    layout = Layout()
    layout.name(layout.index(layout.image(layer()), padding="x" * (4 * MIB)), NAME)
    refused(read, layout.tar(), "APL-0204")


def test_zstd_bomb_comes_out_in_small_steps() -> None:
    """64 KiB of run-length blocks hold 2 GiB; no step may give more than a group of blocks."""
    block = (1 << 1 | (128 * 1024) << 3).to_bytes(3, "little") + b"\0"
    bomb = b"\x28\xb5\x2f\xfd\x00\x58" + block * 16_000
    decoder = Decoder("zstd", Limits(), "bomb")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest = 0
    with pytest.raises(ApplianceError, match="APL-0104"):
        for step in decoder.feed(bomb):
            largest = max(largest, len(step))
    assert 0 < largest <= MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.parametrize("declared", [0, 1, 255, 256, 300, 70_000])
def test_zstd_frame_that_holds_another_size_than_it_declares(declared: int) -> None:
    """Frame_Content_Size (RFC 8878, 3.1.1.1.4); libzstd's streams do not look at it where the last block is empty."""
    flags, width = (0x20, 1) if declared < 256 else (0x60, 2) if declared < 65_792 else (0xA0, 4)
    field = (declared - 256 if width == 2 else declared).to_bytes(width, "little")
    decoder = Decoder("zstd", Limits(), "a frame")
    if declared:
        with pytest.raises(ApplianceError, match=r"APL-0103.*another size"):
            list(decoder.feed(b"\x28\xb5\x2f\xfd" + bytes([flags]) + field + b"\x01\0\0"))
    else:
        assert list(decoder.feed(b"\x28\xb5\x2f\xfd" + bytes([flags]) + field + b"\x01\0\0")) == []
        decoder.close()


@pytest.mark.parametrize(("kind", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)])
@pytest.mark.parametrize("apart", [False, True])
def test_a_stream_behind_the_padding_is_read_where_the_format_says_so(
    kind: str, pack: Callable[[bytes], bytes], apart: bool
) -> None:
    """gzip and bzip2 stop at the padding, other tools go on: what is behind it is refused, and not taken by some."""
    data = pack(b"one") + b"\0" * 8 + pack(b"two")
    decoder = Decoder(kind, Limits(), "two streams")

    def read() -> bytes:
        pieces = [data[at : at + 1] for at in range(len(data))] if apart else [data]
        return b"".join(step for piece in pieces for step in decoder.feed(piece))

    if kind == "xz":
        assert read() == b"onetwo"
    else:
        with pytest.raises(ApplianceError, match=rf"APL-0166.*a {kind} stream begins at byte {len(pack(b'one')) + 8}"):
            read()


def test_zstd_window_is_bounded(read: Read) -> None:
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(simple().tar()) + compressor.flush()
    assert "memory" in refused(read, data, "APL-0104").what
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    assert read(compressor.compress(simple().tar()) + compressor.flush()).images


def test_xz_memory_is_bounded(read: Read) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 256 * MIB}]
    error = refused(read, lzma.compress(simple().tar(), filters=filters), "APL-0103")
    assert "emory" in error.why


CASES: dict[str, tuple[Callable[[bytes], bytes], bytes]] = {
    f"{kind} {form}": (pack, data)
    for kind, pack in {
        "plain": lambda data: data,
        "gzip": lambda data: gzip.compress(data, 1, mtime=0),
        "zstd": zstd,
        "zstd frames": lambda data: zstd(data, 4),
        "xz": lambda data: lzma.compress(data, preset=0),
        "bzip2": lambda data: bz2.compress(data, 1),
    }.items()
    for form, data in {
        "oci": simple(size=40_000).tar(),
        "oci index first": tar(*simple(size=40_000).members(index_first=True)),
        "docker": tar(*docker(layer("a", 20_000), layer("b"), tags=[NAME, "foo:1"])),
        "docker manifest first": tar(*reversed(docker(layer("a", 20_000), layer("b"), tags=[NAME, "foo:1"]))),
    }.items()
}


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=10, deadline=None)
@given(share=st.floats(min_value=0, max_value=1, exclude_max=True), near_end=st.integers(min_value=1, max_value=3000))
def test_cut_anywhere_gives_everything_or_an_error(case: str, share: float, near_end: int) -> None:
    import tempfile

    pack, data = CASES[case]
    packed = pack(data)
    content = len(data) - 1024  # without the two zero blocks
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.tar"
        path.write_bytes(packed)
        whole = outcome(path)
        assert whole[0] == "ok"
        for cut in (int(share * len(packed)), max(0, len(packed) - near_end)):
            path.write_bytes(packed[:cut])
            found = outcome(path)
            if found[0] == "ok":
                assert found == whole
                assert case.startswith(("plain", "zstd frames")) and (not case.startswith("plain") or cut >= content)
            else:
                assert found[1] in ("APL-0102", "APL-0103", "APL-0111"), found


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_changed_byte_gives_the_same_images_or_an_error(data: st.DataObject) -> None:
    """Every blob is hashed: a flip may change names, which a checksum beside the file is for, but never bytes."""
    import tempfile

    layout = simple()
    archive = bytearray(layout.tar())
    at = data.draw(st.integers(min_value=0, max_value=len(archive) - 1))
    archive[at] ^= data.draw(st.integers(min_value=1, max_value=255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.tar"
        path.write_bytes(archive)
        with HashingSink() as sink:
            try:
                contents = read_source(path, sink)
            except ApplianceError as error:
                assert error.code.startswith(("APL-01", "APL-02"))
                return
        assert set(contents.blobs) <= set(layout.blobs)
        for image in contents.images:
            assert image.descriptor.digest in layout.blobs


def outcome(path: Path) -> tuple[str, Any]:
    with HashingSink() as sink:
        try:
            contents = read_source(path, sink)
        except ApplianceError as error:
            return "error", error.code
        return "ok", ([image.key for image in contents.images], contents.blobs, contents.missing)


def test_sparse_and_without_an_end_is_cut(read: Read) -> None:
    """Cut exactly between two members, with the index first: what is missing was not left out on purpose."""
    layout = Layout()
    here, away = layout.image(layer()), layout.image(layer("arm"), arch="arm64")
    layout.name(layout.index(here, away), NAME)
    del layout.blobs[away["digest"]]
    members = layout.members(index_first=True)
    assert read(tar(*members)).missing == [away["digest"]]
    refused(read, tar(*members, end=False), "APL-0102")
    refused(read, tar(*members) + tar(("blobs/sha256/more", b"x")), "APL-0166")


def test_an_image_cut_before_its_oci_layout_is_no_docker_archive(read: Read) -> None:
    """Docker 25 and containerd write oci-layout last; what comes before it would be read, under another digest."""
    layout = simple()
    config = next(data for data in layout.blobs.values() if b"diff_ids" in data)
    layers = [data for data in layout.blobs.values() if b"diff_ids" not in data and not data.startswith(b"{")]
    listed = {
        "Config": "blobs/" + sha(config).replace(":", "/"),
        "RepoTags": [NAME],
        "Layers": ["blobs/" + sha(data).replace(":", "/") for data in layers],
    }
    members = sorted([*layout.members(), ("manifest.json", compact([listed]))])  # type: ignore[type-var]
    assert [image.descriptor.digest for image in read(tar(*members)).images] == [layout.entries[0]["digest"]]
    for cut in (members[:-1], [member for member in members[:-1] if member[0] != "index.json"]):  # type: ignore[index]
        refused(read, tar(*cut, end=False), "APL-0102")
        assert read(tar(*cut)).format == "docker-archive"  # as 'hauler store save --containerd' writes it


def test_one_name_for_two_images_is_refused(read: Read) -> None:
    layout = Layout()
    layout.name(layout.image(layer("a")), "foo:1").name(layout.image(layer("b")), "docker.io/library/foo:1")
    refused(read, layout.tar(), "APL-0114")
    one, two = docker(layer("a")), docker(layer("b"))
    manifest = [
        {"Config": members[1][0], "RepoTags": ["foo:1"], "Layers": [members[0][0]]}  # type: ignore[index]
        for members in (one, two)
    ]
    refused(read, tar(*one[:-1], *two[:-1], ("manifest.json", compact(manifest))), "APL-0114")


def test_messages_name_the_file_and_the_bytes(read: Read) -> None:
    data = zstd(simple(size=40_000).tar())
    error = refused(read, data[:-20], "APL-0102")
    assert str(len(data) - 20) in error.why
    assert error.fix


def test_no_thread_stays_behind(read: Read) -> None:
    before = threading.active_count()
    for case in ("upwards", "blob that is not its name", "deep index"):
        with pytest.raises(ApplianceError):
            read(HOSTILE[case][0] + b"\0" * (20 * MIB))
    assert threading.active_count() == before


@pytest.mark.parametrize("make", ["fifo", "missing", "device"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: str) -> None:
    import os

    path = tmp_path / "x.tar"
    if make == "fifo":
        os.mkfifo(path)
    elif make == "device":
        path = Path("/dev/zero")
    with HashingSink() as sink, pytest.raises(ApplianceError, match="APL-0101"):
        read_source(path, sink)


def test_all_names_together_have_a_bound(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers keep them in memory; each alone may be as long as a path."""
    names = [("n" * 90 + str(number), b"") for number in range(20)]
    listed = [member.name if isinstance(member, tarfile.TarInfo) else member[0] for member in (*GOOD, *names)]
    length = sum(map(len, listed))
    monkeypatch.setattr(tarstream, "_MAX_NAMES", length)
    read(tar(*GOOD, *names))
    monkeypatch.setattr(tarstream, "_MAX_NAMES", length - 1)
    assert "all names together" in refused(read, tar(*GOOD, *names), "APL-0105").why
