"""Answers of a bad peer beside a good one: pings, indexes, signatures, certificates, and answers as they come on the wire.

Input: what the answer is to (one byte, :data:`KINDS`), two sizes (a byte each), and the text. In it ``@`` is nested lists and ``^``
a row of ``[],``, as many as the sizes say; ``$R`` is the publisher's generation as a JSON string has it, ``$G`` its digest, ``$Z`` its
size, ``$C``, ``$S`` and ``$H`` the publisher's certificate and its signatures of generation and head, ``$D``, ``$T`` and ``$I`` those of a
node that is no seed. Of a certificate the text is pairs: a
place in its DER (two bytes), and the byte that is put there.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import io
import json
import shutil
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import gevent
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from appliance.agent.fetch import Fetcher
from appliance.agent.follow import Follower
from appliance.config import Config, LiveConfig, Peer
from appliance.peers import https
from appliance.peers.https import HttpsTransport
from appliance.peers.transport import PeerError
from appliance.store.generations import make
from appliance.store.head import IndexHead
from appliance.trust import Signature, Trust
from tests.fuzz.checks import attempt, known, plain
from tests.keys import site_keys
from tests.memory import forget_peak, memory
from tests.unit.agent.fakes import FakePeer, FakePeers, at_once
from tests.unit.store import made

KINDS = ("ping", "generation", "pushes", "pins", "signature", "certificate", "wire", "head")
WORDS = (
    *('{"raw":"', '"signature":{', '"signer":"a"', '"certificate":"$C"', '"signature":"$S"', '"$D"', '"$T"', "$R", "@", "^"),
    *('{"node":"c","version":"1","generation":{', '"number":', '"digest":"', '"pushes":', '"pins":', "null", "true", "1e999"),
    *("HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "Content-Length: ", "Transfer-Encoding: chunked\r\n"),
    *('"kind":"generation"', '"kind":"pushes"', '"size":$Z', '"digest":"$G"', '"head":"$H"', '"head":"$I"'),
    *("Location: /p2p/v1/ping\r\n", "Content-Encoding: gzip\r\n", "\r\n\r\n", "-1", "f" * 16),
)  # fmt: skip
_DEEPEST, _WIDEST = 500, 10_000
_SECONDS = 10.0
_GROWN = 64 << 20
_IMAGE = made.image(1, size=20)
_LIMIT = 64 << 10


@dataclass(frozen=True)
class Site:
    """A publisher's generation, and what a bad node has to answer with."""

    root: Path
    head: IndexHead
    raw: bytes
    signature: Signature
    other: Signature

    def pki(self, node: str) -> Path:
        """Return the directory with the key and certificate of a node."""
        return self.root / node


@lru_cache(maxsize=1)
def site() -> Site:
    """Return the one site of this process."""
    root = site_keys(Path(tempfile.mkdtemp(prefix="apl-fuzz-")), "a", "b", "c", address="127.0.0.1")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    names = {"docker.io/library/a:1": _IMAGE.entry}
    raw = make(None, names, {}, cause="seeding", created=made.CREATED, sources=["x"]).raw
    head = IndexHead("generation", 1, made.sha(raw), len(raw))
    signed = [Trust(root / node, node, ["a"]).sign(raw, head.to_bytes()) for node in "ac"]
    assert signed[0] is not None and signed[1] is not None
    return Site(root, head, raw, signed[0], signed[1])


def run(data: bytes) -> None:
    """Check that the good peer is followed, nothing of the bad one, and that each word about the bad one is on one line."""
    kind, deep, wide = (data[at] if len(data) > at else 0 for at in range(3))
    forget_peak()
    begun, before = time.monotonic(), memory()[0]
    _TARGETS[KINDS[kind % len(KINDS)]](_text(data[3:], deep, wide))
    assert time.monotonic() - begun < _SECONDS, "it took too long"
    grown = memory()[1] - before
    assert grown < _GROWN, f"{grown >> 20} MiB of memory"


def _text(text: bytes, deep: int, wide: int) -> bytes:
    text = text.replace(b"@", b"[" * deep * _DEEPEST + b"]" * deep * _DEEPEST, 1)
    text = text.replace(b"^", b"[]," * wide * _WIDEST, 1)
    known = site()
    for mark, content in (
        (b"$R", known.raw.decode()),
        (b"$G", known.head.digest),
        (b"$Z", str(known.head.size)),
        (b"$H", known.signature.head),
        (b"$I", known.other.head),
        (b"$C", known.signature.certificate),
        (b"$S", known.signature.signature),
        (b"$D", known.other.certificate),
        (b"$T", known.other.signature),
    ):
        text = text.replace(mark, json.dumps(content)[1:-1].encode(), 1)
    return text


# ----------------------------------------------------------------------------------------------------------- a look


def _look(index: str, answer: bytes) -> None:
    """Have a follower ask both."""
    root = Path(tempfile.mkdtemp(dir=site().root))
    try:
        store = made.open_store(root / "store")
        trust = Trust(site().pki("b"), "b", ["a"])
        opened = made.store(store, trust=trust)
        indexes = opened.generations, opened.pushes, opened.pins
        peers = FakePeers(c=_bad(index, answer), a=_good())
        follower = Follower(opened, peers, Fetcher(store, peers, at_once), at_once)
        with _greenlets_live():
            follower.look()
        current = indexes[0].current()
        assert current is not None and current.raw == site().raw, "the good peer was not followed"
        assert indexes[1].current() is None and indexes[2].current() is None, "what nobody signed is followed"
        for refused in follower.refused:
            assert refused.peer == "c"
            plain(str(refused))
            known(refused.problem)
            json.dumps(refused.as_dict()).encode()
    finally:
        shutil.rmtree(root)


