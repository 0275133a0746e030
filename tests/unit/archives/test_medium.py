"""Sources that are opened before the right to read them is given up."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.archives import medium as module
from appliance.archives.checksum_reader import check_lists
from appliance.archives.label import read_label
from appliance.archives.medium import Medium
from appliance.archives.reader import read_source
from appliance.archives.sink import HashingSink
from appliance.errors import ApplianceError
from tests.unit.archives.made import Layout, layer, simple


@pytest.fixture
def opened() -> Iterator[Callable[..., Medium]]:
    """Opens sources beforehand, and closes them after the test."""
    made: list[Medium] = []

    def open_them(*sources: Path) -> Medium:
        made.append(Medium(sources))
        made[-1].open_beforehand()
        return made[-1]

    yield open_them
    for medium in made:
        medium.close()


def layout_directory(root: Path, layout: Layout) -> Path:
    for name, data in layout.members():  # type: ignore[misc]
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def read(path: Path, medium: Medium) -> int:
    with HashingSink() as sink:
        return len(read_source(path, sink, medium=medium).images)


def test_what_was_opened_is_read_although_its_path_leads_nowhere_any_more(
    tmp_path: Path, opened: Callable[..., Medium]
) -> None:
    folder = tmp_path / "medium"
    folder.mkdir()
    (folder / "a.tar").write_bytes(simple().tar())
    (folder / "b.tar").write_bytes(simple().tar())
    medium = opened(folder)
    folder.rename(tmp_path / "elsewhere")
    found = medium.find(folder).sources
    assert [path.name for path in found] == ["a.tar", "b.tar"]
    assert [read(path, medium) for path in (*found, *found)] == [1, 1, 1, 1]


def test_a_layout_that_was_opened(tmp_path: Path, opened: Callable[..., Medium]) -> None:
    folder = layout_directory(tmp_path / "layout", simple())
    os.mkfifo(folder / "blobs/sha256/pipe")
    (folder / "blobs/more").mkdir()
    medium = opened(folder)
    shutil.rmtree(folder)
    assert [read(folder, medium) for _ in range(2)] == [1, 1]


def test_what_a_layout_that_was_opened_leaves_out_is_known(tmp_path: Path, opened: Callable[..., Medium]) -> None:
    """Who reads may not look into its folders: a blob that is not there must not become one that cannot be opened."""
    layout = Layout()
    here, away = layout.image(layer()), layout.image(layer("arm"), arch="arm64")
    layout.name(layout.index(here, away), "docker.io/library/a:1")
    del layout.blobs[away["digest"]]
    folder = layout_directory(tmp_path / "layout", layout)
    medium = opened(folder)
    folder.rename(tmp_path / "elsewhere")
    folder.write_bytes(b"a lookup in it fails in another way than that there is nothing")
    with HashingSink() as sink:
        assert read_source(folder, sink, medium=medium).missing == [away["digest"]]
    medium = opened(layout_directory(tmp_path / "empty", Layout()))
    assert medium.again(tmp_path / "elsewhere" / "index.json") is None
    for name in ("blobs/sha256/x", "blobs/sha512/x", "manifest.json"):
        with pytest.raises(FileNotFoundError):
            medium.again(tmp_path / "empty" / name)


def test_a_link_in_a_layout_is_not_opened(tmp_path: Path, opened: Callable[..., Medium]) -> None:
    folder = layout_directory(tmp_path / "layout", simple())
    (folder / "blobs").rename(tmp_path / "blobs")
    (folder / "blobs").symlink_to(tmp_path / "blobs")
    (folder / "index.json").rename(tmp_path / "index.json")
    (folder / "index.json").symlink_to(tmp_path / "index.json")
    medium = opened(folder)
    assert {path.name for path, handle in medium._kept.items() if handle is not None} == {"layout", "oci-layout"}
    with pytest.raises(ApplianceError, match="APL-0101"):
        read(folder, medium)


def test_what_is_not_there_is_said_where_it_is_read(tmp_path: Path, opened: Callable[..., Medium]) -> None:
    medium = opened(tmp_path / "x.tar", tmp_path)
    for path, code in ((tmp_path / "x.tar", "APL-0101"), (tmp_path, "APL-0122")):
        with pytest.raises(ApplianceError, match=code):
            medium.find(path).check(path)


def test_a_link_in_a_directory_is_not_opened(tmp_path: Path, opened: Callable[..., Medium]) -> None:
    folder = tmp_path / "medium"
    folder.mkdir()
    (folder / "a.tar").write_bytes(simple().tar())
    (tmp_path / "secret").write_text("secret")
    (folder / "a.tar.sha256").symlink_to(tmp_path / "secret")
    medium = opened(folder)
    folder.rename(tmp_path / "elsewhere")
    assert not medium.has(folder / "a.tar.sha256")


def test_many_archives_leave_descriptors_for_others(
    tmp_path: Path, opened: Callable[..., Medium], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", 6)
    for number in range(9):
        (tmp_path / f"{number}.tar").write_bytes(simple().tar())
    medium = opened(tmp_path)
    assert sum(handle is not None for handle in medium._kept.values()) == 6
    assert sum(read(path, medium) for path in medium.find(tmp_path).sources) == 9


def test_all_parts_are_opened_and_their_checksums(tmp_path: Path, opened: Callable[..., Medium]) -> None:
    folder, raw = tmp_path / "medium", simple().tar()
    folder.mkdir()
    for number in range(3):
        (folder / f"haul.tar.{number:03}").write_bytes(raw[number * len(raw) // 3 : (number + 1) * len(raw) // 3])
    whole = folder / "haul.tar.sha256"
    whole.write_text(f"{hashlib.sha256(raw).hexdigest()}  haul.tar\n")
    medium = opened(folder, folder / "haul.tar.001")
    whole.write_text(f"{'0' * 64}  haul.tar\n")
    wrong = opened(folder)
    folder.rename(tmp_path / "elsewhere")
    for named in (folder, folder / "haul.tar.001"):
        (first,) = medium.find(named).sources
        assert first.name == "haul.tar.000"
    with pytest.raises(ApplianceError, match="APL-0115"):
        read(folder / "haul.tar.000", wrong)
    with pytest.raises(ApplianceError, match="APL-0115"):
        read(folder / "haul.tar.000", medium)  # the same file, by the descriptor of before
    (tmp_path / "elsewhere" / whole.name).write_text(f"{hashlib.sha256(raw).hexdigest()}  haul.tar\n")
    for part in medium.parts(folder / "haul.tar.001"):
        assert read(part, medium) == 1


def test_the_list_of_a_release_is_opened(tmp_path: Path, opened: Callable[..., Medium]) -> None:
    folder = tmp_path / "medium"
    folder.mkdir()
    (folder / "k3s-airgap-images-amd64.tar").write_bytes(simple().tar())
    (folder / "sha256sum-amd64.txt").write_text(f"{'0' * 64}  k3s-airgap-images-amd64.tar\n")
    medium = opened(folder)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ApplianceError, match="APL-0115"):
        read(folder / "k3s-airgap-images-amd64.tar", medium)


def test_the_weight_of_sources(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "x").write_bytes(bytes(5000))
    (tmp_path / "y").write_bytes(bytes(300))
    assert Medium([tmp_path / "y", tmp_path / "nothing"]).weight == 300
    assert Medium([tmp_path]).weight >= 5300
    (tmp_path / "deep/a.tar").write_bytes(bytes(700))
    for number in range(2):
        (tmp_path / f"b.tar.00{number}").write_bytes(bytes(20))
    assert Medium([tmp_path]).weight == 740  # what else lies on a stick is not read
    assert Medium([tmp_path / "b.tar.001", tmp_path / "b.tar.000"]).weight == 40
    layout = layout_directory(tmp_path / "layout", simple())
    assert Medium([layout]).weight >= sum(map(len, simple().blobs.values()))


def test_archives_without_the_name_of_one_and_their_parts_are_opened(
    tmp_path: Path, opened: Callable[..., Medium]
) -> None:
    folder, raw = tmp_path / "medium", simple().tar()
    folder.mkdir()
    (folder / "app").write_bytes(raw)
    for name, piece in {
        "xaa": raw[:2000],
        "xab": raw[2000:],
        "b.tar.part1": raw[:900],
        "b.tar.part2": raw[900:],
    }.items():
        (folder / name).write_bytes(piece)
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(raw).hexdigest()}  app\n")
    (folder / "notes.txt").write_bytes(b"not opened")
    medium = opened(folder)
    folder.rename(tmp_path / "elsewhere")
    found = medium.find(folder)
    assert [path.name for path in found.sources] == ["b.tar.part1", "xaa", "app"]
    assert [read(path, medium) for path in found.sources] == [1, 1, 1]
    check_lists(found, medium)
    assert folder / "notes.txt" not in medium._kept


def test_a_path_that_cannot_be_looked_at_is_not_taken_for_one_that_is_not_there(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(ApplianceError, match=r"APL-0101.*cannot be opened"):
        Medium([loop]).find(loop)
    assert not Medium().has(tmp_path / ("a" * 256))
    assert not read_label(tmp_path / ("a" * 256), Medium())


def test_every_descriptor_is_closed_again(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.tar").write_bytes(simple().tar())
    (tmp_path / "SHA256SUMS").write_text("")  # beside each of them
    before = os.listdir("/proc/self/fd")
    medium = Medium([tmp_path, tmp_path / "0.tar"])
    medium.open_beforehand()
    assert len(os.listdir("/proc/self/fd")) == len(before) + 4
    medium.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)
