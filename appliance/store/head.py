"""Head of an index: its kind, number, digest and size, signed, in a few hundred bytes.

Decision 77.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IndexHead:
    """Kind, number, digest and size of an index.

    Whoever has a head with a valid signature knows how many bytes of the index to read, and which.

    :param kind: ``generation``, ``pushes`` or ``pins``.
    :param number: number of the index.
    :param digest: digest of its bytes.
    :param size: how many bytes it has.
    """

    kind: str
    number: int
    digest: str
    size: int

    def to_bytes(self) -> bytes:
        """Return what is signed. It is no JSON, so no signature of a head is one of an index, nor the other way round."""
        return f"appliance index head 1\n{self.kind}\n{self.number}\n{self.digest}\n{self.size}\n".encode()
