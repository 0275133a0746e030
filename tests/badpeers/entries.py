"""The catalogue: each entry is one node that is sick or hostile, with a name and a sentence.

An entry answers some routes badly and the rest as a node does that is well and holds everything, so that it is asked at all. A
stranger is an entry that has no certificate of the site and sits at the address of a listed node that is off.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from appliance.store.head import IndexHead
from tests.badpeers.answers import (
    Answer,
    Asked,
    Reply,
    Send,
    Step,
    Then,
    changed,
    head,
    honest,
    repeated,
    says,
    wire,
)

FORGED = "FORGED 1970-01-01 ERROR"
"""Begins each line that an entry tries to get into a log or onto a terminal."""
ELSEWHERE = "sha256:" + "e" * 64
"""Digest of nothing."""
INDEXES = ("generation", "pushes", "pins")


@dataclass(frozen=True)
class Errand:
    """Requests that the bad node makes itself, over and over.

    :param connections: how many at a time.
    :param reads: whether it reads the answers.
    """

    method: str
    path: str
    connections: int
    reads: bool = True


@dataclass(frozen=True)
class Entry:
    """One bad node.

    :param name: name of the test.
    :param sentence: says what the node does.
    :param answers: route to its answer: ``ping``, an index (``generation``, ``pushes``, ``pins``), one form of it
        (``generation/head``, ``generation/raw``), ``held`` (HEAD of a blob), ``blob`` (GET of one), ``wake``, or ``*`` for all others.
    :param certificate: ``site``, ``other`` (another authority's), or ``none``: what it sends is no TLS.
    :param greeting: what is sent on each connection before anything is asked; without a certificate that is all.
    :param is_fault: whether a node may be blamed for it: not for a blob that it does not hold.
    """

    name: str
    sentence: str
    answers: Mapping[str, Answer] = field(default_factory=dict)
    certificate: Literal["site", "other", "none"] = "site"
    greeting: tuple[Step, ...] = ()
    errands: tuple[Errand, ...] = ()
    is_fault: bool = True

    @property
    def met_by(self) -> str:
        """Nodes that come to know that it is bad. The publisher asks others for what is newer alone, and what a node asks
        is no answer: the listeners bound it.
        """
        if not self.is_fault:
            return ""
        if self.certificate != "site" or self.greeting or {"ping", "*"} & self.answers.keys():
            return "ab"
        return "b" if self.answers else ""

    def answer(self, route: str) -> Answer:
        """Return the answer to a route: the entry's, or that of a node that is well."""
        parts = route.split("/")
        for known in (route, "/".join(parts[:2]), parts[0], "*"):
            if known in self.answers:
                return self.answers[known]
        return honest


def well(asked: Asked) -> Iterable[Step]:
    """Say at once, as the first of all holders, that the blob is here."""
    return says(bytes(len(asked.blob())))(asked)


def ahead(*indexes: str, digest: str = ELSEWHERE, by: int = 1) -> Answer:
    """Claim a newer state of indexes than the publisher has."""

    def change(document: dict[str, Any]) -> None:
        for index in indexes or INDEXES:
            now = document.get(index) or {"number": 0}
            document[index] = {"number": now["number"] + by, "digest": digest}

    return changed(change)


def soon_ahead() -> Answer:
    """Claim a newer generation than the publisher has, once that one has published: only then is a head of its newest one new."""
    numbers: list[int] = []

    def change(document: dict[str, Any]) -> None:
        numbers.append(document["generation"]["number"])
        if numbers[-1] > numbers[0]:
            document["generation"] = {"number": numbers[-1] + 1, "digest": ELSEWHERE}

    return changed(change)


def whole(index: str, bad: Answer) -> dict[str, Answer]:
    """Answer badly where a whole index is asked for, as a node of an older release: it gives no heads."""
    missing = says(b"{}", 404)
    return {index: bad, f"{index}/head": missing, f"{index}/raw": missing}


# --------------------------------------------------------------------------------------- whatever the route: the wire

_OK = b"HTTP/1.1 200 OK\r\n"
_SLOW = 0.4
"""Seconds between two writes that no limit on silence notices."""
_STALLED = head(200, 100_000) + b"{"

WIRE: dict[str, tuple[str, tuple[Step, ...]]] = {
    "head-drips": ("comes a byte each 0.4 s, in its head", (Send(_OK * 1000, None, 1, _SLOW),)),
    "head-without-end": ("has headers without end", (Send(_OK), Send(b"X-A: " + b"b" * 60 + b"\r\n", None))),
    "head-slow-lines": ("has a header more each 0.4 s", (Send(_OK), Send(b"X-A: b\r\n", None, 0, _SLOW))),
    "head-of-megabytes": ("has one header of 64 MiB", (Send(_OK + b"X-A: "), Send(b"a" * 65536, 1024), Send(b"\r\n\r\n"))),
    "continue-flood": ("is `100 Continue` without end", (Send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, None),)),
    "continue-drip": ("is `100 Continue` each 0.4 s", (Send(b"HTTP/1.1 100 Continue\r\n\r\n", None, 0, _SLOW),)),
    "hints-flood": ("is `103 Early Hints` without end", (Send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 99, None),)),
    "switches": ("is `101 Switching Protocols`", (Send(b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n"), Then.SILENCE)),
    "not-http": ("is another protocol's", (Send(b"220 mail.site ESMTP\r\n" * 3), Then.END)),
    "status-line-long": ("begins with a line of 15,000 brackets", (Send(b"[" * 15_000 + b"\r\n\r\n"), Then.END)),
    "noise": ("is noise without end", (Send(bytes(range(256)) * 64, None),)),
    "closes": ("is a FIN", (Then.END,)),
    "resets": ("is a reset", (Then.RESET,)),
    "silent": ("never comes", (Then.SILENCE,)),
    "half-a-head": ("stops within its head", (Send(_OK + b"Content-"), Then.SILENCE)),
    "body-drips": ("comes at 2 B/s", (Send(head(200, 100_000)), Send(b"[", None, 1, 0.5))),
    "body-slow": ("comes at 64 KiB/s, without end", (Send(head(200, None)), Send(b"[" * 16384, None, 0, 0.25))),
    "body-without-end": ("has no end", (Send(head(200, None)), Send(b"[]," * 20000, None))),
    "body-short": ("is shorter than its length", (Send(_STALLED), Then.END)),
    "body-stops": ("stops, and leaves the connection open", (Send(_STALLED), Then.SILENCE)),
    "body-long": ("is longer than its length", (Send(head(200, 2) + b"{}" * 100_000), Then.SILENCE)),
    "length-negative": ("has a length below zero", (Send(head(200, -1) + b"{}"), Then.SILENCE)),
    "length-of-letters": ("has a length that is no number", (Send(head(200, None, {"Content-Length": "x"}) + b"{}"), Then.END)),
    "length-huge": ("claims 2^63 bytes", (Send(head(200, 1 << 63) + b"{}"), Then.SILENCE)),
    "two-lengths": ("has two lengths", (Send(head(200, 2, {"Content-Length": "9"}) + b"{}"), Then.SILENCE)),
    "chunks-of-letters": ("has a chunk whose size is no number", (Send(head(200, None, {"Transfer-Encoding": "chunked"}) + b"zz\r\n{}\r\n"), Then.END)),
    "chunks-huge": ("has a chunk of 2^64 bytes", (Send(head(200, None, {"Transfer-Encoding": "chunked"}) + b"f" * 16 + b"\r\n{}"), Then.SILENCE)),
    "chunk-line-without-end": ("has a chunk whose size has no end", (Send(head(200, None, {"Transfer-Encoding": "chunked"})), Send(b"0" * 4096, None))),
    "chunks-drip": ("has chunks of a byte, one each 0.4 s", (Send(head(200, None, {"Transfer-Encoding": "chunked"})), Send(b"1\r\n[\r\n", None, 0, _SLOW))),
    "gzip-bomb": ("is a gigabyte behind `Content-Encoding: gzip`", ()),
    "redirects": ("leads elsewhere", (Send(head(302, 0, {"Location": "/p2p/v1/ping"})),)),
    "redirects-out": ("leads out of the site", (Send(head(301, 0, {"Location": "https://192.0.2.1/p2p/v1/ping"})),)),
    "html": ("is a page of a captive portal, with 200", (Send(head(200, 31, {"Content-Type": "text/html"}) + b"<html><b>Please log in</b></html>"[:31]),)),
    "failed": ("is `500`", (Send(head(500, 0)),)),
    "busy": ("is `503` with `Retry-After: 86400`", (Send(head(503, 0, {"Retry-After": "86400"})),)),
    "forged-reason": ("has line breaks and escapes in its reason", (Send(f"HTTP/1.1 500 \x1b[2J\u202e{FORGED}\r\nX: \n{FORGED}\r\nContent-Length: 0\r\n\r\n".encode()), Then.END)),
}  # fmt: skip
_BOMB = gzip.compress(bytes(1 << 20), 9, mtime=0)
WIRE["gzip-bomb"] = (
    WIRE["gzip-bomb"][0],
    (Send(head(200, len(_BOMB) * 1024, {"Content-Encoding": "gzip"})), Send(_BOMB, 1024)),
)

PLACES: dict[str, tuple[str, Callable[[Answer], dict[str, Answer]]]] = {
    "everything": ("Every answer", lambda bad: {"*": bad}),
    "ping": ("The answer to a ping", lambda bad: {"ping": bad}),
    "index": (
        "The answer for an index",
        lambda bad: {"ping": ahead(), **dict(chain.from_iterable(whole(index, bad).items() for index in INDEXES))},
    ),
    "head": (
        "The answer for the head of an index",
        lambda bad: {"ping": ahead(), **{f"{index}/head": bad for index in INDEXES}},
    ),
    "raw": (
        "The answer for the bytes of an index whose head is right",
        lambda bad: {"ping": soon_ahead(), **{f"{index}/raw": bad for index in INDEXES}},
    ),
    "held": ("The answer to the HEAD of a blob", lambda bad: {"held": bad}),
    "blob": ("The answer to the GET of a blob", lambda bad: {"held": well, "blob": bad}),
}


_SOME = (
    "head-drips",
    "continue-flood",
    "silent",
    "noise",
    "body-drips",
    "body-without-end",
    "resets",
    "failed",
    "html",
)
"""Shapes that every place has."""


_BEHIND_A_HEAD = ("body-drips", "body-without-end", "html")
"""Shapes that are wrong in the body alone. The answer to a HEAD has none (RFC 9110, 9.3.2): the client reads 200, which a holder says,
and drops a connection on which more waits."""


def _on_the_wire() -> Iterator[Entry]:
    for place, (words, answers) in PLACES.items():
        for shape in WIRE if place in ("ping", "index", "blob") else _SOME:
            does, steps = WIRE[shape]
            is_fault = place != "held" or shape not in _BEHIND_A_HEAD
            yield Entry(f"{place}-{shape}", f"{words} {does}.", answers(wire(*steps)), is_fault=is_fault)


# ------------------------------------------------------------------------------------------------------------- pings


def _pinged(generation: str) -> bytes:
    """Return a ping with this JSON for the generation."""
    return b'{"node":"c","version":"1","generation":%s,"pushes":null,"pins":null}' % generation.encode()


def _numbered(number: str, digest: str = ELSEWHERE) -> bytes:
    return _pinged(f'{{"number":{number},"digest":{json.dumps(digest)}}}')


_FORGERY = f"sha256:0\n{FORGED} appliance.follow: following generation 7\r{FORGED}"
_ESCAPES = f"sha256:\x1b[2J\x1b]0;owned\x07\u202e\u2028{FORGED}\x9b31m\x00"

PINGS: dict[str, tuple[str, bytes]] = {
    "deep": ("is `[` 60,000 times", b"[" * 60_000),
    "deep-within": ("has a number that is nested 30,000 deep", _numbered("[" * 30_000 + "]" * 30_000)),
    "line-breaks": ("has line breaks in its digest", _numbered("1000000", _FORGERY)),
    "line-breaks-raw": ("has line breaks in its digest, unescaped", _numbered("1000000").replace(b"e", b"\n" + FORGED.encode(), 1)),
    "escapes": ("has escapes and U+202E in its digest", _numbered("1000000", _ESCAPES)),
    "line-breaks-number": ("has line breaks in its number", _numbered(json.dumps(f"1000000\n{FORGED}"))),
    "node-forged": ("has line breaks and escapes in node and version", json.dumps({"node": _FORGERY, "version": _ESCAPES, "generation": {"number": 10**6, "digest": ELSEWHERE}}).encode()),
    "infinite": ("has the number 1e999", _numbered("1e999")),
    "not-a-number": ("has the number NaN", _numbered("NaN")),
    "huge": ("has the number 10^30", _numbered(str(10**30))),
    "digits": ("has a number of 5,000 digits", _numbered("9" * 5000)),
    "negative": ("has the number -1", _numbered("-1")),
    "negative-huge": ("has the number -10^30", _numbered(str(-(10**30)))),
    "true": ("has the number true", _numbered("true")),
    "float": ("has the number 1000000.5", _numbered("1000000.5")),
    "text": ("has a number that is text", _numbered('"1000000"')),
    "list": ("has a number that is a list", _numbered("[1000000]")),
    "digest-long": ("has a digest of 1 MB", _numbered("1000000", "sha256:" + "a" * 1_000_000)),
    "digest-60k": ("has a digest of 60,000 characters", _numbered("1000000", "sha256:" + "a" * 60_000)),
    "digest-number": ("has a digest that is a number", _pinged('{"number":1000000,"digest":7}')),
    "digest-null": ("has no digest", _pinged('{"number":1000000,"digest":null}')),
    "digest-path": ("has a digest that is a path", _numbered("1000000", "sha256:../../../../etc/passwd")),
    "digest-surrogate": ("has a digest that no UTF-8 can hold", _pinged(r'{"number":1000000,"digest":"sha256:\ud800"}')),
    "generation-list": ("has a list for its generation", _pinged("[1000000]")),
    "generation-text": ("has text for its generation", _pinged('"number"')),
    "generation-true": ("has true for its generation", _pinged("true")),
    "document-list": ("is a list", b"[]"),
    "document-text": ("is text", b'"ping"'),
    "document-null": ("is null", b"null"),
    "empty": ("is empty", b""),
    "not-json": ("is no JSON", b"<html>"),
    "not-utf-8": ("is no UTF-8", b'{"node":"\xff\xfe"}'),
    "utf-16": ("is in UTF-16", _numbered("1000000").decode().encode("utf-16")),
    "twice": ("names its generation twice", b'{"generation":null,"generation":{"number":1000000,"digest":"x"}}'),
    "many-keys": ("has 8,000 keys", json.dumps({str(number): number for number in range(5_000)}).encode()),
}  # fmt: skip


def _pings() -> Iterator[Entry]:
    for name, (does, body) in PINGS.items():
        answers = {"ping": says(body), **dict.fromkeys(INDEXES, says(b"{}", 404))}
        yield Entry(f"ping-{name}", f"The answer to a ping {does}, and there is nothing behind it.", answers)
    yield Entry(
        "ping-ahead-of-nothing",
        "It claims newer indexes than the publisher has, and has none when it is asked for them.",
        {"ping": ahead(by=10**6), **dict.fromkeys(INDEXES, says(b"{}", 404))},
    )
    yield Entry(
        "ping-other-node",
        "It says that it is the publisher, and has something newer.",
        {
            "ping": changed(
                lambda document: document.update(node="a", generation={"number": 10**6, "digest": ELSEWHERE})
            )
        },
    )
    yield Entry(
        "ping-same-number",
        "It claims another generation of the number that is current.",
        {"ping": ahead(by=0), "generation": says(b"{}", 404)},
    )


# ----------------------------------------------------------------------------------------------------------- indexes


def _pem(der: bytes) -> str:
    lines = textwrap.wrap(binascii.b2a_base64(der, newline=False).decode(), 64)
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])


