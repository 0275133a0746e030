"""Whom a node believes: TLS with the site's authority, and signatures over generations.

What reads and makes certificates is in :mod:`appliance.pki` and is taken in only where something is signed or checked:
it would be a sixth of a web worker's memory, and no web worker does either.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from appliance.errors import ApplianceError, fail


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
    """Who may sign generations: with ``pki`` the seeds of the inventory, without it (development) anybody.

    :param seeds: the ids; looked at anew for each signature, so that it may be a view that changes.
    """

    def __init__(self, pki: Path | None, node: str, seeds: Collection[str]) -> None:
        self._pki = pki
        self._node = node
        self._seeds = seeds

    @property
    def signs(self) -> bool:
        """Whether what is published is signed: not without a PKI (development)."""
        return self._pki is not None

    def sign(self, content: bytes) -> Signature | None:
        """Sign with this node's key; None where the site has no PKI (development)."""
        if self._pki is None:
            return None
        from appliance.pki import sign_content

        return Signature(self._node, *sign_content(self._pki, content))

    def check(self, content: bytes, signature: Signature | None, besides: Collection[str] = ()) -> None:
        """Refuse (APL-0606) content that no seed of the inventory has signed.

        :param besides: ids of nodes whose signature counts too.
        """
        if self._pki is None:
            return
        if signature is None:
            self._refuse("it carries no signature")
        if signature.signer not in self._seeds and signature.signer not in besides:
            self._refuse(f"{signature.signer} signed it, which is no seed of this site ({', '.join(self._seeds)})")
        from appliance.pki import why_unsigned

        why = why_unsigned(self._pki, content, signature.signer, signature.certificate, signature.signature)
        if why is not None:
            self._refuse(why)

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
