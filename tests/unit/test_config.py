"""The configuration: what is wrong is found at start, and said."""

from __future__ import annotations

import logging
import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from appliance.config import LIVE, Config, LiveConfig, from_mapping, load
from appliance.errors import ApplianceError

GOOD: dict[str, Any] = {
    "node": "b",
    "store": "/var/lib/appliance",
    "pki": "/etc/appliance/pki",
    "publisher": "a",
    "seeds": ["a"],
    "mirror_copies": 2,
    "peers": [
        {"id": "a", "address": "10.77.0.11", "zone": "default", "seed": True},
        {"id": "b", "address": "10.77.0.12", "zone": "east", "seed": False},
        {"id": "c", "address": "fd00::3"},
    ],
}


def read(**changes: Any) -> Config:
    return from_mapping({**GOOD, **changes}, "config.yaml")


def test_a_node_of_a_site() -> None:
    config = read()
    assert (config.node, config.store, config.pki) == ("b", Path("/var/lib/appliance"), Path("/etc/appliance/pki"))
    assert config.publisher == "a"
    assert not config.is_publisher
    assert [peer.id for peer in config.others] == ["a", "c"]
    assert [peer.url for peer in config.peers] == [
        "https://10.77.0.11:5443",
        "https://10.77.0.12:5443",
        "https://[fd00::3]:5443",
    ]
    assert [(peer.zone, peer.seed) for peer in config.peers] == [("default", True), ("east", False), ("default", False)]
    assert (config.mirror_copies, config.keep_generations, config.workers, config.peer_workers) == (2, 3, 2, 1)
    assert config.mirror_listen == "127.0.0.1:5000"
    assert config.peer_listen == "0.0.0.0:5443"
    assert config.agent_socket == Path("/run/appliance/agent.sock")


def test_what_the_nodes_run_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    assert load(path).platforms == ()
    (tmp_path / "platforms").write_text("# what the nodes run\nlinux/amd64\n\n linux/arm64 \n")
    assert load(path).platforms == ("linux/amd64", "linux/arm64")
    (tmp_path / "platforms").unlink()
    (tmp_path / "platforms").mkdir()
    with pytest.raises(ApplianceError, match="APL-0601"):
        load(path)


def test_the_publisher_is_the_first_seed() -> None:
    assert read(node="a").is_publisher
    assert read(seeds=["b", "a"], publisher="b").is_publisher
    assert not read(seeds=["b", "a"], publisher="b", node="a").is_publisher


def test_the_ordered_list_decides_who_is_a_seed() -> None:
    config = read(seeds=["c", "a"], publisher="c")
    assert {peer.id for peer in config.peers if peer.seed} == {"a", "c"}


def test_a_store_without_a_site_publishes_for_itself() -> None:
    config = from_mapping({"node": "x", "store": "/s"}, "f")
    assert config.is_publisher
    assert config.publisher is None
    assert config.others == ()
    assert config.site_addresses == frozenset()


def test_every_spelling_of_a_listed_node_means_no_namespace() -> None:
    peers = [*GOOD["peers"], {"id": "d", "address": "10.77.0.14:6000"}]
    assert read(peers=peers).site_addresses >= {
        "10.77.0.11",
        "10.77.0.11:5443",
        "a",
        "a:5443",
        "fd00::3",
        "[fd00::3]",
        "[fd00::3]:5443",
        "10.77.0.14:6000",
        "d",
    }
    assert "10.77.0.14:6000:5443" not in read(peers=peers).site_addresses
    assert "" not in read(peers=peers).site_addresses


def test_an_address_with_a_port_is_asked_there() -> None:
    peers = [*GOOD["peers"], {"id": "d", "address": "10.77.0.14:6000"}, {"id": "e", "address": "[fd00::5]:6000"}]
    assert [peer.url for peer in read(peers=peers).peers[3:]] == ["https://10.77.0.14:6000", "https://[fd00::5]:6000"]


def test_all_copies_is_no_number() -> None:
    assert read(mirror_copies="all").mirror_copies is None


