"""``appliance gc``, ``running``, and what ``fsck --repair`` and ``status`` say."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance.agent.client import AgentClient, AgentDown
from appliance.cli import gc
from appliance.config import load
from appliance.k3s import containerd as module
from appliance.store.gc import Image
from tests.unit.store import made

A, B = "docker.io/library/a:1", "docker.io/library/b:1"
Run = Callable[..., Any]


def fill(root: Path) -> Path:
    """A store whose older generation is given up."""
    store = made.open_store(root)
    made.publish(store, {A: made.image(1)})
    made.publish(store, {B: made.image(2)})
    return root


def configure(root: Path, node: str = "a", **more: Any) -> tuple[Path, Path]:
    """A store, and the configuration of one of two nodes."""
    store = fill(root / "store")
    peers = [{"id": name, "address": f"10.0.0.{number}"} for number, name in enumerate("ab", 1)]
    document = {"node": node, "store": str(store), "seeds": ["a"], "peers": peers, "keep_generations": 1, **more}
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return store, path


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the agent says; without ``peers`` it is down."""
    said: dict[str, Any] = {"peers": [{"id": "b", "state": "up", "generation": 2}]}

    def status(_: AgentClient) -> dict[str, Any]:
        if "peers" not in said:
            raise AgentDown("the agent does not answer")
        return said

    monkeypatch.setattr(AgentClient, "status", status)
    monkeypatch.setattr(module, "running", lambda: [Image("docker.io/library/x:1", None)])
    return said


def listed(tmp_path: Path, node: str, *digests: str) -> Path:
    path = tmp_path / f"{node}.json"
    path.write_text(json.dumps({"node": node, "running": [{"name": "x", "digest": digest} for digest in digests]}))
    return path


def test_plan_then_collect_then_nothing(run: Run, tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    made.forget(made.open_store(store), 1)
    words = ("gc", "--store", store, "--grace", "0", "--json")
    before = made.tree(store)
    plan = run(*words, "--plan").document
    assert made.tree(store) == before
    assert (plan["blobs"], plan["freed_blobs"], plan["freed_bytes"]) == (3, 0, 0)
    done = run(*words, "--expect", plan["plan_id"]).document
    assert (done["freed_blobs"], done["freed_bytes"]) == (3, plan["bytes"])
    again = run(*words).document
    assert (again["blobs"], again["bytes"], again["freed_bytes"]) == (0, 0, 0)
    assert run("fsck", "--store", store).code == 0


def test_a_grace_period_that_is_no_number_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    ran = run("gc", "--store", store, "--plan", "--grace", "nan")
    assert (ran.code, "not a number of seconds" in ran.err) == (2, True)


def test_the_text_says_what_stays_and_what_goes(run: Run, tmp_path: Path, agent: dict[str, Any]) -> None:
    store, config = configure(tmp_path)
    words = ("gc", "--store", store, "--config", config, "--grace", "0", "--without", "b")
    planned, done = run(*words, "--plan").out, run(*words).out
    assert "for generations" in planned
    assert f"of {A}  {made.image(1).digest}  (generation 1)" in planned
    assert "note  docker.io/library/x:1 runs" in planned
    assert "3 blobs" in planned
    assert re.search(r"\d [KM]?i?B to free\n", planned), planned
    assert re.search(r"\d [KM]?i?B freed\n", done), done


def test_on_a_node_of_a_site_it_wants_to_know_what_all_run(
    run: Run,
    tmp_path: Path,
    agent: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, config = configure(tmp_path)
    words = ("gc", "--store", store, "--config", config, "--plan", "--grace", "0", "--json")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    refused = run(*words)
    assert (refused.code, "APL-0322" in refused.err, "a, b" in refused.err) == (1, True, True)
    # root asks its own host.
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "no list of b" in run(*words).err
    assert run(*words, "--without", "b").document["blobs"] == 3
    listing = listed(tmp_path, "b", made.image(1).digest)
    assert run(*words, "--running", listing).document["blobs"] == 0
    listing.write_text("")
    assert "APL-0324" in run(*words, "--running", listing).err


def test_lists_may_come_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, config = configure(tmp_path)
    lists = [{"node": "a", "running": []}, {"node": "b", "running": [{"name": "x", "digest": None}]}]
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(lists)))
    assert gc._what_runs(load(config), ["-"], []) == [Image("x", None)]


def test_a_node_that_is_behind_or_cannot_tell_collects_nothing(
    run: Run,
    tmp_path: Path,
    agent: dict[str, Any],
) -> None:
    store, config = configure(tmp_path, node="b")
    words = ("gc", "--store", store, "--config", config, "--plan", "--without", "a", "--without", "b", "--json")
    agent["peers"] = [{"id": "a", "state": "up", "generation": 3}]
    assert "APL-0323" in run(*words).err
    del agent["peers"]
    assert "APL-0323" in run(*words).err
    # The publisher itself knows what it published.
    store, config = configure(tmp_path / "publisher", node="a")
    words = ("gc", "--store", store, "--config", config, "--plan", "--without", "a", "--without", "b", "--json")
    assert "not asked for their generation" in run(*words).document["notes"][0]
    agent["peers"] = [{"id": "b", "state": "down", "generation": None, "reason": "x"}]
    assert "b did not say" in run(*words).document["notes"][0]


def test_running_prints_a_list_that_gc_takes(
    run: Run,
    tmp_path: Path,
    agent: dict[str, Any],
) -> None:
    _, config = configure(tmp_path)
    document = run("running", "--config", config, "--json").document
    assert document == {"node": "a", "running": [{"name": "docker.io/library/x:1", "digest": None}]}
    assert "unknown  docker.io/library/x:1" in run("running", "--config", config).out
    assert module.read_lists({"f": json.dumps(document)}) == {"a": [Image("docker.io/library/x:1", None)]}


def test_repair_asks_the_agent_and_says_what_came_back_and_what_is_lost(
    run: Run,
    tmp_path: Path,
    agent: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, config = configure(tmp_path)
    digest = made.image(2).layers[0]
    path = made.open_store(store).path(digest)
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    lost = {"digest": made.sha(b"x"), "images": [A], "medium": "/media/stick (generation 1)"}
    answer = {"back": [digest], "missing": {lost["digest"]: "nobody has it"}, "lost": [lost]}
    monkeypatch.setattr(AgentClient, "repair", lambda _: answer)
    words = ("fsck", "--store", store, "--config", config, "--repair")
    shown = run(*words)
    assert shown.code == 1
    assert f"{digest} is back" in shown.out
    assert f"{lost['digest']} could not be fetched: nobody has it" in shown.out
    assert f"{lost['digest']} is lost: it breaks {A}; it came from /media/stick (generation 1)" in shown.out

    def down(_: AgentClient) -> None:
        raise AgentDown("no agent")

    monkeypatch.setattr(AgentClient, "repair", down)
    del agent["peers"]
    assert "fetched once the agent runs" in run(*words).err


def test_a_store_without_a_site_says_itself_what_is_lost(run: Run, tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    digest = made.image(2).layers[0]
    made.open_store(store).path(digest).unlink()
    shown = run("fsck", "--store", store, "--json")
    assert shown.code == 1
    (lost,) = shown.document["lost"]
    assert (lost["digest"], lost["images"]) == (digest, [B])
