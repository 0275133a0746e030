"""Proof that a mirror serves the bytes that the site's generation lists: a client downloads and hashes them.

Decision 72.
"""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

from appliance.errors import ApplianceError, fail
from appliance.oci.digests import digest_of, hasher
from appliance.oci.manifests import MANIFEST_LIMIT, Descriptor, Manifest, parse_manifest
from appliance.oci.mediatypes import INDEX_TYPES, MANIFEST_TYPES
from appliance.oci.reference import parse_reference
from appliance.store.index import Entry

_PATIENCE = 20.0
_BLOCK = 1 << 20
SAMPLE_NAMES = 16
"""Names that a sample looks at, at most: where all layers are larger than the limit, it ends all the same."""
_HEADERS = {"Accept": ", ".join(sorted(MANIFEST_TYPES | INDEX_TYPES))}


@dataclass(frozen=True)
class Wrong:
    """A name that the mirror does not answer as it should.

    :param expected: digest that is listed.
    :param answered: digest of what came, or why nothing did.
    """

    name: str
    expected: str
    answered: str


@dataclass
class Sample:
    """Result of a sample: some images of a mirror, pulled whole.

    :param names: names whose manifests were pulled.
    :param blobs: blobs that were pulled.
    :param bytes: their size together.
    :param pull: a name that was proved whole, for a pull by containerd; empty where none fits the limit.
    :param wrong: manifests and blobs with another digest than the listed one, or without an answer.
    """

    names: list[str] = field(default_factory=list)
    blobs: int = 0
    bytes: int = 0
    pull: str = ""
    wrong: list[Wrong] = field(default_factory=list)


def prove(names: Mapping[str, Entry], address: str) -> list[Wrong]:
    """Pull the manifest of every name as containerd does, by registry, repository and tag, and hash it.

    :param address: ``host:port`` where the mirror takes plain HTTP.
    :raises ApplianceError: APL-0404 when nobody answers there.
    """
    with _connected(address) as connection:
        wrong = []
        for name, entry in names.items():
            expected = entry.descriptor.digest
            answered = _manifest(connection, name, "", expected)[0]
            if answered != expected:
                wrong.append(Wrong(name, expected, answered))
        return wrong


def prove_sample(names: Mapping[str, Entry], address: str, limit: int, seed: str) -> Sample:
    """Pull some names whole, layers included, and hash every byte.

    :param address: ``host:port`` where the mirror takes plain HTTP.
    :param limit: bytes of blobs that are pulled at most; a larger layer is left out.
    :param seed: says which names; another seed, other names.
    :raises ApplianceError: APL-0404 when nobody answers there.
    """
    sample = Sample()
    with _connected(address) as connection:
        for name in sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())[:SAMPLE_NAMES]:
            if sample.bytes >= limit:
                break
            _prove_whole(connection, name, names[name], sample, limit)
    return sample


def _prove_whole(connection: http.client.HTTPConnection, name: str, entry: Entry, sample: Sample, limit: int) -> None:
    sample.names.append(name)
    blobs, pending, sound = dict[str, Descriptor](), [entry.descriptor.digest], len(sample.wrong)
    for number, expected in enumerate(_growing(pending)):
        answered, body = _manifest(connection, name, expected if number else "", expected)
        if answered != expected:
            sample.wrong.append(Wrong(name, expected, answered))
            continue
        for child in _children(body):
            if child.digest in entry.absent:
                continue
            if child.media_type in MANIFEST_TYPES | INDEX_TYPES:
                pending.append(child.digest)
            else:
                blobs[child.digest] = child
    fits = sample.bytes + sum(blob.size for blob in blobs.values()) <= limit
    for blob in sorted(blobs.values(), key=lambda blob: blob.size):
        if sample.bytes + blob.size > limit:
            break
        answered = _blob(connection, name, blob)
        sample.blobs, sample.bytes = sample.blobs + 1, sample.bytes + blob.size
        if answered != blob.digest:
            sample.wrong.append(Wrong(name, blob.digest, answered))
    if fits and not sample.pull and len(sample.wrong) == sound:
        sample.pull = name


def _growing(items: list[str]) -> Iterator[str]:
    """Yield the items of a list that grows meanwhile, each once."""
    seen = set()
    for item in items:
        if item not in seen:
            seen.add(item)
            yield item


def _children(body: bytes) -> Iterable[Descriptor]:
    try:
        manifest: Manifest = parse_manifest(body)
    except ApplianceError:
        # The digest is right, so the document was published like that.
        return ()
    return (*manifest.manifests, *((manifest.config,) if manifest.config else ()), *manifest.layers)


@contextmanager
def _connected(address: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(address, timeout=_PATIENCE)
    try:
        yield connection
    except (OSError, http.client.HTTPException) as error:
        fail(
            "APL-0404",
            "the mirror of this node does not answer",
            where=address,
            why=str(error) or type(error).__name__,
            fix="See 'systemctl status appliance-mirror'",
        )
    finally:
        connection.close()


def _manifest(connection: http.client.HTTPConnection, name: str, digest: str, expected: str) -> tuple[str, bytes]:
    """Return the digest of a manifest and its bytes; the status and reason instead where the mirror has none.

    :param digest: the reference to ask for; empty: the tag of the name.
    :param expected: the listed digest; the answer is hashed by its algorithm.
    """
    response = _asked(connection, name, "manifests", digest)
    body = response.read(MANIFEST_LIMIT + 1)
    if response.status != http.client.OK:
        connection.close()
        return f"{response.status} {_reason(body)}", b""
    return digest_of(body, expected.partition(":")[0]), body


def _blob(connection: http.client.HTTPConnection, name: str, blob: Descriptor) -> str:
    """Return the digest of a blob as it came; the status and reason instead where the mirror has none."""
    response = _asked(connection, name, "blobs", blob.digest)
    if response.status != http.client.OK:
        reason = _reason(response.read(_BLOCK))
        connection.close()
        return f"{response.status} {reason}"
    algorithm = blob.digest.partition(":")[0]
    hashed = hasher(algorithm)
    while block := response.read(_BLOCK):
        hashed.update(block)
    return f"{algorithm}:{hashed.hexdigest()}"


def _asked(connection: http.client.HTTPConnection, name: str, kind: str, digest: str) -> http.client.HTTPResponse:
    reference = parse_reference(name)
    target = digest or reference.tag or reference.digest
    path = f"/v2/{reference.repository}/{kind}/{target}?ns={quote(reference.registry, safe='')}"
    try:
        return _get(connection, path)
    except (ConnectionError, http.client.RemoteDisconnected):
        # A worker that was replaced takes its kept-alive connections along; the next one answers.
        connection.close()
        return _get(connection, path)


def _reason(body: bytes) -> str:
    """Return the message of a registry's errors document, or the first bytes of another answer."""
    try:
        return str(json.loads(body)["errors"][0]["message"])
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return body[:200].decode(errors="replace")


def _get(connection: http.client.HTTPConnection, path: str) -> http.client.HTTPResponse:
    connection.request("GET", path, headers=_HEADERS)
    return connection.getresponse()
