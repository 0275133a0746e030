"""Bytes behind the end of an archive: none, padding, bytes of no meaning, or a second archive."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable

import pytest

from appliance.errors import ApplianceError
from tests.unit.archives.conftest import Read
from tests.unit.archives.made import docker, layer, simple, tar, zstd

FIRST = tar(*docker(layer("one"), tags=["factory/app:1"]))
SECOND = tar(*docker(layer("two"), tags=["factory/db:2"]))
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": zstd,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("pack", PACKED)
@pytest.mark.parametrize("padding", [0, 512, 10240, 3 << 20])
@pytest.mark.parametrize("second", [SECOND, simple().tar()], ids=["docker-archive", "layout"])
def test_two_archives_in_one_file(read: Read, pack: str, padding: int, second: bytes) -> None:
    """One behind the other, packed one by one as ``cat a.tar.gz b.tar.gz`` has them, with padding of tapes between."""
    data = PACKED[pack](FIRST + b"\0" * padding) + PACKED[pack](second)
    with pytest.raises(ApplianceError, match="APL-0166") as caught:
        read(data)
    said = str(caught.value)
    assert f"at byte {len(FIRST) + padding} " in said
    assert "images.tar" in said and "second archive" in said


@pytest.mark.parametrize("pack", ["gzip", "zstd", "xz", "bzip2"])
def test_a_packed_archive_behind_a_plain_one(read: Read, pack: str) -> None:
    with pytest.raises(ApplianceError, match=rf"APL-0166.*second archive, packed with {pack}.*at byte {len(FIRST)} "):
        read(FIRST + PACKED[pack](SECOND))


@pytest.mark.parametrize("pack", ["gzip", "zstd", "xz", "bzip2"])
@pytest.mark.parametrize("behind", ["plain", "gzip", "zstd", "xz", "bzip2"])
def test_another_kind_behind_a_packed_archive(read: Read, pack: str, behind: str) -> None:
    if pack == behind:
        return
    first = PACKED[pack](FIRST)
    kind = "a tar" if behind == "plain" else f"a {behind} stream"
    with pytest.raises(ApplianceError, match=rf"APL-0166.*{kind} begins at byte {len(first)}, "):
        read(first + PACKED[behind](SECOND))


@pytest.mark.parametrize("behind", [b"hello\n", b"x" * 5000, b"\0" * 700 + b"x"])
def test_other_bytes_behind_the_end_are_noted(read: Read, behind: bytes) -> None:
    contents = read(FIRST + behind)
    assert len(contents.images) == 1
    at = len(FIRST) + len(behind) - len(behind.lstrip(b"\0"))
    assert any(f"from byte {at} " in note and "not read" in note for note in contents.notes)
    assert not any("end marker" in note for note in contents.notes)


@pytest.mark.parametrize("padding", [1, 512, 9216, 1 << 20])
def test_padding_is_no_matter(read: Read, padding: int) -> None:
    assert read(FIRST + b"\0" * padding).notes == read(FIRST).notes


def test_a_member_without_its_end_marker_is_told_apart(read: Read) -> None:
    """No end at all, and something behind the end: two remarks."""
    (note,) = [note for note in read(simple().tar(end=False)).notes if "marker" in note]
    assert "no part of the archive" not in note
