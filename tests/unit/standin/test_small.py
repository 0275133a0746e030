"""Members, tokens, kubectl, the cleaning of certs.d, and the built file."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tests.lab.standin import build, cluster, images, k3s, kubectl, translate, zstd
from tests.lab.standin.config import Layout
from tests.lab.standin.members import READY_FOR, Member, Members, node_object

SERVER = Member("s", "10.0.0.1", "server", "v1", etcd=True, ready=True)
AGENT = Member("g", "10.0.0.2", "agent", "v1", ready=True)


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def conditions(node: dict[str, object]) -> dict[str, str]:
    status = node["status"]
    assert isinstance(status, dict)
    return {item["type"]: item["status"] for item in status["conditions"]}


def test_newer_word_wins_whoever_brings_it() -> None:
    clock = Clock()
    members = Members(now=clock)
    members.heard(AGENT)
    clock.time += 10
    members.merge([{**vars(AGENT), "ready": False, "age": 30.0}])
    assert members.entries()[0]["ready"] is True
    members.merge([{**vars(AGENT), "ready": False, "age": 1.0}])
    assert members.entries() == [{**vars(AGENT), "ready": False, "age": 1.0}]
    assert members.others("g") == []


def test_members_outlive_a_power_loss_and_count_as_gone_until_heard(tmp_path: Path) -> None:
    file = tmp_path / "agent" / "members.json"
    Members(file).heard(SERVER)
    members = Members(file)
    assert members.others("g") == [SERVER]
    assert conditions(node_object(members.entries()[0]))["Ready"] == "Unknown"
    members.heard(SERVER)
    assert conditions(node_object(members.entries()[0])) == {"EtcdIsVoter": "True", "Ready": "True"}


@pytest.mark.parametrize(
    ("member", "age", "wanted"),
    [
        (SERVER, 0.0, {"EtcdIsVoter": "True", "Ready": "True"}),
        (AGENT, 0.0, {"Ready": "True"}),
        (AGENT, READY_FOR, {"Ready": "Unknown"}),
        (Member("n", "10.0.0.3", "server", "v1"), 0.0, {"Ready": "False"}),
    ],
)
def test_node_conditions(member: Member, age: float, wanted: dict[str, str]) -> None:
    node = node_object({**vars(member), "age": age})
    assert conditions(node) == wanted
    assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1"


@pytest.mark.parametrize(
    ("token", "wanted"),
    [
        ("secret", ("secret", "")),
        ("K10abc::server:secret", ("secret", "abc")),
        ("K10abc::node:se:cret", ("se:cret", "abc")),
    ],
)
def test_token_forms(token: str, wanted: tuple[str, str]) -> None:
    assert cluster.password(token) == wanted


def test_cluster_on_disk_keeps_its_token(tmp_path: Path) -> None:
    paths = cluster.Paths(tmp_path)
    cluster.found(paths, "secret", "")
    mark = hashlib.sha256((paths.tls / "server-ca.crt").read_bytes()).hexdigest()
    assert paths.token.read_text() == f"K10{mark}::server:secret\n"
    assert paths.token.stat().st_mode & 0o777 == 0o600
    assert paths.token.with_name("node-token").read_text() == paths.token.read_text()
    authority = (paths.tls / "server-ca.crt").read_bytes()
    cluster.found(paths, "", "")
    cluster.found(paths, paths.token.read_text().strip(), "")
    assert (paths.tls / "server-ca.crt").read_bytes() == authority
    with pytest.raises(cluster.JoinError, match="different token"):
        cluster.found(paths, "another", "")


def test_agents_get_a_token_of_their_own_when_the_server_starts_with_one(tmp_path: Path) -> None:
    paths = cluster.Paths(tmp_path)
    cluster.found(paths, "secret", "")
    assert paths.token.with_name("agent-token").is_symlink()
    cluster.found(paths, "secret", "agents")
    mark = hashlib.sha256((paths.tls / "server-ca.crt").read_bytes()).hexdigest()
    own = paths.token.with_name("agent-token")
    assert (own.is_symlink(), own.read_text()) == (False, f"K10{mark}::node:agents\n")
    assert paths.token.read_text() == f"K10{mark}::server:secret\n"


@pytest.mark.parametrize("etcd", [False, True])
def test_another_token_for_agents_makes_the_passwords_younger_than_what_is_stored(tmp_path: Path, etcd: bool) -> None:
    """With SQLite the real K3s starts once after that, and never again; an old file is taken for the stored one's."""
    paths = cluster.Paths(tmp_path)
    cluster.found(paths, "secret", "", etcd=etcd)
    stored = tmp_path / "server/db/passwords.json"
    stored.write_text(json.dumps({**json.loads(stored.read_text()), "time": 1000.0}))
    cluster.found(paths, "secret", "agents", etcd=etcd)
    if not etcd:
        with pytest.raises(cluster.JoinError, match="newer than datastore"):
            cluster.found(paths, "secret", "agents")
        os.utime(paths.passwords, (0, 0))
    cluster.found(paths, "secret", "agents", etcd=etcd)
    assert paths.passwords.read_text() == "agents,node\nsecret,server\n"


