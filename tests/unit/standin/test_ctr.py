"""What of a containerd is shared with other nodes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.lab.standin import ctr
from tests.lab.standin.config import Layout

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class FakeCtr(ctr.Ctr):
    """containerd with these names and labels."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.names: list[ctr.Image] = []
        self.sources: dict[str, set[str]] = {}

    def images(self) -> list[ctr.Image]:
        return list(self.names)

    def labelled(self) -> dict[str, set[str]]:
        return dict(self.sources)


class World:
    """A content directory with one image in it."""

    def __init__(self, root: Path) -> None:
        layout = Layout(data_dir=str(root))
        self.ctr = FakeCtr(layout)
        self.store = ctr.Store(self.ctr, layout)
        self.config = self.put(b"{}")
        self.layer = self.put(b"layer")
        document = {
            "config": {"digest": self.config, "mediaType": CONFIG, "size": 2},
            "layers": [{"digest": self.layer, "mediaType": LAYER, "size": 5}],
        }
        self.manifest = self.put(json.dumps(document).encode())
        self.by_tag = ctr.Image("r.site/a/b:1", MANIFEST, self.manifest)
        self.by_digest = ctr.Image(f"r.site/a/b@{self.manifest}", MANIFEST, self.manifest)

    def put(self, content: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        path = self.store.blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return digest

    def all_digests(self) -> list[str]:
        return [self.manifest, self.config, self.layer]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_hand_imported_image_shares_its_tag_and_not_its_digests(world: World) -> None:
    world.ctr.names = [world.by_tag]
    found = world.store.find("r.site", "a/b", "1")
    assert found is not None
    assert (found.digest, found.media_type) == (world.manifest, MANIFEST)
    assert [world.store.find("r.site", "a/b", digest) for digest in world.all_digests()] == [None] * 3


def test_second_name_shares_everything_below_it(world: World) -> None:
    world.ctr.names = [world.by_tag, world.by_digest]
    kinds = []
    for digest in world.all_digests():
        found = world.store.find("r.site", "a/b", digest)
        assert found is not None
        assert found.path.stat().st_size == found.size
        kinds.append(found.media_type)
    assert kinds == [MANIFEST, CONFIG, LAYER]
    assert world.store.find("other.site", "a/b", world.layer) is None


def test_pulled_content_is_shared_by_its_label(world: World) -> None:
    world.ctr.sources = {world.manifest: {"r.site"}, world.layer: {"r.site"}}
    found = world.store.find("r.site", "a/b", world.manifest)
    assert found is not None
    assert found.media_type == MANIFEST
    assert world.store.find("r.site", "a/b", world.config) is None
    assert world.store.find("other.site", "a/b", world.layer) is None


def test_name_whose_bytes_are_gone_is_not_found(world: World) -> None:
    world.ctr.names = [world.by_tag, world.by_digest]
    world.store.blob(world.layer).unlink()
    assert world.store.find("r.site", "a/b", world.layer) is None
    assert world.store.find("r.site", "a/b", world.config) is not None


def test_reads_what_ctr_prints() -> None:
    digest = "sha256:" + "0" * 64
    listing = f"REF TYPE DIGEST SIZE PLATFORMS LABELS\nr.site/a:1 {MANIFEST} {digest} 4.8 MiB linux/amd64 -\n"
    assert ctr.parse_images(listing) == [ctr.Image("r.site/a:1", MANIFEST, digest)]
    assert ctr.parse_images("") == []
    content = (
        "DIGEST\tSIZE\tAGE\tLABELS\n"
        f"{digest}\t5B\t1s\tcontainerd.io/distribution.source.r.site=a/b,containerd.io/distribution.source.x:5000=a\n"
    )
    assert ctr.parse_sources(content) == {digest: {"r.site", "x:5000"}}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("r.site/a/b:1", ("r.site", "a/b", "1", "")),
        ("r.site:5000/a@sha256:00", ("r.site:5000", "a", "", "sha256:00")),
        ("localhost/a:1", ("localhost", "a", "1", "")),
        ("library/a:1", ("", "library/a:1", "", "")),
    ],
)
def test_split_name(name: str, parts: tuple[str, str, str, str]) -> None:
    assert ctr.split_name(name) == parts


def test_digest_names() -> None:
    digest = "sha256:" + "1" * 64
    images = [ctr.Image("r.site:5000/a/b:1", MANIFEST, digest), ctr.Image(f"r.site/a@{digest}", MANIFEST, digest)]
    assert ctr.digest_names(images) == [("r.site:5000/a/b:1", f"r.site:5000/a/b@{digest}")]
