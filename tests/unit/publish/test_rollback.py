"""Going back: exactly what an older generation served, as a new one, or nothing at all."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.config import Config, Peer
from appliance.errors import ApplianceError
from appliance.publish import publisher as module
from appliance.publish.approval import Consent
from appliance.store.generations import Generations
from appliance.store.history import history
from appliance.store.pins import Pins
from tests.unit.publish.site import A, B, Site
from tests.unit.store import made

ONE, TWO, THREE = made.image(1), made.image(2), made.image(3)
LABEL = {"site": "harbour", "id": "q2", "created": "2026-04-01"}


@pytest.fixture
def updated(site: Site) -> Site:
    """A site with two generations: the second moves a name and adds one."""
    site.seed(site.stick("q1", a=ONE))
    site.seed(site.stick("q2", LABEL, a=TWO, b=THREE))
    return site


def test_the_content_of_the_older_one_is_a_new_one(updated: Site) -> None:
    first, second = updated.generations.kept()
    result = updated.back(to=1)
    assert result.published
    assert updated.served() == {A: ONE.digest}
    third = updated.current()
    assert (third.number, third.parent, third.cause) == (3, second.digest, "rollback")
    assert (third.names, third.sources) == (first.names, first.sources)
    assert updated.problems() == []
    line = updated.journal()[-1]
    assert (line["action"], line["cause"], line["target"]) == (
        "publish",
        "rollback",
        {"number": 1, "digest": first.digest},
    )
    assert (line["moved"], line["removed"]) == ({A: [TWO.digest, ONE.digest]}, {B: THREE.digest})
    updated.check_log()


def test_back_and_forth_and_the_stick_again_is_no_step_back(updated: Site) -> None:
    updated.back(to=1)
    again = updated.seed(updated.stick("q2", LABEL, a=TWO, b=THREE))
    assert (again.published, updated.served()) == (True, {A: TWO.digest, B: THREE.digest})
    updated.back(to=3)
    updated.back(to=2)
    assert updated.served() == {A: TWO.digest, B: THREE.digest}
    assert LABEL.items() <= updated.current().media[str(updated.medium / "q2")].items()
    assert updated.current().number == 6
    updated.check_log()


def test_what_is_served_already_is_nothing_to_do(updated: Site) -> None:
    before = updated.current()
    for which in (2, 2):
        result = updated.back(to=which)
        assert (result.published, updated.current()) == (False, before)
    updated.back(to=1)
    assert not updated.back(to=1).published
    assert not updated.back(to=3).published


def test_only_what_was_shown_is_published(updated: Site) -> None:
    shown = updated.look_back(to=1).plan.id
    updated.seed(updated.archive("3.tar", c=THREE))
    with pytest.raises(ApplianceError, match="APL-0126"):
        updated.back(to=1, expect=shown)
    assert updated.current().number == 3
    assert updated.back(to=1, expect=updated.look_back(to=1).plan.id).published


def test_what_was_pushed_stays_and_a_pushed_name_that_comes_back_is_covered(updated: Site) -> None:
    updated.back(to=1)
    made.push(updated.blobs, {B: TWO})
    shown = updated.look_back(to=2).as_dict()
    assert shown["covers_pushed"] == [{"name": B, "old": TWO.digest, "new": THREE.digest}]
    before = made.pushes(updated.blobs).current()
    updated.back(to=2)
    assert made.pushes(updated.blobs).current() == before


@pytest.mark.parametrize("damage", ["gone", "short", "manifest", "rotten"])
def test_what_is_not_here_any_more_is_named_and_nothing_changes(updated: Site, damage: str) -> None:
    lost = ONE.digest if damage in ("manifest", "rotten") else ONE.layers[0]
    path = updated.blobs.path(lost)
    path.chmod(0o644)
    raw = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(raw.replace(b"layers", b"Layers") if damage == "rotten" else raw[:-1])
    before = updated.current()
    for attempt in (lambda: updated.look_back(to=1).check(updated.blobs), lambda: updated.back(to=1)):
        with pytest.raises(ApplianceError) as caught:
            attempt()
        assert caught.value.code == "APL-0354"
        assert f"{A} lacks {lost}" in caught.value.why
        assert str(updated.medium / "q1") in caught.value.fix
    assert updated.current() == before
    assert [item["missing"] for item in history(updated.generations, updated.blobs, 3)] == [[lost], []]


def test_what_stays_as_it_is_may_lie_elsewhere(updated: Site) -> None:
    """A seed that follows a lost publisher does not hold everything."""
    updated.seed(updated.archive("3.tar", c=made.image(4)))
    updated.blobs.path(THREE.layers[0]).unlink()
    assert updated.back(to=2).published
    assert set(updated.served()) == {A, B}


def test_a_blob_that_vanishes_in_between_stops_it(updated: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Consent.check

    def check_and_lose(self: Consent, shown: Any) -> None:
        real(self, shown)
        updated.blobs.path(ONE.layers[0]).unlink()

    monkeypatch.setattr(Consent, "check", check_and_lose)
    with pytest.raises(ApplianceError, match="APL-0313"):
        updated.back(to=1)
    assert updated.current().number == 2


def test_pinned_names_move_only_by_consent_and_do_not_leave(updated: Site) -> None:
    updated.pin(A)
    for consent in (None, Consent([B]), Consent(older=True)):
        with pytest.raises(ApplianceError, match="APL-0141"):
            updated.back(to=1, consent=consent)
    assert updated.back(to=1, consent=Consent([A])).published
    assert updated.pinned() == {A: ONE.digest}
    assert updated.journal()[-1]["consent"] == {"move_pinned": [A]}
    updated.back(to=2, consent=Consent([A]))
    updated.pin(B)
    with pytest.raises(ApplianceError) as caught:
        updated.back(to=1, consent=Consent([A, B]))
    assert (caught.value.code, caught.value.why) == ("APL-0154", B)
    assert updated.current().number == 4


def test_piece_maps_follow_their_blobs(site: Site) -> None:
    old, new = made.image(1, size=2 << 20), made.image(2, size=2 << 20)
    site.seed(site.stick("q1", a=old))
    site.seed(site.stick("q2", a=new))
    assert set(site.current().piece_maps) == set(new.layers)
    site.back(to=1)
    assert set(site.current().piece_maps) == set(old.layers)
    site.blobs.path(site.generations.kept()[1].piece_maps[new.layers[0]].digest).unlink()
    site.back(to=2)
    assert site.current().piece_maps == {}
    assert site.problems() == []


def test_platforms_that_came_later_are_not_given_up(site: Site) -> None:
    children = {"amd64": made.image(1), "arm64": made.image(2, arch="arm64")}
    site.seed(site.archive("1.tar", a=made.index(children, leave_out=["arm64"])))
    site.seed(site.archive("2.tar", a=made.index(children, leave_out=["amd64"])))
    assert not site.back(to=1).published
    assert site.current().names[A].absent == frozenset()


def test_one_that_is_not_there_names_those_that_are(updated: Site) -> None:
    for which in ({"to": 7}, {"at": "2001-01-01"}, {"medium": "q3"}):
        with pytest.raises(ApplianceError) as caught:
            updated.back(**which)
        assert caught.value.code == "APL-0352"
        assert "2 of " in caught.value.why and "1 of " in caught.value.why
    (updated.root / "other").mkdir()
    fresh = Site(updated.root / "other")
    with pytest.raises(ApplianceError, match="there are: none"):
        fresh.back(to=1)


def test_one_change_at_a_time_and_only_by_the_publisher(updated: Site) -> None:
    with made.seeding_elsewhere(updated.blobs.root), pytest.raises(ApplianceError, match="APL-0307"):
        updated.back(to=1)
    peers = (Peer("a", "http://a", "a", seed=True), Peer("b", "http://b", "b"))
    with pytest.raises(ApplianceError, match="APL-0312"):
        updated.back(to=1, config=Config(node="b", store=updated.blobs.root, peers=peers, seeds=("a",)))
    assert updated.current().number == 2


class Pulled(BaseException):
    """The power went off here."""


@pytest.mark.parametrize("where", ["publish", "follow", "record", "prune"])
def test_interrupted_anywhere_the_rerun_finishes_it(updated: Site, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    updated.pin(A)
    target: Any = {"record": module, "follow": Pins}.get(where, Generations)
    real, calls = getattr(target, where), [0]

    def pulled(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if where != "follow" or calls[0] == 2:
            raise Pulled
        return real(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(target, where, pulled)
        with pytest.raises(Pulled):
            updated.back(to=1, consent=Consent([A]))
    published = where != "publish"
    assert updated.served() == ({A: ONE.digest} if published else {A: TWO.digest, B: THREE.digest})
    assert updated.problems() == []
    assert updated.back(to=1, consent=Consent([A])).published is not published
    assert updated.served() == updated.pinned() == {A: ONE.digest}
    assert [line["number"] for line in updated.journal() if "number" in line] == [1, 2, 3]
    updated.check_log()


def test_history_knows_what_the_log_alone_knows(updated: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.store.generations.HISTORY", 1)
    updated.generations.prune(1)
    updated.seed(updated.archive("n.tar", c=THREE))
    updated.generations.prune(1)
    first, second, third = history(updated.generations, updated.blobs, 1)
    assert [row["state"] for row in (first, second, third)] == ["forgotten", "forgotten", "current"]
    assert (first["added"], first["missing"]) == ({A: ONE.digest}, None)
    assert second["moved"] == {A: [ONE.digest, TWO.digest]}
    assert LABEL.items() <= second["medium"][str(updated.medium / "q2")].items()
    assert third["added"] == {"docker.io/library/c:1": THREE.digest}
    # Without a log, as on the other nodes: the bytes tell what they can.
    (updated.blobs.root / "journal.jsonl").unlink()
    (alone,) = history(updated.generations, updated.blobs, 1)
    assert (alone["number"], alone["added"], alone["cause"]) == (3, None, "seeding")
    assert alone["by"]
