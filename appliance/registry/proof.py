"""Whether a mirror answers each name with the bytes that the site's generation lists for it: asked, not believed."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from appliance.errors import fail
from appliance.oci.digests import digest_of
from appliance.oci.manifests import MANIFEST_LIMIT
from appliance.oci.mediatypes import INDEX_TYPES, MANIFEST_TYPES
from appliance.oci.names import parse_reference
from appliance.store.signed import Entry

_PATIENCE = 20.0
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


def prove(names: Mapping[str, Entry], address: str) -> list[Wrong]:
    """Pull the manifest of every name as containerd does, by registry, repository and tag, and hash it.

    :param address: ``host:port`` where the mirror takes plain HTTP.
    :raises ApplianceError: APL-0404 when nobody answers there.
    """
    connection = http.client.HTTPConnection(address, timeout=_PATIENCE)
    try:
        wrong = []
        for name, entry in names.items():
            expected = entry.descriptor.digest
            answered = _answer(connection, name, expected.partition(":")[0])
            if answered != expected:
                wrong.append(Wrong(name, expected, answered))
        return wrong
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


def _answer(connection: http.client.HTTPConnection, name: str, algorithm: str) -> str:
    reference = parse_reference(name)
    path = f"/v2/{reference.repository}/manifests/{reference.tag or reference.digest}?ns={quote(reference.registry, safe='')}"
    try:
        response = _get(connection, path)
    except (ConnectionError, http.client.RemoteDisconnected):
        # A worker that was replaced takes its kept-alive connections along; the next one answers.
        connection.close()
        response = _get(connection, path)
    body = response.read(MANIFEST_LIMIT + 1)
    if response.status != http.client.OK:
        connection.close()
        return f"{response.status} {_reason(body)}"
    return digest_of(body, algorithm)


def _reason(body: bytes) -> str:
    """What a registry says in its errors document, else the beginning of whatever it is."""
    try:
        return str(json.loads(body)["errors"][0]["message"])
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return body[:200].decode(errors="replace")


def _get(connection: http.client.HTTPConnection, path: str) -> http.client.HTTPResponse:
    connection.request("GET", path, headers=_HEADERS)
    return connection.getresponse()