def test_cleaning_of_certs_d(tmp_path: Path) -> None:
    """Directories about to be written and those with K3s's header go; anything else stays."""
    for name, content in {
        "old.site": f"{translate.HEADER}\n[host]\n",
        "hand.site": "# mine\n[host]\n",
        "similar.site": f"{translate.HEADER} Not.\n",
        "new.site": "# mine, but K3s writes here\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "hosts.toml").write_text(content)
    (tmp_path / "new.site" / "ca.crt").write_text("x")
    (tmp_path / "empty.site").mkdir()
    k3s.write_certs(tmp_path, {"new.site": f"{translate.HEADER}\n\n[host]\n"})
    assert {item.name for item in tmp_path.iterdir()} == {"hand.site", "similar.site", "new.site", "empty.site"}
    assert [item.name for item in (tmp_path / "new.site").iterdir()] == ["hosts.toml"]
    assert (tmp_path / "new.site").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("line", "words", "options"),
    [
        ("get --raw /readyz", ["get"], {"raw": "/readyz"}),
        ("get nodes -o json", ["get", "nodes"], {"output": "json"}),
        ("get node a --output=name", ["get", "node", "a"], {"output": "name"}),
        ("get nodes -ojson", ["get", "nodes"], {"output": "json"}),
    ],
)
def test_kubectl_command_line(line: str, words: list[str], options: dict[str, str]) -> None:
    assert kubectl.parse(line.split()) == (words, options)


def test_kubectl_says_what_it_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert kubectl.main(["get", "pods"]) == 1
    assert kubectl.main(["apply", "-f", "x"]) == 1
    assert "stand-in" in capsys.readouterr().err


def test_scan_sees_what_k3s_would_import(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("a.tar", "b.tar.zst", "below/c.tgz", "d.txt", ".cache.json", "e.tar.part", "f.zip"):
        (tmp_path / name).write_bytes(b"x")
    found = {str(path.relative_to(tmp_path)) for path in images.scan(tmp_path)}
    assert found == {"a.tar", "b.tar.zst", "below/c.tgz", "d.txt"}
    assert images.scan(tmp_path / "missing") == {}


def test_hosts_dir_of_a_pull_is_translated(tmp_path: Path) -> None:
    (tmp_path / "certs.d" / "r.site").mkdir(parents=True)
    (tmp_path / "certs.d" / "r.site" / "hosts.toml").write_text('[host."http://127.0.0.1:5000"]\n')
    layout = Layout(data_dir=str(tmp_path / "data"))
    asked = ["images", "pull", "--hosts-dir", str(tmp_path / "certs.d"), "r.site/a:1"]
    with k3s._hosts_directory(asked, layout) as arguments:
        assert [*arguments[:2], arguments[-1]] == ["images", "pull", "r.site/a:1"]
        written = Path(arguments[2].partition("=")[2]) / "r.site" / "hosts.toml"
        assert written.read_text().startswith(f'server = "{k3s.DEAD_END}"\n')
    assert not written.exists()
    for other in (["images", "ls"], ["images", "pull", "--hosts-dir", layout.merged, "r.site/a:1"]):
        with k3s._hosts_directory(other, layout) as arguments:
            assert arguments is other


def test_built_file_runs_alone_says_what_it_is_and_matches_its_checksum(tmp_path: Path) -> None:
    built = build.build(tmp_path / "one")
    again = build.build(tmp_path / "two")
    assert built.read_bytes() == again.read_bytes()
    assert os.access(built, os.X_OK)
    digest = hashlib.sha256(built.read_bytes()).hexdigest()
    assert (built.parent / "sha256sum-amd64.txt").read_text() == f"{digest}  k3s\n"
    assert all(name.endswith(".py") for name in zipfile.ZipFile(built).namelist())
    done = subprocess.run(
        [sys.executable, "-IS", str(built), "--version"], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.startswith("k3s version v1.36.3+k3s1 (stand-in)\n")
    agent = subprocess.run(
        [sys.executable, "-IS", str(built), "agent", "--embedded-registry"], capture_output=True, text=True, check=False
    )
    assert agent.returncode == 1
    assert "flag provided but not defined: -embedded-registry" in agent.stderr
    assert "STAND-IN" in agent.stderr


@pytest.mark.parametrize("suffix", [".tar.zst", ".tzst", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar"])
def test_compressed_tarballs_are_read_whole(tmp_path: Path, suffix: str) -> None:
    content = os.urandom(300_000) + bytes(3_000_000)
    packers: dict[str, Callable[[bytes], bytes]] = {"zst": zstandard.compress, "gz": gzip.compress, "bz": bz2.compress}
    pack = next((pack for mark, pack in packers.items() if mark in suffix or f".t{mark}" == suffix), bytes)
    file = tmp_path / f"a{suffix}"
    file.write_bytes(pack(content))
    with images.opened(file) as stream:
        assert stream.read() == content


def test_damaged_and_short_zstd_is_an_error(tmp_path: Path) -> None:
    whole = zstandard.compress(os.urandom(300_000))
    for data in (whole[:-10], b"\0" * 100 + whole[100:]):
        (tmp_path / "a.tar.zst").write_bytes(data)
        with pytest.raises(zstd.ZstdError), images.opened(tmp_path / "a.tar.zst") as stream:
            stream.read()


def test_window_above_32_mib_fails_as_with_k3s() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=26, compression_level=1, write_content_size=0)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = packed.compress(bytes(1000)) + packed.flush()
    with pytest.raises(zstd.ZstdError):
        list(zstd.decompressed(io.BytesIO(data)))
