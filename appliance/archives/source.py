"""Source file or its parts: opened read-only, read once, checked against the checksum beside it, and decompressed."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from appliance.archives.checksum_reader import read_checksums
from appliance.archives.compression import Decoder, detect
from appliance.archives.limits import Limits
from appliance.archives.medium import Medium
from appliance.errors import fail

READ_STEP = 1024 * 1024
_DEPTH = 4

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and the size of the source, from the reader's own thread."""


class RawFile:
    """One archive file, or one in parts (:func:`parts_of`), read as if it were joined.

    :param path: the file; a symbolic link given by the operator is followed.
    :param limits: caps for the decompressor.
    :param medium: opens the file, its parts and its checksum.
    :raises ApplianceError: APL-0101 if it cannot be opened or is no regular file, APL-0115 for an unusable
        checksum file, APL-0144 for a missing part.
    """

    def __init__(self, path: Path, limits: Limits, medium: Medium) -> None:
        """Open the file and read the checksum beside it."""
        self.path = path
        self.compression = "none"
        self.bytes_read = 0
        self.bytes_unpacked = 0
        self._limits = limits
        self._medium = medium
        self._parts = medium.parts(path)
        self._expected = read_checksums(self._parts, medium)
        self._fd = medium.open(self._parts[0])
        self.size = os.fstat(self._fd).st_size + sum(map(medium.size, self._parts[1:]))

    @property
    def in_parts(self) -> bool:
        """Return whether the file was joined of parts."""
        return len(self._parts) > 1

    def __enter__(self) -> RawFile:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        os.close(self._fd)

    def chunks(self, progress: Progress | None = None) -> Iterator[bytes]:
        """The decompressed content, read ahead by a thread of its own.

        :raises ApplianceError: APL-0102, APL-0103, APL-0104, APL-0110 (see :class:`Decoder`), APL-0115 if the
            checksum beside the file differs, APL-0116 for a read error.
        """
        for chunk in read_ahead(self._decompressed()):
            if progress is not None:
                progress(self.bytes_read, self.size)
            yield chunk
        if progress is not None:
            progress(self.bytes_read, self.size)

    def _decompressed(self) -> Iterator[bytes]:
        decoder: Decoder | None = None
        for data in self._raw():
            if decoder is None:
                self.compression = detect(data[:6])
                decoder = Decoder(self.compression, self._limits, str(self.path))
            for step in decoder.feed(data):
                self.bytes_unpacked += len(step)
                yield step
        if decoder is None:
            fail("APL-0102", "file is empty", where=str(self.path), fix="Copy the file again")
        decoder.close()

    def _raw(self) -> Iterator[bytes]:
        whole = _Check(self._expected.get(None), str(self.path))
        for number, part in enumerate(self._parts):
            # As many parts as a medium holds, and one descriptor.
            if number:
                following = self._medium.open(part)
                os.close(self._fd)
                self._fd = following
            own = _Check(self._expected.get(part.name), str(part))
            while data := self._read(part):
                self.bytes_read += len(data)
                whole.update(data)
                own.update(data)
                yield data
            own.finish()
        whole.finish()

    def _read(self, part: Path) -> bytes:
        try:
            return os.read(self._fd, READ_STEP)
        except OSError as error:
            fail(
                "APL-0116",
                "source cannot be read",
                where=str(part),
                why=f"{error.strerror} at byte {self.bytes_read} of {self.size}",
                fix="Try another port or another stick",
            )


class _Check:
    """Holds what goes by against a SHA-256, where there is one."""

    def __init__(self, expected: str | None, where: str) -> None:
        self._expected = expected
        self._where = where
        self._state = hashlib.sha256() if expected else None
        self._seen = 0

    def update(self, data: bytes) -> None:
        if self._state is not None:
            self._state.update(data)
            self._seen += len(data)

    def finish(self) -> None:
        if self._state is not None and self._state.hexdigest() != self._expected:
            fail(
                "APL-0115",
                "file does not match the checksum beside it",
                where=self._where,
                why=f"expected {self._expected}, {self._seen} bytes hash to {self._state.hexdigest()}",
                fix="Copy the file again, or bring the checksum that belongs to it",
            )


def read_ahead(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Run an iterator in a thread, a few chunks ahead: reading and decompressing overlap with hashing."""
    ready: queue.Queue[bytes | BaseException | None] = queue.Queue(_DEPTH)
    stop = threading.Event()

    def offer(item: bytes | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            for chunk in chunks:
                if not offer(chunk):
                    return
        except BaseException as error:  # raised again in the thread that reads
            offer(error)
            return
        offer(None)

    thread = threading.Thread(target=run, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
