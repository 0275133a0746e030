"""Whole media, planned and then seeded: archives of every form and directories, with whatever members.

Input: lines that say what lies on the medium, so that digests stay right while everything else changes::

    t                     the form: t tar, g gzip, z zstd, x xz, b bzip2, d a directory
    * {"os":"linux"}      a blob: its path in a layout comes from its content
    manifest.json [{}]    a member by its path
    =blobs/x -> ../secret a symbolic link; with another = before its target a hard link
    |fifo                 a pipe
    g* layer              a blob that is compressed: g gzip, z zstd

In contents ``$n`` is the digest of line n and ``%n`` its size; ``\\n`` and ``\\xhh`` are those bytes.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zstandard

from appliance.archives.sink import HashingSink
from appliance.errors import ApplianceError
from appliance.oci import mediatypes
from appliance.oci.reference import parse_reference
from appliance.publish.plan import Plan, make_plan
from appliance.publish.publisher import Result
from appliance.publish.read_media import read_sources
from appliance.publish.seed import Request, seed
from appliance.store.blobs import BlobStore
from appliance.store.catalog import Catalog
from appliance.store.fsck import check
from tests.fuzz.checks import attempt, plain
from tests.fuzz.sandbox import Sandbox, sandbox
from tests.unit.store import made
from tests.unit.store.made import sha

WORDS = (
    *("\n* ", '\noci-layout {"imageLayoutVersion":"1.0.0"}', '\nindex.json {"manifests":[', "\nmanifest.json [{"),
    *('"digest":"$1","size":%1', '"Config":"$1"', '"RepoTags":["a:1"]', '"Layers":["', "blobs/sha256/"),
    *('{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["$1"]}}', " -> ", "=", "|", "../secret"),
    *(f'"mediaType":"{kind}"' for kind in (*sorted(mediatypes.MANIFEST_TYPES), *sorted(mediatypes.INDEX_TYPES))),
    *(f'"mediaType":"{kind}"' for kind in (mediatypes.OCI_CONFIG, mediatypes.OCI_LAYER, mediatypes.OCI_LAYER_GZIP)),
    *('"annotations":{"org.opencontainers.image.ref.name":"', '"io.containerd.image.name":"', '"subject":{'),
    *("version Directory Transport Version: 1.1\n", '"config":{', '"layers":[{', '"schemaVersion":2', '"kind":'),
)
_MOST_LINES = 40
_PACK: dict[str, Callable[[bytes], bytes]] = {
    "t": bytes,
    "g": lambda data: gzip.compress(data, 1, mtime=0),
    "z": lambda data: zstandard.ZstdCompressor(1).compress(data),
    "x": lambda data: lzma.compress(data, preset=0),
    "b": lambda data: bz2.compress(data, 1),
}
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


@dataclass(frozen=True)
class Member:
    """One thing on the medium; a link has a target."""

    path: str
    content: bytes
    link: str | None = None
    is_pipe: bool = False


def parse(data: bytes) -> tuple[str, list[Member]]:
    """The form and the members of an input."""
    form, *lines = data.decode("utf-8", "replace").split("\n")[: _MOST_LINES + 1]
    members: list[Member] = []
    for line in lines:
        head, _, rest = line.partition(" ")
        if line.startswith("="):
            path, _, target = line[1:].partition(" -> ")
            members.append(Member(path, b"", target))
        elif line.startswith("|"):
            members.append(Member(line[1:], b"", is_pipe=True))
        else:
            content = _content(rest.encode(), members)
            if head[:1] in ("g", "z") and head[1:] == "*":
                content = _PACK[head[0]](content)
                head = "*"
            path = f"blobs/sha256/{sha(content).partition(':')[2]}" if head == "*" else _named(head, members)
            members.append(Member(path, content))
    return form[:1], members


def _content(text: bytes, members: list[Member]) -> bytes:
    for number in range(len(members), 0, -1):
        content = members[number - 1].content
        text = text.replace(b"$%d" % number, sha(content).encode()).replace(b"%%%d" % number, b"%d" % len(content))
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), text.replace(b"\\n", b"\n"))


def _named(head: str, members: list[Member]) -> str:
    for number in range(len(members), 0, -1):
        head = head.replace(f"${number}", sha(members[number - 1].content).partition(":")[2])
    return head


def run(data: bytes) -> None:
    """What the plan shows is what is seeded and then served, whole; or nothing of it is."""
    form, members = parse(data)
    with sandbox() as box:
        source = _write(box, form, members)
        if source is None:
            return
        box.watch()
        plan = attempt(lambda: _plan(box, source))
        assert not [*box.store.digests()], "planning wrote"
        box.check_untouched()
        result = attempt(lambda: _seed(box, source))
        if result is None:
            box.check_untouched()
            box.check_unpublished()
            assert plan is None, "the plan was shown, and is refused"
            return
        box.check_untouched()
        _served(box, result)
        if plan is not None:
            assert plan.id == result.plan.id
        again = attempt(lambda: _seed(box, source))
        assert again is not None and not again.published, "a second run changes something"


def _write(box: Sandbox, form: str, members: list[Member]) -> Path | None:
    if form != "d":
        if form not in _PACK:
            return None
        path = box.medium / "images.tar"
        path.write_bytes(_PACK[form](_tar(members)))
        return path
    root = box.medium / "layout"
    root.mkdir()
    for member in members:
        try:
            target = root / member.path
            if ".." in target.parts or not member.path or not target.is_relative_to(root):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.resolve().is_relative_to(root):
                continue  # the medium is made here, and nowhere else
            if member.link is not None:
                target.symlink_to(member.link)
            elif member.is_pipe:
                os.mkfifo(target)
            elif not os.path.lexists(target):
                target.write_bytes(member.content)
        except (OSError, ValueError):
            continue  # no file system has this name, or has it already
    return root


def _tar(members: list[Member]) -> bytes:
    out = io.BytesIO()
    for member in members:
        info = tarfile.TarInfo(member.path[:2000])
        if member.link is not None:
            info.type, info.linkname = tarfile.SYMTYPE, member.link[:2000]
            if member.link.startswith("="):
                info.type, info.linkname = tarfile.LNKTYPE, member.link[1:2000]
        elif member.is_pipe:
            info.type = tarfile.FIFOTYPE
        else:
            info.size = len(member.content)
        content = member.content + b"\0" * (-len(member.content) % 512)
        out.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + content)
    return out.getvalue() + b"\0" * 1024


def _plan(box: Sandbox, source: Path) -> Plan:
    with HashingSink(box.store) as sink:
        return make_plan(read_sources([str(source)], sink, box.store.root, None), None, box.store)


def _seed(box: Sandbox, source: Path) -> Result:
    store = BlobStore(box.store.root, reserve=0)
    return seed(made.store(store), Request([str(source)]))


def _served(box: Sandbox, result: Result) -> None:
    """Every name leads to all that was brought for it, and the store finds nothing wrong with itself."""
    generation = made.generations(box.store).current()
    shown = result.plan.as_dict()
    for note in shown["notes"]:
        plain(note)
    json.dumps(shown)
    if generation is None:
        assert not result.published and not result.plan.reading.names
        return
    catalog = Catalog(generation, box.store)
    for name, entry in generation.names.items():
        reference = parse_reference(name, default_tag=None)
        assert str(reference) == name
        served = catalog.manifest(reference.name, reference.tag or entry.descriptor.digest)
        assert served is not None and served.digest == entry.descriptor.digest
        for digest, item in catalog.closure(reference.name).items():
            assert box.store.size(digest) == item.descriptor.size, (name, digest)
    for digest, referrer in generation.referrers.items():
        listing = [
            repository
            for repository in catalog.repositories()
            if digest in {item.digest for item, _ in catalog.referrers(repository, referrer.subject)}
        ]
        assert listing, f"{digest} is kept and listed nowhere"
        assert all(catalog.manifest(repository, digest) is not None for repository in listing)
    try:
        problems = check(made.store(box.store)).problems
    except ApplianceError as error:
        raise AssertionError("a store that was just seeded cannot be checked") from error
    assert not problems, problems
