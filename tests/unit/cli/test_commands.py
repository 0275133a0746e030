"""The commands: exit codes, documents, and a plan that leaves no trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from appliance import listeners
from appliance.agent.client import AgentClient
from appliance.cli import common
from appliance.store.blobs import BlobStore
from appliance.web.auth import parse_lines
from tests.unit.store import made

A = "docker.io/library/a:1"


@pytest.fixture
def of_a_site(tmp_path: Path) -> Any:
    """Writes the configuration of the first of three nodes, whose store is ``store``; no agent runs."""

    def write(publisher: str = "a") -> Path:
        document = {
            "node": "a",
            "store": str(tmp_path / "store"),
            "pki": str(tmp_path / "pki"),
            "agent_socket": str(tmp_path / "agent.sock"),
            "seeds": [publisher],
            "peers": [{"id": name, "address": f"10.0.0.{number}"} for number, name in enumerate("abc", 1)],
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
        return tmp_path / "config.yaml"

    return write


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A medium with one image."""
    return made.write_oci_archive(tmp_path / "medium" / "a.tar", {A: made.image(1)})


def test_plan_seed_images_fsck(run: Any, tmp_path: Path, source: Path) -> None:
    store = tmp_path / "store"
    one = made.image(1)
    planned = run("plan", "--store", store, "--json", source)
    assert planned.code == 0
    assert planned.err == ""
    shown = planned.document
    assert shown["generation"] is None
    assert shown["added"] == [{"name": A, "digest": one.digest, "size": one.weight}]
    assert shown["bytes_to_write"] == sum(map(len, one.blobs.values()))
    (read,) = shown["sources"]
    assert (read["path"], read["state"]) == (str(source), "read")
    assert read["medium"].startswith("1 archive: a.tar, newest of ")
    assert shown["registries"] == ["docker.io"]
    assert set(shown) >= {"plan_id", "moved", "unchanged", "notes"}
    seeded = run("seed", "--store", store, "--expect", shown["plan_id"], "--json", source)
    assert seeded.code == 0
    assert seeded.document["published"] is True
    assert seeded.document["generation"]["number"] == 1
    again = run("plan", "--store", store, "--json", source).document
    assert again["generation"] == seeded.document["generation"]
    assert (again["added"], again["moved"], again["unchanged"], again["bytes_to_write"]) == ([], [], [A], 0)
    listed = run("images", "--store", store, "--json")
    assert listed.document == {
        "generation": 1,
        "pushes": None,
        "images": [
            {
                "name": A,
                "digest": one.digest,
                "mediaType": one.descriptor["mediaType"],
                "pushed": False,
                "pinned": False,
            }
        ],
    }
    checked = run("fsck", "--store", store, "--json")
    assert (checked.code, checked.document["problems"]) == (0, [])


def test_the_agent_is_told_of_what_was_published_and_of_nothing_else(
    run: Any, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Path] = []
    monkeypatch.setattr(AgentClient, "wake", lambda self: told.append(self._path))
    for _ in range(2):
        assert run("seed", "--store", tmp_path / "store", source).code == 0
    assert told == [tmp_path / "store" / "agent.sock"]
    (tmp_path / "config.yaml").write_text(f"node: a\nstore: {tmp_path}/other\nagent_socket: /somewhere\n")
    run("seed", "--store", tmp_path / "other", "--config", tmp_path / "config.yaml", source)
    assert told[1:] == [Path("/somewhere")]


def test_a_publisher_that_is_not_sure_seeds_nothing(run: Any, tmp_path: Path, source: Path, of_a_site: Any) -> None:
    refused = run("seed", "--store", tmp_path / "store", "--config", of_a_site(), source)
    assert refused.code == 1
    assert "APL-0341" in refused.err and "take-over --without NODE" in refused.err
    assert not (tmp_path / "store").exists()


def test_take_over_is_for_the_publisher_and_for_nodes_of_the_site(run: Any, of_a_site: Any) -> None:
    assert "APL-0312" in run("take-over", "--config", of_a_site("b")).err
    unknown = run("take-over", "--config", of_a_site(), "--without", "b", "--without", "z")
    assert unknown.code == 2 and "no node of this site: z" in unknown.err
    assert "APL-0341" in run("take-over", "--config", of_a_site(), "--without", "b").err