@contextlib.contextmanager
def _greenlets_live() -> Iterator[None]:
    """Fail where a greenlet ends by an exception: gevent prints it, and whoever waits for the greenlet hears nothing."""
    hub, ended = gevent.get_hub(), []
    hub.print_exception = lambda _, kind, value, trace: ended.append(value)
    try:
        yield
    finally:
        del hub.print_exception
    assert not ended, f"a greenlet ended by {ended[0]!r}"[:300]


def _good() -> FakePeer:
    head = json.dumps({**asdict(site().head), "signature": site().signature.to_dict()}).encode()
    return FakePeer(
        dict(_IMAGE.blobs),
        answers={
            "/p2p/v1/ping": lambda: (200, _ping(1, site().head.digest)),
            "/p2p/v1/generation/head": lambda: (200, head),
            f"/p2p/v1/generation/raw/{site().head.digest}": lambda: (200, site().raw),
        },
        slow=3,
    )


def _bad(index: str, answer: bytes) -> FakePeer:
    claims = _ping(10**6, "sha256:" + "e" * 64)
    answers: dict[str, Callable[[], tuple[int, bytes]]] = {
        f"/p2p/v1/{name}": lambda: (200, b"{}") for name in KINDS if name != "ping"
    }
    answers["/p2p/v1/ping"] = lambda: (200, claims)
    answers[f"/p2p/v1/{index}"] = lambda: (200, answer)
    # Behind a head that is right come other bytes.
    answers[f"/p2p/v1/generation/raw/{site().head.digest}"] = lambda: (200, b"{}")
    return FakePeer(answers=answers)


def _ping(number: int, digest: str) -> bytes:
    said = {"number": number, "digest": digest}
    bad = said if number > 1 else None
    return json.dumps({"node": "x", "version": "1", "generation": said, "pushes": bad, "pins": bad}).encode()


# -------------------------------------------------------------------------------------- signatures and certificates


def _signature(text: bytes) -> None:
    found = attempt(lambda: Signature.from_json(text))
    if found is not None:
        _check(found)


def _certificate(edits: bytes) -> None:
    der = bytearray(_der())
    for at in range(0, len(edits) - 2, 3):
        der[int.from_bytes(edits[at : at + 2], "big") % len(der)] = edits[at + 2]
    lines = textwrap.wrap(base64.b64encode(bytes(der)).decode(), 64)
    pem = "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
    for signature in (site().signature, site().other):
        _check(Signature("a", pem, signature.signature))


def _check(signature: Signature) -> None:
    """Check that only a signature with the publisher's key is accepted as the publisher's."""
    trust = Trust(site().pki("b"), "b", ["a"])

    def accepted(content: bytes, over: Signature | None) -> bool:
        trust.check(content, over)
        return True

    for content, over in (site().raw, signature), (site().head.to_bytes(), signature.of_head()):
        if attempt(lambda content=content, over=over: accepted(content, over)):  # type: ignore[misc]  # bound at once
            assert signature.signer == "a"
            assert _key(signature.certificate) == _key(site().signature.certificate), (
                "another key counts as the publisher's"
            )


def _key(pem: str) -> object:
    """Return the public key of a certificate; None where it is none."""
    try:
        return x509.load_pem_x509_certificate(pem.encode()).public_key()
    except ValueError:
        return None


def _der() -> bytes:
    found = x509.load_pem_x509_certificate(site().signature.certificate.encode())
    return found.public_bytes(serialization.Encoding.DER)


# ---------------------------------------------------------------------------------------------------------- the wire


class _Wire:
    """A socket on which everything that will come lies ready, and then its end."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._content))

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def _wire(content: bytes) -> None:
    """Send one request that is answered with these bytes."""
    peer = Peer("c", "http://192.0.2.1:5443", "192.0.2.1")
    config = Config(node="b", store=Path("."), peers=(peer,))
    peers = HttpsTransport(LiveConfig(config))
    pool = https._pool(peer, config)
    shipped: Any = pool.pool_classes_by_scheme["http"]

    class Connection(shipped.ConnectionCls):  # type: ignore[misc]  # the class is chosen at run time
        def connect(self) -> None:
            self.sock = _Wire(content)

    pool.pool_classes_by_scheme = {"http": type("Pool", (shipped,), {"ConnectionCls": Connection})}
    peers._lines[peer] = https._PeerState(pool)
    try:
        status, body = peers.ask(peer, "GET", "/p2p/v1/ping")
    except PeerError as error:
        plain(str(error))
    else:
        assert 100 <= status <= 999
        assert len(body) <= _LIMIT


_TARGETS: dict[str, Callable[[bytes], None]] = {
    **{index: lambda text, index=index: _look(index, text) for index in KINDS[:4]},  # type: ignore[misc]  # bound at once
    "head": lambda text: _look("generation/head", text),
    "signature": _signature,
    "certificate": _certificate,
    "wire": _wire,
}
