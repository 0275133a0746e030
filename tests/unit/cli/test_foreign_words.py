"""Words of media, peers, clients and users at the command line: no field acts, and none makes a line of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import listeners
from appliance.actor import actor
from appliance.agent.client import AgentClient
from appliance.cli.gc import _gc_text, _running_text
from appliance.cli.health import _clients_text, _status_text
from appliance.cli.history import _audit_text, _row_text
from appliance.cli.images import _images_text
from appliance.cli.nodes import _leaving_text
from appliance.cli.seeding import done_text, plan_text
from appliance.listeners import Foreign
from appliance.words import each
from tests.hostile import HOSTILE, UNWRITABLE, acting, assert_harmless
from tests.unit.store import made

A = "docker.io/library/a:1"
WORD = HOSTILE.replace("\x85", "")  # which YAML folds
PROBLEM = dict.fromkeys(("code", "what", "where", "why", "fix"), HOSTILE)


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """A medium whose every word is a stranger's: its folder, its files, its label, and the annotations of its images."""
    stick = tmp_path / f"stick{UNWRITABLE}"
    made.write_oci_archive(stick / f"{HOSTILE}.tar", {A: made.image(1)})
    (stick / f"notes{UNWRITABLE}.txt").write_text("no archive")
    (stick / "medium.yaml").write_text(
        yaml.safe_dump({"site": WORD, "id": WORD, "created": "2026-04-01", "note": WORD})
    )
    return stick


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The person behind the command is called what nobody should be."""
    monkeypatch.setenv("APPLIANCE_BY", UNWRITABLE)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    actor.cache_clear()
    yield
    actor.cache_clear()


@pytest.mark.usefixtures("stranger")
def test_what_a_medium_and_a_user_are_called_harms_no_terminal(run: Any, tmp_path: Path, medium: Path) -> None:
    store = ("--store", tmp_path / "store")
    lines = {}
    for words in (("plan", *store, medium), ("seed", *store, medium), ("history", *store), ("audit", *store)):
        ran = run(*words)
        assert ran.code == 0, ran.err
        assert acting(ran.out + ran.err) == []
        lines[words[0]] = ran.out.splitlines()
    assert_harmless("\n".join(lines["plan"]))
    # plan, add, medium, read, two notes at the most, left out, the sum.
    assert len(lines["plan"]) <= 9, lines["plan"]
    assert len(lines["history"]) == 3
    assert " by x\\nNov 30" in lines["history"][0] and "from x\\nNov 30" in lines["history"][1]


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize("command", ["plan", "seed", "history"])
def test_json_is_exact_and_harms_no_terminal_either(run: Any, tmp_path: Path, medium: Path, command: str) -> None:
    store = ("--store", tmp_path / "store")
    assert run("seed", *store, medium).code == 0
    ran = run(command, *store, "--json", *([] if command == "history" else [medium]))
    assert acting(ran.out) == [] and ran.out.isascii()
    found = ran.document["generations"][0] if command == "history" else ran.document
    assert found["medium"][str(medium)]["id"] == WORD.strip()


def test_errors_harm_no_terminal(run: Any, tmp_path: Path, medium: Path) -> None:
    (medium / "medium.yaml").write_text(yaml.safe_dump({WORD: WORD, "site": WORD}))
    for words in (("plan", medium), ("plan", medium, "--json"), ("plan", tmp_path / UNWRITABLE)):
        ran = run(words[0], "--store", tmp_path / "store", *words[1:])
        assert ran.code == 1
        assert_harmless(ran.err)
        assert len(ran.err.splitlines()) == (2 if "--json" in words else 1)


def test_wrong_usage_harms_no_terminal(run: Any, tmp_path: Path) -> None:
    for words in ((f"--{UNWRITABLE}",), ("plan", "--store", tmp_path, f"--{UNWRITABLE}"), (UNWRITABLE,)):
        ran = run(*words)
        assert ran.code == 2
        assert_harmless(ran.err)


FOREIGN = Foreign("127.0.0.1:5000", 1000, (HOSTILE,))


def status() -> dict[str, Any]:
    """What the agent says, with a stranger's word wherever there is a text."""
    return {
        "node": HOSTILE,
        "publisher": HOSTILE,
        "generation": {"number": HOSTILE, "digest": HOSTILE},
        "names": HOSTILE,
        "pushed_names": 0,
        "blobs_held": 1,
        "wanted_missing": HOSTILE,
        "peers": [dict.fromkeys(("id", "address", "state", "generation"), HOSTILE)],
        "room": {
            "used_bytes": 1,
            "limit_bytes": 1,
            "free_bytes": 1,
            "near": True,
            "largest": [{"bytes": 1, "name": HOSTILE}],
        },
        "health": {
            "scrubbed": {"blobs": 1, "bytes": 1, "damaged": 0, "finished": HOSTILE, "running": False},
            "quarantined": [HOSTILE],
            "lost": [{"digest": HOSTILE, "images": [HOSTILE], "medium": HOSTILE}],
            "damage": [
                {**dict.fromkeys(("path", "since", "how", "why", "lost", "fix"), HOSTILE), "healed": healed}
                for healed in (True, False)
            ],
        },
        "foreign_listeners": [
            {**asdict(FOREIGN), "service": "mirror", "processes": [HOSTILE], "words": FOREIGN.words()}
        ],
        "troubles": [
            dict.fromkeys(("peer", "about", "times", "since", "ended", "keeps_back", "reason"), HOSTILE),
            {**dict.fromkeys(("peer", "about", "times", "since", "keeps_back", "reason"), HOSTILE), "ended": None},
        ],
        "clients": [
            {
                **dict.fromkeys(("service", "what", "count", "since", "last", "detail"), HOSTILE),
                "addresses": {HOSTILE: 1},
            }
        ],
        "standing": {
            "settled": False,
            "silent": [HOSTILE],
            "refused": [{"index": HOSTILE, "number": HOSTILE, "peer": HOSTILE, "problem": PROBLEM}],
        },
    }


