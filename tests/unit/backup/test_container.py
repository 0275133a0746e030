"""The form of a backup: whole and unchanged, or refused; written whole, or not at all, and never over another."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.backup import container
from appliance.errors import ApplianceError

CREATED = "2026-01-02T03:04:05+00:00"
ABOUT = {"site": "north"}
CONTENTS: dict[str, container.Content] = {"pki/ca.key": b"secret", "store.tar": b"names" * 5000, "empty": b""}


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    container.write(tmp_path / "one.tar", "site", CREATED, ABOUT, CONTENTS)
    return tmp_path / "one.tar"


def load(path: Path, kind: str = "site") -> tuple[container.Backup, dict[str, bytes]]:
    got: dict[str, bytes] = {}
    with container.open_backup(path) as file:
        return container.read(
            file, kind, path.name, lambda name, chunks: got.update({name: b"".join(map(bytes, chunks))})
        ), got


def refused(path: Path, kind: str = "site") -> str:
    with pytest.raises(ApplianceError) as caught:
        load(path, kind)
    assert caught.value.code == "APL-0870"
    return str(caught.value)


def test_it_reads_back_as_it_was_written_and_nobody_else_may(backup: Path) -> None:
    read, got = load(backup)
    assert got == CONTENTS
    assert (read.kind, read.created, read.about) == ("site", CREATED, ABOUT)
    assert read.size == 6 + 25000
    assert backup.stat().st_mode & 0o777 == 0o600
    assert list(backup.parent.iterdir()) == [backup]


def test_other_tools_read_it(backup: Path) -> None:
    with tarfile.open(backup) as archive:
        assert archive.getnames() == ["backup.json", *CONTENTS]


def test_one_is_never_written_over_another(backup: Path) -> None:
    before = backup.read_bytes()
    with pytest.raises(ApplianceError, match="APL-0871"):
        container.write(backup, "site", CREATED, {}, {"other": b"1"})
    assert backup.read_bytes() == before
    assert list(backup.parent.iterdir()) == [backup]


def test_nor_where_the_file_system_has_no_links(backup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    before = backup.read_bytes()
    with pytest.raises(ApplianceError, match="APL-0871"):
        container.write(backup, "site", CREATED, {}, {"other": b"1"})
    assert backup.read_bytes() == before
    container.write(backup.with_name("two.tar"), "site", CREATED, {}, {"other": b"1"})
    assert load(backup.with_name("two.tar"))[1] == {"other": b"1"}


@pytest.mark.parametrize("call", ["link", "fsync", "posix_fadvise"])
def test_a_write_that_is_interrupted_leaves_no_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        container.write(tmp_path / "one.tar", "site", CREATED, ABOUT, CONTENTS)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_changes_meanwhile_is_no_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"before")
    measure = container._measure

    def measured(content: container.Content) -> tuple[int, str]:
        found = measure(content)
        source.write_bytes(b"behind")
        return found

    monkeypatch.setattr(container, "_measure", measured)
    with pytest.raises(ApplianceError, match=r"APL-0870.*source"):
        container.write(tmp_path / "one.tar", "site", CREATED, {}, {"source": source})
    assert not (tmp_path / "one.tar").exists()


@given(data=st.data())
def test_cut_short_anywhere_it_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.tar"
    path.unlink(missing_ok=True)
    container.write(path, "site", CREATED, ABOUT, CONTENTS)
    whole = path.read_bytes()
    # The end of an archive is two blocks of zeros; what tar adds to fill a record says nothing.
    end = len(whole.rstrip(b"\0")) // 512 * 512
    path.write_bytes(whole[: data.draw(st.integers(0, end))])
    refused(path)


@given(data=st.data())
def test_with_any_byte_of_its_files_flipped_it_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.tar"
    path.unlink(missing_ok=True)
    container.write(path, "site", CREATED, ABOUT, CONTENTS)
    whole = bytearray(path.read_bytes())
    names = whole.find(b"namesnames")
    at = data.draw(st.sampled_from([whole.find(b"secret"), *range(names, names + 25000, 997)]))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    refused(path)


def make(path: Path, manifest: object, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """A backup by another hand."""
    listed = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    with tarfile.open(path, "w") as archive:
        for info, content in [(member("backup.json"), listed), *members]:
            if info.isreg():
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def raw(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def listing(*names: str, content: bytes = b"1", **more: Any) -> dict[str, Any]:
    measured = dict(zip(("size", "sha256"), container._measure(content), strict=True))
    said = container.Backup("site", CREATED, "0", {}, {}).as_dict()
    return {**said, "files": [{"name": name, **measured} for name in names], **more}


def test_one_by_another_hand_is_read(tmp_path: Path) -> None:
    assert load(make(tmp_path / "x.tar", listing("a/b"), [(member("a/b"), b"1")]))[1] == {"a/b": b"1"}


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "upwards": lambda path: make(path, listing("../a"), [(member("../a"), b"1")]),
    "absolute": lambda path: make(path, listing("/a"), [(member("/a"), b"1")]),
    "hidden upwards": lambda path: make(path, listing("a/../../b"), [(member("a/../../b"), b"1")]),
    "dot": lambda path: make(path, listing("./a"), [(member("./a"), b"1")]),
    "a link": lambda path: make(path, listing("a"), [(member("a", tarfile.SYMTYPE, "/etc/shadow"), b"")]),
    "a link for an empty file": lambda path: make(
        path, listing("a", content=b""), [(member("a", tarfile.SYMTYPE, "/etc/shadow"), b"")]
    ),
    "a hard link": lambda path: make(path, listing("a"), [(member("a", tarfile.LNKTYPE, "/etc/shadow"), b"")]),
    "a device": lambda path: make(path, listing("a"), [(member("a", tarfile.CHRTYPE), b"")]),
    "a directory": lambda path: make(path, listing("a"), [(member("a", tarfile.DIRTYPE), b"")]),
    "not listed": lambda path: make(path, listing("a"), [(member("a"), b"1"), (member("b"), b"1")]),
    "twice": lambda path: make(path, listing("a"), [(member("a"), b"1"), (member("a"), b"1")]),
    "listed twice": lambda path: make(path, listing("a", "a"), [(member("a"), b"1")]),
    "file and directory": lambda path: make(path, listing("a", "a/b"), [(member("a"), b"1"), (member("a/b"), b"1")]),
    "missing": lambda path: make(path, listing("a", "b"), [(member("a"), b"1")]),
    "another size": lambda path: make(path, listing("a"), [(member("a"), b"12")]),
    "another hash": lambda path: make(path, listing("a"), [(member("a"), b"2")]),
    "the list as a file": lambda path: make(path, listing("backup.json"), [(member("backup.json"), b"1")]),
    "no list": lambda path: make(path, b"", []),
    "no object": lambda path: make(path, [], []),
    "deep": lambda path: make(path, b"[" * 100_000, []),
    "negative": lambda path: make(path, {**listing(), "files": [{"name": "a", "size": -1, "sha256": "0" * 64}]}, []),
    "a name that is none": lambda path: make(path, {**listing(), "files": [{"name": 1, "size": 1}]}, []),
    "another form": lambda path: make(path, listing(form="x"), []),
    "a form to come": lambda path: make(path, listing(version=2), []),
    "no about": lambda path: make(path, listing(about=None), []),
    "another kind": lambda path: make(path, listing(kind="store"), []),
    "no tar": lambda path: raw(path, b"x" * 2000),
    "nothing": lambda path: raw(path, b""),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_hostile_is_refused_and_nothing_is_written(tmp_path: Path, case: str) -> None:
    path = HOSTILE[case](tmp_path / "x.tar")
    refused(path)
    with container.open_backup(path) as file, pytest.raises(ApplianceError, match="APL-0870"):
        container.unpack(file, "site", "x.tar", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


def test_something_behind_its_end_is_refused(backup: Path) -> None:
    backup.write_bytes(backup.read_bytes() + b"more")
    refused(backup)


def test_what_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.tar", tmp_path):
        refused(path)


def test_unpacked_it_is_what_was_packed_and_only_its_owner_may_read_it(backup: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with container.open_backup(backup) as file:
        container.unpack(file, "site", "x", out)
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()} == CONTENTS
    assert {path.stat().st_mode & 0o077 for path in [out, *out.rglob("*")]} == {0}
