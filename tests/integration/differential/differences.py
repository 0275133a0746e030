"""What may differ between docker-registry 2.8.2 and ours, and why: the one list, which the manual renders.

Requests are named ``pair:group/scenario:number method``. In them and in values ``*`` stands for anything. Every change
of every entry, and every pattern of requests, has to occur: an excuse that nothing needs any more is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tests.integration.differential.observed import Observed

SPEC = "OCI Distribution"
"""The specification's main branch of 2026-07-16 (967efdc)."""


@dataclass(frozen=True)
class Change:
    """One field and its two values.

    :param field: ``status`` (with the code of an error), ``code``, ``body``, or a header.
    """

    field: str
    theirs: str
    ours: str


@dataclass(frozen=True)
class Difference:
    """Some requests, what differs in their answers, and why that is right.

    :param source: the section that says so, or that leaves it open.
    """

    title: str
    requests: tuple[str, ...]
    changes: tuple[Change, ...]
    why: str
    source: str

    def allowed(self, seen: Iterable[Observed]) -> frozenset[Observed]:
        """What of it this entry allows."""
        return frozenset(
            one
            for one in seen
            if any(_is(change, one) for change in self.changes)
            and any(_matches(pattern, one.request) for pattern in self.requests)
        )

    def unused(self, allowed: Iterable[Observed]) -> list[str]:
        """Patterns and changes that nothing of what it allowed needs."""
        patterns = [one for one in self.requests if not any(_matches(one, seen.request) for seen in allowed)]
        changes = [str(one) for one in self.changes if not any(_is(one, seen) for seen in allowed)]
        return patterns + changes


def _is(change: Change, seen: Observed) -> bool:
    return change.field == seen.field and _matches(change.theirs, seen.theirs) and _matches(change.ours, seen.ours)


