"""A tar as bytes: headers, extended headers, numbers, padding, ends.

Input: one byte of options, and the tar. Without its checksums a tar that was changed anywhere is only refused, so they
are put right first (an option leaves them); the engine then gets to what the headers say.
"""

from __future__ import annotations

from appliance.archives.limits import MIB, Limits
from appliance.archives.reader import read_source
from appliance.archives.sink import HashingSink
from appliance.archives.tar import BLOCK, TarStream
from appliance.errors import ApplianceError
from tests.fuzz.checks import attempt, known
from tests.fuzz.sandbox import sandbox

WORDS = (
    *("index.json", "oci-layout", "manifest.json", "blobs/sha256/", "repositories", "../", "/etc/", "ustar\x0000"),
    *("12 size=999\n", "14 path=../x\n", "20 GNU.sparse.major=1\n", "linkpath=", b"\x80\0\0\0\0\0\0\0\0\0\0\1"),
    *(b"\xff" * 12, "00000000000\0", "77777777777\0", "./"),
)
LIMITS = Limits(
    json_bytes=64 << 10, manifest_bytes=32 << 10, entries=100, descriptors=200, total_bytes=4 * MIB, window=8 * MIB
)
_CHECKSUM = slice(148, 156)
_SIZE = slice(124, 136)


def run(data: bytes) -> None:
    """Every member has a safe name and the bytes it announced; a refusal is ours; nothing else happens."""
    options, raw = (data[0] if data else 0), data[1:]
    if not options & 1:
        raw = repair(raw)
    _members(raw, options >> 1 & 7)
    if len(raw) < BLOCK:
        return
    with sandbox() as box:
        path = box.medium / "images.tar"
        path.write_bytes(raw)
        box.watch()
        contents = attempt(lambda: read_source(path, box.store, LIMITS, deep=bool(options & 16)))
        box.check_untouched()
        box.check_unpublished()
        with HashingSink() as sink:
            dry = attempt(lambda: read_source(path, sink, LIMITS, deep=bool(options & 16)))
        if contents is not None:
            box.check_contents(contents)
        # What the plan refuses is not seeded; what it shows is what is seeded.
        assert dry is None or dry == contents


def _members(raw: bytes, step: int) -> None:
    chunks = [raw] if step == 0 else [raw[at : at + step * 100] for at in range(0, len(raw), step * 100)]
    tar, taken = TarStream(chunks, LIMITS, "a tar"), 0
    try:
        for number, entry in enumerate(tar):
            assert number < LIMITS.entries
            for path in (entry.name, entry.target or "x"):
                assert not path.startswith("/") and "\0" not in path
                assert ".." not in path.split("/"), path
            content = b"".join(bytes(part) for part in entry.data)
            assert len(content) == entry.size
            taken += len(content)
        assert tar.position <= len(raw) and taken <= len(raw)
    except ApplianceError as error:
        known(error)


def repair(raw: bytes) -> bytes:
    """The same with right checksums (POSIX pax, "ustar Header Block": the sum of the bytes, its own field as spaces)."""
    out, at = bytearray(raw), 0
    while at + BLOCK <= len(out):
        block = out[at : at + BLOCK]
        if any(block):
            block[_CHECKSUM] = b" " * 8
            out[at : at + BLOCK][_CHECKSUM] = b""
            out[at + 148 : at + 156] = b"%06o\0 " % sum(block)
        at += BLOCK + _length(bytes(block[_SIZE]))
    return bytes(out)


def _length(field: bytes) -> int:
    """Bytes of content, padded; 0 for what is no number."""
    if field[:1] == b"\x80":
        size = int.from_bytes(field[4:], "big")
    else:
        try:
            size = int(field.rstrip(b"\0 ") or b"0", 8)
        except ValueError:
            return 0
    return min(max(0, size + -size % BLOCK), 1 << 32)
