"""What leaves, what goes back, and whose medium it is: by name, by consent, and shown first."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from appliance.backup.contents import collect
from appliance.errors import ApplianceError
from appliance.publish.approval import Consent
from appliance.store.history import find
from appliance.store.impact import blame
from tests.unit.publish.site import A, B, Site
from tests.unit.store import made

ONE, TWO, THREE = made.image(1), made.image(2), made.image(3)


def label(created: str, **more: str) -> dict[str, str]:
    return {"site": "harbour", "id": f"of-{created}", "created": created, **more}


@pytest.fixture
def served(site: Site) -> Site:
    """A site that serves two names."""
    site.seed(site.stick("q1", a=ONE, b=TWO))
    return site


def refused(call: Any, *arguments: Any, **more: Any) -> ApplianceError:
    with pytest.raises(ApplianceError) as caught:
        call(*arguments, **more)
    return caught.value


# removal


def test_a_listed_name_leaves_and_the_rest_stays(served: Site) -> None:
    plan = served.plan(remove=["b:1"])
    assert plan.as_dict()["removed"] == [{"name": B, "digest": TWO.digest, "pinned": False}]
    assert (plan.is_empty, plan.as_dict()["unchanged"]) == (False, [A])
    result = served.seed(remove=["b:1"], expect=plan.id)
    assert (result.published, served.served()) == (True, {A: ONE.digest})
    assert served.current().sources == ()
    assert served.journal()[-1]["removed"] == {B: TWO.digest}
    assert served.problems() == []


def test_the_list_may_stay_however_long_ago_the_name_left(served: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.store.generations.HISTORY", 1)
    served.seed(remove=[B])
    assert not served.seed(remove=[B]).published
    for number in range(4, 8):
        served.seed(served.archive("n.tar", c=made.image(number)))
    assert all(B not in generation.names for generation in served.generations.kept())
    assert not served.seed(remove=[B]).published


def test_names_that_were_never_here_are_all_named(served: Site) -> None:
    error = refused(served.seed, remove=["x:1", A, "y:1"])
    assert error.code == "APL-0153"
    assert "docker.io/library/x:1, docker.io/library/y:1" in error.why and A not in error.why
    assert refused(served.plan, remove=["x:1"]).code == "APL-0153"
    assert refused(served.seed, remove=["UPPER"]).code == "APL-0202"
    assert served.current().number == 1


def test_the_list_wins_over_the_medium(served: Site) -> None:
    stick = served.stick("q2", b=THREE, c=THREE)
    plan = served.plan(stick, remove=[B])
    assert (list(plan.changes.removed), list(plan.changes.added)) == ([B], ["docker.io/library/c:1"])
    assert any(B in note and "left out" in note for note in plan.reading.notes)
    served.seed(stick, remove=[B])
    assert not served.seed(stick, remove=[B]).published
    assert B not in served.served()


def test_a_plan_with_a_removal_is_another_plan(served: Site) -> None:
    stick = served.stick("q2", c=THREE)
    assert refused(served.seed, stick, remove=[B], expect=served.plan(stick).id).code == "APL-0126"


def test_a_pinned_name_does_not_leave(served: Site) -> None:
    served.pin(B)
    error = refused(served.seed, remove=[B], consent=Consent([B], older=True))
    assert (error.code, error.why) == ("APL-0154", B)
    assert served.plan(remove=[B]).as_dict()["removed"][0]["pinned"] is True
    assert B in served.served()


def test_the_piece_map_of_what_left_goes_too(site: Site) -> None:
    one, two = made.image(1, size=2 << 20), made.image(2, size=2 << 20)
    site.seed(site.stick("q1", a=one, b=two))
    site.seed(remove=[B])
    assert set(site.current().piece_maps) == set(one.layers)


def test_what_an_operator_pushed_under_a_name_that_leaves_comes_up_again_and_the_plan_says_so(served: Site) -> None:
    made.push(served.blobs, {B: THREE})
    plan = served.plan(remove=[B])
    assert plan.as_dict()["uncovers_pushed"] == [{"name": B, "old": TWO.digest, "new": THREE.digest}]
    made.push(served.blobs, {B: ONE})
    assert refused(served.seed, remove=[B], expect=plan.id).code == "APL-0126"
    assert served.plan(served.stick("q2", c=ONE)).as_dict()["uncovers_pushed"] == []


# steps back


def test_a_name_that_goes_back_is_asked_for(served: Site) -> None:
    served.seed(served.stick("q2", a=TWO))
    old = served.stick("q1", a=ONE, b=TWO, c=THREE)
    plan = served.plan(old)
    assert plan.as_dict()["steps_back"] == [{"name": A, "old": TWO.digest, "new": ONE.digest, "number": 1}]
    error = refused(served.seed, old, expect=plan.id)
    assert error.code == "APL-0152"
    assert f"{A} back from {TWO.digest} to {ONE.digest}, as generation 1 had it" in error.why
    assert served.current().number == 2
    assert served.seed(old, expect=plan.id, consent=Consent(older=True)).published
    assert served.journal()[-1]["consent"] == {"older": [A]}


def test_forward_again_after_a_step_back_is_none(served: Site) -> None:
    newer = served.stick("q2", a=TWO)
    served.seed(newer)
    served.seed(served.stick("q1", a=ONE, b=TWO), consent=Consent(older=True))
    assert served.seed(newer).published


def test_what_was_never_served_under_that_name_is_a_step_forward(served: Site) -> None:
    assert served.seed(served.stick("q2", a=TWO, b=ONE)).published


# media


def test_a_medium_older_than_the_newest_is_asked_for_where_it_brings_something(site: Site) -> None:
    old, new = site.stick("old", label("2026-01-01"), b=ONE), site.stick("new", label("2026-04-01T00:00:00Z"), a=TWO)
    site.seed(new)
    error = refused(site.seed, old)
    assert error.code == "APL-0152"
    assert "of-2026-01-01" in error.why and "2026-04-01T00:00:00Z" in error.why
    # Beside the newer one too, as long as it is the old one that brings the name.
    assert refused(site.seed, new, old).code == "APL-0152"
    assert site.seed(old, consent=Consent(older=True)).published
    assert site.journal()[-1]["consent"] == {"older": [old]}
    # What changes nothing is no step.
    assert not site.seed(old, new).published
    third = site.stick("third", label("2026-05-01"), c=THREE)
    assert site.seed(old, new, third).published


def test_times_are_compared_and_not_their_words(site: Site) -> None:
    site.seed(site.stick("q1", label("2026-04-01T10:00:00+02:00"), a=ONE))
    assert site.seed(site.stick("q2", label("2026-04-01 08:00"), a=TWO)).published
    assert refused(site.seed, site.stick("q3", label("2026-04-01T09:59+02:00"), a=THREE)).code == "APL-0152"


def test_the_newest_medium_is_the_newest_by_time(site: Site) -> None:
    site.seed(site.stick("q1", label("2026-04-01T01:00:00+02:00"), a=ONE))  # 23:00 the day before, in UTC
    site.seed(site.stick("q2", label("2026-03-31T23:30:00Z"), a=TWO))
    assert refused(site.seed, site.stick("q3", label("2026-03-31T23:15:00Z"), a=THREE)).code == "APL-0152"


def test_what_the_medium_says_is_kept_with_the_generation(site: Site) -> None:
    said = label("2026-04-01", note="K3s 1.36.3")
    source = site.stick("q1", said, a=ONE)
    assert site.plan(source).as_dict()["medium"] == {source: said}
    site.seed(source)
    kept = dict(site.current().media[source])
    assert kept.pop("contents").startswith("1 archive: a.tar, newest of ")
    assert kept == said
    assert site.journal()[-1]["media"] == {source: site.current().media[source]}


def test_sticks_at_one_mount_point_are_told_apart_wherever_a_medium_is_named(site: Site) -> None:
    """In history, in the backup's list, and where a lost blob's medium is asked for."""
    stick = site.medium / "stick"
    for file, image, said in (("web", ONE, None), ("shop", TWO, label("2026-04-01")), ("till", THREE, None)):
        site.stick("stick", said, **{file: image})
        (stick / "a.tar").rename(stick / f"{file}.tar")
        site.seed(str(stick))
        shutil.rmtree(stick)
    origins = [origin for generation in site.generations.kept() for origin in generation.origin]
    for origin, words in zip(
        origins, ("1 archive: web.tar,", "of-2026-04-01 (made", "1 archive: till.tar,"), strict=True
    ):
        assert origin.startswith(words)
        assert origin.endswith(f" at {stick}")
    assert "made 2026-04-01; 1 archive: shop.tar" in origins[1]
    store = made.store(site.blobs)
    assert collect(store, pushed_blobs=True)[1]["media"] == origins
    layer = ONE.layers[0]
    assert origins[0] in blame([layer], store)[layer].medium
    assert find(site.generations, medium="of-2026-04-01").number == 2


def test_the_medium_of_another_site_is_refused_before_it_is_read(site: Site) -> None:
    source = site.stick("q1", label("2026-04-01"), a=ONE)
    (site.medium / "q1" / "a.tar").write_bytes(b"not an archive")
    assert refused(site.seed, source, site="clinic").code == "APL-0151"
    assert site.served() == {}
    site.stick("q1", a=ONE)
    taken = site.seed(source, site="clinic", consent=Consent(other_site=True))
    assert taken.published
    assert site.journal()[-1]["consent"] == {"other_site": {source: "harbour"}}
    assert site.seed(site.stick("q2", label("2026-05-01"), b=TWO), site="harbour").published


def test_a_label_that_is_wrong_stops_all(site: Site) -> None:
    source = site.stick("q1", {"site": "harbour"}, a=ONE)
    assert refused(site.seed, source).code == refused(site.plan, source).code == "APL-0150"
    assert site.served() == {}


def test_images_for_no_node_are_in_the_log_where_they_were_taken(site: Site) -> None:
    from appliance.oci.platforms import parse_platform

    arm = site.stick("q1", a=made.image(1, arch="arm64"))
    site.seed(arm, platforms=[parse_platform("linux/amd64")], consent=Consent(any_platform=True))
    assert site.journal()[-1]["consent"] == {"any_platform": [f"{A} (linux/arm64)"]}
