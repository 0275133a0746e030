"""Cache of recent answers, which bypasses Flask.

While a site starts, each node's containerd asks for the same few manifests by tag again and again, first by HEAD and
then by GET. What is kept was verified against its digest when it was read, and is forgotten with the catalog it
belongs to.

Decision 35.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from appliance.errors import ApplianceError
from appliance.store.catalog import Catalog, LiveCatalog

_MOST_BYTES = 2 << 20
"""Together, in each worker; some hundred manifests."""
_LARGEST = 64 << 10
_CONDITIONS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH")
"""The two headers that an answer depends on, beside method, path and query."""

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Recent:
    """WSGI middleware before a registry whose answers depend on method, path, query and those conditions alone.

    Never before one that asks who is calling: an answer kept for one caller would be given to another.

    :param listed: gives what names mean beside the catalog, the list of nodes; another object forgets all answers.
    """

    def __init__(
        self, application: Application, catalog: LiveCatalog, listed: Callable[[], object] = lambda: None
    ) -> None:
        self._application = application
        self._current = catalog
        self._listed = listed
        self._catalog: Catalog | None = None
        self._list: object = None
        self._answers: dict[tuple[str, str, str], tuple[str, list[tuple[str, str]], bytes]] = {}
        self._bytes = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer from memory, or let the application answer and keep what it says."""
        key = (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
        if key[0] not in ("GET", "HEAD") or "/manifests/" not in key[1] or any(map(environ.get, _CONDITIONS)):
            return self._application(environ, start_response)
        try:
            catalog = self._current.get()
        except (ApplianceError, OSError):
            # The application meets the same trouble, and says so.
            return self._application(environ, start_response)
        listed = self._listed()
        if catalog is not self._catalog or listed is not self._list:
            self._forget()
            self._catalog, self._list = catalog, listed
        known = self._answers.get(key)
        if known is not None:
            status, headers, content = known
            start_response(status, headers)
            return (content,)
        return self._ask(key, catalog, environ, start_response)

    def _ask(
        self, key: tuple[str, str, str], catalog: Catalog, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        said: list[tuple[str, list[tuple[str, str]]]] = []

        def listen(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            said.append((status, headers))
            return start_response(status, headers, *more)

        body = self._application(environ, listen)
        try:
            content = b"".join(body)
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        status, headers = said[-1]
        # A catalog that came meanwhile is looked at by the next request.
        if status == "200 OK" and len(content) <= _LARGEST and catalog is self._catalog:
            if self._bytes + len(content) > _MOST_BYTES:
                self._forget()
            self._bytes += len(content) + 1024
            self._answers[key] = (status, headers, content)
        return (content,)

    def _forget(self) -> None:
        self._answers.clear()
        self._bytes = 0
