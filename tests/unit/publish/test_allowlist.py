"""Allow-lists: which names fit a pattern."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.oci.reference import parse_reference
from appliance.publish.allowlist import AllowLists, parse_pattern


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("nginx", ["nginx", "docker.io/library/nginx:1.27"], ["nginx2", "team/nginx", "quay.io/library/nginx"]),
        ("docker.io/nginx", ["nginx"], ["docker.io/team/nginx"]),
        ("index.docker.io/rancher/*", ["rancher/pause:3"], ["ranchers/pause:3"]),
        ("rancher/*", ["rancher/pause:3", "docker.io/rancher/a/b"], ["quay.io/rancher/pause"]),
        ("nginx*", ["nginx", "nginx-extra"], ["team/nginx"]),
        ("reg.example:5000/*", ["reg.example:5000/a/b:1"], ["reg.example/a/b:1", "reg.example:50001/a"]),
        ("reg.example/app:1.*", ["reg.example/app:1.2"], ["reg.example/app:2.1", "reg.example/app:11"]),
        ("reg.example/*:stable", ["reg.example/a/b:stable"], ["reg.example/a:unstable", "reg.example/a"]),
        ("*/pause", ["rancher/pause:3", "quay.io/x/pause"], ["quay.io/x/pause2"]),
        ("*.example/app", ["a.example/app"], ["a.example.evil.org/app", "example/app"]),
        ("*", ["nginx", "quay.io/a/b:1"], []),
        ("localhost/app", ["localhost/app:1"], ["app:1"]),
        ("REG.Example/app", ["reg.example/app"], []),
        ("quay.io/a.b", ["quay.io/a.b"], ["quay.io/a-b"]),
    ],
)
def test_patterns(pattern: str, fits: list[str], does_not: list[str]) -> None:
    read = parse_pattern(pattern)
    assert [name for name in fits if not read.fits(parse_reference(name))] == []
    assert [name for name in does_not if read.fits(parse_reference(name))] == []


@pytest.mark.parametrize("text", ["", " ", "/", "a/", "/a", "a:", ":1", "a b", "a=b", "a\n", "https://x.example/a?b"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ApplianceError, match="APL-0143"):
        parse_pattern(text)


def test_a_name_by_its_digest_fits_no_tag() -> None:
    reference = parse_reference("quay.io/a/b@sha256:" + "a" * 64)
    assert parse_pattern("quay.io/a/*").fits(reference)
    assert not parse_pattern("quay.io/a/b:*").fits(reference)
    assert parse_pattern("quay.io/a/b:1").fits(reference, any_tag=True)


def test_lists_by_source() -> None:
    image = parse_reference("quay.io/a/b:1")
    assert AllowLists().allows("/x", image)
    one = AllowLists(["/x=quay.io/*", "/a=b/y=docker.io/*"])
    assert one.allows("/x", image)
    assert one.allows("/x/", image)
    assert not one.allows("/a=b/y", image)
    assert not one.allows("/unlisted", image)
    assert AllowLists(["/x=docker.io/*", "quay.io/*"]).allows("/unlisted", image)
    assert one.shown("/x") == "quay.io/*"


@given(st.text(alphabet="abzA09.-_:/*[]@ \n=é", max_size=40))
def test_any_text_is_a_pattern_or_an_error_with_an_id(text: str) -> None:
    try:
        parse_pattern(text)
    except ApplianceError as error:
        assert error.code in ("APL-0143", "APL-0202")


_WORD = st.text(alphabet="abz09", min_size=1, max_size=5)


@given(
    st.sampled_from(["", "docker.io/", "quay.io/", "reg.example:5000/"]), st.lists(_WORD, min_size=1, max_size=3), _WORD
)
def test_a_name_is_a_pattern_that_it_fits(registry: str, path: list[str], tag: str) -> None:
    name = registry + "/".join(path)
    reference = parse_reference(f"{name}:{tag}")
    other = parse_reference(f"{name}:{tag}x")
    for text in (name, reference.name, f"{registry}*" if registry else "*"):
        assert parse_pattern(text).fits(reference)
    for text in (f"{name}:{tag}", reference.tagged):
        assert parse_pattern(text).fits(reference)
        assert not parse_pattern(text).fits(other)
