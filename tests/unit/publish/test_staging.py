"""Staging: a medium is read once, whatever the answer is; and what nothing needs does not stay in the store."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.archives import reader
from appliance.archives.label import Label
from appliance.archives.left_out import LeftOut, LeftOutList, Reason
from appliance.archives.medium import Medium
from appliance.archives.model import ArchiveContents, NamedImage
from appliance.errors import ApplianceError
from appliance.lease import Lease
from appliance.media import MediumIdentity
from appliance.oci.manifests import Descriptor
from appliance.oci.pieces import BIG_BLOB
from appliance.oci.platforms import Platform
from appliance.oci.reference import parse_reference
from appliance.publish import read_media
from appliance.publish.reading import Reading
from appliance.publish.referrers import Brought
from appliance.publish.seed import Request, seed, stage
from appliance.store.blobs import BlobStore
from appliance.store.gc import collect
from appliance.store.index import Entry, Referrer
from appliance.store.staged import KEEP_SECONDS, StagedReadings
from tests.unit.archives.made import docker, layer, tar
from tests.unit.publish.site import A, B, Site
from tests.unit.store import made

ONE, TWO = made.image(1), made.image(2)


@pytest.fixture
def files_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files of media that are read to their end."""
    read: list[str] = []
    real = reader.read_source

    def watched(path: Path, *more: Any, **named: Any) -> ArchiveContents:
        read.append(path.name)
        return real(path, *more, **named)

    monkeypatch.setattr(read_media, "read_source", watched)
    return read


def blobs_of(site: Site) -> set[str]:
    return {digest for digest, _ in site.blobs.digests()}


def test_after_the_answer_nothing_is_read_again(site: Site, files_read: list[str]) -> None:
    source = site.stick("s", a=ONE)
    staged = site.stage(source)
    assert site.served() == {}
    assert staged.until is not None
    assert staged.plan.bytes_to_write == staged.plan.bytes_staged == sum(map(len, ONE.blobs.values()))
    shutil.rmtree(source)
    result = site.seed(source, expect=staged.plan.id)
    assert result.published
    assert files_read == ["a.tar"]
    assert site.served() == {A: ONE.digest}
    assert result.as_dict()["bytes_written"] == staged.plan.bytes_to_write
    assert result.generation is not None and result.generation.sources == (source,)
    assert site.problems() == []


def test_signatures_wait_for_the_answer_with_their_images(site: Site, files_read: list[str]) -> None:
    signature = made.image(3, subject=ONE)
    source = str(made.write_oci_archive(site.medium / "a.tar", {A: ONE}, nameless=[signature]))
    later = site.stage(source)
    assert later.plan.bytes_to_write == later.plan.bytes_staged > ONE.weight
    files_read.clear()
    assert site.seed(source, expect=later.plan.id).published
    assert files_read == []
    assert set(site.current().referrers) == {signature.digest}
    assert site.problems() == []


def test_signatures_of_an_image_that_is_nowhere_leave_nothing(site: Site) -> None:
    source = str(made.write_oci_archive(site.medium / "a.tar", {}, nameless=[made.image(3, subject=ONE)]))
    waiting = site.stage(source)
    assert waiting.until is None and waiting.plan.bytes_to_write == 0
    assert blobs_of(site) == set()


def test_after_a_no_the_next_run_asks_at_once(site: Site, files_read: list[str]) -> None:
    source = site.stick("s", a=ONE)
    first = site.stage(source)
    again = site.stage(source)
    assert files_read == ["a.tar"]
    assert again.plan.id == first.plan.id
    assert again.plan.bytes_to_write == again.plan.bytes_staged == first.plan.bytes_to_write
    assert [item["state"] for item in again.plan.as_dict()["sources"]] == ["verified-before"]
    assert site.seed(source).published
    assert files_read == ["a.tar"]


