"""Decompression of streams: the format is detected by the first bytes, steps are bounded, and a cut stream is an error.

Each decoder is fed (:meth:`Decoder.feed`) and closed (:meth:`Decoder.close`), so the same code decompresses
an archive on its way in and a layer on its way past. No step gives more than about 1 MiB.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterator
from typing import NoReturn, Protocol

import zstandard

from appliance.archives.limits import Limits
from appliance.errors import NotAnImageArchive, fail

STEP = 1024 * 1024
"""Most bytes that one step puts out."""

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
)


READABLE = frozenset({"none", "gzip", "zstd", "xz", "bzip2"})
"""Compressions that :class:`Decoder` knows."""


def detect(head: bytes) -> str:
    """Name the compression of a stream by its first six bytes.

    :returns: ``gzip``, ``zstd``, ``xz``, ``bzip2``, ``lz4`` or ``none``.
    """
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if len(head) >= 4 and 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18":
        return "zstd"  # a skippable frame comes first
    return "none"


class _Behind(Exception):
    """Signal that something else begins behind the end of the stream.

    :param rest: bytes that were taken in and not read, the first of them included.
    """

    def __init__(self, rest: bytes) -> None:
        super().__init__()
        self.rest = rest

    @property
    def what(self) -> str:
        kind = detect(self.rest[:6])
        if kind != "none":
            return f"a {kind} stream"
        return "a tar" if self.rest[257:262] == b"ustar" else "something else"


class _Codec(Protocol):
    """One compression format: bytes in, steps out."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress ``data``; steps of bounded size."""
        ...

    def finished(self) -> bool:
        """Return whether the input may end here."""
        ...


