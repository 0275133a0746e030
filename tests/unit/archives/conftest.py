"""Reading made archives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.archives.model import ArchiveContents
from appliance.archives.reader import read_source
from appliance.archives.sink import HashingSink

Read = Callable[..., ArchiveContents]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write bytes to a file and read them as a source."""

    def reader(data: bytes, *, name: str = "images.tar", sidecar: str | None = None, **more: Any) -> ArchiveContents:
        path = tmp_path / name
        path.write_bytes(data)
        path.chmod(0o444)
        if sidecar is not None:
            path.with_name(name + ".sha256").write_text(sidecar)
        try:
            with HashingSink() as sink:
                return read_source(path, sink, **more)
        finally:
            path.unlink()

    return reader
