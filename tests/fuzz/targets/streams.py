"""Compressed streams, whole and cut, fed at any boundaries.

Input: how the stream is cut into pieces (two bytes), and the stream; what it begins with says its compression.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib

import zstandard

from appliance.archives.compression import READABLE, STEP, Decoder, detect
from appliance.archives.limits import MIB, Limits
from appliance.errors import ApplianceError
from tests.fuzz.checks import attempt, known

WORDS = (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\x00", b"\x04\x22\x4d\x18", b"\x50\x2a\x4d\x18")
LIMITS = Limits(total_bytes=4 * MIB, ratio=200, ratio_after=256 << 10, window=8 * MIB)


def run(data: bytes) -> None:
    """Whatever the boundaries, the same comes out, within the limits, and it is what the format's own tool gives."""
    first, second, stream = (data + b"\0\0")[0], (data + b"\0\0")[1], data[2:]
    kind = detect(stream[:6])
    whole = _decode(kind, [stream])
    pieces = [stream[:first], *(stream[at : at + second + 1] for at in range(first, len(stream), second + 1))]
    in_pieces = _decode(kind, pieces)
    # Where it is cut decides how soon a ratio is noticed, and nothing else.
    if isinstance(whole, bytes) and isinstance(in_pieces, bytes):
        assert whole == in_pieces
        _reference(kind, stream, whole)
    else:
        codes = {found if isinstance(found, str) else "" for found in (whole, in_pieces)}
        assert "APL-0104" in codes or len(codes) == 1, codes


def _decode(kind: str, pieces: list[bytes]) -> bytes | str:
    """What came out, or the id of the error."""
    if kind not in READABLE:
        assert attempt(lambda: Decoder(kind, LIMITS, "a stream")) is None
        return "APL-0110"
    decoder, out = Decoder(kind, LIMITS, "a stream"), bytearray()
    try:
        for piece in pieces:
            for step in decoder.feed(piece):
                assert 0 < len(step) <= max(STEP, len(piece)), "a step larger than memory was planned for"
                out += step
        decoder.close()
    except ApplianceError as error:
        known(error)
        assert error.code in ("APL-0102", "APL-0103", "APL-0104", "APL-0166")
        return error.code
    return bytes(out)


def _reference(kind: str, stream: bytes, whole: bytes) -> None:
    """The library's own function for whole streams takes it too, and gives the same."""
    try:
        if kind == "gzip":
            expected = gzip.decompress(stream)
        elif kind == "bzip2":
            expected = bz2.decompress(stream)
        elif kind == "xz":
            # The format has padding between streams, the library stops at it.
            expected = lzma.decompress(stream, lzma.FORMAT_XZ)
            whole = whole[: len(expected)] if b"\0\0\0\0\xfd7zXZ" in stream else whole
        elif kind == "zstd":
            reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(stream), read_across_frames=True)
            expected = reader.read()
        else:
            expected = stream
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, ValueError) as error:
        raise AssertionError(f"{kind}: taken here, refused by the library: {error}") from error
    assert whole == expected, (kind, len(whole), len(expected))