def _der(pem: str) -> bytes:
    return base64.b64decode("".join(line for line in pem.splitlines() if not line.startswith("-----")))


def version_7(pem: str) -> str:
    """Return a certificate that says it is X.509 version 7."""
    return _pem(_der(pem).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x06", 1))


Signed = dict[str, Any]
"""An index as it goes between peers: its text, and the signature of it."""


def _own(asked: Asked, document: Signed) -> None:
    document["signature"] = asked.sign(document["raw"].encode())


def _other(asked: Asked, document: Signed) -> None:
    document["raw"] = document["raw"].replace('"manifests"', '"annotations":{},"manifests"', 1)


def _other_own(asked: Asked, document: Signed) -> None:
    _other(asked, document)
    _own(asked, document)


def _as_seed(asked: Asked, document: Signed) -> None:
    _other_own(asked, document)
    document["signature"]["signer"] = "a"


def _certificate(change: Callable[[str], str]) -> Callable[[Asked, Signed], None]:
    def lie(asked: Asked, document: Signed) -> None:
        _own(asked, document)
        document["signature"] |= {"signer": "a", "certificate": change(document["signature"]["certificate"])}

    return lie


def _signature(value: object) -> Callable[[Asked, Signed], None]:
    return lambda asked, document: document.update(signature=value)


def _signed_by_a(**fields: object) -> Callable[[Asked, Signed], None]:
    def lie(asked: Asked, document: Signed) -> None:
        document["signature"] = {**(document["signature"] or {}), **fields}

    return lie


def _raw(value: object) -> Callable[[Asked, Signed], None]:
    return lambda asked, document: document.update(raw=value)


def _text(change: Callable[[str], str]) -> Callable[[Asked, Signed], None]:
    def lie(asked: Asked, document: Signed) -> None:
        document["raw"] = change(document["raw"])

    return lie


LIES: dict[str, tuple[str, Callable[[Asked, Signed], None]]] = {
    "version-7": ("is signed with a certificate of X.509 version 7", _certificate(version_7)),
    "certificate-cut": ("is signed with half a certificate", _certificate(lambda pem: pem[: len(pem) // 2])),
    "certificate-bits": ("is signed with a certificate whose bytes are turned", _certificate(lambda pem: _pem(_der(pem)[::-1]))),
    "certificate-empty": ("is signed with a certificate without content", _certificate(lambda pem: _pem(b""))),
    "certificate-many": ("is signed with 2,000 certificates", _certificate(lambda pem: pem * 2000)),
    "certificate-surrogate": ("is signed with a certificate that no UTF-8 can hold", _certificate(lambda pem: "\ud800" + pem)),
    "certificate-own": ("is signed in the publisher's name with another node's certificate", _certificate(lambda pem: pem)),
    "no-seed": ("is signed by a node that is no seed", _own),
    "other-no-seed": ("is another one, signed by a node that is no seed", _other_own),
    "other-as-seed": ("is another one, signed in the publisher's name", _as_seed),
    "other-content": ("is another one, with the publisher's signature", _other),
    "signer-number": ("has a signature whose signer is a number", _signature({"signer": 1})),
    "signature-text": ("has text for a signature", _signature("a")),
    "signature-list": ("has a list for a signature", _signature([1, 2, 3])),
    "signature-true": ("has true for a signature", _signature(True)),
    "signature-missing": ("has no signature", _signature(None)),
    "signature-not-base64": ("has a signature that is no base64", _signed_by_a(signature="%%%")),
    "signature-not-ascii": ("has a signature in letters that no base64 has", _signed_by_a(signature="\u00e9\u202e")),
    "signature-empty": ("has an empty signature", _signed_by_a(signature="")),
    "signature-huge": ("has a signature of 20 MB", _signed_by_a(signature="QUFB" * 5_000_000)),
    "signer-unknown": ("is signed by somebody with line breaks in the name", _signed_by_a(signer=f"x\n{FORGED}\x1b[2J\u202e")),
    "raw-number": ("has a number for its text", _raw(7)),
    "raw-missing": ("has null for its text", _raw(None)),
    "raw-empty": ("has no text", _raw("")),
    "raw-surrogate": ("has a text that no UTF-8 can hold", _raw("\ud800")),
    "raw-deep": ("has a text that is `[` 100,000 times", _raw("[" * 100_000)),
    "raw-infinite": ("has the number 1e999 in its text", _text(lambda raw: raw.replace('"1"', "1e999", 1))),
    "raw-cut": ("has half its text", _text(lambda raw: raw[: len(raw) // 2])),
    "raw-long": ("has a text with 30 MB of spaces behind it", _text(lambda raw: raw + " " * 30_000_000)),
}  # fmt: skip
"""Lies about an index that is signed; the publisher's newest is what they begin with."""


def lying(lie: Callable[[Asked, Signed], None]) -> Answer:
    """Give the publisher's index, changed by a lie."""

    def answer(asked: Asked) -> Iterable[Step]:
        return changed(lambda document: lie(asked, document))(asked)

    return answer


BODIES: dict[str, tuple[str, Answer]] = {
    "deep": ("is `[` 100,000 times", says(b"[" * 100_000)),
    "brackets": ("is 60 MiB of `[],`", repeated(b"[],", 20 << 20, before=b"[", after=b"0]")),
    "brackets-without-end": ("is `[],` without end", repeated(b"[],", None, before=b"[")),
    "zeros": ("is 310 MiB of zeros", repeated(b"\0", 310 << 20)),
    "text-without-end": ("has a text without end", repeated(b"a", None, before=b'{"raw":"')),
    "keys": ("has a million keys", repeated(b'"a":0,', 1_000_000, before=b"{", after=b'"b":0}')),
    "number-of-digits": ("is a number of 50 MB", repeated(b"9", 50_000_000)),
    "list": ("is a list", says(b"[]")),
    "null": ("is null", says(b"null")),
    "empty": ("is empty", says(b"")),
    "not-json": ("is no JSON", says(b"<html>")),
}


def _indexes() -> Iterator[Entry]:
    for name, (does, lie) in LIES.items():
        yield Entry(
            f"generation-{name}",
            f"Its generation {does}.",
            {"ping": ahead("generation"), **whole("generation", lying(lie))},
        )
    for name, (does, body) in BODIES.items():
        yield Entry(
            f"generation-{name}",
            f"The answer for its generation {does}.",
            {"ping": ahead("generation"), **whole("generation", body)},
        )
    for index in ("pushes", "pins"):
        for name in ("signer-number", "version-7", "other-no-seed"):
            does, lie = LIES[name]
            # The publisher's own have no number yet: what is changed is its generation.
            yield Entry(
                f"{index}-{name}",
                f"Its index of {index} {does}.",
                {"ping": ahead(index), **whole(index, _of_generation(lie))},
            )
        for name in ("deep", "brackets"):
            does, body = BODIES[name]
            yield Entry(
                f"{index}-{name}",
                f"The answer for its {index} {does}.",
                {"ping": ahead(index), **whole(index, body)},
            )
    # Claimed with the number and digest that are current, so that whoever is behind takes the text from here.
    for name in ("raw-cut", "raw-long", "other-content", "raw-deep"):
        does, lie = LIES[name]
        yield Entry(
            f"current-{name}", f"Its answer for the current generation {does}.", whole("generation", lying(lie))
        )


def _of_generation(lie: Callable[[Asked, Signed], None]) -> Answer:
    def answer(asked: Asked) -> Iterable[Step]:
        document: Signed = {"raw": '{"schemaVersion":2,"manifests":[]}', "signature": None}
        lie(asked, document)
        return says(json.dumps(document).encode())(asked)

    return answer


# ------------------------------------------------------------------------------------------------- heads of indexes


def _signed_head(asked: Asked, document: Signed, signer: str) -> None:
    """Sign the head and the digest with the bad node's own key, in the name of a signer."""
    head = IndexHead(document["kind"], document["number"], document["digest"], document["size"])
    signed = asked.sign(head.to_bytes())
    document["signature"] = signed | {"signer": signer, "head": signed["signature"]}


def _head_of_no_seed(asked: Asked, document: Signed) -> None:
    _signed_head(asked, document, asked.sign(b"")["signer"])


def _newer_head(signer: str | None) -> Callable[[Asked, Signed], None]:
    def lie(asked: Asked, document: Signed) -> None:
        document |= {"number": document["number"] + 1, "digest": ELSEWHERE, "size": 200 << 20}
        _signed_head(asked, document, signer or asked.sign(b"")["signer"])

    return lie


def _head_fields(**fields: object) -> Callable[[Asked, Signed], None]:
    return lambda asked, document: document.update(fields)


def _head_signature(**fields: object) -> Callable[[Asked, Signed], None]:
    def lie(asked: Asked, document: Signed) -> None:
        document["signature"] = {**(document["signature"] or {}), **fields}

    return lie


HEADS: dict[str, tuple[str, Callable[[Asked, Signed], None]]] = {
    "number-of-letters": ("has a number of letters", _head_fields(number="two")),
    "number-infinite": ("has an infinite number", _head_fields(number=float("inf"))),
    "number-newer": ("has a number that nobody signed", _head_fields(number=10**6)),
    "digest-of-letters": ("has a digest with line breaks", _head_fields(digest=f"sha256:0\n{FORGED}")),
    "digest-other": ("has a digest that nobody signed", _head_fields(digest=ELSEWHERE)),
    "size-of-letters": ("has a size of letters", _head_fields(size="long")),
    "size-huge": ("has a size of 2^62 bytes", _head_fields(size=1 << 62)),
    "size-larger": ("has a size of 200 MiB that nobody signed", _head_fields(size=200 << 20)),
    "size-negative": ("has a size below zero", _head_fields(size=-1)),
    "other-kind": ("is that of another index", _head_fields(kind="pushes")),
    "forged-kind": ("has a kind with line breaks and escapes", _head_fields(kind=f"\n{FORGED}\x1b[2J\u202e")),
    "no-seed": ("is validly signed by a node that is no seed", _head_of_no_seed),
    "newer-no-seed": ("is a newer one, validly signed by a node that is no seed", _newer_head(None)),
    "newer-as-seed": ("is a newer one, signed in the publisher's name", _newer_head("a")),
    "signature-missing": ("has no signature", _head_fields(signature=None)),
    "signature-list": ("has a list for a signature", _head_fields(signature=[1, 2])),
    "signature-number": ("has a signature of its own that is a number", _head_signature(head=1)),
    "signature-of-text": ("has no signature of its own", _head_signature(head=None)),
    "signer-forged": ("is signed by somebody with line breaks in the name", _head_signature(signer=f"x\n{FORGED}\x1b[2J")),
    "certificate-many": ("is signed with 200 certificates", lambda asked, document: _head_signature(certificate=asked.sign(b"")["certificate"] * 200)(asked, document)),
}  # fmt: skip
"""Lies in the head of an index; the publisher's newest is what they begin with."""


def _longer_head(asked: Asked, document: Signed) -> None:
    document["more"] = "a" * (1 << 20)


def replayed() -> Answer:
    """Give the first honest answer again and again."""
    first: list[Reply] = []

    def answer(asked: Asked) -> Iterable[Step]:
        if not first:
            first.append(asked.honest())
        return says(first[0].body, first[0].status)(asked)

    return answer


def _of_other(route: str, lie: Callable[[Asked, Signed], None] = lambda asked, document: None) -> Answer:
    """Give the publisher's answer to another route, changed by a lie."""
    return lambda asked: lying(lie)(asked.at(f"/p2p/v1/{route}"))


def _texts(change: Callable[[bytes], bytes]) -> Answer:
    """Give other bytes than those of the publisher's index, with the length that they have."""
    return lambda asked: says(change(asked.honest().body))(asked)


_DRIPS = wire(Send(head(200, 20_000)), Send(b" ", None, 1, 0.4))
"""A body that takes hours, and is never silent for long."""
TEXTS: dict[str, tuple[str, Answer]] = {
    "longer": ("are one more than signed", _texts(lambda raw: raw + b" ")),
    "much-longer": ("are 30 MB more than signed", _texts(lambda raw: raw + b" " * 30_000_000)),
    "without-end": ("have no end", repeated(b"[],", None)),
    "shorter": ("are one less than signed", _texts(lambda raw: raw[:-1])),
    "empty": ("are none", _texts(lambda raw: b"")),
    "other": ("are others, as many as signed", _texts(lambda raw: bytes(len(raw)))),
    "turned": ("have one bit turned", _texts(lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]))),
    "wrapped": ("are wrapped in JSON", _texts(lambda raw: json.dumps({"raw": raw.decode(), "signature": None}).encode())),
    "gone": ("are not there", says(b"{}", 404)),
    "drips": ("come one each 0.4 s", _DRIPS),
}  # fmt: skip
"""Bytes behind a head that is right."""


def _heads() -> Iterator[Entry]:
    def headed(name: str, does: str, bad: Answer) -> Entry:
        answers = {"ping": ahead("generation"), "generation/head": bad}
        return Entry(f"head-{name}", f"The head of its generation {does}.", answers)

    for name, (does, lie) in HEADS.items():
        yield headed(name, does, lying(lie))
    yield headed("1-mib", "is 1 MiB long", lying(_longer_head))
    yield headed("endless", "has a number without end", repeated(b"9", None, before=b'{"number":'))
    yield headed("deep", "is `[` 100,000 times", says(b"[" * 100_000))
    yield headed("drips", "comes a byte each 0.4 s", _DRIPS)
    yield headed("replayed", "is one that was valid once", replayed())
    yield Entry(
        "head-of-generation-for-pushes",
        "The head of its index of pushes is the valid one of the generation.",
        {"ping": ahead("pushes"), "pushes/head": _of_other("generation/head")},
    )
    yield Entry(
        "head-of-generation-as-pushes",
        "The head of its index of pushes is that of the generation, with the other name in it.",
        {"ping": ahead("pushes"), "pushes/head": _of_other("generation/head", _head_fields(kind="pushes"))},
    )
    for name, (does, bad) in TEXTS.items():
        sentence = f"The bytes behind the valid head of its generation {does}."
        yield Entry(f"text-{name}", sentence, {"ping": soon_ahead(), "generation/raw": bad})


# ------------------------------------------------------------------------------------------------------------- blobs


def _part(share: float, *then: Step) -> Answer:
    """Send the first part of the blob, and then do something else."""

    def answer(asked: Asked) -> Iterable[Step]:
        content = asked.blob()
        yield _blob_head(asked, len(content))
        yield Send(content[: int(len(content) * share)])
        yield from then

    return answer


def _blob_head(asked: Asked, length: int) -> Send:
    reply = asked.honest()
    more = {"Content-Range": reply.headers["Content-Range"]} if "Content-Range" in reply.headers else {}
    return Send(head(reply.status, length, more))


def _paced(step: int, pause: float) -> Answer:
    def answer(asked: Asked) -> Iterable[Step]:
        content = asked.blob()
        return (_blob_head(asked, len(content)), Send(content, 1, step, pause))

    return answer


def _wrong(change: Callable[[bytes], bytes]) -> Answer:
    """Send changed bytes of the blob, with the length that they have."""

    def answer(asked: Asked) -> Iterable[Step]:
        content = change(asked.blob())
        return (_blob_head(asked, len(content)), Send(content))

    return answer


def _turned(at: float) -> Callable[[bytes], bytes]:
    """Turn one bit."""

    def change(content: bytes) -> bytes:
        if not content:
            return content
        place = min(len(content) - 1, int(len(content) * at))
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

    return change


def _lying_map(content: bytes) -> bytes:
    """Return a piece map with other hashes in it; any other blob as it is."""
    if b"piece" not in content[:200] or not content.startswith(b"{"):
        return content
    document = json.loads(content)
    document["pieces"] = ["0" * 64 for _ in document["pieces"]]
    return json.dumps(document, separators=(",", ":")).encode()


def _whole(asked: Asked) -> Iterable[Step]:
    """Send the blob from the first byte of the range on as if it were the whole."""
    yield Send(head(200, len(asked.blob())) + asked.blob())


def _other_range(asked: Asked) -> Iterable[Step]:
    content = asked.blob()
    yield Send(head(206, len(content), {"Content-Range": f"bytes 7-{len(content) + 6}/{len(content) + 7}"}) + content)


def _late_and_cut(asked: Asked) -> Iterable[Step]:
    content = asked.blob()
    reply = _blob_head(asked, len(content)).data
    # A pause follows each half.
    yield Send(reply, 1, -(-len(reply) // 2), 0.7)
    yield Send(content[: 700 << 10])
    yield Then.RESET


BLOBS: dict[str, tuple[str, Answer]] = {
    "nothing-behind": ("says that it holds every blob, and then never sends a byte", _part(0.0, Then.SILENCE)),
    "gone": ("says that it holds every blob, and then 404", says(b"", 404)),
    "drips": ("sends every blob at 2 B/s", _paced(1, 0.5)),
    "64k": ("sends every blob at 64 KiB/s", _paced(16 << 10, 0.25)),
    "bursts": ("sends 100 KB of a blob each 0.8 s", _paced(100_000, 0.8)),
    "slow-after-half": ("sends the last half of a blob at 4 B/s", _part(0.5, Send(b"abc", None, 1, 0.25))),
    "stops": ("stops in the middle of a blob", _part(0.5, Then.SILENCE)),
    "ends": ("ends a blob in its middle", _part(0.5, Then.END)),
    "resets": ("resets the connection in the middle of a blob", _part(0.5, Then.RESET)),
    "resets-at-the-end": ("resets the connection before a blob's last bytes", _part(0.999, Then.RESET)),
    "short": ("sends a blob without its last byte", _wrong(lambda content: content[:-1])),
    "long": ("sends a blob with a byte too many", _wrong(lambda content: content + b"a")),
    "without-end": ("sends a blob without end", _part(1.0, Send(b"a" * 65536, None))),
    "wrong-first": ("sends blobs with a wrong first byte", _wrong(_turned(0))),
    "wrong-middle": ("sends blobs with a wrong byte in the middle", _wrong(_turned(0.5))),
    "wrong-last": ("sends blobs with a wrong last byte", _wrong(_turned(1))),
    "zeros": ("sends zeros for every blob", _wrong(lambda content: bytes(len(content)))),
    "empty": ("sends nothing, and that is whole", _wrong(lambda content: b"")),
    "map-lies": ("sends piece maps with other hashes", _wrong(_lying_map)),
    "whole": ("sends a blob from its first byte on, whatever is asked for", _whole),
    "other-range": ("sends another range than the one that was asked for", _other_range),
    "deep": ("sends `[` 100,000 times for every blob", says(b"[" * 100_000)),
}  # fmt: skip


_EVERY = ("drips", "stops", "nothing-behind", "gone", "short", "wrong-middle", "zeros", "map-lies", "deep")
"""Faults that concern manifests and piece maps too. Whoever has met it there does not ask it for layers any more."""
_LAYER = 100_000
"""Bytes that only a layer has."""


def _layers(bad: Answer) -> Answer:
    """Answer badly where a layer is asked for."""
    return lambda asked: (bad if len(asked.blob()) > _LAYER else honest)(asked)


_RIGHT_FROM_THE_START = {"whole", "without-end"}
"""Nobody notices them who asks for a layer from its first byte, and takes as many bytes as it has: what comes is right."""


def _blobs() -> Iterator[Entry]:
    for name, (does, bad) in BLOBS.items():
        if name != "map-lies":
            answers = {"held": well, "blob": _layers(bad)}
            is_fault = name not in _RIGHT_FROM_THE_START
            yield Entry(f"layer-{name}", f"It {does}, where that is a layer.", answers, is_fault=is_fault)
        if name in _EVERY:
            yield Entry(f"blob-{name}", f"It {does}.", {"held": well, "blob": bad})
    yield Entry(
        "layer-late-and-cut",
        "It takes 1.4 s for the answer with a layer, sends 700 KiB, and resets the connection.",
        {"held": well, "blob": _layers(_late_and_cut)},
    )
    yield Entry(
        "blob-held-by-all",
        "It says with a body, where none may be, that it holds every blob.",
        {"held": wire(Send(head(200, 5) + b"hello" * 50))},
        is_fault=False,
    )
    yield Entry(
        "blob-denied", "It denies every blob.", {"held": says(b"", 404), "blob": says(b"", 404)}, is_fault=False
    )


# --------------------------------------------------------------------------------------------- strangers and errands

_RECORD = b"\x16\x03\x03\x40\x00"
"""Head of a TLS record of a handshake, 16 KiB long."""

GREETINGS: dict[str, tuple[str, tuple[Step, ...]]] = {
    "silent": ("accepts connections and says nothing", (Then.SILENCE,)),
    "record-drips": ("sends the head of a TLS record, and then a byte each 0.5 s", (Send(_RECORD), Send(b"\2", None, 1, 0.5))),
    "record-drips-quick": ("sends the head of a TLS record, and then a byte each 0.05 s", (Send(_RECORD), Send(b"\2", None, 1, 0.05))),
    "records-of-nothing": ("sends empty TLS records without end", (Send(b"\x16\x03\x03\x00\x00" * 99, None, 0, 0.1),)),
    "alerts": ("sends warnings of TLS without end", (Send(b"\x15\x03\x03\x00\x02\x01\x5a", None, 0, 0.2),)),
    "hello-requests": ("sends requests to begin TLS anew without end", (Send((_RECORD + bytes(1 << 14)) * 4, None),)),
    "hello-requests-small": ("sends them one by one", (Send(b"\x16\x03\x03\x00\x04\0\0\0\0" * 9999, None),)),
    "floods": ("sends zeros without end", (Send(bytes(65536), None),)),
    "closes": ("closes every connection", (Then.END,)),
    "resets": ("resets every connection", (Then.RESET,)),
    "plain-http": ("answers in plain HTTP", (Send(head(200, 2) + b"{}"), Then.END)),
    "plain-http-drips": ("answers in plain HTTP, a byte each 0.4 s", (Send(head(200, 2) * 100, None, 1, 0.4),)),
    "ssh": ("is an SSH server", (Send(b"SSH-2.0-OpenSSH_9.2\r\n"), Then.SILENCE)),
}  # fmt: skip


def _strangers() -> Iterator[Entry]:
    for name, (does, steps) in GREETINGS.items():
        yield Entry(f"stranger-{name}", f"A stranger at its address {does}.", certificate="none", greeting=steps)
    yield Entry(
        "stranger-other-authority",
        "A stranger at its address has a certificate in its name, of another authority.",
        certificate="other",
    )
    yield Entry(
        "greets-with-drips",
        "It sends a byte each 0.4 s as soon as TLS stands, before anything is asked.",
        greeting=(Send(b"H", None, 1, 0.4),),
    )


def _errands() -> Iterator[Entry]:
    calls = {
        "wakes": ("wakes the others over and over", Errand("POST", "/p2p/v1/wake", 4)),
        "reads-indexes": ("reads the others' generation over and over", Errand("GET", "/p2p/v1/generation", 8)),
        "reads-nothing": (
            "asks for the others' generation 100 times at once and reads no answer",
            Errand("GET", "/p2p/v1/generation", 100, reads=False),
        ),
    }
    for name, (does, errand) in calls.items():
        yield Entry(f"errand-{name}", f"It {does}.", errands=(errand,))


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in chain(_on_the_wire(), _pings(), _indexes(), _heads(), _blobs(), _strangers(), _errands())
}
"""Every entry by its name."""
WELL = Entry("well", "It is well.")
"""No bad node at all: what a test has to find nothing wrong with."""
