"""Which medium a source is: found by what the kernel and udev say, whatever file system it has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.archives.identity import Mount, identify, mount_of, parse_mounts
from appliance.archives.label import Label
from appliance.archives.medium import Medium
from appliance.media import MediumIdentity

DEVICE = "1:3"
"""The numbers of /dev/null, a device that every machine has: in these tests it is the stick."""


def tree(
    root: Path, point: Path, *, device: str = DEVICE, source: str = "/dev/sdb1", kind: str = "vfat"
) -> dict[str, Path]:
    """Write the files of the kernel and udev for a stick that is mounted at a point."""
    text = "".join(
        (
            "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n",
            f"40 22 {device} / {str(point).replace(' ', chr(92) + '040')} ro,noatime shared:9 - {kind} {source} ro\n",
        )
    )
    (root / "mountinfo").write_text(text)
    for folder, name in (("by-uuid", "1B2C-3D4F"), ("by-label", "MY\\x20STICK")):
        (root / "disk" / folder).mkdir(parents=True)
        (root / "disk" / folder / name).symlink_to("/dev/null")
    return {"mounts": root / "mountinfo", "disks": root / "disk"}


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    stick = tmp_path / "media" / "my stick"
    stick.mkdir(parents=True)
    for name in ("a.tar", "b.tar.zst"):
        (stick / name).write_bytes(b"x")
        os.utime(stick / name, (0, 1775030400 + len(name)))
    return stick


def look(stick: Path, label: Label | None = None, where: Mapping[str, Path] | None = None) -> MediumIdentity:
    return identify(str(stick), Medium(), sorted(stick.glob("*.tar*")), label, **(where or {}))


@pytest.mark.parametrize("kind", ["vfat", "exfat", "ext4", "iso9660"])
def test_a_stick_has_the_label_and_the_uuid_of_its_file_system(tmp_path: Path, stick: Path, kind: str) -> None:
    said = look(stick, where=tree(tmp_path, stick, kind=kind))
    assert (said.label, said.uuid) == ("MY STICK", "1B2C-3D4F")
    assert said.contents == "2 archives: a.tar, b.tar.zst, newest of 2026-04-01"


def test_a_directory_and_a_file_on_it_are_of_the_same_medium(tmp_path: Path, stick: Path) -> None:
    where = tree(tmp_path, stick)
    (stick / "images").mkdir()
    assert identify(str(stick / "images"), Medium(), [], None, **where).uuid == "1B2C-3D4F"
    assert identify(str(stick / "a.tar"), Medium(), [stick / "a.tar"], None, **where).uuid == "1B2C-3D4F"


def test_a_file_system_in_user_space_is_found_by_its_device(tmp_path: Path, stick: Path) -> None:
    where = tree(tmp_path, stick, device="0:57", source="/dev/null", kind="fuseblk")
    assert look(stick, where=where).uuid == "1B2C-3D4F"


def test_what_lies_on_the_root_file_system_has_neither(tmp_path: Path, stick: Path) -> None:
    where = tree(tmp_path, Path("/elsewhere"))
    where["mounts"].write_text(f"22 1 {DEVICE} / / rw - ext4 /dev/null rw\n")
    said = look(stick, where=where)
    assert (said.label, said.uuid) == ("", "")
    assert said.name.startswith("2 archives: a.tar")


def test_its_own_word_comes_first(tmp_path: Path, stick: Path) -> None:
    said = look(stick, Label("harbour", "q2", "2026-04-01", "web"), tree(tmp_path, stick))
    assert (said.name, said.site, said.created, said.note, said.uuid) == (
        "q2",
        "harbour",
        "2026-04-01",
        "web",
        "1B2C-3D4F",
    )


def test_where_nothing_can_be_asked_there_is_what_lies_on_it(tmp_path: Path, stick: Path) -> None:
    said = look(stick, where={"mounts": tmp_path / "none", "disks": tmp_path / "none"})
    assert said == MediumIdentity(contents=said.contents)


def test_many_archives_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.tar").write_bytes(b"x")
    assert look(tmp_path).contents.startswith("5 archives: 0.tar, 1.tar, 2.tar and 2 more, newest of ")


def test_names_of_strangers_are_short_and_printable(tmp_path: Path) -> None:
    (tmp_path / f"\x1b[2J{'x' * 200}.tar").write_bytes(b"x")
    said = look(tmp_path).contents
    assert "\x1b" not in said and len(said) < 150


def test_the_longest_mount_point_and_of_several_there_the_last() -> None:
    root, stick, over, other = (
        Mount("8:1", "/", "/dev/sda1"),
        Mount("8:17", "/media/stick", "/dev/sdb1"),
        Mount("8:33", "/media/stick", "/dev/sdc1"),
        Mount("8:49", "/media/sticks", "/dev/sdd1"),
    )
    assert mount_of("/media/stick/a", [root, stick, over, other]) == over
    assert mount_of("/media", [root, stick]) == root
    assert mount_of("/media/stickers", [stick]) is None


@given(st.text(alphabet="0123456789 :/-\\ab\n", max_size=200))
def test_any_text_can_be_read_as_mounts(text: str) -> None:
    for mount in parse_mounts(text):
        assert mount_of(mount.point, [mount]) == mount
