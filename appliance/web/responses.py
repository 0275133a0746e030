"""Errors and headers in the form registry clients expect (OCI Distribution 1.1, section on error codes)."""

from __future__ import annotations

import json

from flask import Response

from appliance.words import one_line


def error_response(status: int, code: str, message: str, **headers: str) -> Response:
    """An error answer; ``message`` is what skopeo, podman and containerd print, so it is written for people."""
    body = json.dumps({"errors": [{"code": code, "message": one_line(message), "detail": None}]})
    response = Response(body, status=status, content_type="application/json")
    for name, value in headers.items():
        response.headers[name.replace("_", "-")] = value
    return response


class RegistryError(Exception):
    """Ends a request with an error answer; the parameters are those of :func:`error_response`."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers

    def answer(self) -> Response:
        """Return the answer for the client."""
        return error_response(self.status, self.code, str(self), **self.headers)


def json_response(value: object, content_type: str = "application/json") -> Response:
    """A JSON answer of exact type."""
    return Response(json.dumps(value), content_type=content_type)
