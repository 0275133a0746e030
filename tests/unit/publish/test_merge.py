"""One name in several files: the one that the nodes run is taken; where neither is wrong, the error says how to bring both."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.errors import ApplianceError
from appliance.oci.platforms import parse_platform
from tests.unit.publish.site import Site
from tests.unit.store import made

AMD64, ARM64 = parse_platform("amd64"), parse_platform("arm64")
A, B = "docker.io/factory/app:1", "docker.io/factory/db:2"
PLAIN, ARM = made.image(1), made.image(2, arch="arm64")


def archives(site: Site, **images: made.Image) -> list[str]:
    return [str(made.write_docker_archive(site.medium / f"app-{name}.tar", A, item)) for name, item in images.items()]


def refused(site: Site, sources: list[str], **more: Any) -> str:
    with pytest.raises(ApplianceError, match="APL-0125") as caught:
        site.plan(*sources, **more)
    return str(caught.value)


@pytest.mark.parametrize("platforms", [[AMD64, ARM64], []])
def test_two_platforms_for_nodes_of_both(site: Site, platforms: list[Any]) -> None:
    said = refused(site, archives(site, amd64=PLAIN, arm64=ARM), platforms=platforms)
    for word in (
        "app-amd64.tar",
        "app-arm64.tar",
        A,
        "linux/amd64",
        "linux/arm64",
        "skopeo copy --all",
        "two platforms",
    ):
        assert word in said
    assert "wrong one" not in said


@pytest.mark.parametrize(("platform", "taken"), [(AMD64, PLAIN), (ARM64, ARM)])
def test_the_one_that_the_nodes_run_is_taken(site: Site, platform: Any, taken: made.Image) -> None:
    sources = archives(site, amd64=PLAIN, arm64=ARM)
    plan = site.plan(*sources, platforms=[platform])
    assert list(plan.changes.added) == [A]
    other = "arm64" if platform == AMD64 else "amd64"
    (note,) = [note for note in plan.reading.notes if "left out" in note]
    for word in (f"app-{other}.tar", f"no node of this site runs linux/{other}", A):
        assert word in note
    result = site.seed(*sources, platforms=[platform])
    (digest,) = site.served().values()
    document = site.blobs.read(digest, 1 << 20)
    assert taken.document["config"]["digest"].encode() in document
    # What was left out counts for nothing.
    assert not any(digest in result.plan.reading.blobs for digest in (ARM if taken is PLAIN else PLAIN).blobs)


def test_a_directory_of_both_architectures_of_a_release(site: Site) -> None:
    """As k3s-airgap-images-amd64 and -arm64 on one stick: each name is listed, once."""
    for arch, seed in (("amd64", 1), ("arm64", 5)):
        names = {A: made.image(seed, arch=arch), B: made.image(seed + 1, arch=arch)}
        made.write_oci_archive(site.medium / f"k3s-airgap-images-{arch}.tar", names)
    said = refused(site, [str(site.medium)], platforms=[AMD64, ARM64])
    assert A in said and B in said
    plan = site.plan(str(site.medium), platforms=[ARM64])
    assert set(plan.changes.added) == {A, B}


def test_two_images_for_one_platform_are_no_matter_of_platforms(site: Site) -> None:
    said = refused(site, archives(site, one=PLAIN, two=made.image(3)), platforms=[AMD64])
    assert "wrong one" in said and "two platforms" not in said
    for word in ("app-one.tar", "app-two.tar"):
        assert word in said


def test_all_names_that_are_not_clear_are_listed_at_once(site: Site) -> None:
    one = made.write_oci_archive(site.medium / "1.tar", {A: PLAIN, B: made.image(7)})
    two = made.write_oci_archive(site.medium / "2.tar", {A: made.image(3), B: made.image(8)})
    said = refused(site, [str(one), str(two)])
    assert A in said and B in said


def test_one_image_in_two_files_is_fine(site: Site) -> None:
    assert list(site.plan(*archives(site, one=PLAIN, two=PLAIN), platforms=[AMD64]).changes.added) == [A]
