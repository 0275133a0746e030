"""Planning and seeding: what was shown is what is published, whole or not at all."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from appliance.archives.docker import DIGESTS_LOST
from appliance.config import Config, Peer
from appliance.errors import ApplianceError
from appliance.oci import mediatypes
from appliance.oci.platforms import parse_platform
from appliance.publish import publisher as module
from appliance.publish import seed as seed_module
from appliance.publish.approval import Consent
from appliance.publish.read_media import read_sources
from appliance.publish.seed import Request, seed
from appliance.store.blobs import BlobStore
from appliance.store.generations import Generations
from appliance.store.pins import Pins, unpin
from appliance.store.store import Store
from tests.unit.publish.site import A, B, Site
from tests.unit.store import made


def test_what_a_medium_brings_is_published(site: Site) -> None:
    one, two = made.image(1), made.image(2)
    source = site.archive("a.tar", a=one, b=two)
    result = site.seed(source)
    assert result.published
    assert site.served() == {A: one.digest, B: two.digest}
    assert result.generation == site.generations.current()
    assert result.generation is not None
    assert (result.generation.number, result.generation.sources) == (1, (source,))
    assert result.generation.cause == "seeding"
    assert site.problems() == []


@pytest.mark.parametrize("form", ["layout", "docker", "directory"])
def test_every_form_of_medium(site: Site, form: str) -> None:
    one = made.image(1)
    if form == "layout":
        source = made.write_layout(site.medium / "layout", {A: one})
    elif form == "docker":
        source = made.write_docker_archive(site.medium / "a.tar", "a:1", one)
    else:
        made.write_oci_archive(site.medium / "deep" / "a.tar", {A: one})
        source = site.medium
    assert site.seed(str(source)).published
    assert set(site.served()) == {A}
    assert site.problems() == []


def test_a_rerun_changes_nothing(site: Site) -> None:
    source = site.archive("a.tar", a=made.image(1))
    site.seed(source)
    before = made.tree(site.blobs.root)
    result = site.seed(source)
    assert not result.published
    assert result.plan.is_empty
    assert result.plan.bytes_to_write == 0
    after = made.tree(site.blobs.root)
    for state in (before, after):
        # Directories in which files come and go.
        state.pop(str(site.blobs.root / "incoming"))
        state.pop(str(site.blobs.root / "staged"))
    assert after == before


def test_names_are_added_and_moved_and_never_taken_away(site: Site) -> None:
    old, new, other = made.image(1), made.image(2), made.image(3)
    site.seed(site.archive("1.tar", a=old))
    plan = site.plan(site.archive("2.tar", a=new, b=other))
    assert (list(plan.changes.added), list(plan.changes.moved)) == ([B], [A])
    shown = plan.as_dict()
    assert shown["added"] == [{"name": B, "digest": other.digest, "size": other.weight}]
    assert shown["moved"] == [{"name": A, "old": old.digest, "new": new.digest, "pinned": False}]
    assert shown["unchanged"] == shown["completed"] == []
    assert shown["registries"] == ["docker.io"]
    site.seed(site.archive("2.tar", b=other))
    assert site.served() == {A: old.digest, B: other.digest}
    site.seed(site.archive("3.tar", a=new))
    assert site.served() == {A: new.digest, B: other.digest}
    current = site.generations.current()
    assert current is not None
    assert current.number == 3
    assert site.problems() == []


def test_the_plan_says_how_much_is_written(site: Site) -> None:
    one, two = made.image(1), made.image(2)
    sizes = {digest: len(raw) for item in (one, two) for digest, raw in item.blobs.items()}
    source = site.archive("a.tar", a=one, b=two)
    assert site.plan(source).bytes_to_write == sum(sizes.values())
    made.open_store(site.blobs.root)
    made.fill(site.blobs, [one])
    assert site.plan(source).bytes_to_write == sum(size for digest, size in sizes.items() if digest in two.blobs)


def test_a_plan_writes_nothing(site: Site) -> None:
    source = site.archive("a.tar", a=made.image(1))
    site.plan(source)
    assert not site.blobs.root.exists()
    site.seed(source)
    before = made.tree(site.root)
    site.plan(source, names=[])
    assert made.tree(site.root) == before


def test_only_what_was_shown_is_published(site: Site) -> None:
    source = site.archive("a.tar", a=made.image(1))
    shown = site.plan(source).id
    site.archive("a.tar", a=made.image(2))
    with pytest.raises(ApplianceError) as caught:
        site.seed(source, expect=shown)
    assert caught.value.code == "APL-0126"
    assert site.served() == {}
    site.archive("a.tar", a=made.image(1))
    assert site.seed(source, expect=shown).published


def test_a_plan_of_another_state_is_not_this_one(site: Site) -> None:
    source = site.archive("a.tar", a=made.image(1))
    shown = site.plan(source).id
    assert site.plan(source).id == shown
    site.seed(site.archive("b.tar", b=made.image(2)))
    with pytest.raises(ApplianceError, match="APL-0126"):
        site.seed(source, expect=shown)
    assert set(site.served()) == {B}


def test_a_name_that_was_pushed_is_covered_and_the_plan_says_so(site: Site) -> None:
    site.blobs.create()
    pushed, brought = made.image(1), made.image(2)
    made.push(site.blobs, {A: pushed, B: brought})
    source = site.archive("a.tar", a=brought, b=brought)
    shown = site.plan(source).as_dict()
    assert shown["covers_pushed"] == [{"name": A, "old": pushed.digest, "new": brought.digest}]
    assert [item["name"] for item in shown["added"]] == [A, B]
    made.push(site.blobs, {A: made.image(3), B: brought})
    with pytest.raises(ApplianceError, match="APL-0126"):
        site.seed(source, expect=shown["plan_id"])
    before = made.pushes(site.blobs).current()
    assert site.seed(source, expect=site.plan(source).id).published
    assert made.pushes(site.blobs).current() == before
    assert site.plan(site.archive("c.tar", a=made.image(4))).as_dict()["covers_pushed"] == []


def test_a_stick_that_was_pulled_out_after_it_was_published_is_no_error(site: Site) -> None:
    source = site.archive("a.tar", a=made.image(1))
    site.seed(source)
    Path(source).unlink()
    result = site.seed(source)
    assert not result.published
    (absent,) = result.plan.as_dict()["sources"]
    assert absent.pop("medium").startswith("1 archive: a.tar")
    assert absent == {"path": source, "state": "absent-published", "bytes": 0}
    other = site.archive("b.tar", b=made.image(2))
    assert site.seed(source, other).published
    assert set(site.served()) == {A, B}
    Path(other).unlink()
    assert not site.seed(source, other).published


def test_an_emptied_mount_point_was_published_too(site: Site) -> None:
    source = site.archive("a.tar", a=made.image(1))
    site.seed(str(site.medium))
    Path(source).unlink()
    assert not site.seed(str(site.medium)).published


def test_what_was_never_published_has_to_be_there(site: Site) -> None:
    site.seed(site.archive("a.tar", a=made.image(1)))
    with pytest.raises(ApplianceError) as caught:
        site.seed(str(site.medium / "b.tar"))
    assert caught.value.code == "APL-0101"


def test_two_sources_with_one_name_for_two_images(site: Site) -> None:
    one, two = site.archive("1.tar", a=made.image(1)), site.archive("2.tar", a=made.image(2))
    with pytest.raises(ApplianceError) as caught:
        site.seed(one, two)
    assert caught.value.code == "APL-0125"
    assert one in caught.value.where
    assert two in caught.value.where
    assert site.served() == {}


def test_two_sources_with_the_same_image_are_one(site: Site) -> None:
    one = made.image(1)
    assert site.seed(site.archive("1.tar", a=one), site.archive("2.tar", a=one)).published
    assert site.served() == {A: one.digest}


def test_images_that_no_node_can_run_are_refused(site: Site) -> None:
    source = site.archive("a.tar", a=made.image(1, arch="arm64"))
    amd64, arm64 = parse_platform("linux/amd64"), parse_platform("linux/arm64")
    with pytest.raises(ApplianceError) as caught:
        site.seed(source, platforms=[amd64])
    assert caught.value.code == "APL-0128"
    assert "arm64" in caught.value.why
    assert A in caught.value.why
    assert site.served() == {}
    assert site.seed(source, platforms=[amd64, arm64]).published


def test_a_name_for_an_image_that_has_none(site: Site) -> None:
    one = made.image(1)
    source = str(made.write_layout(site.medium / "layout", {"": one}))
    with pytest.raises(ApplianceError) as caught:
        site.seed(source)
    assert caught.value.code == "APL-0124"
    assert site.served() == {}
    assert site.seed(source, names=["quay.io/team/x:2"]).published
    assert site.served() == {"quay.io/team/x:2": one.digest}


def test_a_bad_source_publishes_nothing_of_the_good_ones(site: Site) -> None:
    good, bad = site.archive("1.tar", a=made.image(1)), site.archive("2.tar", b=made.image(2))
    Path(bad).write_bytes(Path(bad).read_bytes()[:2000])
    site.seed(site.archive("0.tar", b=made.image(9)))
    before = site.served()
    with pytest.raises(ApplianceError):
        site.seed(good, bad)
    assert site.served() == before
    assert site.problems() == []


class Pulled(BaseException):
    """The power went off here."""


@pytest.mark.parametrize("where", ["put", "publish", "follow", "record", "prune"])
def test_interrupted_anywhere_the_rerun_finishes_it(site: Site, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    old, new = made.image(1), made.image(2, layers=3)
    site.seed(site.archive("1.tar", a=old))
    site.pin(A)
    source = site.archive("2.tar", a=new)
    target: Any = {"put": BlobStore, "record": module, "follow": Pins}.get(where, Generations)
    real, calls = getattr(target, where), [0]

    def pulled(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if where not in ("put", "follow") or calls[0] == {"put": 3, "follow": 2}[where]:
            raise Pulled
        return real(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(target, where, pulled)
        with pytest.raises(Pulled):
            site.seed(source, consent=Consent([A]))
    published = where in ("follow", "record", "prune")
    assert site.served() == {A: new.digest if published else old.digest}
    assert site.problems() == []
    result = site.seed(source, consent=Consent([A]))
    assert result.published is not published
    assert site.served() == site.pinned() == {A: new.digest}
    assert site.problems() == []
    assert [line["number"] for line in site.journal() if "number" in line] == [1, 2]
    Path(source).unlink()
    assert not site.seed(source).published


def test_a_journal_that_cannot_be_written_is_said_and_caught_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    source = site.archive("1.tar", a=made.image(1))
    with monkeypatch.context() as patch:
        patch.setattr(module, "record", full)
        result = site.seed(source)
    assert result.published
    assert any("audit log" in note for note in result.plan.reading.notes)
    site.seed(source)
    (line,) = site.journal()
    assert (line["number"], line["added"], line["caught_up"]) == (1, {A: made.image(1).digest}, True)


def test_what_a_killed_seeding_left_is_gone_after_the_next(site: Site) -> None:
    made.open_store(site.blobs.root)
    (site.blobs.root / "incoming" / "0123").write_bytes(b"half")
    site.seed(site.archive("1.tar", a=made.image(1)))
    assert list((site.blobs.root / "incoming").iterdir()) == []


def test_a_full_disk_publishes_nothing_and_the_rerun_completes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = made.image(1), made.image(2)
    site.seed(site.archive("1.tar", a=old))
    source = site.archive("2.tar", a=new)
    room = [len(new.blobs[new.layers[0]]) + 10]
    real = BlobStore.put

    def put(self: BlobStore, *arguments: Any, **more: Any) -> Any:
        stored = real(self, *arguments, **more)
        room[0] -= stored.size
        return stored

    with monkeypatch.context() as patch:
        patch.setattr(BlobStore, "room", lambda _: max(0, room[0]))
        patch.setattr(BlobStore, "put", put)
        with pytest.raises(ApplianceError) as caught:
            site.seed(source)
    assert caught.value.code == "APL-0310"
    assert site.served() == {A: old.digest}
    assert site.seed(source).published
    assert site.problems() == []


def test_published_means_complete(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made.image(1)
    source = site.archive("1.tar", a=one)
    real = read_sources

    def read_and_lose(*arguments: Any, **more: Any) -> Any:
        reading = real(*arguments, **more)
        site.blobs.path(one.layers[0]).unlink()
        return reading

    with monkeypatch.context() as patch:
        patch.setattr(seed_module, "read_sources", read_and_lose)
        with pytest.raises(ApplianceError) as caught:
            site.seed(source)
    assert caught.value.code == "APL-0313"
    assert one.layers[0] in caught.value.why
    assert site.served() == {}


def test_a_layer_of_another_name_that_lies_elsewhere_does_not_stop_a_seeding(site: Site) -> None:
    """A seed that follows a lost publisher does not hold everything."""
    one, two = made.image(1), made.image(2)
    site.seed(site.archive("1.tar", a=one))
    site.blobs.path(one.layers[0]).unlink()
    assert site.seed(site.archive("2.tar", b=two)).published
    assert set(site.served()) == {A, B}


def test_a_lost_blob_comes_back_with_its_medium(site: Site) -> None:
    one = made.image(1)
    source = site.archive("1.tar", a=one)
    site.seed(source)
    site.blobs.path(one.layers[0]).unlink()
    plan = site.plan(source)
    assert (plan.is_empty, plan.bytes_to_write) == (True, len(one.blobs[one.layers[0]]))
    assert not site.seed(source).published
    assert site.problems() == []


def test_a_second_medium_completes_a_sparse_index(site: Site) -> None:
    arm = made.image(2, arch="arm64")
    children = {"amd64": made.image(1), "arm64": arm}
    first = made.index(children, leave_out=["arm64"])
    site.seed(site.archive("1.tar", a=first))
    current = site.generations.current()
    assert current is not None
    assert arm.digest in current.names[A].absent
    second = made.index(children, leave_out=["amd64"])
    source = site.archive("2.tar", a=second)
    plan = site.plan(source)
    assert (plan.is_empty, plan.changes.completed, dict(plan.changes.moved)) == (False, (A,), {})
    assert site.seed(source, expect=plan.id).published
    current = site.generations.current()
    assert current is not None
    assert current.names[A].absent == frozenset()
    assert site.problems() == []
    assert not site.seed(site.archive("1.tar", a=first)).published


def test_a_sparse_index_again_takes_nothing_away(site: Site) -> None:
    children = {"amd64": made.image(1), "arm64": made.image(2, arch="arm64")}
    site.seed(site.archive("1.tar", a=made.index(children)))
    assert not site.seed(site.archive("2.tar", a=made.index(children, leave_out=["arm64"]))).published


@pytest.mark.parametrize("order", [("amd64", "arm64"), ("arm64", "amd64")])
def test_two_sources_may_bring_an_index_together(site: Site, order: tuple[str, str]) -> None:
    children = {"amd64": made.image(1), "arm64": made.image(2, arch="arm64")}
    sources = [site.archive(f"{arch}.tar", a=made.index(children, leave_out=[arch])) for arch in order]
    assert site.seed(*sources).published
    current = site.generations.current()
    assert current is not None
    assert current.names[A].absent == frozenset()
    assert site.problems() == []


def test_big_layers_get_their_piece_map_into_the_generation(site: Site) -> None:
    one = made.image(1, size=2 << 20)
    result = site.seed(site.archive("1.tar", a=one))
    assert result.generation is not None
    assert set(result.generation.piece_maps) == set(one.layers)
    second = site.seed(site.archive("2.tar", b=made.image(2)))
    assert second.generation is not None
    assert second.generation.piece_maps == result.generation.piece_maps
    assert site.problems() == []


def test_what_stays_complete_and_what_is_history(site: Site) -> None:
    for number in range(5):
        site.seed(site.archive("1.tar", a=made.image(number + 1)))
    assert [generation.number for generation in site.generations.complete(3)] == [3, 4, 5]
    assert [generation.number for generation in site.generations.kept()] == [1, 2, 3, 4, 5]


def test_one_seeding_at_a_time(site: Site) -> None:
    made.open_store(site.blobs.root)
    with made.seeding_elsewhere(site.blobs.root), pytest.raises(ApplianceError) as caught:
        site.seed(site.archive("1.tar", a=made.image(1)))
    assert caught.value.code == "APL-0307"


def test_only_the_publisher_seeds(site: Site) -> None:
    peers = (Peer("a", "http://a", "a", seed=True), Peer("b", "http://b", "b"))
    config = Config(node="b", store=site.blobs.root, peers=peers, seeds=("a",))
    with pytest.raises(ApplianceError) as caught:
        seed(Store.open(config), Request([site.archive("1.tar", a=made.image(1))]))
    assert caught.value.code == "APL-0312"
    assert "a" in caught.value.fix
    assert not site.blobs.root.exists()


def test_the_medium_is_never_written_to(site: Site) -> None:
    site.archive("1.tar", a=made.image(1))
    made.write_layout(site.medium / "layout", {B: made.image(2)})
    before = made.tree(site.medium)
    site.plan(str(site.medium))
    site.seed(str(site.medium))
    assert made.tree(site.medium) == before


def test_the_order_of_sources_does_not_change_the_plan(site: Site) -> None:
    one, two = site.archive("1.tar", a=made.image(1)), site.archive("2.tar", b=made.image(2))
    assert site.plan(one, two).id == site.plan(two, one).id


def test_a_size_that_is_not_that_of_a_blob_held_already_is_refused_in_the_plan(tmp_path: Path) -> None:
    """Not only when it is seeded: what the plan shows can be published."""
    site, item = Site(tmp_path), made.image(1, layers=1)
    site.seed(site.archive("whole.tar", a=item))
    document = item.document
    document["layers"][0]["size"] += 1
    raw = made.compact(document)
    lying = made.Image({**item.descriptor, "digest": made.sha(raw), "size": len(raw)}, {made.sha(raw): raw})
    delta = site.archive("delta.tar", b=lying)
    for read in (site.plan, site.seed):
        with pytest.raises(ApplianceError, match="APL-0106"):
            read(delta)
    assert set(site.served()) == {A}


# pins


def test_a_pinned_name_moves_only_by_consent(site: Site) -> None:
    old, new = made.image(1), made.image(2)
    site.seed(site.archive("1.tar", a=old, b=old))
    assert site.pin("a:1") == [A]
    source = site.archive("2.tar", a=new, b=new)
    plan = site.plan(source)
    assert list(plan.changes.moved) == [A, B]
    assert [item["pinned"] for item in plan.as_dict()["moved"]] == [True, False]
    for consent in ([], [B], [f"{A}@{old.digest}"]):
        with pytest.raises(ApplianceError) as caught:
            Consent(consent).check(plan.as_dict())
        assert caught.value.code == "APL-0141"
        assert caught.value.why == f"{A} from {old.digest} to {new.digest}"
        with pytest.raises(ApplianceError, match="APL-0141"):
            site.seed(source, expect=plan.id, consent=Consent(consent))
    assert site.served() == {A: old.digest, B: old.digest}
    assert site.pinned() == {A: old.digest}
    assert site.seed(source, expect=plan.id, consent=Consent([f"a:1@{new.digest}"])).published
    assert site.served() == {A: new.digest, B: new.digest}
    assert site.pinned() == {A: new.digest}


def test_all_pinned_names_that_would_move_are_named_at_once(site: Site) -> None:
    site.seed(site.archive("1.tar", a=made.image(1), b=made.image(2)))
    site.pin(A, B)
    with pytest.raises(ApplianceError) as caught:
        site.seed(site.archive("2.tar", a=made.image(3), b=made.image(4)), consent=Consent([B]))
    assert A in caught.value.why and B not in caught.value.why
    with pytest.raises(ApplianceError) as caught:
        site.seed(site.archive("2.tar", a=made.image(3), b=made.image(4)))
    assert A in caught.value.why and B in caught.value.why


def test_a_pin_is_in_nobodys_way_otherwise(site: Site) -> None:
    one = made.image(1)
    source = site.archive("1.tar", a=one)
    site.seed(source)
    site.pin(A)
    assert not site.seed(source).published
    assert site.seed(site.archive("2.tar", a=one, b=made.image(2))).published
    unpin(site.blobs, made.pins(site.blobs), [A])
    assert site.seed(site.archive("3.tar", a=made.image(3))).published
    assert site.pinned() == {}


def test_pins_that_cannot_be_read_stop_a_seeding(site: Site) -> None:
    site.seed(site.archive("1.tar", a=made.image(1)))
    site.pin(A)
    (site.blobs.root / "pins.json").write_bytes(b"{}")
    with pytest.raises(ApplianceError, match="APL-0331"):
        site.seed(site.archive("2.tar", a=made.image(2)))
    assert site.served() == {A: made.image(1).digest}


# names


def test_every_image_without_a_name_is_listed_at_once_and_may_be_named_over_all_sources(site: Site) -> None:
    one, two, three = made.image(1), made.image(2), made.image(3)
    first = str(made.write_layout(site.medium / "first", {"": one}))
    second = str(made.write_layout(site.medium / "second", {"": two}))
    third = site.archive("3.tar", a=three)
    with pytest.raises(ApplianceError) as caught:
        site.seed(first, second, third)
    assert caught.value.code == "APL-0124"
    assert all(word in caught.value.why for word in (one.digest, first, two.digest, second))
    with pytest.raises(ApplianceError, match="APL-0123"):
        site.seed(first, second, third, names=["x:1"])
    with pytest.raises(ApplianceError, match="APL-0123"):
        site.seed(first, second, third, names=[f"x:1@{made.image(9).digest}"])
    with pytest.raises(ApplianceError) as caught:
        site.seed(first, second, third, names=[f"x:1@{one.digest}"])
    assert one.digest not in caught.value.why and two.digest in caught.value.why
    given = [f"x:1@{one.digest}", f"quay.io/team/y@{two.digest}", f"z:3@{three.digest}"]
    assert site.seed(first, second, third, names=given).published
    assert site.served() == {
        A: three.digest,
        "docker.io/library/x:1": one.digest,
        "docker.io/library/z:3": three.digest,
        "quay.io/team/y:latest": two.digest,
    }


def test_the_only_image_without_a_name_among_several_sources_takes_a_bare_name(site: Site) -> None:
    one = made.image(1)
    source = str(made.write_layout(site.medium / "layout", {"": one}))
    assert site.seed(source, site.archive("1.tar", a=made.image(2)), names=["b:1"]).published
    assert site.served()[B] == one.digest


def test_the_address_of_a_node_is_no_registry_of_its_own(site: Site) -> None:
    """Clients that ask a node by its address are answered as if they had asked for no registry."""
    source = made.write_oci_archive(site.medium / "1.tar", {"192.0.2.10:5443/team/app:1": made.image(1)})
    reading = site.plan(str(source), site_addresses=["192.0.2.10:5443"]).reading
    assert list(reading.names) == ["docker.io/team/app:1"]


# allow-lists


def test_a_source_brings_only_what_its_list_allows_and_all_else_is_named_at_once(site: Site) -> None:
    first = site.archive("1.tar", a=made.image(1), b=made.image(2))
    second = str(made.write_oci_archive(site.medium / "2.tar", {"quay.io/team/app:1": made.image(3)}))
    with pytest.raises(ApplianceError) as caught:
        site.seed(first, second, allow=[f"{first}=docker.io/library/a", f"{second}=quay.io/other/*"])
    assert caught.value.code == "APL-0142"
    assert B in caught.value.why and "quay.io/team/app:1" in caught.value.why and A not in caught.value.why
    assert site.served() == {}
    with pytest.raises(ApplianceError) as caught:
        site.seed(first, second, allow=[f"{first}=docker.io/*"])
    assert "no list is given" in caught.value.why and B not in caught.value.why
    assert site.seed(first, second, allow=[f"{first}=docker.io/*", "quay.io/*"]).published
    assert set(site.served()) == {A, B, "quay.io/team/app:1"}


def test_what_lies_in_a_directory_falls_under_the_directorys_list(site: Site) -> None:
    site.archive("deep/1.tar", a=made.image(1))
    medium = str(site.medium)
    with pytest.raises(ApplianceError, match="APL-0142"):
        site.seed(medium, allow=[f"{medium}=quay.io/*"])
    assert site.seed(f"{medium}/", allow=[f"{medium}=docker.io/library/a"]).published


def test_names_that_are_given_by_hand_fall_under_the_list_too(site: Site) -> None:
    source = str(made.write_layout(site.medium / "layout", {"": made.image(1)}))
    with pytest.raises(ApplianceError, match="APL-0142"):
        site.seed(source, names=["quay.io/evil/x:1"], allow=["docker.io/*"])
    assert site.seed(source, names=["x:1"], allow=["docker.io/*"]).published


# platforms


def test_images_for_no_node_are_all_listed_and_taken_only_when_asked(site: Site) -> None:
    arm = {"a": made.image(1, arch="arm64"), "b": made.image(2, arch="s390x")}
    sources = [site.archive(f"{name}.tar", **{name: item}) for name, item in arm.items()]
    amd64 = [parse_platform("linux/amd64")]
    with pytest.raises(ApplianceError) as caught:
        site.seed(*sources, platforms=amd64)
    assert f"{A} (linux/arm64)" in caught.value.why and f"{B} (linux/s390x)" in caught.value.why
    result = site.seed(*sources, platforms=amd64, consent=Consent(any_platform=True))
    assert result.published
    assert any("No node can run" in note and A in note and B in note for note in result.plan.reading.notes)


def test_images_for_some_of_the_nodes_are_remarked_on(site: Site) -> None:
    children = {"amd64": made.image(1), "arm64": made.image(2, arch="arm64")}
    source = site.archive("1.tar", a=made.image(3), b=made.index(children))
    plan = site.plan(source, platforms=[parse_platform("amd64"), parse_platform("arm64")])
    assert [note for note in plan.reading.notes if "Some nodes" in note] == [
        f"Some nodes cannot run these: {A} (not linux/arm64)."
    ]


# docker-archives


def test_the_loss_of_digests_is_said_once(site: Site) -> None:
    sources = [
        str(made.write_docker_archive(site.medium / f"{name}.tar", f"{name}:1", made.image(number)))
        for number, name in enumerate("ab")
    ]
    notes = site.plan(*sources).reading.notes
    assert [note for note in notes if DIGESTS_LOST in note] == [f"a.tar, b.tar: {DIGESTS_LOST}"]


def test_a_layer_named_by_its_digest_that_is_held_is_not_written_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """skopeo and podman name the layers of a docker-archive by digest."""
    one = made.image(1, size=2 << 20)
    source = site.medium / "d.tar"
    config = one.document["config"]["digest"][7:]
    listed = {"Config": f"{config}.json", "RepoTags": [A], "Layers": [f"{layer[7:]}.tar" for layer in one.layers]}
    members = {f"{layer[7:]}.tar": one.blobs[layer] for layer in one.layers}
    members |= {f"{config}.json": one.blobs[f"sha256:{config}"], "manifest.json": made.compact([listed])}
    made.write_tar(source, members)
    assert site.seed(str(source)).published

    def create(*_: Any) -> int:
        raise AssertionError("a blob is written again")

    with monkeypatch.context() as patch:
        patch.setattr(BlobStore, "_create", create)
        assert not site.seed(str(source)).published
    members[f"{one.layers[0][7:]}.tar"] = bytes(len(one.blobs[one.layers[0]]))
    made.write_tar(source, members)
    with pytest.raises(ApplianceError, match="APL-0107"):
        site.seed(str(source))
    assert site.problems() == []


def test_a_piece_map_that_is_here_is_not_made_again(site: Site) -> None:
    source = site.archive("1.tar", a=made.image(1, size=2 << 20))
    site.seed(source)
    site.blobs.piece_maps.clear()
    assert not site.seed(source).published
    assert site.blobs.piece_maps == {}
    other = site.archive("2.tar", b=made.image(1, size=2 << 20))
    result = site.seed(other)
    assert result.generation is not None
    assert set(result.generation.piece_maps) == set(made.image(1, size=2 << 20).layers)


@pytest.mark.parametrize("form", ["layout", "archive"])
def test_deep_holds_compressed_layers_against_their_config(site: Site, form: str) -> None:
    """Without it, what is inside a compressed layer is believed until a node unpacks it."""
    one = made.image(1)
    packed = gzip.compress(made.layer(99), mtime=0)
    document = one.document
    document["layers"][0] = {"mediaType": mediatypes.OCI_LAYER_GZIP, "digest": made.sha(packed), "size": len(packed)}
    raw = made.compact(document)
    blobs = {
        made.sha(packed): packed,
        made.sha(raw): raw,
        document["config"]["digest"]: one.blobs[document["config"]["digest"]],
    }
    wrong = made.Image({**one.descriptor, "digest": made.sha(raw), "size": len(raw)}, blobs)
    source = (
        str(made.write_layout(site.medium / "layout", {A: wrong}))
        if form == "layout"
        else site.archive("1.tar", a=wrong)
    )
    with pytest.raises(ApplianceError, match="APL-0118"):
        site.seed(source, deep=True)
    assert site.served() == {}
    assert site.seed(source).published
