"""Import of ``agent/images``: at start and whenever a file appears or changes, as K3s does.

An image gets the name in its tarball, the same name with its digest (which is what makes it shareable), and K3s's pin.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from . import zstd
from .ctr import Ctr, CtrError, digest_names

SUFFIXES = (".tar", ".tar.lz4", ".tar.bz2", ".tbz", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".txt")
SETTLE = 2.0
PINS = ("io.cri-containerd.pinned=pinned", "io.cattle.k3s.pinned=pinned")
_UNPACKED = re.compile(r"^unpacking (\S+) \(sha256:[0-9a-f]{64}\)", re.MULTILINE)

_log = logging.getLogger("k3s")

State = dict[Path, tuple[int, int]]


def scan(directory: Path) -> State:
    """The files that K3s would import, subdirectories included, with size and time of change in nanoseconds."""
    found: State = {}
    if directory.is_dir():
        for path in sorted(directory.rglob("*")):
            if path.name.endswith(SUFFIXES):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    found[path] = (status.st_size, status.st_mtime_ns)
    return found


class Importer:
    """Imports what lies in the directory, then what comes into it."""

    def __init__(self, directory: Path, ctr: Ctr) -> None:
        self._directory = directory
        self._ctr = ctr
        self._done: State = {}

    def at_start(self) -> None:
        """Import everything; a file that fails is logged and does not stop the rest."""
        found = scan(self._directory)
        for path in found:
            self._import(path)
        self._done = found

    def watch(self, stop: threading.Event, now: Callable[[], float] = time.monotonic) -> None:
        """Until told to stop: import a new or changed file once it has been still for two seconds."""
        still: dict[Path, tuple[tuple[int, int], float]] = {}
        while not stop.wait(0.5):
            found = scan(self._directory)
            self._done = {path: state for path, state in self._done.items() if path in found}
            for path, state in found.items():
                if self._done.get(path) == state:
                    still.pop(path, None)
                    continue
                if still.get(path, (None, 0.0))[0] != state:
                    still[path] = (state, now())
                elif now() - still[path][1] >= SETTLE:
                    self._import(path)
                    self._done[path] = state

    def _import(self, path: Path) -> None:
        started = time.monotonic()
        try:
            if path.suffix == ".txt":
                raise CtrError("the stand-in does not pull lists of images")
            with opened(path) as stream:
                output = self._ctr.run("images", "import", "-", stdin=stream)
            names = set(_UNPACKED.findall(output))
            images = [image for image in self._ctr.images() if image.name in names]
            for name, second in digest_names(images):
                self._ctr.run("images", "tag", "--force", name, second)
                for each in (name, second):
                    self._ctr.run("images", "label", each, *PINS)
        except (CtrError, OSError, EOFError, ValueError) as error:
            _log.error("Failed to process image event: failed to import %s: %s", path, error)
            return
        _log.info("Imported %d images from %s in %.1fs", len(images), path, time.monotonic() - started)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file object of the tar inside, one that a child process can read from.

    :raises CtrError: where the stand-in cannot read the compression.
    :raises zstd.ZstdError, OSError, EOFError: where the file is damaged.
    """
    if path.name.endswith(".tar"):
        with path.open("rb") as plain:
            yield plain
        return
    ours, theirs = os.pipe()
    failed: list[Exception] = []

    def pump() -> None:
        try:
            with os.fdopen(theirs, "wb") as sink:
                for piece in pieces(path):
                    sink.write(piece)
        except (OSError, EOFError, ValueError, CtrError) as error:
            failed.append(error)

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    try:
        with os.fdopen(ours, "rb") as stream:
            yield stream
    finally:
        thread.join()
        if failed and not isinstance(failed[0], BrokenPipeError):
            raise failed[0]


def pieces(path: Path) -> Iterator[bytes]:
    """The tar inside a compressed file, piece by piece."""
    with path.open("rb") as source:
        if path.name.endswith((".zst", ".tzst")):
            yield from zstd.decompressed(source)
        elif path.name.endswith((".gz", ".tgz", ".bz2", ".tbz")):
            reader = bz2.BZ2File(source) if path.name.endswith((".bz2", ".tbz")) else gzip.GzipFile(fileobj=source)
            with reader:
                while piece := reader.read(1 << 20):
                    yield piece
        else:
            raise CtrError("the stand-in cannot read this compression")