class Decoder:
    """A decompressor with caps on what comes out.

    :param kind: what :func:`detect` said.
    :param limits: caps on total, ratio and window.
    :param where: file or member for messages.
    :raises ApplianceError: APL-0110 for a compression that is recognised but not read here.
    """

    def __init__(self, kind: str, limits: Limits, where: str) -> None:
        """Start before the first byte."""
        self.kind = kind
        self.bytes_in = 0
        self.bytes_out = 0
        self._limits = limits
        self._where = where
        self._codec = _codec(kind, limits, where)

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Take compressed bytes, give decompressed ones.

        :raises ApplianceError: APL-0103 for a damaged stream, APL-0104 for one that grows too much, APL-0166 for
            something else behind its end.
        """
        data = bytes(data)
        self.bytes_in += len(data)
        try:
            for step in self._codec.feed(data):
                self.bytes_out += len(step)
                self._check()
                if step:
                    yield step
        except _Behind as behind:
            fail(
                "APL-0166",
                f"something follows the end of the {self.kind} stream",
                where=self._where,
                why=f"{behind.what} begins at byte {self.bytes_in - len(behind.rest)}, and would not be read",
                fix="Bring one archive in each file; where these are two, save or copy each to a file of its own",
            )
        except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, EOFError, ValueError) as error:
            self._damaged(str(error))

    def close(self) -> None:
        """Check that the stream is whole.

        :raises ApplianceError: APL-0102 if it ends too early.
        """
        if not self._codec.finished():
            fail(
                "APL-0102",
                f"{self.kind} stream is cut short",
                where=self._where,
                why=f"it ends after {self.bytes_in} bytes, in the middle",
                fix="Copy the file again; it is not whole",
            )

    def _check(self) -> None:
        limits = self._limits
        if self.bytes_out > limits.total_bytes:
            fail(
                "APL-0104",
                "archive is too large",
                where=self._where,
                why=f"over {limits.total_bytes} bytes unpacked",
            )
        if self.bytes_out > limits.ratio_after and self.bytes_out > limits.ratio * self.bytes_in:
            fail(
                "APL-0104",
                "archive grows too much when unpacked",
                where=self._where,
                why=f"{self.bytes_in} bytes became {self.bytes_out}, the limit is {limits.ratio} to 1",
            )

    def _damaged(self, why: str) -> NoReturn:
        fail(
            "APL-0103",
            f"{self.kind} stream is damaged",
            where=self._where,
            why=f"{why}; near byte {self.bytes_in}",
            fix="Copy the file again; it was changed or damaged on its way",
        )


def _codec(kind: str, limits: Limits, where: str) -> _Codec:
    if kind not in READABLE:
        raise NotAnImageArchive(
            "APL-0110",
            f"{kind} compression is not read here",
            where=where,
            fix=f"Unpack it with {kind} -d, or compress it with zstd or gzip",
        )
    if kind == "none":
        return _Plain()
    if kind == "gzip":
        return _Gzip()
    if kind == "zstd":
        return _Zstd(limits.window, where)
    if kind == "xz":
        # The decoder needs its dictionary and a little more; xz -9 has 64 MiB.
        return _Stateful(
            lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limits.window + 16 * STEP),
            _Between(b"\xfd7zXZ\x00", pads_between=True),
        )
    return _Stateful(bz2.BZ2Decompressor, _Between(b"BZh", pads_between=False))


class _Between:
    """The bytes between two streams of one file: padding, and the first bytes of the next stream.

    Only xz has padding between streams (its format, 2.2). gzip and bzip2 themselves stop at it and other tools go on, so
    what comes behind would be there for some and not for others.

    :param magic: what the next stream begins with.
    :param pads_between: whether another stream may follow padding.
    """

    def __init__(self, magic: bytes, *, pads_between: bool) -> None:
        self._magic = magic
        self._pads_between = pads_between
        self._padded = False
        self._head = b""

    @property
    def is_empty(self) -> bool:
        """True until a byte of a next stream came."""
        return not self._head

    def next_stream(self, data: bytes) -> bytes:
        """Return the bytes of the next stream as soon as it is known to be one; empty until then."""
        if not self._head:
            rest = data.lstrip(b"\0")
            self._padded = self._padded or len(rest) < len(data)
            data = rest
        self._head += data
        if not self._magic.startswith(self._head[: len(self._magic)]):
            raise _Behind(self._head)
        if len(self._head) < len(self._magic):
            return b""
        if self._padded and not self._pads_between:
            raise _Behind(self._head)
        data, self._head, self._padded = self._head, b"", False
        return data


class _Plain:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def finished(self) -> bool:
        return True


class _Gzip:
    """Any number of members; zeros may follow the last (tapes and sticks pad with them)."""

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None
        self._seen = False
        self._between = _Between(b"\x1f\x8b", pads_between=False)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member is None:
                data = self._between.next_stream(data) if self._seen else data
                if not data:
                    return
                self._member, self._seen = zlib.decompressobj(31), True
            while True:
                out = self._member.decompress(data, STEP)
                yield out
                data = self._member.unconsumed_tail
                if self._member.eof:
                    data, self._member = self._member.unused_data, None
                    break
                if len(out) < STEP and not data:
                    return

    def finished(self) -> bool:
        return self._seen and self._member is None and self._between.is_empty


class _Stateful:
    """bzip2 and xz: any number of streams; zeros may follow the last."""

    def __init__(self, make: type[bz2.BZ2Decompressor] | _MakeLzma, between: _Between) -> None:
        self._make = make
        self._between = between
        self._stream: bz2.BZ2Decompressor | lzma.LZMADecompressor | None = None
        self._seen = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._stream is None:
                data = self._between.next_stream(data) if self._seen else data
                if not data:
                    return
                self._stream, self._seen = self._make(), True
            yield self._stream.decompress(data, STEP)
            while not self._stream.eof and not self._stream.needs_input:
                yield self._stream.decompress(b"", STEP)
            if not self._stream.eof:
                return
            data, self._stream = self._stream.unused_data, None

    def finished(self) -> bool:
        return self._seen and self._stream is None and self._between.is_empty


class _MakeLzma(Protocol):
    def __call__(self) -> lzma.LZMADecompressor: ...


class _Zstd:
    """Frames one after the other, fed block by block.

    libzstd's Python streams take input that ends within a frame for the end, and give out whatever one
    call unpacks to: 2 GiB from 64 KiB of a bomb. So the frame format (RFC 8878, 3.1.1) is walked here: it
    says where blocks and frames end, and a block unpacks to 128 KiB at most.
    """

    _MAX_BLOCK = 128 * 1024
    _GROUP = STEP // _MAX_BLOCK

    def __init__(self, window: int, where: str) -> None:
        self._window = window
        self._where = where
        self._context = zstandard.ZstdDecompressor(max_window_size=window)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._rest = b""
        self._skip = 0
        self._checksum = False
        self._last = False
        self._seen = False
        self._left: int | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        data = self._rest + data if self._rest else data
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            used, out = self._start(data, at) if self._frame is None else self._blocks(data, at)
            if not used:
                break
            at += used
            if out:
                yield out
        self._rest = data[at:]

    def finished(self) -> bool:
        return self._seen and self._frame is None and not self._skip and not self._rest

    def _start(self, data: bytes, at: int) -> tuple[int, bytes]:
        """Read a frame's header; 0 where it is not all there yet."""
        head = data[at : at + 18]
        if len(head) < 4:
            return 0, b""
        magic = int.from_bytes(head[:4], "little")
        if magic & 0xFFFFFFF0 == 0x184D2A50:
            if len(head) < 8:
                return 0, b""
            self._skip = int.from_bytes(head[4:8], "little")
            self._seen = True
            return 8, b""
        if magic != 0xFD2FB528:
            raise _Behind(data[at:]) if self._seen else ValueError("it is no zstd frame")
        if len(head) < 6:
            return 0, b""
        flags = head[4]
        single = bool(flags & 0x20)
        dictionary = (0, 1, 2, 4)[flags & 3]
        content = (1 if single else 0, 2, 4, 8)[flags >> 6]
        size = 5 + (0 if single else 1) + dictionary + content
        if len(head) < size:
            return 0, b""
        declared = int.from_bytes(head[size - content : size], "little") + (256 if content == 2 else 0)
        # libzstd compares it with what came only where the last block is not empty.
        self._left = declared if content else None
        if not single:
            exponent, mantissa = head[5] >> 3, head[5] & 7
            window = (1 << (10 + exponent)) * (8 + mantissa) // 8
        else:
            window = declared
        if window > self._window:
            fail(
                "APL-0104",
                "zstd stream needs too much memory",
                where=self._where,
                why=f"a window of {window} bytes, the limit is {self._window}",
                fix="Compress it again with --long=27 or less",
            )
        self._checksum = bool(flags & 4)
        self._last = False
        self._seen = True
        self._frame = self._context.decompressobj()
        return size, self._frame.decompress(head[:size])

    def _blocks(self, data: bytes, at: int) -> tuple[int, bytes]:
        """Feed a group of whole blocks; 0 where not one is whole yet."""
        assert self._frame is not None
        end, count = at, 0
        while count < self._GROUP and not self._last and len(data) - end >= 3:
            header = int.from_bytes(data[end : end + 3], "little")
            kind, size = header >> 1 & 3, header >> 3
            if kind == 3 or size > self._MAX_BLOCK:
                raise ValueError("damaged block")
            size = 1 if kind == 1 else size
            if len(data) - end < 3 + size:
                break
            end += 3 + size
            count += 1
            self._last = bool(header & 1)
        if self._last:
            if self._checksum and len(data) - end < 4:
                # Blocks that were counted now are fed now, the checksum comes later.
                return end - at, self._take(data[at:end])
            end += 4 if self._checksum else 0
        out = self._take(data[at:end])
        if self._last:
            if not self._frame.eof:
                raise ValueError("frame does not end where it says")
            if self._left:
                raise ValueError("frame has another size than it says")
            self._frame = None
        return end - at, out

    def _take(self, blocks: bytes) -> bytes:
        assert self._frame is not None
        out = self._frame.decompress(blocks) if blocks else b""
        if self._left is not None:
            self._left -= len(out)
        return out