def test_what_was_pushed_is_listed_as_that(run: Any, tmp_path: Path, source: Path) -> None:
    store, two = tmp_path / "store", made.image(2)
    run("seed", "--store", store, source)
    made.push(BlobStore(store), {"docker.io/team/app:1": two, A: two})
    listed = run("images", "--store", store, "--json").document
    assert (listed["generation"], listed["pushes"]) == (1, 1)
    assert [(row["name"], row["digest"], row["pushed"]) for row in listed["images"]] == [
        (A, made.image(1).digest, False),
        ("docker.io/team/app:1", two.digest, True),
    ]
    assert "docker.io/team/app:1  (pushed)" in run("images", "--store", store).out
    assert run("fsck", "--store", store).code == 0


def test_pin_and_what_it_stops(run: Any, tmp_path: Path, source: Path) -> None:
    store, one, two = tmp_path / "store", made.image(1), made.image(2)
    run("seed", "--store", store, source)
    assert run("pin", "--store", store, "a:1").out == f"pinned {A}\n"
    assert run("pin", "--store", store, "--json", "a:1").document == {"changed": [], "pinned": [A]}
    assert [row["pinned"] for row in run("images", "--store", store, "--json").document["images"]] == [True]
    assert f"{A}  (pinned)" in run("images", "--store", store).out
    made.write_oci_archive(source, {A: two})
    planned = run("plan", "--store", store, "--json", source)
    # The plan is shown, and then why it is refused: a playbook shows both.
    assert planned.code == 1
    assert planned.document["moved"] == [{"name": A, "old": one.digest, "new": two.digest, "pinned": True}]
    assert json.loads(planned.err.splitlines()[-1])["code"] == "APL-0141"
    assert f"move  {A}  {one.digest} -> {two.digest}  (pinned)" in run("plan", "--store", store, source).out
    refused = run("seed", "--store", store, source)
    assert (refused.code, refused.out) == (1, "")
    assert "--move-pinned" in refused.err
    agreed = run("plan", "--store", store, "--move-pinned", A, "--json", source)
    assert agreed.code == 0
    words = ["--expect", agreed.document["plan_id"], "--move-pinned", A]
    assert run("seed", "--store", store, *words, source).code == 0
    assert run("unpin", "--store", store, A).out == f"unpinned {A}\n"
    assert "APL-0333" in run("unpin", "--store", store, A).err
    assert "APL-0332" in run("pin", "--store", store, "nothing:1").err
    assert run("fsck", "--store", store).code == 0


def test_what_the_nodes_run_is_known_on_the_publisher(run: Any, tmp_path: Path, source: Path) -> None:
    store, config = tmp_path / "store", tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"node": "a", "store": str(store)}))
    words = ["--store", store, "--config", config]
    (tmp_path / "platforms").write_text("linux/arm64\n")
    for command in ("plan", "seed"):
        assert "APL-0128" in run(command, *words, source).err
    assert run("plan", *words, "--platform", "linux/amd64", source).code == 0
    taken = run("seed", *words, "--any-platform", "--json", source)
    assert taken.code == 0
    assert any("No node can run" in note for note in taken.document["notes"])


def test_pins_are_the_publishers(run: Any, tmp_path: Path, source: Path) -> None:
    store, config = tmp_path / "store", tmp_path / "config.yaml"
    run("seed", "--store", store, source)
    peers = [{"id": name, "address": f"192.0.2.{number}"} for number, name in enumerate("ab", 1)]
    config.write_text(yaml.safe_dump({"node": "b", "store": str(store), "seeds": ["a"], "peers": peers}))
    for words in (["pin"], ["unpin"]):
        refused = run(*words, "--store", store, "--config", config, A)
        assert "APL-0312" in refused.err
        assert "a" in refused.err


