"""Modes of everything that the appliance's Python writes, as one table, under whatever umask it is called."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from appliance.agent.fetch import Progress, _Partial
from appliance.agent.scrub import RateLimiter, Scrubber
from appliance.cli.main import main
from appliance.server.gunicorn_server import Server
from appliance.store import auditlog, readiness, schema
from appliance.store.blobs import BlobStore
from appliance.store.quarantine import verify_or_quarantine
from appliance.store.uploads import Uploads
from tests.unit.store import made

A, B = "docker.io/library/a:1", "docker.io/library/b:1"
HEX = "[0-9a-f]+"
WRITTEN = {
    # What a umask takes is taken from these; nothing is ever added to them.
    r"store": 0o755,
    r"store/(blobs|blobs/sha256|partial|generations|incoming|quarantine|pushes|pins|uploads|claims|staged)": 0o755,
    rf"store/blobs/sha256/{HEX}": 0o444,
    rf"store/quarantine/[^/]+{HEX}": 0o444,
    rf"store/partial/{HEX}": 0o600,
    rf"store/uploads/[^/]*{HEX}": 0o600,
    r"store/claims/[^/]+": 0o755,
    r"store/claims/[^/]+/[^/]+": 0o644,
    r"store/(oci-layout|index.json|pushes.json|pins.json|form|standing.json|scrub.json)": 0o644,
    rf"store/generations/[0-9]+-{HEX}\.json": 0o644,
    rf"store/generations/[0-9]+-{HEX}\.sig": 0o644,
    rf"store/(pushes|pins)/[^/]*{HEX}\.sig": 0o644,
    r"store/staged/[^/]+": 0o644,
    r"store/journal.jsonl": 0o640,
    r"store/(lock|generations/lock|pushes/lock|pins/lock)": 0o600,
    r"pki": 0o700,
    r"pki/ca.crt": 0o644,
    r"pki/ca.key": 0o600,
    r"node": 0o755,
    r"node/node.key": 0o600,
    r"node/node.(csr|crt)": 0o644,
    r"backups": 0o700,
    r"backups/[^/]+\.tar": 0o600,
    r"part.tar": 0o600,
    r"unpacked(/.+)?": (0o700, 0o600),
}
"""Regular expression of a path to its mode; of two, the first is a directory's and the second a file's."""


@pytest.fixture
def umask() -> Iterator[None]:
    """The umask of the tests is what it was, whatever a test does to it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def run(*words: object) -> None:
    done = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def write_everything(root: Path) -> None:
    """Have the real code make one of everything."""
    store = ("--store", root / "store")
    run("pki", "init-ca", root / "pki")
    run("pki", "request", "--node", "a", "--address", "10.0.0.1", "--dir", root / "node")
    words = ("--csr", root / "node/node.csr", "--out", root / "node/node.crt", "--node", "a", "--address", "10.0.0.1")
    run("pki", "sign", "--ca", root / "pki", *words)
    (root / "node/ca.crt").write_bytes((root / "pki/ca.crt").read_bytes())
    (root / "node/ca.crt").chmod(0o644)
    medium = made.write_oci_archive(root / "medium/a.tar", {A: made.image(1)})
    config = root / "config.yaml"
    config.write_text(
        f"node: a\nstore: {root}/store\npki: {root}/node\nseeds: [a]\npeers: [{{id: a, address: 10.0.0.1}}]\nagent_socket: {root}/none.sock\n"
    )
    site = (*store, "--config", config)
    run("plan", *site, "--stage", medium)
    readiness.mark_ready(root / "store", "a")
    run("seed", *site, medium)
    made.write_oci_archive(root / "medium/a.tar", {A: made.image(1), B: made.image(2)})
    run("plan", *site, "--stage", medium)
    run("pin", *site, A)
    run("backup", "store", *site, root / "part.tar")
    run("backup", "pack", "--ca", root / "pki", "--store-part", root / "part.tar", "--out", root / "backups")
    run("backup", "unpack", *(root / "backups").glob("*.tar"), root / "unpacked")
    blobs = BlobStore(root / "store", reserve=0)
    schema.prepare(blobs)
    uploads = Uploads(blobs)
    uploads.begin("team/app")
    pushed = made.image(3)
    made.push(blobs, {"docker.io/team/app:1": pushed})
    uploads.link("docker.io/team/app", pushed.digest)
    Scrubber(
        blobs, RateLimiter(1, time.monotonic, time.sleep), lambda work, *words: work(*words), time.time, list
    )._save()
    auditlog.note(blobs.root, {"action": "test"})
    _Partial(blobs.root / "partial" / ("0" * 64), "sha256:" + "0" * 64, Progress(1), None, lambda *_: None)
    bad = next(iter(made.image(4).blobs))
    made.fill(blobs, [made.image(4)])
    path = blobs.path(bad)
    path.chmod(0o644)
    path.write_bytes(b"wrong")
    path.chmod(0o444)
    with contextlib.suppress(Exception):
        verify_or_quarantine(blobs, bad, None, suspect=True)


def modes(root: Path) -> dict[str, tuple[bool, int]]:
    paths = [path for path in root.rglob("*") if path.parts[len(root.parts)] not in ("medium", "config.yaml")]
    found = {str(path.relative_to(root)): path.lstat() for path in paths}
    return {name: (stat.S_ISDIR(item.st_mode), stat.S_IMODE(item.st_mode)) for name, item in found.items()}


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("given", "taken"), [(0, 0o022), (0o022, 0o022), (0o027, 0o027), (0o777, 0o077)])
def test_everything_has_the_mode_of_the_table_whatever_umask_the_caller_has(
    tmp_path: Path, given: int, taken: int
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "medium").mkdir()
    os.umask(given)
    write_everything(root)
    used: set[str] = set()
    wrong = []
    for name, (is_directory, mode) in modes(root).items():
        rows = [row for row in WRITTEN if re.fullmatch(row, name)]
        if name == "node/ca.crt":
            continue
        used.update(rows)
        wanted: Any = [WRITTEN[row] for row in rows]
        wanted = [item[not is_directory] if isinstance(item, tuple) else item for item in wanted]
        # fchmod of a blob asks no umask.
        if [item if item == 0o444 else item & ~taken for item in wanted] != [mode]:
            wrong.append(f"{name}: {mode:o}, of {rows}")
    assert wrong == []
    assert used == set(WRITTEN), "rows of the table that nothing was made for"


def test_what_the_web_workers_write_is_for_them_and_their_group() -> None:
    """gunicorn sets this umask in each worker; its default, 0, would make a store that every user may write."""
    assert Server("127.0.0.1:1", lambda: None, workers=1).cfg.umask == 0o027


AGENT = """
import os, sys
from pathlib import Path
os.umask(0)
from appliance.server import unix_server
path = Path(sys.argv[1])
def notify(state):
    if state.startswith("READY"):
        before = os.umask(0)
        print(f"{path.lstat().st_mode & 0o777:o} {before:o}", flush=True)
        sys.stdout.close()
        os._exit(0)
unix_server.notify = notify
unix_server.serve(path, lambda: lambda environ, start: [])
"""


def test_the_socket_and_the_files_of_the_agent_are_for_its_user_alone(tmp_path: Path) -> None:
    words = [sys.executable, "-c", AGENT, str(tmp_path / "agent.sock")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == "700 77\n", done.stderr
