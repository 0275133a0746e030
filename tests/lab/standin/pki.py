"""The stand-in cluster's certificates, made with the openssl command: a CA for servers, one for clients, as K3s has."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

DAYS = "3650"


class PkiError(RuntimeError):
    """openssl failed; the text is what it said."""


def authority(directory: Path, name: str) -> None:
    """Make ``<name>.crt`` and ``<name>.key`` unless they are there.

    :raises PkiError: when openssl fails.
    """
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    if certificate.is_file() and key.is_file():
        return
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", DAYS,
        "-subj", f"/CN=k3s-{name}@{int(time.time())}", "-addext", "keyUsage=critical,digitalSignature,keyCertSign",
        "-keyout", str(key), "-out", str(certificate),
    )  # fmt: skip
    key.chmod(0o600)


def leaf(
    directory: Path,
    issuer: str,
    name: str,
    *,
    subject: str,
    names: Iterable[str] = (),
    usage: str = "clientAuth",
    into: Path | None = None,
) -> None:
    """Make ``<name>.crt`` (the issuer behind it) and ``<name>.key``, replacing older ones.

    :param directory: where the issuer's certificate and key lie.
    :param names: addresses and DNS names that the certificate is for.
    :param usage: extended key usage.
    :param into: where to write; the issuer's directory by default.
    :raises PkiError: when openssl fails.
    """
    target = into or directory
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    alternatives = ",".join(dict.fromkeys(_alternative(item) for item in names))
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        extensions = f"keyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n"
        if alternatives:
            extensions += f"subjectAltName={alternatives}\n"
        (work / "extensions").write_text(extensions)
        _openssl(
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject,
            "-keyout", str(work / "key"), "-out", str(work / "request"),
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", str(work / "request"), "-days", DAYS, "-extfile", str(work / "extensions"),
            "-CA", str(directory / f"{issuer}.crt"), "-CAkey", str(directory / f"{issuer}.key"),
            "-set_serial", str(int.from_bytes(os.urandom(8), "big") >> 1), "-out", str(work / "certificate"),
        )  # fmt: skip
        chain = (work / "certificate").read_text() + (directory / f"{issuer}.crt").read_text()
        put(target / f"{name}.key", (work / "key").read_text(), 0o600)
        put(target / f"{name}.crt", chain, 0o644)


def put(path: Path, text: str, mode: int) -> None:
    """Write a file whole, by a rename."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.touch(mode=mode)
    fresh.chmod(mode)
    fresh.write_text(text)
    fresh.replace(path)


def fingerprint(certificate: str) -> str:
    """The part of a K3s token that names the cluster: SHA-256 of the CA's PEM text, in hex."""
    return hashlib.sha256(certificate.encode()).hexdigest()


def _alternative(name: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def _openssl(*arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise PkiError(f"openssl {arguments[0]}: {done.stderr.strip()}")
