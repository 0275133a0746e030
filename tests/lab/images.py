"""What a stick carries: small real images as tarballs, and the stick itself as a file-system image.

Images hold Debian's static busybox and nothing else. Layers, configuration and manifest are written here, byte for byte
the same each time; the tarballs are written by skopeo, as operators' tarballs are. All is built once and kept in the
cache under a key over what it is made from.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import random
import shutil
import tarfile
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tests.lab.base import cache_dir, run, wait_for
from tests.lab.root import build_root, locked

_FORMAT = 1
_APPLETS = ("cat", "echo", "env", "httpd", "id", "ls", "sh", "sleep", "test", "true", "uname", "wget")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

FileSystem = Literal["ext4", "exfat"]


@dataclass(frozen=True)
class ImageSpec:
    """An image to be built.

    :param name: full reference with its tag, ``ksd.test.com/ksd/nginx:1.27``.
    :param page: what its web server answers on port 8080.
    :param payload_mib: size of its second layer, bytes that do not compress, in MiB; 0: one layer only.
    :param command: what a container of it runs; empty: the web server.
    :param architecture: OCI architecture it claims to be for; empty: this machine's.
    """

    name: str
    page: str = ""
    payload_mib: int = 4
    command: tuple[str, ...] = ()
    architecture: str = ""

    def text(self) -> str:
        """The page the web server answers, with its end of line."""
        return (self.page or f"served by {self.name}") + "\n"


NGINX = ImageSpec("ksd.test.com/ksd/nginx:1.27", page="hello from ksd/nginx 1.27")
TOOL = ImageSpec("quay.io/team/tool:2.0", page="hello from team/tool 2.0", payload_mib=1)


def pause_image(name: str) -> ImageSpec:
    """The image that holds a pod's namespaces: it waits, and ends when asked to.

    :param name: the reference that the site's containerd wants, as K3s's ``--pause-image`` takes it.
    """
    wait = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"
    return ImageSpec(name, payload_mib=0, command=("/bin/sh", "-c", wait))


def oci_layout(spec: ImageSpec) -> Path:
    """The image as an OCI layout directory in the cache; not to be changed."""
    return _built(spec) / "layout"


def docker_archive(spec: ImageSpec, target: Path) -> Path:
    """The image as ``docker save`` writes it: an uncompressed tar.

    :param target: file to write.
    """
    shutil.copyfile(_built(spec) / "docker.tar", target)
    return target


def oci_archive(spec: ImageSpec, target: Path) -> Path:
    """The image as an OCI archive, compressed with zstd.

    :param target: file to write.
    """
    shutil.copyfile(_built(spec) / "oci.tar.zst", target)
    return target


def write_sources(directory: Path, *more: ImageSpec) -> list[Path]:
    """The story's two tarballs: ``NGINX`` as docker-archive, ``TOOL`` as OCI archive with zstd; others as the former.

    :returns: the files, in that order.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = [docker_archive(NGINX, directory / "ksd-nginx-1.27.tar"), oci_archive(TOOL, directory / "tool-2.0.tar.zst")]
    for spec in more:
        stem = "".join(c if c.isalnum() or c in ".-" else "-" for c in spec.name)
        files.append(docker_archive(spec, directory / f"{stem}.tar"))
    return files


