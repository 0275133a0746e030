"""Files that are replaced by one rename."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance import pki
from appliance.files import write_atomically


def test_the_old_bytes_stay_where_the_new_ones_cannot_be_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"], "nothing is left beside it"


def test_a_key_and_its_certificates_survive_a_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a new file is durable only once its directory is: a node's key was gone after a power loss."""
    synced: list[int] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    pki.init_ca(tmp_path / "ca")
    pki.request(tmp_path / "a", "a", "10.0.0.1")
    last = {inode: position for position, inode in enumerate(synced)}
    for directory in (tmp_path / "ca", tmp_path / "a"):
        files = sorted(directory.iterdir())
        assert len(files) == 2
        assert all(last[file.stat().st_ino] < last[directory.stat().st_ino] for file in files)
