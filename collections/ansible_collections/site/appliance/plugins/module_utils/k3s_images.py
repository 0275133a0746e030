# Copyright the k3s-airgap-appliance authors
# SPDX-License-Identifier: Apache-2.0
"""Image names in K3s's image archives, and in the K3s binary itself. Reads files; runs nothing but ``--help``."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional, Set

try:
    import zstandard
except ImportError:  # A controller that was not set up from requirements/controller.txt.
    zstandard = None  # type: ignore[assignment]

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# K3s packs its own with --long=25; its release archives have at most that.
_ZSTD_WINDOW = 1 << 27
_DOCUMENT_LIMIT = 16 << 20
_BLOCK = 4 << 20
# Longer than the longest of the expressions below can match.
_OVERLAP = 512
_TAG = rb"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
# The manifests that K3s applies lie in its binary as text (pkg/deploy/embed), one name in quotes each.
_IN_MANIFEST = re.compile(rb'"%\{SYSTEM_DEFAULT_REGISTRY\}%(rancher/[a-z0-9._-]+:' + _TAG + rb')"')
_IN_CHART = re.compile(rb'repository: "(rancher/[a-z0-9._-]+)"\s+tag: "(' + _TAG + rb')"')
# Constants of the program have no end in the binary, so each has the form of its releases.
_CONSTANTS = (
    re.compile(rb"rancher/mirrored-pause:\d+\.\d+(?:\.\d+)?"),
    re.compile(rb"rancher/klipper-lb:v\d+\.\d+\.\d+"),
    re.compile(rb"rancher/klipper-helm:v\d+\.\d+\.\d+-build\d{8}"),
)
_PAUSE = "rancher/mirrored-pause:"
_PAUSE_DEFAULT = re.compile(r'--pause-image\b[^\n]*\(default: "([^"\s]+)"\)')
_HELP_TIMEOUT = 30.0


# -------------------------------------------------------------------------------------------- archives


def archive_names(path: Path) -> Optional[List[str]]:
    """Return the image names in an archive for ``agent/images``, sorted; None if it cannot be read here.

    :param path: docker-archive or OCI layout as tar, plain or compressed. A ``.txt`` list holds no image: K3s pulls the names in it.
    """
    if path.name.endswith(".txt"):
        return []
    found: Set[str] = set()
    try:
        with _opened(path) as tar:
            for member in tar:
                name = member.name[2:] if member.name.startswith("./") else member.name
                if name in ("manifest.json", "index.json") and member.isreg() and member.size <= _DOCUMENT_LIMIT:
                    stream = tar.extractfile(member)
                    document = json.loads(stream.read()) if stream else None
                    found.update(_docker_names(document) if name == "manifest.json" else _layout_names(document))
    except (OSError, EOFError, ValueError, tarfile.TarError, _zstd_error()):
        return None
    return sorted(found)


def list_names(path: Path) -> List[str]:
    """Return the names in a list such as ``k3s-images.txt``: one a line, ``#`` begins a comment."""
    rows = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return sorted({row.split("#", 1)[0].strip() for row in rows} - {""})


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head != _ZSTD_MAGIC:
            with tarfile.open(fileobj=file, mode="r|*") as tar:
                yield tar
            return
        if zstandard is None:
            raise ValueError("no decoder for zstd")
        decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        with (
            decoder.stream_reader(file, read_across_frames=True) as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            yield tar


def _zstd_error() -> Any:
    return zstandard.ZstdError if zstandard else OSError


def _docker_names(document: Any) -> Set[str]:
    entries = document if isinstance(document, list) else []
    tags = [tag for entry in entries if isinstance(entry, dict) for tag in entry.get("RepoTags") or []]
    return {tag for tag in tags if isinstance(tag, str)}


def _layout_names(document: Any) -> Set[str]:
    entries = document.get("manifests") if isinstance(document, dict) else None
    found = set()
    for entry in entries or []:
        notes = (entry.get("annotations") if isinstance(entry, dict) else None) or {}
        name = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name") or ""
        # A bare tag is no name: K3s does not import it either.
        if isinstance(name, str) and ("/" in name or ":" in name):
            found.add(name)
    return found


# -------------------------------------------------------------------------------------------- the binary


def binary_images(path: Path) -> Dict[str, Any]:
    """Return which images a K3s binary wants of its own accord.

    K3s carries itself a second time, compressed, with the manifests that it applies. These are read without a run of
    it. Without such a part, or without a decoder, only the pause image can be known, from ``--help``.

    :returns: ``images`` (names as K3s writes them) and ``known``: ``all``, ``pause`` or ``nothing``.
    """
    pause, components = _pause_default(path), _embedded_images(path)
    pauses = {name for name in components if name.startswith(_PAUSE)}
    if components - pauses and (pause or pauses):
        return {"images": sorted((components - pauses) | ({pause} if pause else pauses)), "known": "all"}
    return {"images": [pause], "known": "pause"} if pause else {"images": [], "known": "nothing"}


def _embedded_images(path: Path) -> Set[str]:
    found: Set[str] = set()
    if zstandard is None:
        return found
    with path.open("rb") as file:
        for offset in _frames(file):
            file.seek(offset)
            decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
            # The decoder fails at once where no frame begins, and again behind the end of a frame: names found so far count.
            with suppress(zstandard.ZstdError), decoder.stream_reader(file, closefd=False) as stream:
                for names in _tar_images(stream):
                    found |= names
    return found


def _frames(file: IO[bytes]) -> Iterator[int]:
    """Yield where a zstd frame may begin."""
    position, carried = 0, b""
    while True:
        file.seek(position)
        block = file.read(_BLOCK)
        if not block:
            return
        data, start = carried + block, position - len(carried)
        position += len(block)
        at = data.find(_ZSTD_MAGIC)
        while at >= 0:
            yield start + at
            at = data.find(_ZSTD_MAGIC, at + 1)
        carried = data[-(len(_ZSTD_MAGIC) - 1) :]


def _tar_images(stream: Any) -> Iterator[Set[str]]:
    """Yield the names in a compressed tar; of anything else that happens to begin like zstd, nothing."""
    data = stream.read(1024)
    if data[257:262] != b"ustar":
        return
    while data:
        yield _names_in(data)
        block = stream.read(_BLOCK)
        data = data[-_OVERLAP:] + block if block else b""


def _names_in(data: bytes) -> Set[str]:
    found = set(_IN_MANIFEST.findall(data))
    found |= {repository + b":" + tag for repository, tag in _IN_CHART.findall(data)}
    # One that ends with the data may go on in the next block, which begins with the end of this one.
    found |= {match.group(0) for one in _CONSTANTS for match in one.finditer(data) if match.end() < len(data)}
    return {name.decode() for name in found}


def _pause_default(path: Path) -> str:
    """Return the default that ``k3s server --help`` names; that command changes nothing and unpacks nothing."""
    try:
        done = subprocess.run(
            [str(path.resolve()), "server", "--help"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=_HELP_TIMEOUT,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        # One for another architecture.
        return ""
    match = _PAUSE_DEFAULT.search(done.stdout)
    return match.group(1) if match else ""
