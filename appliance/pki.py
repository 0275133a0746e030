"""The site's own certificate authority, node certificates, and signatures over generations.

Certificates are valid from 1970 for more than a century: a site whose clock batteries are dead comes back by itself.
Membership is the list of nodes in the inventory; being taken off that list is what revokes a certificate.
Keys are ECDSA P-256: every TLS client an operator may bring knows it.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import os
import secrets
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.errors import ApplianceError, fail

_BEGIN = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_END = datetime.datetime(2199, 12, 31, tzinfo=datetime.timezone.utc)


def init_ca(directory: Path, site: str = "site") -> bool:
    """Make the site's CA (``ca.key`` 0600, ``ca.crt``) unless it is there; true when it was made now."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key_file, certificate_file = directory / "ca.key", directory / "ca.crt"
    if key_file.exists() and certificate_file.exists():
        return False
    if key_file.exists() != certificate_file.exists():
        fail(
            "APL-0603",
            "half of the site's certificate authority is missing",
            where=str(directory),
            why="ca.key and ca.crt belong together",
            fix="Put both back from the backup; a new authority would cut off every node of the site",
        )
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"appliance CA of {site}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_key(key_file, key)
    _write(certificate_file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return True


def request(directory: Path, node: str, address: str) -> bool:
    """Make the node's key (``node.key``, 0600) and its signing request (``node.csr``); true when either changed.

    The key is made here and never leaves; an existing key is kept.
    """
    directory.mkdir(parents=True, exist_ok=True)
    key_file, request_file = directory / "node.key", directory / "node.csr"
    changed = False
    if not key_file.exists():
        _write_key(key_file, ec.generate_private_key(ec.SECP256R1()))
        changed = True
    key = _load_key(key_file)
    if not changed and request_file.exists():
        # A request cut short by a power loss is one to be made again.
        with contextlib.suppress(ValueError):
            old = x509.load_pem_x509_csr(request_file.read_bytes())
            if old.public_key() == key.public_key() and _names(old) == (node, _alternatives(node, address)):
                return False
    made = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)]))
        .add_extension(_alternatives(node, address), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(request_file, made.public_bytes(serialization.Encoding.PEM), 0o644)
    return True


def sign(ca: Path, request_file: Path, out: Path, node: str, address: str) -> bool:
    """Sign a node's request with the site's CA; true when a new certificate was written.

    The names in the certificate are the inventory's, never the request's: a node cannot ask to be another one.

    :raises ApplianceError: APL-0604 when the request is damaged.
    """
    try:
        asked = x509.load_pem_x509_csr(request_file.read_bytes())
    except (ValueError, OSError) as error:
        fail("APL-0604", "not a signing request", where=str(request_file), why=str(error), fix="Run site.yml again")
    if not asked.is_signature_valid:
        fail("APL-0604", "not a signing request", where=str(request_file), why="its signature does not match its key")
    authority = _load_certificate(ca / "ca.crt")
    if out.exists():
        with contextlib.suppress(ValueError):
            old = x509.load_pem_x509_certificate(out.read_bytes())
            same = old.public_key() == asked.public_key() and _names(old) == (node, _alternatives(node, address))
            if same and _is_signed_by(old, authority):
                return False
    key = _load_key(ca / "ca.key")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)]))
        .issuer_name(authority.subject)
        .public_key(asked.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(_alternatives(node, address), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)  # type: ignore[arg-type]  # a CA key of ours is EC
        .sign(key, hashes.SHA256())
    )
    _write(out, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return True


def server_context(pki: Path) -> ssl.SSLContext:
    """TLS context of the peer listener: asks for a client certificate of the site, lets operators come without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pki / "node.crt", pki / "node.key")
    context.load_verify_locations(cafile=pki / "ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(pki: Path) -> ssl.SSLContext:
    """TLS context with which a node asks its peers; trusts the site's CA and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pki / "node.crt", pki / "node.key")
    context.load_verify_locations(cafile=pki / "ca.crt")
    return context


@dataclass(frozen=True)
class Signature:
    """A node's signature over the bytes of a generation, with the certificate that proves whose it is."""

    signer: str
    certificate: str
    signature: str

    def to_json(self) -> bytes:
        """The form it has on disk and between peers."""
        return json.dumps(self.__dict__, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: object) -> Signature:
        """Read the form of :meth:`to_json`, parsed or not.

        :raises ApplianceError: APL-0605 when it is not one.
        """
        try:
            parsed = json.loads(data) if isinstance(data, (bytes, str)) else data
            values = {key: parsed[key] for key in ("signer", "certificate", "signature")}  # type: ignore[index]  # a wrong type is the caught error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            fail("APL-0605", "not a signature", why=str(error))
        if not all(isinstance(value, str) for value in values.values()):
            fail("APL-0605", "not a signature", why="a field is not a string")
        return cls(**values)


class Trust:
    """Who may sign generations: with ``pki`` the seeds of the inventory, without it (development) anybody."""

    def __init__(self, pki: Path | None, node: str, seeds: Collection[str]) -> None:
        self._pki = pki
        self._node = node
        self._seeds = tuple(seeds)

    def sign(self, content: bytes) -> Signature | None:
        """Sign with this node's key; None where the site has no PKI (development)."""
        if self._pki is None:
            return None
        key = _load_key(self._pki / "node.key")
        signature = key.sign(content, ec.ECDSA(hashes.SHA256()))
        certificate = _load_certificate(self._pki / "node.crt").public_bytes(serialization.Encoding.PEM).decode()
        return Signature(self._node, certificate, base64.b64encode(signature).decode())

    def check(self, content: bytes, signature: Signature | None) -> None:
        """Refuse (APL-0606) content that no seed of the inventory has signed."""
        if self._pki is None:
            return
        if signature is None:
            self._refuse("it carries no signature")
        if signature.signer not in self._seeds:
            self._refuse(f"{signature.signer} signed it, which is no seed of this site ({', '.join(self._seeds)})")
        authority = _load_certificate(self._pki / "ca.crt")
        try:
            certificate = x509.load_pem_x509_certificate(signature.certificate.encode())
            signed = base64.b64decode(signature.signature, validate=True)
        except ValueError as error:
            self._refuse(f"its certificate or signature cannot be read: {error}")
        if not _is_signed_by(certificate, authority):
            self._refuse("its certificate is not from this site's authority")
        if _common_name(certificate.subject) != signature.signer:
            self._refuse("its certificate is another node's")
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            self._refuse("its key is of another kind")
        try:
            key.verify(signed, content, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            self._refuse("the signature does not match the content")

    def _refuse(self, why: str) -> NoReturn:
        raise ApplianceError(
            "APL-0606",
            "a generation without a valid signature was refused",
            where=self._node,
            why=why,
            fix="Nothing was changed. Compare mirror_seeds in the inventory with the node that published it",
        )


def common_name(certificate: object) -> str | None:
    """The node id in a verified peer certificate as :meth:`ssl.SSLSocket.getpeercert` gives it, else None."""
    if not isinstance(certificate, dict):
        return None
    for relative in certificate.get("subject", ()):
        for key, value in relative:
            if key == "commonName" and isinstance(value, str):
                return value
    return None


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternatives(node: str, address: str) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.DNSName(node)]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(address)))
    except ValueError:
        names.append(x509.DNSName(address))
    return x509.SubjectAlternativeName(names)


def _names(
    holder: x509.Certificate | x509.CertificateSigningRequest,
) -> tuple[str | None, x509.SubjectAlternativeName | None]:
    try:
        alternatives = holder.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        alternatives = None
    return _common_name(holder.subject), alternatives


def _common_name(name: x509.Name) -> str | None:
    attributes = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attributes[0].value) if len(attributes) == 1 else None


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        fail(
            "APL-0607",
            "cannot use a certificate",
            where=str(path),
            why=str(error),
            fix="Run site.yml again for this node; a lost ca.crt comes back from the backup",
        )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(path, content, 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all: a key or certificate cut short by a power loss would keep a node out."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError) as error:
        fail(
            "APL-0607",
            "cannot use a private key",
            where=str(path),
            why=str(error),
            fix="Run this as root or as the user 'appliance', on the node the key was made on",
        )
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        fail("APL-0607", "cannot use a private key", where=str(path), why="it is not an elliptic-curve key")
    return key
