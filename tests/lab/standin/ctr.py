"""containerd as the stand-in talks to it: by ``ctr`` for names, by its content directory for bytes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config import Layout

NAMESPACE = "k8s.io"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MANIFEST_LIMIT = 8 * 1024 * 1024


@dataclass(frozen=True)
class Image:
    """One name in containerd and what it points to."""

    name: str
    media_type: str
    digest: str


@dataclass(frozen=True)
class Found:
    """One blob or manifest that may be given to other nodes."""

    digest: str
    media_type: str
    path: Path
    size: int


class CtrError(RuntimeError):
    """``ctr`` failed; the text is what it said."""


class Ctr:
    """``ctr`` on K3s's socket."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def environment(self) -> dict[str, str]:
        """What makes ``ctr`` talk to K3s's containerd unless told otherwise."""
        defaults = {"CONTAINERD_ADDRESS": self._layout.socket, "CONTAINERD_NAMESPACE": NAMESPACE}
        return {**defaults, **os.environ}

    def run(self, *arguments: str, stdin: Any = subprocess.DEVNULL) -> str:
        """Run one command and return what it printed.

        :raises CtrError: when it fails.
        """
        done = subprocess.run(
            ["ctr", "--address", self._layout.socket, "--namespace", NAMESPACE, *arguments],
            stdin=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CtrError(done.stderr.strip() or f"ctr exited with {done.returncode}")
        return done.stdout

    def images(self) -> list[Image]:
        """All names."""
        return parse_images(self.run("images", "ls"))

    def labelled(self) -> dict[str, set[str]]:
        """Digests of the content that says from which registries it was pulled, with these registries."""
        return parse_sources(self.run("content", "ls"))


def parse_images(output: str) -> list[Image]:
    """What ``ctr images ls`` printed."""
    images = []
    for line in output.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 3 and _DIGEST.fullmatch(fields[2]):
            images.append(Image(*fields[:3]))
    return images


def parse_sources(output: str) -> dict[str, set[str]]:
    """What ``ctr content ls`` printed: digest to the registries named by its labels."""
    sources: dict[str, set[str]] = {}
    for line in output.splitlines()[1:]:
        digest = line.split(maxsplit=1)[0] if line.strip() else ""
        registries = set(re.findall(r"containerd\.io/distribution\.source\.([^=\s,]+)=", line))
        if registries and _DIGEST.fullmatch(digest):
            sources[digest] = registries
    return sources


def split_name(name: str) -> tuple[str, str, str, str]:
    """Registry, repository, tag and digest of an image name; what it lacks is empty."""
    rest, _, digest = name.partition("@")
    head, slash, tail = rest.partition("/")
    if not slash or not ("." in head or ":" in head or head == "localhost"):
        return "", rest, "", digest
    repository, colon, tag = tail.rpartition(":")
    return (head, repository, tag, digest) if colon else (head, tail, "", digest)


def digest_names(images: list[Image]) -> list[tuple[str, str]]:
    """The second names, ``name@sha256:…``, that make imported images shareable: (name:tag, name@digest)."""
    pairs = []
    for image in images:
        registry, repository, tag, digest = split_name(image.name)
        if tag and not digest:
            prefix = f"{registry}/{repository}" if registry else repository
            pairs.append((image.name, f"{prefix}@{image.digest}"))
    return pairs


@dataclass
class Store:
    """What this node's containerd holds and may share, read anew at most once a second.

    A tag is shared by its name alone. A digest is shared when an image named ``…@sha256:…`` of the asked registry leads
    to it, or when its label says that it was pulled from there; what ``ctr images import`` brings has
    neither, so elsewhere its tag resolves and its manifest is not found (seen on K3s v1.36.3).
    """

    ctr: Ctr
    layout: Layout
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _read: float = -10.0
    _images: list[Image] = field(default_factory=list)
    _sources: dict[str, set[str]] = field(default_factory=dict)
    _children: dict[str, dict[str, str]] = field(default_factory=dict)

    def blob(self, digest: str) -> Path:
        """Where containerd keeps a blob."""
        return Path(self.layout.root) / "io.containerd.content.v1.content/blobs/sha256" / digest.removeprefix("sha256:")

    def find(self, registry: str, repository: str, reference: str) -> Found | None:
        """The shared content under a tag or digest, or nothing."""
        with self._lock:
            self._refresh()
            if not reference.startswith("sha256:"):
                for image in self._images:
                    if image.name == f"{registry}/{repository}:{reference}":
                        return self._found(image.digest, image.media_type)
                return None
            for image in self._images:
                named, _, _, digest = split_name(image.name)
                if digest and named == registry:
                    reachable = self._reachable(image.digest, image.media_type)
                    if reference in reachable:
                        return self._found(reference, reachable[reference])
            if registry in self._sources.get(reference, ()):
                return self._found(reference, self._media_type(reference))
        return None

    def _refresh(self) -> None:
        if time.monotonic() - self._read < 1.0:
            return
        try:
            self._images, self._sources = self.ctr.images(), self.ctr.labelled()
        except CtrError:
            self._images, self._sources = [], {}
        self._read = time.monotonic()

    def _found(self, digest: str, media_type: str) -> Found | None:
        path = self.blob(digest)
        try:
            return Found(digest, media_type, path, path.stat().st_size)
        except FileNotFoundError:
            return None

    def _reachable(self, digest: str, media_type: str) -> dict[str, str]:
        reachable, pending = {digest: media_type}, [digest]
        while pending:
            for child, kind in self._direct(pending.pop()).items():
                if child not in reachable:
                    reachable[child] = kind
                    pending.append(child)
        return reachable

    def _direct(self, digest: str) -> Mapping[str, str]:
        if digest not in self._children:
            document = self._document(digest)
            if document is None:
                return {}
            entries = [document.get("config"), *(document.get("manifests") or []), *(document.get("layers") or [])]
            self._children[digest] = {
                entry["digest"]: str(entry.get("mediaType", ""))
                for entry in entries
                if isinstance(entry, dict) and isinstance(entry.get("digest"), str)
            }
        return self._children[digest]

    def _document(self, digest: str) -> dict[str, Any] | None:
        path = self.blob(digest)
        try:
            if path.stat().st_size > _MANIFEST_LIMIT:
                return None
            document = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    def _media_type(self, digest: str) -> str:
        document = self._document(digest) or {}
        if document.get("mediaType"):
            return str(document["mediaType"])
        if "manifests" in document:
            return "application/vnd.oci.image.index.v1+json"
        if "layers" in document:
            return "application/vnd.oci.image.manifest.v1+json"
        return "application/octet-stream"
