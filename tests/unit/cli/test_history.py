"""history, diff, audit, rollback, and what plan and seed say of removals and steps back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.store import made

A, B = "docker.io/library/a:1", "docker.io/library/b:1"
ONE, TWO, THREE = made.image(1), made.image(2), made.image(3)


class Site:
    """A store at the command line, and media."""

    def __init__(self, run: Any, root: Path) -> None:
        self.store = root / "store"
        self.root = root
        self._run = run

    def __call__(self, command: str, *words: object) -> Any:
        return self._run(command, "--store", self.store, *words)

    def medium(self, name: str, images: dict[str, made.Image], label: dict[str, str] | None = None) -> Path:
        made.write_oci_archive(self.root / name / "a.tar", images)
        if label:
            (self.root / name / "medium.yaml").write_text(yaml.safe_dump(label))
        return self.root / name

    def seed(
        self, name: str, images: dict[str, made.Image], *words: object, label: dict[str, str] | None = None
    ) -> Any:
        ran = self("seed", "--json", *words, self.medium(name, images, label))
        assert ran.code == 0, ran.err
        return ran.document

    def served(self) -> dict[str, str]:
        return {row["name"]: row["digest"] for row in self("images", "--json").document["images"]}


@pytest.fixture
def site(run: Any, tmp_path: Path) -> Site:
    """A store with two generations: the second moves a name and adds one."""
    site = Site(run, tmp_path)
    site.seed("q1", {A: ONE})
    site.seed("q2", {A: TWO, B: THREE}, label={"site": "harbour", "id": "q2-stick", "created": "2026-04-01"})
    return site


def code(ran: Any) -> str:
    assert ran.code == 1
    return str(ran.err.partition(":")[0])


def test_history_says_what_came_when_from_where_by_whom(site: Site) -> None:
    first, second = site("history", "--json").document["generations"]
    assert (first["number"], first["state"], first["cause"], first["missing"]) == (1, "complete", "seeding", [])
    assert (first["added"], first["moved"], first["removed"]) == ({A: ONE.digest}, {}, {})
    assert first["sources"] == [str(site.root / "q1")]
    assert first["medium"][str(site.root / "q1")]["id"].startswith("1 archive: ")
    assert first["by"] and first["created"]
    assert second["state"] == "current"
    assert second["moved"] == {A: [ONE.digest, TWO.digest]}
    assert second["added"] == {B: THREE.digest}
    assert second["medium"][str(site.root / "q2")]["id"] == "q2-stick"
    text = site("history").out
    assert f"move  {A}  {ONE.digest} -> {TWO.digest}" in text
    assert re.search(r"from q2-stick \(made \S+; 1 archive: \S+, newest of \S+\) at .*/q2: 1 added; 1 moved", text)
    assert "[current]" in text


def test_a_source_whose_name_is_no_text_does_no_harm(site: Site) -> None:
    odd = site.medium("q3", {A: THREE}).rename(site.root / "q\udcff\x1b[2J")
    assert site("seed", odd).code == 0
    for command in (["history"], ["rollback", "--to", "3", "--plan"]):
        said = site(*command).out
        assert "q\\udcff\\x1b[2J" in said
        assert "\x1b" not in said
    assert site("history", "--json").document["generations"][-1]["sources"] == [str(odd)]


def test_diff_goes_both_ways_and_names_what_is_there(site: Site) -> None:
    forth, back = site("diff", "--json", 1, 2).document, site("diff", "--json", 2, 1).document
    assert forth["moved"] == {A: [ONE.digest, TWO.digest]} and forth["added"] == {B: THREE.digest}
    assert back["moved"] == {A: [TWO.digest, ONE.digest]} and back["removed"] == {B: THREE.digest}
    assert (forth["older"]["number"], forth["newer"]["number"]) == (1, 2)
    assert "the same names" in site("diff", 1, 1).out
    missing = site("diff", 1, 7)
    assert code(missing) == "APL-0352"
    assert "none has the number 7" in missing.err and "1 of " in missing.err and "2 of " in missing.err


def test_audit_of_a_log_that_is_whole_and_of_one_that_is_not(site: Site) -> None:
    whole = site("audit", "--json")
    assert (whole.code, whole.document["lines"], whole.document["broken"]) == (0, 2, None)
    assert site("audit").out.startswith("2 lines, all in order; the last is number 2, ")
    head = whole.document["head"]["sha256"]
    site.seed("q3", {B: ONE})
    assert site("audit", "--noted", head, "--json").document["noted"] is True
    anew = site("audit", "--noted", "0" * 64)
    assert code(anew) == "APL-0350" and "no line has the SHA-256 that was noted" in anew.err
    path = site.store / "journal.jsonl"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(ONE.digest[:20].encode(), TWO.digest[:20].encode(), 1))
    broken = site("audit", "--json")
    assert code(broken) == "APL-0350"
    assert broken.document["broken"]["line"] == 2
    path.write_bytes(raw.splitlines(keepends=True)[0])
    short = site("audit", "--json")
    assert code(short) == "APL-0351"
    assert [line.split()[1] for line in short.document["unlogged"]] == ["3", "2"]


def test_rollback_is_shown_first_and_publishes_exactly_that(site: Site) -> None:
    before = made.tree(site.root)
    shown = site("rollback", "--to", 1, "--plan", "--json")
    assert shown.code == 0
    assert made.tree(site.root) == before
    plan = shown.document
    assert plan["moved"] == [{"name": A, "old": TWO.digest, "new": ONE.digest, "pinned": False}]
    assert plan["removed"] == [{"name": B, "digest": THREE.digest, "pinned": False}]
    assert (plan["added"], plan["missing"], plan["steps_back"], plan["bytes_to_write"]) == ([], [], [], 0)
    assert (plan["target"]["number"], plan["target"]["sources"]) == (1, [str(site.root / "q1")])
    assert code(site("rollback", "--to", 1, "--expect", "0123")) == "APL-0126"
    done = site("rollback", "--to", 1, "--expect", plan["plan_id"], "--json")
    assert (done.code, done.document["published"], done.document["generation"]["number"]) == (0, True, 3)
    assert {key: done.document[key] for key in plan} == plan | {"generation": done.document["generation"]}
    assert site.served() == {A: ONE.digest}
    again = site("rollback", "--to", 1, "--json").document
    assert (again["published"], again["generation"]) == (False, done.document["generation"])
    assert site("history", "--json").document["generations"][-1]["cause"] == "rollback"
    assert site("audit").code == site("fsck").code == 0


def test_rollback_for_people(site: Site) -> None:
    text = site("rollback", "--to", 1, "--plan").out
    assert text.startswith("back to generation 1 of ")
    assert f"remove  {B}  {THREE.digest}" in text
    assert "published generation 3" in site("rollback", "--to", 1).out
    assert "nothing new; generation 3 is served" in site("rollback", "--to", 1).out


def test_a_generation_is_chosen_by_time_and_by_medium(site: Site) -> None:
    def target(*words: object) -> int:
        return int(site("rollback", "--plan", "--json", *words).document["target"]["number"])

    assert target("--medium", "q2-stick") == 2
    assert target("--medium", site.root / "q1") == 1
    assert target("--at", "2999-01-01") == 2
    for words in (["--at", "1999-01-01T00:00:00Z"], ["--medium", "q7"], ["--to", 9], ["--to", 0]):
        refused = site("rollback", *words)
        assert code(refused) == "APL-0352"
        assert "2 of " in refused.err
    assert code(site("rollback", "--at", "yesterday")) == "APL-0353"
    for words in ([], ["--to", 1, "--at", "2026-01-01"]):
        assert site("rollback", *words).code == 2


def test_what_cannot_be_brought_back_is_said_before_anything_starts(site: Site) -> None:
    gone = ONE.layers[0]
    (site.store / "blobs" / gone.replace(":", "/")).unlink()
    shown = site("rollback", "--to", 1, "--plan", "--json")
    assert code(shown) == "APL-0354"
    assert shown.document["missing"] == [{"name": A, "blobs": [gone]}]
    refused = site("rollback", "--to", 1)
    assert code(refused) == "APL-0354"
    assert A in refused.err and gone in refused.err and str(site.root / "q1") in refused.err
    assert site.served() == {A: TWO.digest, B: THREE.digest}
    assert site("history", "--json").document["generations"][0]["missing"] == [gone]
    # The medium brings it again; asked, since the name goes back.
    site.seed("q1", {A: ONE}, "--older")
    assert site.served()[A] == ONE.digest


def test_only_the_publisher_goes_back(site: Site) -> None:
    config = site.root / "config.yaml"
    peers = [{"id": name, "address": f"192.0.2.{number}"} for number, name in enumerate("ab", 1)]
    config.write_text(yaml.safe_dump({"node": "b", "store": str(site.store), "seeds": ["a"], "peers": peers}))
    refused = site("rollback", "--config", config, "--to", 1)
    assert code(refused) == "APL-0312"


def test_names_leave_by_name_without_a_medium(site: Site) -> None:
    shown = site("plan", "--remove", "b:1", "--json").document
    assert shown["removed"] == [{"name": B, "digest": THREE.digest, "pinned": False}]
    assert f"remove  {B}" in site("plan", "--remove", "b:1").out
    assert site("seed", "--remove", "b:1", "--expect", shown["plan_id"]).code == 0
    assert site.served() == {A: TWO.digest}
    # The list stays in the inventory.
    assert site("seed", "--remove", B, "--json").document["published"] is False
    unknown = site("plan", "--remove", "c:1", "--remove", "b:1")
    assert code(unknown) == "APL-0153"
    assert "docker.io/library/c:1" in unknown.err and B not in unknown.err
    assert site("seed").code == site("plan").code == 2


def test_an_older_stick_is_asked_for_and_shown_first(site: Site) -> None:
    old = site.medium("old", {A: ONE}, {"site": "harbour", "id": "q1-stick", "created": "2026-01-01"})
    shown = site("plan", "--json", old)
    assert code(shown) == "APL-0152"
    assert shown.document["steps_back"] == [{"name": A, "old": TWO.digest, "new": ONE.digest, "number": 1}]
    assert shown.document["older_media"] == {
        str(old): {"id": "q1-stick", "created": "2026-01-01", "newest": "2026-04-01"}
    }
    assert code(site("seed", old)) == "APL-0152"
    assert site.served()[A] == TWO.digest
    text = site("plan", "--older", old).out
    assert "(back to generation 1)" in text and "older than one of 2026-04-01" in text
    assert site("seed", "--older", old).code == 0
    line = json.loads((site.store / "journal.jsonl").read_text().splitlines()[-1])
    assert line["consent"] == {"older": [A, str(old)]}


def test_the_medium_of_another_site(site: Site) -> None:
    config = site.root / "config.yaml"
    config.write_text(yaml.safe_dump({"node": "a", "store": str(site.store), "site": "harbour"}))
    other = site.medium("other", {B: ONE}, {"site": "clinic", "id": "x", "created": "2026-05-01"})
    for command in ("plan", "seed"):
        refused = site(command, "--config", config, other)
        assert code(refused) == "APL-0151"
        assert "clinic" in refused.err and "harbour" in refused.err
    assert site.served()[B] == THREE.digest
    taken = site("seed", "--config", config, "--other-site", "--json", other)
    assert taken.document["other_site"] == {str(other): "clinic"}
    assert taken.document["medium"][str(other)]["site"] == "clinic"
    nameless = site("plan", "--json", other).document
    assert any("this site has no name" in note for note in nameless["notes"])


def test_a_medium_is_named_when_it_is_read_and_when_it_is_gone(site: Site) -> None:
    stick = site.root / "q2"
    assert f"read  {stick}: " in (said := site("plan", stick).out)
    assert "from q2-stick (made " in said
    stick.rename(site.root / "elsewhere")
    said = site("plan", stick).out
    assert f"not there, but published before: {stick}, from q2-stick (made " in said
    assert said.count(str(stick)) == 1