def test_hash_password_makes_a_line_and_shows_no_password(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click, "prompt", lambda *_, **__: "a password of some length")
    done = run("hash-password", "ops")
    assert done.code == 0
    assert parse_lines(done.out, "test")["ops"].matches(b"a password of some length")
    assert "a password" not in done.out + done.err
    monkeypatch.setattr(click, "prompt", lambda *_, **__: "short")
    assert "APL-0503" in run("hash-password", "ops").err


def test_for_people(run: Any, tmp_path: Path, source: Path) -> None:
    store = tmp_path / "store"
    assert f"add   {A}" in run("plan", "--store", store, source).out
    assert "published generation 1" in run("seed", "--store", store, source).out
    assert "nothing new; generation 1 is served" in run("seed", "--store", store, source).out
    assert A in run("images", "--store", store).out
    assert "0 problems" in run("fsck", "--store", store).out
    made.write_oci_archive(source, {A: made.image(2)})
    assert f"move  {A}" in run("plan", "--store", store, source).out


def test_a_source_that_is_not_there_any_more_is_said_by_hand_too(run: Any, tmp_path: Path, source: Path) -> None:
    store, stick = tmp_path / "store", source.parent
    line = f"  not there, but published before: {stick}, from 1 archive: a.tar, newest of "
    assert line not in run("seed", "--store", store, stick).out
    source.unlink()
    for command in ("plan", "seed"):
        assert line in run(command, "--store", store, stick).out
    stick.rmdir()
    ended = run("seed", "--store", store, stick)
    assert ended.code == 0 and line in ended.out and "nothing new" in ended.out


def test_a_plan_for_people_has_every_file_that_is_left_out(run: Any, tmp_path: Path, source: Path) -> None:
    stick = source.parent
    for number in range(7):
        (stick / f"{number}\x1b[2J.pdf").write_bytes(b"x" * (number + 1))
    (stick / "l.tar").symlink_to(source)
    (stick / "a.tar.asc").write_bytes(b"x")
    for command in ("plan", "seed"):
        lines = run(command, "--store", tmp_path / "store", stick).out.splitlines()
        assert (
            f"  left out: {stick}/4\\x1b[2J.pdf (5 bytes): not an image archive, by its name and its first bytes"
            in lines
        )
        assert not any("/5\\x1b" in line or "\x1b" in line for line in lines)
        assert "  left out: 2 more like the last one" in lines
        assert f"  left out: {stick}/l.tar (0 bytes): symbolic link" in "\n".join(lines)
        assert "  passed over: checksums, signatures and leftovers of operating systems (1)" in lines
    document = run("plan", "--store", tmp_path / "store", "--json", stick).document
    assert document["left_out"][-1]["size"] == 7


@pytest.mark.parametrize("exists", [True, False])
def test_a_plan_writes_nothing(run: Any, tmp_path: Path, source: Path, exists: bool) -> None:
    store = tmp_path / "deep" / "store"
    if exists:
        store.parent.mkdir()
        made.open_store(store)
    before = made.tree(tmp_path)
    ran = run("plan", "--store", store, "--json", source)
    assert ran.code == 0
    assert made.tree(tmp_path) == before
    assert store.exists() is exists


