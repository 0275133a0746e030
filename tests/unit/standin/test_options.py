"""config.yaml and the command line: what the real command refuses, warns of, and lets win."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.lab.standin.options import UsageError, combine, config_files, load


@pytest.mark.parametrize("key", ["embedded-registry", "cluster-init", "disable", "write-kubeconfig-mode", "tls-san"])
def test_agent_refuses_what_only_servers_know(key: str) -> None:
    with pytest.raises(UsageError, match=f"^flag provided but not defined: -{key}$"):
        combine("agent", [("config.yaml", {key: True})])


def test_server_warns_of_unknown_keys_and_goes_on() -> None:
    options = combine("server", [("config.yaml", {"embeded-registry": True, "token": "t"})])
    assert options.warnings == ("Unknown flag --embeded-registry found in config.yaml, skipping",)
    assert not options.flag("embedded-registry")
    assert options.text("token") == "t"


@pytest.mark.parametrize("command", ["server", "agent"])
def test_unknown_flag_on_the_command_line_is_refused(command: str) -> None:
    with pytest.raises(UsageError, match="flag provided but not defined: -nonsense"):
        combine(command, [], ["--nonsense"])


def test_booleans() -> None:
    assert combine("server", [("c", {"embedded-registry": True})]).flag("embedded-registry")
    assert not combine("server", [("c", {"embedded-registry": False})]).flag("embedded-registry")
    with pytest.raises(UsageError, match="invalid boolean value"):
        combine("server", [("c", {"embedded-registry": "yes"})])


def test_drop_ins_the_last_wins_and_plus_appends() -> None:
    options = combine(
        "server",
        [
            ("config.yaml", {"token": "a", "tls-san": ["x"], "node-label": "one"}),
            ("10.yaml", {"token": "b", "tls-san+": ["y", "z"], "node-label+": "two"}),
            ("20.yaml", {"kubelet-arg": ["a=1", "b=2,3"]}),
            ("30.yaml", None),
        ],
    )
    assert options.text("token") == "b"
    assert options.many("tls-san") == ("x", "y", "z")
    assert options.many("node-label") == ("one", "two")
    assert options.values["kubelet-arg"] == ("a=1", "b=2,3")


def test_command_line_wins_over_files_and_adds_to_lists() -> None:
    files = [("c", {"token": "a", "tls-san": ["x"], "debug": False})]
    options = combine("server", files, ["-t", "b", "--tls-san=y", "--debug", "--node-ip", "10.0.0.1"])
    assert options.text("token") == "b"
    assert options.many("tls-san") == ("x", "y")
    assert options.flag("debug")
    assert options.text("node-ip") == "10.0.0.1"


def test_environment_is_the_weakest() -> None:
    environment = {"K3S_TOKEN": "e", "K3S_URL": "https://s:6443"}
    assert combine("agent", [], [], environment).text("server") == "https://s:6443"
    assert combine("agent", [("c", {"token": "f"})], [], environment).text("token") == "f"


def test_stray_words_missing_arguments_and_lists_for_files_are_refused() -> None:
    with pytest.raises(UsageError, match="unexpected argument"):
        combine("server", [], ["word"])
    with pytest.raises(UsageError, match="needs an argument"):
        combine("server", [], ["--token"])
    with pytest.raises(UsageError, match="not a mapping"):
        combine("server", [("config.yaml", ["token"])])


def test_files_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "config.yaml.d").mkdir()
    for name in ("b.yaml", "a.YML", "notes.txt"):
        (tmp_path / "config.yaml.d" / name).write_text(f"token: {name}\n")
    assert [item.name for item in config_files(tmp_path / "config.yaml")] == ["a.YML", "b.yaml"]
    (tmp_path / "config.yaml").write_text("node-ip: 10.0.0.1\n")
    options = load(
        "agent", [], read_yaml=yaml.safe_load, environment={"K3S_CONFIG_FILE": str(tmp_path / "config.yaml")}
    )
    assert (options.text("token"), options.text("node-ip")) == ("b.yaml", "10.0.0.1")
    options = load("agent", ["-c", str(tmp_path / "config.yaml")], read_yaml=yaml.safe_load, environment={})
    assert options.text("token") == "b.yaml"
