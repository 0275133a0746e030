"""The write side of the registry: uploads, manifests, deletions.

Blobs first, each verified before it is one; then manifests, children before what lists them; then names, by one
rename of the signed index. Whatever ends a push in between leaves what was served.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from urllib.parse import quote, urlencode

from flask import Response, current_app, g, request

from appliance.errors import ApplianceError, http_of
from appliance.oci.digests import check_digest, digest_of, hasher
from appliance.oci.manifests import MANIFEST_LIMIT, Descriptor, parse_manifest
from appliance.oci.reference import is_tag
from appliance.publish.pushes import Publishing
from appliance.store.uploads import Upload, UploadBusy, Uploads
from appliance.threads import pipe_to_thread, run_in_thread
from appliance.web import request_body
from appliance.web.connection import BrokenBody
from appliance.web.listener import Handler, repository_of
from appliance.web.responses import RegistryError

TAGS_AT_ONCE = 50
"""Tags that one manifest may be pushed under in one request."""


class Pushing:
    """The writing routes of one node.

    :param admit: refuses where this node does not publish now; see :func:`appliance.publish.pushes.check_publisher`.
    :param uploads: where bytes arrive.
    :param publishing: where names change.
    :param site_addresses: spellings of listed nodes that mean "no namespace".
    """

    def __init__(
        self,
        admit: Callable[[], None],
        uploads: Uploads,
        publishing: Publishing,
        site_addresses: Collection[str],
    ) -> None:
        self._admit = admit
        self._uploads = uploads
        self._publishing = publishing
        self._site = site_addresses

    def handlers(self, reading: dict[str, Handler]) -> dict[str, Handler]:
        """The routes of the table, by name: these for writing, ``reading`` for the rest."""
        by_method: dict[str, dict[str, Handler]] = {
            "uploads": {"POST": self._start},
            "upload": {
                "GET": self._status,
                "HEAD": self._status,
                "PATCH": self._append,
                "PUT": self._finish,
                "DELETE": self._cancel,
            },
            "manifest": {"PUT": self._put_manifest, "DELETE": self._delete_manifest},
            "blob": {"DELETE": self._delete_blob},
        }
        made = {name: self._choose(methods, reading.get(name)) for name, methods in by_method.items()}
        return {**reading, **made}

    def _choose(self, methods: dict[str, Handler], reading: Handler | None) -> Handler:
        def handler(**arguments: str) -> Response:
            writing = methods.get(request.method)
            if writing is None:
                assert reading is not None  # the table let it through, so it is a method for reading
                return reading(**arguments)
            return self._write(writing, arguments)

        return handler

    def _write(self, handler: Handler, arguments: dict[str, str]) -> Response:
        try:
            self._admit()
            return handler(**arguments)
        except ApplianceError as problem:
            status, code = http_of(problem)
            more = {"Retry-After": "60"} if status == 503 else {"Allow": "GET, HEAD"} if status == 405 else {}
            raise RegistryError(status, code, str(problem), **more) from problem

    # ------------------------------------------------------------------------------------------- uploads

    def _start(self, name: str) -> Response:
        repository = repository_of(name, self._site)
        digest, mount = request.args.get("digest"), request.args.get("mount")
        algorithm = request.args.get("digest-algorithm", "sha256")
        for text in (digest, mount):
            if text is not None:
                check_digest(text)
        hasher(algorithm)
        if mount is not None and "from" in request.args:
            # What cannot be mounted, whatever the reason, is to be uploaded: the client can go on at once.
            source = self._source(request.args["from"])
            if source is not None and run_in_thread(self._publishing.mount, source, repository, mount):
                return self._blob_created(name, mount)
        # A mount without a source would tell what other repositories hold: it becomes an upload, as one that is missing.
        identity = run_in_thread(self._uploads.begin, repository)
        if digest is None or mount is not None:
            return self._state(202, name, identity, 0)
        with self._held(name, repository, identity) as upload:
            try:
                self._receive(upload, name, digest.partition(":")[0])
                run_in_thread(upload.finish, digest)
            except BaseException:
                # Nobody knows its id, so nobody could go on with it.
                upload.cancel()
                raise
        return self._blob_created(name, digest)

    def _source(self, name: str) -> str | None:
        try:
            return repository_of(name, self._site)
        except RegistryError:
            return None

    def _status(self, name: str, identity: str) -> Response:
        size = self._uploads.size(repository_of(name, self._site), identity)
        if size is None:
            raise _unknown(identity)
        return self._state(204, name, identity, size)

    def _append(self, name: str, identity: str) -> Response:
        with self._held(name, repository_of(name, self._site), identity) as upload:
            self._receive(upload, name)
            return self._state(202, name, identity, upload.size)

    def _finish(self, name: str, identity: str) -> Response:
        digest = check_digest(request.args.get("digest"))
        with self._held(name, repository_of(name, self._site), identity) as upload:
            self._receive(upload, name, digest.partition(":")[0])
            run_in_thread(upload.finish, digest)
        return self._blob_created(name, digest)

    def _cancel(self, name: str, identity: str) -> Response:
        with self._held(name, repository_of(name, self._site), identity) as upload:
            upload.cancel()
        return _empty(204)

    @contextlib.contextmanager
    def _held(self, name: str, repository: str, identity: str) -> Iterator[Upload]:
        try:
            upload = self._uploads.open(repository, identity)
        except UploadBusy:
            size = self._uploads.size(repository, identity) or 0
            raise self._out_of_order(name, identity, size, "another request is writing to this upload") from None
        if upload is None:
            raise _unknown(identity)
        try:
            yield upload
        finally:
            upload.close()

    def _receive(self, upload: Upload, name: str, algorithm: str | None = None) -> None:
        """Append the request's body, the last one where the digest is known; what came before a break stays, and is what the status then says."""
        wanted = request_body.content_range(request.headers.get("Content-Range"))
        length, before = request.content_length, upload.size
        if wanted is not None:
            if wanted.first != before:
                raise self._out_of_order(name, upload.id, before, f"the next byte is {before}, not {wanted.first}")
            if length is not None and length != wanted.length:
                raise RegistryError(
                    400, "SIZE_INVALID", f"Content-Range has {wanted.length} bytes, Content-Length {length}"
                )
        try:
            run_in_thread(upload.expect, length, algorithm)
            pipe_to_thread(request_body.chunks(request), upload.append)
        except ApplianceError:
            # A full disk is no better with half of a blob on it.
            upload.cancel()
            raise
        except (BrokenBody, OSError) as problem:
            # The client is often gone and hears nothing of it.
            current_app.logger.warning("%s of %s to %s broke off: %s", request.method, g.identity.name, name, problem)
            raise RegistryError(400, "BLOB_UPLOAD_INVALID", f"the body broke off: {problem}") from problem
        if wanted is not None and upload.size - before != wanted.length:
            came = upload.size - before
            upload.truncate(before)
            raise RegistryError(400, "SIZE_INVALID", f"Content-Range has {wanted.length} bytes, {came} came")

    def _out_of_order(self, name: str, identity: str, size: int, why: str) -> RegistryError:
        where = {"Location": _location(name, f"blobs/uploads/{identity}"), "Range": _range(size)}
        return RegistryError(416, "BLOB_UPLOAD_INVALID", why, **where)

    def _state(self, status: int, name: str, identity: str, size: int) -> Response:
        response = _empty(status)
        response.headers["Location"] = _location(name, f"blobs/uploads/{identity}")
        response.headers["Range"] = _range(size)
        response.headers["Docker-Upload-UUID"] = identity
        return response

    def _blob_created(self, name: str, digest: str) -> Response:
        response = _empty(201)
        response.headers["Location"] = _location(name, f"blobs/{digest}")
        response.headers["Docker-Content-Digest"] = digest
        return response

    # ----------------------------------------------------------------------------------------- manifests

    def _put_manifest(self, name: str, reference: str) -> Response:
        repository = repository_of(name, self._site)
        tags = request.args.getlist("tag")
        if ":" in reference:
            digest_wanted: str | None = check_digest(reference)
        else:
            digest_wanted, tags = None, [reference]
        if not all(map(is_tag, tags)) or len(tags) > TAGS_AT_ONCE:
            raise RegistryError(
                400, "MANIFEST_INVALID", f"not tags, or more than {TAGS_AT_ONCE}: {' '.join(tags)[:300]}"
            )
        said = request.headers.get("Content-Type")
        if said and not request.mimetype:
            raise RegistryError(400, "MANIFEST_INVALID", f"not a Content-Type: {said[:100]!r}")
        content = request_body.document(request, MANIFEST_LIMIT)
        digest = digest_of(content, digest_wanted or "sha256")
        if digest_wanted not in (None, digest):
            raise RegistryError(400, "DIGEST_INVALID", f"the manifest has {digest}, not {digest_wanted}")
        manifest = parse_manifest(content, request.mimetype or None, where=digest)
        descriptor = Descriptor(manifest.media_type, digest, len(content))
        run_in_thread(self._publishing.put, repository, descriptor, manifest, content, tags, g.identity.name)
        response = _empty(201)
        response.headers["Location"] = _location(name, f"manifests/{digest}")
        response.headers["Docker-Content-Digest"] = digest
        if manifest.subject is not None:
            response.headers["OCI-Subject"] = manifest.subject.digest
        for tag in tags if digest_wanted else ():
            response.headers.add("OCI-Tag", tag)
        return response

    def _delete_manifest(self, name: str, reference: str) -> Response:
        repository = repository_of(name, self._site)
        if not (check_digest(reference) if ":" in reference else is_tag(reference)):
            raise RegistryError(400, "MANIFEST_INVALID", f"not a tag: {reference[:200]!r}")
        if not run_in_thread(self._publishing.delete_manifest, repository, reference, g.identity.name):
            raise RegistryError(404, "MANIFEST_UNKNOWN", f"nothing was pushed as {reference} to {repository}")
        return _empty(202)

    def _delete_blob(self, name: str, digest: str) -> Response:
        repository = repository_of(name, self._site)
        check_digest(digest)
        if not run_in_thread(self._publishing.delete_blob, repository, digest):
            raise RegistryError(404, "BLOB_UNKNOWN", f"{repository} has no {digest}")
        return _empty(202)


def _unknown(identity: str) -> RegistryError:
    return RegistryError(404, "BLOB_UPLOAD_UNKNOWN", f"there is no upload {identity[:80]!r} in this repository")


def _empty(status: int) -> Response:
    response = Response(status=status)
    del response.headers["Content-Type"]
    return response


def _range(size: int) -> str:
    # The whole upload; the specification has no way to say "nothing yet" but this.
    return f"0-{max(0, size - 1)}"


def _location(name: str, rest: str) -> str:
    # The client goes on with exactly this: so it names the same repository, whatever told it apart.
    namespace = request.args.get("ns")
    return f"/v2/{quote(name)}/{rest}" + (f"?{urlencode({'ns': namespace})}" if namespace else "")