def _matches(pattern: str, text: str) -> bool:
    """Whether a text is one that the pattern stands for."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def _status(theirs: str, *ours: str) -> tuple[Change, ...]:
    return tuple(Change("status", theirs, one) for one in ours)


def _error(theirs: str, ours: str) -> tuple[Change, ...]:
    """An error in place of another answer, to a GET and to a HEAD, which has no body to carry a code."""
    return (*_status(theirs, ours), *_status(theirs.partition(" ")[0], ours.partition(" ")[0]))


DIFFERENCES: tuple[Difference, ...] = (
    # ------------------------------------------------------------------------------------------ in general
    Difference(
        "Content-Type of JSON",
        ("*",),
        (Change("Content-Type", "application/json; charset=utf-8", "application/json"),),
        "JSON has no charset parameter.",
        "RFC 8259, section 11",
    ),
    Difference(
        "Errors are JSON",
        ("*",),
        (
            Change("Content-Type", "text/plain; charset=utf-8", "application/json"),
            *(
                Change("code", "absent", code)
                for code in (
                    "UNSUPPORTED", "DIGEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "SIZE_INVALID", "BLOB_UPLOAD_UNKNOWN",
                )
            ),
        ),
        "Clients print the message of the JSON and nothing of a text. docker-registry answers with the text of its "
        "router or of Go's library where no handler of its own was reached.",
        f"{SPEC}, Error Codes",
    ),
    Difference(
        "Docker-Distribution-API-Version",
        ("*",),
        (Change("Docker-Distribution-Api-Version", "registry/2.0", "absent"),),
        "Sent where docker looks for it: with `/v2/` and with 401.",
        f"{SPEC}, Legacy Docker support HTTP headers (optional)",
    ),
    Difference(
        "Location is relative",
        ("write:*",),
        (Change("Location, its form", "absolute", "relative"), Change("Location, its form", "absolute with _state", "relative")),
        "A node does not guess by which name or through which forwarded port it is reached. The state of an upload is its "
        "file, so nothing of it travels in the URL.",
        f"{SPEC}, POST then PUT (may be relative)",
    ),
    Difference(
        "Docker-Upload-UUID of a cancelled upload",
        ("write:upload/*cancel:* DELETE", "write:upload/first-chunk-out-of-order:4 DELETE"),
        (Change("Docker-Upload-UUID", "there", "absent"),),
        "There is no upload any more.",
        f"{SPEC}, Legacy Docker support HTTP headers (optional)",
    ),
    # ------------------------------------------------------------------------------------------ paths and methods
    Difference(
        "Paths are not cleaned",
        (
            "*:version/twice:*", "*:version/dot:*", "*:manifest/slash:*", "*:name/empty-part-*", "*:name/slash-last-*",
            "*:name/dot-part-*", "*:name/parent-part-*", "*:name/beyond-the-top-*", "*:name/encoded-dots-*",
            "*:blob/trailing-slash:*", "*:blob/above:*", "*:unknown/*-with-slash:*", "write:upload/id-encoded-slash-*",
            "write:upload/name-empty-part:*", "write:push/name-empty-part:*",
        ),
        (
            *_error("301", "400 NAME_INVALID")[:1],
            *_error("301", "404 NAME_INVALID"),
            *_error("301", "404 UNSUPPORTED")[:1],
        ),
        "A path with empty or dot parts is refused, not redirected to what it might have meant: it never becomes the "
        "name of another repository.",
        f"{SPEC}, API (redirects are optional)",
    ),
    Difference(
        "A slash at the end that does not matter",
        ("*:version/bare:*", "write:upload/start-without-slash:1 POST"),
        _status("301", "200", "202"),
        "`/v2` and `blobs/uploads` are answered at once: a redirected POST loses its body or its credentials in some "
        "clients.",
        f"{SPEC}, API (redirects are optional)",
    ),
    Difference(
        "Paths outside the registry",
        ("*:unknown/top:*",),
        _status("200", "404 UNSUPPORTED"),
        "There is nothing at `/`; docker-registry answers it for load balancers.",
        "not part of a specification",
    ),
    Difference(
        "Health",
        ("*:unknown/health:*",),
        _status("404", "200"),
        "`/healthz` is for systemd and load balancers here.",
        "not part of a specification",
    ),
    Difference(
        "Methods that a resource does not have",
        ("*:method/*-version:*", "*:method/OPTIONS-*"),
        _status("200", "405 UNSUPPORTED"),
        "Only what does something is offered; docker-registry answers `/v2/` to any method, and OPTIONS everywhere.",
        "RFC 9110, section 15.5.6",
    ),
    Difference(
        "HEAD of lists",
        ("*:catalog/head:*", "*:tags/head:*"),
        _status("405", "200"),
        "Whatever answers GET answers HEAD.",
        "RFC 9110, section 9.1",
    ),
    Difference(
        "Allow names HEAD of lists",
        ("*:method/*-catalog:*", "*:method/*-tags:*", "write:delete/tags:*", "write:delete/catalog:*"),
        (Change("Allow", "GET", "GET, HEAD"),),
        "As above.",
        "RFC 9110, section 9.1",
    ),
    Difference(
        "The list of uploads takes POST only",
        ("write:upload/collection-*", "write:upload/post-to-the-upload:2 POST"),
        (*_status("404 BLOB_UPLOAD_UNKNOWN", "405 UNSUPPORTED"), *_status("404", "405"), *_status("202", "405 UNSUPPORTED")),
        "The path is known, the method is not one that it has.",
        "RFC 9110, section 15.5.6",
    ),
    Difference(
        "Strangers are told nothing",
        ("write:credentials/none-bad-name:*", "write:credentials/none-unknown:*"),
        _status("404", "401 UNAUTHORIZED"),
        "Credentials are asked for before anything is said of a path.",
        "RFC 9110, section 15.5.2",
    ),
    Difference(
        "The local listener serves pulls only",
        ("local:refused/chunk:*", "local:refused/finish:*", "local:refused/cancel:*", "local:refused/status:*"),
        _status("404 BLOB_UPLOAD_INVALID", "405 UNSUPPORTED"),
        "There are no uploads on it that could be unknown. (A read-only docker-registry still looks for them.)",
        "RFC 9110, section 15.5.6",
    ),
    Difference(
        "Allow of uploads on the local listener",
        ("local:refused/start:*", "local:refused/start-with-digest:*", "local:refused/mount:*"),
        (Change("Allow", "GET, HEAD", ""),),
        "No method is allowed there; an empty list says so.",
        "RFC 9110, section 10.2.1",
    ),
    # ------------------------------------------------------------------------------------------ names
    Difference(
        "Names carry their registry",
        ("*:name/short-name-of-the-hub-*", "*:name/registry-of-the-hub-*"),
        (
            *_status("404 MANIFEST_UNKNOWN", "200"),
            *_status("404 NAME_UNKNOWN", "200"),
            *_status("404", "200"),
        ),
        "`nginx`, `library/nginx` and `docker.io/library/nginx` are one repository, as they are for containerd and kubelet.",
        "distribution/reference, normalisation",
    ),
    Difference(
        "The catalog lists whole names",
        ("*:catalog/*",),
        (
            Change("body", '{"repositories": ["deep/*', '{"repositories": ["docker.io/*'),
            Change("Link", '</v2/_catalog?last=*', '</v2/_catalog?last=docker.io*'),
        ),
        "A site has names of several registries.",
        f"{SPEC}: the catalog is not part of it",
    ),
    Difference(
        "The catalog is sorted by whole names",
        ("*:catalog/last:*", "*:catalog/n-and-last:*"),
        (
            Change("body", '{"repositories": ["team/*', '{"repositories": []}'),
            Change("Link", "</v2/_catalog?last=team*", "absent"),
        ),
        "What comes after `team/app` here are names that begin with a host: there are none.",
        f"{SPEC}: the catalog is not part of it",
    ),
    Difference(
        "Names that cannot be are named as such",
        (
            "*:name/capitals-*", "*:name/underscore-at-the-end-*", "*:name/dot-at-the-end-*", "*:name/two-dots-*",
            "*:name/three-underscores-*", "*:name/hyphen-first-*", "*:name/encoded-nul-*", "*:name/encoded-percent-*",
            "*:name/letters-beyond-ascii-*", "*:name/plus-*", "*:name/space-*", "*:name/backslash-*",
            "write:upload/name-*", "write:push/name-*", "write:delete/bad-name:*", "write:delete/blob-bad-name:*",
        ),
        _status("404", "400 NAME_INVALID"),
        "docker-registry's router does not find the path; the message here says what is wrong with it. (A blob of such "
        "a name is 404: it is not here.)",
        "Docker Registry HTTP API V2, GET Manifest: 400 NAME_INVALID",
    ),
    Difference(
        "Long names",
        ("*:name/too-long-*", "*:name/longest-of-theirs-*", "write:upload/name-too-long:*", "write:push/name-too-long:*"),
        (
            *_status("500 UNKNOWN", "400 NAME_INVALID"),
            *_status("500", "400 NAME_INVALID", "404"),
        ),
        "255 characters are the most for registry and name together; docker-registry fails on them.",
        f"{SPEC}, Pulling manifests (implementers note)",
    ),
    Difference(
        "A host with a port as part of the name",
        ("*:name/colon-*",),
        (*_status("500 UNKNOWN", "404 NAME_UNKNOWN"), *_status("500", "404")),
        "`host:5000/app` is a repository of another registry, which this site may have; docker-registry fails on it.",
        "distribution/reference, domain",
    ),
    Difference(
        "A bad escape in a path",
        ("*:name/bad-escape-blob:*",),
        _status("400", "404"),
        "`%zz` stays as it is, and is no name: its blob is not here.",
        "WHATWG URL, percent-decode",
    ),
    Difference(
        "An unknown repository is called that",
        ("*:name/unknown-manifest:*", "*:name/one-part-manifest:*", "write:push/*:* GET", "write:delete/manifest:6 GET"),
        (Change("code", "MANIFEST_UNKNOWN", "NAME_UNKNOWN"),),
        "The message says which of the two is missing.",
        f"{SPEC}, Error Codes (code-9)",
    ),
    # ------------------------------------------------------------------------------------------ tags
    Difference(
        "Tags by the page",
        ("*:tags/*",),
        (
            Change("body", '{"name": "team/app", "tags": *', '{"name": "team/app", "tags": *'),
            Change("Link", "absent", "</v2/team/app/tags/list?*"),
        ),
        "docker-registry 2.8 knows neither `n` nor `last` here and always sends all tags, in no order.",
        f"{SPEC}, Listing Tags",
    ),
    Difference(
        "A page of no number",
        ("*:tags/n-negative:*", "*:tags/n-word:*", "*:tags/n-empty:*", "*:tags/n-float:*", "*:catalog/n-negative:*",
         "*:catalog/n-word:*", "*:catalog/n-empty:*", "*:catalog/n-float:*"),
        _status("200", "400 UNSUPPORTED"),
        "A client that asks for a part must not take the whole for it.",
        f"{SPEC}, Listing Tags (`n` is an integer)",
    ),
    Difference(
        "A repository without tags",
        ("*:name/untagged-tags:*",),
        _status("404 NAME_UNKNOWN", "200"),
        "It is there and has an empty list.",
        f"{SPEC}, Listing Tags",
    ),
    # ------------------------------------------------------------------------------------------ manifests
    Difference(
        "Accept does not choose",
        ("*:accept/*-image:*", "*:accept/*-index:*", "*:accept/*-digest:*", "*:accept/*-docker:*"),
        (*_status("404 MANIFEST_UNKNOWN", "200"), *_status("400 MANIFEST_INVALID", "200")),
        "One manifest is stored under a digest, and it is what is sent, with its own type. docker-registry denies what a client "
        "did not list (and takes `*/*` for an old docker), or rewrites it to schema 1.",
        f"{SPEC}, Pulling manifests; RFC 9110, section 12.5.1",
    ),
    Difference(
        "Digests that are none",
        ("*:blob/bad-digest:*", "*:blob/upper-digest:*", "*:blob/md5:*"),
        _error("400 DIGEST_INVALID", "404 DIGEST_INVALID"),
        "What cannot be a digest is not here.",
        f"{SPEC}, Endpoints (end-2: 404)",
    ),
    Difference(
        "References that docker-registry fails on",
        (
            "*:manifest/bad-digest:*", "*:manifest/upper-digest:*", "*:manifest/md5:*", "*:manifest/layer:*",
            "*:manifest/config:*", "write:push/as-bad-digest:4 GET", "write:push/as-md5:4 GET",
        ),
        (
            *_error("500 UNKNOWN", "404 DIGEST_INVALID"),
            *_status("500 UNKNOWN", "404 MANIFEST_UNKNOWN"),
        ),
        "A digest that is none, or of a blob that is no manifest, is a miss.",
        f"{SPEC}, Pulling manifests (must be 404)",
    ),
    Difference(
        "A manifest asked for as a blob",
        ("*:blob/manifest:*",),
        (*_status("404 BLOB_UNKNOWN", "200"), *_status("404", "200")),
        "It is one of the store's blobs, and peers fetch it as such; it is served to whom its manifest would be.",
        f"{SPEC}, Pulling blobs (left open)",
    ),
    # ------------------------------------------------------------------------------------------ ranges
    Difference(
        "Several ranges at once",
        (
            "*:range/two-parts:*", "*:range/two-parts-with-a-space:*", "*:range/one-of-two-beyond:*", "*:range/overlapping:*",
            "*:range/many:*",
        ),
        _status("206", "200"),
        "No registry client sends them, and an answer in parts is an amplifier; the whole is a right answer.",
        "RFC 9110, section 14.2 (a server may ignore Range)",
    ),
    Difference(
        "Several ranges beyond the end",
        ("*:range/both-beyond:*",),
        (*_status("416, cut short", "200"), *_status("416", "200")),
        "As above.",
        "RFC 9110, section 14.2 (a server may ignore Range)",
    ),
    Difference(
        "Headers that are no range",
        (
            "*:range/other-unit:*", "*:range/no-unit:*", "*:range/no-numbers:*", "*:range/words:*",
            "*:range/one-number:*", "*:range/negative:*", "*:range/hexadecimal:*",
        ),
        (*_status("416, cut short", "200"), *_status("416", "200")),
        "Ignored: the client gets everything.",
        "RFC 9110, section 14.2 (an invalid or unknown one may be ignored)",
    ),
    Difference(
        "Headers that Go reads as a range",
        ("*:range/signed:*", "*:range/spaces:*", "*:range/space-inside:*"),
        _status("206", "200"),
        "Signs and spaces have no place in the grammar; ignored as well.",
        "RFC 9110, section 14.1.2",
    ),
    Difference(
        "The unit in capitals, and numbers beyond 63 bits",
        ("*:range/upper-unit:*", "*:range/huge:*"),
        (*_status("416, cut short", "206"), *_status("416", "206")),
        "Units have no case, and an end beyond the blob is clipped however far it lies.",
        "RFC 9110, sections 14.1 and 14.1.2",
    ),
    Difference(
        "The last no bytes",
        ("*:range/suffix-of-none:*",),
        _error("206", "416 SIZE_INVALID"),
        "`bytes=-0` is no byte of anything; docker-registry answers 206 without one.",
        "RFC 9110, section 14.1.2",
    ),
    Difference(
        "416 and 412 are whole",
        (
            "*:range/at-the-end:*", "*:range/beyond:*", "*:range/backwards:*", "*:range/huge-start:*",
            "*:condition/blob-match-other:*", "*:condition/blob-match-weak:*",
        ),
        (*_status("416, cut short", "416 SIZE_INVALID"), *_status("412, cut short", "412 DIGEST_INVALID")),
        "docker-registry announces the length of the blob, sends a line of text, and closes the connection.",
        "RFC 9110, section 8.6",
    ),
    Difference(
        "Headers of a blob that is not sent",
        (
            "*:range/at-the-end:2 HEAD", "*:range/beyond:2 HEAD", "*:range/backwards:2 HEAD", "*:range/huge-start:2 HEAD",
            "*:condition/blob-match-other:2 HEAD", "*:condition/blob-match-weak:2 HEAD", "write:upload/empty:4 GET",
        ),
        (
            Change("Docker-Content-Digest", "sha256:*", "absent"),
            Change("ETag", '"sha256:*', "absent"),
            Change("Content-Type", "application/octet-stream", "application/json"),
        ),
        "They describe what is sent, and that is an error.",
        "RFC 9110, section 8.8",
    ),
    Difference(
        "The size of the blob with every 416",
        ("*:range/backwards:2 HEAD", "*:range/huge-start:2 HEAD"),
        (Change("Content-Range", "absent", "bytes */*"),),
        "So that the client can ask again.",
        "RFC 9110, section 15.5.17",
    ),
    # ------------------------------------------------------------------------------------------ conditions
    Difference(
        "Every form of If-None-Match",
        (
            "*:condition/manifest-none-match-list:*", "*:condition/manifest-none-match-weak:*",
            "*:condition/manifest-none-match-any:*", "*:condition/blob-none-match-unquoted:*",
        ),
        _status("200", "304"),
        "docker-registry compares a manifest's with the one form alone. A digest without its quotes counts for both here.",
        "RFC 9110, section 13.1.2",
    ),
    Difference(
        "If-Match of a manifest",
        ("*:condition/manifest-match-other:*",),
        _error("200", "412 DIGEST_INVALID"),
        "Evaluated as for blobs.",
        "RFC 9110, section 13.1.1",
    ),
    Difference(
        "ETag with 304",
        ("*:condition/manifest-none-match:*", "*:condition/manifest-none-match-unquoted:*"),
        (Change("ETag", "absent", '"sha256:*'), Change("Docker-Content-Digest", "absent", "sha256:*")),
        "A 304 carries the validator of what it stands for.",
        "RFC 9110, section 15.4.5",
    ),
    # ------------------------------------------------------------------------------------------ uploads
    Difference(
        "An upload that is not there is unknown",
        ("write:upload/id-unknown-*", "write:upload/id-of-theirs-*", "write:upload/id-word-*"),
        (Change("code", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN"),),
        "docker-registry misses its `_state` before it looks for the upload.",
        f"{SPEC}, Error Codes (code-3)",
    ),
    Difference(
        "A blob in one POST",
        ("write:upload/one-post:*", "write:upload/one-post-chunked:*"),
        (*_status("202", "201"), *_status("404 BLOB_UNKNOWN", "200")),
        "Supported here, not by docker-registry.",
        f"{SPEC}, Single POST",
    ),
    Difference(
        "Digests are looked at before an upload is opened",
        (
            "write:upload/one-post-with-a-wrong-digest:*", "write:upload/one-post-with-a-bad-digest:*",
            "write:upload/mount-bad-digest:*", "write:upload/unknown-algorithm-announced:*",
        ),
        _status("202", "400 DIGEST_INVALID"),
        "docker-registry ignores `digest` and `digest-algorithm` of a POST, and mounts nothing.",
        f"{SPEC}, Pushing blobs (400)",
    ),
    Difference(
        "Chunks out of order",
        (
            "write:upload/first-chunk-out-of-order:*", "write:upload/same-chunk-again:*", "write:upload/overlapping-chunk:*",
            "write:upload/chunk-after-a-gap:*",
        ),
        (
            *_status("202", "416 BLOB_UPLOAD_INVALID"),
            Change("Range", "0-2999", "0-0"),
            Change("Range", "0-5999", "0-2999"),
            Change("Range", "0-3009", "0-2999"),
        ),
        "docker-registry does not look at Content-Range and appends.",
        f"{SPEC}, Pushing a blob in chunks (must be 416)",
    ),
    Difference(
        "The last chunk out of order",
        ("write:upload/put-out-of-order:*",),
        (*_status("400 DIGEST_INVALID", "416 BLOB_UPLOAD_INVALID"), *_status("404 BLOB_UPLOAD_INVALID", "204")),
        "As above; the upload stays as it was, and can be gone on with.",
        f"{SPEC}, Pushing a blob in chunks (must be 416)",
    ),
    Difference(
        "A Content-Range that is none",
        ("write:upload/content-range-*",),
        (*_status("202", "416 BLOB_UPLOAD_INVALID"), Change("Range", "0-5999", "0-0")),
        "Refused; nothing was taken.",
        f"{SPEC}, Pushing a blob in chunks (`^[0-9]+-[0-9]+$`)",
    ),
    Difference(
        "A Content-Range of another length than the body",
        ("write:upload/content-range-too-short:2 PATCH", "write:upload/content-range-too-long:2 PATCH"),
        _status("202", "400 SIZE_INVALID"),
        "One of the two is wrong; nothing was taken.",
        f"{SPEC}, Error Codes (code-10)",
    ),
    Difference(
        "An upload whose digest did not match is gone",
        ("write:upload/digest-of-other-bytes:4 GET", "write:upload/digest-sha512-of-other-bytes:4 GET"),
        _status("204", "404 BLOB_UPLOAD_UNKNOWN"),
        "Its bytes are not what the client has; nothing that could be added makes them so.",
        f"{SPEC}, Pushing blobs (left open)",
    ),
    Difference(
        "sha384",
        ("write:upload/digest-sha384:*",),
        (*_status("201", "400 DIGEST_INVALID"), *_status("404 BLOB_UPLOAD_UNKNOWN", "204")),
        "sha256 and sha512 are what the image specification registers.",
        "OCI Image, descriptor.md, Registered algorithms",
    ),
    Difference(
        "sha512 stays sha512",
        ("write:upload/sha512:*", "write:upload/sha512-announced:*"),
        (
            Change("Docker-Content-Digest", "sha256:*", "sha512:*"),
            Change("ETag", '"sha256:*', '"sha512:*'),
            Change("Location", "/v2/<name>/blobs/sha256:*", "/v2/<name>/blobs/sha512:*"),
        ),
        "The digest that was asked for is what is stored and answered; docker-registry names blobs by sha256 alone.",
        f"{SPEC}, Pushing blobs",
    ),
    Difference(
        "The Content-Type of a chunk",
        ("write:upload/content-type-other:*", "write:upload/content-type-form:*"),
        _status("500 UNKNOWN", "202"),
        "Bytes are bytes.",
        f"{SPEC}, Pushing a blob in chunks (left open)",
    ),
    Difference(
        "A manifest's digest mounted as a blob",
        ("write:upload/mount-manifest:*",),
        _status("202", "201"),
        "It is one of the other repository's blobs, as above.",
        f"{SPEC}, Mounting a blob from another repository",
    ),
    # ------------------------------------------------------------------------------------------ pushing manifests
    Difference(
        "References to what is not there",
        (
            "write:push/sparse-index:3 PUT", "write:push/missing-config:3 PUT", "write:push/missing-layer:3 PUT",
            "write:push/layer-of-another-repository:3 PUT", "write:push/into-a-new-repository:1 PUT",
            "write:push/name-encoded-slash:1 PUT",
        ),
        _status("400 MANIFEST_BLOB_UNKNOWN", "404 MANIFEST_BLOB_UNKNOWN"),
        "The code is the same.",
        f"{SPEC}, Endpoints (end-7: 404)",
    ),
    Difference(
        "Sizes have to be right",
        ("write:push/lies-about-a-size:3 PUT",),
        _status("201", "404 MANIFEST_BLOB_UNKNOWN"),
        "A blob of that digest and size does not exist, and a client that believes the size fails.",
        "OCI Image, descriptor.md, Properties (size)",
    ),
    Difference(
        "Manifests that mean two things, or nothing",
        (
            "write:push/negative-size:3 PUT", "write:push/bad-subject:3 PUT", "write:push/a-key-twice:3 PUT",
            "write:push/a-key-in-another-case:3 PUT", "write:push/not-utf-8:3 PUT",
        ),
        _status("201", "400 MANIFEST_INVALID"),
        "Parsers read them differently, and one digest would vouch for all readings (CVE-2021-41190).",
        "OCI Image, descriptor.md and manifest.md; RFC 8259, sections 4 and 8.1",
    ),
    Difference(
        "They are not there afterwards",
        (
            "write:push/lies-about-a-size:*", "write:push/negative-size:*", "write:push/bad-subject:*",
            "write:push/a-key-twice:*", "write:push/a-key-in-another-case:*", "write:push/not-utf-8:*",
        ),
        _error("200", "404 NAME_UNKNOWN"),
        "Follows from the two above.",
        f"{SPEC}, Pulling manifests",
    ),
    Difference(
        "A manifest without a config",
        ("write:push/no-config:3 PUT",),
        (Change("code", "DIGEST_INVALID+MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID"),),
        "It is the manifest that is wrong.",
        "OCI Image, manifest.md (config is required)",
    ),
    Difference(
        "What docker-registry fails on",
        ("write:push/schema-version-3:3 PUT", "write:push/schema-version-1:3 PUT", "write:push/null:3 PUT"),
        _status("500 UNKNOWN", "400 MANIFEST_INVALID"),
        "The client's mistake, not the server's.",
        f"{SPEC}, Error Codes (code-6)",
    ),
    Difference(
        "References that docker-registry fails on, pushed",
        ("write:push/as-bad-digest:3 PUT", "write:push/as-md5:3 PUT"),
        _status("500 UNKNOWN", "400 DIGEST_INVALID"),
        "The client's mistake, not the server's.",
        f"{SPEC}, Pushing blobs (400)",
    ),
    Difference(
        "schemaVersion left out",
        ("write:push/no-schema-version:*",),
        (*_status("500 UNKNOWN", "201"), *_status("404 MANIFEST_UNKNOWN", "200"), *_status("404", "200")),
        "Taken as 2, as containerd does; seeded media have such indexes. The bytes stay as they are.",
        "OCI Image, manifest.md (required of who writes it)",
    ),
    Difference(
        "No Content-Type at all",
        ("write:push/no-content-type:*",),
        (*_status("400 MANIFEST_INVALID", "201"), *_status("404 MANIFEST_UNKNOWN", "200"), *_status("404", "200")),
        "The document says what it is, and what is served carries that type. One that says nothing of itself and has neither "
        "config nor manifests is refused.",
        f"{SPEC}, Pushing Manifests (clients should set it)",
    ),
    Difference(
        "Layers that may not be distributed",
        ("write:push/foreign-layer:*", "write:push/foreign-docker-layer:*"),
        (
            *_status("500 UNKNOWN+UNKNOWN+MANIFEST_BLOB_UNKNOWN", "201"),
            *_status("404 MANIFEST_UNKNOWN", "200"),
            *_status("404", "200"),
        ),
        "They are not pushed, so they need not be there. Their `urls` are never followed (CVE-2020-15157); docker-registry "
        "refuses urls that its configuration does not allow.",
        "OCI Image, layer.md, Non-Distributable Layers",
    ),
    Difference(
        "Manifests that are too large",
        ("write:push/too-large:3 PUT", "write:push/chunked-too-large:3 PUT"),
        _status("400 MANIFEST_INVALID", "413 MANIFEST_INVALID"),
        "Both take 4 MiB.",
        f"{SPEC}, Pushing Manifests (413)",
    ),
    Difference(
        "A manifest by its sha512",
        ("write:push/as-sha512:*",),
        (*_status("400 DIGEST_INVALID", "201"), *_status("404 MANIFEST_UNKNOWN", "200")),
        "Supported here, not by docker-registry.",
        f"{SPEC}, Pushing Manifests",
    ),
    Difference(
        "References that are no tags",
        ("write:push/as-odd-tag:3 PUT", "write:push/as-long-tag:3 PUT", "write:push/as-space:3 PUT", "write:delete/odd-tag:*"),
        _status("404", "400 MANIFEST_INVALID"),
        "docker-registry's router does not find the path; the message here says what is wrong with it.",
        f"{SPEC}, Endpoints (end-9: 404 or 400)",
    ),
    Difference(
        "Tags beside a digest",
        ("write:push/by-digest-with-tags:*",),
        (Change("Oci-Tag", "absent", "a, b"), *_status("404 NAME_UNKNOWN", "200")),
        "`?tag=` is newer than docker-registry 2.8, which ignores it.",
        f"{SPEC}, Pushing Manifests (end-7b)",
    ),
    # ------------------------------------------------------------------------------------------ referrers
    Difference(
        "Referrers",
        ("*:referrers/*", "write:push/referrers-after-it:4 GET"),
        (*_status("404", "200"), *_error("404", "400 DIGEST_INVALID")),
        "docker-registry has no such list; clients then use tags, which are served as well.",
        f"{SPEC}, Listing Referrers",
    ),
    Difference(
        "OCI-Subject",
        ("write:push/subject:3 PUT", "write:push/referrers-after-it:3 PUT"),
        (Change("Oci-Subject", "absent", "sha256:*"),),
        "Says that the referrer was understood.",
        f"{SPEC}, Pushing Manifests with Subject (must be sent)",
    ),
    # ------------------------------------------------------------------------------------------ deletions
    Difference(
        "Tags can be deleted",
        (
            "write:delete/tag:*", "write:delete/last-tag:*", "write:delete/missing-tag:*", "write:delete/tag-of-no-repository:*",
        ),
        (
            *_status("400 DIGEST_INVALID", "202", "404 MANIFEST_UNKNOWN"),
            *_status("200", "404 MANIFEST_UNKNOWN"),
            Change("body", '{"name": "scenario/*', '{"name": "scenario/*'),
        ),
        "docker-registry 2.8 deletes by digest only.",
        f"{SPEC}, Deleting tags",
    ),
    Difference(
        "A repository whose last manifest was deleted",
        ("write:delete/manifest:8 GET",),
        _status("200", "404 NAME_UNKNOWN"),
        "Nothing is left of it; docker-registry goes on listing it, with `null` for tags.",
        f"{SPEC}, Listing Tags",
    ),
    Difference(
        "A blob in use stays",
        ("write:delete/blob-in-use:*",),
        (*_status("202", "405 UNSUPPORTED"), *_status("404", "200")),
        "What a name reaches is complete; the manifest has to go first.",
        f"{SPEC}, Deleting Blobs (405)",
    ),
)  # fmt: skip