def test_the_optional_keys_are_taken() -> None:
    config = read(
        agent_socket="/tmp/x.sock",
        mirror_listen="127.0.0.1:1",
        peer_listen="[::]:2",
        keep_generations=5,
        free_percent=7,
        site="harbour",
        workers=4,
        peer_workers=3,
        push_users="/etc/appliance/push-users",
    )
    assert config.agent_socket == Path("/tmp/x.sock")
    assert (config.mirror_listen, config.peer_listen) == ("127.0.0.1:1", "[::]:2")
    assert config.push_users == Path("/etc/appliance/push-users")
    assert (config.keep_generations, config.free_percent, config.workers, config.peer_workers) == (5, 7.0, 4, 3)
    assert config.site == "harbour"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"colour": "red"}, "colour"),
        ({5: "red", "x": 1}, "5"),
        ({"node": None}, "node"),
        ({"node": ""}, "node"),
        ({"store": 5}, "store"),
        ({"pki": 5}, "pki"),
        ({"push_users": 5}, "push_users"),
        ({"push_users": ""}, "push_users"),
        ({"agent_socket": ["/x"]}, "agent_socket"),
        ({"mirror_listen": 5000}, "mirror_listen"),
        ({"node": "z"}, "z"),
        ({"seeds": "a"}, "seeds"),
        ({"seeds": 5}, "seeds"),
        ({"seeds": [5]}, "seeds"),
        ({"seeds": ["a", "a"]}, "seeds"),
        ({"seeds": ["a", "z"]}, "z"),
        ({"publisher": "b"}, "publisher"),
        ({"seeds": [], "publisher": "a"}, "publisher"),
        ({"peers": 5}, "peers"),
        ({"peers": {"a": "10.0.0.1"}}, "peers"),
        ({"peers": [*GOOD["peers"], GOOD["peers"][0]]}, "one id"),
        ({"peers": [*GOOD["peers"], "d"]}, "id and address"),
        ({"peers": [*GOOD["peers"], {"id": "d"}]}, "id and address"),
        ({"peers": [*GOOD["peers"], {"id": 4, "address": "x"}]}, "id and address"),
        ({"peers": [*GOOD["peers"], {"id": "d", "address": "x", "adress": "y"}]}, "adress"),
        ({"peers": [*GOOD["peers"], {"id": "d", "address": "x", "zone": 5}]}, "zone"),
        ({"peers": [*GOOD["peers"], {"id": "d", "address": "x", "seed": "false"}]}, "seed"),
        ({"mirror_copies": 0}, "mirror_copies"),
        ({"mirror_copies": True}, "mirror_copies"),
        ({"mirror_copies": "some"}, "mirror_copies"),
        ({"mirror_copies": 1.5}, "mirror_copies"),
        ({"keep_generations": 0}, "keep_generations"),
        ({"keep_generations": "3"}, "keep_generations"),
        ({"workers": True}, "workers"),
        ({"store_limit": 0}, "store_limit"),
        ({"store_limit": "200G"}, "store_limit"),
        ({"store_limit": True}, "store_limit"),
        ({"scrub_rate": -1}, "scrub_rate"),
        ({"scrub_rate": 1.5}, "scrub_rate"),
        ({"site": ""}, "site"),
        ({"site": 7}, "site"),
        ({"free_percent": 100}, "free_percent"),
        ({"free_percent": -1}, "free_percent"),
        ({"free_percent": float("nan")}, "free_percent"),
        ({"free_percent": "15"}, "free_percent"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[Any, Any], word: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        from_mapping({**GOOD, **changes}, "config.yaml")
    assert caught.value.code == "APL-0602"
    assert caught.value.where == "config.yaml"
    assert word in caught.value.why


def test_missing_keys_are_named() -> None:
    for key in ("node", "store"):
        with pytest.raises(ApplianceError, match=key):
            from_mapping({name: value for name, value in GOOD.items() if name != key}, "f")


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@given(json_like | st.dictionaries(st.sampled_from(sorted(GOOD)), json_like).map(lambda part: {**GOOD, **part}))
def test_nothing_but_the_one_error_ever_comes_out(document: object) -> None:
    try:
        config = from_mapping(document, "f")
    except ApplianceError as error:
        assert error.code == "APL-0602"
    else:
        assert config.node
        assert all(isinstance(address, str) for address in config.site_addresses)


def test_load_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    assert load(path) == read()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError) as caught:
        load(tmp_path / "config.yaml")
    assert caught.value.code == "APL-0601"
    assert str(tmp_path) in caught.value.where