def test_a_plan_that_fails_writes_nothing_either(run: Any, tmp_path: Path, source: Path) -> None:
    source.write_bytes(source.read_bytes()[:700])
    before = made.tree(tmp_path)
    assert run("plan", "--store", tmp_path / "store", source).code == 1
    assert made.tree(tmp_path) == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["plan"],
        ["plan", "--store", "x"],
        ["plan", "x"],
        ["seed", "--store", "x"],
        ["seed", "--store", "x", "--frobnicate", "y"],
        ["seed", "--store", "x", "y", ""],
        ["images"],
        ["pin", "--store", "x"],
        ["unpin", "a:1"],
        ["fsck", "--store"],
        ["serve", "--store", "x"],
        ["unit", "nonsense"],
        ["pki", "sign"],
    ],
)
def test_wrong_usage_is_two(run: Any, arguments: list[str]) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    assert ran.out == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["plan", "--store", "{tmp}/s", "{tmp}/nowhere.tar"], "APL-0101"),
        (["seed", "--store", "{tmp}/s", "{tmp}/nowhere.tar"], "APL-0101"),
        (["seed", "--store", "{tmp}/s", "--expect", "0123", "{source}"], "APL-0126"),
        (["plan", "--store", "{tmp}/s", "--platform", "linux/arm64", "{source}"], "APL-0128"),
        (["plan", "--store", "{tmp}/s", "--platform", "a/b/c/d", "{source}"], "APL-0205"),
        (["plan", "--store", "{tmp}/s", "--name", "UPPER", "{source}"], "APL-0202"),
        (["plan", "--store", "{tmp}/s", "--config", "{tmp}/none.yaml", "{source}"], "APL-0601"),
        (["plan", "--store", "{tmp}/s", "--allow", "quay.io/*", "{source}"], "APL-0142"),
        (["seed", "--store", "{tmp}/s", "--allow", "{source}=a b", "{source}"], "APL-0143"),
        (["images", "--store", "{tmp}/s"], "APL-0301"),
        (["pin", "--store", "{tmp}/s", "a:1"], "APL-0301"),
        (["unpin", "--store", "{tmp}/s", "a:1"], "APL-0301"),
        (["fsck", "--store", "{tmp}"], "APL-0301"),
        (["status", "--config", "{tmp}/none.yaml"], "APL-0601"),
        (["seed", "--store", "{source}/s", "{source}"], "APL-0311"),
    ],
)
def test_a_failure_is_one_and_a_document(
    run: Any, tmp_path: Path, source: Path, arguments: list[str], code: str
) -> None:
    words = [word.format(tmp=tmp_path, source=source) for word in arguments]
    plain = run(*words)
    assert (plain.code, plain.out) == (1, "")
    assert plain.err.startswith(f"{code}: ")
    assert len(plain.err.splitlines()) == 1
    as_json = run(words[0], "--json", *words[1:])
    assert (as_json.code, as_json.out) == (1, "")
    document = json.loads(as_json.err.splitlines()[-1])
    assert set(document) == {"message_type", "code", "what", "where", "why", "fix"}
    assert (document["message_type"], document["code"]) == ("exit_error", code)


def test_fsck_of_a_damaged_store_is_one_and_still_a_report(run: Any, tmp_path: Path, source: Path) -> None:
    store = tmp_path / "store"
    run("seed", "--store", store, source)
    layer = store / "blobs" / "sha256" / made.image(1).layers[0][7:]
    layer.chmod(0o644)
    layer.write_bytes(layer.read_bytes().replace(b"data", b"DATA"))
    ran = run("fsck", "--store", store, "--json")
    assert ran.code == 1
    assert len(ran.document["problems"]) == 1
    assert layer.name in ran.document["problems"][0]


def test_the_store_is_that_of_the_configuration_unless_one_is_named(
    run: Any, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"node": "a", "store": str(tmp_path / "store")}))
    assert run("seed", "--config", config, source).code == 0
    assert run("history", "--config", config, "--json").document["generations"][0]["number"] == 1
    monkeypatch.setattr(common, "DEFAULT_PATH", config)
    assert run("images", "--json").document["images"]
    assert run("images", "--store", tmp_path / "other").code == 1, "the named one counts"
    monkeypatch.setattr(common, "DEFAULT_PATH", tmp_path / "none")
    told = run("images")
    assert (told.code, "name the store" in told.err) == (2, True)


def test_status_without_an_agent(run: Any, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        yaml.safe_dump({"node": "x", "store": str(tmp_path / "s"), "agent_socket": str(tmp_path / "none.sock")})
    )
    ran = run("status", "--config", config, "--json")
    assert ran.code == 1
    assert json.loads(ran.err.splitlines()[-1])["code"] == "APL-0402"


