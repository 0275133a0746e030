"""Small images in pure Python, and layouts, archives and stores made of them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import random
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.config import Config
from appliance.oci import mediatypes
from appliance.oci.manifests import Descriptor
from appliance.oci.pieces import BIG_BLOB, PieceHasher
from appliance.oci.reference import parse_reference
from appliance.store.blobs import BlobStore
from appliance.store.generations import Generation, Generations, make
from appliance.store.index import Entry, Referrer
from appliance.store.locks import try_lock
from appliance.store.pins import Pins
from appliance.store.pushes import Pushed, Pushes
from appliance.store.store import Store
from appliance.trust import Trust

CREATED = "2026-01-02T03:04:05+00:00"


def sha(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not repeat, the same for one seed."""
    return random.Random(seed).randbytes(size)


def layer(seed: int, size: int = 300) -> bytes:
    """A layer's tar with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo(f"data/{seed}")
        info.size = size
        archive.addfile(info, io.BytesIO(noise(seed, size)))
    return out.getvalue()


@dataclass
class Image:
    """A manifest or index, and all blobs that it reaches."""

    descriptor: dict[str, Any]
    blobs: dict[str, bytes] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return str(self.descriptor["digest"])

    @property
    def raw(self) -> bytes:
        return self.blobs[self.digest]

    @property
    def weight(self) -> int:
        """Bytes of everything it reaches, each blob once."""
        return sum(map(len, self.blobs.values()))

    @property
    def document(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.raw)
        return parsed

    @property
    def layers(self) -> list[str]:
        return [item["digest"] for item in self.document.get("layers", [])]

    @property
    def manifests(self) -> list[dict[str, Any]]:
        """Its own descriptor and, of an index, those of the children that are here."""
        children = [item for item in self.document.get("manifests", []) if item["digest"] in self.blobs]
        return [self.descriptor, *children]

    @property
    def entry(self) -> Entry:
        return Entry(Descriptor.from_dict({k: self.descriptor[k] for k in ("mediaType", "digest", "size")}))


def _add(blobs: dict[str, bytes], data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    blobs[sha(data)] = data
    return {"mediaType": media_type, "digest": sha(data), "size": len(data), **more}


def image(
    seed: int = 1,
    *,
    size: int = 300,
    arch: str = "amd64",
    layers: int = 1,
    subject: Image | None = None,
    docker: bool = False,
    artifact_type: str | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """An image for one platform; ``seed`` decides its content."""
    blobs: dict[str, bytes] = {}
    tars = [layer(seed * 100 + number, size) for number in range(layers)]
    config = compact(
        {
            "architecture": arch,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Labels": {"seed": str(seed)}},
            "rootfs": {"type": "layers", "diff_ids": [sha(data) for data in tars]},
        }
    )
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": mediatypes.DOCKER_MANIFEST if docker else mediatypes.OCI_MANIFEST,
        "config": _add(blobs, config, mediatypes.DOCKER_CONFIG if docker else mediatypes.OCI_CONFIG),
        "layers": [_add(blobs, data, mediatypes.DOCKER_LAYER if docker else mediatypes.OCI_LAYER) for data in tars],
    }
    if artifact_type:
        manifest["artifactType"] = artifact_type
    if subject is not None:
        manifest["subject"] = subject.descriptor
    if annotations:
        manifest["annotations"] = dict(annotations)
    descriptor = _add(blobs, compact(manifest), manifest["mediaType"])
    return Image(descriptor, blobs)


def index(children: Mapping[str, Image], *, leave_out: Iterable[str] = ()) -> Image:
    """An index over images by architecture; the blobs of ``leave_out`` are not there (a sparse index)."""
    blobs: dict[str, bytes] = {}
    entries = []
    for arch, child in children.items():
        entries.append({**child.descriptor, "platform": {"os": "linux", "architecture": arch}})
        if arch not in leave_out:
            blobs |= child.blobs
    document = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": entries}
    return Image(_add(blobs, compact(document), mediatypes.OCI_INDEX), blobs)


def write_layout(directory: Path, images: Mapping[str, Image]) -> Path:
    """An OCI layout directory with names as containerd and skopeo write them; ``""`` is no name."""
    for data in ({digest: raw for item in images.values() for digest, raw in item.blobs.items()}).values():
        path = directory / "blobs" / "sha256" / sha(data).partition(":")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (directory / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_bytes(_index(images))
    return directory


def _index(images: Mapping[str, Image], nameless: Iterable[Image] = ()) -> bytes:
    entries = []
    for name, item in [*images.items(), *(("", item) for item in nameless)]:
        notes = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name} if name else {}
        entries.append({**item.descriptor, **({"annotations": notes} if notes else {})})
    return compact({"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": entries})


def write_oci_archive(path: Path, images: Mapping[str, Image], *, nameless: Iterable[Image] = ()) -> Path:
    """The same as one tar; ``nameless`` are listed without a name, as signatures are."""
    nameless = list(nameless)
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": _index(images, nameless)}
    for item in (*images.values(), *nameless):
        members |= {f"blobs/{digest.replace(':', '/')}": raw for digest, raw in item.blobs.items()}
    return write_tar(path, members)


def write_docker_archive(path: Path, name: str, item: Image) -> Path:
    """What ``docker save`` of old wrote: a config and layers, no manifest."""
    config = item.document["config"]["digest"]
    layers = item.layers
    members = {f"{config.partition(':')[2]}.json": item.blobs[config]}
    members |= {f"{digest.partition(':')[2]}/layer.tar": item.blobs[digest] for digest in layers}
    listed = {
        "Config": f"{config.partition(':')[2]}.json",
        "RepoTags": [name],
        "Layers": [f"{digest.partition(':')[2]}/layer.tar" for digest in layers],
    }
    return write_tar(path, members | {"manifest.json": compact([listed])})


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar of files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def open_store(root: Path, **more: Any) -> BlobStore:
    """A store that was created."""
    blobs = BlobStore(root, **({"reserve": 0} | more))
    blobs.create()
    return blobs


def generations(blobs: BlobStore) -> Generations:
    """Its generations, unsigned."""
    return Generations(blobs, Trust(None, "local", ()))


def pushes(blobs: BlobStore) -> Pushes:
    """Its index of pushes, unsigned."""
    return Pushes(blobs, Trust(None, "local", ()))


def pins(blobs: BlobStore) -> Pins:
    """Its index of pins, unsigned."""
    return Pins(blobs, Trust(None, "local", ()))


def store(blobs: BlobStore, *, trust: Trust | None = None, **config: Any) -> Store:
    """A whole store over some blobs, as its publisher opens it.

    :param trust: whom it believes; None: nothing is signed.
    :param config: fields of its configuration, beside ``node`` and ``store``.
    """
    fields: dict[str, Any] = {"node": "local", "store": blobs.root, **config}
    node = Config(**fields)
    return Store.over(blobs, trust or Trust(None, node.node, ()), lambda: node)


def follower(blobs: BlobStore) -> Store:
    """The store of a node that publishes nothing."""
    return store(blobs, seeds=("elsewhere",))


def push(blobs: BlobStore, names: Mapping[str, Image | Entry], *, piece_maps: bool = False) -> Pushed:
    """Fill a store with images and make what is pushed exactly these names, and every manifest under its digest."""
    entries: dict[str, Entry] = {}
    maps = {}
    for name, item in names.items():
        entries[name] = item.entry if isinstance(item, Image) else item
        repository = parse_reference(name).name
        if isinstance(item, Entry):
            entries[f"{repository}@{item.descriptor.digest}"] = item
            continue
        fill(blobs, [item])
        for descriptor in item.manifests:
            key = f"{repository}@{descriptor['digest']}"
            entries[key] = Entry(Descriptor.from_dict({k: descriptor[k] for k in ("mediaType", "digest", "size")}))
        for digest, raw in item.blobs.items():
            if piece_maps and len(raw) > BIG_BLOB:
                maps[digest] = put_map(blobs, raw)
    return pushes(blobs).replace(entries, maps)


def fill(blobs: BlobStore, images: Iterable[Image], *, leave_out: Iterable[str] = ()) -> None:
    """Put every blob of the images into a store, but for some digests."""
    for item in images:
        for digest, raw in item.blobs.items():
            if digest not in set(leave_out):
                blobs.put([raw], size=len(raw), expect=digest)


def publish(
    blobs: BlobStore,
    names: Mapping[str, Image | Entry],
    *,
    piece_maps: bool = False,
    sources: Iterable[str] = (),
    leave_out: Iterable[str] = (),
    referrers: Mapping[str, Iterable[Image]] | None = None,
) -> Generation:
    """Fill a store with images and publish exactly these names, and by the digest of its subject what refers to one."""
    signed = [(subject, item) for subject, items in (referrers or {}).items() for item in items]
    images = [*(item for item in names.values() if isinstance(item, Image)), *(item for _, item in signed)]
    fill(blobs, images, leave_out=leave_out)
    maps = {}
    for item in images if piece_maps else ():
        for digest, raw in item.blobs.items():
            if len(raw) > BIG_BLOB:
                maps[digest] = put_map(blobs, raw)
    found = generations(blobs)
    entries = {name: item.entry if isinstance(item, Image) else item for name, item in names.items()}
    attached = {item.digest: Referrer(item.entry, subject) for subject, item in signed}
    made = make(found.current(), entries, maps, cause="seeding", created=CREATED, sources=sources, referrers=attached)
    found.publish(made)
    return made


def forget(blobs: BlobStore, number: int) -> None:
    """Take a generation's bytes away, as :meth:`Generations.prune` does to what is no history any more."""
    for path in (blobs.root / "generations").glob(f"{number:08d}-*.*"):
        path.unlink()


def put_map(blobs: BlobStore, raw: bytes) -> Descriptor:
    hasher = PieceHasher(len(raw))
    hasher.update(raw)
    stored = blobs.put_bytes(hasher.finish(sha(raw)).to_bytes())
    return Descriptor(mediatypes.PIECE_MAP, stored.digest, stored.size)


def tree(root: Path) -> dict[str, tuple[int, int, int]]:
    """Every path below a directory with its time, size and inode: what a command that writes nothing leaves alone."""
    found = {}
    for path in [root, *root.rglob("*")]:
        if path.exists():
            status = path.lstat()
            found[str(path)] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


def stays(store: BlobStore) -> bool:
    """Whether somebody holds :meth:`BlobStore.gc_lock_shared` now, so that nothing can be collected."""
    handle = os.open(store.root / "blobs", os.O_RDONLY)
    try:
        return not try_lock(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def seeding_elsewhere(root: Path) -> Iterator[None]:
    """Hold the lock for changes of names as another process would: the locks of this one know nothing of it."""
    handle = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
