"""A directory with a source, a store and things that must stay as they are; and what has to hold after a reading."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.archives.model import ArchiveContents
from appliance.oci.digests import digest_of
from appliance.oci.reference import parse_reference
from tests.fuzz.checks import plain
from tests.unit.store import made

SECRET = b'{"secret":"of the host, outside of the medium"}'


class Sandbox:
    """Where one input is read.

    :param root: an empty directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.secret = root / "secret"
        self.secret.write_bytes(SECRET)
        self.medium = root / "medium"
        self.medium.mkdir()
        self.store = made.open_store(root / "store")
        self._published = (self.store.root / "index.json").read_bytes()
        self._before: dict[str, tuple[int, int, int]] = {}

    def watch(self) -> None:
        """The medium is complete: nothing of it may change from now on."""
        self._before = self._outside()

    def _outside(self) -> dict[str, tuple[int, int, int]]:
        found, pending = {}, [str(self.root)]
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if entry.path == str(self.store.root):
                        continue
                    found[entry.path] = (status.st_mtime_ns, status.st_size, status.st_ino)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        return found

    def check_untouched(self) -> None:
        """The medium and its surroundings are as they were, and the store has nothing but whole blobs."""
        assert self._outside() == self._before, "written outside of the store"
        found = {path.name for path in self.store.root.iterdir()}
        allowed = {"blobs", "index.json", "oci-layout", "generations", "journal.jsonl", "lock", "partial", "incoming"}
        allowed |= {"staged"}
        assert found <= allowed | {"quarantine", "pushes", "uploads", "claims", "pushes.json", "store.lock"}, found
        for name in ("incoming", "partial", "uploads", "claims", "pushes", "quarantine"):
            assert not any((self.store.root / name).iterdir()), f"left over in {name}"
        for digest, size in self.store.digests():
            content = self.store.read(digest, size)
            assert digest_of(content, digest) == digest
            assert content != SECRET, "a link was followed out of the medium"

    def check_unpublished(self) -> None:
        """What the store serves is what it served."""
        assert (self.store.root / "index.json").read_bytes() == self._published, "published"
        assert not any((self.store.root / "generations").iterdir())

    def check_contents(self, contents: ArchiveContents) -> None:
        """What a reader gave is in the store, and can be named."""
        for digest, size in contents.blobs.items():
            assert self.store.size(digest) == size, digest
        for digest in contents.missing:
            assert not self.store.has(digest), digest
        for image in contents.images:
            assert self.store.size(image.descriptor.digest) == image.descriptor.size
            if image.reference is not None:
                assert parse_reference(str(image.reference)) == image.reference
        for note in contents.notes:
            plain(note)


@contextmanager
def sandbox() -> Iterator[Sandbox]:
    """A fresh one, gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="apl-fuzz-"))
    try:
        yield Sandbox(root)
    finally:
        shutil.rmtree(root)
