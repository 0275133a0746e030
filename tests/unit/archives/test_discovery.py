"""Directory trees of every shape: no file is lost, and none is in two places."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.archives.discovery import SourceList, _Folder, find_sources
from appliance.errors import ApplianceError
from tests.unit.archives.made import simple, tar, zstd

BASES = (
    "app",
    "app.tar",
    "app.tar.zst",
    "b.tgz",
    "k3s-airgap-images-amd64.tar.zst",
    "x",
    "notes.txt",
    "data",
    "app.7z",
    ".hid.tar",
)
ENDS = (
    *(
        "",
        "",
        "",
        ".sha256",
        ".asc",
        ".bak",
        "~",
        ".part",
        ".tmp",
        ".crdownload",
        ".aa",
        ".ab",
        ".ac",
        "aa",
        "ab",
        ".00",
        ".01",
    ),
    *(".1", ".2", ".part1", ".part2", ".000", ".001", " (1).zst", ".gz", ".zip", ".iso", ".lzma", "_0.tar", "_1.tar"),
)
WHOLE = ("oci-layout", "index.json", "version", "manifest.json", "SHA256SUMS", "sha256sum-amd64.txt", "medium.yaml")
SYSTEM = ("Thumbs.db", "._app.tar", ".DS_Store", "desktop.ini")
FOLDERS = (
    "",
    "",
    "a/",
    "a/b/",
    "a.tar/",
    ".git/",
    "$RECYCLE.BIN/",
    "lost+found/",
    "blobs/",
    "app.tar.download/",
    "a/RECYCLER/",
)
CONTENTS = (
    *(b"", b"hello", b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", gzip.compress(b"hello"), bytes(600)),
    *(zstd(simple().tar()), simple().tar(), tar(("etc/passwd", b"x"))),
)
NAMES = st.builds(str.__add__, st.sampled_from(BASES), st.sampled_from(ENDS)) | st.sampled_from((*WHOLE, *SYSTEM))
TREES = st.dictionaries(
    st.builds(str.__add__, st.sampled_from(FOLDERS), NAMES), st.sampled_from(CONTENTS), min_size=1, max_size=12
)


def places(found: SourceList) -> Iterator[tuple[str, Path]]:
    """Give every path in the list, with the place where it is."""
    for source in found.sources:
        if source not in found.parts:
            yield "layout", source
    for path in found.parts:
        yield "read", path
    for item in found.left_out:
        yield "left out", Path(item.path)
    for path in found.passed_over:
        yield "passed over", path


def covers(place: str, path: Path, file: Path) -> bool:
    """Return whether a path stands for a file: for itself, for all in a folder that is not searched, for the files of a layout."""
    if place == "layout":
        is_oci = (path / "oci-layout").exists() or ((path / "index.json").exists() and (path / "blobs").exists())
        own = {"oci-layout", "index.json", "manifest.json"} if is_oci else {"version", "manifest.json"}
        return (is_oci and path / "blobs" in file.parents) or (file.parent == path and file.name in own)
    return path == file or path in file.parents


@settings(max_examples=300, deadline=None)
@given(TREES)
def test_every_file_is_in_one_place(tree: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, data in tree.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        try:
            found = find_sources(root)
        except ApplianceError as error:
            assert error.code in ("APL-0110", "APL-0144", "APL-0155", "APL-0156")
            names = {Path(name).name for name in tree} | {"app.tar.download"}
            assert any(name in f"{error.where} {error.why}" for name in names)
            return
        for name in tree:
            by = [place for place, path in places(found) if covers(place, path, root / name)]
            assert len(by) == 1, f"{name} is {by or 'nowhere'}"
        litter = {*SYSTEM, "$RECYCLE.BIN", "lost+found"}
        assert found.is_absent == all(Path(name).parts[0] in litter for name in tree)


def test_a_search_looks_at_each_name_as_often_in_a_large_folder_as_in_a_small_one(tmp_path: Path) -> None:
    looks = 0

    class Name(str):
        __slots__ = ()

        def __hash__(self) -> int:
            nonlocal looks
            looks += 1
            return super().__hash__()

    def looks_at(count: int) -> int:
        nonlocal looks
        # Empty, so that nothing is opened.
        names = (Name(f"lib{number:05}.deb{end}") for number in range(count // 2) for end in ("", ".sha256"))
        folder = _Folder(tmp_path, dict.fromkeys(names, 0), SourceList(), is_top=True)
        looks = 0
        folder.judge()
        return looks

    small, large = looks_at(100), looks_at(1000)
    assert 0 < large <= 11 * small, f"{small} for 100 names, {large} for 1000"
