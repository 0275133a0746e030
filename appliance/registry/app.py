"""The read side of the registry as a Flask application.

Every answer is decided before its status line: the file is open, its size known, its first byte at hand. What the
site does not have is 404 from memory; what it knows and cannot reach now is 503 with the reason. Never 429, which
containerd hammers, and never an empty 200, after which it asks nobody else.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote

from flask import Blueprint, Flask, Request, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from appliance.errors import ApplianceError
from appliance.oci import mediatypes
from appliance.oci.digests import check_digest, digest_of
from appliance.oci.manifests import MANIFEST_LIMIT, Descriptor
from appliance.oci.names import split_path
from appliance.registry.answers import document, error
from appliance.registry.body import Body, Source, WholeFile
from appliance.registry.catalog import Catalog, CurrentCatalog
from appliance.registry.ranges import Unsatisfiable, parse_range
from appliance.store.blobs import BlobStore

_ROUTE = re.compile(r"(?P<name>.+)/(?P<kind>manifests|blobs|referrers)/(?P<reference>[^/]+)|(?P<tags>.+)/tags/list")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_PAGE = 1000


class Unreachable(Exception):
    """A blob the site knows cannot be had now; the text says why."""


class Fetcher(Protocol):
    """Gets blobs that other nodes hold."""

    def source(self, digest: str, size: int, start: int) -> Source:
        """Bytes of a blob from ``start`` on; returns when the first is at hand, raises :class:`Unreachable`."""
        ...


class NoFetcher:
    """For a store without a site: what is not here cannot be had."""

    def source(self, digest: str, size: int, start: int) -> Source:
        """Always unreachable."""
        raise Unreachable("this store has no peers to fetch it from")


class Registry:
    """Answers ``/v2/`` from one store.

    :param blobs: the store.
    :param catalog: what is current.
    :param fetcher: gets what other nodes hold.
    :param site_addresses: spellings of listed nodes that mean "no namespace" when sent as ``ns``.
    """

    def __init__(
        self, blobs: BlobStore, catalog: CurrentCatalog, fetcher: Fetcher, site_addresses: frozenset[str]
    ) -> None:
        self._blobs = blobs
        self._catalog = catalog
        self._fetcher = fetcher
        self._site = site_addresses

    def blueprint(self) -> Blueprint:
        """The routes, to be registered on an application."""
        routes = Blueprint("registry", __name__)
        routes.add_url_rule("/v2/", view_func=self._version, methods=["GET", "HEAD"], endpoint="version")
        routes.add_url_rule("/v2", view_func=self._version, methods=["GET", "HEAD"], endpoint="version-bare")
        routes.add_url_rule("/v2/_catalog", view_func=self._list_repositories, methods=["GET"], endpoint="catalog")
        routes.add_url_rule(
            "/v2/<path:rest>",
            view_func=self._named,
            methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            endpoint="named",
        )
        return routes

    def _version(self) -> Response:
        response = document({})
        response.headers["Docker-Distribution-API-Version"] = "registry/2.0"
        return response

    def _named(self, rest: str) -> Response:
        if request.method not in ("GET", "HEAD"):
            return error(405, "UNSUPPORTED", "this listener serves pulls only", Allow="GET, HEAD")
        match = _ROUTE.fullmatch(rest)
        if match is None:
            return error(404, "UNSUPPORTED", f"no such resource: /v2/{rest}")
        namespace = request.args.get("ns")
        try:
            registry, path = split_path(match["name"] or match["tags"], namespace, self._site)
        except ApplianceError as problem:
            return error(400 if match["kind"] != "blobs" else 404, "NAME_INVALID", str(problem))
        repository = f"{registry}/{path}"
        catalog = self._catalog.get()
        if match["tags"]:
            response = self._list_tags(catalog, repository, match["tags"])
        elif match["kind"] == "manifests":
            response = self._manifest(catalog, repository, match["reference"])
        elif match["kind"] == "blobs":
            response = self._blob(catalog, repository, match["reference"])
        else:
            response = self._referrers(catalog, repository, match["reference"])
        if namespace and response.status_code < 400:
            response.headers["OCI-Namespace"] = registry
        return response

    def _manifest(self, catalog: Catalog, repository: str, reference: str) -> Response:
        if ":" in reference:
            try:
                check_digest(reference)
            except ApplianceError as problem:
                return error(404, "DIGEST_INVALID", str(problem))
        elif not _TAG.fullmatch(reference):
            return error(404, "MANIFEST_UNKNOWN", f"not a tag: {reference[:200]!r}")
        descriptor = catalog.manifest(repository, reference)
        if descriptor is None:
            known = catalog.tags(repository) is not None
            return error(
                404,
                "MANIFEST_UNKNOWN" if known else "NAME_UNKNOWN",
                f"{repository} has no {reference} in {_generation(catalog)}"
                if known
                else f"{repository} is not among the repositories of {_generation(catalog)}",
            )
        # Every node holds every manifest, so one that is lost or damaged is this store's trouble, not a miss.
        content = self._blobs.read(descriptor.digest, MANIFEST_LIMIT)
        if digest_of(content, descriptor.digest.partition(":")[0]) != descriptor.digest:
            return error(503, "MANIFEST_UNKNOWN", f"{descriptor.digest} is damaged here; run 'appliance fsck'")
        return _verbatim(content, descriptor)

    def _blob(self, catalog: Catalog, repository: str, digest: str) -> Response:
        try:
            check_digest(digest)
        except ApplianceError as problem:
            return error(404, "DIGEST_INVALID", str(problem))
        descriptor = catalog.blob(repository, digest)
        if descriptor is None:
            return error(404, "BLOB_UNKNOWN", f"no name of {repository} in {_generation(catalog)} reaches {digest}")
        return send_blob(self._blobs, self._fetcher, descriptor.digest, descriptor.size, request)

    def _list_tags(self, catalog: Catalog, repository: str, asked: str) -> Response:
        tags = catalog.tags(repository)
        if tags is None:
            return error(404, "NAME_UNKNOWN", f"{repository} is not among the repositories of {_generation(catalog)}")
        page, more = _page(sorted(tags), request.args)
        if isinstance(page, Response):
            return page
        response = document({"name": asked, "tags": page})
        if more:
            _link(response, f"/v2/{quote(asked)}/tags/list", page[-1], len(page))
        return response

    def _list_repositories(self) -> Response:
        page, more = _page(self._catalog.get().repositories(), request.args)
        if isinstance(page, Response):
            return page
        response = document({"repositories": page})
        if more:
            _link(response, "/v2/_catalog", page[-1], len(page))
        return response

    def _referrers(self, catalog: Catalog, repository: str, digest: str) -> Response:
        try:
            check_digest(digest)
        except ApplianceError as problem:
            return error(400, "DIGEST_INVALID", str(problem))
        wanted = request.args.get("artifactType")
        found = []
        for descriptor, manifest in catalog.referrers(repository, digest):
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
            if wanted is None or kind == wanted:
                found.append(item)
        response = document(
            {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": found}, mediatypes.OCI_INDEX
        )
        if wanted is not None:
            response.headers["OCI-Filters-Applied"] = "artifactType"
        return response


def send_blob(blobs: BlobStore, fetcher: Fetcher, digest: str, size: int, asked: Request) -> Response:
    """Answer a GET or HEAD of a blob whose digest and size are known, from disk or as it arrives.

    :param size: bytes the signed generation says it has; a file of another size is not served.
    """
    headers = {
        "Accept-Ranges": "bytes",
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Cache-Control": "max-age=31536000, immutable",
    }
    try:
        wanted = parse_range(asked.headers.get("Range"), size)
    except Unsatisfiable:
        return error(416, "SIZE_INVALID", "the range lies beyond the blob", Content_Range=f"bytes */{size}")
    start, end = wanted or (0, size)
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    source: Source
    opened = blobs.open(digest)
    if opened is not None and opened[1] == size:
        source = WholeFile(*opened)
    else:
        if opened is not None:
            WholeFile(*opened).close()
        if asked.method == "HEAD":
            return _blob_head(headers, start, end, wanted is not None)
        try:
            source = fetcher.source(digest, size, start)
        except Unreachable as reason:
            return error(503, "BLOB_UNKNOWN", f"{digest} is known here but cannot be had now: {reason}")
    if asked.method == "HEAD":
        source.close()
        return _blob_head(headers, start, end, wanted is not None)
    try:
        body = Body(asked.environ, source, start, end)
    except OSError as problem:
        source.close()
        return error(503, "BLOB_UNKNOWN", f"{digest} cannot be read now: {problem}")
    response = Response(body, status=206 if wanted else 200, headers=headers, direct_passthrough=True)
    response.headers["Content-Type"] = "application/octet-stream"
    response.headers["Content-Length"] = str(end - start)
    return response


def _blob_head(headers: Mapping[str, str], start: int, end: int, partial: bool) -> Response:
    response = Response(b"", status=206 if partial else 200, headers=dict(headers))
    response.headers["Content-Type"] = "application/octet-stream"
    response.headers["Content-Length"] = str(end - start)
    return response


def _verbatim(content: bytes, descriptor: Descriptor) -> Response:
    headers = {
        # The media type as it was given: no charset, which clients would compare as a part of it.
        "Content-Type": descriptor.media_type,
        "Content-Length": str(len(content)),
        "Docker-Content-Digest": descriptor.digest,
        "ETag": f'"{descriptor.digest}"',
    }
    return Response([] if request.method == "HEAD" else [content], headers=headers)


def _page(items: list[str], arguments: Mapping[str, str]) -> tuple[Any, bool]:
    last = arguments.get("last")
    if last is not None:
        items = items[bisect_right(items, last) :]
    limit = _PAGE
    if "n" in arguments:
        if not arguments["n"].isdecimal():
            return error(400, "UNSUPPORTED", "n is not a number"), False
        # Clamped before it is used: CVE-2023-2253 was an allocation by a huge n.
        limit = min(_PAGE, int(arguments["n"][:9]))
    page = items[:limit]
    return page, bool(page) and len(items) > len(page)


def _link(response: Response, path: str, last: str, count: int) -> None:
    namespace = request.args.get("ns")
    kept = f"&ns={quote(namespace, safe='')}" if namespace else ""
    response.headers["Link"] = f'<{path}?n={count}&last={quote(last, safe="")}{kept}>; rel="next"'


def _generation(catalog: Catalog) -> str:
    return f"generation {catalog.generation.number}" if catalog.generation else "this store, which was never seeded"


def create_app(registry: Registry) -> Flask:
    """The application of the local listener: ``/v2/`` and a health route."""
    app = bare_app()
    app.register_blueprint(registry.blueprint())
    return app


def bare_app() -> Flask:
    """A Flask application that neither redirects nor merges slashes: ``//`` is never another repository's name."""
    app = Flask("appliance", static_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = False
    app.add_url_rule("/healthz", view_func=lambda: document({"status": "ok"}), endpoint="healthz")

    @app.errorhandler(HTTPException)
    def refused(problem: HTTPException) -> Response:
        # Registry clients print what stands in the JSON, and nothing of an HTML page.
        allowed = (
            {"Allow": ", ".join(sorted(problem.valid_methods or ()))} if isinstance(problem, MethodNotAllowed) else {}
        )
        return error(problem.code or 500, "UNSUPPORTED", f"{problem.name}: {request.path}", **allowed)

    @app.errorhandler(ApplianceError)
    @app.errorhandler(OSError)
    def known(problem: Exception) -> Response:
        app.logger.error("%s", problem)
        return error(503, "UNKNOWN", str(problem))

    return app
