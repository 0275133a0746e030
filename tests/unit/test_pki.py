"""Keys, certificates and signatures: made once, named by the inventory, and trusted only when all of it fits."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import ssl
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance import pki, trust
from appliance.errors import ApplianceError
from appliance.trust import Signature, Trust

UTC = datetime.timezone.utc
CONTENT = b'{"generation":1}'


def enrol(root: Path, node: str, address: str = "10.0.0.1", ca: str = "ca") -> Path:
    directory = root / f"{ca}-{node}"
    pki.request(directory, node, address)
    pki.sign(root / ca, directory / "node.csr", directory / "node.crt", node, address)
    (directory / "ca.crt").write_bytes((root / ca / "ca.crt").read_bytes())
    return directory


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(found: x509.Certificate) -> list[str]:
    extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in extension]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with the site's CA in ``ca`` and a stranger's in ``other``."""
    pki.init_ca(tmp_path / "ca", "ship")
    pki.init_ca(tmp_path / "other", "ship")
    return tmp_path


def test_the_authority_is_made_once(tmp_path: Path) -> None:
    assert pki.init_ca(tmp_path / "ca", "ship")
    before = {path.name: path.read_bytes() for path in (tmp_path / "ca").iterdir()}
    assert not pki.init_ca(tmp_path / "ca", "another name")
    assert {path.name: path.read_bytes() for path in (tmp_path / "ca").iterdir()} == before
    assert set(before) == {"ca.key", "ca.crt"}
    assert stat.S_IMODE((tmp_path / "ca" / "ca.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("lost", ["ca.key", "ca.crt"])
def test_half_an_authority_is_never_replaced(root: Path, lost: str) -> None:
    (root / "ca" / lost).unlink()
    with pytest.raises(ApplianceError) as caught:
        pki.init_ca(root / "ca")
    assert caught.value.code == "APL-0603"
    assert not (root / "ca" / lost).exists()


def test_certificates_are_good_in_1970_and_for_generations(root: Path) -> None:
    for found in (certificate(root / "ca" / "ca.crt"), certificate(enrol(root, "a") / "node.crt")):
        assert found.not_valid_before_utc == datetime.datetime(1970, 1, 1, tzinfo=UTC)
        assert found.not_valid_after_utc > datetime.datetime(2150, 1, 1, tzinfo=UTC)


def test_what_a_certificate_may_do(root: Path) -> None:
    authority = certificate(root / "ca" / "ca.crt")
    node = certificate(enrol(root, "a", "10.0.0.7") / "node.crt")
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not node.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not node.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert set(node.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    }
    assert names(node) == ["a", "10.0.0.7"]
    node.verify_directly_issued_by(authority)


def test_request_and_sign_change_nothing_the_second_time(root: Path) -> None:
    directory = enrol(root, "a")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert not pki.request(directory, "a", "10.0.0.1")
    assert not pki.sign(root / "ca", directory / "node.csr", directory / "node.crt", "a", "10.0.0.1")
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert stat.S_IMODE((directory / "node.key").stat().st_mode) == 0o600


def test_a_new_address_keeps_the_key(root: Path) -> None:
    directory = enrol(root, "a")
    key = (directory / "node.key").read_bytes()
    assert pki.request(directory, "a", "10.0.0.2")
    assert pki.sign(root / "ca", directory / "node.csr", directory / "node.crt", "a", "10.0.0.2")
    assert (directory / "node.key").read_bytes() == key
    assert names(certificate(directory / "node.crt")) == ["a", "10.0.0.2"]


def test_a_new_key_is_signed_again(root: Path) -> None:
    directory = enrol(root, "a")
    (directory / "node.key").unlink()
    assert pki.request(directory, "a", "10.0.0.1")
    assert pki.sign(root / "ca", directory / "node.csr", directory / "node.crt", "a", "10.0.0.1")


def test_a_new_authority_signs_again(root: Path) -> None:
    directory = enrol(root, "a")
    assert pki.sign(root / "other", directory / "node.csr", directory / "node.crt", "a", "10.0.0.1")


@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1", "node.example"])
def test_every_kind_of_address_is_named(root: Path, address: str) -> None:
    found = names(certificate(enrol(root, "a", address) / "node.crt"))
    assert found == ["a", address if not address.startswith("fd") else str(ipaddress.ip_address(address))]


def test_the_names_are_the_inventorys_never_the_requests(root: Path) -> None:
    directory = root / "liar"
    pki.request(directory, "publisher", "10.0.0.9")
    pki.sign(root / "ca", directory / "node.csr", directory / "node.crt", "c", "10.0.0.3")
    found = certificate(directory / "node.crt")
    assert names(found) == ["c", "10.0.0.3"]
    assert found.subject.rfc4514_string() == "CN=c"


def test_files_cut_short_by_a_power_loss_are_made_again(root: Path) -> None:
    directory = enrol(root, "a")
    for name in ("node.csr", "node.crt"):
        path = directory / name
        path.write_bytes(path.read_bytes()[:50])
    assert pki.request(directory, "a", "10.0.0.1")
    assert pki.sign(root / "ca", directory / "node.csr", directory / "node.crt", "a", "10.0.0.1")
    assert names(certificate(directory / "node.crt")) == ["a", "10.0.0.1"]
    assert {path.name for path in directory.iterdir()} == {"node.key", "node.csr", "node.crt", "ca.crt"}


def test_what_is_no_request_is_refused(root: Path) -> None:
    directory = enrol(root, "a")
    good = (directory / "node.csr").read_bytes()
    body = base64.b64decode(b"".join(good.splitlines()[1:-1]))
    forged = bytearray(body)
    forged[-1] ^= 1
    pem = (
        b"-----BEGIN CERTIFICATE REQUEST-----\n"
        + base64.encodebytes(bytes(forged))
        + b"-----END CERTIFICATE REQUEST-----\n"
    )
    for content in (b"", b"nonsense", pem, (directory / "node.key").read_bytes()):
        (directory / "node.csr").write_bytes(content)
        with pytest.raises(ApplianceError) as caught:
            pki.sign(root / "ca", directory / "node.csr", root / "out.crt", "a", "10.0.0.1")
        assert caught.value.code == "APL-0604"
    with pytest.raises(ApplianceError, match="APL-0604"):
        pki.sign(root / "ca", root / "nowhere.csr", root / "out.crt", "a", "10.0.0.1")
    assert not (root / "out.crt").exists()


def test_keys_that_cannot_be_used_are_named(root: Path) -> None:
    directory = enrol(root, "a")
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content in (b"", b"nonsense", other):
        (directory / "node.key").write_bytes(content)
        with pytest.raises(ApplianceError) as caught:
            Trust(directory, "a", ["a"]).sign(CONTENT)
        assert caught.value.code == "APL-0607"
        assert str(directory / "node.key") in str(caught.value)
    with pytest.raises(ApplianceError, match="APL-0607"):
        Trust(root / "nowhere", "a", ["a"]).sign(CONTENT)


def test_a_lost_certificate_is_an_error_with_an_id(root: Path) -> None:
    directory = enrol(root, "a")
    signature = Trust(directory, "a", ["a"]).sign(CONTENT)
    (directory / "node.crt").unlink()
    (directory / "ca.crt").unlink()
    with pytest.raises(ApplianceError, match="APL-0607"):
        Trust(directory, "a", ["a"]).sign(CONTENT)
    with pytest.raises(ApplianceError, match="APL-0607"):
        Trust(directory, "a", ["a"]).check(CONTENT, signature)


def refuse(trust: Trust, content: bytes, signature: Signature | None, why: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        trust.check(content, signature)
    assert caught.value.code == "APL-0606"
    assert why in caught.value.why


def test_a_seeds_signature_is_good_on_every_node(root: Path) -> None:
    signature = Trust(enrol(root, "a"), "a", ["a", "b"]).sign(CONTENT)
    assert signature is not None
    assert signature.signer == "a"
    Trust(enrol(root, "c"), "c", ["a", "b"]).check(CONTENT, Signature.from_json(signature.to_json()))


def test_everything_else_is_refused(root: Path) -> None:
    node = enrol(root, "c")
    trust = Trust(node, "c", ["a", "b"])
    good = Trust(enrol(root, "a"), "a", ["a"]).sign(CONTENT)
    stranger = Trust(enrol(root, "a", ca="other"), "a", ["a"]).sign(CONTENT)
    own = Trust(node, "c", ["c"]).sign(CONTENT)
    assert good is not None
    assert stranger is not None
    assert own is not None
    trust.check(CONTENT, good)
    refuse(trust, CONTENT, None, "no signature")
    refuse(trust, CONTENT + b" ", good, "does not match")
    refuse(trust, CONTENT, own, "no seed")
    refuse(trust, CONTENT, replace(own, signer="a"), "another node's")
    refuse(trust, CONTENT, replace(good, signer="b"), "another node's")
    refuse(trust, CONTENT, replace(good, signer=""), "no seed")
    refuse(trust, CONTENT, stranger, "not from this site's authority")
    refuse(trust, CONTENT, replace(good, certificate=stranger.certificate), "not from this site's authority")
    refuse(trust, CONTENT, replace(good, certificate=own.certificate), "another node's")
    refuse(trust, CONTENT, replace(good, signature=own.signature), "does not match")
    refuse(trust, CONTENT, replace(good, certificate="x"), "cannot be read")
    refuse(trust, CONTENT, replace(good, certificate="\ud800"), "cannot be read")
    refuse(trust, CONTENT, replace(good, signature="%"), "cannot be read")
    refuse(trust, CONTENT, replace(good, signature=""), "does not match")
    refuse(Trust(node, "c", []), CONTENT, good, "no seed")


def test_the_authoritys_own_certificate_signs_nothing(root: Path) -> None:
    key = serialization.load_pem_private_key((root / "ca" / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signed = base64.b64encode(key.sign(CONTENT, ec.ECDSA(hashes.SHA256()))).decode()
    forged = Signature("a", (root / "ca" / "ca.crt").read_text(), signed)
    refuse(Trust(enrol(root, "c"), "c", ["a"]), CONTENT, forged, "another node's")


def test_a_certificate_that_only_names_the_authority_is_refused(root: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    forged = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")]))
        .issuer_name(certificate(root / "ca" / "ca.crt").subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(1970, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime.datetime(2100, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    signature = Signature(
        "a",
        forged.public_bytes(serialization.Encoding.PEM).decode(),
        base64.b64encode(key.sign(CONTENT, ec.ECDSA(hashes.SHA256()))).decode(),
    )
    refuse(Trust(enrol(root, "c"), "c", ["a"]), CONTENT, signature, "not from this site's authority")


def test_without_a_pki_nothing_is_signed_and_nothing_asked() -> None:
    trust = Trust(None, "a", ())
    assert trust.sign(CONTENT) is None
    trust.check(CONTENT, None)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"5", b"null", b"{}", b'{"signer":1,"certificate":"","signature":""}', None, "\ud800", b"[" * 9999],
)
def test_what_is_no_signature_is_refused(data: object) -> None:
    with pytest.raises(ApplianceError) as caught:
        Signature.from_json(data)
    assert caught.value.code == "APL-0605"


def test_common_name_of_a_peer() -> None:
    parsed = {"subject": ((("countryName", "XX"),), (("commonName", "node-a"),)), "issuer": ()}
    assert trust.common_name(parsed) == "node-a"
    for nothing in (None, {}, {"subject": ()}, b"der", 5):
        assert trust.common_name(nothing) is None


def test_tls_contexts_trust_the_site_only(root: Path) -> None:
    directory = enrol(root, "a")
    server, client = trust.server_context(directory), trust.client_context(directory)
    assert server.verify_mode == ssl.CERT_OPTIONAL
    assert client.verify_mode == ssl.CERT_REQUIRED
    assert client.check_hostname
    for context in (server, client):
        assert len(context.get_ca_certs()) == 1
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def agreed(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[str, str] | None:
    """Return the cipher and the version that two ends settle on in a handshake in memory; None where they do not."""
    ways = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(ways[0], ways[1], server_hostname="a"),
        server.wrap_bio(ways[1], ways[0], server_side=True),
    )
    done = set()
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return None
        if len(done) == 2:
            cipher = ends[0].cipher()
            assert cipher is not None
            return cipher[0], cipher[1]
    raise AssertionError("neither an end nor an error")


def stranger(root: Path, ciphers: str) -> ssl.SSLContext:
    """A client, or a server, of TLS 1.2 that knows only these suites."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=root / "ca" / "ca.crt")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    return context


@pytest.mark.parametrize("suite", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-SHA"])
def test_cbc_is_not_spoken(root: Path, suite: str) -> None:
    directory = enrol(root, "a")
    assert agreed(trust.server_context(directory), stranger(root, f"{suite}:@SECLEVEL=0")) is None
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / "node.crt", directory / "node.key")
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    server.set_ciphers(f"{suite}:@SECLEVEL=0")
    assert agreed(server, trust.client_context(directory)) is None


def test_authenticated_encryption_is_spoken_and_tls_1_3_by_default(root: Path) -> None:
    directory = enrol(root, "a")
    server, client = trust.server_context(directory), trust.client_context(directory)
    found = agreed(server, client)
    assert found is not None and found[1] == "TLSv1.3"
    for suite in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"):
        assert agreed(server, stranger(root, suite)) == (suite, "TLSv1.2")
    for context in (server, client):
        assert all(cipher["aead"] for cipher in context.get_ciphers())


def test_a_certificate_of_an_unknown_version_is_a_refusal(root: Path) -> None:
    pem, signature = pki.sign_content(home := enrol(root, "a"), b"content")
    raw = certificate_bytes(pem)
    assert raw.count(b"\xa0\x03\x02\x01\x02") == 1
    odd = raw.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x06")
    why = pki.why_unsigned(home, b"content", "a", as_pem(odd), signature)
    assert why is not None
    assert "InvalidVersion" in why


def test_no_byte_of_a_foreign_certificate_raises_anything(root: Path) -> None:
    """All that cryptography raises, whichever field it reads first, is a refusal."""
    pem, signature = pki.sign_content(home := enrol(root, "a"), b"content")
    raw = bytearray(certificate_bytes(pem))
    for position in range(len(raw)):
        for value in (0x00, 0xFF, raw[position] ^ 1):
            changed = bytes([*raw[:position], value, *raw[position + 1 :]])
            why = pki.why_unsigned(home, b"content", "a", as_pem(changed), signature)
            # A few bytes around the authority's signature are not under it: with those it is the same certificate.
            assert why is not None or signed_part(changed) == signed_part(bytes(raw))
    for odd in ("", "\ud800", "x" * 70_000, pem[:100]):
        assert pki.why_unsigned(home, b"content", "a", odd, signature) is not None
        assert pki.why_unsigned(home, b"content", "a", pem, odd) is not None


def certificate_bytes(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)


def signed_part(raw: bytes) -> bytes:
    return x509.load_der_x509_certificate(raw).tbs_certificate_bytes


def as_pem(raw: bytes) -> str:
    lines = base64.encodebytes(raw).decode()
    return f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n"
