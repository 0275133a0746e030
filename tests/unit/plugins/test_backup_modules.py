"""The modules of backup and restore: a datastore that is in use is copied whole, and what a store serves is read."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.unit.plugins.test_k3s_modules import run
from tests.unit.store import made

NAME = "docker.io/library/a:1"


def database(data: Path) -> sqlite3.Connection:
    """K3s's database with a writer that has it open, its last lines in the log alone."""
    (data / "server/db").mkdir(parents=True)
    live = sqlite3.connect(data / "server/db/state.db", isolation_level=None)
    live.execute("PRAGMA journal_mode=WAL")
    live.execute("PRAGMA wal_autocheckpoint=0")
    live.execute("CREATE TABLE kine (name TEXT)")
    live.executemany("INSERT INTO kine VALUES (?)", [(f"/registry/{number}",) for number in range(1000)])
    return live


def save(tmp_path: Path, capsys: pytest.CaptureFixture[str], **more: Any) -> dict[str, Any]:
    (tmp_path / "out").mkdir(exist_ok=True)
    return run("k3s_datastore", capsys, dest=str(tmp_path / "out"), data_dir=str(tmp_path / "k3s"), **more)


def test_sqlite_is_copied_while_it_is_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live = database(tmp_path / "k3s")
    live.execute("BEGIN IMMEDIATE")
    live.execute("INSERT INTO kine VALUES ('/not/committed')")
    assert save(tmp_path, capsys)["kind"] == "sqlite"
    live.execute("COMMIT")
    live.close()
    copy = tmp_path / "out/state.db"
    assert [path.name for path in copy.parent.iterdir()] == ["state.db"], "one file, with all that was in the log"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert copy.read_bytes()[18:20] == b"\1\1", "no log of its own that would have to go along"
    read = sqlite3.connect(copy)
    assert read.execute("SELECT count(*) FROM kine").fetchone() == (1000,)
    read.close()


def test_a_database_that_is_damaged_is_no_backup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database(tmp_path / "k3s").close()
    path = tmp_path / "k3s/server/db/state.db"
    raw = bytearray(path.read_bytes())
    raw[4096 + 8 : 4096 + 2048] = os.urandom(2040)
    path.write_bytes(raw)
    assert "APL-0877" in save(tmp_path, capsys, fails=True)["msg"]


ETCD = """#!/bin/sh
[ "$1 $2" = "etcd-snapshot save" ] || exit 3
while [ $# -gt 0 ]; do case $1 in --name) name=$2;; --dir) dir=$2;; esac; shift; done
{done}
"""


def etcd(tmp_path: Path, done: str) -> str:
    (tmp_path / "k3s/server/db/etcd").mkdir(parents=True)
    (tmp_path / "k3s/server/db/state.db").write_bytes(b"what sqlite left when the site went to etcd")
    binary = tmp_path / "k3s-binary"
    binary.write_text(ETCD.format(done=done))
    binary.chmod(0o755)
    return str(binary)


def test_etcd_writes_a_fresh_snapshot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary = etcd(tmp_path, 'echo snapshot > "$dir/$name-a-1767225845"')
    assert save(tmp_path, capsys, k3s=binary)["kind"] == "etcd"
    (made_,) = (tmp_path / "out").iterdir()
    assert (made_.name, made_.read_text(), made_.stat().st_mode & 0o777) == ("snapshot", "snapshot\n", 0o600)


@pytest.mark.parametrize("done", ["echo etcd is down >&2; exit 1", "exit 0"])
def test_a_snapshot_that_was_not_made_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], done: str
) -> None:
    assert "APL-0877" in save(tmp_path, capsys, k3s=etcd(tmp_path, done), fails=True)["msg"]


def test_neither_is_said_and_nothing_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert save(tmp_path, capsys)["kind"] == "none"
    database(tmp_path / "k3s").close()
    assert save(tmp_path, capsys, check=True)["file"] == "state.db"
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_store_serves_is_read_without_the_appliance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blobs = made.open_store(tmp_path / "store")
    args: dict[str, Any] = {"store": str(blobs.root), "files": [str(tmp_path / "x"), str(tmp_path)]}
    empty = run("served_info", capsys, **args)
    assert (empty["generation"], empty["pushes"]) == (None, None)
    assert empty["files"] == {str(tmp_path / "x"): "", str(tmp_path): "directory"}
    generation = made.publish(blobs, {NAME: made.image(1)})
    pushed = made.push(blobs, {"10.0.0.1:5443/a:1": made.image(2)})
    (tmp_path / "x").write_bytes(b"1")
    said = run("served_info", capsys, **args)
    assert said["generation"] == {"number": 1, "digest": generation.digest}
    assert said["pushes"] == {"number": 1, "digest": pushed.digest}
    assert said["files"][str(tmp_path / "x")] == hashlib.sha256(b"1").hexdigest()
    assert run("served_info", capsys, store=str(tmp_path / "none"))["generation"] is None


@pytest.mark.parametrize("raw", [b"{", b"[]", b'{"annotations":{"vnd.k3s-airgap-appliance.generation":"x"}}'])
def test_an_index_that_is_none_stops_the_restore(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], raw: bytes
) -> None:
    (tmp_path / "index.json").write_bytes(raw)
    assert "APL-0873" in run("served_info", capsys, store=str(tmp_path), fails=True)["msg"]
