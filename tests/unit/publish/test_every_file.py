"""Every shape that files have on real sticks: published, listed with its reason, or an error that names it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.archives import discovery
from appliance.errors import ApplianceError
from tests.unit.archives.made import layer, simple, tar, zstd
from tests.unit.publish.site import Site
from tests.unit.store.made import noise

APP, DB = "ksd.test.com/factory/app:1", "ksd.test.com/factory/db:1"
Files = dict[str, bytes]
Joined = Callable[[int], Files]


def app(size: int = 0) -> bytes:
    return simple(APP, "app", size).tar()


PACKED = {
    "zst": zstd(app()),
    "gz": gzip.compress(app()),
    "xz": lzma.compress(app()),
    "bz2": bz2.compress(app()),
    "tar": app(),
}
ROOT_FS = tar(("etc/os-release", b"x"), ("usr/bin/sh", b"x"), ("bin/sh", b"x"), ("var/lib/x", b"x"))


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as container:
        for name in names:
            container.writestr(name, b"x" * 20)
    return out.getvalue()


def pieces(data: bytes, *names: str) -> Files:
    step = -(-len(data) // len(names))
    return {name: data[at * step : (at + 1) * step] for at, name in enumerate(names)}


def write(root: Path, files: Files) -> str:
    for name, data in {"k3s-airgap-images-amd64.tar.zst": zstd(simple(DB, "db").tar()), **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return str(root)


def left_out(shown: dict[str, Any], root: str) -> dict[str, str]:
    return {os.path.relpath(item["path"], root): item["kind"] for item in shown["left_out"]}


READ: dict[str, Files] = {
    **{f"a name that is no archive's: app.{end}": {f"app.{end}": data} for end, data in PACKED.items()},
    "a browser's second copy": {"app.tar (1).zst": PACKED["zst"]},
    "another second copy": {"app (1)": PACKED["gz"]},
    "no ending": {"app": PACKED["tar"]},
    "an image of a disk by its name": {"app.img": PACKED["tar"]},
    "Docker in its name": {"image.docker": PACKED["zst"]},
    "a wrong ending": {"app.txt": PACKED["gz"]},
    "an ending for another compression": {"app.tar.lzma": PACKED["tar"]},
    "a certificate's ending": {"app.bundle": PACKED["tar"]},
    "split": pieces(PACKED["zst"], "app.tar.zst.aa", "app.tar.zst.ab", "app.tar.zst.ac"),
    "split with a prefix": pieces(PACKED["zst"], "app.tar.zstaa", "app.tar.zstab"),
    "split without a prefix": pieces(PACKED["gz"], "xaa", "xab"),
    "split -a 3": pieces(PACKED["zst"], "app.tar.zst.aaa", "app.tar.zst.aab"),
    "split -d": pieces(PACKED["tar"], "app.tar.00", "app.tar.01"),
    "split -d from 1": pieces(PACKED["tar"], "app.tar.01", "app.tar.02"),
    "split with a hyphen": pieces(PACKED["zst"], "app.tar.zst-aa", "app.tar.zst-ab"),
    "split with an underscore": pieces(PACKED["zst"], "app.tar.zst_aa", "app.tar.zst_ab"),
    "part000": pieces(PACKED["zst"], "app.tar.zst.part000", "app.tar.zst.part001"),
    "part1": pieces(PACKED["zst"], *(f"app.tar.zst.part{number}" for number in range(1, 12))),
    "partaa": pieces(PACKED["zst"], "app.tar.zst.partaa", "app.tar.zst.partab"),
    "a part in the middle of the name": pieces(PACKED["zst"], "app.part1.tar.zst", "app.part2.tar.zst"),
    **{
        f"of another program: {first}": pieces(PACKED["zst"], first, *more)
        for first, *more in (
            ("xaa.tar.zst", "xab.tar.zst", "xac.tar.zst"),
            ("app-00.tar.zst", "app-01.tar.zst"),
            ("x1.tgz", "x2.tgz"),
            ("app_1_of_2.tar.zst", "app_2_of_2.tar.zst"),
            ("app.tar.zst.part01of02", "app.tar.zst.part02of02"),
            ("app.tar.zst (1 of 2)", "app.tar.zst (2 of 2)"),
            ("app.tar.zst.1of2", "app.tar.zst.2of2"),
            ("app.tar.zst.001.bin", "app.tar.zst.002.bin"),
            ("app.tar.zst.aa.txt", "app.tar.zst.ab.txt"),
            ("app.tar.zst.seg0", "app.tar.zst.seg1"),
            ("app.tar.zst.split1", "app.tar.zst.split2"),
            ("app.tar.zst.teil1", "app.tar.zst.teil2"),
            ("APP.tar.zst.001", "app.tar.zst.002", "App.TAR.zst.003"),
        )
    },
    "000": pieces(PACKED["zst"], "app.tar.zst.000", "app.tar.zst.001"),
    "1 and 2 that are parts": pieces(PACKED["zst"], "app.tar.zst.1", "app.tar.zst.2"),
    "1 and 2 that are archives": {"app.tar.1": PACKED["tar"], "app.tar.2": PACKED["tar"]},
    "capital letters, as FAT has them": pieces(PACKED["zst"], "APP.TZST.AA", "APP.TZST.AB"),
    "five folders down": {"2026/q2/site/app/1/app.tar": PACKED["tar"]},
    "a long name": {"a" * 251 + ".tar": PACKED["tar"]},
    "a long name that is no archive's": {"a" * 255: PACKED["tar"]},
    "beside an OCI layout": {"app.tar": PACKED["tar"], **dict(simple(DB, "db").members())},  # type: ignore[arg-type]
    "in a folder of an OCI layout": {"sub/app": PACKED["tar"], **dict(simple(DB, "db").members())},  # type: ignore[arg-type]
}


@pytest.mark.parametrize("shape", READ)
def test_what_is_an_archive_is_published(site: Site, shape: str) -> None:
    root = write(site.medium, READ[shape])
    shown = site.plan(root).as_dict()
    assert (shown["left_out"], shown["passed_over"]) == ([], 0)
    assert site.seed(root).published and set(site.served()) == {APP, DB}


LISTED: dict[str, tuple[Files, dict[str, str]]] = {
    "a disk image": ({"debian.iso": bytes(40_000)}, {"debian.iso": "other"}),
    "packages and scripts": (
        {"k3s": b"\x7fELF" + noise(1, 9000), "x.deb": b"!<arch>\n", "k3s.rpm": b"\xed\xab\xee\xdb", "install.sh": b"#!/bin/sh"},
        dict.fromkeys(("k3s", "x.deb", "k3s.rpm", "install.sh"), "other"),
    ),
    "a wheel": ({"x-1-py3-none-any.whl": zipped("x/__init__.py")}, {"x-1-py3-none-any.whl": "other"}),
    "a tar of another kind": ({"vm.ova": tar(("vm.ovf", b"x"))}, {"vm.ova": "other"}),
    "manuals in a zip": ({"docs.zip": zipped("docs/", "docs/a.pdf", "docs/b.pdf")}, {"docs.zip": "container"}),
    "a text that is compressed": ({"notes.gz": gzip.compress(b"hello" * 999)}, {"notes.gz": "no-images"}),
    "a text that is compressed, and more": ({"notes.gz": gzip.compress(b"hello") + b"more"}, {"notes.gz": "no-images"}),
    "a root file system": ({"rootfs": ROOT_FS, "rootfs.gz": gzip.compress(ROOT_FS)}, {"rootfs": "no-images", "rootfs.gz": "no-images"}),
    "the magic of gzip by chance": ({"data.bin": b"\x1f\x8b" + noise(2, 9000)}, {"data.bin": "no-images"}),
    "lz4": ({"app.lz4": b"\x04\x22\x4d\x18" + noise(3, 99)}, {"app.lz4": "no-images"}),
    "a backup copy": ({"app.tar.bak": PACKED["tar"], "old.tar.zst~": PACKED["zst"]}, {"app.tar.bak": "old-copy", "old.tar.zst~": "old-copy"}),
    "hidden": ({".app.tar.zst": PACKED["zst"], ".git/config": b"x"}, {".app.tar.zst": "hidden", ".git": "hidden"}),
    "an empty file": ({"README": b""}, {"README": "empty"}),
    "a checksum of nothing": ({"gone.tar.sha256": b"a", "SHA256SUMS.asc": b"a"}, {"gone.tar.sha256": "checksum", "SHA256SUMS.asc": "checksum"}),
    "a broken-off copy of something else": ({"film.mp4.part": b"x", "notes.txt.tmp": b"x"}, {"film.mp4.part": "other", "notes.txt.tmp": "other"}),
    "parts that are no images": (pieces(gzip.compress(noise(4, 3000)), "data00", "data01"), {"data00": "no-images", "data01": "no-images"}),
    "a label that is not at the top": ({"sub/medium.yaml": b"site: x"}, {"sub/medium.yaml": "other"}),
}  # fmt: skip


@pytest.mark.parametrize("shape", LISTED)
def test_what_is_not_read_is_listed_with_its_reason(site: Site, shape: str) -> None:
    files, reasons = LISTED[shape]
    root = write(site.medium, files)
    shown = site.plan(root).as_dict()
    assert left_out(shown, root) == reasons
    for item in shown["left_out"]:
        path = Path(item["path"])
        assert item["reason"] and item["size"] == (0 if path.is_dir() else path.stat().st_size)
    result = site.seed(root)
    assert result.published and set(site.served()) == {DB}
    assert result.plan.as_dict()["left_out"] == shown["left_out"] == site.journal()[-1]["left_out"]
    site.check_log()


REFUSED: dict[str, tuple[Files, str, str]] = {
    **{
        f"a copy that has not ended: {end}": ({f"app.tar.zst{end}": PACKED["zst"]}, "APL-0155", f"app.tar.zst{end}")
        for end in (".part", ".partial", ".filepart", ".crdownload", ".opdownload", ".tmp", ".download", ".aria2", ".PART")
    },
    "a browser's own name": ({"Unconfirmed 12345.crdownload": b"x"}, "APL-0155", "Unconfirmed 12345.crdownload"),
    "rsync's": ({".app.tar.zst.Xy12aB": PACKED["zst"]}, "APL-0155", ".app.tar.zst.Xy12aB"),
    "rsync's folder": ({".rsync-partial/app.tar.zst": PACKED["zst"]}, "APL-0155", ".rsync-partial"),
    "Nextcloud's": ({".app.tar.zst.~1a2b": PACKED["zst"]}, "APL-0155", ".app.tar.zst.~1a2b"),
    "AzCopy's": ({".azDownload-12ab-34cd-app.tar.zst": bytes(99)}, "APL-0155", ".azDownload-12ab-34cd-app.tar.zst"),
    **{
        f"a program's that nobody knows here: {end}": ({f"{start}app.tar.zst{end}": bytes(9999)}, "APL-0155", f"app.tar.zst{end}")
        for start, end in (
            ("", ".curlpart"), ("", ".ydpart"), ("", ".idm"), ("", "_.gstmp"), ("", ".!teracopy"), ("", ".6eF4aB2C"),
            ("", ".ab (1)"), (".", ".copytmp"),
        )
    },
    "docker save's": ({".tmp-app.tar1234567": PACKED["tar"]}, "APL-0155", ".tmp-app.tar1234567"),
    "Safari's folder": ({"app.tar.download/app.tar": PACKED["tar"]}, "APL-0155", "app.tar.download"),
    "a part that was not copied whole": (
        {**pieces(PACKED["zst"], "app.tar.zst.aa"), "app.tar.zst.ab.filepart": b"x"}, "APL-0155", "app.tar.zst.ab.filepart",
    ),
    "an archive in disguise": ({"foo.tmp": PACKED["gz"]}, "APL-0155", "foo.tmp"),
    "an empty archive": ({"sub/app.tar.zst": b""}, "APL-0155", "empty: sub/app.tar.zst"),
    "an empty part": ({**pieces(PACKED["zst"], "app.tar.00"), "app.tar.01": b""}, "APL-0155", "empty: app.tar.01"),
    **{
        f"a volume: {name}": ({name: noise(5, 99)}, "APL-0156", name)
        for name in ("app.7z.001", "app.tar.zst.7z.002", "app.zip.001", "app.z01", "app.r00", "app.part1.rar", "app.zip.aa")
    },
    "a 7z container": ({"app.7z": b"7z\xbc\xaf\x27\x1c" + noise(6, 99)}, "APL-0156", "app.7z"),
    "a rar container": ({"app": b"Rar!\x1a\x07\x01\x00"}, "APL-0156", "app"),
    "an archive in a zip": ({"app.zip": zipped("images/", "images/app.tar")}, "APL-0156", "app.zip"),
    "a zip of who knows what": ({"app.zip": b"PK\x03\x04" + PACKED["tar"]}, "APL-0156", "app.zip"),
    "a zip by the name of an archive": ({"app.tar": zipped("x.txt")}, "APL-0156", "app.tar"),
    "a list names what is not there": ({"app.tar": PACKED["tar"], "SHA256SUMS": b"%b  gone.tar\n" % (b"a" * 64)}, "APL-0157", "gone.tar"),
    "a list has another checksum": ({"app": PACKED["tar"], "SHA256SUMS": b"%b *app\r\n" % (b"A" * 64)}, "APL-0115", "app"),
    "a hole within the name": (pieces(PACKED["zst"], "xaa.tar.zst", "xac.tar.zst"), "APL-0144", "xaa.tar.zst"),
    "the last part is missing, by its name": (pieces(PACKED["tar"], "app.tar.1of3", "app.tar.2of3"), "APL-0144", "app.tar.1of3"),
    "no part of the archive before it": ({"app1.tar": PACKED["tar"], "app2.tar": noise(9, 9000)}, "APL-0166", "app1.tar"),
    "a hole": (pieces(PACKED["zst"], "app.tar.zst.aa", "app.tar.zst.ac"), "APL-0144", "app.tar.zst.aa"),
    "a hole behind any prefix": (pieces(PACKED["zst"], "xaa", "xac"), "APL-0144", "xaa"),
    "the first part is missing": (pieces(noise(7, 999), "app.tar.zst.ab", "app.tar.zst.ac"), "APL-0144", "app.tar.zst.ab"),
    "the last part is missing": ({"xaa": PACKED["zst"][:-20]}, "APL-0102", "xaa"),
    "cut short, without an archive's name": ({"app": PACKED["gz"][:-20]}, "APL-0102", "app"),
    "a compression that is not read": ({"app.tar.lzma": b"\x5d\0\0" + noise(8, 99)}, "APL-0110", "app.tar.lzma"),
    "lz4 by its name": ({"app.tar.lz4": b"\x04\x22\x4d\x18" + noise(3, 99)}, "APL-0110", "app.tar.lz4"),
    "source code": ({"src.tgz": gzip.compress(tar(("src/main.c", b"x")))}, "APL-0113", "src.tgz"),
}  # fmt: skip


@pytest.mark.parametrize("shape", REFUSED)
def test_what_cannot_be_read_as_it_is_stops_the_run_by_name(site: Site, shape: str) -> None:
    files, code, named = REFUSED[shape]
    root = write(site.medium, files)
    for attempt in (site.plan, site.seed):
        with pytest.raises(ApplianceError) as caught:
            attempt(root)
        assert caught.value.code == code
        assert named in f"{caught.value.where} {caught.value.why}"
    assert site.served() == {}


LITTER = (
    *(
        "System Volume Information/x.tar",
        "$Recycle.Bin/S-1/x.tar",
        "$RECYCLE.BIN/x.tar",
        "RECYCLER/x.tar",
        "Recycled/x.tar",
    ),
    *(
        "lost+found/x.tar",
        "._app.tar",
        ".Trashes/x.tar",
        ".Trash-1000/files/x.tar",
        ".Spotlight-V100/x",
        ".fseventsd/x",
    ),
    *("Thumbs.db", "desktop.ini", ".DS_Store", "FOUND.000/x", "sub/.DS_Store"),
)


def test_leftovers_and_companions_are_counted_and_not_listed(site: Site) -> None:
    name = "k3s-airgap-images-amd64.tar.zst"
    companions = [f"{name}.asc", f"{name}.sig", f"{name}.md5", "sha256sum-amd64.txt", "SHA256SUMS", "SHA256SUMS.asc"]
    root = write(site.medium, dict.fromkeys([*LITTER, *companions], b"\x1f\x8b"))
    (site.medium / "medium.yaml").write_text("site: x\nid: y\ncreated: 2026-01-01T00:00:00Z\n")
    shown = site.plan(root).as_dict()
    assert (shown["left_out"], shown["passed_over"]) == ([], len(LITTER) + len(companions) + 1)


def test_links_and_what_is_no_file_are_listed(site: Site, tmp_path: Path) -> None:
    root = write(site.medium, {})
    (tmp_path / "secret.tar").write_bytes(PACKED["tar"])
    (tmp_path / "folder").mkdir()
    (site.medium / "l.tar").symlink_to(tmp_path / "secret.tar")
    (site.medium / "result").symlink_to(tmp_path / "folder")
    os.mkfifo(site.medium / "pipe.tar")
    assert left_out(site.plan(root).as_dict(), root) == {"l.tar": "link", "result": "link", "pipe.tar": "special"}


def test_a_directory_of_links_says_that_links_are_not_followed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "app.tar").write_bytes(PACKED["tar"])
    (site.medium / "l.tar").symlink_to(tmp_path / "app.tar")
    with pytest.raises(ApplianceError, match=r"APL-0122.*l\.tar \(symbolic link; links are not followed"):
        site.plan(str(site.medium))


def test_folders_that_are_not_searched_are_listed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = "/".join(map(str, range(discovery.DEPTH + 1)))
    root = write(site.medium, {f"{deep}/app.tar": PACKED["tar"]})
    assert left_out(site.plan(root).as_dict(), root) == {deep: "deep"}
    monkeypatch.setattr(discovery, "ENTRIES", 2)
    assert left_out(site.plan(root).as_dict(), root) == {"0": "crowded"}


def test_only_so_many_files_are_listed_and_the_others_counted(site: Site) -> None:
    root = write(site.medium, {f"{number}.pdf": b"x" for number in range(1003)})
    shown = site.plan(root).as_dict()
    assert (len(shown["left_out"]), shown["left_out_more"]) == (1000, 3)
    site.seed(root)
    logged = site.journal()[-1]
    assert (len(logged["left_out"]), logged["left_out_more"]) == (100, 903)


def test_another_stick_at_the_same_place_is_not_taken_for_an_empty_mount_point(site: Site) -> None:
    root = write(site.medium, {})
    site.seed(root)
    for path in site.medium.iterdir():
        path.unlink()
    (site.medium / "lost+found").mkdir()
    (site.medium / ".DS_Store").write_bytes(b"x")
    assert not site.seed(root).published
    for name, data, code in (
        ("manual.pdf", b"x", "APL-0122"),
        ("app.7z.001", b"x", "APL-0156"),
        ("notes.gz", gzip.compress(b"x"), "APL-0122"),
        ("medium.yaml", b"site: x\nid: y\ncreated: 2026-01-01T00:00:00Z\n", "APL-0122"),
        ("app.tar.zst.crdownload", b"x", "APL-0155"),
    ):
        (site.medium / name).write_bytes(data)
        with pytest.raises(ApplianceError) as caught:
            site.seed(root)
        assert caught.value.code == code, name
        (site.medium / name).unlink()
    (site.medium / "l.tar").symlink_to("nowhere.tar")
    with pytest.raises(ApplianceError, match="APL-0122"):
        site.seed(root)
    (site.medium / "l.tar").unlink()
    for name, data in pieces(PACKED["zst"], "app.tar.zst.aa", "app.tar.zst.ab").items():
        (site.medium / name).write_bytes(data)
    assert site.seed(root).published and set(site.served()) == {APP, DB}


def test_a_file_that_is_named_is_read_or_an_error(site: Site) -> None:
    (site.medium / ".hidden").write_bytes(PACKED["zst"])
    (site.medium / "rootfs").write_bytes(ROOT_FS)
    assert site.seed(str(site.medium / ".hidden")).published
    with pytest.raises(ApplianceError, match="APL-0113"):
        site.seed(str(site.medium / "rootfs"))


def test_a_backup_without_the_name_of_an_archive_is_not_read_to_its_end(site: Site) -> None:
    many = tar(*((f"home/{number}", noise(number, 600)) for number in range(99)))
    root = write(site.medium, {"backup": many, "second": many[:-999]})
    result = site.seed(root)
    assert left_out(result.plan.as_dict(), root) == {"backup": "no-images", "second": "no-images"}
    assert result.bytes_written < 60 * 600


def test_a_layer_of_an_image_is_no_image(site: Site) -> None:
    """A blob that lies about alone begins as an archive does."""
    root = write(site.medium, {"3b5d": gzip.compress(layer())})
    assert left_out(site.plan(root).as_dict(), root) == {"3b5d": "no-images"}