def test_left_out_files_are_known_after_the_answer_and_leave_nothing_in_the_store(site: Site) -> None:
    source = site.stick("s", a=ONE)
    (site.medium / "s" / "backup").write_bytes(tar(("home/x", b"x" * 9000)))
    (site.medium / "s" / "x.iso").write_bytes(b"x")
    staged = site.stage(source)
    assert blobs_of(site) == set(ONE.blobs)
    shown = staged.as_dict()
    assert [item["kind"] for item in shown["left_out"]] == ["other", "no-images"]
    again = site.stage(source).as_dict()
    assert (again["left_out"], again["sources"][0]["state"]) == (shown["left_out"], "verified-before")
    shutil.rmtree(source)
    result = site.seed(source, expect=staged.plan.id)
    assert result.published
    assert result.as_dict()["left_out"] == site.journal()[-1]["left_out"] == shown["left_out"]


def test_a_slip_in_an_option_costs_no_reading(site: Site, files_read: list[str]) -> None:
    source = str(made.write_oci_archive(site.medium / "a.tar", {"": ONE}))
    with pytest.raises(ApplianceError) as caught:
        site.stage(source)
    assert caught.value.code == "APL-0124"
    assert site.stage(source, names=["a:1"]).plan.changes.added == {A: ONE.digest}
    assert files_read == ["a.tar"]


def test_one_bad_file_costs_only_its_own_reading(site: Site, files_read: list[str]) -> None:
    source = site.stick("s", a=ONE)
    bad = site.medium / "s" / "b.tar"
    whole = Path(site.archive("whole.tar", b=TWO)).read_bytes()
    bad.write_bytes(whole[: whole.index(b"index.json")])
    with pytest.raises(ApplianceError):
        site.stage(source)
    assert blobs_of(site) == set(ONE.blobs), "what the refused file left is gone"
    bad.write_bytes(whole)
    assert set(site.stage(source).plan.changes.added) == {A, B}
    assert files_read == ["a.tar", "b.tar", "b.tar"]


@pytest.mark.parametrize("change", ["content", "size", "checksum", "name", "deep"])
def test_a_changed_file_is_read_again(site: Site, files_read: list[str], change: str) -> None:
    source = site.archive("a.tar", a=ONE)
    site.stage(source)
    asked: dict[str, Any] = {}
    if change == "content":
        status = os.stat(source)
        other = Path(site.archive("other.tar", a=made.image(3, size=1000))).read_bytes()
        Path(source).write_bytes(other.ljust(status.st_size, b"\0")[: max(status.st_size, len(other))])
        os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "size":
        with open(source, "ab") as file:
            file.write(bytes(10240))
    elif change == "checksum":
        Path(f"{source}.sha256").write_text("0" * 64)
    elif change == "name":
        source = str(Path(source).rename(site.medium / "b.tar"))
    else:
        asked["deep"] = True
    files_read.clear()
    if change == "checksum":
        with pytest.raises(ApplianceError):
            site.stage(source, **asked)
    else:
        site.stage(source, **asked)
    assert files_read == [Path(source).name]


def test_a_layout_is_known_again(site: Site, files_read: list[str]) -> None:
    source = str(made.write_layout(site.medium / "layout", {A: ONE}))
    medium = Medium([Path(source)])
    medium.open_beforehand()
    site.stage(source, medium=medium)
    medium.close()
    site.stage(source)
    assert files_read == ["layout"]
    digest = next(iter(ONE.blobs))
    os.utime(site.medium / "layout" / "blobs" / digest.replace(":", "/"))
    site.stage(source)
    assert files_read == ["layout", "layout"]


def test_a_blob_that_is_gone_is_read_again(site: Site, files_read: list[str]) -> None:
    source = site.archive("a.tar", a=ONE)
    staged = site.stage(source)
    site.blobs.path(ONE.digest).unlink()
    assert site.seed(source, expect=staged.plan.id).published
    assert files_read == ["a.tar", "a.tar"]
    assert site.problems() == []


@pytest.mark.parametrize("other", [{"names": ["x:1@" + ONE.digest]}, {"platforms": [Platform("linux", "amd64")]}])
def test_a_plan_of_other_options_is_not_taken(site: Site, files_read: list[str], other: dict[str, Any]) -> None:
    source = site.archive("a.tar", a=ONE)
    staged = site.stage(source)
    shutil.move(source, source + ".away")
    with pytest.raises(ApplianceError):
        site.seed(source, expect=staged.plan.id, **other)
    assert site.served() == {}


