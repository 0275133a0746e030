"""Signatures and attestations without a name: served with what they refer to, and gone with it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.oci.manifests import Descriptor
from appliance.publish.referrers import Brought, attach
from appliance.store.blobs import BlobStore
from appliance.store.catalog import Catalog
from appliance.store.diff import Changes
from appliance.store.gc import GarbageCollector, collect
from appliance.store.index import Entry, Referrer
from appliance.store.uploads import Uploads
from tests.unit.publish.site import Site
from tests.unit.store import made

A, B = "ghcr.io/team/a:1", "ghcr.io/team/b:1"
IMAGE, OTHER = made.image(1), made.image(2)
SBOM = made.image(3, subject=IMAGE, artifact_type="application/spdx+json")
SIGNATURE = made.image(4, subject=IMAGE)
NESTED = made.image(5, subject=SBOM, artifact_type="application/x.signature")
ALL = [SBOM, SIGNATURE, NESTED]


def archive(site: Site, file: str, names: dict[str, made.Image], *nameless: made.Image) -> str:
    return str(made.write_oci_archive(site.medium / file, names, nameless=nameless))


def listed(site: Site, repository: str = "ghcr.io/team/a", subject: made.Image = IMAGE) -> set[str]:
    """The digests that the registry lists for a subject, each of which it also serves there with all of its blobs."""
    catalog = Catalog(site.generations.current(), site.blobs)
    found = {descriptor.digest for descriptor, _ in catalog.referrers(repository, subject.digest)}
    for digest in found:
        assert catalog.manifest(repository, digest) is not None
        for item in catalog.closure(repository).values():
            assert site.blobs.size(item.descriptor.digest) == item.descriptor.size
    return found


def digests(*images: made.Image) -> set[str]:
    return {image.digest for image in images}


def test_with_its_image_and_nested(site: Site) -> None:
    plan = site.plan(archive(site, "both.tar", {A: IMAGE}, *ALL))
    shown = plan.as_dict()
    assert shown["referrers"] == [{"name": A, "other_names": 0, "digests": sorted(digests(*ALL))}]
    result = site.seed(archive(site, "both.tar", {A: IMAGE}, *ALL), expect=plan.id)
    assert result.published
    assert listed(site) == digests(SBOM, SIGNATURE)
    assert listed(site, subject=SBOM) == digests(NESTED)
    assert listed(site, "ghcr.io/team/b") == set()
    assert site.problems() == []
    assert not site.seed(archive(site, "both.tar", {A: IMAGE}, *ALL)).published


def test_brought_later_alone_it_is_a_change(site: Site) -> None:
    site.seed(archive(site, "a.tar", {A: IMAGE}))
    before = site.plan(archive(site, "later.tar", {}, SBOM))
    plan = site.plan(archive(site, "later.tar", {}, *ALL))
    assert before.id != plan.id
    assert not plan.is_empty
    assert plan.as_dict()["added"] == []
    assert site.seed(archive(site, "later.tar", {}, *ALL), expect=plan.id).published
    assert listed(site) == digests(SBOM, SIGNATURE)
    assert site.journal()[-1]["referrers_added"] == {
        SBOM.digest: IMAGE.digest,
        SIGNATURE.digest: IMAGE.digest,
        NESTED.digest: SBOM.digest,
    }
    site.check_log()


def test_of_a_platform_of_an_index(site: Site) -> None:
    both = made.index({"amd64": IMAGE, "arm64": made.image(9, arch="arm64")})
    site.seed(archive(site, "both.tar", {A: both}, *ALL, made.image(10, subject=both)))
    assert listed(site) == digests(SBOM, SIGNATURE)
    assert len(listed(site, subject=both)) == 1


def test_its_image_is_known_nowhere(site: Site) -> None:
    """It is left out by name, and nothing is published for it; beside an image that has nothing to do with it as well."""
    alone = site.plan(archive(site, "later.tar", {}, *ALL))
    assert alone.is_empty and alone.bytes_to_write == 0
    assert {item["digest"] for item in alone.as_dict()["referrers_left_out"]} == digests(*ALL)
    notes = "\n".join(alone.as_dict()["notes"])
    for image in ALL:
        assert image.digest in notes
    assert "later.tar" in notes and "application/spdx+json" in notes and IMAGE.digest in notes
    result = site.seed(archive(site, "mixed.tar", {B: OTHER}, *ALL))
    assert result.published
    logged = site.journal()[-1]
    assert logged["referrers_left_out"] == result.plan.as_dict()["referrers_left_out"]
    assert ({item["digest"] for item in logged["referrers_left_out"]}, logged["referrers_left_out_more"]) == (
        digests(*ALL),
        0,
    )
    site.check_log()
    assert listed(site, "ghcr.io/team/b") == set()
    assert site.current().referrers == {}


def test_the_log_lists_a_hundred_that_are_not_taken_and_counts_the_others(site: Site) -> None:
    strangers = [made.image(100 + number, subject=IMAGE) for number in range(103)]
    assert site.seed(archive(site, "mixed.tar", {B: OTHER}, *strangers)).published
    logged = site.journal()[-1]
    assert (len(logged["referrers_left_out"]), logged["referrers_left_out_more"]) == (100, 3)


def test_its_image_was_pushed(site: Site) -> None:
    site.seed(archive(site, "b.tar", {B: OTHER}))
    made.push(site.blobs, {A: IMAGE})
    (left_out,) = site.plan(archive(site, "later.tar", {}, SBOM)).as_dict()["referrers_left_out"]
    assert "an operator pushed that image" in left_out["why"]


def test_it_stays_with_its_image_and_leaves_with_it(site: Site) -> None:
    site.seed(archive(site, "both.tar", {A: IMAGE}, *ALL))
    site.seed(archive(site, "b.tar", {B: OTHER}))
    assert listed(site) == digests(SBOM, SIGNATURE)
    again = site.seed(archive(site, "again.tar", {A: IMAGE, "ghcr.io/team/a:2": IMAGE}))
    assert again.plan.as_dict()["referrers"] == []
    assert listed(site) == digests(SBOM, SIGNATURE)
    # Another name of the image keeps it; without any, it goes.
    site.seed(remove=[A])
    assert listed(site) == digests(SBOM, SIGNATURE)
    site.seed(remove=["ghcr.io/team/a:2"])
    assert site.current().referrers == {}
    assert set(site.journal()[-1]["referrers_removed"]) == digests(*ALL)
    site.check_log()


def test_it_leaves_with_a_tag_that_moves_and_comes_back_by_rollback(site: Site) -> None:
    site.seed(archive(site, "both.tar", {A: IMAGE}, *ALL))
    site.seed(archive(site, "other.tar", {A: OTHER}))
    assert site.current().referrers == {}
    assert site.back(to=1).published
    assert listed(site) == digests(SBOM, SIGNATURE)
    assert listed(site, subject=SBOM) == digests(NESTED)


def test_rollback_keeps_what_came_later_for_an_image_that_stays(site: Site) -> None:
    site.seed(archive(site, "a.tar", {A: IMAGE}))
    site.seed(archive(site, "later.tar", {B: OTHER}, *ALL))
    assert site.back(to=1).published
    assert set(site.served()) == {A}
    assert listed(site) == digests(SBOM, SIGNATURE)


def test_rollback_to_what_is_served_but_for_signatures_is_no_change(site: Site) -> None:
    site.seed(archive(site, "a.tar", {A: IMAGE}))
    site.seed(archive(site, "later.tar", {}, *ALL))
    assert not site.back(to=1).published


def test_garbage_collection_keeps_it_as_long_as_its_image(site: Site) -> None:
    site.seed(archive(site, "both.tar", {A: IMAGE, B: OTHER}, *ALL))

    def gc() -> set[str]:
        blobs = site.blobs
        collect(
            GarbageCollector(
                blobs,
                made.generations(blobs),
                made.pushes(blobs),
                made.pins(blobs),
                Uploads(blobs),
                keep=1,
                clock=lambda: time.time() + 10_000,
            )
        )
        return {digest for digest, _ in blobs.digests()}

    assert {digest for image in ALL for digest in image.blobs} <= gc()
    site.seed(remove=[A])
    here = gc()
    assert not {SBOM.digest, SIGNATURE.digest, NESTED.digest} & here
    assert set(OTHER.blobs) <= here


def test_a_lost_manifest_of_another_name_takes_no_signature_away(site: Site) -> None:
    """Where it is not known what a name reaches, no signature leaves."""
    site.seed(archive(site, "both.tar", {A: IMAGE}, SBOM))
    site.blobs.path(IMAGE.digest).unlink()
    site.seed(archive(site, "b.tar", {B: OTHER}))
    assert set(site.current().referrers) == digests(SBOM)


def test_only_what_its_source_may_bring(site: Site) -> None:
    site.seed(archive(site, "a.tar", {A: IMAGE}))
    later = archive(site, "later.tar", {}, SBOM)
    assert site.plan(later, allow=["ghcr.io/team/*"]).as_dict()["referrers"]
    refused = site.plan(later, allow=["docker.io/rancher/*"]).as_dict()
    assert refused["referrers"] == []
    assert "--allow" in refused["referrers_left_out"][0]["why"]


def test_one_whose_blobs_are_not_there_is_left_out(site: Site) -> None:
    """As a tool that exports one platform leaves it: listed, and not there."""
    broken = made.Image(SBOM.descriptor, {SBOM.digest: SBOM.raw})
    result = site.seed(archive(site, "both.tar", {A: IMAGE}, broken))
    assert result.published
    assert any(SBOM.digest in note and "not whole" in note for note in result.plan.as_dict()["notes"])
    assert listed(site) == set()


@pytest.mark.parametrize("form", ["layout", "tag", "bare tag", "hauler", "containerd"])
def test_from_every_format(site: Site, form: str) -> None:
    """Layout directories, the tag schema with and without repository, Hauler's kinds, containerd's annotation."""
    image_name = {"io.containerd.image.name": A, "org.opencontainers.image.ref.name": "1"}
    silent = made.image(6)  # says nothing itself of what it refers to
    tag = IMAGE.digest.replace(":", "-")
    item, notes = SBOM, dict[str, str]()
    if form == "tag":
        item, notes = silent, {"org.opencontainers.image.ref.name": f"ghcr.io/team/a:{tag}.sig"}
    elif form == "bare tag":
        item, notes = silent, {"org.opencontainers.image.ref.name": f"{tag}.sig"}
    elif form == "hauler":
        image_name["kind"] = "dev.hauler/image"
        notes = {"kind": "dev.hauler/referrers/" + "a" * 64, "io.containerd.image.name": A}
    elif form == "containerd":
        item, notes = silent, {"io.containerd.manifest.subject": IMAGE.digest}
    root = made.write_layout(site.medium / "layout", {A: IMAGE, "": item})
    entries = [{**IMAGE.descriptor, "annotations": image_name}, {**item.descriptor, "annotations": notes}]
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    site.seed(str(root))
    assert listed(site) == digests(item)
    if "tag" in form:
        assert f"ghcr.io/team/a:{tag}.sig" in site.served()


def test_an_index_of_the_tag_schema(site: Site) -> None:
    """Clients push an index under the digest as a tag where a registry has no referrers."""
    index = made.index({"amd64": SBOM, "arm64": SIGNATURE})
    root = made.write_layout(site.medium / "layout", {A: IMAGE, "": index})
    notes = {"org.opencontainers.image.ref.name": IMAGE.digest.replace(":", "-")}
    names = {"org.opencontainers.image.ref.name": A}
    entries = [{**IMAGE.descriptor, "annotations": names}, {**index.descriptor, "annotations": notes}]
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    site.seed(str(root))
    assert listed(site) == digests(SBOM, SIGNATURE)


def test_referrers_are_a_change() -> None:
    changes = Changes.between({}, {}, {}, {"sha256:1": Referrer(Entry(Descriptor("t", "sha256:1", 1)), "sha256:2")})
    assert changes and changes.referrers_added == {"sha256:1": "sha256:2"}


def test_its_entry_has_no_name(tmp_path: Path) -> None:
    """Nodes of the release before pass over entries that are neither named nor piece maps, and follow the generation."""
    store = made.open_store(tmp_path / "store")
    generation = made.publish(store, {A: IMAGE}, referrers={IMAGE.digest: [SBOM]})
    (entry,) = [item for item in json.loads(generation.raw)["manifests"] if item["digest"] == SBOM.digest]
    assert entry["annotations"] == {"io.containerd.manifest.subject": IMAGE.digest}
    again = made.generations(BlobStore(store.root)).current()
    assert again is not None and again.referrers == generation.referrers


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=15), st.sets(st.integers(0, 9), max_size=4))
def test_what_is_attached_is_what_a_chain_leads_to(edges: list[tuple[int, int]], named: set[int]) -> None:
    """A referrer is served if and only if a chain of subjects leads from it to a name; circles do no harm."""
    subjects = dict(edges)
    brought = {
        str(number): Brought(Referrer(Entry(Descriptor("t", str(number), 1)), str(subject)), frozenset({str(number)}))
        for number, subject in subjects.items()
    }
    reached = {f"name {number}": frozenset({str(number)}) for number in named}
    found = attach(reached, {}, brought, allows=lambda source, name: True)

    def leads(number: int) -> bool:
        seen = set()
        while number not in named:
            if number in seen or number not in subjects:
                return False
            seen.add(number)
            number = subjects[number]
        return True

    expected = {str(number) for number, subject in subjects.items() if leads(subject)}
    assert set(found.referrers) == expected
    assert {item.digest for item in found.left_out} == set(brought) - expected
