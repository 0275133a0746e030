"""What a host's containerd runs, and the lists that nodes hand on."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.k3s.containerd import Containerd, as_document, image_of, missing_nodes, parse_images, read_lists, running
from appliance.store.gc import Image

OLD, NEW, CONFIG = (f"sha256:{letter * 64}" for letter in "abc")
NAME = "docker.io/library/nginx:1.27"
TABLE = f"""REF TYPE DIGEST SIZE PLATFORMS LABELS
{NAME} application/vnd.oci.image.index.v1+json {NEW} 3.2 MiB linux/amd64 io.cri-containerd.image=managed
{CONFIG} application/vnd.oci.image.index.v1+json {OLD} 3.1 MiB linux/amd64 io.cri-containerd.image=managed
quay.io/x@{OLD} application/vnd.oci.image.manifest.v1+json {OLD} 3.1 MiB linux/amd64 -
"""


def info(image: str, reference: str | None = None, *, old_names: bool = False) -> str:
    """What ``ctr containers info`` prints of a container, of kubelet where there is a reference."""
    document: dict[str, Any] = {"ID": "1", "Image": image, "Extensions": {}}
    if reference is not None:
        value = json.dumps({"Version": "v1", "Metadata": {"ID": "1", "ImageRef": reference}}).encode()
        keys = ("TypeUrl", "Value") if old_names else ("type_url", "value")
        extension = dict(zip(keys, ("github.com/containerd/cri/pkg/store/container/Metadata", ""), strict=True))
        extension[keys[1]] = base64.b64encode(value).decode()
        document["Extensions"]["io.cri-containerd.container.metadata"] = extension
    return json.dumps(document)


def test_names_and_digests_are_read_from_the_table() -> None:
    assert parse_images(TABLE) == {NAME: NEW, CONFIG: OLD, f"quay.io/x@{OLD}": OLD}
    assert parse_images("REF TYPE DIGEST\n") == parse_images("") == {}


@pytest.mark.parametrize("old_names", [False, True])
def test_what_kubelet_started_runs_what_its_tag_was_then(old_names: bool) -> None:
    names = parse_images(TABLE)
    assert image_of(info(NAME, CONFIG, old_names=old_names), names, "1") == Image(NAME, OLD)


def test_a_config_that_has_no_name_any_more_stands_for_its_image() -> None:
    assert image_of(info(NAME, CONFIG), {NAME: NEW}, "1") == Image(NAME, CONFIG)


def test_what_was_started_by_hand_or_is_a_sandbox_goes_by_its_name() -> None:
    assert image_of(info(NAME), parse_images(TABLE), "1") == Image(NAME, NEW)
    gone = "docker.io/library/gone:1"
    assert image_of(info(gone), parse_images(TABLE), "1") == Image(gone, None)
    assert image_of(info(""), {}, "box") == Image("box", None)


NOT_UNDERSTOOD = ["", "[]", "null", '{"Image": "x", "Extensions": 5}', info(NAME, "x").replace("ey", "??")]


@pytest.mark.parametrize("text", NOT_UNDERSTOOD)
def test_a_form_that_is_not_known_is_not_taken_for_nothing(text: str) -> None:
    assert image_of(text, {}, "1") is None


class Host:
    """A host whose ``ctr`` is a script."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "containerd.sock"
        self.containerd = Containerd(self.socket, root / "data", ((str(root / "none"), "x"), (str(root / "ctr"),)))

    def ctr(self, script: str) -> None:
        path = self.root / "ctr"
        path.write_text(f"#!/bin/sh\nshift 4\n{script}\n")
        path.chmod(0o755)

    def running(self) -> list[Image]:
        return running([self.containerd])


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_host_without_containerd_runs_nothing(host: Host) -> None:
    assert host.running() == []


def test_every_container_is_asked_for_and_one_that_ends_meanwhile_is_none(host: Host) -> None:
    host.socket.touch()
    (host.root / "images").write_text(TABLE)
    (host.root / "one").write_text(info(NAME, CONFIG))
    (host.root / "two").write_text(info(NAME))
    host.ctr(
        f"""cd {host.root}
case "$1 $2" in
"images ls") cat images ;;
"containers ls") echo one; echo two; echo three ;;
"containers info") cat "$3" 2>/dev/null || {{ echo "ctr: container \\"$3\\" in namespace: not found" >&2; exit 1; }} ;;
esac"""
    )
    assert host.running() == [Image(NAME, OLD), Image(NAME, NEW)]


def test_where_one_is_not_understood_every_image_may_be_the_one_that_runs(host: Host) -> None:
    host.socket.touch()
    (host.root / "images").write_text(TABLE)
    host.ctr(
        f"""cd {host.root}
case "$1 $2" in
"images ls") cat images ;;
"containers ls") echo one ;;
"containers info") echo '{{"Image": "x", "Extensions": {{"io.cri-containerd.container.metadata": {{"v": 3}}}}}}' ;;
esac"""
    )
    assert {image.digest for image in host.running()} == {OLD, NEW}


@pytest.mark.parametrize("there", ["socket", "data"])
def test_one_that_does_not_answer_is_not_taken_for_nothing(host: Host, there: str) -> None:
    (host.socket if there == "socket" else host.root / "data").touch()
    host.ctr("echo 'ctr: failed to dial' >&2; exit 1")
    with pytest.raises(ApplianceError, match=r"APL-0327.*failed to dial"):
        host.running()
    os.unlink(host.root / "ctr")
    with pytest.raises(ApplianceError, match=r"APL-0327.*no ctr"):
        host.running()


def test_lists_are_read_as_they_are_printed_one_or_several() -> None:
    one, two = [Image(NAME, OLD), Image("x", None)], [Image(NAME, NEW)]
    text = json.dumps(as_document("a", one))
    assert read_lists({"f": text}) == {"a": one}
    assert read_lists({"-": json.dumps([as_document("a", one), as_document("b", two)])}) == {"a": one, "b": two}
    assert read_lists({"f": text, "g": json.dumps(as_document("a", two))}) == {"a": [*one, *two]}


_value = st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([[], {}, OLD])
_row = st.fixed_dictionaries({}, optional={"name": _value, "digest": _value})
_list = st.fixed_dictionaries({}, optional={"node": _value, "running": _value | st.lists(_row | _value)})


@given(st.text() | (_list | st.lists(_list | _value) | _value).map(json.dumps))
def test_what_is_no_list_is_refused_with_its_file(text: str) -> None:
    try:
        found = read_lists({"file.json": text})
    except ApplianceError as error:
        assert (error.code, error.where) == ("APL-0324", "file.json")
    else:
        assert all(isinstance(image, Image) for images in found.values() for image in images)


def test_every_node_has_to_be_heard_or_named() -> None:
    assert missing_nodes(["a", "b", "c"], {"a": []}, ["c"]) == ["b"]
    assert missing_nodes([], {}, []) == []