def test_a_plan_of_another_state_of_the_site_is_refused(site: Site) -> None:
    source = site.archive("a.tar", a=ONE)
    staged = site.stage(source)
    site.seed(site.archive("b.tar", b=TWO))
    with pytest.raises(ApplianceError) as caught:
        site.seed(source, expect=staged.plan.id)
    assert caught.value.code == "APL-0126"
    again = site.stage(source)
    assert site.seed(source, expect=again.plan.id).published
    assert site.served() == {A: ONE.digest, B: TWO.digest}


def test_the_collection_keeps_what_waits_and_removes_what_is_given_up(site: Site) -> None:
    source = site.archive("a.tar", a=ONE)
    site.stage(source)
    store = site.target()
    plan, swept = collect(store.collector(grace=0))
    assert (swept.blobs, plan.kept_for["staged"][0]) == (0, len(ONE.blobs))
    _, swept = collect(store.collector(grace=0, keep_staged=False))
    assert swept.blobs == len(ONE.blobs)
    assert site.stage(source).plan.changes.added == {A: ONE.digest}


def test_what_nobody_answered_in_time_is_swept_by_the_next_run(site: Site) -> None:
    site.stage(site.archive("a.tar", a=ONE))
    for path in (site.blobs.root / "staged").glob("*.json"):
        record = msgspec.json.decode(path.read_bytes().splitlines()[0])
        path.write_bytes(msgspec.json.encode({**record, "until": record["until"] - KEEP_SECONDS}))
    site.seed(site.archive("b.tar", b=TWO))
    assert blobs_of(site) == set(TWO.blobs)


def test_nothing_of_it_is_left_after_the_publication(site: Site) -> None:
    big = made.image(5, size=BIG_BLOB + 1)
    source = site.archive("a.tar", a=big)
    staged = site.stage(source)
    result = site.seed(source, expect=staged.plan.id)
    assert list((site.blobs.root / "staged").iterdir()) == []
    assert result.generation is not None
    assert len(result.generation.piece_maps) == 1
    assert blobs_of(site) == {*big.blobs, *(item.digest for item in result.generation.piece_maps.values())}
    assert site.problems() == []


def test_a_medium_that_brings_nothing_new_leaves_nothing(site: Site) -> None:
    source = site.archive("a.tar", a=ONE)
    site.seed(source)
    staged = site.stage(source)
    assert (staged.until, staged.plan.is_empty) == (None, True)
    assert list((site.blobs.root / "staged").iterdir()) == []


