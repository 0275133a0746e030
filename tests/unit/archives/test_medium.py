"""Sources that are opened before the right to read them is given up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.archives import medium, rawfile
from appliance.archives.dispatch import read_source
from appliance.archives.rawfile import open_kept
from appliance.archives.sink import HashingSink
from appliance.errors import ApplianceError
from tests.unit.archives.made import simple


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test opens is closed after it."""
    kept: dict[str, int | None] = {}
    monkeypatch.setattr(rawfile, "_kept", kept)
    monkeypatch.setattr(medium, "_expanded", {})
    yield
    for handle in kept.values():
        if handle is not None:
            os.close(handle)


def read(path: Path) -> int:
    with HashingSink() as sink:
        return len(read_source(path, sink).images)


def test_what_was_opened_is_read_although_its_path_leads_nowhere_any_more(tmp_path: Path) -> None:
    folder = tmp_path / "medium"
    folder.mkdir()
    (folder / "a.tar").write_bytes(simple().tar())
    (folder / "b.tar").write_bytes(simple().tar())
    medium.open_beforehand([folder])
    folder.rename(tmp_path / "elsewhere")
    found = medium.expand(folder)
    assert [path.name for path in found] == ["a.tar", "b.tar"]
    assert [read(path) for path in (*found, *found)] == [1, 1, 1, 1]


def test_a_layout_that_was_opened(tmp_path: Path) -> None:
    layout = simple()
    folder = tmp_path / "layout"
    for name, data in layout.members():  # type: ignore[misc]
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    medium.open_beforehand([folder])
    folder.rename(tmp_path / "elsewhere")
    assert read(folder) == 1


def test_what_is_not_there_is_said_where_it_is_read(tmp_path: Path) -> None:
    medium.open_beforehand([tmp_path / "x.tar", tmp_path])
    for path, code in ((tmp_path / "x.tar", "APL-0101"), (tmp_path, "APL-0122")):
        with pytest.raises(ApplianceError, match=code):
            medium.expand(path)


def test_a_link_in_a_directory_is_not_opened(tmp_path: Path) -> None:
    folder = tmp_path / "medium"
    folder.mkdir()
    (folder / "a.tar").write_bytes(simple().tar())
    (tmp_path / "secret").write_text("secret")
    (folder / "a.tar.sha256").symlink_to(tmp_path / "secret")
    medium.open_beforehand([folder])
    assert open_kept(folder / "a.tar.sha256") is None


def test_many_archives_leave_descriptors_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medium, "_MOST", 6)
    for number in range(9):
        (tmp_path / f"{number}.tar").write_bytes(simple().tar())
    medium.open_beforehand([tmp_path])
    assert sum(handle is not None for handle in rawfile._kept.values()) == 3
    assert len(medium.expand(tmp_path)) == 9


def test_the_weight_of_sources(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "x").write_bytes(bytes(5000))
    (tmp_path / "y").write_bytes(bytes(300))
    assert medium.weigh([tmp_path / "y", tmp_path / "nothing"]) == 300
    assert medium.weigh([tmp_path]) >= 5300
