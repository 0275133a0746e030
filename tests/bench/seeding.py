"""Seeding: from an archive on disk to a published generation, beside what only copies and hashes, and beside skopeo.

``copy`` is the least that anybody could do: read (or decompress), hash once, write, sync. ``hash`` is the same without the
writing: what reading the archive once costs. ``staged`` is the way of a playbook: a plan that verifies the medium and keeps
its blobs, then the publication of that plan. skopeo copies the same archive into docker-registry, as its default is.
All of these read from the page cache; :func:`measure_from_medium` reads as slowly as from a stick.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import secrets
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from appliance.oci import mediatypes
from tests.bench import medium
from tests.bench.processes import Failed
from tests.bench.report import Goal, Result
from tests.bench.servers import docker_registry

_MIB = 1 << 20
_LAYERS = 4
_NOISE = 200_000
_NAME = "docker.io/bench/seeded:1"
_APPLIANCE = (sys.executable, "-m", "appliance")


@dataclass(frozen=True)
class Archive:
    """One file to seed from.

    :param case: what the table calls it.
    :param transport: what skopeo calls its form.
    :param size: bytes of what is in it.
    """

    case: str
    path: Path
    transport: str
    size: int

    @property
    def read(self) -> str:
        """The shell command that puts out the tar."""
        return f"zstd -dc {self.path}" if self.path.suffix == ".zst" else f"cat {self.path}"

    @property
    def hash(self) -> str:
        """The shell command that reads it and hashes the tar once."""
        if self.path.suffix == ".zst":
            return f"{self.read} | openssl dgst -sha256"
        return f"openssl dgst -sha256 {self.path}"


def archives(root: Path, size: int) -> list[Archive]:
    """A docker-archive and an OCI archive of one image with ``size`` bytes, each plain and as zstd."""
    root.mkdir()
    layers = [_layer(root, number, size // _LAYERS) for number in range(_LAYERS)]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{path.name}" for path in layers]},
        }
    ).encode()
    files: dict[str, Path | bytes] = {f"{path.name}.tar": path for path in layers}
    files[f"{_sha(config)}.json"] = config
    listed = {"Config": f"{_sha(config)}.json", "RepoTags": [_NAME], "Layers": [f"{path.name}.tar" for path in layers]}
    docker = _tar(root / "docker.tar", {**files, "manifest.json": json.dumps([listed]).encode()})
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "config": _descriptor(mediatypes.OCI_CONFIG, _sha(config), len(config)),
            "layers": [_descriptor(mediatypes.OCI_LAYER, path.name, path.stat().st_size) for path in layers],
        }
    ).encode()
    entry = {
        **_descriptor(mediatypes.OCI_MANIFEST, _sha(manifest), len(manifest)),
        "annotations": {"org.opencontainers.image.ref.name": _NAME},
    }
    blobs: dict[str, Path | bytes] = {f"blobs/sha256/{path.name}": path for path in layers}
    blobs |= {f"blobs/sha256/{_sha(data)}": data for data in (config, manifest)}
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    oci = _tar(root / "oci.tar", {**blobs, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'})
    for path in layers:
        path.unlink()
    found = []
    for case, path, transport in (("docker-archive", docker, "docker-archive"), ("OCI archive", oci, "oci-archive")):
        found.append(Archive(case, path, transport, path.stat().st_size))
        _shell(f"zstd -q -T0 -3 {path} -o {path}.zst")
        found.append(Archive(f"{case}, zstd", path.with_name(f"{path.name}.zst"), transport, path.stat().st_size))
    return found


def measure(root: Path, archive: Archive, repetitions: int) -> list[Result]:
    """Seconds of each way, in turns: ours and the peers' of one turn one after the other."""
    store, out = root / "store", root / "out"
    seed: list[object] = [*_APPLIANCE, "seed", "--json", "--store", store, archive.path]
    ways: Mapping[str, Callable[[], float]] = {
        "seed": lambda: _timed(seed),
        "staged": lambda: _staged(root / "staged", archive),
        "rerun": lambda: _timed(seed),
        "copy": lambda: _timed_shell(f"{archive.read} | tee >(openssl dgst -sha256 > {root}/sum) > {out}; sync {out}"),
        "hash": lambda: _timed_shell(f"{archive.hash} > {root}/sum"),
        "skopeo": lambda: _skopeo(root / "registry", archive),
    }
    _shell(f"cat {archive.path} > /dev/null")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repetitions):
        order = ["seed", "rerun", "staged", "hash", "copy", "skopeo"]
        for way in order if turn % 2 == 0 else ["skopeo", "copy", "hash", "staged", "seed", "rerun"]:
            # Nobody pays for what another left to be written.
            _shell("sync")
            seconds[way].append(ways[way]())
            if way == "copy":
                out.unlink()
        shutil.rmtree(store)
    case = f"seeding {archive.size // _MIB} MiB, {archive.case}"
    speed = {way: [archive.size / _MIB / taken for taken in times] for way, times in seconds.items()}
    return [
        Result(case, "time", "s", "copy", seconds["seed"], seconds["copy"], Goal(1, "most")),
        Result(case, "rate", "MiB/s", "skopeo", speed["seed"], speed["skopeo"], Goal(3, "least")),
        Result(f"{case}, again", "time", "s", "hash", seconds["rerun"], seconds["hash"], Goal(1.1, "most")),
        Result(f"{case}, plan to published", "time", "s", "hash", seconds["staged"], seconds["hash"]),
    ]


