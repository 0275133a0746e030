"""Certificate authority of the site, certificates of nodes, and signatures over indexes.

Certificates are valid from 1970 for more than a century: a site whose clock batteries are dead comes back by itself.
Membership is the list of nodes in the inventory; being taken off that list is what revokes a certificate.
Keys are ECDSA P-256: every TLS client an operator may bring knows it.

Decisions 10, 11 and 60.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.errors import fail
from appliance.files import write_atomically
from appliance.words import one_line

_BEGIN = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_END = datetime.datetime(2199, 12, 31, tzinfo=datetime.timezone.utc)
_CA_OF = "appliance CA of "
_LARGEST_CERTIFICATE = 16 << 10


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
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{_CA_OF}{site}")])
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
    write_atomically(certificate_file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return True


def site_of(directory: Path) -> str:
    """Name of the site whose authority lies in a directory.

    :raises ApplianceError: APL-0607 where its key and certificate cannot be used, or do not belong together.
    """
    certificate, key = _load_certificate(directory / "ca.crt"), _load_key(directory / "ca.key")
    if certificate.public_key() != key.public_key():
        fail(
            "APL-0607",
            "cannot use a certificate",
            where=str(directory / "ca.crt"),
            why="ca.key is of another one",
            fix="Put both back from the backup",
        )
    return (_common_name(certificate.subject) or "").removeprefix(_CA_OF)


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
    write_atomically(request_file, made.public_bytes(serialization.Encoding.PEM), 0o644)
    return True


def sign(ca: Path, request_file: Path, out: Path, node: str, address: str) -> bool:
    """Sign a node's request with the site's CA; true when a new certificate was written.

    The names in the certificate are the inventory's, never the request's: a node cannot ask to be another one.

    :raises ApplianceError: APL-0604 when the request is damaged.
    """
    try:
        asked = x509.load_pem_x509_csr(request_file.read_bytes())
    except (ValueError, OSError) as error:
        fail("APL-0604", "invalid signing request", where=str(request_file), why=str(error), fix="Run site.yml again")
    if not asked.is_signature_valid:
        fail("APL-0604", "invalid signing request", where=str(request_file), why="its signature does not match its key")
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
    write_atomically(out, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return True


def sign_content(directory: Path, content: bytes) -> tuple[str, str]:
    """Sign with the node key of a directory; returns the node's certificate (PEM) and the signature (base64)."""
    key = _load_key(directory / "node.key")
    signature = key.sign(content, ec.ECDSA(hashes.SHA256()))
    certificate = _load_certificate(directory / "node.crt").public_bytes(serialization.Encoding.PEM).decode()
    return certificate, base64.b64encode(signature).decode()


def why_unsigned(directory: Path, content: bytes, signer: str, certificate_pem: str, signature: str) -> str | None:
    """Return why this is no signature of the node ``signer`` over ``content``; None if it is one.

    :param directory: where the site's ``ca.crt`` lies.
    :param signature: base64.
    """
    authority = _load_certificate(directory / "ca.crt")
    if len(certificate_pem) > _LARGEST_CERTIFICATE:
        return "its certificate is larger than any of this site"
    try:
        return _why_unsigned(authority, content, signer, certificate_pem, signature)
    except Exception as error:
        # Foreign bytes: InvalidVersion, UnsupportedAlgorithm and ValueError are raised late, by whichever field is read
        # first, and cryptography promises no list of them.
        return f"its certificate or signature cannot be read: {type(error).__name__}: {one_line(error, 200)}"


def _why_unsigned(
    authority: x509.Certificate, content: bytes, signer: str, certificate_pem: str, signature: str
) -> str | None:
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    signed = base64.b64decode(signature, validate=True)
    if not _is_signed_by(certificate, authority):
        return "its certificate is not from this site's authority"
    if _common_name(certificate.subject) != signer:
        return "its certificate is another node's"
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return "its key is of another kind"
    try:
        key.verify(signed, content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return "the signature does not match the content"
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
    write_atomically(path, content, 0o600)


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