def make_stick(files: Path, image: Path, fs: FileSystem = "ext4") -> Path:
    """Write a stick: a file-system image with a directory's content.

    :param files: directory whose content becomes the root of the stick.
    :param image: file to write.
    :param fs: ``ext4`` is made without a mount; ``exfat`` is filled through FUSE on a loop device.
    :raises LabError: when a tool fails, or the content does not fit.
    """
    size = sum(path.stat().st_size for path in files.rglob("*") if path.is_file())
    mib = (size * 115 // 100 >> 20) + 32
    image.unlink(missing_ok=True)
    run(["truncate", "-s", f"{mib}M", image])
    if fs == "ext4":
        # Owned by root whoever made the files, with no journal to replay and no reserve for anybody.
        run(["mkfs.ext4", "-q", "-m", "0", "-L", "STICK", "-E", "root_owner=0:0,nodiscard", "-d", files, image])
    else:
        _fill_exfat(files, image)
    return image


def _fill_exfat(files: Path, image: Path) -> None:
    run(["mkfs.exfat", "-L", "STICK", image])
    loop = run(["losetup", "--find", "--show", image]).stdout.strip()
    try:
        # In a mount namespace of its own, so nothing stays mounted when this is interrupted.
        script = 'mount.exfat-fuse "$1" "$3" && cp -r "$2"/. "$3" && sync -f "$3" && umount "$3"'
        with tempfile.TemporaryDirectory(prefix="lab-stick-") as point:
            run(["unshare", "--mount", "--propagation", "private", "sh", "-euc", script, "sh", loop, files, point])
    finally:
        run(["losetup", "--detach", loop], check=False)
    # The file system is written out only when its daemon has ended and let go of the device.
    wait_for(f"{loop} to be freed", lambda: run(["losetup", "-j", image]).stdout == "", 60)


def _built(spec: ImageSpec) -> Path:
    busybox = build_root() / "bin/busybox"
    program = busybox.read_bytes()
    made_from = json.dumps([_FORMAT, asdict(spec), _APPLETS, hashlib.sha256(program).hexdigest()])
    ready = cache_dir() / f"image-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"
    with locked(cache_dir() / "images.lock"):
        if not ready.is_dir():
            new = ready.with_name(ready.name + ".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            _write_layout(spec, program, new / "layout")
            _write_archives(spec, new)
            new.rename(ready)
    return ready


def _write_archives(spec: ImageSpec, where: Path) -> None:
    # By default skopeo looks for an image of this machine's architecture.
    skopeo = ["skopeo", "--insecure-policy", f"--override-arch={_architecture(spec)}", "copy", "--quiet"]
    source = f"oci:{where / 'layout'}:{spec.name}"
    run([*skopeo, source, f"docker-archive:{where / 'docker.tar'}:{spec.name}"])
    run([*skopeo, source, f"oci-archive:{where / 'oci.tar'}:{spec.name}"])
    run(["zstd", "-q", "--rm", where / "oci.tar", "-o", where / "oci.tar.zst"])


def _write_layout(spec: ImageSpec, program: bytes, layout: Path) -> None:
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    layers = [_first_layer(spec, program)]
    if spec.payload_mib:
        layers.append(_second_layer(spec))
    descriptors = [put(gzip.compress(layer, compresslevel=6, mtime=0), _LAYER) for layer in layers]
    config = {
        "created": "1970-01-01T00:00:00Z",
        "architecture": _architecture(spec),
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin"],
            "Cmd": list(spec.command or ("/bin/httpd", "-f", "-p", "8080", "-h", "/www")),
            "ExposedPorts": {} if spec.command else {"8080/tcp": {}},
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "lab"} for _ in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(_json(config), "application/vnd.oci.image.config.v1+json"),
        "layers": descriptors,
    }
    entry = put(_json(manifest), "application/vnd.oci.image.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": spec.name}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    (layout / "index.json").write_bytes(_json(index))
    (layout / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _first_layer(spec: ImageSpec, program: bytes) -> bytes:
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for directory in ("bin", "etc", "tmp", "www"):
                _add(tar, directory, tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755)
            _add(tar, "bin/busybox", tarfile.REGTYPE, 0o755, program)
            for applet in _APPLETS:
                _add(tar, f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
            _add(tar, "etc/passwd", tarfile.REGTYPE, 0o644, b"root:x:0:0:root:/:/bin/sh\n")
            _add(tar, "www/index.html", tarfile.REGTYPE, 0o644, spec.text().encode())
        return buffer.getvalue()


def _second_layer(spec: ImageSpec) -> bytes:
    payload = random.Random(spec.name).randbytes(spec.payload_mib << 20)  # the same bytes for a name, each time
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            _add(tar, "www/payload", tarfile.REGTYPE, 0o644, payload)
        return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, kind: bytes, mode: int, content: bytes = b"", link: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), link
    tar.addfile(entry, io.BytesIO(content))


def _architecture(spec: ImageSpec) -> str:
    return spec.architecture or _ARCHITECTURES.get(platform.machine(), platform.machine())
