"""Answer with a blob, whole or a range, from the disk or while it arrives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from flask import Request, Response

from appliance.store.blobs import BlobStore
from appliance.web.blob_provider import Fetcher, Unreachable
from appliance.web.conditions import range_header, unmet
from appliance.web.ranges import Unsatisfiable, parse_range
from appliance.web.responses import error_response
from appliance.web.streaming import BlobBody, BlobSource, FileSource


class Check(Protocol):
    """The last word on a file that is sent whole."""

    def __call__(self, held: FileSource, digest: str, size: int, asked: Request) -> BlobSource:
        """Return what is sent: the file, or another source of the same blob.

        :raises Unreachable: the file is damaged, and no other node can send the blob now.
        """
        ...


def send_blob(
    blobs: BlobStore, fetcher: Fetcher, digest: str, size: int, asked: Request, recheck: Check | None = None
) -> Response:
    """Answer a GET or HEAD of a blob whose digest and size are known, from disk or as it arrives.

    :param size: bytes the signed generation says it has; a file of another size is not served.
    :param recheck: has the last word on a file that is sent whole.
    """
    headers = {
        "Accept-Ranges": "bytes",
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Cache-Control": "max-age=31536000, immutable",
    }
    if (ended := unmet(asked, headers)) is not None:
        return ended
    try:
        wanted = parse_range(range_header(asked, headers["ETag"]), size)
    except Unsatisfiable:
        return error_response(416, "SIZE_INVALID", "the range lies beyond the blob", Content_Range=f"bytes */{size}")
    start, end = wanted or (0, size)
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    source: BlobSource
    opened = blobs.open(digest)
    try:
        if opened is not None and opened[1] == size:
            source = held = FileSource(*opened, failed=lambda: fetcher.suspect(digest))
            if recheck is not None and asked.method == "GET" and 0 == start < end == size:
                source = recheck(held, digest, size, asked)
        else:
            if opened is not None:
                FileSource(*opened).close()
            if asked.method == "HEAD":
                return _blob_head(headers, start, end, wanted is not None)
            source = fetcher.source(digest, size, start)
    except Unreachable as reason:
        return error_response(503, "BLOB_UNKNOWN", f"{digest} is known here but cannot be had now: {reason}")
    if asked.method == "HEAD":
        source.close()
        return _blob_head(headers, start, end, wanted is not None)
    try:
        body = BlobBody(asked.environ, source, start, end)
    except OSError as problem:
        source.close()
        return error_response(503, "BLOB_UNKNOWN", f"{digest} cannot be read now: {problem}")
    response = Response(body, status=206 if wanted else 200, headers=headers, direct_passthrough=True)
    response.headers["Content-Type"] = "application/octet-stream"
    response.headers["Content-Length"] = str(end - start)
    return response


def _blob_head(headers: Mapping[str, str], start: int, end: int, partial: bool) -> Response:
    response = Response(b"", status=206 if partial else 200, headers=dict(headers))
    response.headers["Content-Type"] = "application/octet-stream"
    response.headers["Content-Length"] = str(end - start)
    return response
