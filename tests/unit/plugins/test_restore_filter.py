"""What a restore would do: every line of the plan, and everything that forbids it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.site.appliance.plugins.filter import backup, restore

OLD, NOW, ELSE = ("sha256:" + letter * 64 for letter in "abc")
SHA = "d" * 64
ARCHIVE: dict[str, Any] = {
    "archive": "/b/north.tar",
    "authority": "absent",
    "created": "2026-01-02T03:04:05+00:00",
    "release": "0.1.0",
    "bytes": 1234,
    "about": {
        "site": "north",
        "publisher": "a",
        "k3s": {"server": "a", "datastore": "sqlite"},
        "store": {
            "generation": {"number": 2, "digest": NOW},
            "pushes": {"number": 4, "digest": NOW},
            "pins": None,
            "names": 7,
            "media": ["/media/stick"],
            "history": [OLD, NOW],
            "pushed_blobs": True,
            "missing": [],
        },
    },
    "files": [
        {"name": name, "sha256": SHA}
        for name in ("k3s/token", "k3s/agent-token", "k3s/state.db", "k3s/nodes/a", "k3s/nodes/b")
    ],
}
SETTINGS: dict[str, Any] = {
    "publisher": "a",
    "server": "a",
    "servers": ["a"],
    "parts": ["authority", "names", "k3s"],
    "over": False,
    "ca": "/inventory/pki",
    "token_file": "/token",
    "agent_token_file": "/agent-token",
    "database": "/db",
    "snapshot": "/snapshot",
    "etcd": "/etcd",
    "password_file": "/password",
}


def seen(generation: Any = None, pushes: Any = None, **files: str) -> dict[str, Any]:
    return {"generation": generation, "pushes": pushes, "files": {f"/{name}": sha for name, sha in files.items()}}


def plan(archive: dict[str, Any] = ARCHIVE, settings: dict[str, Any] | None = None, **nodes: Any) -> dict[str, Any]:
    return restore.restore_plan(archive, {"a": seen(), "b": seen(), **nodes}, {**SETTINGS, **(settings or {})})


def test_onto_fresh_hosts() -> None:
    assert plan() == {
        "problems": [],
        "empty": False,
        "lines": [
            "Backup of site north, made 2026-01-02T03:04:05+00:00 by release 0.1.0: /b/north.tar",
            "  controller: the site's authority, to /inventory/pki",
            "  a: generation 2 with 7 names",
            "  a: pushes 4",
            "  a: K3s's token of servers, to /token",
            "  a: K3s's token of agents, to /agent-token",
            "  a: K3s's datastore (sqlite), read by K3s when site.yml starts it",
            "  a: K3s's password of the node, to /password",
            "  b: K3s's password of the node, to /password",
            "Layers are not in it. They come back from the media that brought them:",
            "  /media/stick",
        ],
    }


def test_where_all_of_it_is_there_nothing_is_left_to_do() -> None:
    files = {"token": SHA, "agent-token": SHA, "db": SHA, "password": SHA}
    done = seen({"number": 2, "digest": NOW}, {"number": 4, "digest": NOW}, **files)
    said = plan({**ARCHIVE, "authority": "same"}, a=done, b=seen(password=SHA))
    assert said["empty"] and said["problems"] == []
    assert "  nothing to put back: all of it is there" in said["lines"]


def test_only_the_parts_that_were_asked_for() -> None:
    lines = plan(settings={"parts": ["names"]})["lines"]
    assert [line.split(":")[0] for line in lines[1:-2]] == ["  a", "  a"]
    assert plan({**ARCHIVE, "authority": "same"}, {"parts": ["authority"]})["empty"]


def test_what_came_before_the_backup_goes_forward() -> None:
    said = plan(a=seen({"number": 1, "digest": OLD}, {"number": 3, "digest": OLD}))
    assert said["problems"] == []
    assert "  a: generation 2 with 7 names, in place of 1" in said["lines"]


NEWER: Any = [
    ({"number": 3, "digest": ELSE}, None),
    ({"number": 2, "digest": ELSE}, None),
    ({"number": 1, "digest": ELSE}, None),
    (None, {"number": 4, "digest": ELSE}),
    (None, {"number": 9, "digest": ELSE}),
]


@pytest.mark.parametrize(("generation", "pushes"), NEWER)
def test_what_the_backup_does_not_know_is_refused_on_every_node(generation: Any, pushes: Any) -> None:
    there = seen(generation, pushes)
    (own,) = plan(a=there)["problems"]
    assert own.startswith("APL-0873") and ELSE in own and NOW in own
    (other,) = plan(b=there)["problems"]
    assert other.startswith("APL-0875") and "[b]" in other
    assert plan(settings={"over": True}, a=there, b=there)["problems"] == []


def test_a_node_that_serves_what_was_kept_is_none_in_the_way() -> None:
    assert plan(b=seen({"number": 2, "digest": NOW}, {"number": 4, "digest": NOW}))["problems"] == []
    assert plan(b=None)["problems"] == []
    assert restore.restore_seen({"a": {"__restore_seen": seen()}, "b": {}}, ["a", "b"]) == {"a": seen(), "b": None}


@pytest.mark.parametrize(
    "files", [{"token": "e" * 64}, {"agent-token": "e" * 64}, {"db": "e" * 64}, {"etcd": "directory"}]
)
def test_a_cluster_that_is_there_is_never_replaced(files: dict[str, str]) -> None:
    for settings in ({}, {"over": True}):
        (problem,) = plan(settings=settings, a=seen(**files))["problems"]
        assert problem.startswith("APL-0876")
    assert plan(settings={"parts": ["names"]}, a=seen(**files))["problems"] == []


def test_another_server_that_has_a_cluster_stands_in_the_way_too() -> None:
    (problem,) = plan(settings={"servers": ["a", "b"]}, b=seen(etcd="directory"))["problems"]
    assert "b has /etcd" in problem


def test_a_snapshot_of_etcd_waits_for_the_first_start() -> None:
    about = {**ARCHIVE["about"], "k3s": {"datastore": "etcd"}}
    archive = {**ARCHIVE, "about": about, "files": [{"name": "k3s/snapshot", "sha256": SHA}]}
    assert "  a: K3s's datastore (etcd), read by K3s when site.yml starts it" in plan(archive)["lines"]
    assert not any("datastore" in line for line in plan(archive, a=seen(snapshot=SHA))["lines"])


def test_what_was_packed_is_said_and_what_is_not_in_it_too() -> None:
    text = backup.backup_text(ARCHIVE, ["a", "b", "c"])
    assert "generation 2 with 7 names, pushes 4, no pins, the journal" in text
    assert "K3s's token of servers: in it" in text and "K3s's token of agents: in it" in text
    assert "a copy of its sqlite database" in text
    assert "K3s's password NOT in it of c" in text
    assert "layers that media brought are not in it; keep these media:\n    /media/stick" in text
    store = {**ARCHIVE["about"]["store"], "pushed_blobs": False, "missing": [ELSE]}
    poor = {**ARCHIVE, "files": [], "about": {**ARCHIVE["about"], "store": store, "k3s": {"datastore": "none"}}}
    text = backup.backup_text(poor, ["a"])
    assert "WITHOUT" in text and f"NOT in it: {ELSE}" in text and "NOT in it, there is none" in text


def test_passwords_are_those_of_the_nodes_that_answered() -> None:
    hostvars: dict[str, Any] = {
        "a": {"__backup_password": {"content": "eA=="}},
        "b": {"__backup_password": {}},
        "c": {},
    }
    assert backup.backup_passwords(hostvars, ["a", "b", "c"]) == {"a": "eA=="}