def test_what_peers_answered_harms_no_terminal(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"node": "a", "store": str(tmp_path / "s")}))
    monkeypatch.setattr(AgentClient, "status", lambda _: status())
    monkeypatch.setattr(listeners, "foreign", lambda *_: [FOREIGN])
    (tmp_path / "s").mkdir()
    ran = run("status", "--config", tmp_path / "config.yaml")
    assert_harmless(ran.out)
    tame = _status_text(json.loads(json.dumps(status()).replace(json.dumps(HOSTILE)[1:-1], "tame")))
    assert len(ran.out.splitlines()) == len(tame.splitlines())
    assert json.loads(run("status", "--config", tmp_path / "config.yaml", "--json").out) == status()


def test_a_clients_word_cannot_pass_for_the_words_of_status() -> None:
    item = {"service": "peer", "what": "wrong passwords", "count": 1, "since": "then", "last": "now"}
    shown = _clients_text(
        item | {"addresses": {"10.0.0.9": 1}, "others": 8, "detail": "ops), 900 from 10.0.0.7 (admin"}
    )
    assert shown.endswith(': 1 from 10.0.0.9, 8 from other addresses ("ops), 900 from 10.0.0.7 (admin")')


CHANGES = {
    "added": {HOSTILE: HOSTILE},
    "moved": {HOSTILE: [HOSTILE, HOSTILE]},
    "completed": [HOSTILE],
    "removed": {HOSTILE: HOSTILE},
    "referrers_added": {HOSTILE: HOSTILE},
    "referrers_removed": {HOSTILE: HOSTILE},
}
ITEM = {
    **dict.fromkeys(("name", "digest", "old", "new", "path", "kind", "reason", "state", "number"), HOSTILE),
    "pinned": True,
    "other_names": 1,
    "digests": [HOSTILE],
    "size": 1,
    "bytes": 1,
    "medium": HOSTILE,
}
PLAN = {
    **{
        key: [ITEM]
        for key in (
            "added",
            "moved",
            "removed",
            "referrers",
            "covers_pushed",
            "uncovers_pushed",
            "left_out",
            "sources",
            "steps_back",
        )
    },
    **{key: [HOSTILE] for key in ("completed", "notes", "unchanged")},
    "plan_id": HOSTILE,
    "medium": {HOSTILE: dict.fromkeys(("site", "id", "created", "note"), HOSTILE)},
    "older_media": {HOSTILE: {"newest": HOSTILE}},
    "left_out_more": 1,
    "passed_over": 1,
    "bytes_to_write": 1,
}
ROW = {
    **CHANGES,
    **dict.fromkeys(("number", "created", "cause", "by", "state"), HOSTILE),
    "missing": [HOSTILE],
    "sources": [HOSTILE],
    "medium": {HOSTILE: dict.fromkeys(("site", "id", "created", "note", "label", "uuid", "contents"), HOSTILE)},
}
BLOB = {"digest": HOSTILE, "size": 1, "names": [HOSTILE], "served": False}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (plan_text, PLAN),
        (
            done_text,
            {
                **PLAN,
                "generation": {"number": HOSTILE},
                "published": True,
                "bytes_written": 1,
                "referrers_left_out": [HOSTILE],
            },
        ),
        (_row_text, ROW),
        (
            _audit_text,
            {"remarks": [HOSTILE], "unlogged": [HOSTILE], "broken": {"line": HOSTILE, "why": HOSTILE}, "head": None},
        ),
        (
            _images_text,
            {"images": [{**ITEM, "pushed": True}]},
        ),
        (
            _leaving_text,
            {"leaving": [HOSTILE], "silent": [HOSTILE], "only_there": [BLOB], "at_risk": [BLOB]},
        ),
        (
            lambda shown: _gc_text(shown, True),
            {
                "plan_id": HOSTILE,
                "kept_for": {HOSTILE: {"blobs": 1, "bytes": 1}},
                "names": [{**ITEM, "generation": HOSTILE}],
                "notes": [HOSTILE],
                "blobs": 1,
                "bytes": 1,
            },
        ),
        (_running_text, {"running": [ITEM]}),
        (_status_text, status()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_no_field_of_any_report_makes_a_line(text: Any, shown: dict[str, Any]) -> None:
    """The texts are made of what passed :func:`each`: with a tame word in every field they have as many lines."""
    said = text(each(shown))
    tame = text(json.loads(json.dumps(shown).replace(json.dumps(HOSTILE)[1:-1], "tame")))
    assert_harmless(said)
    assert len(said.splitlines()) == len(tame.splitlines())