def test_status_names_who_answers_in_place_of_the_mirror(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"node": "x", "store": str(tmp_path), "mirror_listen": "127.0.0.1:5999"}))
    said: dict[str, Any] = {
        **dict.fromkeys(("generation", "publisher", "names", "pushed_names", "blobs_held", "wanted_missing")),
        "node": "x",
        "peers": [],
        "standing": {"settled": True, "refused": []},
    }
    monkeypatch.setattr(AgentClient, "status", lambda self: dict(said))
    found = listeners.Foreign("127.0.0.1:5999", 1000, ("process 7 nc",))
    monkeypatch.setattr(listeners, "foreign", lambda listen, owner, unit: [found] if listen == "127.0.0.1:5999" else [])
    shown = run("status", "--config", config).out
    assert "APL-0917" in shown and "127.0.0.1:5999 (user 1000, process 7 nc)" in shown
    (listed,) = json.loads(run("status", "--config", config, "--json").out)["foreign_listeners"]
    assert (listed["service"], listed["words"]) == ("mirror", "127.0.0.1:5999 (user 1000, process 7 nc)")


def test_status_names_who_answers_in_place_of_the_peer_service(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    peers = [{"id": name, "address": f"192.0.2.{number}"} for number, name in enumerate("xy", 1)]
    node = {"node": "x", "store": str(tmp_path), "peer_listen": "192.0.2.1:5443", "seeds": ["x"], "peers": peers}
    config.write_text(yaml.safe_dump(node))
    said: dict[str, Any] = {
        **dict.fromkeys(("generation", "publisher", "names", "pushed_names", "blobs_held", "wanted_missing")),
        "node": "x",
        "peers": [],
        "standing": {"settled": True, "refused": []},
    }
    monkeypatch.setattr(AgentClient, "status", lambda self: dict(said))
    squatter = {"appliance-peer.service": [listeners.Foreign("0.0.0.0:5443", 1000, ())]}
    monkeypatch.setattr(listeners, "foreign", lambda listen, owner, unit: squatter.get(unit, []))
    shown = run("status", "--config", config).out
    assert (
        "APL-0917: another process answers other nodes in place of the peer service: 0.0.0.0:5443 (user 1000)" in shown
    )
    assert "systemctl restart appliance-peer" in shown


def test_pki(run: Any, tmp_path: Path) -> None:
    ca, node = tmp_path / "ca", tmp_path / "node"
    request = ["pki", "request", "--node", "a", "--address", "10.0.0.1", "--dir", node]
    sign = ["pki", "sign", "--ca", ca, "--csr", node / "node.csr", "--out", node / "node.crt"]
    sign += ["--node", "a", "--address", "10.0.0.1"]
    assert [run("pki", "init-ca", ca).out for _ in range(2)] == ["created\n", "unchanged\n"]
    assert [run(*request).out for _ in range(2)] == ["changed\n", "unchanged\n"]
    assert [run(*sign).out for _ in range(2)] == ["changed\n", "unchanged\n"]
    (ca / "ca.crt").unlink()
    ran = run("pki", "init-ca", ca)
    assert (ran.code, ran.err.split(":")[0]) == (1, "APL-0603")


def test_help_and_version_need_nothing(run: Any) -> None:
    for words in (["--help"], ["--version"], ["plan", "--help"], ["serve", "--help"], ["pki", "--help"]):
        assert run(*words).code == 0


def test_as_a_process(tmp_path: Path) -> None:
    """What the playbooks see: exit code, one document on the right stream, and no traceback."""
    words = [
        sys.executable,
        "-m",
        "appliance",
        "plan",
        "--json",
        "--store",
        str(tmp_path / "s"),
        str(tmp_path / "x.tar"),
    ]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "TERM": "dumb"})
    assert (ran.returncode, ran.stdout) == (1, "")
    assert json.loads(ran.stderr.splitlines()[-1])["code"] == "APL-0101"
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("module", ["agent.client", "cli.health", "registry.selfcheck", "store.index"])
def test_what_commands_ask_with_loads_no_server(module: str) -> None:
    """Playbooks start a command on each node several times a run, and Flask is two thirds of the time that one takes."""
    code = f"import sys, appliance.{module}; print([m for m in ('flask', 'werkzeug') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_starting_does_not_load_ssl_before_gevent_can_patch_it() -> None:
    code = "import sys; import appliance.cli.main; print([m for m in ('ssl', 'urllib3', 'gevent') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