def measure_from_medium(root: Path, archive: Archive, rate: int, repetitions: int) -> list[Result]:
    """Measure plan and publication from a stick, beside hashing the file on the stick.

    :param rate: bytes a second that the stick gives.
    """
    case = f"seeding {archive.size // _MIB} MiB, {archive.case}, from a stick of {rate // 1_000_000} MB/s"
    hashing = ["openssl", "dgst", "-sha256", archive.path]
    ours, theirs = [], []
    with medium.medium(archive.path.parent, rate) as stick:
        for _ in range(repetitions):
            theirs.append(stick.timed(archive.path, lambda: stick.run(hashing)))
            ours.append(stick.timed(archive.path, lambda: _plan_and_publish(root / "staged", archive, stick.run)))
            shutil.rmtree(root / "staged")
    return [Result(f"{case}, plan to published", "time", "s", "hash", ours, theirs, Goal(1.15, "most"))]


def _staged(store: Path, archive: Archive) -> float:
    """Return the seconds of plan and publication; what an operator takes to answer lies between them."""
    begun = time.perf_counter()
    _plan_and_publish(store, archive, _run)
    taken = time.perf_counter() - begun
    shutil.rmtree(store)
    return taken


def _plan_and_publish(store: Path, archive: Archive, run: Callable[[list[object]], str]) -> None:
    planned = run([*_APPLIANCE, "plan", "--stage", "--json", "--store", store, archive.path])
    plan_id = json.loads(planned)["plan_id"]
    run([*_APPLIANCE, "seed", "--expect", plan_id, "--json", "--store", store, archive.path])


def _skopeo(root: Path, archive: Archive) -> float:
    root.mkdir()
    with ExitStack() as stack:
        registry = docker_registry(root, stack)
        target = f"docker://127.0.0.1:{registry.port}/bench/seeded:1"
        source = f"{archive.transport}:{archive.path}"
        words = [
            "skopeo",
            "--tmpdir",
            root,
            "--insecure-policy",
            "copy",
            "-q",
            "--dest-tls-verify=false",
            source,
            target,
        ]
        taken = _timed(words)
    shutil.rmtree(root)
    return taken


def _timed(words: list[object]) -> float:
    begun = time.perf_counter()
    _run(words)
    return time.perf_counter() - begun


def _run(words: list[object]) -> str:
    """Run a command and return what it printed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _timed_shell(script: str) -> float:
    return _timed(["bash", "-o", "pipefail", "-c", script])


def _shell(script: str) -> None:
    _timed_shell(script)


def _layer(root: Path, number: int, size: int) -> Path:
    """A tar with one file that compresses to about six tenths, named by its digest."""
    words = [secrets.token_bytes(random.randrange(3, 12)) for _ in range(4000)]
    text = b"".join(random.choices(words, k=160_000))
    path, digester = root / f"layer{number}", hashlib.sha256()
    info = tarfile.TarInfo(f"data/{number}")
    info.size = max(1, size // _MIB) * _MIB
    with path.open("wb") as file:

        def put(data: bytes) -> None:
            digester.update(data)
            file.write(data)

        put(info.tobuf())
        for block in range(info.size // _MIB):
            start = block * 977 % 64_000
            put((secrets.token_bytes(_NOISE) + text[start:] + text[:start])[:_MIB].ljust(_MIB, b"."))
        put(bytes(1024))
    return path.rename(root / digester.hexdigest())


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _descriptor(media_type: str, encoded: str, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{encoded}", "size": size}


def _tar(path: Path, members: Mapping[str, Path | bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.size = content.stat().st_size
                with content.open("rb") as file:
                    archive.addfile(info, file)
    return path
