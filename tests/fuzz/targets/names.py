"""Names: references of archives and command lines, paths with ``ns``, hosts, tags, digests.

Input: ``text`` and, after a line end, the ``ns`` parameter.
"""

from __future__ import annotations

from pathlib import Path

from appliance.archives.names import read_name, read_saved_name
from appliance.oci.digests import check_digest, hasher, is_digest
from appliance.oci.reference import (
    NAME_LIMIT,
    Reference,
    check_registry,
    is_registry_host,
    is_tag,
    parse_reference,
    split_path,
)
from appliance.publish.allowlist import parse_pattern
from appliance.store.blobs import BlobStore
from appliance.words import one_line
from tests.fuzz.checks import attempt, plain

SITE = frozenset({"10.0.0.1", "10.0.0.1:5443", "Node-a.site"})
WORDS = ("docker.io/", "index.docker.io", "localhost", "library/", "@sha256:", "@sha512:", "a" * 64, ":5000", "[::1]")
_OWN = "sha256:" + "a" * 64
_STORE = BlobStore(Path("/store"))


def run(data: bytes) -> None:
    """What is accepted is stable, safe as a key, and means one thing only."""
    text, _, ns = data.decode("utf-8", "surrogateescape").partition("\n")
    reference = attempt(lambda: parse_reference(text))
    if reference is not None:
        _sound(reference)
    bare = attempt(lambda: parse_reference(text, default_tag=None))
    assert (bare is None) == (reference is None)
    host = attempt(lambda: check_registry(text))
    if host is not None:
        assert check_registry(host) == host
    _path(text, None)
    _path(text, ns)
    _digest(text)
    _of_archive(text)
    _pattern(text)
    if is_tag(text):
        assert not {"/", ":", "@"} & set(text) and text not in (".", "..")


def _of_archive(text: str) -> None:
    """No name in an archive raises; one that is taken is sound and leads to the image beside it, the others have a reason."""
    for read in (read_name, read_saved_name):
        meaning = read(text, _OWN)
        assert not (meaning.reference and meaning.problem)
        plain(one_line(meaning.problem))
        plain(meaning.note)
        if meaning.reference is not None:
            _sound(meaning.reference)
            assert meaning.reference.digest in (None, _OWN)


def _pattern(text: str) -> None:
    """What is a name is a pattern that it fits; what is a pattern can be used."""
    pattern = attempt(lambda: parse_pattern(text))
    reference = attempt(lambda: parse_reference(text, default_tag=None))
    if pattern is not None and reference is not None:
        assert pattern.fits(reference), (pattern, reference)
    if reference is not None and reference.digest is None:
        assert parse_pattern(reference.tagged).fits(reference)


def _sound(reference: Reference) -> None:
    assert parse_reference(str(reference), default_tag=None) == reference
    assert parse_reference(reference.tagged, default_tag=None).name == reference.name
    assert is_registry_host(reference.registry)
    assert len(reference.name) <= NAME_LIMIT
    assert ".." not in reference.name
    assert reference.tag is None or is_tag(reference.tag)
    assert reference.digest is None or is_digest(reference.digest)
    # The address of a node means the same, however often it is looked at; and what it becomes is a name too.
    local = attempt(lambda: reference.at_site(SITE))
    if local is not None:
        assert parse_reference(str(local), default_tag=None) == local


def _path(name: str, ns: str | None) -> None:
    for site in (frozenset[str](), SITE):
        found = attempt(lambda site=site: split_path(name, ns, site))  # type: ignore[misc]
        if found is None:
            continue
        registry, repository = found
        # What is looked up, published and signed is this text: read again, it is the same registry and repository.
        again = parse_reference(f"{registry}/{repository}", default_tag=None)
        assert (again.registry, again.repository) == found, (found, again)
        _sound(again)


def _digest(text: str) -> None:
    digest = attempt(lambda: check_digest(text))
    assert is_digest(text) == (digest is not None)
    if digest is None:
        return
    value = digest.partition(":")[2]
    assert digest == text
    assert digest.isascii() and digest.lower() == digest and not {"/", ".", "\0"} & set(digest)
    assert hasher(digest).digest_size * 2 == len(value)
    path = _STORE.path(digest)
    assert path.parent.parent == _STORE.root / "blobs" and path.name == value
