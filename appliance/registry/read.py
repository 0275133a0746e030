"""The read side of the registry as a Flask application.

Every answer is decided before its status line: the file is open, its size known, its first byte at hand. What the
site does not have is 404 from memory; what it knows and cannot reach now is 503 with the reason. Never 429, which
containerd hammers, and never an empty 200, after which it asks nobody else.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, request

from appliance.errors import ApplianceError
from appliance.oci import mediatypes
from appliance.oci.digests import check_digest, digest_of
from appliance.oci.manifests import MANIFEST_LIMIT, Descriptor
from appliance.oci.reference import is_tag
from appliance.registry.recheck import Recheck
from appliance.registry.repeats import Repeats
from appliance.store.blobs import BlobStore
from appliance.store.catalog import Catalog, LiveCatalog
from appliance.store.uploads import Uploads
from appliance.web.acl import Identity
from appliance.web.blob_provider import Fetcher, Unreachable
from appliance.web.blobs import send_blob
from appliance.web.conditions import unmet
from appliance.web.listener import API_VERSION, Handler, listener, repository_of
from appliance.web.responses import RegistryError, error_response, json_response

_PAGE = 1000
_REFERRERS_BYTES = MANIFEST_LIMIT - 1024
"""Of a page of referrers: clients read it as an index, and take 4 MiB of one. Annotations are a matter of who pushed."""


class Registry:
    """Answers ``/v2/`` from one store.

    :param blobs: the store.
    :param catalog: what is current.
    :param fetcher: gets what other nodes hold.
    :param site_addresses: spellings of listed nodes that mean "no namespace" when sent as ``ns``.
    :param uploads: what repositories uploaded, where pushing is on.
    :param repeats: what was asked for before; None: nothing is hashed before it is sent again.
    """

    def __init__(
        self,
        blobs: BlobStore,
        catalog: LiveCatalog,
        fetcher: Fetcher,
        site_addresses: Collection[str],
        uploads: Uploads | None = None,
        repeats: Repeats | None = None,
    ) -> None:
        self._blobs = blobs
        self._catalog = catalog
        self._fetcher = fetcher
        self._site = site_addresses
        self._uploads = uploads
        self._recheck = None if repeats is None else Recheck(blobs, fetcher, repeats)

    def handlers(self) -> dict[str, Handler]:
        """The reading routes of the table, by name; each takes what the path's groups say."""
        return {
            "version": version,
            "catalog": self._list_repositories,
            "tags": self._list_tags,
            "manifest": self._manifest,
            "blob": self._blob,
            "referrers": self._referrers,
        }

    def _manifest(self, name: str, reference: str) -> Response:
        repository = repository_of(name, self._site)
        catalog = self._catalog.get(repository if ":" in reference else None)
        if ":" in reference:
            try:
                check_digest(reference)
            except ApplianceError as problem:
                return error_response(404, "DIGEST_INVALID", str(problem))
        elif not is_tag(reference):
            return error_response(404, "MANIFEST_UNKNOWN", f"not a tag: {reference[:200]!r}")
        descriptor = catalog.manifest(repository, reference)
        if descriptor is None and ":" in reference and self._brought_back(repository, catalog):
            descriptor = catalog.manifest(repository, reference)
        if descriptor is None:
            known = catalog.tags(repository) is not None
            return error_response(
                404,
                "MANIFEST_UNKNOWN" if known else "NAME_UNKNOWN",
                f"{repository} has no {reference} in {_generation(catalog)}"
                if known
                else f"{repository} is not among the repositories of {_generation(catalog)}",
            )
        return _verbatim(self._read(descriptor), descriptor)

    def _brought_back(self, repository: str, catalog: Catalog) -> bool:
        """Before something is called unknown: bring back the manifests that may list it. Says whether there were any."""
        lost = catalog.unreadable(repository)
        for descriptor in lost:
            self._mend(descriptor)
        return bool(lost)

    def _read(self, descriptor: Descriptor) -> bytes:
        """A manifest, verified. Every node holds each, so one that is lost or damaged is this store's trouble."""
        content = self._verified(descriptor.digest)
        if content is None:
            self._mend(descriptor)
            content = self._verified(descriptor.digest)
        if content is None:
            raise RegistryError(
                503, "MANIFEST_UNKNOWN", f"{descriptor.digest} cannot be read here; run 'appliance fsck'"
            )
        return content

    def _verified(self, digest: str) -> bytes | None:
        try:
            content = self._blobs.read(digest, MANIFEST_LIMIT)
        except (ApplianceError, OSError):
            return None
        return content if digest_of(content, digest.partition(":")[0]) == digest else None

    def _mend(self, descriptor: Descriptor) -> None:
        try:
            self._fetcher.mend(descriptor.digest, descriptor.size)
        except Unreachable as reason:
            why = f"{descriptor.digest} is lost or damaged here and cannot be had now: {reason}"
            raise RegistryError(503, "MANIFEST_UNKNOWN", why) from reason

    def _blob(self, name: str, digest: str) -> Response:
        # A blob of a name that cannot be is one that is not here.
        repository = repository_of(name, self._site, status=404)
        catalog = self._catalog.get(repository)
        try:
            check_digest(digest)
        except ApplianceError as problem:
            return error_response(404, "DIGEST_INVALID", str(problem))
        descriptor = catalog.blob(repository, digest)
        if descriptor is None and self._brought_back(repository, catalog):
            descriptor = catalog.blob(repository, digest)
        size = descriptor.size if descriptor is not None else self._uploaded(repository, digest)
        if size is None:
            return error_response(
                404, "BLOB_UNKNOWN", f"no name of {repository} in {_generation(catalog)} reaches {digest}"
            )
        return send_blob(self._blobs, self._fetcher, digest, size, request, self._recheck)

    def _uploaded(self, repository: str, digest: str) -> int | None:
        """Bytes of a blob that the repository uploaded and that no manifest came for yet."""
        if self._uploads is None or not self._uploads.is_linked(repository, digest):
            return None
        return self._blobs.size(digest)

    def _list_tags(self, name: str) -> Response:
        repository, catalog = repository_of(name, self._site), self._catalog.get()
        tags = catalog.tags(repository)
        if tags is None:
            return error_response(
                404, "NAME_UNKNOWN", f"{repository} is not among the repositories of {_generation(catalog)}"
            )
        page, more = _page(sorted(tags), request.args)
        if isinstance(page, Response):
            return page
        response = json_response({"name": name, "tags": page})
        if more:
            _link(response, f"/v2/{quote(name)}/tags/list", page[-1], len(page))
        return response

    def _list_repositories(self) -> Response:
        page, more = _page(self._catalog.get().repositories(), request.args)
        if isinstance(page, Response):
            return page
        response = json_response({"repositories": page})
        if more:
            _link(response, "/v2/_catalog", page[-1], len(page))
        return response

    def _referrers(self, name: str, digest: str) -> Response:
        repository = repository_of(name, self._site)
        catalog = self._catalog.get(repository)
        try:
            check_digest(digest)
        except ApplianceError as problem:
            return error_response(400, "DIGEST_INVALID", str(problem))
        wanted, last = request.args.get("artifactType"), request.args.get("last", "")
        found: list[dict[str, Any]] = []
        length, more = 0, False
        for descriptor, manifest in catalog.referrers(repository, digest):
            if descriptor.digest <= last:
                continue
            item: dict[str, Any] = {
                "mediaType": descriptor.media_type,
                "digest": descriptor.digest,
                "size": descriptor.size,
            }
            kind = manifest.referrer_type
            if kind:
                item["artifactType"] = kind
            if manifest.annotations:
                item["annotations"] = dict(manifest.annotations)
            if wanted is not None and kind != wanted:
                continue
            length += len(json.dumps(item)) + 2
            if found and (length > _REFERRERS_BYTES or len(found) >= _PAGE):
                more = True
                break
            found.append(item)
        response = json_response(
            {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": found}, mediatypes.OCI_INDEX
        )
        if wanted is not None:
            response.headers["OCI-Filters-Applied"] = "artifactType"
        if more:
            _link(response, f"/v2/{quote(name)}/referrers/{digest}", found[-1]["digest"], _PAGE, artifactType=wanted)
        return response


def version() -> Response:
    """That the specification is implemented (end-1); docker asks this first."""
    response = json_response({})
    response.headers.update(API_VERSION)
    return response


def _verbatim(content: bytes, descriptor: Descriptor) -> Response:
    headers = {
        # The media type as it was given: no charset, which clients would compare as a part of it.
        "Content-Type": descriptor.media_type,
        "Content-Length": str(len(content)),
        "Docker-Content-Digest": descriptor.digest,
        "ETag": f'"{descriptor.digest}"',
    }
    response = Response([] if request.method == "HEAD" else [content], headers=headers)
    return unmet(request, response.headers) or response


def _page(items: list[str], arguments: Mapping[str, str]) -> tuple[Any, bool]:
    last = arguments.get("last")
    if last is not None:
        items = items[bisect_right(items, last) :]
    limit = _PAGE
    if "n" in arguments:
        if not arguments["n"].isdecimal():
            return error_response(400, "UNSUPPORTED", "n is not a number"), False
        # Clamped before it is used: CVE-2023-2253 was an allocation by a huge n.
        limit = min(_PAGE, int(arguments["n"][:9]))
    page = items[:limit]
    return page, bool(page) and len(items) > len(page)


def _link(response: Response, path: str, last: str, count: int, **more: str | None) -> None:
    asked = {"ns": request.args.get("ns"), **more}
    kept = "".join(f"&{key}={quote(value, safe='')}" for key, value in asked.items() if value)
    response.headers["Link"] = f'<{path}?n={count}&last={quote(last, safe="")}{kept}>; rel="next"'


def _generation(catalog: Catalog) -> str:
    seeded = f"generation {catalog.generation.number}" if catalog.generation else "this store, which was never seeded"
    return f"{seeded}, or among what was pushed ({catalog.pushed.number})" if catalog.pushed else seeded


def create_app(registry: Registry) -> Flask:
    """The application of the local listener: ``/v2/`` for reading, and a health route."""
    return listener(registry.handlers(), frozenset({"local"}), lambda: Identity(frozenset({"local"})))
