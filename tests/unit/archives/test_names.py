"""Names in archives: the same name means the same in every format, and one that cannot be used says why, with its file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.archives.model import ArchiveContents
from appliance.archives.names import read_name, read_saved_name
from appliance.archives.reader import read_source
from appliance.archives.sink import HashingSink
from appliance.errors import ApplianceError
from appliance.oci.manifests import Descriptor
from tests.unit.archives.conftest import Read
from tests.unit.archives.made import Layout, docker, layer, sha, tar

OTHER = sha(b"another image")
REPOSITORY = "ghcr.io/team/app"


def keys(contents: ArchiveContents) -> dict[str, str]:
    return {image.reference.key: image.descriptor.digest for image in contents.images if image.reference}


def notes_of(text: str, form: str) -> dict[str, str]:
    """Return the annotations that a tool writes for a name."""
    if form == "podman":
        return {"org.opencontainers.image.ref.name": text}
    notes = {"io.containerd.image.name": text, "org.opencontainers.image.ref.name": text.rpartition(":")[2]}
    return notes | ({"kind": "dev.hauler/image"} if form == "hauler" else {})


def layout_with(text: str, form: str = "podman") -> tuple[Layout, str]:
    layout = Layout()
    image = layout.image(layer())
    return layout.name(image, **notes_of(text.replace("OWN", image["digest"]), form)), image["digest"]


@pytest.mark.parametrize("form", ["podman", "containerd", "hauler"])
@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"{REPOSITORY}:1", f"{REPOSITORY}:1"),
        (f"{REPOSITORY}:1@OWN", f"{REPOSITORY}:1"),
        (f"{REPOSITORY}@OWN", f"{REPOSITORY}@OWN"),
        ("app@OWN", "docker.io/library/app@OWN"),
    ],
)
def test_a_name_with_the_digest_of_its_image(read: Read, form: str, text: str, key: str) -> None:
    layout, digest = layout_with(text, form)
    assert keys(read(layout.tar())) == {key.replace("OWN", digest): digest}


@pytest.mark.parametrize("form", ["podman", "containerd", "hauler"])
@pytest.mark.parametrize("text", [f"{REPOSITORY}:1@{OTHER}", f"{REPOSITORY}@{OTHER}"])
def test_a_name_with_another_digest_is_refused_with_both(read: Read, form: str, text: str) -> None:
    layout, digest = layout_with(text, form)
    with pytest.raises(ApplianceError, match="APL-0165") as caught:
        read(layout.tar())
    for word in ("images.tar", digest, OTHER, "--name"):
        assert word in str(caught.value)
    assert keys(read(layout.tar(), names=["x/y:1"])) == {"docker.io/x/y:1": digest}
    assert keys(read(layout.tar(), names=[f"x/y:1@{digest}"])) == {"docker.io/x/y:1": digest}


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(("text", "key"), [("{0}:1@{1}", "{0}:1"), ("{0}@{1}", "{0}@{1}")])
def test_a_name_with_the_digest_of_the_index_around_it_means_the_index(
    read: Read, listed: bool, text: str, key: str
) -> None:
    """Tools give such a name to an image of several platforms that was pulled by its digest for one of them."""
    layout = Layout()
    image = layout.image(layer())
    index = layout.index({**image, "platform": {"os": "linux", "architecture": "amd64"}})
    layout.name(image, text.format(REPOSITORY, index["digest"]))
    if listed:
        layout.name(index)
    contents = read(layout.tar())
    assert keys(contents) == {key.format(REPOSITORY, index["digest"]): index["digest"]}
    assert [str(platform) for platform in contents.images[0].platforms] == ["linux/amd64"]
    assert contents.nameless == []


@pytest.mark.parametrize("suffix", ["sigs", "atts", "sboms"])
@pytest.mark.parametrize("text", [f"{REPOSITORY}:1", f"{REPOSITORY}:1@OWN", f"{REPOSITORY}@OWN"])
def test_the_images_name_on_a_signature(read: Read, text: str, suffix: str) -> None:
    layout, digest = layout_with(text, "hauler")
    signature = layout.image(b"{}", layer_type="application/vnd.dev.cosign.simplesigning.v1+json")
    named = text.replace("OWN", digest)
    layout.name(signature, **notes_of(named, "hauler") | {"kind": f"dev.hauler/{suffix}"})
    tag = f"{REPOSITORY}:{digest.replace(':', '-')}.{suffix[:-1]}"
    contents = read(layout.tar())
    assert keys(contents) == {named.replace(":1@" + digest, ":1"): digest, tag: signature["digest"]}
    assert contents.images[1].subject == digest


def test_several_signatures_of_one_image_with_subjects_of_their_own(read: Read) -> None:
    """One tag holds one of them; the list of referrers has them all."""
    layout, digest = layout_with(f"{REPOSITORY}:1", "hauler")
    subject = {key: value for key, value in layout.entries[0].items() if key != "annotations"}
    both = [layout.image(b"{}", arch=arch, layer_type="a/x", subject=subject) for arch in ("a", "b")]
    for signature in both:
        layout.name(signature, **notes_of(f"{REPOSITORY}:1", "hauler") | {"kind": "dev.hauler/sigs"})
    contents = read(layout.tar())
    assert {image.descriptor.digest for image in contents.images if image.subject == digest} == {
        signature["digest"] for signature in both
    }


def test_a_signature_under_a_bare_tag_gets_the_repository_that_its_image_is_given(read: Read) -> None:
    layout = Layout()
    image, signature = layout.image(layer()), layout.image(b"{}", layer_type="a/x")
    tag = image["digest"].replace(":", "-") + ".sig"
    layout.name(image, "1").name(signature, tag)
    assert [image.reference for image in read(layout.tar()).referrers] == [None]
    contents = read(layout.tar(), names=[REPOSITORY])
    assert keys(contents) == {f"{REPOSITORY}:1": image["digest"], f"{REPOSITORY}:{tag}": signature["digest"]}
    assert contents.referrers == []


def test_a_signature_of_an_image_that_is_nowhere_named_is_left_out(read: Read) -> None:
    layout, _ = layout_with(f"{REPOSITORY}:1", "hauler")
    signature = layout.image(b"{}", layer_type="a/x")
    layout.name(signature, **notes_of("ghcr.io/else:9", "hauler") | {"kind": "dev.hauler/sigs"})
    contents = read(layout.tar())
    assert len(contents.images) == 1
    assert any(signature["digest"] in note and "ghcr.io/else:9" in note for note in contents.notes)


# docker-archives


def test_a_docker_archive_loses_the_digest_and_keeps_the_tag(read: Read) -> None:
    contents = read(tar(*docker(layer(), tags=[f"{REPOSITORY}:1@{OTHER}"])))
    assert list(keys(contents)) == [f"{REPOSITORY}:1"]
    assert any(OTHER in note and f"{REPOSITORY}:1" in note for note in contents.notes)


def test_a_docker_archive_with_a_digest_and_no_tag_needs_a_name(read: Read) -> None:
    data = tar(*docker(layer(), tags=[f"{REPOSITORY}@{OTHER}"]))
    with pytest.raises(ApplianceError, match="APL-0165") as caught:
        read(data)
    assert "images.tar" in str(caught.value) and "docker-archive" in str(caught.value)
    assert list(keys(read(data, names=["x/y:1"]))) == ["docker.io/x/y:1"]


# names that cannot be


BAD = ["ghcr.io/charts/demo:0.1.0+up1", "MyApp:1", "ghcr.io/a//b:1", "a:", "x@sha256:12", "a b:1", "http://x/y:1"]


@pytest.mark.parametrize("text", BAD)
@pytest.mark.parametrize("form", ["layout", "docker"])
def test_a_name_that_cannot_be(read: Read, text: str, form: str) -> None:
    if form == "layout":
        layout, digest = layout_with(text, "containerd")
        data = layout.tar()
    else:
        data = tar(*docker(layer(), tags=[text]))
        digest = read(data, names=["x/y:1"]).images[0].descriptor.digest
    with pytest.raises(ApplianceError, match="APL-0165") as caught:
        read(data)
    for word in ("images.tar", digest, text, "--name"):
        assert word in str(caught.value)
    assert keys(read(data, names=["x/y:1"])) == {"docker.io/x/y:1": digest}
    assert keys(read(data, names=[f"x/y:1@{digest}"])) == {"docker.io/x/y:1": digest}


@pytest.mark.parametrize(
    "text",
    [
        *("<none>:<none>", "<none>", "", " ", "app:<none>", f"moby-dangling@{OTHER}", "a:i-was-a-digest"),
        *(OTHER, f"@{OTHER}", "sha512:" + "a" * 128),
    ],
)
def test_what_tools_write_where_there_is_no_name(read: Read, text: str) -> None:
    for data in (tar(*docker(layer(), tags=[text])), layout_with(text, "containerd")[0].tar()):
        contents = read(data)
        assert len(contents.nameless) == 1
        assert list(keys(read(data, names=["x/y:1"]))) == ["docker.io/x/y:1"]


def test_one_name_that_can_be_beside_one_that_cannot(read: Read) -> None:
    """No name is dropped in silence; ``--name`` settles it."""
    data = tar(*docker(layer(), tags=["app:1", "App:2", "App:3"]))
    with pytest.raises(ApplianceError, match=r"APL-0165.*App:2.*App:3"):
        read(data)
    digest = read(tar(*docker(layer(), tags=["app:1"]))).images[0].descriptor.digest
    assert sorted(keys(read(data, names=[f"app:2@{digest}"]))) == [
        "docker.io/library/app:1",
        "docker.io/library/app:2",
    ]


# properties


texts = st.one_of(
    st.text(max_size=40),
    st.builds(
        lambda base, tag, digest: base + tag + digest,
        st.sampled_from([REPOSITORY, "app", "MyApp", "localhost:5000/a/b", "<none>", "", "a//b"]),
        st.sampled_from(["", ":1", ":1+x", ":<none>", ":"]),
        st.sampled_from(["", f"@{OTHER}", f"@{sha(b'own')}", "@sha256:12", "@"]),
    ),
)


@given(texts, st.booleans())
def test_every_text_is_a_name_a_problem_or_nobodys(text: str, is_index: bool) -> None:
    """No text raises; a name that keeps a digest leads to exactly that digest; both readers agree on the rest."""
    own = sha(b"own")
    index = Descriptor("t", OTHER, 1)
    meaning = read_name(text, own, lambda stated: index if is_index and stated == OTHER else None)
    saved = read_saved_name(text, own)
    for found in (meaning, saved):
        assert not (found.reference and found.problem)
    if meaning.reference is not None:
        target = meaning.target.digest if meaning.target else own
        assert meaning.reference.digest in (None, target)
    if saved.reference is not None:
        assert saved.reference.digest in (None, own)
        assert saved.reference.tag is not None or saved.reference.digest == own
    if "@" not in text:
        assert meaning == saved


# errors of every kind


def archive_of(kind: str) -> bytes:
    """Return an archive that is refused, made so that its fault lies in a document within."""
    layout = Layout()
    image = layout.image(layer())
    gz = gzip.compress(layer())
    if kind == "large config":
        config = layout.add(b'{"x":"' + b"x" * (5 << 20) + b'"}', "application/vnd.oci.image.config.v1+json")
        document = json.loads(layout.blobs[image["digest"]]) | {"config": config}
        image = layout.add(json.dumps(document).encode(), image["mediaType"])
    elif kind == "build cache":
        image = layout.index(
            layout.add(gz, "application/vnd.oci.image.layer.v1.tar+gzip"),
            layout.add(b'{"layers":[]}', "application/vnd.buildkit.cacheconfig.v0+json"),
        )
    elif kind == "build cache as a manifest":
        config = layout.add(b'{"layers":[]}', "application/vnd.buildkit.cacheconfig.v0+json")
        document = json.loads(layout.blobs[image["digest"]]) | {"config": config}
        image = layout.add(json.dumps(document).encode(), image["mediaType"])
    elif kind == "index of layers":
        image = layout.index(layout.add(gz, "application/vnd.oci.image.layer.v1.tar+gzip"))
    elif kind == "a name on a layer":
        image = layout.add(gz, "application/vnd.oci.image.layer.v1.tar+gzip")
    elif kind == "a manifest that is no text":
        image = layout.add(b"{\xff\xfe", image["mediaType"])
    elif kind == "a deep manifest":
        image = layout.add(b'{"a":' * 100_000, image["mediaType"])
    elif kind == "a long number":
        image = layout.add(b'{"schemaVersion":' + b"1" * 5000 + b"}", image["mediaType"])
    return layout.name(image, f"{REPOSITORY}:1").tar()


@pytest.mark.parametrize(
    "kind",
    [
        "large config",
        "build cache",
        "build cache as a manifest",
        "index of layers",
        "a name on a layer",
        "a manifest that is no text",
        "a deep manifest",
        "a long number",
    ],
)
def test_a_fault_within_names_file_and_image_and_speaks_no_python(read: Read, kind: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        read(archive_of(kind))
    said = str(caught.value)
    assert "images.tar" in caught.value.where and f"{REPOSITORY}:1" in caught.value.where
    for word in ("codec", "Error", "recursion", "Traceback", "int_max_str_digits", "Expecting"):
        assert word not in said
    assert ("build cache" in said) == kind.startswith("build cache")


def test_an_odd_child_beside_images_is_noted_and_not_served(read: Read) -> None:
    """The image specification lets an index list other things than manifests."""
    layout = Layout()
    image = layout.image(layer())
    odd = layout.add(b"anything", "text/x")
    layout.name(layout.index(image, odd), f"{REPOSITORY}:1")
    contents = read(layout.tar())
    assert list(keys(contents)) == [f"{REPOSITORY}:1"]
    assert odd["digest"] in contents.missing and odd["digest"] not in contents.blobs
    assert any(odd["digest"] in note and "text/x" in note for note in contents.notes)


@pytest.mark.parametrize("fault", [KeyError("x"), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), RecursionError()])
def test_what_the_reader_was_not_made_for_is_one_error(
    read: Read, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def broken(*_: Any) -> None:
        raise fault

    monkeypatch.setattr("appliance.archives.reader.resolve_layout", broken)
    with pytest.raises(ApplianceError, match=r"APL-0168.*images\.tar") as caught:
        read(layout_with("app:1")[0].tar())
    assert type(fault).__name__ not in str(caught.value)


def test_all_names_of_a_directory_are_named_at_once(tmp_path: Path) -> None:
    root = tmp_path / "layout"
    layout, _ = layout_with("MyApp:1")
    layout.name(layout.image(layer("two")), "ghcr.io/x:1+2")
    for name, data in [member for member in layout.members() if isinstance(member, tuple)]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    with pytest.raises(ApplianceError, match=r"APL-0165.*MyApp:1.*ghcr\.io/x:1\+2"), HashingSink() as sink:
        read_source(root, sink)


def test_a_name_with_the_digest_of_a_config_is_refused_as_a_name(read: Read) -> None:
    layout = Layout()
    image = layout.image(layer())
    config = json.loads(layout.blobs[image["digest"]])["config"]["digest"]
    layout.name(image, **notes_of(f"{REPOSITORY}:1@{config}", "containerd"))
    with pytest.raises(ApplianceError, match="APL-0165") as caught:
        read(layout.tar())
    assert config in str(caught.value) and image["digest"] in str(caught.value)
