"""Flask application of a listener: every request is checked against the access table before a handler sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from appliance.errors import ApplianceError
from appliance.oci.reference import split_path
from appliance.web.acl import Decision, Identity, Principal, decide, find
from appliance.web.responses import RegistryError, error_response, json_response

Handler = Callable[..., Response]
"""Answers one route; called with the groups of its path."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
API_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}
_REALM = 'Basic realm="appliance", charset="UTF-8"'


def listener(handlers: Mapping[str, Handler], offered: frozenset[Principal], identify: Callable[[], Identity]) -> Flask:
    """An application that answers the routes of the table.

    :param handlers: by the route's name; what the listener offers has one.
    :param offered: the callers that this listener can tell.
    :param identify: says who sent the current request.
    """
    app = bare_app()

    @app.before_request
    def admit() -> Response | None:
        found = find(request.path)
        route, g.arguments = found or (None, {})
        is_open = route is not None and "anybody" in route.callers.get(request.method, ())
        identity = Identity() if is_open else identify()
        verdict = decide(route, request.method, identity, offered)
        if verdict.status != 200:
            return _refuse(verdict, identity, offered)
        g.handler = handlers.get(route.name) if route else None
        g.identity = identity
        return None

    def answer(path: str) -> Response:
        if g.handler is None:
            raise RegistryError(404, "UNSUPPORTED", f"no such resource: /{path}")
        response: Response = g.handler(**g.arguments)
        return response

    app.add_url_rule("/<path:path>", view_func=answer, methods=_METHODS, provide_automatic_options=False)

    @app.after_request
    def name_the_namespace(response: Response) -> Response:
        if "namespace" in g and response.status_code < 400:
            response.headers["OCI-Namespace"] = g.namespace
        return response

    return app


def _refuse(verdict: Decision, identity: Identity, offered: frozenset[Principal]) -> Response:
    if verdict.status == 401:
        # docker looks for the second one before it believes that this is a registry.
        challenge = {"WWW-Authenticate": _REALM, **API_VERSION} if "operator" in offered else {}
        return error_response(
            401, "UNAUTHORIZED", identity.problem or "credentials of an operator are needed", **challenge
        )
    if verdict.status == 403:
        return error_response(403, "DENIED", identity.problem or f"this is for nodes of the site: {request.path}")
    if verdict.status == 405:
        why = (
            f"{request.method} is not for {request.path}"
            if "operator" in offered
            else "this listener serves pulls only"
        )
        return error_response(405, "UNSUPPORTED", why, Allow=", ".join(verdict.allow))
    return error_response(404, "UNSUPPORTED", f"no such resource: {request.path}")


def repository_of(name: str, site_addresses: Collection[str], status: int = 400) -> str:
    """The full repository (``docker.io/library/nginx``) that the current request means by ``name`` and ``ns``.

    :param status: of the answer to a name that cannot be.
    """
    namespace = request.args.get("ns")
    try:
        registry, path = split_path(name, namespace, site_addresses)
    except ApplianceError as problem:
        raise RegistryError(status, "NAME_INVALID", str(problem)) from problem
    if namespace:
        g.namespace = registry
    return f"{registry}/{path}"


def bare_app() -> Flask:
    """A Flask application that neither redirects nor merges slashes: ``//`` is never another repository's name."""
    # Not "appliance": what the server logs would pass the handler that Flask gives its logger, which writes to the server's log.
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = False
    app.add_url_rule("/healthz", view_func=lambda: json_response({"status": "ok"}), endpoint="healthz")

    @app.before_request
    def plain_query() -> None:
        # RFC 3986 has ASCII only; Werkzeug's parser of the query raises UnicodeDecodeError for what is not even UTF-8.
        if not request.query_string.isascii():
            raise RegistryError(400, "UNSUPPORTED", "the query has bytes that are to be percent-encoded")

    @app.errorhandler(RegistryError)
    def refusal(problem: RegistryError) -> Response:
        return problem.answer()

    @app.errorhandler(HTTPException)
    def refused(problem: HTTPException) -> Response:
        # Registry clients print what stands in the JSON, and nothing of an HTML page.
        allowed = (
            {"Allow": ", ".join(sorted(problem.valid_methods or ()))} if isinstance(problem, MethodNotAllowed) else {}
        )
        return error_response(problem.code or 500, "UNSUPPORTED", f"{problem.name}: {request.path}", **allowed)

    @app.errorhandler(ApplianceError)
    @app.errorhandler(OSError)
    def known(problem: Exception) -> Response:
        app.logger.error("%s", problem)
        return error_response(503, "UNKNOWN", str(problem))

    return app
