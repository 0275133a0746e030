"""Piece maps: hashes of the pieces of a big blob, so that a piece can be verified before the blob is complete.

A piece map is a blob like any other and deterministic: one blob has one map, byte for byte.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import fail
from appliance.oci.digests import check_digest
from appliance.oci.mediatypes import PIECE_MAP
from appliance.oci.strictjson import dump_json, load_json

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined,unused-ignore]  # 3.12 on
    from hashlib import _Hash

MIB = 1024 * 1024
BIG_BLOB = MIB
"""Only blobs larger than this many bytes get a map; a smaller one is a single piece."""

MAP_LIMIT = 16 * MIB
"""Largest accepted piece map in bytes; enough for a blob of 1.9 TiB."""

_MIN_PIECE = MIB
_MAX_PIECE = 8 * MIB
_KEYS = ["schemaVersion", "mediaType", "blob", "size", "pieceSize", "pieces"]


def piece_size(size: int) -> int:
    """Bytes in a piece of a blob of ``size`` bytes: a power of two, at most 512 pieces, 1 MiB to 8 MiB."""
    wanted = max(1, -(-size // 512))
    return min(_MAX_PIECE, max(_MIN_PIECE, 1 << (wanted - 1).bit_length()))


@dataclass(frozen=True)
class PieceMap:
    """Hashes of the pieces of one blob.

    :param blob: digest of the whole blob.
    :param size: its size in bytes.
    :param pieces: SHA-256 of each piece in order, hexadecimal.
    """

    blob: str
    size: int
    pieces: tuple[str, ...]

    @property
    def piece_size(self) -> int:
        """Bytes in each piece but the last."""
        return piece_size(self.size)

    def bounds(self, index: int) -> tuple[int, int]:
        """Offset and length in bytes of piece ``index``.

        :raises IndexError: there is no such piece.
        """
        if not 0 <= index < len(self.pieces):
            raise IndexError(index)
        start = index * self.piece_size
        return start, min(self.piece_size, self.size - start)

    def verify(self, index: int, data: Buffer) -> bool:
        """Return whether ``data`` is piece ``index``."""
        return memoryview(data).nbytes == self.bounds(index)[1] and (
            hashlib.sha256(data).hexdigest() == self.pieces[index]
        )

    def to_bytes(self) -> bytes:
        """The canonical document."""
        values = [1, PIECE_MAP, self.blob, self.size, self.piece_size, list(self.pieces)]
        return dump_json(dict(zip(_KEYS, values, strict=True)))

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "") -> PieceMap:
        """Parse a piece map; anything but the canonical document is refused.

        :raises ApplianceError: APL-0206 (or APL-0203, APL-0204, APL-0201 for what is not even close).
        """
        document = load_json(data, limit=MAP_LIMIT, where=where)
        if not isinstance(document, dict) or list(document) != _KEYS:
            fail("APL-0206", "invalid piece map", where=where)
        size, pieces = document["size"], document["pieces"]
        if type(size) is not int or size < 0 or not isinstance(pieces, list):
            fail("APL-0206", "invalid piece map", where=where, why="size or pieces have a wrong type")
        if len(pieces) != -(-size // piece_size(size)):
            fail(
                "APL-0206",
                "piece map of a wrong length",
                where=where,
                why=f"{len(pieces)} pieces for {size} bytes",
            )
        for piece in pieces:
            check_digest(f"sha256:{piece}" if isinstance(piece, str) else piece, where)
        result = cls(check_digest(document["blob"], where), size, tuple(pieces))
        if result.to_bytes() != data:
            fail("APL-0206", "piece map that is not in its canonical form", where=where)
        return result


class PieceHasher:
    """Makes a piece map while a blob streams by.

    :param size: size of the blob in bytes. None where it is not known beforehand: then the two smallest sizes of pieces
        are tried at once, which gives a map of a blob of at most 1 GiB.
    """

    def __init__(self, size: int | None) -> None:
        """Start before the first byte."""
        self._size = size
        self._seen = 0
        self._tries = [
            _Pieces(each) for each in ((_MIN_PIECE, 2 * _MIN_PIECE) if size is None else (piece_size(size),))
        ]

    def update(self, data: Buffer) -> None:
        """Take the next bytes; any number at a time."""
        view = memoryview(data).cast("B")
        self._seen += len(view)
        if self._size is None:
            # What is too small for the bytes that came will not be the size of their pieces.
            self._tries = [each for each in self._tries if each.size >= piece_size(self._seen)]
        for each in self._tries:
            each.update(view)

    def fits(self, size: int) -> bool:
        """Return whether the map of a blob of ``size`` bytes comes of what has passed."""
        return (
            self._seen == size
            and self._size in (None, size)
            and any(each.size == piece_size(size) for each in self._tries)
        )

    def finish(self, blob: str) -> PieceMap:
        """The map, once every byte has passed.

        :param blob: digest of the whole blob.
        :raises ApplianceError: APL-0206 if the number of bytes is not the one that was prepared for.
        """
        if not self.fits(self._seen):
            fail(
                "APL-0206",
                "blob has another size than its piece map",
                where=blob,
                why=f"{self._seen}, {self._size}",
            )
        (found,) = (each for each in self._tries if each.size == piece_size(self._seen))
        return PieceMap(check_digest(blob), self._seen, found.finish())


class _Pieces:
    """Hashes of pieces of one size, in bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._done: list[str] = []
        self._state: _Hash = hashlib.sha256()
        self._filled = 0

    def update(self, view: memoryview) -> None:
        while len(view):
            part = view[: self.size - self._filled]
            self._state.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == self.size:
                self._close()

    def finish(self) -> tuple[str, ...]:
        if self._filled:
            self._close()
        return tuple(self._done)

    def _close(self) -> None:
        self._done.append(self._state.hexdigest())
        self._state = hashlib.sha256()
        self._filled = 0
