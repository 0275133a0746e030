"""Digests: what is one, what is not, and that they hash what they say."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.oci.digests import check_digest, digest_of, hasher, is_digest


@given(st.binary(max_size=100), st.sampled_from(["sha256", "sha512"]))
def test_digest_of_is_a_digest_and_round_trips(data: bytes, algorithm: str) -> None:
    digest = digest_of(data, algorithm)
    assert check_digest(digest) == digest
    assert digest == f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha512:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha256:../../../../etc/passwd",
        "sha256:" + "a" * 63 + "\n",
        "sha256:" + "a" * 64 + "\n",
        " sha256:" + "a" * 64,
        "sha256:" + "\u0661" * 64,
        None,
        3,
        ["sha256:" + "a" * 64],
    ],
)
def test_what_is_no_digest_is_refused(text: object) -> None:
    assert not is_digest(text)
    with pytest.raises(ApplianceError) as caught:
        check_digest(text, "somewhere")
    assert caught.value.code == "APL-0201"
    assert caught.value.where == "somewhere"


@given(st.text(max_size=200))
def test_no_accepted_digest_is_a_path(text: str) -> None:
    if is_digest(text):
        assert "/" not in text
        assert "." not in text


def test_hasher_takes_a_whole_digest_and_refuses_the_unknown() -> None:
    empty = digest_of(b"")
    assert hasher(empty).hexdigest() == empty.partition(":")[2]
    assert hasher("sha512:").digest_size == 64
    with pytest.raises(ApplianceError, match="APL-0201"):
        hasher("md5")