def test_a_medium_that_does_not_fit_is_verified_whole_and_refused_with_the_true_sum(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = site.stick("s", a=made.image(1, size=100_000), b=made.image(2, size=100_000))
    monkeypatch.setattr(BlobStore, "room", lambda self: 150_000 - sum(size for _, size in self.digests()))
    with pytest.raises(ApplianceError) as caught:
        site.stage(source)
    assert caught.value.code == "APL-0310"
    assert blobs_of(site) == set(), "a medium that does not fit leaves nothing on a disk that is short of room"


def test_another_medium_takes_the_room_of_one_that_waits(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = made.image(1, size=100_000), made.image(2, size=100_000)
    site.stage(site.archive("a.tar", a=first))
    monkeypatch.setattr(BlobStore, "room", lambda self: 150_000 - sum(size for _, size in self.digests()))
    assert site.stage(site.archive("b.tar", b=second)).plan.changes.added == {B: second.digest}
    assert blobs_of(site) == set(second.blobs)


def test_a_blob_that_is_pushed_or_published_meanwhile_stays(site: Site) -> None:
    site.stage(site.archive("a.tar", a=ONE))
    made.publish(site.blobs, {B: ONE})
    StagedReadings(site.blobs.root).drop_all_but()
    site.seed(site.archive("c.tar", b=TWO, a=TWO))
    assert site.generations.complete(2)[0].names[B].descriptor.digest == ONE.digest
    assert set(ONE.blobs) <= blobs_of(site)


def test_names_change_only_while_the_controller_is_there(site: Site, tmp_path: Path) -> None:
    source = site.archive("a.tar", a=ONE)
    staged = site.stage(source)
    file = tmp_path / "lease"
    file.touch()
    lease = Lease(str(file))
    file.unlink()
    with pytest.raises(ApplianceError) as caught:
        seed(site.target(), Request([source]), expect=staged.plan.id, lease=lease)
    assert caught.value.code == "APL-0345"
    assert site.served() == {}
    assert site.seed(source, expect=staged.plan.id).published, "the next run finishes it"


def test_a_plan_without_staging_writes_nothing(site: Site) -> None:
    made.open_store(site.blobs.root)
    before = made.tree(site.blobs.root)
    site.plan(site.archive("a.tar", a=ONE))
    assert made.tree(site.blobs.root) == before


def test_a_reading_survives_the_way_to_the_disk_and_back() -> None:
    descriptor = Descriptor("t", ONE.digest, 1, {"a": "ä"}, Platform("linux", "arm", "v7"), "x/y")
    reading = Reading(
        names={A: Entry(descriptor, frozenset({TWO.digest}))},
        sizes={A: 1},
        blobs={ONE.digest: 1},
        origins={A: "/s"},
        manifests={A: frozenset({ONE.digest})},
        referrers={
            TWO.digest: Brought(
                Referrer(Entry(descriptor, frozenset({ONE.digest})), ONE.digest),
                frozenset({TWO.digest}),
                "/s/a.tar",
                "/s",
                "x/y",
                {TWO.digest: 2},
            )
        },
        allow=["docker.io/*"],
        labels={"/s": Label("site", "id", "2026-01-01", "note")},
        identities={"/s": MediumIdentity(id="id", uuid="1B2C-3D4F", contents="1 archive: a.tar")},
        sources=[{"path": "/s", "state": "read", "bytes": 1}],
        left_out=LeftOutList([LeftOut("/s/x.iso", Reason.OTHER, 1, "detail")], 2, 3),
        notes=["note"],
        foreign=["x"],
        other_sites={"/s": "other"},
    )
    contents = ArchiveContents(
        "oci-archive",
        "zstd",
        [NamedImage(parse_reference("a:1"), descriptor, [Platform("linux", "amd64")], TWO.digest, "why")],
        {ONE.digest: 1},
        [TWO.digest],
        ["note"],
        5,
    )
    for value in (reading, contents):
        empty = type(value)() if isinstance(value, Reading) else ArchiveContents("")
        for field in fields(value):
            assert getattr(value, field.name) != getattr(empty, field.name), f"{field.name}: give this test a value"
        assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value


def test_the_next_publisher_stages_before_it_knows_that_it_is_one(site: Site) -> None:
    site.seed(site.archive("b.tar", b=TWO))
    source = site.archive("a.tar", a=ONE)
    before = site.journal()
    other = made.follower(site.target().blobs)
    staged = stage(other, Request([source]))
    assert site.journal() == before
    with pytest.raises(ApplianceError) as caught:
        seed(other, Request([source]), expect=staged.plan.id)
    assert caught.value.code == "APL-0312"
    assert seed(site.target(), Request([source]), expect=staged.plan.id).published


def test_names_that_are_no_utf8_wait_for_the_answer_as_well(site: Site, files_read: list[str]) -> None:
    signature = made.image(3, subject=ONE)
    file = site.medium / os.fsdecode(b"bad\xff\n.tar")
    made.write_oci_archive(file, {A: ONE}, nameless=[signature])
    (site.medium / os.fsdecode(b"docker\xff.tar")).write_bytes(tar(*docker(layer(), tags=["b:1"])))
    staged = site.stage(str(site.medium))
    shown = json.dumps(staged.plan.as_dict(), ensure_ascii=False).encode()
    assert b"docker\\\\udcff.tar" in shown
    assert site.seed(str(site.medium), expect=staged.plan.id).published
    assert set(site.served()) == {A, B} and len(files_read) == 2
