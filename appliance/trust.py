"""Trust of a node: TLS with the site's authority, and verification of signatures.

What reads and makes certificates is in :mod:`appliance.pki` and is taken in only where something is signed or checked:
it would be a sixth of a web worker's memory, and no web worker does either.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from appliance.errors import fail, make_error

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption only. Python's own list has CBC with SHA-256 and SHA-384 in it.
Those of TLS 1.3 are all of that kind, and not named here."""


def server_context(pki: Path) -> ssl.SSLContext:
    """TLS context of the peer listener: asks for a client certificate of the site, lets operators come without."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, pki)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(pki: Path, kind: type[ssl.SSLContext] = ssl.SSLContext) -> ssl.SSLContext:
    """TLS context with which a node asks its peers; trusts the site's CA and nothing else.

    :param kind: class of the context.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, pki, kind)


def _context(protocol: int, pki: Path, kind: type[ssl.SSLContext] = ssl.SSLContext) -> ssl.SSLContext:
    """Return the settings that both ends share: TLS 1.2 or newer, this node's certificate, and the site's CA alone."""
    context = kind(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.load_cert_chain(pki / "node.crt", pki / "node.key")
    context.load_verify_locations(cafile=pki / "ca.crt")
    return context


@dataclass(frozen=True)
class Signature:
    """A node's signature over the bytes of an index, with the certificate that proves whose it is.

    :param head: the same node's signature over the head of the index; None where an older release signed.
    """

    signer: str
    certificate: str
    signature: str
    head: str | None = None

    def of_head(self) -> Signature | None:
        """Return the signature over the head; None where there is none."""
        return None if self.head is None else Signature(self.signer, self.certificate, self.head)

    def without_head(self) -> Signature:
        """Return the signature over the index alone."""
        return replace(self, head=None)

    def to_dict(self) -> dict[str, str]:
        """The form it has between peers. Releases that know no heads take what they know of it."""
        return {key: value for key, value in self.__dict__.items() if value is not None}

    def to_json(self) -> bytes:
        """The form it has on disk."""
        return json.dumps(self.to_dict(), separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: object) -> Signature:
        """Read the form of :meth:`to_json`, parsed or not. A head that is no text is none.

        :raises ApplianceError: APL-0605 when it is not one.
        """
        try:
            parsed = json.loads(data) if isinstance(data, (bytes, str)) else data
            values = {key: parsed[key] for key in ("signer", "certificate", "signature")}  # type: ignore[index]  # a wrong type is the caught error
            head = parsed.get("head")  # type: ignore[union-attr]  # it is a dict by now
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            fail("APL-0605", "invalid signature", why=str(error))
        if not all(isinstance(value, str) for value in values.values()):
            fail("APL-0605", "invalid signature", why="a field is not a string")
        return cls(**values, head=head if isinstance(head, str) else None)


class Trust:
    """Signers that this node accepts: with ``pki`` the seeds of the inventory, without it (development) anybody.

    :param seeds: the ids; looked at anew for each signature, so that it may be a view that changes.
    """

    def __init__(self, pki: Path | None, node: str, seeds: Collection[str]) -> None:
        self._pki = pki
        self._node = node
        self._seeds = seeds

    @property
    def node(self) -> str:
        """Id of this node."""
        return self._node

    @property
    def signs(self) -> bool:
        """Return whether what is published is signed: not without a PKI (development)."""
        return self._pki is not None

    def sign(self, content: bytes, head: bytes | None = None) -> Signature | None:
        """Sign with this node's key; None where the site has no PKI (development).

        :param head: head of the content; signed beside it.
        """
        if self._pki is None:
            return None
        from appliance.pki import sign_content

        certificate, signature = sign_content(self._pki, content)
        return Signature(self._node, certificate, signature, None if head is None else sign_content(self._pki, head)[1])

    def check(self, content: bytes, signature: Signature | None, besides: Collection[str] = ()) -> None:
        """Refuse (APL-0606) content that no seed of the inventory has signed.

        :param besides: ids of nodes whose signature counts too.
        """
        if self._pki is None:
            return
        if signature is None:
            self._refuse(
                "it carries no signature",
                "The node that offers it has lost the signature, and heals that within a minute where it can; "
                "'appliance status' there says whether",
            )
        if signature.signer not in self._seeds and signature.signer not in besides:
            self._refuse(
                f"{signature.signer} signed it, which is no seed of this site ({', '.join(self._seeds)})",
                "Compare mirror_seeds in the inventory with the node that published it",
            )
        from appliance.pki import why_unsigned

        why = why_unsigned(self._pki, content, signature.signer, signature.certificate, signature.signature)
        if why is not None:
            self._refuse(why, "Look at the node that offers it: 'appliance status' and 'appliance fsck' there")

    def _refuse(self, why: str, fix: str) -> NoReturn:
        raise make_error(
            "APL-0606",
            "a generation without a valid signature was refused",
            where=self._node,
            why=why,
            fix=f"Nothing was changed. {fix}",
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
