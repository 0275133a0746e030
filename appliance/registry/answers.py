"""Errors and headers in the form registry clients expect (OCI Distribution 1.1, section on error codes)."""

from __future__ import annotations

import json

from flask import Response


def error(status: int, code: str, message: str, **headers: str) -> Response:
    """An error answer; ``message`` is what skopeo, podman and containerd print, so it is written for people."""
    body = json.dumps({"errors": [{"code": code, "message": message, "detail": None}]})
    response = Response(body, status=status, content_type="application/json")
    for name, value in headers.items():
        response.headers[name.replace("_", "-")] = value
    return response


def document(value: object, content_type: str = "application/json") -> Response:
    """A JSON answer of exact type."""
    return Response(json.dumps(value), content_type=content_type)
