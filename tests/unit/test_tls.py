"""TLS of the peers' listener: data as it is, and no client has the process to itself with records that hold none."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from gevent.socket import SHUT_WR, socketpair

from appliance import limits
from appliance.tls import TlsSocket, WithoutData
from appliance.trust import client_context, common_name, server_context
from tests.keys import site_keys

DATA = os.urandom(1 << 20) * 3


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys of nodes a and b."""
    return site_keys(tmp_path_factory.mktemp("keys"), "a", "b")


class Peer:
    """The client's side, by the standard library over memory, so that one thread has both sides."""

    def __init__(self, sock: Any, context: ssl.SSLContext) -> None:
        context.check_hostname = False
        self.sock = sock
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._received, self._to_send)

    def until(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._to_send.read())
                self._received.write(self.sock.recv(1 << 16))
                continue
            self.sock.sendall(self._to_send.read())
            return result

    def read(self, count: int) -> bytes:
        content = bytearray()
        while len(content) < count:
            content += self.until(lambda: self.tls.read(1 << 16))
        return bytes(content)

    def write(self, data: bytes) -> None:
        for begin in range(0, len(data), 1 << 14):
            self.until(functools.partial(self.tls.write, data[begin : begin + (1 << 14)]))


@pytest.fixture
def pair(keys: Path) -> Iterator[tuple[TlsSocket, Any]]:
    """The server's side, and the client's plain socket."""
    here, there = socketpair()
    here.settimeout(20)
    there.settimeout(20)
    server = TlsSocket(here, server_context(keys / "a"))
    yield server, there
    server.close()
    there.close()


def met(server: TlsSocket, peer: Peer) -> None:
    shaking = gevent.spawn(server.do_handshake)
    peer.until(peer.tls.do_handshake)
    shaking.get(timeout=20)


@contextlib.contextmanager
def turns() -> Iterator[list[int]]:
    """How often another greenlet had its turn."""
    count = [0]

    def turn() -> None:
        while True:
            count[0] += 1
            gevent.sleep(0)

    other = gevent.spawn(turn)
    yield count
    other.kill()


def test_data_goes_both_ways_and_the_certificate_is_known(pair: tuple[TlsSocket, Any], keys: Path) -> None:
    server, there = pair
    peer = Peer(there, client_context(keys / "b"))
    met(server, peer)
    assert common_name(server.getpeercert()) == "b"
    sending = gevent.spawn(server.sendall, DATA)
    assert peer.read(len(DATA)) == DATA
    sending.get(timeout=20)
    sending = gevent.spawn(peer.write, DATA)
    content, buffer = bytearray(), bytearray(100_000)
    while len(content) < len(DATA) // 2:
        content += server.recv(100_000)
    while len(content) < len(DATA):
        content += buffer[: server.recv_into(buffer)]
    assert content == DATA
    sending.get(timeout=20)
    assert server.send(b"end") == 3
    assert peer.read(3) == b"end"


@pytest.mark.parametrize("properly", [True, False])
def test_the_end_of_a_connection_is_the_end_of_data(pair: tuple[TlsSocket, Any], keys: Path, properly: bool) -> None:
    server, there = pair
    peer = Peer(there, client_context(keys / "b"))
    met(server, peer)
    peer.write(b"last")
    if properly:
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.unwrap()
        there.sendall(peer._to_send.read())
    there.shutdown(SHUT_WR)
    assert (server.recv(100), server.recv(100), server.recv_into(bytearray(9))) == (b"last", b"", 0)


def test_an_operator_comes_without_a_certificate(pair: tuple[TlsSocket, Any], keys: Path) -> None:
    server, there = pair
    met(server, Peer(there, ssl.create_default_context(cafile=str(keys / "a" / "ca.crt"))))
    assert server.getpeercert() is None


def test_a_wait_has_an_end_and_what_was_not_sent_is_sent_later(pair: tuple[TlsSocket, Any], keys: Path) -> None:
    server, there = pair
    peer = Peer(there, client_context(keys / "b"))
    met(server, peer)
    server.settimeout(0.05)
    with pytest.raises(TimeoutError):
        server.recv(100)
    with pytest.raises(TimeoutError):
        server.sendall(DATA)
    server.settimeout(20)
    sending = gevent.spawn(server.sendall, b"more")
    content = bytearray()
    while not content.endswith(b"more"):
        content += peer.read(1)
    assert DATA.startswith(content[:-4])
    sending.get(timeout=20)


def test_a_hello_in_records_of_one_byte_ends(pair: tuple[TlsSocket, Any]) -> None:
    server, there = pair
    hello = b"\1\0\xff\xff\3\3" + bytes(1 << 16)
    sending = gevent.spawn(there.sendall, b"".join(b"\x16\3\1\0\1" + bytes([byte]) for byte in hello))
    with turns() as count, pytest.raises(WithoutData):
        server.do_handshake()
    assert count[0] > 3
    server.close()
    with contextlib.suppress(OSError):
        sending.get(timeout=20)


def expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446, 7.1, without a context; one block of SHA-384 is enough here."""
    label = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
    return hmac.new(secret, info + b"\1", hashlib.sha384).digest()[:length]


def key_updates(secret: bytes, count: int) -> tuple[bytes, bytes]:
    """Records with KeyUpdate messages of a client that sent nothing yet; and the secret after them."""
    records = bytearray()
    for _ in range(count):
        # Each is the first record under its key: the number of the record, which the nonce is made with, is 0.
        head = b"\x17\3\3\0\x16"
        sealed = AESGCM(expand(secret, b"key", 32)).encrypt(expand(secret, b"iv", 12), b"\x18\0\0\1\0\x16", head)
        records += head + sealed
        secret = expand(secret, b"traffic upd", 48)
    return bytes(records), secret


@pytest.fixture
def secret(pair: tuple[TlsSocket, Any], keys: Path, tmp_path: Path) -> bytes:
    """What a client's records are encrypted with after the handshake."""
    server, there = pair
    context = client_context(keys / "b")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.keylog_filename = str(tmp_path / "secrets")
    peer = Peer(there, context)
    met(server, peer)
    assert peer.tls.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
    lines = dict(line.split(" ", 1) for line in (tmp_path / "secrets").read_text().splitlines() if line[0] != "#")
    return bytes.fromhex(lines["CLIENT_TRAFFIC_SECRET_0"].split()[1])


def test_a_client_may_change_its_keys(pair: tuple[TlsSocket, Any], secret: bytes) -> None:
    server, there = pair
    records, last = key_updates(secret, 100)
    head = b"\x17\3\3\0\x15"
    there.sendall(records + head + AESGCM(expand(last, b"key", 32)).encrypt(expand(last, b"iv", 12), b"data\x17", head))
    assert server.recv(100) == b"data"


def test_key_updates_without_an_end_end_and_others_have_turns(pair: tuple[TlsSocket, Any], secret: bytes) -> None:
    server, there = pair
    records, _ = key_updates(secret, 2 * limits.TLS_BYTES // 27)
    sending = gevent.spawn(there.sendall, records)
    with turns() as count, pytest.raises(WithoutData):
        server.recv(100)
    assert count[0] > 3
    server.close()
    with contextlib.suppress(OSError):
        sending.get(timeout=20)
