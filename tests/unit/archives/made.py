"""Archives made by hand, byte by byte where it matters: what tools write, and what an attacker would."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from typing import Any, Literal

import zstandard

from appliance.oci import mediatypes

Member = tuple[str, bytes] | tarfile.TarInfo


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def tar(*members: Member, end: bool = True, form: Literal[0, 1, 2] = 1) -> bytes:
    """A tar of files and prepared members; ``end`` writes the two zero blocks."""
    out = io.BytesIO()
    for member in members:
        if isinstance(member, tarfile.TarInfo):
            out.write(member.tobuf(form, "utf-8", "surrogateescape"))
            continue
        name, data = member
        info = tarfile.TarInfo(name)
        info.size = len(data)
        out.write(info.tobuf(form, "utf-8", "surrogateescape"))
        out.write(data + b"\0" * (-len(data) % 512))
    return out.getvalue() + (b"\0" * 1024 if end else b"")


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def pax(name: str, data: bytes, **records: str) -> tuple[tuple[str, bytes] | tarfile.TarInfo, ...]:
    """A member under a pax header, written by hand: ``tarfile`` would not write these."""
    body = b""
    for key, value in records.items():
        rest = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length += 1
        body += str(length).encode() + rest
    return (raw_member("pax", body, tarfile.XHDTYPE), (name, data))


def raw_member(name: str, data: bytes, kind: bytes, size: int | None = None) -> Any:
    class Raw(tarfile.TarInfo):
        def tobuf(self, *_: Any) -> bytes:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(data) if size is None else size
            return info.tobuf(tarfile.GNU_FORMAT) + data + b"\0" * (-len(data) % 512)

    return Raw(name)


def layer(text: str = "hello", size: int = 0) -> bytes:
    """A layer's tar."""
    return tar((f"etc/{text}", text.encode()), *([("big", bytes(range(256)) * (size // 256))] if size else []))


@dataclass
class Layout:
    """An OCI layout in memory."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def add(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        self.blobs[sha(data)] = data
        return {"mediaType": media_type, "digest": sha(data), "size": len(data), **more}

    def image(
        self,
        *layers: bytes,
        arch: str = "amd64",
        layer_type: str = mediatypes.OCI_LAYER,
        diff_ids: list[str] | None = None,
        stored: list[bytes] | None = None,
        subject: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        config = compact(
            {
                "architecture": arch,
                "os": "linux",
                "rootfs": {
                    "type": "layers",
                    "diff_ids": [sha(data) for data in layers] if diff_ids is None else diff_ids,
                },
            }
        )
        manifest = {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "config": self.add(config, mediatypes.OCI_CONFIG),
            "layers": [self.add(data, layer_type) for data in stored or layers],
            **({"subject": subject} if subject else {}),
        }
        return self.add(compact(manifest), mediatypes.OCI_MANIFEST)

    def index(self, *children: dict[str, Any], **more: Any) -> dict[str, Any]:
        document = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": list(children), **more}
        return self.add(compact(document), mediatypes.OCI_INDEX)

    def name(self, entry: dict[str, Any], name: str | None = None, **annotations: str) -> Layout:
        if name:
            annotations["org.opencontainers.image.ref.name"] = name
        self.entries.append({**entry, **({"annotations": annotations} if annotations else {})})
        return self

    def index_json(self) -> bytes:
        return compact({"schemaVersion": 2, "manifests": self.entries})

    def members(self, prefix: str = "", *, index_first: bool = False) -> list[Member]:
        heads: list[Member] = [
            (f"{prefix}index.json", self.index_json()),
            (f"{prefix}oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        ]
        blobs: list[Member] = [
            (f"{prefix}blobs/{digest.replace(':', '/')}", data) for digest, data in sorted(self.blobs.items())
        ]
        return heads + blobs if index_first else blobs + heads

    def tar(self, **more: Any) -> bytes:
        return tar(*self.members(), **more)


def simple(name: str | None = "ksd.test.com/ksd/nginx:1.27", text: str = "hello", size: int = 0) -> Layout:
    layout = Layout()
    return layout.name(layout.image(layer(text, size), layer("two")), name)


def docker(
    *layers: bytes,
    tags: list[str] | None = None,
    stored: list[bytes] | None = None,
    arch: str = "amd64",
    diff_ids: list[str] | None = None,
    extra: tuple[Member, ...] = (),
    suffix: str = ".tar",
) -> list[Member]:
    """The members of a docker-archive as skopeo writes it: layers, config, manifest.json."""
    config = compact(
        {
            "architecture": arch,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [sha(data) for data in layers] if diff_ids is None else diff_ids},
        }
    )
    names = [f"{sha(data)[7:]}{suffix}" for data in stored or layers]
    manifest = [{"Config": f"{sha(config)[7:]}.json", "RepoTags": tags, "Layers": names}]
    files: dict[str, bytes] = dict(zip(names, stored or layers, strict=True))
    return [*files.items(), (f"{sha(config)[7:]}.json", config), *extra, ("manifest.json", compact(manifest))]


def zstd(data: bytes, frames: int = 1, **more: Any) -> bytes:
    step = -(-len(data) // frames)
    compressor = zstandard.ZstdCompressor(write_checksum=True, **more)
    return b"".join(compressor.compress(data[at : at + step]) for at in range(0, len(data), step))


def gzip_members(data: bytes, count: int = 1) -> bytes:
    step = -(-len(data) // count)
    return b"".join(gzip.compress(data[at : at + step], 1, mtime=0) for at in range(0, len(data), step))