@pytest.mark.parametrize(
    "content",
    [b"node: [", b"\xff\xfe\xff", b"- a\n", b"", b"node: !!python/object:os.system x\n", b"[" * 5000],
    ids=["cut", "no-utf8", "list", "empty", "object", "deep"],
)
def test_a_file_that_is_no_mapping(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ApplianceError) as caught:
        load(path)
    assert caught.value.code == "APL-0602"


def test_a_limit_and_a_rate_are_bytes_and_may_be_left_out() -> None:
    assert (read().store_limit, read().scrub_rate) == (None, 8 << 20)
    assert (read(store_limit=5).store_limit, read(scrub_rate=0).scrub_rate) == (5, 0)
    assert read(store_limit=None).store_limit is None


# What is taken anew while a process runs


def write(path: Path, **changes: Any) -> Path:
    """Replace the file as the role does: another one is renamed over it."""
    new = path.with_name("new")
    new.write_text(yaml.safe_dump({**GOOD, **changes}))
    new.rename(path)
    return path


@pytest.fixture
def current(tmp_path: Path) -> LiveConfig:
    """Of a process that was started with ``config.yaml`` below ``tmp_path``."""
    path = write(tmp_path / "config.yaml")
    return LiveConfig(load(path), path)


def test_the_list_of_nodes_is_taken_anew_and_nothing_else(tmp_path: Path, current: LiveConfig) -> None:
    started = current.get()
    seeds, addresses = current.seeds, current.site_addresses
    more = [*GOOD["peers"][:2], {"id": "d", "address": "10.77.0.14"}]
    write(
        tmp_path / "config.yaml",
        peers=more,
        seeds=["d", "b"],
        publisher="d",
        mirror_copies="all",
        workers=7,
        store="/elsewhere",
        peer_listen="10.0.0.9:1",
    )
    config = current.get()
    assert [peer.id for peer in config.others] == ["a", "d"]
    assert (config.publisher, config.mirror_copies, config.ids) == ("d", None, frozenset("abd"))
    assert list(seeds) == ["d", "b"] and "a" not in seeds and len(seeds) == 2
    assert "10.77.0.14:5443" in addresses and "fd00::3" not in addresses
    for field in fields(Config):
        if field.name not in LIVE:
            assert getattr(config, field.name) == getattr(started, field.name), field.name


def test_as_long_as_the_list_says_the_same_it_is_the_same_object(tmp_path: Path, current: LiveConfig) -> None:
    started = current.get()
    write(tmp_path / "config.yaml", workers=5)
    assert current.get() is started


@pytest.mark.parametrize(
    "broken",
    ["node: [", "", yaml.safe_dump({**GOOD, "peers": []}), yaml.safe_dump({**GOOD, "node": "a"}), None],
    ids=["cut", "empty", "no-peers", "another-node's", "gone"],
)
def test_a_file_that_cannot_be_used_changes_nothing_and_is_named_once(
    tmp_path: Path, current: LiveConfig, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    path, started = tmp_path / "config.yaml", current.get()
    if broken is None:
        path.unlink()
    else:
        path.write_text(broken)
    with caplog.at_level(logging.ERROR):
        assert all(current.get() is started for _ in range(3))
    (said,) = caplog.messages
    assert str(path) in said and "APL-060" in said
    write(path, seeds=["b"], publisher="b")
    assert current.get().is_publisher


def test_without_a_file_nothing_ever_changes_and_a_process_may_be_given_it() -> None:
    config = read()
    assert pickle.loads(pickle.dumps(LiveConfig(config))).get() == config
