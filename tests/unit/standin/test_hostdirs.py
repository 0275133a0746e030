"""Several registry directories as one: which host directory wins, and where the list of hosts ends."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.lab.standin import hostdirs

tomllib = importlib.import_module("tomllib")

DEAD_END = "http://127.0.0.1:6449"
MIRROR = b'[host."http://127.0.0.1:5000/v2"]\n'
EMBEDDED = b'[host."https://127.0.0.1:6443/v2"]\n'
OPEN = b'server = "https://r.site/v2"\n'


def host(content: bytes) -> dict[str, bytes]:
    return {"hosts.toml": content}


def test_host_directory_of_the_first_wins_whole() -> None:
    first = {"r.site": {**host(MIRROR), "ca.crt": b"A"}}
    second = {"r.site": {**host(EMBEDDED), "other.crt": b"B"}, "_default": host(EMBEDDED)}
    merged = hostdirs.merged([first, second], DEAD_END)
    assert set(merged) == {"r.site", "_default"}
    assert set(merged["r.site"]) == {"hosts.toml", "ca.crt"}
    assert MIRROR in merged["r.site"]["hosts.toml"]
    assert EMBEDDED in merged["_default"]["hosts.toml"]


def test_default_of_the_first_hides_the_second_whole() -> None:
    merged = hostdirs.merged([{"_default": host(MIRROR)}, {"r.site": host(EMBEDDED)}], DEAD_END)
    assert set(merged) == {"_default"}


def test_two_spellings_of_one_port_are_one_registry() -> None:
    second = {"r.site_5000_": host(EMBEDDED)}
    assert set(hostdirs.merged([{"r.site:5000": host(MIRROR)}, second], DEAD_END)) == {"r.site:5000"}
    assert set(hostdirs.merged([{"r.site_5000_": host(MIRROR), "r.site:5000": host(MIRROR)}, {}], DEAD_END)) == {
        "r.site_5000_",
        "r.site:5000",
    }


def test_list_of_hosts_ends_on_loopback_where_k3s_would_end_it() -> None:
    ended = tomllib.loads(hostdirs.terminated(MIRROR, DEAD_END).decode())
    assert ended["server"] == DEAD_END
    assert list(ended["host"]) == ["http://127.0.0.1:5000/v2"]


def test_allowed_default_endpoints_stay() -> None:
    for content in (OPEN + MIRROR, b'server = ""\n' + MIRROR):
        assert hostdirs.terminated(content, DEAD_END) == content


def test_file_that_names_no_host_keeps_the_registry_itself() -> None:
    """K3s's containerd adds the registry itself where no other host is left."""
    for content in (b"[host]\n", b"", b"skip_verify = true\n"):
        assert hostdirs.terminated(content, DEAD_END) == content


def test_broken_file_is_left_for_containerd_to_refuse() -> None:
    assert hostdirs.terminated(b"[host", DEAD_END) == b"[host"


def test_write_makes_it_so_and_touches_nothing_that_is_right(tmp_path: Path) -> None:
    target = tmp_path / "merged"
    assert hostdirs.write(target, {"a.site": host(MIRROR), "b.site": host(OPEN)})
    inode = (target / "a.site" / "hosts.toml").stat().st_ino
    assert hostdirs.write(target, {"a.site": {**host(MIRROR), "ca.crt": b"A"}})
    assert hostdirs.read(target) == {"a.site": {**host(MIRROR), "ca.crt": b"A"}}
    assert (target / "a.site" / "hosts.toml").stat().st_ino == inode
    assert not hostdirs.write(target, {"a.site": {**host(MIRROR), "ca.crt": b"A"}})
    assert hostdirs.read(tmp_path / "missing") == {}
