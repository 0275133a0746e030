"""Names: normalised as kubelet and containerd do it, and one meaning for each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.oci.reference import Reference, is_registry_host, parse_reference, split_path

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("bitnami/nginx", "docker.io/bitnami/nginx:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/nginx:1", "docker.io/library/nginx:1"),
        ("registry-1.docker.io/library/nginx:1", "docker.io/library/nginx:1"),
        ("ksd.test.com/ksd/nginx:1.27", "ksd.test.com/ksd/nginx:1.27"),
        ("quay.io/nginx", "quay.io/nginx:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x:V1", "localhost:5000/x:V1"),
        ("host:5000/x", "host:5000/x:latest"),
        ("10.77.0.11:5443/a/b/c:t", "10.77.0.11:5443/a/b/c:t"),
        ("[fd00::1]:5000/x:1", "[fd00::1]:5000/x:1"),
        ("quay.io", "docker.io/library/quay.io:latest"),
        ("FOO/bar", "FOO/bar:latest"),
        ("KSD.Test.com/ksd/nginx:1", "ksd.test.com/ksd/nginx:1"),
        ("a/b.c/d__e-f--g:1", "docker.io/a/b.c/d__e-f--g:1"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx:1@{DIGEST}"),
        (f"host:5000/x@{DIGEST}", f"host:5000/x@{DIGEST}"),
    ],
)
def test_normalised(text: str, expected: str) -> None:
    reference = parse_reference(text)
    assert str(reference) == expected
    assert parse_reference(str(reference)) == reference


def test_parts() -> None:
    reference = parse_reference(f"ksd.test.com:5000/ksd/nginx:1.27@{DIGEST}")
    assert reference == Reference("ksd.test.com:5000", "ksd/nginx", "1.27", DIGEST)
    assert reference.name == "ksd.test.com:5000/ksd/nginx"
    assert reference.tagged == "ksd.test.com:5000/ksd/nginx:1.27"
    assert parse_reference("x", default_tag=None).tag is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "/x",
        "x/",
        "x//y",
        "Nginx",
        "quay.io/Nginx",
        "x:",
        "x:tag with space",
        "x:" + "t" * 129,
        "x:.t",
        "../etc/passwd",
        "quay.io/../x",
        "quay.io/a/./b",
        "a/-b",
        "a/b-",
        "a/b___c",
        "a/b..c",
        "-host.com/x",
        "host:port/x",
        "x\n",
        "x:1\n",
        "quay.io\n/x",
        "häuser/x",
        "a" * 64,  # an image id
        "quay.io/" + "a/" * 124 + "a",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        parse_reference(text, where="here")
    assert caught.value.code == "APL-0202"


@pytest.mark.parametrize("text", ["x@", "x@sha256:abc", f"x@{DIGEST}@{DIGEST}", "x@sha256:../../x"])
def test_bad_digest_refused(text: str) -> None:
    with pytest.raises(ApplianceError, match="APL-0201"):
        parse_reference(text)


def test_length_limit_is_255() -> None:
    longest = "quay.io/" + "a" * 247
    assert len(parse_reference(longest).name) == 255
    with pytest.raises(ApplianceError, match="APL-0202"):
        parse_reference(longest + "a")


@given(st.text(alphabet="abzAB019.:/@-_ \n\x00", max_size=40))
def test_whatever_is_accepted_is_stable_and_safe(text: str) -> None:
    try:
        reference = parse_reference(text)
    except ApplianceError as error:
        assert error.code in ("APL-0201", "APL-0202")
        return
    assert parse_reference(str(reference)) == reference
    assert is_registry_host(reference.registry)
    assert ".." not in reference.repository.split("/")


@pytest.mark.parametrize(
    ("component", "host"),
    [("docker.io", True), ("a:1", True), ("localhost", True), ("FOO", True), ("foo", False), ("foo-bar", False)],
)
def test_first_component(component: str, host: bool) -> None:
    assert is_registry_host(component) is host


SITE = frozenset({"10.77.0.11", "10.77.0.11:5443", "node-a.site", "Node-A.site:5443"})


@pytest.mark.parametrize(
    ("path", "ns", "expected"),
    [
        ("library/nginx", "docker.io", ("docker.io", "library/nginx")),
        ("ksd/nginx", "ksd.test.com", ("ksd.test.com", "ksd/nginx")),
        ("ksd/nginx", "KSD.test.com", ("ksd.test.com", "ksd/nginx")),
        ("x", "host:5000", ("host:5000", "x")),
        ("nginx", None, ("docker.io", "library/nginx")),
        ("nginx", "", ("docker.io", "library/nginx")),
        ("ksd.test.com/ksd/nginx", None, ("ksd.test.com", "ksd/nginx")),
        ("docker.io/nginx", None, ("docker.io", "library/nginx")),
        ("app", "10.77.0.11:5443", ("docker.io", "library/app")),
        ("ksd.test.com/app", "10.77.0.11:5443", ("ksd.test.com", "app")),
        ("team/app", "node-a.site:5443", ("docker.io", "team/app")),
        ("10.77.0.11:5443/team/app", None, ("docker.io", "team/app")),
        ("team/app", "10.77.0.11:5050", ("10.77.0.11:5050", "team/app")),
        ("blobs/manifests/tags", "quay.io", ("quay.io", "blobs/manifests/tags")),
    ],
)
def test_split_path(path: str, ns: str | None, expected: tuple[str, str]) -> None:
    assert split_path(path, ns, SITE) == expected


@pytest.mark.parametrize(
    ("path", "ns"),
    [
        ("x", "evil/host"),
        ("x", "a b"),
        ("../x", "quay.io"),
        ("x//y", None),
        ("X", "quay.io"),
        ("", None),
        ("x", "@"),
        ("x", "foo"),
    ],
)
def test_split_path_refuses(path: str, ns: str | None) -> None:
    with pytest.raises(ApplianceError, match="APL-0202"):
        split_path(path, ns, SITE)


@given(
    st.from_regex(r"[a-z]{1,5}(/[a-z]{1,5}){0,2}", fullmatch=True), st.sampled_from(["quay.io", "h:5000", "docker.io"])
)
def test_ns_and_path_form_of_one_name_agree(path: str, registry: str) -> None:
    reference = parse_reference(f"{registry}/{path}")
    assert split_path(path, registry) == (reference.registry, reference.repository)
    assert split_path(f"{registry}/{path}", None) == (reference.registry, reference.repository)


def test_at_site() -> None:
    assert str(parse_reference("10.77.0.11:5443/app:1").at_site(SITE)) == "docker.io/library/app:1"
    assert str(parse_reference("quay.io/app:1").at_site(SITE)) == "quay.io/app:1"
