"""Checksum files, as every program writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.archives import checksum_reader
from appliance.archives.checksum_reader import check_lists, read_checksums
from appliance.archives.checksums import Checksums, checksum_files, parse_checksums
from appliance.archives.discovery import find_sources
from appliance.archives.medium import Medium
from appliance.errors import ApplianceError
from tests.unit.archives.made import simple

Lines = Callable[[str, str], str]


def spaced(digest: str) -> str:
    return " ".join(digest[at : at + 2] for at in range(0, len(digest), 2))


WRITERS: dict[str, Lines] = {
    "sha256sum": lambda name, digest: f"{digest}  {name}\n",
    "sha256sum -b": lambda name, digest: f"{digest} *{name}\n",
    "sha256sum in a folder": lambda name, digest: f"{digest}  ./images/{name}\n",
    "sha256sum --tag": lambda name, digest: f"SHA256 ({name}) = {digest}\n",
    "openssl dgst": lambda name, digest: f"SHA2-256({name})= {digest}\n",
    "openssl dgst of 1.1": lambda name, digest: f"SHA256({name})= {digest}\n",
    "bare": lambda _, digest: digest,
    "TeraCopy": lambda name, digest: f"; made by a program\n\n{digest.upper()} *{name}\n",
    "a path of Windows": lambda name, digest: f"{digest.upper()}  C:\\stick\\images\\{name}\n",
    "a relative path of Windows": lambda name, digest: f"{digest}  images\\{name}\n",
    "certutil": lambda name, digest: (
        f"SHA256 hash of {name}:\n{digest}\nCertUtil: -hashfile command completed successfully.\n"
    ),
    "certutil of Windows 7": lambda name, digest: (
        f"SHA256 hash of file E:\\{name}:\n{spaced(digest)}\nCertUtil: -hashfile command completed successfully.\n"
    ),
    "certutil in German": lambda name, digest: (
        f"SHA256-Hash von {name}:\n{digest}\nCertUtil: -hashfile-Befehl wurde erfolgreich ausgeführt.\n"
    ),
    "certutil in French": lambda name, digest: (
        f"Hachage SHA256 de {name} :\n{digest}\nCertUtil: -hashfile La commande s'est terminée correctement.\n"
    ),
    "Get-FileHash": lambda name, digest: (
        f"\nAlgorithm       Hash{' ' * 67}Path\n---------       ----{' ' * 67}----\n"
        f"SHA256          {digest.upper()}       D:\\stick\\{name}\n\n\n"
    ),
    "Get-FileHash, cut to the screen": lambda _, digest: (
        f"\nAlgorithm       Hash{' ' * 67}Path\n---------       ----{' ' * 67}----\n"
        f"SHA256          {digest.upper()}       D:\\sti...\n\n\n"
    ),
    "Get-FileHash | Format-List": lambda name, digest: (
        f"\n\nAlgorithm : SHA256\nHash      : {digest.upper()}\nPath      : D:\\stick\\{name}\n\n\n\n"
    ),
    "Get-FileHash | Format-List, broken into lines": lambda name, digest: (
        f"\n\nAlgorithm : SHA256\nHash      : {digest.upper()[:50]}\n            {digest.upper()[50:]}\n"
        f"Path      : D:\\{name}\n\n"
    ),
    "Get-FileHash | Export-Csv": lambda name, digest: (
        f'"Algorithm","Hash","Path"\n"SHA256","{digest.upper()}","D:\\stick\\{name}"\n'
    ),
}
ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "UTF-8": lambda text: text.encode(),
    "UTF-8 with a mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "UTF-16, little endian": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    "UTF-16, big endian": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-16 without a mark, big endian": lambda text: text.encode("utf-16-be"),
}
NAMES = st.from_regex(r"\A[A-Za-z0-9äß_][A-Za-z0-9äß_ ().+-]{0,30}\.tar(\.zst)?\Z")


@given(
    st.sampled_from(sorted(WRITERS)), st.sampled_from(sorted(ENCODINGS)), st.booleans(), NAMES, st.binary(max_size=40)
)
def test_the_digest_that_any_program_writes_is_read(
    writer: str, encoding: str, breaks: bool, name: str, data: bytes
) -> None:
    digest = hashlib.sha256(data).hexdigest()
    text = WRITERS[writer](name, digest)
    if encoding.startswith("UTF-16 without a mark") and text.startswith(("ä", "ß")):
        return
    found = parse_checksums(ENCODINGS[encoding](text.replace("\n", "\r\n") if breaks else text))
    assert (found.of(name) or found.only) == digest
    assert len(found.entries) == 1


@given(NAMES, st.sampled_from(sorted(set(WRITERS) - {"bare", "Get-FileHash, cut to the screen"})))
def test_of_many_lines_the_right_one_is_read(name: str, writer: str) -> None:
    files = {name: "1" * 64, f"other-{name}": "2" * 64, f"{name}.zst": "3" * 64}
    found = parse_checksums("".join(WRITERS[writer](file, digest) for file, digest in files.items()).encode())
    assert {file: found.of(file) for file in files} == files


@given(st.binary(max_size=300))
def test_no_bytes_are_too_much(raw: bytes) -> None:
    for path, digest in parse_checksums(raw).entries:
        assert len(digest) == 64 and "\n" not in path


def test_a_name_with_a_backslash_and_a_line_break() -> None:
    found = parse_checksums(f"\\{'a' * 64}  a\\\\b\\nc.tar\n".encode())
    assert found.of("a\\b\nc.tar") == "a" * 64


def test_another_algorithm_is_not_taken_for_sha256() -> None:
    text = f"Algorithm : SHA3-256\nHash : {'a' * 64}\nPath : x.tar\n\nMD5 (x.tar) = {'a' * 32}\nSHA512 (x.tar) = {'a' * 128}\n"
    assert parse_checksums(text.encode()).entries == ()


def test_a_path_in_a_list_is_not_that_of_another_folder() -> None:
    found = parse_checksums(f"{'a' * 64}  old/x.tar\n{'b' * 64}  x.tar\n".encode())
    assert found.of("x.tar") == "b" * 64


@pytest.mark.parametrize(
    "name",
    [
        *(
            "SHA256SUMS",
            "SHA256SUMS.txt",
            "sha256sums.txt",
            "sha256sum.txt",
            "sha256sums",
            "SHA256SUM",
            "SHA256SUMS.TXT",
        ),
        *("checksums.txt", "CHECKSUMS", "checksums.sha256", "a.sha256"),
        *("a.tar.sha256sum", "a.tar.SHA256", "a.tar.Sha256", "a.tar.sha256sums", "a.tar.sha256.txt"),
    ],
)
def test_lists_beside_an_archive_are_checked(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.tar").write_bytes(b"x")
    (tmp_path / name).write_text(f"{'a' * 64} *a.tar\n")
    assert read_checksums([tmp_path / "a.tar"], Medium()) == {None: "a" * 64}
    assert [path.name for path in find_sources(tmp_path).passed_over] == [name]
    (tmp_path / "b.tar").write_bytes(b"x")
    if not name.startswith("a.tar."):
        assert read_checksums([tmp_path / "b.tar"], Medium()) == {}


def test_an_archive_that_a_list_names_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(simple().tar())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.tar").write_bytes(b"x")
    listed = tmp_path / "SHA256SUMS"
    lines = [f"{'a' * 64}  {name}\n" for name in ("A.tar", "./a.tar", "manual.pdf", "sub/c.tar", "k3s", "E:\\x\\a.tar")]
    listed.write_text("".join(lines))
    check_lists(find_sources(tmp_path), Medium())
    for name in ("b.tar", "b.tar.zst.001", "sub\\d.tar", "other/e.tgz"):
        listed.write_text("".join([*lines, f"{'a' * 64}  {name}\n"]))
        with pytest.raises(ApplianceError, match=r"APL-0157.*SHA256SUMS.*\.(tar|tgz)"):
            check_lists(find_sources(tmp_path), Medium())
    listed.rename(tmp_path / "sha256sum-amd64.txt")  # a release's list names more than one brings
    check_lists(find_sources(tmp_path), Medium())


@pytest.mark.parametrize("length", [248, 249, 251, 255])
def test_a_name_that_leaves_no_room_for_an_ending_has_no_checksum_file(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("a" * (length - 4) + ".tar")
    path.write_bytes(b"x")
    assert read_checksums([path], Medium()) == {}
    medium = Medium([tmp_path])
    medium.open_beforehand()
    assert read_checksums([path], medium) == {}
    medium.close()


def test_a_list_is_read_once_for_all_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"a{number}.tar" for number in range(20)]
    (tmp_path / "SHA256SUMS").write_text("".join(f"{'a' * 64}  {name}\n" for name in names))
    read: list[bytes] = []

    def watched(raw: bytes) -> Checksums:
        read.append(raw)
        return parse_checksums(raw)

    monkeypatch.setattr(checksum_reader, "parse_checksums", watched)
    medium = Medium()
    for name in names:
        assert read_checksums([tmp_path / name], medium) == {None: "a" * 64}
    assert len(read) == 1


def test_a_list_of_a_release_may_name_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(simple().tar())
    (tmp_path / "checksums.txt").write_text(f"{'a' * 64}  a.tar\n{'b' * 64}  a_darwin.tar.gz\n")
    check_lists(find_sources(tmp_path), Medium())


def test_the_checksum_of_one_stem_is_for_the_archive_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "a.sha256").write_text(f"{'a' * 64}  a.tar.gz\n")
    assert read_checksums([tmp_path / "a.tar.gz"], Medium()) == {None: "a" * 64}
    assert read_checksums([tmp_path / "a.tar.zst"], Medium()) == {}


@pytest.mark.parametrize(
    "names",
    [["a.tar"], ["a.tar.zst"], ["x-amd64.tar.gz"], ["b.tar.aa", "b.tar.ab"], ["c-arm64.tar.000", "c-arm64.tar.001"]],
)
def test_every_file_that_is_read_is_among_those_that_are_opened_beforehand(names: list[str], tmp_path: Path) -> None:
    """Root opens them, and who reads them then may open nothing."""
    looked_for = []

    class Watched(Medium):
        def has(self, path: Path) -> bool:
            looked_for.append(path)
            return False

    parts = [tmp_path / name for name in names]
    assert read_checksums(parts, Watched()) == {}
    assert len(looked_for) > 30
    assert set(looked_for) <= set(checksum_files(parts))
