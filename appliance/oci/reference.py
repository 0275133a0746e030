"""Image references: one parser for archives, command lines, pushes and HTTP.

Normalisation follows distribution/reference as kubelet and containerd use it; the grammar is that of the OCI
distribution specification.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NoReturn

from appliance.errors import fail
from appliance.oci.digests import check_digest

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255
"""Longest ``registry/repository`` that clients accept, in characters."""

_ALIASES = {"index.docker.io": DEFAULT_REGISTRY, "registry-1.docker.io": DEFAULT_REGISTRY}
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?")
_IDENTIFIER = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """A complete image name.

    :param registry: host, with its port if it has one; ``docker.io`` for the default.
    :param repository: path below the registry, ``library/`` included.
    :param tag: tag, or None for a name that is a digest only.
    :param digest: digest, or None.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """``registry/repository``."""
        return f"{self.registry}/{self.repository}"

    @property
    def tagged(self) -> str:
        """``registry/repository:tag``, the digest left out; the key under which a name is published."""
        return self.name if self.tag is None else f"{self.name}:{self.tag}"

    @property
    def key(self) -> str:
        """The name under which a generation lists it: with a tag the digest is left out.

        A tag is a key by itself: with a digest behind it, a moved tag would stand beside its old self.
        """
        return str(self) if self.tag is None else self.tagged

    def __str__(self) -> str:
        """The whole name, as it can be pulled."""
        return self.tagged if self.digest is None else f"{self.tagged}@{self.digest}"

    def at_site(self, site_addresses: Collection[str]) -> Reference:
        """The name under which the site looks this up: a listed node's address is no registry of its own."""
        if not _is_site(self.registry, site_addresses):
            return self
        registry, repository = split_path(self.repository, None, site_addresses)
        return replace(self, registry=registry, repository=repository)


def is_registry_host(component: str) -> bool:
    """Return whether the first component of a name is a host and not a part of the path.

    The rule of distribution/reference: it holds a dot or a colon, is ``localhost``, or has a capital.
    """
    return "." in component or ":" in component or component == "localhost" or component.lower() != component


def is_tag(text: str) -> bool:
    """Return whether ``text`` is a tag by the distribution specification's grammar."""
    return _TAG.fullmatch(text) is not None


def parse_reference(text: str, *, default_tag: str | None = DEFAULT_TAG, where: str = "") -> Reference:
    """Parse a name as people and archives write it, and normalise it as kubelet does.

    ``nginx`` is ``docker.io/library/nginx:latest``. Both parts of ``name:tag@digest`` are kept.

    :param default_tag: tag for a name that has neither tag nor digest; None leaves it without.
    :param where: file or field for the message.
    :raises ApplianceError: APL-0202 for what does not fit the grammar, APL-0201 for a bad digest.
    """
    rest, at, digest_text = text.partition("@")
    digest = check_digest(digest_text, where or text[:150]) if at else None
    tag: str | None = None
    colon = rest.rfind(":")
    if colon > rest.rfind("/"):
        rest, tag = rest[:colon], rest[colon + 1 :]
        if not is_tag(tag):
            _bad(text, "the part after the colon is not a tag", where)
    if _IDENTIFIER.fullmatch(rest):
        _bad(text, "64 hexadecimal digits are an image id, not a name", where)
    first, slash, remainder = rest.partition("/")
    if slash and is_registry_host(first):
        registry, repository = first, remainder
    else:
        registry, repository = DEFAULT_REGISTRY, rest
    registry, repository = _normalise(registry, repository, text, where)
    if tag is None and digest is None:
        tag = default_tag
    return Reference(registry, repository, tag, digest)


def split_path(path_name: str, ns: str | None, site_addresses: Collection[str] = ()) -> tuple[str, str]:
    """Return the registry and repository of a ``/v2/<path_name>/`` request.

    ``ns`` selects the registry; without it a first path component that looks like a host does; without that
    it is ``docker.io``. The address of a listed node, as ``ns`` or in the path, counts as none.

    :param path_name: the name part of the path, percent-decoded.
    :param ns: the query parameter that containerd sends to mirrors, or None.
    :param site_addresses: ``host`` and ``host:port`` of every listed node, compared exactly but for case.
    :raises ApplianceError: APL-0202.
    """
    if ns and not _is_site(ns, site_addresses):
        if not is_registry_host(ns):
            # "foo/app" written down would be read again as docker.io/foo/app: a name that nobody pushed.
            _bad(f"{ns}/{path_name}", "its registry has no dot, no port and no capital, so it is a path", "ns")
        return _normalise(ns, path_name, f"{ns}/{path_name}", "ns")
    first, slash, remainder = path_name.partition("/")
    if slash and is_registry_host(first):
        if _is_site(first, site_addresses):
            return _normalise(DEFAULT_REGISTRY, remainder, path_name, "")
        return _normalise(first, remainder, path_name, "")
    return _normalise(DEFAULT_REGISTRY, path_name, path_name, "")


def check_registry(host: str, where: str = "") -> str:
    """Return a registry's host in the form used as a key.

    Host names do not depend on case, so they are kept in lower case; a bare word with a capital (``FOO``)
    keeps it, because without it the word would no longer be a host.

    :raises ApplianceError: APL-0202.
    """
    if not _HOST.fullmatch(host):
        _bad(host, "it is not a host name or address with an optional port", where)
    lowered = host.lower()
    return _ALIASES.get(lowered, lowered if is_registry_host(lowered) else host)


def _normalise(registry: str, repository: str, text: str, where: str) -> tuple[str, str]:
    registry = check_registry(registry, where or text[:150])
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    if not _REPOSITORY.fullmatch(repository):
        why = "it has capitals" if repository.lower() != repository else "the path does not fit the grammar"
        _bad(text, why, where)
    if len(registry) + 1 + len(repository) > NAME_LIMIT:
        _bad(text, f"registry and path together are longer than {NAME_LIMIT} characters", where)
    return registry, repository


def _is_site(host: str, site_addresses: Collection[str]) -> bool:
    lowered = host.lower()
    return any(lowered == address.lower() for address in site_addresses)


def _bad(text: str, why: str, where: str) -> NoReturn:
    fail("APL-0202", f"not an image name: {text[:300]!r}", where=where, why=why)
