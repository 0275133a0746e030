"""Images that this host's containerd runs, and the lists of them that nodes exchange.

``ctr`` gives the list, on the sockets of K3s and of a plain containerd. Exited containers count too: a crashing pod restarts
within seconds and may pull again, and kubelet removes containers that have ended for good.

Decision 54.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from appliance.errors import fail
from appliance.oci.digests import is_digest
from appliance.store.gc import Image

_NAMESPACE = "k8s.io"
_SECONDS = 60.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/var/lib/rancher/k3s/data/current/bin"


@dataclass(frozen=True)
class Containerd:
    """One containerd that may run on a host.

    :param socket: where it listens.
    :param sign: a path that is there wherever it was ever set up.
    :param commands: the words that start ``ctr`` for it, the first that the host has.
    """

    socket: Path
    sign: Path
    commands: tuple[tuple[str, ...], ...]


CONTAINERDS = (
    Containerd(
        Path("/run/k3s/containerd/containerd.sock"),
        Path("/var/lib/rancher/k3s/agent/containerd"),
        (("k3s", "ctr"), ("ctr",)),
    ),
    Containerd(
        Path("/run/containerd/containerd.sock"), Path("/run/containerd/containerd.sock"), (("ctr",), ("k3s", "ctr"))
    ),
)


def running(containerds: Iterable[Containerd] = CONTAINERDS) -> list[Image]:
    """The images of this host's containers, each once, sorted; empty where there is no containerd at all.

    :raises ApplianceError: APL-0327 where there is one that does not answer: nobody can say what runs.
    """
    found: set[Image] = set()
    for containerd in containerds:
        if containerd.socket.exists() or containerd.sign.exists():
            found |= set(_images(containerd))
    return sorted(found, key=lambda image: (image.name, image.digest or ""))


def _images(containerd: Containerd) -> list[Image]:
    names = parse_images(_ctr(containerd, "images", "ls"))
    found = []
    for container in _ctr(containerd, "containers", "ls", "-q").split():
        said = _ctr(containerd, "containers", "info", container, gone="not found")
        if not said:
            continue  # it was removed between the two questions
        image = image_of(said, names, container)
        if image is None:
            # Of a newer form. Any image that this containerd has may be the one; none is more than these.
            return [Image(name, digest) for name, digest in names.items()]
        found.append(image)
    return found


def parse_images(table: str) -> dict[str, str]:
    """Name to digest, from what ``ctr images ls`` prints: a table that begins with name, media type and digest."""
    found = {}
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) >= 3 and is_digest(words[2]):
            found[words[0]] = words[2]
    return found


def image_of(info: str, names: Mapping[str, str], container: str) -> Image | None:
    """The image of one container, from what ``ctr containers info`` prints; None where that is not understood.

    What kubelet started says by the digest of its config which image it was made from; its name may have moved since.

    :param names: names that containerd has, with their digests; an image's config digest is one of them.
    """
    try:
        document = json.loads(info)
        name, reference = str(document.get("Image") or ""), _reference(document)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if reference:
        return Image(name or reference, names.get(reference, reference if is_digest(reference) else names.get(name)))
    return Image(name or container, names.get(name))


def _reference(document: Mapping[str, Any]) -> str:
    """``ImageRef`` of a container that kubelet started; empty for its sandbox, and for others."""
    extension = (document.get("Extensions") or {}).get("io.cri-containerd.container.metadata")
    if not extension:
        return ""
    fields = {key.lower().replace("_", ""): value for key, value in extension.items()}
    return str(json.loads(base64.b64decode(fields["value"]))["Metadata"].get("ImageRef") or "")


def _ctr(containerd: Containerd, *words: str, gone: str = "") -> str:
    """Run ``ctr`` and return its output.

    :param gone: words of a failure that means that what was asked for is not there any more; the answer is empty then.
    """
    path = f"{_PATH}:{os.environ.get('PATH', '')}"
    command = next((words for words in containerd.commands if shutil.which(words[0], path=path)), None)
    if command is None:
        _unknown(str(containerd.socket), "there is no ctr to ask it with")
    try:
        done = subprocess.run(
            [*command, "--address", str(containerd.socket), "--namespace", _NAMESPACE, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_SECONDS,
            env={**os.environ, "PATH": path, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        _unknown(str(containerd.socket), f"it did not answer within {_SECONDS:.0f} s")
    if done.returncode != 0 and not (gone and gone in done.stderr):
        _unknown(str(containerd.socket), done.stderr.strip() or f"ctr ended with {done.returncode}")
    return done.stdout if done.returncode == 0 else ""


def _unknown(where: str, why: str) -> NoReturn:
    fail(
        "APL-0327",
        "the images that run on this host are unknown",
        where=where,
        why=why,
        fix="Run this as root, with K3s or its containerd running",
    )


# ----------------------------------------------------------------------------------------------- lists


def as_document(node: str, images: Iterable[Image]) -> dict[str, Any]:
    """One node's list, as ``appliance running --json`` prints it."""
    return {"node": node, "running": [{"name": image.name, "digest": image.digest} for image in images]}


def read_lists(texts: Mapping[str, str]) -> dict[str, list[Image]]:
    """Lists by node; a text holds one document of :func:`as_document`, or a JSON list of several.

    :param texts: what each is called in errors, and its content.
    :raises ApplianceError: APL-0324 for what is no list.
    """
    found: dict[str, list[Image]] = {}
    for where, text in texts.items():
        try:
            documents = json.loads(text)
            for document in documents if isinstance(documents, list) else [documents]:
                node, rows = document["node"], document["running"]
                if not isinstance(node, str) or not isinstance(rows, list):
                    raise TypeError("node is no string, or running no list")
                found.setdefault(node, []).extend(map(_image, rows))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            fail(
                "APL-0324",
                "invalid list of running images",
                where=where,
                why=f"{type(error).__name__}: {error}",
                fix="Make it on that node, as root: appliance running --json",
            )
    return found


def _image(row: Mapping[str, Any]) -> Image:
    name, digest = row["name"], row["digest"]
    if not isinstance(name, str) or not (digest is None or is_digest(digest)):
        raise TypeError(f"neither a name nor a digest: {str(row)[:200]}")
    return Image(name, digest)


def missing_nodes(nodes: Sequence[str], lists: Mapping[str, object], without: Iterable[str]) -> list[str]:
    """The nodes of the site whose list is not there and that were not left out by name."""
    return [node for node in nodes if node not in lists and node not in set(without)]
